"""Counts the tokens of each subset that the model reads, by intervals of steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core
from pile_tools.config import checked_threads
from pile_tools.order.order import Order
from pile_tools.timeline.steps import checked_extent, core_order
from pile_tools.types import OnProgress


@dataclass(frozen=True)
class Mixture:
    """The tokens of each subset that the model reads, by interval.

    Attributes:
        subsets: Names of the subsets; None, always the last, for documents without a subset.
        first_steps: First step of each interval: (n,) int64.
        n_tokens: Tokens read by interval and subset: (n, n_subsets) int64.
    """

    subsets: list[str | None]
    first_steps: NDArray[np.int64]
    n_tokens: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each subset in each interval: (n, n_subsets) float64. Rows sum to 1, or to 0."""
        return shares_of(self.n_tokens)

    @property
    def shares_of_run(self) -> NDArray[np.float64]:
        """Share of each subset in all intervals: (n_subsets,) float64."""
        return shares_of(self.n_tokens.sum(axis=0, keepdims=True)).reshape(-1)


def shares_of(counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Each count divided by the sum of its row, which may be 0: (n, m) -> (n, m) float64."""
    # Padded samples of empty documents have no tokens.
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def mixture(
    order: Order,
    *,
    interval_steps: int = 1000,
    batch_size: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> Mixture:
    """The tokens of each subset that the model reads, by intervals of steps.

    The last token of a whole row, which is only predicted in it, does not count.

    Args:
        order: The order of the run.
        interval_steps: Steps of an interval; the last one may be shorter.
        batch_size: Samples of a step, by default the order's.
        threads: By default one for each core; the answer does not depend on it.
        on_progress: Called with the samples read.

    Raises:
        ConfigError: The interval is empty, no batch size is known, or the order has less than one step.
    """
    n_steps, size = checked_extent(order, interval_steps, batch_size)
    # An interval may be longer than any run, to get one over all steps; its samples must fit 64 bits.
    interval_steps = min(interval_steps, n_steps)
    # First, as rows on a server are refused here, and a server may claim to have any number of them.
    samples = core_order(order)
    dataset = order.dataset
    numbers = dataset.subset_numbers(np.arange(len(dataset), dtype=np.int64))
    names: list[str | None] = [*dataset.subsets, None]
    n_tokens = _core.order_mixture(
        samples,
        numbers,
        len(names) - 1,
        n_steps * size,
        interval_steps * size,
        checked_threads(threads),
        on_progress,
    )
    if len(names) > 1 and not n_tokens[:, -1].any():
        names, n_tokens = names[:-1], n_tokens[:, :-1]
    return Mixture(names, np.arange(0, n_steps, interval_steps, dtype=np.int64), n_tokens)
