"""Option types that refuse values that no command can use.

Paths must not be empty. Numbers must be finite and fit the core's 64 bits. Texts and names of outputs must
be UTF-8, as manifests record them; an output that is a file or a prefix must have a name.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, TypeVar

import click

from pile_tools.checked import is_utf8

_Command = TypeVar("_Command", bound=click.Command)

#: Largest count, size or seed: a signed 64-bit integer.
LARGEST = 2**63 - 1


#: Matches lists, ranges and sizes, also with digits and separators that only Python reads as numbers.
_NUMBERS = re.compile(r"[\d_\s.,:/+-]*\d[\d_\s.,:/+-]*[KMGTiB]*")
#: Every number of 18 digits fits 64 bits, and no list, range or size needs more.
_HUGE_NUMBER = re.compile(r"\d{19}")
#: Other digits than 0 to 9, and separators within a number.
_NOT_PLAIN = re.compile(r"[^\x00-\x7f]|_")

#: Parameters that take a text or a name, which may look like a number.
_TEXTS = {
    *("eod", "special_tokens", "text_field"),
    *("checkpoints", "name", "pairs", "task"),
    *("clip", "device", "image_prompts", "mask_text", "sha256", "start"),
}

#: Parameters that name an output.
_OUTPUTS = {"output", "out", "npy", "plot"}


def checked(command: _Command) -> _Command:
    """`command`, with the types of its parameters replaced by those of this module."""
    for parameter in command.params:
        kind = parameter.type
        if isinstance(kind, (_Whole, _WholeInRange, _Finite, _FiniteInRange)):
            continue
        if kind is click.STRING and isinstance(parameter, click.Option):
            parameter.type = _Text()
        elif isinstance(kind, click.Path) and not isinstance(kind, _Output) and parameter.name in _OUTPUTS:
            # Help names a folder in several ways, but every file `FILE...` and every prefix `PREFIX`.
            is_folder = not (parameter.metavar or "").startswith(("FILE", "PREFIX"))
            parameter.type = _Output(kind, is_folder)
        elif isinstance(kind, click.Path) and not isinstance(kind, (_Output, _Input)):
            parameter.type = _Input(kind)
        elif isinstance(kind, click.IntRange):
            parameter.type = _WholeInRange(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
        elif isinstance(kind, click.FloatRange):
            parameter.type = _FiniteInRange(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
        elif kind is click.INT:
            parameter.type = _Whole()
        elif kind is click.FLOAT:
            parameter.type = _Finite()
    return command


def _checked(
    kind: click.ParamType[Any],
    number: int | float,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> int | float:
    if isinstance(number, float) and not math.isfinite(number):
        kind.fail(f"{number} is not a finite number.", param, ctx)
    if isinstance(number, int) and not -LARGEST <= number <= LARGEST:
        kind.fail(f"{str(number)[:40]} is not within {-LARGEST} and {LARGEST}.", param, ctx)
    return number


def _plain(
    kind: click.ParamType[Any], value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> Any:
    """`value`, which is refused if it is a text with an underscore, a non-ASCII character or outer space.

    Python reads `1_000`, ` 1` and digits of all scripts as numbers, other programs as something else.
    """
    if isinstance(value, str) and (_NOT_PLAIN.search(value) or value != value.strip()):
        kind.fail(f"{value[:60]!r} is not a number of the digits 0 to 9.", param, ctx)
    return value


class _Whole(click.types.IntParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(_plain(self, value, param, ctx), param, ctx), param, ctx)


class _WholeInRange(click.IntRange):
    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(_plain(self, value, param, ctx), param, ctx), param, ctx)


class _Finite(click.types.FloatParamType):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(_plain(self, value, param, ctx), param, ctx), param, ctx)


class _FiniteInRange(click.FloatRange):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(_plain(self, value, param, ctx), param, ctx), param, ctx)


class _Text(click.types.StringParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        if not is_utf8(text):
            self.fail(f"{text!r} is not UTF-8.", param, ctx)
        if (param is None or param.name not in _TEXTS) and _NUMBERS.fullmatch(text):
            _plain(self, text.strip(), param, ctx)
            if _HUGE_NUMBER.search(text):
                self.fail(f"{text[:60]!r} has a number of more than 18 digits.", param, ctx)
        return text


class _Input(click.Path):
    """A path that another type converts; an empty one, an unset variable of a shell say, is no folder `.`."""

    def __init__(self, kind: click.Path) -> None:
        super().__init__(path_type=kind.type)
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("the path is empty.", param, ctx)
        return self.kind.convert(value, param, ctx)


class _Output(click.Path):
    def __init__(self, kind: click.Path, is_folder: bool) -> None:
        super().__init__(file_okay=kind.file_okay, readable=kind.readable, path_type=kind.type)
        self._is_folder = is_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = os.fspath(value)
        if not is_utf8(path):
            self.fail(f"the name {path!r} is not UTF-8, so a manifest cannot record it.", param, ctx)
        if not path:
            self.fail("the name of an output is empty.", param, ctx)
        if not self._is_folder and re.search(r"(^|/)\.{0,2}/*$", path):
            self.fail(f"{path!r} is a folder; give the name of a file or prefix.", param, ctx)
        if "\0" in path:
            self.fail("the name has a zero byte.", param, ctx)
        return super().convert(value, param, ctx)
