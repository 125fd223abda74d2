"""`train_log.jsonl`: one line per step, the same bytes however often the run was stopped.

    {"step": 0, "tokens": 4096, "loss": 8.31, "lr": 1e-05, "grad_norm": 1.7}

`step` counts from 0 and names the batch, as in `pile-tools batch --step`; the loss is of the weights before
the update, `tokens` counts what was trained on including this step. There are no times in it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from pile_tools import files
from pile_tools.errors import FormatError

LOG_FILE = "train_log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log. Raises FormatError naming the line that is not JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_parse(line, number, path) for number, line in enumerate(lines, 1)]


def _parse(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError as err:
        raise FormatError(f"not JSON: {err} ({path}, line {number})") from err
    return values


def rewind_log(path: Path, n_steps: int) -> None:
    """Cuts a log to its first `n_steps` lines; creates an empty one where there is none.

    Raises:
        FormatError: It has fewer whole lines than that.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n")][:n_steps]
    if len(kept) < n_steps:
        raise FormatError(f"{len(kept)} steps logged, expected {n_steps}; --force begins anew ({path})")
    files.write_atomically(path, b"".join(kept))


class LogWriter:
    """Appends lines to a log, each visible to readers at once; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> LogWriter:
        self._file = self._path.open("a", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, **values: int | float) -> None:
        """Adds one step's line."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Makes what was added survive a power failure."""
        os.fsync(self._file.fileno())
