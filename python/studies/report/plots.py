"""The report's charts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools.present import colors
from pile_tools.present.charts import Dots, Lines, Series, Stack
from studies.report.facts import Composition
from studies.report.wording import times

SEEN, UNSEEN = colors.SERIES[0], colors.SERIES[5]
#: Means of fewer rows are too uncertain to plot.
MIN_ROWS_PLOTTED = 30


def subset_colors(names: list[str]) -> dict[str, str]:
    """A colour for each subset, the largest first; the smallest of many share one."""
    return {name: colors.of_series(i) for i, name in enumerate(names)}


def composition(found: Composition) -> Stack:
    """Shares of the subsets over the run, as stacked bars."""
    shares = {name: (100 * found.shares[:, i]).tolist() for i, name in enumerate(found.names)}
    edges = found.edges.tolist()
    return Stack("Subsets over the run", "training step", "% of tokens", edges, shares, largest=100)


def loss(log: list[dict[str, Any]], checkpoints: list[int]) -> Lines:
    """Loss of each step and its running mean, with checkpoints as marks."""
    steps = [line["step"] for line in log]
    losses = np.array([line["loss"] for line in log])
    mean = f"mean of {2 * reach(len(losses)) + 1} steps"
    return Lines(
        "Loss of each step",
        "training step",
        "loss, nats per token",
        [
            Series("each step", list(zip(steps, losses.tolist(), strict=True)), colors.PALE, stroke=0.8),
            Series(mean, list(zip(steps, smooth(losses).tolist(), strict=True)), SEEN),
        ],
        x="symlog",
        is_from_zero=False,
        marks=checkpoints,
    )


def learning_rate(log: list[dict[str, Any]]) -> Lines:
    """The learning rate of each step."""
    points = [(line["step"], line["lr"]) for line in log]
    series = [Series("learning rate", points, colors.GREY)]
    return Lines("Learning rate", "training step", "learning rate", series, x="symlog", height=90)


def rows(checkpoints: list[dict[str, Any]]) -> Lines:
    """Mean score of rows seen and not seen over checkpoints, with two standard errors to each side."""
    series = []
    for group, color, name in [
        ("seen", SEEN, "trained on before"),
        ("unseen", UNSEEN, "not trained on yet"),
    ]:
        known = [(c["step"], c[group]) for c in checkpoints if c[group]["n"] >= MIN_ROWS_PLOTTED]
        points = [(step, 100 * values["mean_score"]) for step, values in known]
        band = [200 * (values["standard_error"] or 0) for _, values in known]
        series.append(Series(name, points, color, is_marked=True, band=band))
    return Lines(
        "Mean score of rows", "checkpoint, training steps", "mean score of rows, %", series, x="symlog"
    )


def canary_curves(checkpoints: list[dict[str, Any]]) -> Lines:
    """Mean score of canaries over checkpoints, a line for each number of repeats."""
    levels = [level["repeats"] for level in checkpoints[0]["canaries"]]
    series = []
    for i, repeats in enumerate(levels):
        means = [(c["step"], c["canaries"][i]["mean_score"]) for c in checkpoints]
        points = [(step, 100 * mean) for step, mean in means if mean is not None]
        color = repeat_color(levels, repeats)
        series.append(Series(times(repeats), points, color, is_dashed=not repeats, is_marked=True))
    return Lines(
        "Mean score of canaries by times planted",
        "checkpoint, training steps",
        "mean score, %; lines: times planted",
        series,
        x="symlog",
        is_labelled_at_ends=True,
    )


def canary_dots(canaries: list[dict[str, Any]], n_tokens: int) -> Dots:
    """The last checkpoint's score of each canary as a dot, the means as bars, by number of repeats."""
    levels = sorted({canary["repeats"] for canary in canaries})
    groups = {
        f"{repeats:,}" if repeats else "never": [
            100 * c["matches"][-1] / n_tokens
            for c in canaries
            if c["repeats"] == repeats and (repeats or not c["n_seen"][-1])
        ]
        for repeats in levels
    }
    shown = [repeat_color(levels, repeats) for repeats in levels]
    return Dots("Score of each canary", "times planted", "score, %", groups, shown, largest=100)


def repeat_color(levels: list[int], repeats: int) -> str:
    """The colour of a number of repeats, by its rank among all numbers of repeats."""
    planted = [level for level in levels if level]
    if repeats not in planted:
        return colors.NONE
    return colors.SCALE[planted.index(repeats) * (len(colors.SCALE) - 1) // max(len(planted) - 1, 1)]


def reach(n_steps: int) -> int:
    """Steps before and after each step that the mean of a run's losses is over."""
    return n_steps // 100


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and its neighbours: (n,) -> (n,).

    Near the ends there are fewer neighbours, as many before as after: with others the mean would lag where
    the loss falls fastest.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    away = np.minimum(np.minimum(at, at[::-1]), reach(len(values)))
    means: NDArray[np.float64] = (sums[at + away + 1] - sums[at - away]) / (2 * away + 1)
    return means
