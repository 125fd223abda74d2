"""The learning rate of each step: a warm-up, and one of several courses after it.

With s the step from 0, T the steps of the run, w = `warmup` * T, p = (s - w) / (T - w) and the highest and
lowest rates L and l:

| schedule | warm-up, s <= w | after it | source |
|---|---|---|---|
| `neox` | L max(1, s) / w | l + (L - l) (1 + cos(pi p)) / 2 | GPT-NeoX since August 2023 |
| `neox_v1` | L min(s, T - w) / w | max(l, L (1 + cos(pi (min(s, T - w) - w) / T)) / 2) | GPT-NeoX 1.0 |
| `linear` | as `neox` | L + (l - L) p | Megatron-LM, `linear` |
| `constant` | as `neox` | L | Megatron-LM, `constant` |
| `wsd` | as `neox` | L up to the decay, then l + (L - l) f(q) | MiniCPM, arXiv:2404.06395 |

The decay of `wsd` (warm-up, stable, decay) is the last share `decay` of the steps; q rises in it from 0 to 1,
and f falls from 1 to 0: see `DECAY_SHAPES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: Learning rates of a run, see the module.
SCHEDULES = ("neox", "neox_v1", "linear", "constant", "wsd")

#: How the rate falls in the decay of `wsd`: the share of the way down that remains, by the share of the decay
#: that is done. `sqrt` is "1-sqrt" of Hägele et al. 2024, arXiv:2405.18392, who find it best; `exponential`
#: halves in equal times and is shifted to end at 0, as Megatron-LM has it.
DECAY_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "sqrt": lambda done: 1 - math.sqrt(done),
    "cosine": lambda done: (math.cos(math.pi * done) + 1) / 2,
    "exponential": lambda done: 2 * 0.5**done - 1,
}


def learning_rate(
    step: int,
    n_steps: int,
    *,
    lr: float,
    min_lr: float,
    warmup: float,
    schedule: str = "neox",
    decay: float = 0.1,
    decay_shape: str = "linear",
) -> float:
    """The learning rate of a step.

    Args:
        step: From 0.
        n_steps: Steps of the whole run.
        lr: Highest rate.
        min_lr: Rate at the end of all but `constant`; lower limit of the cosine of `neox_v1`.
        warmup: Share of the steps in which the rate rises.
        schedule: One of `SCHEDULES`.
        decay: Share of the steps in which the rate of `wsd` falls.
        decay_shape: One of `DECAY_SHAPES`, for `wsd`.

    Source: see the module. `neox` is GPT-NeoX's `AnnealingLR` since gpt-neox#1008, #1011, #1379: the first
    two steps have the same rate, and half a cosine ends at `min_lr`. `neox_v1` is that of version 1.0: the
    first step has rate 0, and the cosine falls towards 0 and is cut off at `min_lr`.
    """
    warmup_steps = warmup * n_steps
    if schedule == "neox_v1":
        return _neox_v1(step, n_steps, lr, min_lr, warmup_steps)
    # Deviation from GPT-NeoX: a warmup shorter than one step starts at `lr`; there it starts above it.
    if warmup_steps > 0 and step <= warmup_steps:
        return lr * min(1.0, max(1, step) / warmup_steps)
    remaining = _remaining(step, n_steps, warmup_steps, schedule, decay * n_steps, decay_shape)
    if remaining == 1:
        # The sum below may be off by its last digit, and a constant rate is constant.
        return lr
    return min(lr, max(min_lr, min_lr + (lr - min_lr) * remaining))


def _remaining(
    step: int, n_steps: int, warmup_steps: float, schedule: str, decay_steps: float, decay_shape: str
) -> float:
    """The share of the way from the highest to the lowest rate that remains after the warmup."""
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        first = n_steps - decay_steps
        return DECAY_SHAPES[decay_shape]((step - first) / decay_steps) if step > first else 1.0
    shape = "linear" if schedule == "linear" else "cosine"
    return DECAY_SHAPES[shape]((step - warmup_steps) / (n_steps - warmup_steps))


def _neox_v1(step: int, n_steps: int, lr: float, min_lr: float, warmup_steps: float) -> float:
    # The source counts at most to the steps after the warmup, in the warmup too.
    counted = min(step, n_steps - warmup_steps)
    if warmup_steps > 0 and step <= warmup_steps:
        return lr * counted / warmup_steps
    return max(min_lr, lr / 2 * (math.cos(math.pi * (counted - warmup_steps) / n_steps) + 1))
