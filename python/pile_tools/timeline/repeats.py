"""Finds the data that the model reads more than once: repeated epochs and duplicate documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pile_tools import _core
from pile_tools.config import checked_threads
from pile_tools.order.order import Order
from pile_tools.tables import Table, named
from pile_tools.timeline.mixture import mixture
from pile_tools.timeline.steps import checked_extent, core_order
from pile_tools.types import OnProgress


@dataclass(frozen=True)
class Repeats:
    """The tokens and documents that the model reads more than once.

    Attributes:
        intervals: A row for each `interval_steps` steps, all columns int64: first_step, n_tokens (read),
            by_epoch (tokens read before in the same document), by_duplicate (tokens read before only in
            another document with the same tokens).
        documents: A row for each document that is read, if it is read again or one of its duplicates is read
            too, all columns int64: same_as (the first document with the same tokens, read or not), document,
            n_tokens, n_copies (of the document that are read, one for each epoch), first_step, last_step.
        first_by_epoch: The first step with a token read before in the same document, or None.
        first_by_duplicate: The first step with a token read before in a duplicate only, or None.
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
    """The tokens and documents that the model reads again, by repeated epochs and by duplicate documents.

    Documents are duplicates if all their tokens are equal. The last token of a row is only predicted in it;
    it counts in the row whose input it is. Tokens that an intervention replaced or wrote over do not
    count, and an inserted text is a document.

    Args:
        order: The order of the run.
        interval_steps: Steps of an interval; the last one may be shorter.
        batch_size: Samples of a step, by default the order's.
        threads: By default one for each core; the answer does not depend on it.
        on_progress: Called with the documents and samples read.

    Raises:
        ConfigError: The interval is empty, no batch size is known, the order has less than one step, or it is
            of rows on a server.
    """
    n_steps, size = checked_extent(order, interval_steps, batch_size)
    # An interval may be longer than any run, to get one over all steps; its samples must fit 64 bits.
    interval_steps = min(interval_steps, n_steps)
    by_interval, documents, first_by_epoch, first_by_duplicate = _core.order_repeats(
        core_order(order), n_steps * size, interval_steps * size, checked_threads(threads), on_progress
    )
    first_steps = np.arange(0, n_steps, interval_steps)
    # Padding is not read.
    n_read = mixture(
        order, interval_steps=interval_steps, batch_size=batch_size, threads=threads
    ).n_tokens.sum(axis=1)
    intervals = np.column_stack([first_steps, n_read, by_interval]).astype(np.int64)
    # The core gives the first and the last sample.
    documents[:, 4:] //= size
    return Repeats(
        intervals=named(intervals, ("first_step", "n_tokens", "by_epoch", "by_duplicate")),
        documents=named(
            documents, ("same_as", "document", "n_tokens", "n_copies", "first_step", "last_step")
        ),
        first_by_epoch=None if first_by_epoch is None else first_by_epoch // size,
        first_by_duplicate=None if first_by_duplicate is None else first_by_duplicate // size,
    )
