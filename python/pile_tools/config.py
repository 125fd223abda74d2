"""Configs: a frozen dataclass per stage, its options on the command line, its keys in TOML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from pathlib import Path

from pile_tools.errors import ConfigError

Settings: typing.TypeAlias = dict[str, typing.Any]
_Config = typing.TypeVar("_Config")


def settings(config: object) -> Settings:
    """The fields of a config dataclass as JSON-ready values, nested configs included."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"not a config: {config!r}")
    return typing.cast(Settings, json.loads(json.dumps(dataclasses.asdict(config), default=str)))


def fingerprint(values: object) -> str:
    """SHA-256 of JSON-ready values, the same for equal values whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def from_toml(cls: type[_Config], path: Path) -> _Config:
    """A config read from a TOML file; tables fill nested configs.

    Raises:
        ConfigError: An unknown or missing key, a value of the wrong type, or not TOML.
        OSError: The file cannot be read.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        # Also of a number with thousands of digits, and of tables within tables without end.
        raise ConfigError(f"not a TOML file: {err} ({path})") from err
    return from_values(cls, values, str(path))


def from_values(cls: type[_Config], values: Settings, where: str) -> _Config:
    """A config from a mapping; `where` names the place in messages. Raises ConfigError."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(typing.Any, cls))}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r} ({where}); known are: {', '.join(fields)}")
    missing = [n for n, f in fields.items() if n not in values and _is_required(f)]
    if missing:
        raise ConfigError(f"missing key {missing[0]!r} ({where})")
    arguments = {name: _convert(hints[name], value, f"{where}, {name}") for name, value in values.items()}
    try:
        return cls(**arguments)
    except ConfigError as err:
        raise ConfigError(f"{err} ({where})") from err


def _is_required(field: dataclasses.Field[typing.Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: typing.Any, value: typing.Any, where: str) -> typing.Any:
    """`value` as the annotated type, or a ConfigError that says what was expected."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [h for h in typing.get_args(hint) if h is not types.NoneType]
        return None if value is None else _convert(choices[0], value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"expected a table, got {value!r} ({where})")
        return from_values(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"expected a list, got {value!r} ({where})")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"a number too large ({where})") from None
    if hint is Path and isinstance(value, str):
        if not value or "\0" in value:
            raise ConfigError(f"expected a path, got {value!r} ({where})")
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"expected {hint.__name__}, got {value!r} ({where})")
    return value
