"""The report's plots as inline SVG, all in one style; text stays text, colours hold for colour-blind eyes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.report.facts import Composition
from studies.report.wording import times

INK, GREY, GRID = "#24292f", "#6e7781", "#e4e7eb"
SEEN, UNSEEN = "#0072b2", "#d55e00"
#: After Okabe and Ito; the last is for all that have no colour of their own.
SUBSETS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#7f7f9f"]
OTHERS = "#c9ced6"
#: Means of fewer rows are too uncertain to plot.
MIN_ROWS_PLOTTED = 30
#: From few to many repeats; those never planted are grey.
NEVER, REPEATS = "#8c959f", ["#f2b134", "#e8743b", "#c0356a", "#6a1f8a", "#2b0f54"]

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pile-tools",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": "#8c959f",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def subset_colors(names: list[str]) -> dict[str, str]:
    """A colour for each subset, the largest first; the smallest of many share one."""
    return {name: SUBSETS[i] if i < len(SUBSETS) else OTHERS for i, name in enumerate(names)}


def composition(found: Composition) -> str:
    """Shares of the subsets over the run, as stacked bars."""
    with _figure(9.6, 2.6) as (figure, svg):
        axes = figure.subplots()
        widths = np.diff(found.edges)
        bottom = np.zeros(len(found.shares))
        for i, color in enumerate(subset_colors(found.names).values()):
            shares = found.shares[:, i] * 100
            axes.bar(
                found.edges[:-1], shares, widths, bottom, align="edge", color=color, edgecolor="white", lw=0.4
            )
            bottom += shares
        axes.set(xlabel="training step", ylabel="% of tokens", ylim=(0, 100), xlim=(0, found.edges[-1]))
        axes.grid(visible=False)
    return svg.text


def loss(log: list[dict[str, Any]], checkpoints: list[int]) -> str:
    """Loss of each step and its running mean, checkpoints as ticks, the learning rate below."""
    steps = np.array([line["step"] for line in log])
    losses = np.array([line["loss"] for line in log])
    with _figure(9.6, 4.4) as (figure, svg):
        top, bottom = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        top.plot(steps, losses, color="#9ecae1", lw=0.8, label="each step")
        top.plot(steps, smooth(losses), color=SEEN, lw=2, label=f"mean of {window(len(losses))} steps")
        low = losses.min() - 0.05 * (np.ptp(losses) or 1)
        top.plot(checkpoints, [low] * len(checkpoints), "|", color=INK, ms=7, label="checkpoint")
        top.set(ylabel="loss, nats per token")
        top.margins(x=0.01)
        top.legend()
        bottom.plot(steps, [line["lr"] for line in log], color=GREY, lw=1.5)
        bottom.set(xlabel="training step", ylabel="learning rate", ylim=(0, None))
        bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return svg.text


def rows(checkpoints: list[dict[str, Any]]) -> str:
    """Mean score of rows seen and not seen over checkpoints, with two standard errors to each side."""
    with _figure(9.6, 3.4) as (figure, svg):
        axes = figure.subplots()
        for group, color, label in [
            ("seen", SEEN, "trained on before"),
            ("unseen", UNSEEN, "not trained on yet"),
        ]:
            known = [(c["step"], c[group]) for c in checkpoints if c[group]["n"] >= MIN_ROWS_PLOTTED]
            steps = [step for step, _ in known]
            means = np.array([100 * values["mean_score"] for _, values in known])
            errors = np.array([200 * (values["standard_error"] or 0) for _, values in known])
            axes.plot(steps, means, "o-", color=color, lw=2, ms=4, label=label)
            axes.fill_between(steps, means - errors, means + errors, color=color, alpha=0.15, lw=0)
        axes.set(xlabel="checkpoint, training steps", ylabel="mean score, %", ylim=(0, None))
        axes.legend(title="rows", alignment="left")
    return svg.text


def canary_curves(checkpoints: list[dict[str, Any]]) -> str:
    """Mean score of canaries over checkpoints, a line for each number of repeats."""
    levels = [level["repeats"] for level in checkpoints[0]["canaries"]]
    with _figure(4.7, 3.6) as (figure, svg):
        axes = figure.subplots()
        for i, repeats in reversed(list(enumerate(levels))):
            means = [c["canaries"][i]["mean_score"] for c in checkpoints]
            scores = [np.nan if mean is None else 100 * mean for mean in means]
            color, label = repeat_color(levels, repeats), times(repeats)
            style = "--" if repeats == 0 else "-"
            steps = [c["step"] for c in checkpoints]
            axes.plot(steps, scores, style, marker="o", color=color, lw=2, ms=3.5, label=label)
        axes.set(xlabel="checkpoint, training steps", ylabel="mean score, %", ylim=(-3, 103))
        axes.legend(title="planted", alignment="left", fontsize=10)
    return svg.text


def canary_dots(canaries: list[dict[str, Any]], n_tokens: int) -> str:
    """The last checkpoint's score of each canary as a dot, the means as bars, by number of repeats."""
    levels = sorted({canary["repeats"] for canary in canaries})
    with _figure(4.7, 3.6) as (figure, svg):
        axes = figure.subplots()
        for x, repeats in enumerate(levels):
            chosen = [c for c in canaries if c["repeats"] == repeats and (repeats or not c["n_seen"][-1])]
            if not chosen:
                continue
            scores = [100 * c["matches"][-1] / n_tokens for c in chosen]
            color = repeat_color(levels, repeats)
            axes.bar(x, np.mean(scores), 0.72, color=color, alpha=0.35)
            spread = np.linspace(-0.26, 0.26, len(scores)) if len(scores) > 1 else [0]
            axes.plot(x + np.array(spread), scores, "o", color=color, ms=5, mec="white", mew=0.6)
        axes.set_xticks(range(len(levels)), [str(n) if n else "never" for n in levels])
        axes.set(xlabel="times planted", ylabel="score, %", ylim=(-3, 103))
        axes.grid(axis="x", visible=False)
    return svg.text


def repeat_color(levels: list[int], repeats: int) -> str:
    """The colour of a number of repeats, by its rank among all numbers of repeats."""
    planted = [level for level in levels if level]
    if repeats not in planted:
        return NEVER
    return REPEATS[planted.index(repeats) * (len(REPEATS) - 1) // max(len(planted) - 1, 1)]


def window(n_steps: int) -> int:
    """Steps that a running mean is over."""
    return max(1, n_steps // 50)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and those before it within the window: (n,) -> (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window(len(values)))
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


class _Svg:
    """Where a finished figure's SVG is put."""

    text = ""


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, _Svg]]:
    """A figure in our style, turned into an `<svg>` element without outside references at the end."""
    svg = _Svg()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, svg
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    svg.text = text[text.index("<svg") :]
