"""`pile-tools repeats`."""

from __future__ import annotations

import itertools
from pathlib import Path

import click
import numpy as np

from pile_tools import timeline
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.present import charts, pages
from pile_tools.present.charts import Stack
from pile_tools.present.pages import Plot, Table
from pile_tools.progress import Bar
from pile_tools.tables import records
from pile_tools.terminal import columns, counted, echo, fit, print_document
from pile_tools.timeline import Repeats

#: Documents of a group of duplicates that are printed.
_N_NUMBERS = 6
#: Columns of the table of groups in front of the documents' numbers.
_N_COLUMNS_BEFORE = 42


@click.command("repeats")
@click.argument("order", type=artifacts.ORDER_OR_ADDRESS)
@click.option(
    "--every", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of an interval."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Maximum groups of duplicates printed.",
)
@options.reports
@options.plot("the share of repeated tokens by interval")
@options.batch_size
@options.row_length
@options.compat
@options.threads
def command(
    order: str,
    every: int,
    limit: int,
    as_json: bool,
    plot: Path | None,
    batch_size: int | None,
    row_length: int | None,
    compat: str | None,
    threads: int,
) -> None:
    """Print what the model reads more than once in ORDER, and when, by epochs and by duplicates.

    A token is repeated by epoch if it was read before in an earlier copy of its document, and by duplicate if
    it was read before only in another document with the same tokens. Near-duplicates are not detected.

    \b
    Examples:
      pile-tools repeats tokens/
      pile-tools repeats tokens/ --every 100 --plot repeats.html
    """
    opened = opened_order(order, row_length, batch_size, compat)
    with Bar("reading", None, "documents and samples") as bar:
        found = timeline.repeats(
            opened, interval_steps=every, batch_size=batch_size, threads=threads, on_progress=bar.update
        )
    n_steps, _ = timeline.extent(opened, batch_size)
    if plot is not None:
        pages.write(plot, _plot(order, found, every, n_steps))
    if as_json:
        first = {"first_by_epoch": found.first_by_epoch, "first_by_duplicate": found.first_by_duplicate}
        print_document(first | {"intervals": records(found.intervals), "documents": records(found.documents)})
        return
    _print_shares(found, every, n_steps)
    _print_documents(found, limit)
    options.note_plot(plot)


def _print_shares(found: Repeats, every: int, n_steps: int) -> None:
    table = found.intervals
    total = int(table["n_tokens"].sum())
    kinds = [("by_epoch", "in an earlier epoch", found.first_by_epoch)]
    kinds += [("by_duplicate", "in another document with the same tokens", found.first_by_duplicate)]
    for name, what, first in kinds:
        n = int(table[name].sum())
        since = "" if first is None else f", first at step {first:,}"
        echo(f"{n:,} of {counted(total, 'token')} ({_share(n, total):.2%}) read before {what}{since}")
    echo()
    echo(f"{'steps':>17}  {'by epoch':>9}  {'by duplicate':>12}")
    for row in table:
        last = min(int(row["first_step"]) + every, n_steps) - 1
        shares = [_share(int(row[name]), int(row["n_tokens"])) for name in ("by_epoch", "by_duplicate")]
        steps = f"{row['first_step']:,} to {last:,}"
        echo(f"{steps:>17}  {shares[0]:>9.2%}  {shares[1]:>12.2%}  {charts.bar(sum(shares))}")


def _share(n: int, total: int) -> float:
    """A share of the tokens of an interval, which may be padding alone."""
    return n / max(total, 1)


def _print_documents(found: Repeats, limit: int) -> None:
    documents = found.documents
    same, n_same = np.unique(documents["same_as"], return_counts=True)
    n_groups = int((n_same > 1).sum())
    n_again = int((documents["n_copies"] > 1).sum())
    echo()
    echo(
        f"seen in more than one epoch: {counted(n_again, 'document')}; "
        f"duplicates: {counted(int(n_same[n_same > 1].sum()), 'document')} in {counted(n_groups, 'group')}"
    )
    largest = [same[i] for i in np.lexsort((same, -n_same)) if n_same[i] > 1][:limit]
    if not largest:
        return
    echo()
    echo(f"{'documents':>9}  {'tokens':>9}  {'first':>7}  {'last step':>9}  numbers")
    for group in largest:
        rows = documents[documents["same_as"] == group]
        numbers = ", ".join(str(n) for n in rows["document"][:_N_NUMBERS].tolist())
        numbers = fit(numbers + (", ..." if len(rows) > _N_NUMBERS else ""), columns() - _N_COLUMNS_BEFORE)
        first, last = int(rows["first_step"].min()), int(rows["last_step"].max())
        echo(f"{len(rows):>9,}  {int(rows['n_tokens'][0]):>9,}  {first:>7,}  {last:>9,}  {numbers}")
    if n_groups > limit:
        echo(f"... and {counted(n_groups - limit, 'more group')}; --json prints all")


def _plot(order: str, found: Repeats, every: int, n_steps: int) -> Plot:
    table = found.intervals
    total = int(table["n_tokens"].sum())
    edges = [*table["first_step"].tolist(), n_steps]
    kinds = {"by_epoch": "in an earlier epoch", "by_duplicate": "in a duplicate"}
    totals = np.maximum(table["n_tokens"], 1)
    shares = {what: (100 * table[name] / totals).tolist() for name, what in kinds.items()}
    title = f"Tokens of {order} that were read before"
    chart = Stack(title, "training step", "% of tokens", edges, shares)
    caption = (
        f"Share of the tokens of each interval of {every:,} steps that were read before: in an earlier epoch "
        "of their document, or only in another document with the same tokens."
    )
    rows = [
        [
            f"{first:,} to {end - 1:,}",
            f"{row['n_tokens']:,}",
            *(f"{row[name]:,}" for name in kinds),
            *(f"{_share(int(row[name]), int(row['n_tokens'])):.2%}" for name in kinds),
        ]
        for (first, end), row in zip(itertools.pairwise(edges), table, strict=True)
    ]
    header = ["Steps", "Tokens", "By epoch", "By duplicate", "% by epoch", "% by duplicate"]
    about = f"{total:,} tokens in {n_steps:,} steps."
    return Plot(title, about, [(chart, caption)], [Table("By interval", header, rows)])
