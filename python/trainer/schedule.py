"""The learning rate of each step, by either of the two formulas that GPT-NeoX has had."""

from __future__ import annotations

import math

#: `neox`: GPT-NeoX since August 2023. `neox_v1`: before, and so of Pythia and GPT-NeoX-20B.
SCHEDULES = ("neox", "neox_v1")


def learning_rate(
    step: int, n_steps: int, *, lr: float, min_lr: float, warmup: float, schedule: str = "neox"
) -> float:
    """The learning rate of a step: a line up to `lr`, then a cosine.

    Args:
        step: From 0.
        n_steps: Steps of the whole run.
        lr: Highest rate.
        min_lr: Rate at the end of `neox`; lower limit of the cosine of `neox_v1`.
        warmup: Share of the steps in which the rate rises.
        schedule: One of `SCHEDULES`.

    Source: GPT-NeoX, `AnnealingLR`. `neox` is its formula since gpt-neox#1008, #1011 and #1379: the first two
    steps have the same rate, and half a cosine ends at `min_lr`. `neox_v1` is that of its version 1.0: the
    first step has rate 0, and the cosine falls towards 0 and is cut off at `min_lr`.
    """
    if schedule == "neox_v1":
        return _neox_v1(step, n_steps, lr, min_lr, warmup * n_steps)
    return _neox(step, n_steps, lr, min_lr, warmup * n_steps)


def _neox(step: int, n_steps: int, lr: float, min_lr: float, warmup_steps: float) -> float:
    """Deviation: a warmup shorter than one step starts at `lr`; there it starts above it."""
    if warmup_steps > 0 and step <= warmup_steps:
        return lr * min(1.0, max(1, step) / warmup_steps)
    progress = (step - warmup_steps) / (n_steps - warmup_steps)
    return max(min_lr, min_lr + (lr - min_lr) / 2 * (math.cos(math.pi * progress) + 1))


def _neox_v1(step: int, n_steps: int, lr: float, min_lr: float, warmup_steps: float) -> float:
    # The source counts at most to the steps after the warmup, in the warmup too.
    counted = min(step, n_steps - warmup_steps)
    if warmup_steps > 0 and step <= warmup_steps:
        return lr * counted / warmup_steps
    return max(min_lr, lr / 2 * (math.cos(math.pi * (counted - warmup_steps) / n_steps) + 1))
