"""The learning rate of each step, as GPT-NeoX anneals it."""

from __future__ import annotations

import math


def learning_rate(step: int, n_steps: int, *, lr: float, min_lr: float, warmup: float) -> float:
    """The learning rate of a step: a line up to `lr`, then half a cosine down to `min_lr`.

    Args:
        step: From 0.
        n_steps: Steps of the whole run.
        lr: Highest rate.
        min_lr: Rate at the end.
        warmup: Share of the steps in which the rate rises.

    Source: GPT-NeoX `AnnealingLR`, where the first two steps have the same rate. Deviation: a warmup shorter
    than one step starts at `lr`; there it starts above it.
    """
    warmup_steps = warmup * n_steps
    if warmup_steps > 0 and step <= warmup_steps:
        return lr * min(1.0, max(1, step) / warmup_steps)
    progress = (step - warmup_steps) / (n_steps - warmup_steps)
    return max(min_lr, min_lr + (lr - min_lr) / 2 * (math.cos(math.pi * progress) + 1))
