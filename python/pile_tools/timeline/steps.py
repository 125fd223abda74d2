"""Shared by the queries: the number of steps of a run, and tables with columns for step and row."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from pile_tools._core import TrainingOrder
from pile_tools.errors import ConfigError, UnknownBatchSizeError
from pile_tools.order.interventions import ChangedSamples
from pile_tools.order.order import Order
from pile_tools.tables import Table


def extent(order: Order, batch_size: int | None = None) -> tuple[int, int]:
    """The number of whole steps of the order's run and the samples of each step.

    Raises:
        UnknownBatchSizeError: Neither `batch_size` nor the order gives a batch size, or the run has fewer
            samples than one step of that size.
    """
    size = order.step_size(batch_size)
    if len(order) < size:
        raise UnknownBatchSizeError(
            f"{len(order):,} samples are fewer than one step of {size:,} ({order.name})"
        )
    return len(order) // size, size


def checked_extent(order: Order, interval_steps: int, batch_size: int | None) -> tuple[int, int]:
    """As `extent`, but refuses intervals of less than one step. Raises ConfigError."""
    if interval_steps < 1:
        raise ConfigError(f"an interval must be of at least 1 step, got {interval_steps}")
    return extent(order, batch_size)


def is_searchable(order: Order) -> bool:
    """Whether the core can read the order's samples; it cannot read rows on a server."""
    samples = order.samples
    base = samples.base if isinstance(samples, ChangedSamples) else samples
    return isinstance(base, TrainingOrder)


def core_order(order: Order) -> TrainingOrder:
    """The order's samples as the core reads them, interventions included.

    Raises ConfigError for an order that is not searchable.
    """
    if not is_searchable(order):
        raise ConfigError(f"rows on a server cannot be searched ({order.name})")
    samples = order.samples
    return samples.core if isinstance(samples, ChangedSamples) else cast(TrainingOrder, samples)


def with_steps(table: Table, batch_size: int) -> Table:
    """The table with columns `step` and `row` inserted after the column `sample`."""
    names = list(table.dtype.names or ())
    n_before = names.index("sample") + 1
    columns = {name: table[name] for name in names[:n_before]}
    columns["step"], columns["row"] = table["sample"] // batch_size, table["sample"] % batch_size
    return joined(columns, table)


def joined(columns: dict[str, NDArray[np.int64]], table: Table) -> Table:
    """The columns, followed by the other columns of the table."""
    columns = columns | {name: table[name] for name in table.dtype.names or () if name not in columns}
    joined = np.empty(len(table), dtype=[(name, np.int64) for name in columns])
    for name, values in columns.items():
        joined[name] = values
    return joined
