"""Configs from TOML: every mistake is one message that names file and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pile_tools import checked
from pile_tools.config import fingerprint, from_toml, settings
from pile_tools.errors import ConfigError, FormatError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 0.5
    where: Path | None = None
    betas: tuple[float, ...] = (0.9, 0.95)
    pair: tuple[int, str] = (1, "a")
    either: int | str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError(f"rate must not be negative, got {self.rate}")


def load(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return from_toml(Outer, path)


def test_tables_fill_nested_configs(tmp_path: Path) -> None:
    text = 'name = "x"\nrate = 1\nwhere = "a/b"\nbetas = [1, 0.5]\npair = [2, "b"]\n'
    text += 'either = "y"\n[inner]\nsize = 7\n'
    values = {"name": "x", "rate": 1.0, "where": Path("a/b"), "betas": (1.0, 0.5)}
    expected = Outer(**values, pair=(2, "b"), either="y", inner=Inner(size=7))
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
        ('name = "x"\nname = "y"', r"not a TOML file: .*c\.toml"),
        ('name = "x"\nrate = inf', r"expected a finite number, got inf .*rate"),
        ('name = "x"\nrate = nan', r"expected a finite number, got nan .*rate"),
        ('name = "x"\nrate = 1e400', r"expected a finite number, got inf .*rate"),
        ('name = "x"\nrate = 1' + "0" * 400, r"a number beyond 64 bits .*rate"),
        ('name = "x"\nrate = 1' + "0" * 9000, r"not a TOML file: .*c\.toml"),
        ('name = "x"\n[inner]\nsize = 0x' + "f" * 9000, r"a number beyond 64 bits .*size"),
        ("name = 0x" + "f" * 9000, r"a number beyond 64 bits .*name"),
        ("name = [0x" + "f" * 9000 + "]", r"expected str, got a value too large to show .*name"),
        ("name = " + "[" * 5000, r"not a TOML file: nested too deep .*c\.toml"),
        ("name = " + "[" * 150 + "]" * 150, r"expected str, got \[\[\[.*\.\.\. .*name"),
        ('name = "x"\nwhere = ""', r"expected a path, got '' .*where"),
        ('name = "x"\nwhere = "a\\u0000b"', r"expected a path, got 'a.x00b' .*where"),
        ('name = "x"\nwhere = [1]', r"expected Path, got \[1\] .*where"),
        ('name = "x"\npair = [1]', r"expected a list of 2, got 1 .*pair"),
        ('name = "x"\neither = 1.5', r"expected str, got 1.5 .*either"),
        ("\ufeffname = 3", r"not a TOML file: .*c\.toml"),
        ("#" * (1 << 20) + "#", r"too large for a config: more than 1,048,576 bytes"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_fingerprints_depend_on_values_alone() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(settings(Outer(name="x"))) != fingerprint(settings(Outer(name="y")))


@pytest.mark.parametrize("data", [b"\xff\xfe", "name = 'x'".encode("utf-16"), b"name = '\xe9'", b"\0"])
def test_other_encodings_are_no_toml(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"not a TOML file: .*c\.toml"):
        from_toml(Outer, tmp_path / "c.toml")


def test_an_endless_file_is_no_toml() -> None:
    with pytest.raises(ConfigError, match="too large for a config: more than"):
        from_toml(Outer, Path("/dev/zero"))


def test_a_key_that_occurs_twice_is_found_among_many(tmp_path: Path) -> None:
    """In linear time: 200,000 keys took minutes."""
    path = tmp_path / "x.json"
    keys = [f'"{i:06}": 1' for i in range(200_000)]
    path.write_text("{" + ", ".join([*keys, keys[-1]]) + "}")
    with pytest.raises(FormatError, match="key '199999' occurs twice"):
        checked.read_json(path, what="an object")
