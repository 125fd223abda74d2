"""`pile-tools mixture`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pile_tools import timeline
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.commands.origins import subset_labels, unused_label
from pile_tools.present import charts, colors, pages
from pile_tools.present.charts import Stack
from pile_tools.present.pages import Plot, Table
from pile_tools.progress import Bar
from pile_tools.terminal import columns, counted, echo, echo_row, fit, padded, print_document, width

#: Subsets, the largest ones, with their own column in the table and colour in the chart.
_N_NAMED = len(colors.SERIES)
#: Columns of a bar.
_N_BAR = 24


@click.command("mixture")
@click.argument("order", type=artifacts.ORDER_OR_ADDRESS)
@click.option(
    "--every", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of an interval."
)
@click.option("--all", "as_all", is_flag=True, help="Print all subsets by interval, whatever the width.")
@options.reports
@options.plot("the share of each subset by interval")
@options.batch_size
@options.row_length
@options.compat
@options.threads
def command(
    order: str,
    every: int,
    as_all: bool,
    as_json: bool,
    plot: Path | None,
    batch_size: int | None,
    row_length: int | None,
    compat: str | None,
    threads: int,
) -> None:
    """Print the share of each subset in the tokens that the model reads in ORDER, by intervals of steps.

    \b
    Examples:
      pile-tools mixture tokens/
      pile-tools mixture tokens/ --every 100 --plot mixture.html
    """
    opened = opened_order(order, row_length, batch_size, compat)
    with Bar("reading", None, "samples") as bar:
        found = timeline.mixture(
            opened, interval_steps=every, batch_size=batch_size, threads=threads, on_progress=bar.update
        )
    n_steps, _ = timeline.extent(opened, batch_size)
    if plot is not None:
        pages.write(plot, _plot(order, found, every, n_steps))
    if as_json:
        print_document({"n_steps": n_steps, "intervals": _intervals(found)})
        return
    total, largest = found.n_tokens.sum(axis=0), _largest_first(found)
    echo(f"{counted(int(total.sum()), 'token')} in {counted(n_steps, 'step')}, by subset:")
    labels = subset_labels(found.subsets)
    n_columns = min(max(map(width, labels)), columns() // 3)
    n_over_time = min(len(found.shares), columns() - n_columns - 18 - _N_BAR)
    shares, of_run = found.shares, found.shares_of_run
    for i in largest:
        share = float(of_run[i])
        means = [float(part.mean()) for part in np.array_split(shares[:, i], max(n_over_time, 1))]
        over_time = charts.sparkline(means)
        drawn = charts.bar(share, _N_BAR)
        echo(f"  {padded(labels[i], n_columns)}  {share:>7.2%}  {drawn:<{_N_BAR}}  |{over_time}|")
    n_fitting = len(largest) if as_all else max(1, (columns() - 17) // 16)
    _print_table(found, largest[:n_fitting], every, n_steps)
    if len(largest) > n_fitting and len(found.first_steps) > 1:
        echo(f"and {counted(len(largest) - n_fitting, 'more subset')}: --all")
    options.note_plot(plot)


def _largest_first(found: timeline.Mixture) -> NDArray[np.intp]:
    return np.argsort(-found.n_tokens.sum(axis=0), kind="stable")


def _intervals(found: timeline.Mixture) -> Iterator[dict[str, Any]]:
    for first, counts in zip(found.first_steps.tolist(), found.n_tokens.tolist(), strict=True):
        by_subset = dict(zip(found.subsets, counts, strict=True))
        n_without = by_subset.pop(None, 0)
        yield {"first_step": first, "n_tokens": by_subset, "n_tokens_without_subset": n_without}


def _print_table(found: timeline.Mixture, shown: NDArray[np.intp], every: int, n_steps: int) -> None:
    if len(found.first_steps) < 2:
        return
    labels = subset_labels(found.subsets)
    names = [labels[i] for i in shown]
    echo()
    echo_row(
        f"{'steps':>17}  "
        + "  ".join(f"{' ' * (14 - width(fit(name, 14)))}{fit(name, 14)}" for name in names)
    )
    for first, shares in zip(found.first_steps.tolist(), found.shares, strict=True):
        steps = f"{first:,} to {min(first + every, n_steps) - 1:,}"
        echo_row(f"{steps:>17}  " + "  ".join(f"{shares[i]:>14.2%}" for i in shown))


def _plot(order: str, found: timeline.Mixture, every: int, n_steps: int) -> Plot:
    total, largest = found.n_tokens.sum(axis=0), _largest_first(found)
    percent, labels = 100 * found.shares, subset_labels(found.subsets)
    series = {labels[i]: percent[:, i].tolist() for i in largest[:_N_NAMED]}
    if len(largest) > _N_NAMED:
        series[unused_label("others", labels)] = percent[:, largest[_N_NAMED:]].sum(axis=1).tolist()
    title = f"What a model reads in {order}, by subset"
    edges = [*found.first_steps.tolist(), n_steps]
    chart = Stack(title, "training step", "% of tokens", edges, series, largest=100)
    caption = f"Share of each subset in the tokens of each interval of {every:,} steps."
    if len(largest) > _N_NAMED:
        caption += f" The {_N_NAMED} largest have their own colour; the table names all."
    subsets = [
        [labels[i], f"{total[i]:,}", *(f"{share:.2%}" for share in _range(found, int(i)))] for i in largest
    ]
    header = ["Subset", "Tokens", "Share", "Lowest", "Highest"]
    note = "Lowest and highest: shares in the tokens of one interval."
    by_interval = [
        [f"{first:,} to {end - 1:,}", *(f"{values[row]:.2f}%" for values in series.values())]
        for row, (first, end) in enumerate(itertools.pairwise(edges))
    ]
    return Plot(
        title,
        f"{total.sum():,} tokens in {n_steps:,} steps.",
        [(chart, caption)],
        [
            Table("Subsets", header, subsets, note=note),
            Table("By interval", ["Steps", *series], by_interval),
        ],
    )


def _range(found: timeline.Mixture, i: int) -> tuple[float, float, float]:
    """The share of a subset in all tokens, and the lowest and the highest in an interval."""
    shares = found.shares[:, i]
    return float(found.shares_of_run[i]), float(shares.min()), float(shares.max())
