"""Counts terms: in the documents of shards or of a dataset, or in the rows of an order by checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, files, manifest, publish, timeline
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, PileError
from pile_tools.jobs.count_ngrams import ONE_GROUP, rank_points, subset_groups
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.order.order import Order
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, entries, has_stream
from pile_tools.read.shards import summary as shards_summary
from pile_tools.read.texts import encoded, normalized, read_texts
from pile_tools.tables import column_of, escaped
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.types import OnProgress, TermQuery

#: Terms of which all pairs may be asked for.
MOST_PAIRED = 2000

#: Lines that are written at once.
_LINES = 1 << 16

ARITHMETIC = "pythia-arithmetic"

#: What the setting `normalizer` says of counts in texts and terms as they are written.
AS_WRITTEN = "as written"


@dataclass(frozen=True, kw_only=True, slots=True)
class CountTermsConfig:
    """Which occurrences count."""

    whole_words: bool = field(
        default=False,
        metadata={"help": "Only where no word character (Unicode's \\w) stands directly before or behind."},
    )
    ignore_case: bool = field(
        default=False, metadata={"help": "What differs in case only is equal (simple case folding)."}
    )
    by_subset: bool = field(default=False, metadata={"help": "Two more columns of counts for each subset."})
    within: str = field(
        default="unit",
        metadata={
            "help": "Pairs count once in a document or row that holds both, or each time so near by words.",
            "metavar": "unit|WORDS",
        },
    )
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if self.within != "unit" and not (self.within.isdecimal() and 0 < int(self.within) < 2**31):
            raise ConfigError(f"within must be unit or a number of words, got {self.within}")

    @property
    def within_words(self) -> int | None:
        """Words that terms of a pair may be apart, or None for within a document or row."""
        return None if self.within == "unit" else int(self.within)

    @property
    def rule(self) -> str:
        """What counts, in words."""
        words = ", as a whole word" if self.whole_words else ""
        case = ", whatever its case" if self.ignore_case else ""
        return (
            f"a term occurs where its bytes stand in the text{words}{case}; overlapping occurrences all count"
        )


@dataclass(frozen=True)
class Asked:
    """Terms and pairs of them.

    Attributes:
        terms: The terms; a `str` is normalized as the tokenizer normalizes text, bytes are taken as they are.
        pairs: Numbers of the terms of each pair.
        inputs: The files they are from, for a manifest.
    """

    terms: Sequence[str | bytes]
    pairs: list[tuple[int, int]]
    inputs: list[Entry]

    @property
    def names(self) -> list[str]:
        """The terms as they were written, as fields of a TSV file."""
        return [
            escaped(term if isinstance(term, str) else term.decode(errors="replace")) for term in self.terms
        ]

    def query(self, config: CountTermsConfig, threads: int, tokenizer: Tokenizer | None = None) -> TermQuery:
        """What the core is asked; without a tokenizer, the terms as they are written."""
        return TermQuery(
            terms=[normalized(term, tokenizer) for term in self.terms],
            whole_words=config.whole_words,
            ignore_case=config.ignore_case,
            pairs=self.pairs,
            within_words=config.within_words,
            threads=threads,
        )


def read_asked(terms_file: Path, pairs: str | None, folder: Path) -> Asked:
    """The terms of a file, one a line, and `pairs` of them: `all`, or a file with two a line, a tab between.

    Raises:
        PileError: No terms, a line that is none, or a pair of a term that is not in the file.
        ConfigError: All pairs of too many terms.
    """
    terms = read_texts(terms_file)
    inputs = [manifest.file_entry(terms_file, folder, role="terms")]
    if pairs is None:
        return Asked(terms, [], inputs)
    if pairs == "all":
        if len(terms) > MOST_PAIRED:
            raise ConfigError(
                f"all pairs of {len(terms):,} terms: at most {MOST_PAIRED:,}; name those that count in a file"
            )
        return Asked(terms, list(itertools.combinations(range(len(terms)), 2)), inputs)
    path = Path(pairs)
    numbers = {term: number for number, term in enumerate(terms)}
    found = []
    for at, line in enumerate(read_texts(path), 1):
        both = line.split("\t")
        if len(both) != 2:
            raise PileError(f"expected two terms with a tab between ({path}, line {at})")
        for term in both:
            if term not in numbers:
                raise PileError(f"{term!r} is not in {terms_file} ({path}, line {at})")
        found.append((numbers[both[0]], numbers[both[1]]))
    return Asked(terms, found, [*inputs, manifest.file_entry(path, folder, role="pairs")])


def count_in_shards(
    shards: Sequence[Path],
    output: Path,
    asked: Asked,
    config: CountTermsConfig,
    *,
    tokenizer: TokenizerFile | None = None,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts terms in the documents of shards; returns the table's manifest and whether it was made now.

    The table has a line for each term: `term`, `occurrences`, `documents`, and with `by_subset` two more
    columns for each subset (see `tables.column_of`). With pairs there is a second one, `NAME.pairs.tsv`.
    `on_progress` gets bytes.

    Args:
        tokenizer: Texts and terms are normalized as it does, so that the counts are those of its datasets;
            without one their bytes are compared as they are written.

    Raises:
        OutputExistsError: The output was made before from something else and `force` is off.
        FormatError: A shard is damaged, named with the place.
        OSError: A file cannot be read or written.
    """
    inputs = entries(shards, output.parent)
    loaded = None if tokenizer is None else tokenizer.load()
    sources = [] if tokenizer is None else [tokenizer.entry(output.parent)]
    request = _request(config, asked, [*sources, *inputs], loaded, **config.records.settings)
    query = asked.query(config, threads, loaded)
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
        known = [{**entry, "sha256": sha256} for entry, sha256 in zip(inputs, hashes, strict=True)]
        counted = {"n_documents": n_documents, "n_bad_records": n_bad, **passed_over}
        told = _write(folder / output.name, (asked, query), tables, names)
        return counted | told, [*asked.inputs, *sources, *known]

    return _make(output, request, build, force=force, is_stream=has_stream(shards))


def count_in_dataset(
    prefix: Path,
    output: Path,
    asked: Asked,
    config: CountTermsConfig,
    *,
    tokenizer: TokenizerFile,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts terms in the decoded documents of a token dataset; as `count_in_shards`, but for tokens.

    The token that ends each document is no part of its text.
    """
    dataset = TokenDataset(prefix)
    groups, names = subset_groups(dataset) if config.by_subset else ONE_GROUP
    path = manifest.relative(prefix, output.parent)
    inputs = [
        tokenizer.entry(output.parent),
        {"role": "dataset", "path": path, "fingerprint": dataset.fingerprint},
    ]
    loaded = tokenizer.load()
    query = asked.query(config, threads, loaded)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        tables = _core.dataset_terms(
            dataset, loaded, query, groups, len(names), _eod_of(prefix, loaded), on_progress
        )
        counted = {"n_documents": len(dataset), "n_tokens": dataset.n_tokens}
        told = _write(folder / output.name, (asked, query), tables, names)
        return counted | told, [*asked.inputs, *inputs]

    return _make(output, _request(config, asked, inputs, loaded), build, force=force)


def _eod_of(prefix: Path, tokenizer: Tokenizer) -> int | None:
    """The id that ends each document: by the manifest, or else the tokenizer's own."""
    own = datasets.with_suffix(prefix, MANIFEST_SUFFIX)
    settings = manifest.read(own).settings if own.exists() else {}
    if "eod_id" in settings:
        eod: int | None = settings["eod_id"]
        return eod
    return None if tokenizer.eod is None else tokenizer.eod[1]


def count_in_order(
    order: Order,
    output: Path,
    asked: Asked,
    config: CountTermsConfig,
    steps: Sequence[int],
    *,
    tokenizer: TokenizerFile,
    batch_size: int | None = None,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Counts terms in the rows of an order before each of some steps; as `count_in_shards`.

    The table has a line for each term and step: `term`, `step`, `occurrences`, `samples`.
    """
    if config.by_subset:
        raise ConfigError("counts by subset are of documents: give shards or a dataset rather than an order")
    in_time = _in_time(order, steps, batch_size)
    loaded = tokenizer.load()
    request = _request(config, asked, _order_entries(order, tokenizer, output), loaded, **in_time)
    query = asked.query(config, threads, loaded)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        found = timeline.count_terms(
            order,
            query,
            steps,
            tokenizer=loaded,
            batch_size=batch_size,
            on_progress=on_progress,
        )
        names = asked.names
        header = ("term", "step", "occurrences", "samples")
        rows = (
            (name, step, found.occurrences[i, t], found.samples[i, t])
            for t, name in enumerate(names)
            for i, step in enumerate(steps)
        )
        _write_lines(folder / output.name, header, rows)
        if asked.pairs:
            pairs = (
                (names[a], names[b], step, found.pairs[i, p])
                for p, (a, b) in enumerate(asked.pairs)
                for i, step in enumerate(steps)
            )
            _write_lines(_pairs_path(folder / output.name), ("first", "second", "step", "together"), pairs)
        summary = _summary(asked, query, found.occurrences[-1], found.samples[-1])
        best = [of["number"] for of in summary["best"][:8]]
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
    """Counts by Pythia's arithmetic rule before each of some steps: `key`, `step`, `count`, a line each."""
    settings = {"rule": ARITHMETIC} | _in_time(order, steps, batch_size)
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
        # What was counted once is counted in every later step.
        last = found[-1]
        rows = ((key, step, of.get(key, 0)) for key in last for step, of in zip(steps, found, strict=True))
        _write_lines(folder / output.name, ("key", "step", "count"), rows)
        best = sorted(last, key=lambda key: (-last[key], key))[:20]
        curves = [{"term": key, "occurrences": [of.get(key, 0) for of in found]} for key in best[:8]]
        listed = [{"term": key, "occurrences": last[key]} for key in best]
        summary = {"n_keys": len(last), "n_counts": sum(last.values()), "steps": list(steps)}
        return summary | {"best": listed, "curves": curves}, request.inputs

    return _make(output, request, build, force=force)


def _request(
    config: CountTermsConfig, asked: Asked, inputs: list[Entry], tokenizer: Tokenizer | None, **more: Any
) -> Request:
    settings = {
        "rule": config.rule,
        "normalizer": AS_WRITTEN if tokenizer is None else tokenizer.normalizer or "none",
        "whole_words": config.whole_words,
        "ignore_case": config.ignore_case,
        "by_subset": config.by_subset,
        "within": config.within,
        "n_pairs": len(asked.pairs),
    }
    return Request("terms", settings | more, [*asked.inputs, *inputs])


def _order_entries(order: Order, tokenizer: TokenizerFile, output: Path) -> list[Entry]:
    path = manifest.relative(order.path, output.parent)
    entry: Entry = {"role": "order", "path": path, "fingerprint": order.dataset.fingerprint}
    if order.path.is_file():
        entry["sha256"] = files.sha256(order.path)
    return [tokenizer.entry(output.parent), entry]


def _in_time(order: Order, steps: Sequence[int], batch_size: int | None) -> Settings:
    return {"steps": list(steps), "batch_size": timeline.extent(order, batch_size)[1]}


def _make(
    output: Path, request: Request, build: datasets.Build, *, force: bool, is_stream: bool = False
) -> tuple[Manifest, bool]:
    if output.suffix != ".tsv":
        raise ConfigError(f"a table of terms is written as .tsv ({output})")
    # Pairs first, as manifests of tables always list them.
    names = [_pairs_path(output).name] if request.settings.get("n_pairs") else []
    names.append(output.name)

    def build_tables(folder: Path) -> Built:
        return Built(names, *build(folder))

    target = Target.of(datasets.with_suffix(output, MANIFEST_SUFFIX))
    return publish.make(target, request, build_tables, force=force, names=names, is_stream=is_stream)


def _pairs_path(table: Path) -> Path:
    return table.with_suffix(".pairs.tsv")


def _write_lines(path: Path, header: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(header) + "\n")
        while lines := ["\t".join(map(str, row)) + "\n" for row in itertools.islice(rows, _LINES)]:
            file.writelines(lines)


def _write(
    table: Path, of: tuple[Asked, TermQuery], tables: Sequence[NDArray[np.int64]], names: list[str | None]
) -> Settings:
    """Writes the counts of documents, and returns what is told of them."""
    asked, query = of
    occurrences, documents, pairs = tables
    sums = [of.sum(axis=0) for of in tables]
    terms = asked.names
    header, columns = ["term", "occurrences", "documents"], [terms, sums[0].tolist(), sums[1].tolist()]
    pairs_header, pair_columns = ["first", "second", "together"], [sums[2].tolist()]
    if len(names) > 1:
        for i, name in enumerate(names):
            header += [column_of("occurrences", name), column_of("documents", name)]
            columns += [occurrences[i].tolist(), documents[i].tolist()]
            pairs_header.append(column_of("together", name))
            pair_columns.append(pairs[i].tolist())
    _write_lines(table, header, zip(*columns, strict=True))
    if asked.pairs:
        first, second = ([terms[pair[i]] for pair in asked.pairs] for i in (0, 1))
        _write_lines(_pairs_path(table), pairs_header, zip(first, second, *pair_columns, strict=True))
    return _summary(asked, query, sums[0], sums[1])


def _summary(
    asked: Asked, query: TermQuery, occurrences: NDArray[np.int64], units: NDArray[np.int64]
) -> Settings:
    order = np.lexsort((np.arange(len(occurrences)), -occurrences))[:20].tolist()
    names = asked.names
    pairs = zip(asked.terms, query.terms, strict=True)
    counts, n_terms = np.unique(occurrences[occurrences > 0], return_counts=True)
    return {
        "n_terms": len(asked.terms),
        "n_equal": len(query.terms) - len(set(query.terms)),
        "n_normalized": sum(encoded(term) != held for term, held in pairs),
        "n_found": int((occurrences > 0).sum()),
        "n_occurrences": int(occurrences.sum()),
        "best": [
            {"number": i, "term": names[i], "occurrences": int(occurrences[i]), "units": int(units[i])}
            for i in order
        ],
        "ranks": rank_points(list(zip(counts.tolist(), n_terms.tolist(), strict=True))),
    }
