"""The report's charts."""

from __future__ import annotations

import numpy as np

from pile_tools.present import colors
from pile_tools.present.charts import Dots, Lines, Series, Stack
from studies.memorization.tables import CanaryScores, CheckpointTable, Group
from studies.report.facts import Composition
from studies.report.wording import times
from trainer.log import LogLine
from trainer.smoothing import reach, smooth

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


def loss(log: list[LogLine], checkpoints: list[int]) -> Lines:
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


def learning_rate(log: list[LogLine]) -> Lines:
    """The learning rate of each step."""
    points = [(line["step"], line["lr"]) for line in log]
    series = [Series("learning rate", points, colors.GREY)]
    return Lines("Learning rate", "training step", "learning rate", series, x="symlog", height=90)


def rows(checkpoints: list[CheckpointTable]) -> Lines:
    """Mean score of rows seen and not seen over checkpoints, with two standard errors to each side."""
    seen = {checkpoint["step"]: checkpoint["seen"] for checkpoint in checkpoints}
    unseen = {checkpoint["step"]: checkpoint["unseen"] for checkpoint in checkpoints}
    series = [
        _mean_scores("trained on before", seen, SEEN),
        _mean_scores("not trained on yet", unseen, UNSEEN),
    ]
    return Lines(
        "Mean score of rows", "checkpoint, training steps", "mean score of rows, %", series, x="symlog"
    )


def _mean_scores(name: str, by_step: dict[int, Group], color: str) -> Series:
    """The mean score of a group by step, where it is of enough rows to plot."""
    known = {step: group for step, group in by_step.items() if group["n"] >= MIN_ROWS_PLOTTED}
    points = [(step, 100 * (group["mean_score"] or 0)) for step, group in known.items()]
    band = [200 * (group["standard_error"] or 0) for group in known.values()]
    return Series(name, points, color, is_marked=True, band=band)


def canary_curves(checkpoints: list[CheckpointTable]) -> Lines:
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


def canary_dots(canaries: list[CanaryScores], n_tokens: int) -> Dots:
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
