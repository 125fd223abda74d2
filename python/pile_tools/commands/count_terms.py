"""`pile-tools count-terms`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from pile_tools import timeline
from pile_tools._core import TokenDataset
from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.commands.orders import is_order, order_and_steps
from pile_tools.commands.term_plot import plot_of
from pile_tools.errors import ConfigError, FormatError
from pile_tools.jobs.count_ngrams import dataset_at
from pile_tools.jobs.count_terms import (
    AS_WRITTEN,
    MAX_PAIRED_TERMS,
    CountTermsConfig,
    count_in_dataset,
    count_in_order,
    count_in_shards,
    read_terms,
)
from pile_tools.manifest import Manifest
from pile_tools.present import pages
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig
from pile_tools.tables import read_tsv
from pile_tools.terminal import columns, counted, echo, fit, note, print_document
from pile_tools.tokenizers import find_tokenizer
from pile_tools.tokens import datasets


@click.command("count-terms")
@click.argument(
    "inputs", nargs=-1, required=True, type=artifacts.ORDER_DATASET_OR_SHARDS, metavar="TERMS INPUTS..."
)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE",
    help="Write all counts to a .tsv file; without it only the most frequent terms are printed.",
)
@config_options(CountTermsConfig)
@config_options(RecordConfig)
@click.option(
    "--pairs",
    metavar="FILE|all",
    help="Also count pairs of terms: a file of lines with two terms and a tab, or all of at most "
    f"{MAX_PAIRED_TERMS:,}.",
)
@click.option(
    "--checkpoints",
    metavar="N|LIST|DIR",
    callback=options.folder_of_run,
    help="For an order: every N steps, a list such as 0,100,200, or a run's folder.  [default: Pythia's 154]",
)
@options.batch_size_if_unnamed
@options.row_length
@click.option(
    "--tokenizer",
    type=artifacts.TOKENIZER,
    metavar="FILE",
    help="Tokenizer, if the dataset's is not found; for shards: normalize texts and terms as it does.",
)
@options.plot("the most frequent terms, for an order by step")
@options.threads
@options.reports
@options.force
def command(
    inputs: tuple[Path, ...],
    output: Path | None,
    whole_words: bool,
    ignore_case: bool,
    by_subset: bool,
    within: str,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    pairs: str | None,
    checkpoints: str | None,
    batch_size: int | None,
    row_length: int | None,
    tokenizer: Path | None,
    plot: Path | None,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Count TERMS (a file, one a line) in shards, in a token dataset, or in an order before each checkpoint.

    INPUTS are shards (files, folders or globs), the prefix of a token dataset, or an order's folder. A term
    occurs where its bytes occur in the text, whatever the token borders; overlapping occurrences all count.
    Terms are normalized as the dataset's tokenizer normalizes text. Shards are counted as written, or with
    --tokenizer as a dataset of that tokenizer would hold them, with equal counts. The rows of an order are
    read once in training order; the counts at a checkpoint include all rows before it.

    \b
    Examples:
      pile-tools count-terms terms.txt shards/ -o terms.tsv \\
        --whole-words --by-subset
      pile-tools count-terms terms.txt tokens/sample --pairs all --within 10
      pile-tools count-terms terms.txt tokens/ --checkpoints 100 -o terms.tsv \\
        --plot terms.html
    """
    started = time.monotonic()
    if pairs is None:
        options.refuse_given("a count without --pairs", "within")
    config = CountTermsConfig(
        whole_words=whole_words,
        ignore_case=ignore_case,
        by_subset=by_subset,
        within=within,
        records=RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record),
    )
    with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
        table = output or Path(folder, "counts.tsv")
        how = _How(pairs, checkpoints, batch_size, row_length, tokenizer, threads, force)
        made, is_new = _count(inputs, table, config, how)
        if plot is not None:
            pages.write(plot, plot_of("terms", inputs[1:], made), inputs)
        if as_json:
            print_document(options.made(made, is_new=is_new, is_temporary=output is None))
            return
        if not is_new:
            note(f"{output} is finished already, nothing to do")
        _print_summary(made, table, time.monotonic() - started if is_new else None)
    options.note_plot(plot)


@dataclass(frozen=True)
class _How:
    """The options that are not part of `CountTermsConfig`."""

    pairs: str | None
    checkpoints: str | None
    batch_size: int | None
    row_length: int | None
    tokenizer: Path | None
    threads: int
    force: bool


def _count(
    paths: tuple[Path, ...], table: Path, config: CountTermsConfig, how: _How
) -> tuple[Manifest, bool]:
    terms, inputs = paths[0], paths[1:]
    if not inputs:
        raise ConfigError("give a file of terms, and the inputs in which to count them")
    artifacts.refuse_other(terms, ["text"])
    term_list = read_terms(terms, how.pairs, table.parent)
    if how.checkpoints is not None or how.row_length is not None or is_order(inputs[0]):
        if len(inputs) > 1:
            raise ConfigError("give one order")
        artifacts.refuse_other(inputs[0], ["order"])
        options.refuse_given("an order", *options.OF_RECORDS)
        order, steps = order_and_steps(inputs[0], how.checkpoints, how.batch_size, how.row_length)
        with Bar("counting", steps[-1] * timeline.extent(order, how.batch_size)[1], "rows") as bar:
            return count_in_order(
                order,
                table,
                term_list,
                config,
                steps,
                tokenizer=order.tokenizer_file(how.tokenizer),
                batch_size=how.batch_size,
                threads=how.threads,
                force=how.force,
                on_progress=bar.update,
            )
    prefix = dataset_at(inputs[0])
    options.refuse_batch_size()
    if prefix is None:
        shards = artifacts.find_shards(inputs, "dataset")
        with Bar("counting", options.size_of(shards)) as bar:
            return count_in_shards(
                shards,
                table,
                term_list,
                config,
                tokenizer=None if how.tokenizer is None else find_tokenizer(how.tokenizer),
                threads=how.threads,
                force=how.force,
                on_progress=bar.update,
            )
    if len(inputs) > 1:
        raise ConfigError("give one dataset; `pile-tools merge` joins several")
    options.refuse_given("a dataset", *options.OF_RECORDS)
    dataset = TokenDataset(prefix)
    with Bar("counting", dataset.n_tokens, "tokens") as bar:
        return count_in_dataset(
            prefix,
            table,
            term_list,
            config,
            tokenizer=datasets.tokenizer_file(dataset, how.tokenizer),
            threads=how.threads,
            force=how.force,
            on_progress=bar.update,
        )


def _print_summary(made: Manifest, table: Path, elapsed: float | None) -> None:
    summary, took = made.summary, "" if elapsed is None else f" in {elapsed:.1f} s"
    unit = "samples" if "steps" in summary else "documents"
    echo(f"{'occurrences':>12}  {unit:>10}  term")
    for of in summary["best"]:
        if of["occurrences"]:
            echo(f"{of['occurrences']:>12,}  {of['units']:>10,}  {fit(of['term'], columns() - 26)}")
    pairs = table.with_suffix(".pairs.tsv")
    # Without --pairs, a file of this name beside the table is of someone else.
    if any(entry["path"] == pairs.name for entry in made.outputs):
        _print_pairs(pairs, in_time="steps" in summary)
    equal = f", {summary['n_equal']:,} of them equal to others" if summary["n_equal"] else ""
    note()
    note(
        f"{summary['n_found']:,} of {counted(summary['n_terms'], 'term')} found{equal}, "
        f"{counted(summary['n_occurrences'], 'occurrence')}{took}"
    )
    note(f"rule: {made.settings['rule']}")
    note(f"text: {_normalization(made)}")
    if summary.get("n_bad_records"):
        note(f"{counted(summary['n_bad_records'], 'bad record')} left out")
    options.print_passed_over(made)


def _normalization(made: Manifest) -> str:
    """Whether texts and terms were normalized, in words."""
    name, n = made.settings["normalizer"], made.summary["n_normalized"]
    if name == AS_WRITTEN:
        return "as written; --tokenizer FILE normalizes it as that tokenizer does"
    changed = f", which changed {counted(n, 'term')}" if n else ""
    return f"as the tokenizer normalizes it (normalizer: {name}){changed}"


def _print_pairs(table: Path, *, in_time: bool) -> None:
    """Prints the ten pairs that occur together most often; `in_time` if the table has a column of steps."""
    column = 3 if in_time else 2
    try:
        rows = read_tsv(table)
        next(rows, None)
        # The rows of an order ascend by step: the last one of a pair has the count of the whole run.
        last = {(row[0], row[1]): int(row[column]) for row in rows}
    except (LookupError, ValueError) as err:
        raise FormatError(f"not a table of pairs that pile-tools wrote ({table})") from err
    echo()
    echo(f"{'together':>12}  pair")
    for (first, second), n in sorted(last.items(), key=lambda item: (-item[1], item[0]))[:10]:
        if n:
            echo(f"{n:>12,}  {fit(f'{first} | {second}', columns() - 14)}")
