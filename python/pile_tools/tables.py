"""Tables: structured arrays. `table["step"]` is a column, `table[0]["step"]` a value of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: A structured array of int64 columns.
Table: TypeAlias = NDArray[np.void]


def named(rows: NDArray[np.int64], names: Sequence[str]) -> Table:
    """Columns of a two-dimensional array as a structured one, without a copy where it is contiguous."""
    dtype: Any = [(name, np.int64) for name in names]
    table: Table = np.ascontiguousarray(rows).view(dtype).reshape(len(rows))
    return table
