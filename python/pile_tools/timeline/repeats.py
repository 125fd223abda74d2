"""What the model reads more than once."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from pile_tools import _core
from pile_tools.order.order import Order
from pile_tools.tables import Table, named
from pile_tools.timeline.steps import checked_extent, core_order
from pile_tools.types import OnProgress

_REPEATED = ("same_as", "document", "n_tokens", "n_copies", "first_sample", "last_sample")


@dataclass(frozen=True)
class Repeats:
    """What the model reads more than once.

    Attributes:
        intervals: A row for `interval_steps` steps: first_step, n_tokens read, by_epoch (read before in an
            earlier copy of their document), by_duplicate (read before in another document with the same
            tokens only).
        documents: A row for each document of which, or of whose duplicates, more than one copy is seen:
            same_as (the first document with the same tokens), document, n_tokens, n_copies, first_step,
            last_step.
        first_by_epoch: The first step with a token read before in an earlier copy of its document, or None.
        first_by_duplicate: The first step with a token read before in a duplicate, or None.
    """

    intervals: Table
    documents: Table
    first_by_epoch: int | None
    first_by_duplicate: int | None


def repeats(
    order: Order,
    *,
    interval_steps: int = 1000,
    batch_size: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> Repeats:
    """What the model reads more than once: repeated epochs and duplicate documents, told apart.

    Documents are duplicates if all their tokens are equal. A row's last token is only predicted; it is
    counted in the row that reads it.
    """
    n_steps, size = checked_extent(order, interval_steps, batch_size)
    interval_steps = min(interval_steps, n_steps)
    by_interval, documents, first_by_epoch, first_by_duplicate = _core.order_repeats(
        core_order(order), n_steps * size, interval_steps * size, threads or os.cpu_count() or 1, on_progress
    )
    first_steps = np.arange(0, n_steps, interval_steps)
    n_read = (np.minimum(first_steps + interval_steps, n_steps) - first_steps) * size * order.seq_length
    intervals = np.column_stack([first_steps, n_read, by_interval]).astype(np.int64)
    documents[:, 4:] //= size
    return Repeats(
        intervals=named(intervals, ("first_step", "n_tokens", "by_epoch", "by_duplicate")),
        documents=named(documents, (*_REPEATED[:4], "first_step", "last_step")),
        first_by_epoch=None if first_by_epoch is None else first_by_epoch // size,
        first_by_duplicate=None if first_by_duplicate is None else first_by_duplicate // size,
    )
