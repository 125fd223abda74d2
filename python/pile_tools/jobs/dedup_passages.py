"""Cuts repeated passages from shards: every byte in a window of N bytes or tokens that also occurs earlier.

`OUT/` holds the shards, `passages.parquet` with every passage and an earlier copy of it, and `manifest.json`,
written last. The rule is that of google-research/deduplicate-text-datasets, but the first copy stays, windows
do not cross documents, and no character is split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, files, publish, scratch_folders
from pile_tools.config import Settings
from pile_tools.errors import ConfigError
from pile_tools.jobs import rewriting
from pile_tools.jobs.rewriting import PASSAGES_FILE
from pile_tools.manifest import MANIFEST_FILE, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, checked_entries, entries
from pile_tools.read.shards import summary as shards_summary
from pile_tools.terminal import counted
from pile_tools.tokenizers import find_tokenizer
from pile_tools.types import OnProgress, PassageRows, PassageSearch

#: Limits of the length of a window in bytes or tokens. The core compares windows that have an anchor in
#: common, of at least 16 bytes or 8 tokens, half the minimum: shorter ones occur in texts without a common
#: window. A length above the maximum is a mistake: few documents are as long.
MIN_LENGTH, MIN_TOKENS, MAX_LENGTH = 32, 16, 1 << 20

#: Bytes of a window if no length is given.
DEFAULT_LENGTH = 100

#: Passages of the table that are in memory at once.
_CHUNK_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PassagesConfig:
    """What counts as a repeated passage."""

    length: int | None = field(
        default=None,
        metadata={
            "help": f"Least bytes of a passage that occurs at least twice.  [default: {DEFAULT_LENGTH}]",
            "metavar": "BYTES",
        },
    )
    min_tokens: int | None = field(
        default=None,
        metadata={"help": "Minimum length of a passage in tokens, instead of bytes.", "metavar": "N"},
    )
    tokenizer: Path | None = field(
        default=None,
        metadata={
            "help": "Whose tokens: a tokenizer.json, a folder that holds one, or a model id[@revision].",
            "metavar": "TOKENIZER",
        },
    )
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if (self.min_tokens is None) != (self.tokenizer is None):
            raise ConfigError("windows of tokens need both min-tokens and a tokenizer")
        if self.min_tokens is not None and self.length is not None:
            raise ConfigError("windows have a length in bytes or min-tokens, not both")
        unit, least = ("bytes", MIN_LENGTH) if self.min_tokens is None else ("tokens", MIN_TOKENS)
        if not least <= self.window <= MAX_LENGTH:
            raise ConfigError(f"length must be {least} to {MAX_LENGTH:,} {unit}, got {self.window:,}")

    @property
    def window(self) -> int:
        """Length of a window, in bytes or in tokens."""
        if self.min_tokens is not None:
            return self.min_tokens
        return DEFAULT_LENGTH if self.length is None else self.length

    @property
    def settings(self) -> Settings:
        """The settings as manifests record them."""
        unit = "length" if self.min_tokens is None else "min_tokens"
        return {unit: self.window, **self.records.settings}


def window_of(made: Manifest) -> str:
    """The length of the windows of an output of `run`, as `100 bytes`."""
    if (n_tokens := made.settings.get("min_tokens")) is not None:
        return counted(n_tokens, "token")
    return counted(made.settings["length"], "byte")


def run(
    shards: Sequence[Path],
    output: Path,
    config: PassagesConfig,
    *,
    protect: Path | None = None,
    dry_run: bool = False,
    memory: int,
    threads: int,
    force: bool = False,
    on_plan: Callable[[int, int], object] = lambda n_passes, n_bytes: None,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Writes `shards` into the folder `output` without repeated passages.

    Returns the output's manifest, and whether it was made now.

    Args:
        shards: The shards, in order.
        output: The folder of the new shards.
        config: What counts as a repeated passage.
        protect: A file that lists documents that stay whole: see `rewriting.read_protected`.
        dry_run: Write the table of passages and the manifest, but no shards.
        memory: Bytes of memory; what does not fit goes through files beside the output.
        threads: Threads; the output does not depend on it.
        force: Replace an output made from other inputs or settings.
        on_plan: Called before the work with the number of passes over the shards, and their bytes.
        on_progress: Called with the bytes read: up to twice those of the shards, and once more to write them.

    Raises:
        ConfigError: A shard is a stream, or the protected documents are not of these shards.
        OutputExistsError: The output was made from other inputs or settings and `force` is off.
        FormatError: The tokenizer is not supported; or a shard is damaged, changes while it is read, or has a
            text that cannot be tokenized: the message names shard and record.
        OSError: A file cannot be read or written.
    """
    rewriting.check_before(shards, output)
    target = Target.of(output / MANIFEST_FILE)
    inputs = entries(shards, output)
    protected, protected_entries = rewriting.protected_documents(protect, shards, output)
    source = None if config.tokenizer is None else find_tokenizer(config.tokenizer)
    tokenizer = None if source is None else source.load()
    more = [*protected_entries, *([] if source is None else [source.entry(output)])]
    request = Request("passages", {**config.settings, "dry_run": dry_run}, [*inputs, *more])
    n_bytes = sum(entry["bytes"] for entry in inputs)

    def build(folder: Path) -> Built:
        on_plan(2 if dry_run else 3, n_bytes)
        search = PassageSearch(
            length=config.window,
            protected=protected.records,
            protected_texts=protected.texts,
            memory=memory,
            threads=threads,
            folder=scratch_folders.inner(folder, "search"),
            job=request.job,
            discard=force,
        )
        rows, found = _core.find_passages(
            shards,
            search,
            on_progress,
            tokenizer=tokenizer,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        sha256 = {}
        if not dry_run:
            sha256 = rewriting.write_shards(
                shards,
                folder,
                request,
                [shard["sha256"] for shard in found["shards"]],
                config.records,
                threads=threads,
                force=force,
                on_progress=None if on_progress is None else lambda n: on_progress(2 * n_bytes + n),
                cuts=(rows["shard"], rows["record"], rows["start"], rows["end"]),
            )
        _write_table(folder / PASSAGES_FILE, rows, shards, output)
        roles = dict.fromkeys(sha256, "shard") | {PASSAGES_FILE: "passages"}
        summary = {name: value for name, value in found.items() if name != "shards"}
        checked_inputs = checked_entries(request.inputs, found["shards"])
        return Built(list(roles), summary | shards_summary(shards, output), checked_inputs, roles, sha256)

    return publish.make(
        target,
        request,
        build,
        force=force,
        names=[PASSAGES_FILE, *([] if dry_run else rewriting.output_names(shards))],
        resumes=["search", rewriting.NEW_SHARDS],
        or_else=", another folder keeps both",
    )


def _write_table(path: Path, rows: PassageRows, shards: Sequence[Path], folder: Path) -> None:
    """Writes the table of passages, in reading order.

    Columns: `shard` (the path of the old shard from `folder`), `record`, and the bytes `start` to `end` of
    its text; `copy_shard`, `copy_record` and `copy_start`: where an earlier copy of the first window of the
    passage begins.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(rewriting.table_names(shards, folder), pa.string())
    shard = pa.dictionary(pa.int32(), pa.string())
    columns = {"shard": shard, "record": pa.int64(), "start": pa.int64(), "end": pa.int64()}
    columns |= {"copy_shard": shard, "copy_record": pa.int64(), "copy_start": pa.int64()}
    arrays: dict[str, NDArray[Any]] = {name: np.asarray(values) for name, values in rows.items()}
    n = len(arrays["shard"])
    schema = pa.schema(list(columns.items()))
    with files.new_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        # One empty group if there are no passages.
        for start in range(0, max(n, 1), _CHUNK_ROWS):
            chunk = {name: values[start : start + _CHUNK_ROWS] for name, values in arrays.items()}
            batch = [
                pa.DictionaryArray.from_arrays(chunk[name].astype(np.int32), names)
                if name.endswith("shard")
                else pa.array(chunk[name].astype(np.int64))
                for name in columns
            ]
            writer.write_batch(pa.record_batch(batch, schema=writer.schema))


@dataclass(frozen=True)
class LongPassage:
    """A passage of the table.

    Attributes:
        name: SHARD:RECORD of its document.
        start, end: Its bytes in the text there.
        copy: SHARD:RECORD of the document with the earlier copy.
    """

    name: str
    start: int
    end: int
    copy: str


def longest_passages(made: Manifest, n: int) -> list[LongPassage]:
    """The `n` longest passages of an output of `run`, the longest first; raises as `reading_table`."""
    import pyarrow.parquet as pq

    longest: list[tuple[int, int, LongPassage]] = []
    n_before = 0
    with rewriting.reading_table(made, PASSAGES_FILE) as file:
        for batch in pq.ParquetFile(file).iter_batches(use_threads=False):
            lengths = batch["end"].to_numpy() - batch["start"].to_numpy()
            for i in np.argsort(-lengths, kind="stable")[:n].tolist():
                row = batch.slice(i, 1).to_pylist()[0]
                passage = LongPassage(
                    name=f"{row['shard']}:{row['record']}",
                    start=int(row["start"]),
                    end=int(row["end"]),
                    copy=f"{row['copy_shard']}:{row['copy_record']}",
                )
                longest.append((-int(lengths[i]), n_before + i, passage))
            n_before += len(lengths)
            longest = sorted(longest, key=lambda of: of[:2])[:n]
    return [passage for _, _, passage in longest]
