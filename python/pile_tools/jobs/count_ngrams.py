"""Counts n-grams exactly and in bounded memory: those of a dataset's tokens, or of the words of shards."""

from __future__ import annotations

import re
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
from pile_tools.publish import STATE, Built, Target
from pile_tools.read.shards import RecordConfig, entries, has_stream, refuse_output_within
from pile_tools.read.shards import summary as shards_summary
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.types import Counting, LengthSummary, OnProgress

#: Suffixes of tables of n-grams.
TABLE_SUFFIXES = (".tsv", ".parquet")

#: The setting `rule` of counts of words: what a word is, and which words are equal. Part of the request: with
#: another wording here, finished tables would be refused as made with other settings.
WORD_RULE = "what stands between white space, as Python's str.split() cuts; compared exactly"
FOLDED_RULE = (
    "what stands between white space, as Python's str.split() cuts; lower case by simple case folding"
)

#: The index of each document's group, and the subset of each group: None is that of documents without one.
Groups: TypeAlias = tuple[NDArray[np.uint32], list[str | None]]

#: A single group, for counts that are not by subset. No indices: all documents are in group 0.
ONE_GROUP: Groups = (np.zeros(0, np.uint32), [None])

#: Minimum ratio of the ranks of neighboring points of a rank-frequency curve.
_RANK_STEP = 1.02


@dataclass(frozen=True, kw_only=True, slots=True)
class CountNgramsConfig:
    """Which n-grams are counted, and which of them are retained.

    Attributes:
        lengths: Lengths of the n-grams in tokens or words, ascending.
    """

    lengths: tuple[int, ...] = (1,)
    min_count: int = field(default=1, metadata={"help": "Minimum occurrences of an n-gram in the table."})
    top: int | None = field(
        default=None,
        metadata={"help": "Only the most frequent n-grams of each length, this many, by descending count."},
    )
    across_documents: bool = field(
        default=False, metadata={"help": "Also count n-grams of tokens that continue into the next document."}
    )
    ignore_case: bool = field(
        default=False,
        metadata={"help": "Count words that differ only in case as equal (simple case folding)."},
    )
    by_subset: bool = field(default=False, metadata={"help": "Add a column of counts for each subset."})
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            shown = min(self.lengths, default="no length")
            raise ConfigError(f"n-grams have at least 1 token or word, got n = {shown}")
        if list(self.lengths) != sorted(set(self.lengths)):
            shown = ",".join(map(str, self.lengths))
            raise ConfigError(f"lengths must ascend, got n = {shown}")
        if self.min_count < 1:
            raise ConfigError(f"min-count must be at least 1, got {self.min_count}")
        if self.top is not None and self.top < 1:
            raise ConfigError(f"top must be at least 1, got {self.top}")


def dataset_at(path: Path) -> Path | None:
    """The prefix of the token dataset at a prefix or file of a dataset; None if there is no dataset.

    Raises:
        PileError: The dataset is being replaced.
    """
    prefixes = [prefix for prefix in (path, datasets.prefix_named(path)) if prefix is not None]
    for prefix in prefixes:
        if datasets.with_suffix(prefix, ".idx").exists():
            return prefix
    for prefix in prefixes:
        publish.refuse_while_replaced(publish.Target.of(datasets.with_suffix(prefix, MANIFEST_SUFFIX)))
    return None


#: Maximum length of n-grams that `parse_lengths` accepts. Longer ones are practically all distinct, and each
#: length needs a table. The core has limits of its own.
MAX_N = 10_000


def parse_lengths(given: str) -> tuple[int, ...]:
    """Parses lengths of n-grams such as `3`, `1-5` or `1,3`; returned ascending. Raises ConfigError."""
    lengths: set[int] = set()
    for part in given.split(","):
        first, dash, last = part.strip().partition("-")
        if not re.fullmatch(r"[0-9]+", first) or (dash and not re.fullmatch(r"[0-9]+", last)):
            raise ConfigError(f"n {given!r}: expected a number, a range such as 1-5, or a list such as 1,3")
        # Five digits hold MAX_N, and `int` raises another error for thousands of them.
        if len(first) > 5 or len(last) > 5 or int(last if dash else first) > MAX_N:
            raise ConfigError(f"n {given!r}: lengths are at most {MAX_N:,}")
        if dash and int(last) < int(first):
            raise ConfigError(f"n {given!r}: a range ascends, as in 1-5")
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
    """Counts the n-grams of a token dataset into a table.

    The table has the same bytes for any number of threads and any memory. A killed job resumes from the
    counts that it spilled to disk.

    Args:
        prefix: Prefix of the dataset.
        output: The table, `.tsv` or `.parquet`.
        config: What is counted.
        tokenizer: Decodes n-grams for the column `text`; None leaves the column out.
        memory: Maximum bytes of the counting tables; counts that do not fit are spilled to disk.
        threads: Threads that count.
        force: Replace output made from other inputs or settings.
        on_progress: Called with the number of n-grams counted.

    Returns:
        The table's manifest, and whether the table was made now (True) or was already complete (False).

    Raises:
        ConfigError: A length cannot be counted, the subsets are unknown, or the table has another suffix.
        OutputExistsError: The output exists, was made from other inputs or settings, and `force` is off.
        FormatError: The dataset is damaged, or the disk is too small.
        OSError: A file cannot be read or written.
    """
    if config.ignore_case:
        raise ConfigError("case can be ignored in words, not in tokens: give shards instead of a dataset")
    dataset = TokenDataset(prefix)
    groups, names = subset_groups(dataset) if config.by_subset else ONE_GROUP
    inputs = [datasets.entry(dataset, output.parent)]
    if config.by_subset:
        inputs += datasets.origin_entries(dataset, output.parent)
    if tokenizer is not None:
        inputs.append(tokenizer.entry(output.parent))
    request = Request("ngrams", _settings(config, has_text=tokenizer is not None), inputs)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        counting = _counting(config, folder, request.digest, memory, threads, force)
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
        return {**counted, "lengths": [_summary(length) for length in lengths]}, inputs

    return make_table(output, request, build, suffixes=TABLE_SUFFIXES, force=force, resumes=[STATE])


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
    """Counts the n-grams of the words of shards into a table. Takes, returns and raises as `count_tokens`.

    A killed job resumes after the last shards whose counts it spilled to disk. `on_progress` is called with
    the compressed bytes read.
    """
    if config.across_documents:
        raise ConfigError(
            "n-grams of words are counted within documents: give a dataset to count across documents"
        )
    # A .parquet file is read as a shard, a .tsv file is not.
    if output.suffix == ".parquet":
        refuse_output_within(shards, output)
    inputs = entries(shards, output.parent)
    settings = _settings(config) | {
        "rule": FOLDED_RULE if config.ignore_case else WORD_RULE,
        **config.records.settings,
    }
    request = Request("ngrams", settings, inputs)
    is_stream = has_stream(shards)
    passed_over = shards_summary(shards, output.parent)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        # A stream cannot be read again, so a job with one never resumes.
        job = uuid.uuid4().hex if is_stream else request.job
        counting = _counting(config, folder, job, memory, threads, force)
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
            # The name None is that of documents without a subset.
            "groups": [{"name": name} for name in counted["groups"]],
        }
        return summary | passed_over, manifest.with_checksums(inputs, counted["shards"])

    return make_table(
        output, request, build, suffixes=TABLE_SUFFIXES, force=force, resumes=[STATE], is_stream=is_stream
    )


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
    """The distinct n-grams of a dataset, sorted, and the number of occurrences of each.

    Args:
        dataset: The dataset.
        n: Tokens of an n-gram.
        across_documents: Whether an n-gram may continue into the next document.
        min_count: Minimum occurrences of the n-grams returned.
        memory: Maximum bytes of the counting tables, without the arrays returned; counts that do not fit are
            spilled to a temporary folder.
        threads: Threads that count.
        on_progress: Called with the number of n-grams counted.

    Returns:
        N-grams (n_distinct, n) in the dataset's dtype, and counts (n_distinct,) int64.

    Raises:
        ConfigError: N-grams of this length cannot be counted.

    >>> tokens, counts = ngrams(TokenDataset("tokens/sample"), 3)  # doctest: +SKIP
    """
    config = CountNgramsConfig(lengths=(n,), min_count=min_count)
    with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
        counting = _counting(config, Path(folder), Request("ngrams", {}).digest, memory, threads, True)
        return _core.token_ngrams(dataset, counting, across_documents, on_progress)


def subset_groups(dataset: TokenDataset) -> Groups:
    """The index of each document's subset, and the sorted names of the subsets.

    None is the last name if documents without a subset exist, and the only one if no document has a subset.

    Raises:
        ConfigError: The dataset has no provenance, so the subsets are unknown.
    """
    if not dataset.has_provenance:
        raise ConfigError(
            f"the subsets of the documents are unknown; `pile-tools label` finds them ({dataset.prefix})"
        )
    names: list[str | None] = [*sorted(dataset.subsets)]
    numbers = dataset.subset_numbers(np.arange(len(dataset), dtype=np.int64))
    index = {name: i for i, name in enumerate(names)}
    # By the dataset's number of a subset; the last item is for number -1, that of documents without one.
    indices = np.array([*(index[name] for name in dataset.subsets), len(names)], dtype=np.uint32)
    if (numbers < 0).any() or not names:
        names.append(None)
    return indices[numbers], names


def _settings(config: CountNgramsConfig, **more: Any) -> Settings:
    settings: Settings = {
        "n": list(config.lengths),
        "min_count": config.min_count,
        "top": config.top,
        "across_documents": config.across_documents,
        "by_subset": config.by_subset,
    }
    if config.by_subset:
        # Tables with the earlier column names are refused, not taken for these.
        settings["subset_columns"] = "count:NAME"
    return settings | more


def _counting(
    config: CountNgramsConfig, folder: Path, job: str, memory: int, threads: int, force: bool
) -> Counting:
    return Counting(
        lengths=list(config.lengths),
        min_count=config.min_count,
        top=config.top,
        memory=memory,
        threads=threads,
        folder=folder,
        free_bytes=shutil.disk_usage(folder).free + _spilled_bytes(folder),
        job=job,
        discard=force,
    )


def _spilled_bytes(folder: Path) -> int:
    """Bytes that an interrupted run has spilled to the folder: they were free before the job's first run."""
    return sum(path.stat().st_size for path in folder.iterdir())


def make_table(
    output: Path,
    request: Request,
    build: datasets.Build,
    *,
    suffixes: Sequence[str],
    force: bool,
    more_names: Sequence[str] = (),
    resumes: Sequence[str] | None = None,
    is_stream: bool = False,
) -> tuple[Manifest, bool]:
    """Makes and publishes a table of counts. Returns and raises as `publish.make`.

    Args:
        output: The table.
        request: Kind, settings and inputs of the table.
        build: Writes the table to a folder; returns the manifest's summary and inputs.
        suffixes: Allowed suffixes of the table.
        force: As in `publish.make`.
        more_names: Names of further tables, which the manifest lists first.
        resumes: As in `publish.make`.
        is_stream: As in `publish.make`.
    """
    if output.suffix not in suffixes:
        raise ConfigError(f"a table of counts is written as {' or '.join(suffixes)} ({output})")
    names = [*more_names, output.name]

    def build_tables(folder: Path) -> Built:
        return Built(names, *build(folder))

    return publish.make(
        # Appended to the whole name, so that x.tsv and x.parquet have separate manifests.
        Target.of(datasets.with_suffix(output, MANIFEST_SUFFIX)),
        request,
        build_tables,
        force=force,
        names=names,
        resumes=resumes,
        is_stream=is_stream,
    )


def _summary(length: LengthSummary) -> Settings:
    """The summary of one length of n-grams, with points of the rank-frequency curve instead of counts."""
    return {
        **{name: value for name, value in length.items() if name != "counts"},
        "ranks": rank_points(length["counts"]),
    }


def rank_points(counts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Points (rank, count) of the rank-frequency curve, by ascending rank, evenly spaced on a log scale.

    Args:
        counts: Pairs of a count and the number of n-grams with it, by ascending count.
    """
    points: list[list[int]] = []
    rank, next_rank = 0, 1.0
    for count, n in reversed(counts):
        # The curve is a staircase: its corners are the first and the last rank of each count.
        for corner in sorted({rank + 1, rank + n}):
            if corner >= next_rank or (count == counts[0][0] and corner == rank + n):
                points.append([corner, count])
                next_rank = corner * _RANK_STEP
        rank += n
    return points
