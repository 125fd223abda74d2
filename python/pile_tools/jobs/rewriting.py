"""What jobs that write shards again share: names, protected documents, the new shards, the old records."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from pile_tools import _core, checked, files, manifest, publish, scratch_folders
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError, first_line
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.read.shards import (
    NO_FILE,
    NO_NAME,
    OLDER,
    RecordConfig,
    Shards,
    entries,
    find_shards,
    has_stream,
    refuse_output_within,
)
from pile_tools.read.texts import read_lines
from pile_tools.tokens.documents import shard_named
from pile_tools.types import OnProgress, RewriteSummary

#: The tables beside new shards: the members of all clusters, and all passages that were cut.
CLUSTERS_FILE, PASSAGES_FILE = "clusters.parquet", "passages.parquet"

#: Beside shards without contaminated documents: all matches, all items, and the numbers of clean items.
MATCHES_FILE, ITEMS_FILE, CLEAN_FILE = "contamination.parquet", "items.parquet", "clean.json"

#: The folder in the scratch folder in which new shards are written.
NEW_SHARDS = "new-shards"

#: Names of files beside new shards, which no shard takes.
_TAKEN = {CLUSTERS_FILE, PASSAGES_FILE, MATCHES_FILE, ITEMS_FILE, CLEAN_FILE}

#: SHARD:RECORD. A name may have line ends; 18 digits fit 64 bits.
_RECORD = re.compile(r"(.+):([0-9]{1,18})", re.DOTALL)

#: The `./` and `../` at the start of a relative path.
_BEFORE = re.compile(r"\A(\.{1,2}/+)+")

#: Kinds of the manifests of outputs of `pile-tools dedup`, whose records `restored` reads.
_KINDS = ("deduplicated", "passages")


@dataclass(frozen=True)
class Protected:
    """Documents that are never changed.

    Attributes:
        records: The number of the shard and the record of each.
        texts: Texts whose documents stay, wherever they are.
    """

    records: list[tuple[int, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def check_before(shards: Sequence[Path], output: Path) -> None:
    """Raises an error for what would be noticed only after hours of work.

    Raises:
        ModuleNotFoundError: pyarrow, which writes the tables, is not installed.
        ConfigError: The output is in a folder of the shards, or a shard is a stream.
    """
    import pyarrow  # noqa: F401

    refuse_output_within(shards, output)
    if has_stream(shards):
        raise ConfigError("shards are read several times, so they cannot come from standard input or a pipe")


def output_names(shards: Sequence[Path]) -> list[str]:
    """The names of the new shards: those of the old ones, if these are unique, keep their order and are free.

    Otherwise they are numbered, since a folder of shards is read in the order of its names. What is not UTF-8
    in a name becomes U+FFFD.
    """
    names = [table_name(path.name) for path in shards]
    are_free = not any(name in _TAKEN or publish.is_reserved(name) for name in names)
    is_unchanged = names == [path.name for path in shards]
    if is_unchanged and are_free and all(a.encode() < b.encode() for a, b in itertools.pairwise(names)):
        return names
    # A number before the name of a manifest leaves it one.
    ends = ((name.removesuffix(MANIFEST_SUFFIX), name) for name in names)
    names = [name if start == name else f"{start}.json" for start, name in ends]
    return [f"{number:06}-{name}" for number, name in enumerate(names)]


def table_names(shards: Sequence[Path], folder: Path) -> list[str]:
    """The paths of shards from a folder, as a table in it names them."""
    return [table_name(manifest.relative(shard, folder)) for shard in shards]


def table_name(path: str) -> str:
    """A path as a table names it: what is not UTF-8 becomes U+FFFD."""
    return os.fsencode(path).decode(errors="replace")


def older_shards(folder: Path, shards: Sequence[Path]) -> Shards:
    """The shards of an older corpus.

    Raises:
        ConfigError: One of them is one of `shards`, whose documents would be copies of themselves.
        PileError: There are none.
    """
    older = find_shards([folder])
    # Files of ours, such as signatures, change nothing: the output is the same with them and without.
    older.passed_over = [one for one in older.passed_over if one.reason in (NO_FILE, NO_NAME)]
    refuse_common(older, shards)
    return older


def refuse_within(folder: Path, output: Path, what: str) -> None:
    """Raises ConfigError for an output in a folder that is read, which it would replace or be read with.

    Also for a folder that is in the scratch folder of the output, which is cleared.
    """
    if files.is_in(output, files.folders_in(folder)):
        raise ConfigError(f"the output is in the folder of the {what}; give another folder ({output})")
    publish.refuse_in_scratch(publish.Target.of(output / MANIFEST_FILE).scratch, [folder])


def refuse_common(older: Sequence[Path], shards: Sequence[Path]) -> None:
    """Raises ConfigError for a shard that is one of an older corpus too."""
    names = {os.path.realpath(path) for path in shards}
    for path in older:
        if os.path.realpath(path) in names:
            raise ConfigError(f"the older corpus and the shards have this shard in common ({path})")


def older_entries(older: Sequence[Path], folder: Path) -> list[Entry]:
    """The shards of an older corpus as inputs of a manifest in `folder`."""
    return [{**entry, "role": OLDER} for entry in entries(older, folder)]


def protected_documents(
    path: Path | None, shards: Sequence[Path], folder: Path
) -> tuple[Protected, list[Entry]]:
    """The documents that a file lists, and its entry in a manifest in `folder`; nothing without a file.

    Raises:
        PileError: The file changes while it is read; or as `read_protected`.
    """
    if path is None:
        return Protected(), []
    read = functools.partial(read_protected, shards=shards)
    protected, entry = manifest.read_input(read, path, folder, role="protected")
    return protected, [entry]


def read_protected(path: Path, shards: Sequence[Path]) -> Protected:
    """The documents that a file lists: lines SHARD:RECORD, or the `canaries.json` of a sample.

    Raises:
        ConfigError: A line names no record, no shard or several of them.
        PileError: Not such a file, or too large.
        OSError: The file cannot be read.
    """
    if path.suffix == ".json":
        passages = checked.read_json(path, what="a list of canaries").objects("passages")
        return Protected(texts=[passage.text("text") for passage in passages])
    records = []
    named = _Named(shards)
    for number, data in enumerate(read_lines(path), 1):
        # File names may have any bytes except a line feed.
        line = data.decode(errors="surrogateescape").strip(" \t")
        if line:
            found = _RECORD.fullmatch(line)
            if found is None:
                raise ConfigError(f"line {number} is not SHARD:RECORD ({path})")
            records.append((named.number(found[1]), int(found[2])))
    return Protected(records=records)


class _Named:
    """Shards by their names in lists that people or our tables wrote."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._paths = [str(path) for path in shards]
        self._numbers: dict[str, int] = {}

    @functools.cached_property
    def _real(self) -> list[str]:
        return [os.path.realpath(path) for path in self._paths]

    def number(self, name: str) -> int:
        """The number of the shard whose path is `name` or ends with it.

        Absolute paths are compared with links and `..` resolved. The `..` at the start of a relative path are
        left out: tables beside new shards write them, as they name shards from their folder.

        Raises:
            ConfigError: There is not exactly one.
        """
        if name not in self._numbers:
            # No path has a NUL, for which `realpath` raises an error.
            if name.startswith("/") and "\0" not in name:
                paths, of = self._real, os.path.realpath(name)
            else:
                paths, of = self._paths, _BEFORE.sub("", name)
            self._numbers[name] = paths.index(shard_named(paths, of, "the given"))
        return self._numbers[name]


@dataclass(frozen=True)
class Rewriting:
    """Shards that one call writes again; it pickles.

    Attributes:
        shards: The shards.
        names: The names of the new ones.
        folder: The folder in which they are written, or resumed.
        job: The digest of what the new shards depend on.
        sha256: The checksums that the shards must have.
        records: How records are read.
        force: Whether finished shards of another job are discarded.
        changes: `removed`, `cuts` or `marks` of `_core.rewrite_shards`.
    """

    shards: list[Path]
    names: list[str]
    folder: Path
    job: str
    sha256: list[str]
    records: RecordConfig
    force: bool
    changes: dict[str, Any]

    def run(self, threads: int, on_progress: OnProgress) -> RewriteSummary:
        """Writes the new shards; raises as `write_shards`."""
        return _core.rewrite_shards(
            self.shards,
            self.names,
            self.folder,
            self.job,
            threads,
            self.force,
            on_progress,
            sha256=self.sha256,
            text_field=self.records.text_field,
            max_record=self.records.max_record_bytes,
            **self.changes,
        )

    def of_shard(self, index: int) -> Rewriting:
        """That of one shard, in a folder of its own."""

        def part(columns: tuple[Any, ...]) -> tuple[Any, ...]:
            # The first column is the shard of each change, ascending. Here there is only shard 0.
            shards, *others = columns
            first, end = (int(np.searchsorted(shards, index, side)) for side in ("left", "right"))
            return (
                np.zeros(end - first, dtype=shards.dtype),
                *(_rows(other, first, end) for other in others),
            )

        return Rewriting(
            [self.shards[index]],
            [self.names[index]],
            self.folder / f"{index:06}",
            self.job,
            [self.sha256[index]],
            self.records,
            self.force,
            {name: part(columns) for name, columns in self.changes.items()},
        )


def _rows(column: Any, first: int, end: int) -> Any:
    """Some rows of a column of changes. A mark has a name, and a list of names with columns.

    Copies, so that the part of one shard does not keep the columns of all in memory.
    """
    if isinstance(column, str):
        return column
    if isinstance(column, list):
        return [(name, values[first:end].copy()) for name, values in column]
    return column[first:end].copy()


class RewriteWorkers(Protocol):
    """Other processes that write new shards."""

    def rewrite(self, parts: Sequence[Rewriting], on_progress: OnProgress) -> list[RewriteSummary]:
        """Calls `run` of each part."""


def write_shards(
    shards: Sequence[Path],
    folder: Path,
    request: Request,
    sha256: Sequence[str],
    records: RecordConfig,
    *,
    threads: int,
    force: bool,
    on_progress: OnProgress,
    workers: RewriteWorkers | None = None,
    **changes: Any,
) -> dict[str, str]:
    """Writes new shards into a job's scratch folder, under `output_names`, or resumes; returns their SHA-256.

    Args:
        shards: The shards.
        folder: The scratch folder.
        request: What the job makes.
        sha256: The checksums of all shards that were read, older ones first. Those of `shards` must not have
            changed, and what changes in one shard depends on all.
        records: How records are read.
        threads: Threads; each writes a shard.
        force: Whether finished shards of another job are discarded.
        on_progress: Called with the bytes read.
        workers: Processes of which each writes a shard. Without them this one writes all.
        changes: `removed`, `cuts` or `marks` of `_core.rewrite_shards`.

    Raises:
        FormatError: A shard is damaged or was changed.
        OSError: A file cannot be read or written.
    """
    # Shards that a killed job has written are of use only if the others were the same then.
    new_shards = scratch_folders.inner(
        scratch_folders.inner(folder, NEW_SHARDS), fingerprint(list(sha256))[:16]
    )
    names = output_names(shards)
    own_sha256 = list(sha256)[len(sha256) - len(shards) :]
    every = Rewriting(list(shards), names, new_shards, request.job, own_sha256, records, force, changes)
    if workers is None:
        parts = [every]
        # Those that a killed job has moved already. The core compares them with their checksums. Workers
        # write them again: all shards are moved at the end, so a job is rarely killed in between.
        for name in names:
            if (folder / name).is_file():
                (folder / name).replace(new_shards / name)
        rewritten = [every.run(threads, on_progress)]
    else:
        parts = [every.of_shard(index) for index in range(len(shards))]
        rewritten = workers.rewrite(parts, on_progress)
    found = {}
    for part, summary in zip(parts, rewritten, strict=True):
        for shard in summary["shards"]:
            if (made := shard["output"]) is not None:
                # Not linked: a published file must not be changed by what happens to the scratch folder.
                (part.folder / made["name"]).replace(folder / made["name"])
                found[made["name"]] = made["sha256"]
    return found


@contextlib.contextmanager
def reading_table(made: Manifest, name: str) -> Iterator[IO[bytes]]:
    """A context with an open table beside new shards, whose failures to be read name it.

    Raises:
        FormatError: It is not the file that the manifest lists, or not a table of ours.
        OSError: It cannot be read.
    """
    import pyarrow as pa

    path = made.folder / name
    # pyarrow can abort the process on a damaged file.
    if not any(entry["path"] == name and manifest.matches(path, entry) for entry in made.outputs):
        raise FormatError(f"is not the file that its manifest lists; make the output again ({path})")
    try:
        with path.open("rb") as file:
            yield file
    except (pa.ArrowException, LookupError, TypeError, ValueError, OSError) as err:
        # pyarrow raises OSError for damaged data too, without an error number.
        if isinstance(err, OSError) and err.errno is not None:
            raise
        raise FormatError(f"not a table that pile-tools wrote: {first_line(err)} ({path})") from err


def text_of(made: Manifest, name: str) -> str:
    """The text of a record of the shards from which `made` was made. Takes and raises as `restored`."""
    _, path, record = _found(made, name)
    return _read(made, path, record)[1]


def restored(output: Path, name: str) -> bytes:
    """A record of the shards from which `output` was made, as it is stored there, removed or changed or not.

    Args:
        output: The folder of the new shards.
        name: `SHARD:RECORD`, as the table there names it; the end of the shard's path is enough.

    Raises:
        ConfigError: The name is no SHARD:RECORD of these shards.
        FormatError: The shard is damaged or was changed, or the manifest does not say what it was.
        OSError: The shard is not here any more.
    """
    made = manifest.read(output / MANIFEST_FILE)
    if made.kind not in _KINDS:
        raise ConfigError(f"{made.kind}, not the output of pile-tools dedup ({output})")
    entry, path, record = _found(made, name)
    recorded = manifest.checked_entry(made, entry).integer("bytes"), manifest.required(made, entry, "sha256")
    # Another record may have this number in a shard that was changed.
    if checked.sha256(path) != recorded:
        raise FormatError(f"changed since {output} was made from it, so its records may be others ({path})")
    return _read(made, path, record)[0]


def is_here(made: Manifest, name: str) -> bool:
    """Whether the shard of a record is there, which an older one need not be. Takes as `restored`."""
    return _found(made, name)[1].is_file()


def _found(made: Manifest, name: str) -> tuple[Entry, Path, int]:
    """The entry and the path of the shard that SHARD:RECORD names, and the record."""
    match = _RECORD.fullmatch(name)
    if match is None:
        raise ConfigError(f"expected SHARD:RECORD, such as 04.jsonl.zst:52, got {name!r}")
    inputs = [entry for entry in made.inputs if entry["role"] in ("shard", OLDER)]
    shards = [manifest.input_path(made, entry) for entry in inputs]
    named = [table_name(entry["path"]) for entry in inputs]
    number = named.index(match[1]) if match[1] in named else _Named(shards).number(match[1])
    return inputs[number], shards[number], int(match[2])


def _read(made: Manifest, path: Path, record: int) -> tuple[bytes, str]:
    return _core.read_record(path, record, text_field=made.checked_settings.text("text_field"))
