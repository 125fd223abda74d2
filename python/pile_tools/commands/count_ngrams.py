"""`pile-tools count-ngrams`."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pile_tools._core import TokenDataset
from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.commands.origins import shown_subset
from pile_tools.commands.texts import names_of
from pile_tools.errors import ConfigError, UnknownTokenizerError
from pile_tools.jobs.count_ngrams import (
    CountNgramsConfig,
    count_tokens,
    count_words,
    dataset_at,
    parse_lengths,
)
from pile_tools.manifest import Manifest
from pile_tools.present import colors, pages
from pile_tools.present.charts import Lines, Series
from pile_tools.present.pages import Plot, Table
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig
from pile_tools.tables import column_of, read_tsv, unescaped
from pile_tools.terminal import columns, counted, echo, fit, note, print_document, style, width
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets

#: N-grams printed of each length without --output.
_N_PRINTED = 20


@click.command("count-ngrams")
@click.argument("inputs", nargs=-1, required=True, type=artifacts.DATASET_OR_SHARDS)
@click.option("--n", "lengths", default="1", show_default=True, metavar="N|A-B|LIST", help="Lengths.")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE",
    help="Write the counts to a .tsv or .parquet file; without it the most frequent n-grams are printed.",
)
@config_options(CountNgramsConfig)
@config_options(RecordConfig)
@options.dataset_tokenizer
@options.memory(
    "Memory for the counting tables; counts that do not fit are spilled to disk beside the output."
)
@options.plot("occurrences by rank")
@options.threads
@options.reports
@options.force
def command(
    inputs: tuple[Path, ...],
    lengths: str,
    output: Path | None,
    min_count: int,
    top: int | None,
    across_documents: bool,
    ignore_case: bool,
    by_subset: bool,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    tokenizer: Path | None,
    memory: int,
    plot: Path | None,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Count n-grams exactly: of the tokens of a dataset, or of the words of shards.

    INPUTS is the prefix of a token dataset, or shards (files, folders or globs). Words are separated by white
    space, as with Python's str.split(). The table is sorted by tokens or words, or with --top by falling
    count. Counts that do not fit in --memory are spilled to disk beside the output; an interrupted run
    resumes.

    \b
    Examples:
      pile-tools count-ngrams tokens/sample --n 3
      pile-tools count-ngrams tokens/sample --n 1-5 --min-count 10 \\
        -o ngrams.parquet --memory 8GiB
      pile-tools count-ngrams shards/ --n 2 --ignore-case --by-subset --top 1000 \\
        -o bigrams.tsv
      pile-tools count-ngrams shards/ --plot words.html
    """
    config = CountNgramsConfig(
        lengths=parse_lengths(lengths),
        min_count=min_count,
        top=_N_PRINTED if output is None and top is None else top,
        across_documents=across_documents,
        ignore_case=ignore_case,
        by_subset=by_subset,
        records=RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record),
    )
    how = _How(tokenizer, memory, threads, force)
    started = time.monotonic()
    if output is not None:
        made, is_new = _count(inputs, output, config, how)
        _write_plot(inputs, made, plot)
        if as_json:
            print_document(options.made(made, is_new=is_new, ngrams=None))
            return
        if not is_new:
            note(f"{output} is finished already, nothing to do")
        _print_summary(made, time.monotonic() - started if is_new else None)
        options.note_plot(plot)
        return
    with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
        table = Path(folder, "counts.tsv")
        made, _ = _count(inputs, table, config, how)
        _write_plot(inputs, made, plot)
        if as_json:
            ngrams = list(_ngrams(table, made))
            print_document(options.made(made, is_new=True, is_temporary=True, ngrams=ngrams))
            return
        _print_table(table, made)
        _print_summary(made, time.monotonic() - started)
        options.note_plot(plot)


@dataclass(frozen=True)
class _How:
    """The options that are not part of `CountNgramsConfig`."""

    tokenizer: Path | None
    memory: int
    threads: int
    force: bool


def _count(
    inputs: tuple[Path, ...],
    output: Path,
    config: CountNgramsConfig,
    how: _How,
) -> tuple[Manifest, bool]:
    prefixes = [dataset_at(path) for path in inputs]
    prefix = prefixes[0]
    if prefix is None:
        if any(prefixes):
            raise ConfigError("give shards or the prefix of one dataset, not both")
        options.refuse_given("shards, whose words are counted", "tokenizer")
        shards = artifacts.find_shards(inputs, "dataset")
        with Bar("counting words", options.size_of(shards)) as bar:
            return count_words(
                shards,
                output,
                config,
                memory=how.memory,
                threads=how.threads,
                force=how.force,
                on_progress=bar.update,
            )
    if len(inputs) > 1:
        raise ConfigError("give one dataset; `pile-tools merge` joins several")
    options.refuse_given("a dataset", *options.OF_RECORDS)
    dataset = TokenDataset(prefix)
    with Bar("counting", dataset.n_tokens * len(config.lengths), "n-grams") as bar:
        return count_tokens(
            prefix,
            output,
            config,
            tokenizer=_tokenizer(dataset, how.tokenizer),
            memory=how.memory,
            threads=how.threads,
            force=how.force,
            on_progress=bar.update,
        )


def _tokenizer(dataset: TokenDataset, given: Path | None) -> TokenizerFile | None:
    """The tokenizer that decodes n-grams; None, with a note, if none is known: counts do not need it."""
    try:
        return datasets.tokenizer_file(dataset, given)
    except UnknownTokenizerError as err:
        note(f"{err}: no texts; give --tokenizer FILE", err=True)
        return None


def _ngrams(table: Path, made: Manifest) -> Iterator[dict[str, Any]]:
    """The n-grams of a table in the document of `--json`."""
    rows = read_tsv(table)
    header = next(rows)
    # The columns are the tokens, their text or both, then the count, and then the counts by subset.
    count = header.index("count")
    has_tokens, has_text = header[0] == "tokens", header[count - 1] != "tokens"
    for of in made.summary["lengths"]:
        for row in itertools.islice(rows, of["n_retained"]):
            # Only names of subsets are keys: `count` has those without a subset too.
            by_subset = {
                unescaped(name.removeprefix("count:")): int(n)
                for name, n in zip(header[count + 1 :], row[count + 1 :], strict=True)
                if name != column_of("count", None)
            }
            yield {
                "n": of["n"],
                "tokens": [int(id) for id in row[0].split()] if has_tokens else None,
                "text": unescaped(row[count - 1]) if has_text else None,
                "count": int(row[count]),
                "by_subset": by_subset or None,
            }


def _print_table(table: Path, made: Manifest) -> None:
    """Prints a table of the most frequent n-grams."""
    rows = read_tsv(table)
    header = next(rows)
    count = header.index("count")
    named = 1 if header[:2] == ["tokens", "text"] else 0
    for of in made.summary["lengths"]:
        echo()
        echo(f"{'count':>12}  {'share':>7}  {header[named]} ({of['n']}-grams)")
        for _ in range(of["n_retained"]):
            row = next(rows)
            share = int(row[count]) / of["n_occurrences"]
            text = fit(row[named] if not named else f'"{row[named]}"', columns() // 2)
            ids = f"  [{row[0]}]" if named else ""
            # The count and the share, with two spaces after each, take 23 columns.
            more = fit(ids, columns() - 23 - width(text))
            more += _subsets(header, row, count, columns() - 23 - width(text) - width(more))
            echo(f"{int(row[count]):>12,}  {share:>7.2%}  {text}", style(more, dim=True))
    echo()


def _subsets(header: list[str], row: list[str], count: int, n_columns: int) -> str:
    """The counts by subset, largest first, and how many do not fit `n_columns`; at least one is given."""
    counts = sorted(zip(map(int, row[count + 1 :]), header[count + 1 :], strict=True), reverse=True)
    cells = [f"  {fit(_subset_of(name), 30)} {n:,}" for n, name in counts]
    for n_shown in range(len(cells), 0, -1):
        n_more = len(cells) - n_shown
        rest = f"  and {counted(n_more, 'more subset')}: --json" if n_more else ""
        shown = "".join(cells[:n_shown]) + rest
        if width(shown) <= n_columns or n_shown == 1:
            return shown
    return ""


def _subset_of(column: str) -> str:
    """The subset whose counts are in a column, in print."""
    if column == column_of("count", None):
        return "no subset"
    return shown_subset(column.removeprefix("count:"))


def _print_summary(made: Manifest, elapsed: float | None) -> None:
    summary = made.summary
    for of in summary["lengths"]:
        retained = "" if of["n_retained"] == of["n_distinct"] else f", {of['n_retained']:,} retained"
        note(f"{of['n']}-grams: {of['n_occurrences']:,} in all, {of['n_distinct']:,} distinct{retained}")
    what = counted(summary["n_tokens"], "token") if "n_tokens" in summary else "words"
    took = "" if elapsed is None else f" in {elapsed:.1f} s"
    note(f"counted {what} of {counted(summary['n_documents'], 'document')}{took}")
    if n := summary.get("n_bad_records"):
        note(f"{counted(n, 'bad record')} left out")
    options.print_passed_over(made)


def _write_plot(inputs: tuple[Path, ...], made: Manifest, plot: Path | None) -> None:
    if plot is not None:
        pages.write(plot, _plot(inputs, made))


def _plot(inputs: tuple[Path, ...], made: Manifest) -> Plot:
    summary = made.summary
    series = [
        Series(f"{of['n']}-grams", [(float(x), float(y)) for x, y in of["ranks"]], colors.of_series(i))
        for i, of in enumerate(summary["lengths"])
    ]
    kind = "tokens" if "n_tokens" in summary else "words"
    title = f"How often n-grams of {kind} occur in {names_of(inputs)}"
    chart = Lines(title, "rank", "occurrences", series, x="log", y="log")
    caption = "Occurrences of an n-gram by its rank among all of its length, the most frequent first."
    lengths = [
        [f"{of['n']}-grams", *(f"{of[key]:,}" for key in ("n_occurrences", "n_distinct", "n_retained"))]
        for of in summary["lengths"]
    ]
    ranks = [
        [f"{of['n']}-grams", f"{rank:,}", f"{count:,}"]
        for of in summary["lengths"]
        for rank, count in _near_powers(of["ranks"])
    ]
    return Plot(
        title,
        f"{summary['n_documents']:,} documents.",
        [(chart, caption)],
        [
            Table("By length", ["Length", "Occurrences", "Distinct", "Retained"], lengths),
            Table("By rank", ["Length", "Rank", "Occurrences"], ranks, note="Ranks near powers of ten."),
        ],
    )


def _near_powers(ranks: list[list[int]]) -> list[list[int]]:
    """Of the points of a curve, the first one at or after each power of ten, and the last."""
    powers = {10**digits for digits in range(len(str(ranks[-1][0])))} if ranks else set()
    first = {next(i for i, (rank, _) in enumerate(ranks) if rank >= power) for power in powers}
    return [ranks[i] for i in sorted(first | ({len(ranks) - 1} if ranks else set()))]
