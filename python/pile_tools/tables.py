"""Tables: structured arrays. `table["step"]` is a column, `table[0]["step"]` a value of a row.

Tables in files are TSV: a tab ends each field and a line feed each line, and neither is in a field.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: A structured array of int64 columns.
Table: TypeAlias = NDArray[np.void]


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def named(rows: NDArray[np.int64], names: Sequence[str]) -> Table:
    """Columns of a two-dimensional array as a structured one, without a copy where it is contiguous."""
    dtype: Any = [(name, np.int64) for name in names]
    table: Table = np.ascontiguousarray(rows).view(dtype).reshape(len(rows))
    return table


def escaped(text: str) -> str:
    """A text as a field of a TSV file: backslash, tab and line ends as `\\\\`, `\\t`, `\\n`, `\\r`."""
    return text.translate(_ESCAPES)


def column_of(count: str, subset: str | None) -> str:
    """The column of a subset's counts; no two subsets, and no subset and another column, share one.

    A subset's name stands behind a colon, which is in the name of no other column.
    """
    return f"{count}_without_subset" if subset is None else f"{count}:{escaped(subset)}"


def read_tsv(path: Path) -> list[list[str]]:
    """The fields of each line of a TSV file, the header first."""
    lines = path.read_bytes().decode().split("\n")
    return [line.split("\t") for line in lines[:-1]]
