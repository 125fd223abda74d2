"""Mean loss by subset over a run, from the losses of its rows and the documents that the rows are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pile_tools.types import OnProgress
from trainer.recorded import RecordedRun

#: Rows whose documents are looked up at once.
_CHUNK_ROWS = 1 << 14


@dataclass(frozen=True)
class SubsetLosses:
    """Mean losses of subsets, by intervals of steps.

    Attributes:
        subsets: Names of the subsets; None, always the last, for documents without a subset.
        edges: First step of each interval, and the end of the last: (n + 1,) int64.
        n_tokens: Tokens of each subset in rows with a loss, by interval: (n, n_subsets) int64.
        sums: Losses of rows, each times its tokens of the subset: (n, n_subsets) float64.
        n_without: Rows that have no finite loss and are left out.
    """

    subsets: list[str | None]
    edges: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    sums: NDArray[np.float64]
    n_without: int

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean loss of each subset in each interval, nats: (n, n_subsets) float64, NaN without tokens."""
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = self.sums / self.n_tokens
        return means

    @property
    def totals(self) -> NDArray[np.float64]:
        """Mean loss of each subset in the whole run, nats: (n_subsets,) float64."""
        with np.errstate(invalid="ignore"):
            totals: NDArray[np.float64] = self.sums.sum(axis=0) / self.n_tokens.sum(axis=0)
        return totals


def subset_losses(run: RecordedRun, every: int, on_progress: OnProgress = None) -> SubsetLosses:
    """The mean loss of each subset by intervals of `every` steps.

    The loss of a row is known, not that of its documents: a row of several subsets counts for each of them,
    weighted by the tokens that it has of it.

    Args:
        run: The run; of one in training, the steps so far.
        every: Steps of an interval; the last one may be shorter.
        on_progress: Called with the rows read.

    Raises:
        PileError: The run's order is not here, or another one.
    """
    losses, size = run.row_losses, run.batch_size
    names: list[str | None] = [*run.order.dataset.subsets, None]
    edges = np.array([*range(0, len(losses), every), len(losses)], dtype=np.int64)
    n_tokens = np.zeros((len(edges) - 1, len(names)), np.int64)
    sums = np.zeros(n_tokens.shape)
    n_without = 0
    per_chunk = max(1, _CHUNK_ROWS // size)
    for interval, (start, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        for first in range(start, end, per_chunk):
            last = min(first + per_chunk, end)
            rows = losses[first:last].astype(np.float64).reshape(-1)
            tokens, weighted = _of_rows(run, first * size, rows, len(names))
            n_tokens[interval] += tokens
            sums[interval] += weighted
            n_without += int((~np.isfinite(rows)).sum())
            if on_progress is not None:
                on_progress(last * size)
    if len(names) > 1 and not n_tokens[:, -1].any():
        names, n_tokens, sums = names[:-1], n_tokens[:, :-1], sums[:, :-1]
    return SubsetLosses(names, edges, n_tokens, sums, n_without)


def _of_rows(
    run: RecordedRun, first: int, losses: NDArray[np.float64], n_names: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tokens of each subset in the rows from `first` on, and their losses, each times these tokens."""
    spans = run.order.samples.spans(first, len(losses))
    row, length = spans[:, 0], spans[:, 3]
    numbers = run.order.dataset.subset_numbers(np.ascontiguousarray(spans[:, 1]))
    numbers = np.where(numbers < 0, n_names - 1, numbers)
    has_loss = np.isfinite(losses)[row]
    numbers, row, length = numbers[has_loss], row[has_loss], length[has_loss]
    tokens = np.bincount(numbers, length, minlength=n_names).astype(np.int64)
    return tokens, np.bincount(numbers, losses[row] * length, minlength=n_names).astype(np.float64)
