"""Configs from TOML: every mistake is one message that names file and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pile_tools.config import fingerprint, from_toml, settings
from pile_tools.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 0.5
    where: Path | None = None
    betas: tuple[float, ...] = (0.9, 0.95)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError(f"rate must not be negative, got {self.rate}")


def load(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return from_toml(Outer, path)


def test_tables_fill_nested_configs(tmp_path: Path) -> None:
    text = 'name = "x"\nrate = 1\nwhere = "a/b"\nbetas = [1, 0.5]\n[inner]\nsize = 7\n'
    expected = Outer(name="x", rate=1.0, where=Path("a/b"), betas=(1.0, 0.5), inner=Inner(size=7))
    assert load(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"missing key 'name' .*c\.toml"),
        ('name = "x"\nnmae = 1', r"unknown key 'nmae' .*c\.toml.*known are: name, rate"),
        ("name = 3", r"expected str, got 3 .*c\.toml, name"),
        ('name = "x"\nrate = "fast"', r"expected float, got 'fast' .*rate"),
        ('name = "x"\nrate = -1', r"rate must not be negative, got -1.0 .*c\.toml"),
        ('name = "x"\ninner = 3', r"expected a table, got 3 .*inner"),
        ('name = "x"\n[inner]\nsize = true', r"expected int, got True .*inner, size"),
        ('name = "x"\nbetas = 3', r"expected a list, got 3"),
        ("name = ", r"not a TOML file: .*c\.toml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_fingerprints_depend_on_values_alone() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(settings(Outer(name="x"))) != fingerprint(settings(Outer(name="y")))
