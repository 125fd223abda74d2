"""The plot of `pile-tools when`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pile_tools import timeline
from pile_tools.commands.texts import short
from pile_tools.present import charts, colors
from pile_tools.present.axes import Kind
from pile_tools.present.charts import Lines, Series
from pile_tools.present.pages import Plot, Table
from pile_tools.timeline import When
from pile_tools.timeline.checkpoints import Intervals


def plot_of(order: str, answer: When, between: Intervals, names: list[str], steps: tuple[int, int]) -> Plot:
    """Occurrences per step, a line for each text: intervals between checkpoints differ in length.

    `answer` has the occurrences of the steps [first, end) of `steps`, and `between` the intervals of the
    whole run.
    """
    counts = answer.counts().sum(axis=1)
    drawn = np.argsort(-counts, kind="stable")[: len(colors.SERIES)].tolist()
    found = {text: selected(answer, answer.sightings["text"] == text).by_interval(between) for text in drawn}
    edges = np.clip(between.edges, *steps)
    lengths = np.diff(edges)
    inside = lengths > 0
    borders = [*edges[:-1][inside].tolist(), steps[1]]
    series = [
        Series(
            names[text],
            charts.stairs(borders, (found[text].sum(axis=1)[inside] / lengths[inside]).tolist()),
            colors.of_series(i),
        )
        for i, text in enumerate(drawn)
    ]
    subject = f"{short(names[0])} is" if len(names) == 1 else f"{len(names):,} texts are"
    title = f"How often {subject} seen in {order}"
    more = f" The {len(drawn)} texts seen most often are drawn." if len(names) > len(drawn) else ""
    caption = (
        "Occurrences in each interval between checkpoints, divided by its steps: a text that is seen at a "
        f"constant rate gives a level line.{more}"
    )
    kind: Kind = "linear" if len(drawn) == 1 else "symlog"
    caption += "" if len(drawn) == 1 else " The rates are on a logarithmic axis that contains 0."
    chart = Lines(title, "training step", "occurrences per step", series, x="symlog", y=kind)
    about = (
        f"Steps {steps[0]:,} to {steps[1] - 1:,}, {answer.batch_size:,} rows a step. Rule: {timeline.RULE}."
    )
    tables = [_texts_table(answer, names), _intervals_table(between.labels(), lengths, found, names)]
    return Plot(title, about, [(chart, caption)], tables)


def selected(answer: When, is_selected: NDArray[np.bool_]) -> When:
    """The answer with only the selected sightings, their occurrences numbered anew.

    All parts of an occurrence are selected, or none.
    """
    seen = answer.sightings[is_selected].copy()
    seen["occurrence"] = np.cumsum(seen["part"] == 0) - 1
    return replace(answer, sightings=seen)


def _texts_table(answer: When, names: list[str]) -> Table:
    counts, ends = answer.counts(), answer.first_and_last()
    rows = []
    for text in np.argsort(-counts.sum(axis=1), kind="stable").tolist():
        whole, split = counts[text].tolist()
        steps = [f"{of[text]:,}" if whole + split else "-" for of in ends]
        rows.append([names[text], f"{whole + split:,}", f"{split:,}", *steps])
    note = "Cut: split across rows by their border; these are part of the number seen."
    return Table("Texts", ["Text", "Seen", "Cut", "First step", "Last step"], rows, note=note)


def _intervals_table(
    labels: list[str], lengths: NDArray[np.int64], found: dict[int, NDArray[np.int64]], names: list[str]
) -> Table:
    """The numbers of the chart: of one text with its rate, of several the counts of each."""
    header = ["Between checkpoints", "Steps"]
    one = next(iter(found)) if len(found) == 1 else None
    header += ["Seen", "Cut", "Seen per step"] if one is not None else [short(names[t], 40) for t in found]
    rows = []
    for i, (label, length) in enumerate(zip(labels, lengths.tolist(), strict=True)):
        if one is None:
            cells = [f"{int(counts[i].sum()):,}" for counts in found.values()]
        else:
            seen, cut = int(found[one][i].sum()), int(found[one][i, 1])
            cells = [f"{seen:,}", f"{cut:,}", f"{seen / length:.3g}" if length else "-"]
        if length or any(int(counts[i].sum()) for counts in found.values()):
            rows.append([label, f"{length:,}", *cells])
    return Table("Between checkpoints", header, rows)
