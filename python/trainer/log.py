"""`train_log.jsonl`: one line per step, the same values but for times however often the run was stopped.

    {"step": 0, "tokens": 4096, "loss": 8.31, "lr": 1e-05, "grad_norm": 1.7,
     "time": "2026-03-01T12:00:00.000Z", "tokens_per_second": 5120.3}

`step` counts from 0 and names the batch, as in `pile-tools batch --step`; the loss is of the weights before
the update, `tokens` counts what was trained on including this step. `time` is when the step ended, in UTC,
and `tokens_per_second` its speed, saving excluded; logs of earlier versions have neither.

A step that left the weights as they were says why, and which samples of the order it had, first and end;
what was not finite or not computed is null:

    {..., "loss": null, "lr": 1e-05, "grad_norm": null, "skipped": "the loss is nan", "samples": [32, 40]}

`validation_log.jsonl` has one line per validation, of the weights after `step` updates:

    {"step": 1000, "tokens": 2097152000, "loss": 3.21, "bits_per_byte": 1.02}

There, too, null is what was not finite.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from pile_tools import checked, files
from pile_tools.errors import FormatError
from pile_tools.terminal import counted
from trainer.appending import Appender

LOG_FILE, VALIDATION_LOG_FILE = "train_log.jsonl", "validation_log.jsonl"

_COUNTS, _MEASURES = ("step", "tokens"), ("loss", "lr", "grad_norm")
#: Keys whose values differ from run to run.
_TIMES = ("time", "tokens_per_second")
#: Keys of a skipped step, and those of its values that may be null.
_OF_SKIPPED, _UNKNOWN = ("skipped", "samples"), ("loss", "grad_norm")

#: Many times the bytes of the longest line that is written.
_MAX_LINE_BYTES = 1 << 16

#: Why a step that the config names in `skip_steps` was skipped.
BY_NAME = "by name"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


class LogLine(TypedDict):
    """A line of the log; see the module. What is null in the file is NaN here."""

    step: int
    tokens: int
    loss: float
    lr: float
    grad_norm: float
    time: NotRequired[str]
    tokens_per_second: NotRequired[float]
    skipped: NotRequired[str]
    samples: NotRequired[list[int]]


class ValidationLine(TypedDict):
    """A line of the log of validations; see the module. What is null in the file is NaN here."""

    step: int
    tokens: int
    loss: float
    bits_per_byte: NotRequired[float]


def now() -> str:
    """The current time in UTC, as lines of the log have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_log(path: Path) -> list[LogLine]:
    """The lines of a log.

    Raises:
        FormatError: A line is not JSON, or lacks a value; the message names it.
        OSError: The file cannot be read.
    """
    return [_values(line, path, number) for number, line in _read(path)]


def read_validations(path: Path) -> list[ValidationLine]:
    """The lines of a log of validations. Raises as `read_log`."""
    return [_validation(line, path, number) for number, line in _read(path)]


def _validation(line: bytes, path: Path, number: int) -> ValidationLine:
    values = _object(line, path, number, (*_COUNTS, "loss"), ("bits_per_byte",), ("loss", "bits_per_byte"))
    found = {name: math.nan if value is None else value for name, value in values.items()}
    return cast(ValidationLine, found)


def _read(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line of a log that is not empty.

    Raises FormatError for a line longer than any of a log, and for what is not a regular file: a pipe may
    never end.
    """
    lines = enumerate(checked.bounded_lines(path, _MAX_LINE_BYTES), 1)
    return ((number, line) for number, line in lines if line != b"\n")


def _first_lines(path: Path, n: int) -> list[bytes]:
    """The first `n` whole lines of a log, fewer if it has fewer; raises as `_read`."""
    if not path.exists():
        return []
    lines = checked.bounded_lines(path, _MAX_LINE_BYTES)
    return list(itertools.islice((line for line in lines if line.endswith(b"\n")), n))


def _values(line: bytes, path: Path, number: int) -> LogLine:
    more = (*_TIMES, *_OF_SKIPPED)
    values = _object(line, path, number, (*_COUNTS, *_MEASURES), more, _UNKNOWN)
    if ("skipped" in values) != ("samples" in values):
        raise FormatError(f"skipped and samples are given together ({path}, line {number})")
    for name in _UNKNOWN:
        if values[name] is None and "skipped" not in values:
            raise FormatError(f"{name} is None, expected a finite number ({path}, line {number})")
        values[name] = math.nan if values[name] is None else values[name]
    return cast(LogLine, values)


def _object(
    line: bytes,
    path: Path,
    number: int,
    names: tuple[str, ...],
    more: tuple[str, ...],
    nullable: tuple[str, ...] = (),
) -> dict[str, object]:
    """The values of a line, which has all of `names` and may have those of `more`. Raises FormatError."""
    where = f"{path}, line {number}"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise FormatError(f"not JSON: {err} ({where})") from err
    if not isinstance(values, dict) or set(values) - set(more) != set(names):
        raise FormatError(f"expected an object with {', '.join(names)} ({where})")
    for name, value in values.items():
        is_right, what = _EXPECTED.get(name, (_is_measure, "a measured number"))
        if not is_right(value) and not (value is None and name in nullable):
            raise FormatError(f"{name} is {str(value)[:40]}, expected {what} ({where})")
    return values


def _is_time(value: object) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_measure(value: object) -> bool:
    is_number = isinstance(value, float) or _is_count(value)
    return is_number and abs(value) < checked.MAX_MEASURE  # type: ignore[arg-type]


#: What the values of a line must be, by their names; all others are measures.
_EXPECTED = dict.fromkeys(_COUNTS, (_is_count, "a whole number from 0")) | {
    "time": (_is_time, "a time in UTC"),
    "skipped": (lambda value: isinstance(value, str), "a reason"),
    "samples": (_is_range, "the first sample and the end"),
}


def check_log(path: Path, n_steps: int, tokens_per_step: int, *, first_step: int = 0) -> None:
    """Raises FormatError unless a log holds the steps `first_step` to `n_steps` - 1, each once, in order."""
    last = b"\n"
    lines: list[LogLine] = []
    for number, last in _read(path):
        lines.append(_values(last, path, number))
    _check_steps(lines, path, tokens_per_step, first_step)
    n_steps -= first_step
    if len(lines) != n_steps or not last.endswith(b"\n"):
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
    retained = _first_lines(path, n_steps)
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
    _retain(path, retained, scratch)


def _retain(path: Path, lines: list[bytes], scratch: Path | None) -> None:
    """Cuts a log to its first lines, which are these; creates one that does not exist."""
    if not path.exists() or path.stat().st_size != sum(map(len, lines)):
        files.write_atomically(path, b"".join(lines), scratch=scratch)


def check_validations(path: Path, steps: list[int]) -> None:
    """Raises FormatError unless a log of validations has a line for each of these steps, in order."""
    last = b"\n"
    found: list[int] = []
    for number, last in _read(path):
        found.append(_validation(last, path, number)["step"])
    if found != steps or not last.endswith(b"\n"):
        raise FormatError(f"{counted(len(found), 'line')}, expected those of {len(steps):,} steps ({path})")


def rewind_validations(path: Path, steps: list[int], *, scratch: Path | None = None) -> None:
    """Cuts a log of validations to the lines of these steps, its first; as `rewind_log`."""
    _retain(path, _first_lines(path, len(steps)), scratch)
    found = [line["step"] for line in read_validations(path)]
    if found != steps:
        raise FormatError(
            f"{counted(len(found), 'line')}, not those of {counted(len(steps), 'validation')}; "
            f"force starts again ({path})"
        )


class LogWriter(Appender):
    """Appends lines to a log, which `rewind_log` made."""

    def add(self, **values: int | float | str | list[int]) -> None:
        """Adds one step's line; what is not finite becomes null."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self.append((json.dumps(finite) + "\n").encode())
