"""Files of a run that grow by each step, and whose contents are visible to readers at once."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from pile_tools import files

_Self = TypeVar("_Self", bound="Appender")


class Appender:
    """Appends to a file that exists; use as a context manager. A failure names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO

    def __enter__(self: _Self) -> _Self:
        # The run made the file, so a link with its name is not it.
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:
            # What could not be written is tried again here: the first error names the file.
            if error is None:
                raise

    def append(self, data: bytes) -> None:
        """Adds bytes. Raises OSError."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as err:
            err.filename = err.filename or os.fspath(self._path)
            raise

    def sync(self) -> None:
        """Makes what was added survive a power failure."""
        files.sync(self._file.fileno(), self._path)
