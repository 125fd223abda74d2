"""`pile-train losses RUN`: the losses of a step's rows and their documents, or mean losses by subset."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pile_tools.commands import artifacts, options
from pile_tools.commands.origins import range_of, subset_labels, unused_label
from pile_tools.errors import ConfigError
from pile_tools.present import charts, colors, pages
from pile_tools.present.charts import Lines, Series
from pile_tools.present.pages import Plot, Table
from pile_tools.progress import Bar
from pile_tools.terminal import (
    columns,
    counted,
    echo,
    note,
    padded,
    print_document,
    shell_quote,
    style,
    width,
)
from pile_tools.tokens.datasets import subset_of
from trainer.recorded import RecordedRun, batch_size_option, open_recorded
from trainer.row_losses import RowLosses
from trainer.subset_losses import SubsetLosses, subset_losses

#: Intervals of steps by default.
_N_INTERVALS = 20
#: Subsets, the largest ones, with a line of their own in the chart.
_N_NAMED = len(colors.SERIES)


@click.command("losses", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=artifacts.RUN)
@click.option("--step", type=click.IntRange(min=0), help="Print the rows of this step, from 0.")
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows, of highest loss first."
)
@click.option("--by", type=click.Choice(["subset"]), help="Print mean losses over the run by this.")
@click.option(
    "--every", type=click.IntRange(min=1), help="Steps of an interval, with --by.  [default: 20 intervals]"
)
@options.reports
@options.plot("the mean loss of each subset over the run, with --by")
def command(
    run: Path,
    step: int | None,
    top: int,
    by: str | None,
    every: int | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Print the losses of rows that RUN, a folder of pile-train, was trained on, finished or not.

    With --step, the rows of a step with the highest losses, and the documents that they are made of: which
    document made the spike? The loss is of the weights before the update. With --by subset, the mean loss of
    each subset by intervals of steps; a row of several subsets counts for each by its tokens.

    \b
    Examples:
      pile-train losses demo/run --step 120
      pile-train losses demo/run --step 120 --top 3 --json
      pile-train losses demo/run --by subset --every 50 --plot subsets.html
    """
    if (step is None) == (by is None):
        raise ConfigError("give either --step or --by subset")
    if step is not None and (plot is not None or every is not None):
        raise ConfigError("--plot and --every need --by subset")
    opened = open_recorded(run)
    if step is not None:
        _print_step(opened, step, top, as_json=as_json)
        return
    n_steps = len(opened.row_losses)
    if not n_steps:
        raise ConfigError(f"the run has trained no step yet ({run})")
    interval = every or math.ceil(n_steps / _N_INTERVALS)
    with Bar("reading", n_steps * opened.batch_size, "rows") as bar:
        found = subset_losses(opened, interval, bar.update)
    if plot is not None:
        pages.write(plot, _plot(str(run), found, interval))
    if as_json:
        n_without = found.n_without
        print_document(_document(n_steps=n_steps, n_rows_without_loss=n_without, intervals=_intervals(found)))
        return
    _print_subsets(found, n_steps)
    options.note_plot(plot)


def _print_step(run: RecordedRun, step: int, top: int, *, as_json: bool) -> None:
    losses = run.losses_of(step)
    ranked = highest_first(losses)[:top].tolist()
    spans = run.order.batch_spans(step, run.batch_size)
    first = step * run.batch_size
    finite = losses[np.isfinite(losses)].astype(np.float64)
    mean = float(finite.mean()) if len(finite) else None
    if as_json:
        rows = (
            {"row": row, "sample": first + row, "loss": _or_none(float(losses[row])), "spans": list(of)}
            for row in ranked
            for of in [_spans_json(run, spans[spans["row"] == row].tolist())]
        )
        print_document(_document(step=step, n_rows=len(losses), loss=mean, rows=rows))
        return
    shown = "no finite loss" if mean is None else f"mean loss {mean:.4f}"
    echo(f"step {step:,}: {counted(len(losses), 'row')}, {shown}; the {len(ranked):,} of highest loss:")
    for row in ranked:
        echo()
        echo(f"row {row:,}, sample {first + row:,}: loss {losses[row]:.3f}")
        for _, document, start, length in spans[spans["row"] == row].tolist():
            source = "document unknown"
            if document >= 0:
                source = range_of(run.order.dataset, document, start, length)
            echo(style(f"  {source}", dim=True))
    order, size = shell_quote(run.order.path.parent), batch_size_option(run.order, run.batch_size)
    note(f"next: pile-tools batch {order} --step {step} --row {ranked[0]}{size}")


def highest_first(losses: RowLosses) -> NDArray[np.intp]:
    """The rows by falling loss, NaN first, as it is why a step was skipped: (n,) -> (n,)."""
    key = np.where(np.isnan(losses), np.inf, losses.astype(np.float64))
    return np.argsort(-key, kind="stable")


def _document(**values: Any) -> dict[str, Any]:
    """The document of `--json`, with null for what was not asked for."""
    names = ("step", "n_rows", "loss", "rows", "n_steps", "n_rows_without_loss", "intervals")
    return dict.fromkeys(names) | values


def _spans_json(run: RecordedRun, spans: list[tuple[int, ...]]) -> Iterator[dict[str, Any]]:
    for _, document, start, length in spans:
        origin = run.order.dataset.origin(document) if document >= 0 else None
        yield {
            "document": document if document >= 0 else None,
            "start": start if document >= 0 else None,
            "n_tokens": length,
            "subset": subset_of(run.order.dataset, document) if document >= 0 else None,
            "shard": origin["shard"] if origin else None,
            "record": origin["record"] if origin else None,
        }


def _or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _intervals(found: SubsetLosses) -> Iterator[dict[str, Any]]:
    for first, means, counts in zip(
        found.edges[:-1].tolist(), found.means.tolist(), found.n_tokens.tolist(), strict=True
    ):
        by_subset = {
            name: {"loss": _or_none(mean), "n_tokens": n}
            for name, mean, n in zip(found.subsets, means, counts, strict=True)
        }
        without = by_subset.pop(None, None)
        yield {"first_step": first, "by_subset": by_subset, "without_subset": without}


def _largest_first(found: SubsetLosses) -> list[int]:
    order: list[int] = np.argsort(-found.n_tokens.sum(axis=0), kind="stable").tolist()
    return order


def _print_subsets(found: SubsetLosses, n_steps: int) -> None:
    total = int(found.n_tokens.sum())
    echo(f"mean loss of {counted(total, 'token')} in {counted(n_steps, 'step')}, by subset:")
    labels, totals, means = subset_labels(found.subsets), found.totals, found.means
    n_columns = min(max(map(width, labels)), columns() // 3)
    low = float(np.nanmin(means)) if np.isfinite(means).any() else 0.0
    # Numbers and separators take 42 columns, of losses below 100; two are spare.
    n_over_time = max(1, min(len(means), columns() - n_columns - 44))
    echo(f"  {'':<{n_columns}}  {'tokens':>7}  {'mean':>7}  {'first':>7}  {'last':>7}")
    for i in _largest_first(found):
        known = means[np.isfinite(means[:, i]), i]
        ends = [f"{value:7.4f}" for value in (totals[i], *(known[[0, -1]] if len(known) else ()))]
        parts = [float(part.mean()) for part in np.array_split(known, n_over_time) if len(part)]
        # From the lowest mean of all: bars from zero would be nearly equal. 0.1 nats more keep
        # differences far below that small.
        over_time = [value - low + 0.1 for value in parts]
        share = float(found.n_tokens[:, i].sum() / total) if total else 0.0
        line = f"  {padded(labels[i], n_columns)}  {share:>7.2%}  {'  '.join(ends)}"
        echo(f"{line}  |{charts.sparkline(over_time)}|")
    if found.n_without:
        echo(f"{counted(found.n_without, 'row')} without a finite loss left out")


def _plot(run: str, found: SubsetLosses, every: int) -> Plot:
    labels, means, totals = subset_labels(found.subsets), found.means, found.totals
    largest = _largest_first(found)
    middles = [(a + b - 1) / 2 for a, b in itertools.pairwise(found.edges.tolist())]
    series = [
        Series(labels[i], _finite(middles, means[:, i]), colors.of_series(n))
        for n, i in enumerate(largest[:_N_NAMED])
    ]
    n_tokens = found.n_tokens
    if rest := largest[_N_NAMED:]:
        with np.errstate(invalid="ignore"):
            others = found.sums[:, rest].sum(axis=1) / n_tokens[:, rest].sum(axis=1)
        series.append(Series(unused_label("others", labels), _finite(middles, others), colors.OTHERS))
    title = f"Mean loss of {run}, by subset"
    chart = Lines(title, "training step", "loss, nats per token", series, is_from_zero=False)
    caption = (
        f"Mean loss of rows in each interval of {counted(every, 'step')}, each row by its tokens of a subset."
    )
    rows = [
        [
            labels[i],
            f"{int(n_tokens[:, i].sum()):,}",
            f"{totals[i]:.4f}",
            *(f"{of:.4f}" for of in _ends(means[:, i])),
        ]
        for i in largest
    ]
    header = ["Subset", "Tokens", "Mean loss", "First interval", "Last interval"]
    about = f"{int(n_tokens.sum()):,} tokens in {int(found.edges[-1]):,} steps."
    return Plot(title, about, [(chart, caption)], [Table("Subsets", header, rows)])


def _finite(x: list[float], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(x, y.tolist(), strict=True) if math.isfinite(b)]


def _ends(means: NDArray[np.float64]) -> tuple[float, float]:
    """The first and the last mean that is known."""
    known = means[np.isfinite(means)]
    return (float(known[0]), float(known[-1])) if len(known) else (math.nan, math.nan)
