"""`train_log.jsonl`: one line per step, the same bytes however often the run was stopped.

    {"step": 0, "tokens": 4096, "loss": 8.31, "lr": 1e-05, "grad_norm": 1.7}

`step` counts from 0 and names the batch, as in `pile-tools batch --step`; the loss is of the weights before
the update, `tokens` counts what was trained on including this step. There are no times in it.

A step that left the weights as they were says why, and which samples of the order it had, first and end;
what was not finite or not computed is null:

    {..., "loss": null, "lr": 1e-05, "grad_norm": null, "skipped": "the loss is nan", "samples": [32, 40]}
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, TypedDict, cast

from pile_tools import checked, files
from pile_tools.errors import FormatError
from pile_tools.terminal import counted

LOG_FILE = "train_log.jsonl"

_COUNTS, _MEASURES = ("step", "tokens"), ("loss", "lr", "grad_norm")
_OF_SKIPPED = ("skipped", "samples")


class LogLine(TypedDict):
    """A line of the log; see the module. What is null in the file is NaN here."""

    step: int
    tokens: int
    loss: float
    lr: float
    grad_norm: float
    skipped: NotRequired[str]
    samples: NotRequired[list[int]]


def read_log(path: Path) -> list[LogLine]:
    """The lines of a log.

    Raises:
        FormatError: A line is not JSON, or lacks a value; the message names it.
        OSError: The file cannot be read.
    """
    return _lines(_read(path), path)


def _read(path: Path) -> bytes:
    """The bytes of a log; raises FormatError if it is not a regular file: a pipe may never end."""
    with checked.open_regular(path) as file:
        return file.read()


def _lines(data: bytes, path: Path) -> list[LogLine]:
    lines = data.split(b"\n")
    return [_values(line, path, number) for number, line in enumerate(lines, 1) if line]


def _values(line: bytes, path: Path, number: int) -> LogLine:
    where = f"{path}, line {number}"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise FormatError(f"not JSON: {err} ({where})") from err
    names = (*_COUNTS, *_MEASURES)
    if not isinstance(values, dict) or set(values) - set(_OF_SKIPPED) != set(names):
        raise FormatError(f"expected an object with {', '.join(names)} ({where})")
    if set(values) & set(_OF_SKIPPED):
        _check_skipped(values, where)
    for name in names:
        is_count = name in _COUNTS
        is_right = _is_count(values[name]) if is_count else _is_measure(values[name])
        # Null of a skipped step.
        is_right = is_right or ("skipped" in values and values[name] is math.nan)
        if not is_right:
            what = "a whole number from 0" if is_count else "a finite number"
            raise FormatError(f"{name} is {str(values[name])[:40]}, expected {what} ({where})")
    return cast(LogLine, values)


def _check_skipped(values: dict[str, Any], where: str) -> None:
    """Checks what only a skipped step has, and replaces null by NaN. Raises FormatError."""
    samples = values.get("samples")
    is_range = isinstance(samples, list) and len(samples) == 2 and all(map(_is_count, samples))
    if not isinstance(values.get("skipped"), str) or not is_range:
        raise FormatError(f"a skipped step needs a reason and the range of its samples ({where})")
    for name in ("loss", "grad_norm"):
        if values.get(name) is None:
            values[name] = math.nan


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_measure(value: object) -> bool:
    is_number = isinstance(value, float) or _is_count(value)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def check_log(path: Path, n_steps: int, tokens_per_step: int, *, first_step: int = 0) -> None:
    """Raises FormatError unless a log holds the steps `first_step` to `n_steps` - 1, each once, in order."""
    data = _read(path)
    lines = _lines(data, path)
    _check_steps(lines, path, tokens_per_step, first_step)
    n_steps -= first_step
    if len(lines) != n_steps or not data.endswith(b"\n" if lines else b""):
        raise FormatError(f"{counted(len(lines), 'step')} logged, expected {n_steps:,} ({path})")


def _check_steps(lines: list[LogLine], path: Path, tokens_per_step: int, first_step: int) -> None:
    for number, line in enumerate(lines, 1):
        step = first_step + number - 1
        if line["step"] != step:
            raise FormatError(f"step {line['step']}, expected step {step} ({path}, line {number})")
        if line["tokens"] != (step + 1) * tokens_per_step:
            expected = f"expected {(step + 1) * tokens_per_step}"
            raise FormatError(f"{counted(line['tokens'], 'token')}, {expected} ({path}, line {number})")


def rewind_log(
    path: Path, n_steps: int, tokens_per_step: int, *, first_step: int = 0, scratch: Path | None = None
) -> None:
    """Cuts a log to its lines before step `n_steps`; creates an empty one if it does not exist.

    The first line is that of `first_step`. `scratch` is the folder of the temporary file, see
    `files.write_atomically`.

    Raises:
        FormatError: It has fewer whole lines than that, or they are not steps 0 to `n_steps` - 1.
    """
    n_steps -= first_step
    lines = _read(path).split(b"\n")[:-1] if path.exists() else []
    retained = lines[:n_steps]
    if len(retained) < n_steps:
        raise FormatError(
            f"{counted(len(retained), 'step')} logged, expected {n_steps:,}; force starts again ({path})"
        )
    _check_steps(
        [_values(line, path, number) for number, line in enumerate(retained, 1)],
        path,
        tokens_per_step,
        first_step,
    )
    if (
        len(lines) > n_steps
        or not path.exists()
        or path.stat().st_size != sum(len(line) + 1 for line in retained)
    ):
        files.write_atomically(path, b"".join(line + b"\n" for line in retained), scratch=scratch)


class LogWriter:
    """Appends lines to a log, each visible to readers at once; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> LogWriter:
        # The log was made by `rewind_log`: what has its name and is a link is not it.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        self._file = os.fdopen(descriptor, "a", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, **values: int | float | str | list[int]) -> None:
        """Adds one step's line; what is not finite becomes null."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        try:
            self._file.write(json.dumps(finite) + "\n")
            self._file.flush()
        except OSError as err:
            err.filename = err.filename or os.fspath(self._path)
            raise

    def sync(self) -> None:
        """Makes what was added survive a power failure."""
        os.fsync(self._file.fileno())
