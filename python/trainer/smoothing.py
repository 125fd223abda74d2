"""Means of neighbouring steps, for charts: single steps hide how runs differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
