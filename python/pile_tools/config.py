"""Builds config dataclasses from TOML or mappings, and fingerprints their values."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import tomllib
import types
import typing
from pathlib import Path

from pile_tools.errors import ConfigError

#: Maximum bytes of a TOML file, and the range of its integers: from the least `i64` to the greatest `u64`.
MAX_TOML_BYTES, MIN_INTEGER, MAX_INTEGER = 1 << 20, -(2**63), 2**64 - 1

#: Maximum threads of a job. Each has tables and buffers of about 20 MB: a larger number is a typo.
MAX_THREADS = 1024

#: Maximum characters of a wrong value in a message.
_SHOWN_CHARACTERS = 60

_THRESHOLD = re.compile(r"0\.[0-9]{1,4}|1(\.0{1,4})?")

Settings: typing.TypeAlias = dict[str, typing.Any]
_Config = typing.TypeVar("_Config")


def settings(config: object) -> Settings:
    """The fields of a config dataclass as JSON-ready values, nested configs included."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"not a config: {config!r}")
    return typing.cast(Settings, json.loads(json.dumps(dataclasses.asdict(config), default=str)))


def fingerprint(values: object) -> str:
    """SHA-256 of JSON-ready values, in hexadecimal; it does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checked_threads(threads: int | None) -> int:
    """The threads of a job, by default one for each processor. Raises ConfigError out of range."""
    if threads is None:
        return min(os.cpu_count() or 1, MAX_THREADS)
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"threads must be from 1 to {MAX_THREADS:,}, got {threads}")
    return threads


def checked_threshold(text: str) -> str:
    """The plain decimal of a threshold: `0.870` is the same setting as `0.87`.

    Raises:
        ConfigError: It is not above 0 and at most 1, or has more than 4 decimal places.
    """
    if not _THRESHOLD.fullmatch(text) or float(text) == 0:
        raise ConfigError(
            f"threshold must be above 0 and at most 1, with at most 4 decimal places, got {text}"
        )
    return f"{float(text):g}"


def from_toml(cls: type[_Config], path: Path) -> _Config:
    """A config read from a TOML file; tables fill nested configs.

    Raises:
        ConfigError: An unknown or missing key, a value of the wrong type, or not TOML.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_TOML_BYTES + 1)
    if len(data) > MAX_TOML_BYTES:
        raise ConfigError(f"too large for a config: more than {MAX_TOML_BYTES:,} bytes ({path})")
    try:
        # ValueError covers TOMLDecodeError, UnicodeDecodeError and Python's limit on the digits of a number.
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as err:
        reason = "nested too deep" if isinstance(err, RecursionError) else str(err)
        raise ConfigError(f"not a TOML file: {reason} ({path})") from err
    return from_values(cls, values, str(path))


def from_values(cls: type[_Config], values: Settings, where: str) -> _Config:
    """A config from a mapping; `where` names its file and key in messages. Raises ConfigError."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(typing.Any, cls))}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"unknown key {_shown(unknown[0])} ({where}); known are: {', '.join(fields)}")
    missing = [n for n, f in fields.items() if n not in values and _is_required(f)]
    if missing:
        raise ConfigError(f"missing key {missing[0]!r} ({where})")
    arguments = {name: _convert(hints[name], value, f"{where}, {name}") for name, value in values.items()}
    try:
        # A ConfigError of the config's own checks is a ValueError too: it gets the name of the file.
        return cls(**arguments)
    except (ValueError, OverflowError) as err:
        raise ConfigError(f"{err} ({where})") from err


def _is_required(field: dataclasses.Field[typing.Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: typing.Any, value: typing.Any, where: str) -> typing.Any:
    """`value` as the annotated type. Raises ConfigError, naming the type that was expected."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _as_one_of(typing.get_args(hint), value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"expected a table, got {_shown(value)} ({where})")
        return from_values(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        return _as_tuple(typing.get_args(hint), value, where)
    if isinstance(value, int) and not isinstance(value, bool):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ConfigError(f"a number beyond 64 bits ({where})")
        value = float(value) if hint is float else value
    if hint is Path and isinstance(value, str):
        if not value or "\0" in value:
            raise ConfigError(f"expected a path, got {_shown(value)} ({where})")
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"expected {hint.__name__}, got {_shown(value)} ({where})")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"expected a finite number, got {value} ({where})")
    return value


def _as_one_of(hints: tuple[typing.Any, ...], value: typing.Any, where: str) -> typing.Any:
    """`value` as the first matching type of a union. Raises the last type's ConfigError if none matches."""
    if value is None and types.NoneType in hints:
        return None
    *first, last = (hint for hint in hints if hint is not types.NoneType)
    for hint in first:
        with contextlib.suppress(ConfigError):
            return _convert(hint, value, where)
    return _convert(last, value, where)


def _as_tuple(hints: tuple[typing.Any, ...], value: typing.Any, where: str) -> tuple[typing.Any, ...]:
    """A list as a tuple of any length (`tuple[int, ...]`) or of fixed length (`tuple[int, int]`)."""
    if not isinstance(value, list):
        raise ConfigError(f"expected a list, got {_shown(value)} ({where})")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        raise ConfigError(f"expected a list of {len(hints)}, got {len(value)} ({where})")
    return tuple(_convert(hint, item, where) for hint, item in zip(hints, value, strict=True))


def _shown(value: object) -> str:
    """The `repr` of a value for a message, truncated."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a value too large to show"
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
