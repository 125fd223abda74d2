"""Checks of values that were read from JSON: each names the first value that is not what it should be.

A check is a function of a value and of its name in messages; it raises FormatError.

>>> table = record({"step": whole(0), "loss": real()})
>>> table({"step": 3, "loss": 2.5}, "line 4")
>>> table({"step": -1, "loss": 2.5}, "line 4")
Traceback (most recent call last):
    ...
pile_tools.errors.FormatError: line 4, step is -1, expected a whole number from 0
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pile_tools import checked
from pile_tools.checked import MAX_MEASURE
from pile_tools.errors import FormatError

Check: TypeAlias = Callable[[Any, str], None]

#: The largest whole number that fits the arrays.
MAX_WHOLE = (1 << 63) - 1


def read_object(path: Path, check: Check) -> dict[str, Any]:
    """A JSON file with one object that passes a check.

    Raises:
        FormatError: Anything else.
        OSError: The file cannot be read.
    """
    values = dict(checked.read_json(path).values)
    check(values, str(path))
    return values


def whole(low: int = 0, high: int = MAX_WHOLE) -> Check:
    """A whole number in [low, high]."""
    words = f"a whole number from {low}" + (f" to {high}" if high < MAX_WHOLE else "")
    return _check(words, lambda value: type(value) is int and low <= value <= high)


def real(low: float = -math.inf, high: float = math.inf) -> Check:
    """A number in [low, high] and below MAX_MEASURE in size: JSON has numbers that no float holds."""
    words = "a number" if low == -math.inf else f"a number from {low:g}" + f" to {high:g}" * (high < math.inf)
    return _check(
        words,
        lambda value: type(value) in (int, float) and abs(value) < MAX_MEASURE and low <= value <= high,
    )


def text(value: Any, name: str) -> None:
    """A string that UTF-8 can hold."""
    _check("text", lambda value: isinstance(value, str) and _is_unicode(value))(value, name)


def flag(value: Any, name: str) -> None:
    """True or false."""
    _check("true or false", lambda value: isinstance(value, bool))(value, name)


def optional(check: Check) -> Check:
    """Null, or what passes a check."""
    return lambda value, name: None if value is None else check(value, name)


def items(check: Check, n: int | None = None) -> Check:
    """A list of what passes a check, of `n` items if that is given."""

    def run(value: Any, name: str) -> None:
        words = "a list" if n is None else f"a list of {n}"
        _check(words, lambda value: isinstance(value, list) and n in (None, len(value)))(value, name)
        for number, item in enumerate(value):
            check(item, f"{name}[{number}]")

    return run


def record(needed: Mapping[str, Check], more: Mapping[str, Check] | None = None) -> Check:
    """An object with all keys of `needed`, optionally those of `more`, and any others, unchecked."""

    def run(value: Any, name: str) -> None:
        _check("an object", lambda value: isinstance(value, dict))(value, name)
        for key, check in {**needed, **(more or {})}.items():
            if key in value:
                check(value[key], f"{name}, {key}")
            elif key in needed:
                raise FormatError(f"{name} has no key {key!r}")

    return run


def _check(expected: str, holds: Callable[[Any], bool]) -> Check:
    def run(value: Any, name: str) -> None:
        if not holds(value):
            raise FormatError(f"{name} is {_shown(value)}, expected {expected}")

    return run


def _is_unicode(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: Any) -> str:
    """The beginning of a value as JSON writes it."""
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
