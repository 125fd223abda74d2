"""Counts n-grams: of the tokens of a dataset, or of the words of shards; exactly, in bounded memory."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, publish
from pile_tools._core import TokenDataset
from pile_tools.config import Settings
from pile_tools.errors import ConfigError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, entries, has_stream
from pile_tools.read.shards import summary as shards_summary
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.types import Counting, LengthSummary, OnProgress

#: Kinds of tables, by the ends of their names.
TABLES = (".tsv", ".parquet")

#: What a word is, and which words are the same.
WORD_RULE = "what stands between white space, as Python's str.split() cuts; compared exactly"
FOLDED_RULE = (
    "what stands between white space, as Python's str.split() cuts; lower case by simple case folding"
)

#: Numbers of the documents' groups, and their subsets: documents without a subset are named None.
Groups: TypeAlias = tuple[NDArray[np.uint32], list[str | None]]

#: Where subsets are not told apart.
ONE_GROUP: Groups = (np.zeros(0, np.uint32), [None])

#: Points of a rank-frequency curve are at least so many times as far to the right as the one before.
_RANK_STEP = 1.02


@dataclass(frozen=True, kw_only=True, slots=True)
class CountNgramsConfig:
    """What is counted, and what of it is kept.

    Attributes:
        lengths: Tokens or words of the n-grams, ascending.
    """

    lengths: tuple[int, ...] = (1,)
    min_count: int = field(default=1, metadata={"help": "Keep n-grams that occur at least so often."})
    top: int | None = field(
        default=None,
        metadata={"help": "Keep so many of each length, the most frequent ones, by falling count."},
    )
    across_documents: bool = field(
        default=False, metadata={"help": "Count tokens that run from one document into the next, too."}
    )
    ignore_case: bool = field(
        default=False, metadata={"help": "Words that differ in case only are one (simple case folding)."}
    )
    by_subset: bool = field(default=False, metadata={"help": "One more column of counts for each subset."})
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            raise ConfigError(f"n-grams have 1 token or word at least, got n = {self.lengths}")
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ConfigError(f"lengths must ascend, got n = {self.lengths}")
        if self.min_count < 1:
            raise ConfigError(f"min-count must be at least 1, got {self.min_count}")
        if self.top is not None and self.top < 1:
            raise ConfigError(f"top must be at least 1, got {self.top}")


def dataset_at(place: Path) -> Path | None:
    """The prefix of the token dataset that a place names, by prefix or file; None where it names none."""
    prefixes = (place, datasets.prefix_named(place))
    return next((p for p in prefixes if p is not None and datasets.with_suffix(p, ".idx").exists()), None)


#: Longer n-grams are all different in any text, and each length takes a table of its own.
MAX_N = 10_000


def parse_lengths(given: str) -> tuple[int, ...]:
    """The lengths of n-grams of `3`, `1-5` or `1,3`. Raises ConfigError."""
    lengths: set[int] = set()
    for part in given.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--n {given!r}: expected a number, a range such as 1-5, or a list such as 1,3")
        if len(first) > 5 or len(last) > 5 or int(last if dash else first) > MAX_N:
            raise ConfigError(f"--n {given!r}: lengths are at most {MAX_N:,}")
        lengths.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(lengths))


def count_tokens(
    prefix: Path,
    output: Path,
    config: CountNgramsConfig,
    *,
    tokenizer: TokenizerFile | None,
    memory: int,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts the n-grams of a token dataset; returns the table's manifest and whether it was made now.

    The same bytes for any number of threads and any memory. A killed job goes on after the last piece that
    was spilled. `on_progress` gets n-grams counted.

    Args:
        tokenizer: Decodes n-grams for the column `text`; None leaves it out.
        memory: Bytes to count in.

    Raises:
        ConfigError: A length that cannot be counted, subsets that are not known, another kind of file.
        OutputExistsError: The output was made before from something else and `force` is off.
        FormatError: The dataset is damaged, or the disk is too small.
        OSError: A file cannot be read or written.
    """
    if config.ignore_case:
        raise ConfigError("case can be ignored in words, not in tokens: give shards rather than a dataset")
    dataset = TokenDataset(prefix)
    groups, names = subset_groups(dataset) if config.by_subset else ONE_GROUP
    name = manifest.relative(prefix, output.parent)
    inputs: list[Entry] = [{"role": "dataset", "path": name, "fingerprint": dataset.fingerprint}]
    if tokenizer is not None:
        inputs.append(tokenizer.entry(output.parent))
    request = Request("ngrams", _settings(config, has_text=tokenizer is not None), inputs)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        counting = _counting(config, folder, request, memory, threads, force)
        lengths = _core.count_token_ngrams(
            dataset,
            counting,
            folder / output.name,
            config.across_documents,
            None if tokenizer is None else tokenizer.load(),
            groups,
            names,
            on_progress,
        )
        counted = {"n_documents": len(dataset), "n_tokens": dataset.n_tokens}
        return {**counted, "lengths": [_summary(of) for of in lengths]}, inputs

    return _make(output, request, build, force=force)


def count_words(
    shards: Sequence[Path],
    output: Path,
    config: CountNgramsConfig,
    *,
    memory: int,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts the n-grams of the words of shards; returns the table's manifest and whether it was made now.

    As `count_tokens`; a killed job goes on after the last shards whose counts were spilled. `on_progress`
    gets compressed bytes.
    """
    if config.across_documents:
        raise ConfigError("n-grams of words are counted within documents: give a dataset for those across")
    inputs = entries(shards, output.parent)
    settings = _settings(config) | {
        "rule": FOLDED_RULE if config.ignore_case else WORD_RULE,
        **config.records.settings,
    }
    request = Request("ngrams", settings, inputs)
    is_stream = has_stream(shards)
    passed_over = shards_summary(shards, output.parent)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        counting = _counting(config, folder, request, memory, threads, force)
        if is_stream:
            # What was read from it before is gone: nothing can go on with that.
            counting = dataclasses.replace(counting, job=uuid.uuid4().hex)
        counted = _core.count_word_ngrams(
            shards,
            counting,
            folder / output.name,
            config.ignore_case,
            config.by_subset,
            on_progress,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        summary = {
            "n_documents": counted["n_documents"],
            "n_bad_records": counted["n_bad_records"],
            "lengths": [_summary(of) for of in counted["lengths"]],
            # None is the name of the documents without a subset.
            "groups": [{"name": name} for name in counted["groups"]],
        }
        hashed = zip(inputs, counted["shards"], strict=True)
        known = [{**entry, "sha256": sha256} for entry, sha256 in hashed]
        return summary | passed_over, known

    return _make(output, request, build, force=force, is_stream=is_stream)


def ngrams(
    dataset: TokenDataset,
    n: int,
    *,
    across_documents: bool = False,
    min_count: int = 1,
    memory: int = 1 << 30,
    threads: int = 1,
    on_progress: OnProgress = None,
) -> tuple[NDArray[np.uint16] | NDArray[np.int32], NDArray[np.int64]]:
    """The different n-grams of a dataset, sorted, and how often each occurs, as arrays.

    Args:
        n: Tokens of an n-gram.
        across_documents: Whether an n-gram may run from one document into the next.
        min_count: N-grams that occur less often are left out.
        memory: Bytes to count in, the arrays aside; what does not fit is spilled to a temporary folder.

    Shapes: (n_distinct, n) in the dataset's dtype, (n_distinct,) int64.
    Raises: ConfigError for a length that cannot be counted.

    >>> tokens, counts = ngrams(TokenDataset("tokens/sample"), 3)  # doctest: +SKIP
    """
    config = CountNgramsConfig(lengths=(n,), min_count=min_count)
    with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
        counting = _counting(config, Path(folder), Request("ngrams", {}), memory, threads, True)
        return _core.token_ngrams(dataset, counting, across_documents, on_progress)


def subset_groups(dataset: TokenDataset) -> Groups:
    """Number of each document's subset among their names sorted; None, at the end, for those without one."""
    names: list[str | None] = [*sorted(dataset.subsets)]
    if not names:
        raise ConfigError(
            f"the subsets of the documents are not known; `pile-tools label` finds them ({dataset.prefix})"
        )
    numbers = dataset.subset_numbers(np.arange(len(dataset), dtype=np.int64))
    places = np.array([*(names.index(name) for name in dataset.subsets), len(names)], dtype=np.uint32)
    if (numbers < 0).any():
        names.append(None)
    return places[numbers], names


def _settings(config: CountNgramsConfig, **more: Any) -> Settings:
    settings: Settings = {
        "n": list(config.lengths),
        "min_count": config.min_count,
        "top": config.top,
        "across_documents": config.across_documents,
        "by_subset": config.by_subset,
    }
    if config.by_subset:
        # Tables of an earlier form are made anew.
        settings["subset_columns"] = "count:NAME"
    return settings | more


def _counting(
    config: CountNgramsConfig, folder: Path, request: Request, memory: int, threads: int, discard: bool
) -> Counting:
    return Counting(
        lengths=list(config.lengths),
        min_count=config.min_count,
        top=config.top,
        memory=memory,
        threads=threads,
        folder=folder,
        free_bytes=shutil.disk_usage(folder).free + _spilled_bytes(folder),
        job=request.digest,
        discard=discard,
    )


def _spilled_bytes(folder: Path) -> int:
    """What an interrupted run has spilled there already."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _make(
    output: Path, request: Request, build: datasets.Build, *, force: bool, is_stream: bool = False
) -> tuple[Manifest, bool]:
    if output.suffix not in TABLES:
        raise ConfigError(f"a table of counts is written as .tsv or .parquet ({output})")

    def build_table(folder: Path) -> Built:
        return Built([output.name], *build(folder))

    return publish.make(
        # Tables that differ in their last suffix alone have manifests of their own.
        Target.of(datasets.with_suffix(output, MANIFEST_SUFFIX)),
        request,
        build_table,
        force=force,
        names=[output.name],
        resumes=True,
        is_stream=is_stream,
    )


def _summary(of_length: LengthSummary) -> Settings:
    """What is told of the n-grams of one length, with points of their rank-frequency curve."""
    return {
        **{name: value for name, value in of_length.items() if name != "counts"},
        "ranks": rank_points(of_length["counts"]),
    }


def rank_points(counts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Points (rank, count) of the curve of counts by rank, the most frequent first, evenly spread by ratio.

    Args:
        counts: Pairs of a count and how many n-grams have it, ascending.
    """
    points: list[list[int]] = []
    rank, following = 0, 1.0
    for count, n in reversed(counts):
        # The first n-gram of this count and the last one are corners of the curve.
        for at in sorted({rank + 1, rank + n}):
            if at >= following or (count == counts[0][0] and at == rank + n):
                points.append([at, count])
                following = at * _RANK_STEP
        rank += n
    return points
