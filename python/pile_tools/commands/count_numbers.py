"""`pile-tools count-numbers`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from pile_tools import timeline
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import order_and_steps
from pile_tools.commands.term_plot import plot_of
from pile_tools.jobs.count_terms import count_arithmetic
from pile_tools.manifest import Manifest
from pile_tools.present import pages
from pile_tools.progress import Bar
from pile_tools.terminal import columns, counted, echo, fit, note, print_document


@click.command("count-numbers")
@click.argument("order", type=artifacts.ORDER)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE",
    help="Write all counts to a .tsv file; without it only the most frequent numbers are printed.",
)
@options.checkpoints
@options.batch_size_if_unnamed
@options.row_length
@options.dataset_tokenizer
@options.plot("the most frequent numbers by step")
@options.threads
@options.reports
@options.force
def command(
    order: Path,
    output: Path | None,
    checkpoints: str | None,
    batch_size: int | None,
    row_length: int | None,
    tokenizer: Path | None,
    plot: Path | None,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Count numbers, pairs of numbers, and numbers with units of time in ORDER before each checkpoint.

    The rule is that of Pythia's study of arithmetic (case study of term frequencies, arXiv:2304.01373). The
    keys are numbers ("7"), pairs ("7-12") and numbers with a unit ("7-day"). A row is decoded as one text,
    across its documents.

    \b
    Examples:
      pile-tools count-numbers tokens/ --checkpoints 0,250,500 -o numbers.tsv
      pile-tools count-numbers tokens/ --checkpoints run/ --plot numbers.html
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
        opened, steps = order_and_steps(order, checkpoints, batch_size, row_length)
        with Bar("counting", steps[-1] * timeline.extent(opened, batch_size)[1], "rows") as bar:
            made, is_new = count_arithmetic(
                opened,
                output or Path(folder, "counts.tsv"),
                steps,
                tokenizer=opened.tokenizer_file(tokenizer),
                batch_size=batch_size,
                threads=threads,
                force=force,
                on_progress=bar.update,
            )
    if plot is not None:
        pages.write(plot, plot_of("numbers", (order,), made))
    if as_json:
        print_document(options.made(made, is_new=is_new, is_temporary=output is None))
        return
    if not is_new:
        note(f"{output} is finished already, nothing to do")
    _print_summary(made, time.monotonic() - started if is_new else None)
    options.note_plot(plot)


def _print_summary(made: Manifest, elapsed: float | None) -> None:
    summary, took = made.summary, "" if elapsed is None else f" in {elapsed:.1f} s"
    echo(f"{'count':>12}  numbers")
    for of in summary["best"]:
        echo(f"{of['occurrences']:>12,}  {fit(of['term'], columns() - 14)}")
    n_counts = counted(summary["n_counts"], "occurrence")
    note(f"numbers and pairs: {summary['n_keys']:,} distinct, {n_counts}{took}")
