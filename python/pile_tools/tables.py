"""Tables as structured arrays, and as TSV files; arrays in `.npy` files.

`table["step"]` is a column, `table[0]["step"]` a value of a row. In a TSV file, tabs separate fields and line
feeds end lines; inside a field both are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import checked
from pile_tools.errors import FormatError, first_line

#: A structured array of int64 columns.
Table: TypeAlias = NDArray[np.void]


_UNESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def named(rows: NDArray[np.int64], names: Sequence[str]) -> Table:
    """The table of an (n, len(names)) array, without a copy if the array is contiguous."""
    dtype: Any = [(name, np.int64) for name in names]
    table: Table = np.ascontiguousarray(rows).view(dtype).reshape(len(rows))
    return table


def records(table: Table) -> Iterator[dict[str, int]]:
    """The rows of a table as mappings from the names of its columns."""
    names = table.dtype.names or ()
    return (dict(zip(names, row.tolist(), strict=True)) for row in table)


def escaped(text: str) -> str:
    """A text as a field of a TSV file: backslash, tab and line ends as `\\\\`, `\\t`, `\\n`, `\\r`."""
    return text.translate(_ESCAPES)


def unescaped(field: str) -> str:
    """The text of a field that `escaped`, or the core, wrote; no other escapes are known."""
    return re.sub(r"\\(.)", lambda match: _UNESCAPES[match[1]], field)


def column_of(count: str, subset: str | None) -> str:
    """The name of the column with the counts of a subset, unique among all columns.

    The name of a subset follows a colon, which no other column name contains.
    """
    return f"{count}_without_subset" if subset is None else f"{count}:{escaped(subset)}"


def read_tsv(path: Path) -> Iterator[list[str]]:
    """The fields of the lines of a TSV file, escaped as stored, the header first.

    Raises:
        FormatError: A line is too long, or the file is not a regular one.
        UnicodeDecodeError: A line is not UTF-8.
        OSError: The file cannot be read.
    """
    return (line.decode().removesuffix("\n").split("\t") for line in checked.bounded_lines(path))


def mapped_array(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, which may come from anyone, mapped for reading.

    Raises:
        FormatError: It is no such file, or not a regular one.
        OSError: It cannot be read.
    """
    checked.open_regular(path).close()
    try:
        # Not `np.load`, which opens archives and pickles too.
        found: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as err:  # numpy parses the header as a literal of Python, which fails in many ways
        raise FormatError(f"not an array of numpy: {first_line(err)} ({path})") from None
    return found
