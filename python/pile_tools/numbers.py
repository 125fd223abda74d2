"""Numbers of a command line: finite, and within the 64 bits in which the core counts."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=click.Command)

#: What fits 64 bits with a sign: beyond it no count, size or seed has a meaning.
LARGEST = 2**63 - 1


def bounded(command: _Command) -> _Command:
    """`command`, whose options take no number beyond 64 bits, no infinity and no NaN."""
    for parameter in command.params:
        kind = parameter.type
        if isinstance(kind, (_Whole, _WholeInRange, _Finite, _FiniteInRange)):
            continue
        if isinstance(kind, click.IntRange):
            parameter.type = _WholeInRange(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
        elif isinstance(kind, click.FloatRange):
            parameter.type = _FiniteInRange(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
        elif kind is click.INT:
            parameter.type = _Whole()
        elif kind is click.FLOAT:
            parameter.type = _Finite()
    return command


def _checked(kind: click.ParamType[Any], number: Any, param: Any, ctx: Any) -> Any:
    if isinstance(number, float) and not math.isfinite(number):
        kind.fail(f"{number} is not a finite number.", param, ctx)
    if isinstance(number, int) and not -LARGEST <= number <= LARGEST:
        kind.fail(f"{str(number)[:40]} is not within {-LARGEST} and {LARGEST}.", param, ctx)
    return number


class _Whole(click.types.IntParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(value, param, ctx), param, ctx)


class _WholeInRange(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(value, param, ctx), param, ctx)


class _Finite(click.types.FloatParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(value, param, ctx), param, ctx)


class _FiniteInRange(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _checked(self, super().convert(value, param, ctx), param, ctx)
