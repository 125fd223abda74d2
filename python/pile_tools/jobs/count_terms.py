"""Counts terms in the documents of shards or of a dataset, or in the rows of an order before checkpoints."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, timeline
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, PileError
from pile_tools.jobs.count_ngrams import ONE_GROUP, make_table, rank_points, subset_groups
from pile_tools.manifest import Entry, Manifest, Request
from pile_tools.order.order import Order
from pile_tools.read.shards import RecordConfig, entries, has_stream
from pile_tools.read.shards import summary as shards_summary
from pile_tools.read.texts import encoded, normalized, read_texts
from pile_tools.tables import column_of, escaped
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.types import OnProgress, TermQuery

#: Maximum number of terms of which all pairs are counted. These are two million pairs: each is a line of the
#: table, and a counter in each thread.
MAX_PAIRED_TERMS = 2000

#: Terms that the summary lists, and those of them with a curve over steps, which a chart can still show.
_N_BEST, _N_CURVES = 20, 8

#: Lines of a table written per call.
_LINES_PER_WRITE = 1 << 16

#: The setting `rule` of counts by Pythia's arithmetic rule.
ARITHMETIC = "pythia-arithmetic"

#: The setting `normalizer` of counts without a tokenizer, whose texts and terms are not normalized.
AS_WRITTEN = "as written"


@dataclass(frozen=True, kw_only=True, slots=True)
class CountTermsConfig:
    """Which occurrences are counted."""

    whole_words: bool = field(
        default=False,
        metadata={"help": "Count a term only if no word character (Unicode's \\w) is next to it."},
    )
    ignore_case: bool = field(
        default=False, metadata={"help": "Ignore differences in case (simple case folding)."}
    )
    by_subset: bool = field(default=False, metadata={"help": "Add two columns of counts for each subset."})
    within: str = field(
        default="unit",
        metadata={
            "help": "Count a pair once per document or row, or each time its terms are within WORDS words.",
            "metavar": "unit|WORDS",
        },
    )
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        # The core has 32 bits for the words. At most ten digits, as `int` raises for thousands of them.
        if self.within != "unit" and not (
            re.fullmatch(r"[0-9]{1,10}", self.within) and 0 < int(self.within) < 2**31
        ):
            raise ConfigError(f"within must be unit or a number of words, got {self.within}")

    @property
    def within_words(self) -> int | None:
        """Maximum distance in words of the terms of a pair, or None for the same document or row."""
        return None if self.within == "unit" else int(self.within)

    @property
    def rule(self) -> str:
        """The rule in words. It is part of the request: another wording would make finished tables again."""
        words = ", as a whole word" if self.whole_words else ""
        case = ", whatever its case" if self.ignore_case else ""
        return (
            f"a term occurs where its bytes stand in the text{words}{case}; overlapping occurrences all count"
        )


@dataclass(frozen=True)
class TermList:
    """The terms to count, and pairs of them.

    Attributes:
        texts: The terms. A `str` is normalized as the tokenizer normalizes text; bytes are used as they are.
        pairs: Indices of the two terms of each pair.
        inputs: Manifest entries of the files that list terms and pairs.
    """

    texts: Sequence[str | bytes]
    pairs: list[tuple[int, int]]
    inputs: list[Entry]

    @property
    def names(self) -> list[str]:
        """The terms as written, not normalized, as fields of a TSV file."""
        return [
            escaped(text if isinstance(text, str) else text.decode(errors="replace")) for text in self.texts
        ]

    def query(self, config: CountTermsConfig, threads: int, tokenizer: Tokenizer | None = None) -> TermQuery:
        """The query for the core. Without a tokenizer the terms are not normalized."""
        return TermQuery(
            terms=[normalized(text, tokenizer) for text in self.texts],
            whole_words=config.whole_words,
            ignore_case=config.ignore_case,
            pairs=self.pairs,
            within_words=config.within_words,
            threads=threads,
        )


def read_terms(terms_file: Path, pairs: str | None, folder: Path) -> TermList:
    """Reads terms and pairs of terms.

    Args:
        terms_file: A file with a term per line.
        pairs: A file with two terms per line, separated by a tab; `all` for all pairs; None for no pairs.
        folder: The folder of the manifest that will list the files.

    Raises:
        PileError: The file has no terms or an invalid line, or a pair has a term that is not in it.
        ConfigError: All pairs of more than `MAX_PAIRED_TERMS` terms.
    """
    terms, terms_entry = manifest.read_input(read_texts, terms_file, folder, role="terms")
    inputs = [terms_entry]
    if pairs is None:
        return TermList(terms, [], inputs)
    if pairs == "all":
        if len(terms) > MAX_PAIRED_TERMS:
            raise ConfigError(
                f"all pairs of {len(terms):,} terms: at most {MAX_PAIRED_TERMS:,}; list the pairs in a file"
            )
        return TermList(terms, list(itertools.combinations(range(len(terms)), 2)), inputs)
    path = Path(pairs)
    indices = {term: index for index, term in enumerate(terms)}
    found = []
    lines, pairs_entry = manifest.read_input(read_texts, path, folder, role="pairs")
    for line_number, line in enumerate(lines, 1):
        pair = line.split("\t")
        if len(pair) != 2:
            raise PileError(f"expected two terms separated by a tab ({path}, line {line_number})")
        for term in pair:
            if term not in indices:
                raise PileError(f"{term!r} is not in {terms_file} ({path}, line {line_number})")
        found.append((indices[pair[0]], indices[pair[1]]))
    return TermList(terms, found, [*inputs, pairs_entry])


def count_in_shards(
    shards: Sequence[Path],
    output: Path,
    terms: TermList,
    config: CountTermsConfig,
    *,
    tokenizer: TokenizerFile | None = None,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts terms in the documents of shards into a table.

    The table has a line for each term: `term`, `occurrences`, `documents`, and with `by_subset` two more
    columns for each subset if there are several (see `tables.column_of`). Pairs are counted into a second
    table, `NAME.pairs.tsv`.

    Args:
        shards: The shards.
        output: The table, `NAME.tsv`.
        terms: The terms and pairs to count.
        config: Which occurrences are counted.
        tokenizer: Normalizes texts and terms, so that the counts equal those of its datasets. Without one,
            texts and terms are compared as written.
        threads: Threads that count.
        force: Replace output made from other inputs or settings.
        on_progress: Called with the compressed bytes read.

    Returns:
        The table's manifest, and whether the table was made now (True) or was already complete (False).

    Raises:
        OutputExistsError: The output exists, was made from other inputs or settings, and `force` is off.
        FormatError: A shard is damaged; the message names file and position.
        OSError: A file cannot be read or written.
    """
    inputs = entries(shards, output.parent)
    loaded = None if tokenizer is None else tokenizer.load()
    sources = [] if tokenizer is None else [tokenizer.entry(output.parent)]
    request = _request(config, terms, [*sources, *inputs], loaded, **config.records.settings)
    query = terms.query(config, threads, loaded)
    passed_over = shards_summary(shards, output.parent)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        tables, names, n_documents, n_bad, hashes = _core.shards_terms(
            shards,
            query,
            config.by_subset,
            on_progress,
            tokenizer=loaded,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        counted = {"n_documents": n_documents, "n_bad_records": n_bad, **passed_over}
        summary = _write_tables(folder / output.name, terms, query, tables, names)
        read = manifest.with_checksums(inputs, hashes)
        return counted | summary, [*terms.inputs, *sources, *read]

    return _make(output, request, build, force=force, is_stream=has_stream(shards))


def count_in_dataset(
    prefix: Path,
    output: Path,
    terms: TermList,
    config: CountTermsConfig,
    *,
    tokenizer: TokenizerFile,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts terms in the decoded documents of a token dataset; otherwise as `count_in_shards`.

    The end-of-document token is not part of the text. `on_progress` is called with the tokens read.
    """
    dataset = TokenDataset(prefix)
    groups, names = subset_groups(dataset) if config.by_subset else ONE_GROUP
    inputs = [tokenizer.entry(output.parent), datasets.entry(dataset, output.parent)]
    if config.by_subset:
        inputs += datasets.origin_entries(dataset, output.parent)
    loaded = tokenizer.load()
    eod = datasets.eod_of(dataset, loaded)
    query = terms.query(config, threads, loaded)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        tables = _core.dataset_terms(dataset, loaded, query, groups, len(names), eod, on_progress)
        counted = {"n_documents": len(dataset), "n_tokens": dataset.n_tokens}
        summary = _write_tables(folder / output.name, terms, query, tables, names)
        return counted | summary, [*terms.inputs, *inputs]

    return _make(output, _request(config, terms, inputs, loaded), build, force=force)


def count_in_order(
    order: Order,
    output: Path,
    terms: TermList,
    config: CountTermsConfig,
    steps: Sequence[int],
    *,
    tokenizer: TokenizerFile,
    batch_size: int | None = None,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts terms in the rows of an order before each of `steps`, ascending; otherwise as `count_in_shards`.

    The table has a line for each term and step: `term`, `step`, `occurrences`, `samples`. `batch_size` is the
    samples of a step, by default the order's own. `on_progress` is called with the rows read.
    """
    if config.by_subset:
        raise ConfigError("counts by subset need documents: give shards or a dataset instead of an order")
    step_settings = _step_settings(order, steps, batch_size)
    loaded = tokenizer.load()
    request = _request(config, terms, _order_entries(order, tokenizer, output), loaded, **step_settings)
    query = terms.query(config, threads, loaded)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        found = timeline.count_terms(
            order,
            query,
            steps,
            tokenizer=loaded,
            batch_size=batch_size,
            on_progress=on_progress,
        )
        names = terms.names
        header = ("term", "step", "occurrences", "samples")
        rows = (
            (name, step, found.occurrences[i, t], found.samples[i, t])
            for t, name in enumerate(names)
            for i, step in enumerate(steps)
        )
        _write_lines(folder / output.name, header, rows)
        if terms.pairs:
            pairs = (
                (names[a], names[b], step, found.pairs[i, p])
                for p, (a, b) in enumerate(terms.pairs)
                for i, step in enumerate(steps)
            )
            _write_lines(_pairs_path(folder / output.name), ("first", "second", "step", "together"), pairs)
        # Counts are cumulative: those of the last step are of all rows read.
        summary = _summary(terms, query, found.occurrences[-1], found.samples[-1])
        best = [term["number"] for term in summary["best"][:_N_CURVES]]
        summary["curves"] = [
            {"term": names[t], "occurrences": found.occurrences[:, t].tolist()} for t in best
        ]
        return summary | {"steps": list(steps)}, request.inputs

    return _make(output, request, build, force=force)


def count_arithmetic(
    order: Order,
    output: Path,
    steps: Sequence[int],
    *,
    tokenizer: TokenizerFile,
    batch_size: int | None = None,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts by Pythia's arithmetic rule in the rows of an order before each of `steps`, ascending.

    The table has a line for each key and step: `key`, `step`, `count`. Otherwise as `count_in_order`.
    """
    settings = {"rule": ARITHMETIC} | _step_settings(order, steps, batch_size)
    request = Request("terms", settings, _order_entries(order, tokenizer, output))
    loaded = tokenizer.load()

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        found = timeline.count_arithmetic(
            order,
            steps,
            tokenizer=loaded,
            batch_size=batch_size,
            threads=threads,
            on_progress=on_progress,
        )
        # Counts are cumulative: the last step has every key.
        last = found[-1]
        rows = (
            (key, step, counts.get(key, 0)) for key in last for step, counts in zip(steps, found, strict=True)
        )
        _write_lines(folder / output.name, ("key", "step", "count"), rows)
        best = sorted(last, key=lambda key: (-last[key], key))[:_N_BEST]
        curves = [
            {"term": key, "occurrences": [counts.get(key, 0) for counts in found]} for key in best[:_N_CURVES]
        ]
        listed = [{"term": key, "occurrences": last[key]} for key in best]
        summary = {"n_keys": len(last), "n_counts": sum(last.values()), "steps": list(steps)}
        return summary | {"best": listed, "curves": curves}, request.inputs

    return _make(output, request, build, force=force)


def _request(
    config: CountTermsConfig, terms: TermList, inputs: list[Entry], tokenizer: Tokenizer | None, **more: Any
) -> Request:
    settings = {
        "rule": config.rule,
        "normalizer": AS_WRITTEN if tokenizer is None else tokenizer.normalizer or "none",
        "whole_words": config.whole_words,
        "ignore_case": config.ignore_case,
        "by_subset": config.by_subset,
        "within": "unit" if config.within_words is None else str(config.within_words),
        "n_pairs": len(terms.pairs),
    }
    return Request("terms", settings | more, [*terms.inputs, *inputs])


def _order_entries(order: Order, tokenizer: TokenizerFile, output: Path) -> list[Entry]:
    return [tokenizer.entry(output.parent), *order.entries(output.parent)]


def _step_settings(order: Order, steps: Sequence[int], batch_size: int | None) -> Settings:
    _, size = timeline.extent(order, batch_size)
    return {"steps": list(steps), "batch_size": size}


def _make(
    output: Path, request: Request, build: datasets.Build, *, force: bool, is_stream: bool = False
) -> tuple[Manifest, bool]:
    pairs = [_pairs_path(output).name] if request.settings.get("n_pairs") else []
    return make_table(
        output, request, build, suffixes=[".tsv"], force=force, more_names=pairs, is_stream=is_stream
    )


def _pairs_path(table: Path) -> Path:
    return table.with_suffix(".pairs.tsv")


def _write_lines(path: Path, header: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(header) + "\n")
        while lines := ["\t".join(map(str, row)) + "\n" for row in itertools.islice(rows, _LINES_PER_WRITE)]:
            file.writelines(lines)


def _write_tables(
    path: Path,
    terms: TermList,
    query: TermQuery,
    tables: Sequence[NDArray[np.int64]],
    subsets: Sequence[str | None],
) -> Settings:
    """Writes the tables of counts in documents, and returns the manifest's summary.

    Args:
        path: The table of terms; the table of pairs is beside it.
        terms: The terms and pairs.
        query: The query that was counted.
        tables: Occurrences and documents of each term (n_subsets, n_terms), and documents of each pair
            (n_subsets, n_pairs).
        subsets: Names of the subsets.
    """
    occurrences, documents, pairs = tables
    sums = [counts.sum(axis=0) for counts in tables]
    names = terms.names
    header, columns = ["term", "occurrences", "documents"], [names, sums[0].tolist(), sums[1].tolist()]
    pairs_header, pair_columns = ["first", "second", "together"], [sums[2].tolist()]
    # The columns of a single subset would repeat the totals; the tables of n-grams leave them out too.
    if len(subsets) > 1:
        for i, subset in enumerate(subsets):
            header += [column_of("occurrences", subset), column_of("documents", subset)]
            columns += [occurrences[i].tolist(), documents[i].tolist()]
            pairs_header.append(column_of("together", subset))
            pair_columns.append(pairs[i].tolist())
    _write_lines(path, header, zip(*columns, strict=True))
    if terms.pairs:
        first, second = ([names[pair[i]] for pair in terms.pairs] for i in (0, 1))
        _write_lines(_pairs_path(path), pairs_header, zip(first, second, *pair_columns, strict=True))
    return _summary(terms, query, sums[0], sums[1])


def _summary(
    terms: TermList, query: TermQuery, occurrences: NDArray[np.int64], units: NDArray[np.int64]
) -> Settings:
    """The summary of counts of each term; `units` are the documents or samples that have it."""
    order = np.lexsort((np.arange(len(occurrences)), -occurrences))[:_N_BEST].tolist()
    names = terms.names
    normalizations = zip(terms.texts, query.terms, strict=True)
    counts, n_terms = np.unique(occurrences[occurrences > 0], return_counts=True)
    return {
        "n_terms": len(terms.texts),
        "n_equal": len(query.terms) - len(set(query.terms)),
        "n_normalized": sum(encoded(text) != normal for text, normal in normalizations),
        "n_found": int((occurrences > 0).sum()),
        "n_occurrences": int(occurrences.sum()),
        "best": [
            {"number": i, "term": names[i], "occurrences": int(occurrences[i]), "units": int(units[i])}
            for i in order
        ],
        "ranks": rank_points(list(zip(counts.tolist(), n_terms.tolist(), strict=True))),
    }
