"""Finds the rows that hold a part of a document."""

from __future__ import annotations

from pile_tools import _core
from pile_tools.order.order import Order
from pile_tools.tables import Table, named
from pile_tools.timeline.steps import core_order, extent, with_steps

_COLUMNS = ("epoch", "sample", "offset", "token", "length")


def trace(order: Order, document: int, *, batch_size: int | None = None) -> Table:
    """Every row that holds a part of a document, in training order, those after the run's last step included.

    Tokens that an intervention replaced or wrote over are no part of it. Inserted texts are documents too.

    Columns, all int64: epoch (copy of the document, from 0), sample, step, row, offset (first token in the
    row), token (first in the document), length (tokens).

    Raises:
        ConfigError: There is no such document, no batch size is known, the order has less than one step, or
            it is of rows on a server.
    """
    _, size = extent(order, batch_size)
    return with_steps(named(_core.order_trace(core_order(order), document), _COLUMNS), size)
