"""What the answers have in common: the steps of a run, and tables by step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pile_tools._core import TrainingOrder
from pile_tools.errors import ConfigError
from pile_tools.order.order import Order
from pile_tools.tables import Table


def extent(order: Order, batch_size: int | None = None) -> tuple[int, int]:
    """Steps of the order's run and samples of each; a run of which no steps are known is all samples.

    Raises:
        ConfigError: No batch size is known, or the order has less than one step.
    """
    size = batch_size or order.batch_size
    if size is None:
        raise ConfigError(f"the order names no batch size; give --batch-size ({order.path})")
    if len(order) < size:
        raise ConfigError(f"{len(order):,} samples are no step of {size:,}; give --batch-size ({order.path})")
    return len(order) // size, size


def checked_extent(order: Order, interval_steps: int, batch_size: int | None) -> tuple[int, int]:
    """As `extent`, and the interval has at least one step. Raises ConfigError."""
    if interval_steps < 1:
        raise ConfigError(f"an interval must be of at least 1 step, got {interval_steps}")
    return extent(order, batch_size)


def core_order(order: Order) -> TrainingOrder:
    """The samples, if their documents or rows lie here as the model sees them. Raises ConfigError."""
    if isinstance(order.samples, TrainingOrder):
        return order.samples
    raise ConfigError(f"only orders whose tokens lie here unchanged are searched ({order.path})")


def with_steps(table: Table, batch_size: int) -> Table:
    """The table with columns for step and row after that of the sample."""
    names = list(table.dtype.names or ())
    n_before = names.index("sample") + 1
    columns = {name: table[name] for name in names[:n_before]}
    columns["step"], columns["row"] = table["sample"] // batch_size, table["sample"] % batch_size
    return joined(columns, table)


def joined(columns: dict[str, NDArray[np.int64]], table: Table) -> Table:
    """The columns, then those of the table that are not among them."""
    columns = columns | {name: table[name] for name in table.dtype.names or () if name not in columns}
    joined = np.empty(len(table), dtype=[(name, np.int64) for name in columns])
    for name, values in columns.items():
        joined[name] = values
    return joined
