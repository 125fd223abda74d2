"""Axes of charts: from values to coordinates, and the values that are labelled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

#: `log` needs values above 0. `symlog`, for values from 0 on, is logarithmic from the smallest value above 0,
#: with 0 on the axis: it suits checkpoints, which are dense early in a run.
Kind = Literal["linear", "log", "symlog"]


@dataclass(frozen=True)
class Axis:
    """Maps values to coordinates.

    Attributes:
        low: The smallest value.
        high: The largest value.
        start: The coordinate of `low`.
        end: The coordinate of `high`; smaller than `start` for an axis that points up.
        kind: How values map to coordinates.
        unit: The distance of the labelled values of a linear axis; for `symlog`, the value up to which the
            axis is about linear.
    """

    low: float
    high: float
    start: float
    end: float
    kind: Kind
    unit: float = 1.0

    @classmethod
    def of(
        cls,
        values: Iterable[float],
        start: float,
        end: float,
        kind: Kind,
        *,
        is_exact: bool = False,
        has_zero: bool = True,
    ) -> Axis:
        """An axis for values.

        Args:
            values: The values.
            start: The coordinate of its start.
            end: The coordinate of its end.
            kind: How values map to coordinates.
            is_exact: Whether the axis begins and ends at values, not at 0 or at round numbers around them. A
                `log` axis always begins and ends at powers of ten.
            has_zero: Whether a linear axis that is not exact contains 0.
        """
        known = list(values)
        low, high = min(known, default=0.0), max(known, default=0.0)
        if kind == "log":
            # Without values the axis is of 1 to 10.
            low = 10.0 ** math.floor(math.log10(low or 1.0))
            high = 10.0 ** math.ceil(math.log10(high or 1.0))
            return cls(low, high if high > low else low * 10, start, end, kind)
        if kind == "symlog":
            unit = min((value for value in known if value > 0), default=1.0)
            low = low if is_exact else min(low, 0.0)
            return cls(low, high if high > low else low + unit, start, end, kind, unit)
        if has_zero and not is_exact:
            low, high = min(0.0, low), max(0.0, high)
        if high - low <= max(1e-9 * max(-low, high), 1e-300):
            # Between equal values are no round numbers.
            high = low + (abs(low) if abs(low) > 1e-300 else 1.0)
        step = _step(high - low)
        if not is_exact:
            # A quotient that is whole but for rounding must not add another step: hence 1e-9.
            low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
        return cls(low, high, start, end, kind, step)

    def at(self, value: float) -> float:
        """The coordinate of a value."""
        low, high, value = map(self._scaled, (self.low, self.high, value))
        # Large numbers that differ can have one logarithm.
        return self.start + (self.end - self.start) * (value - low) / (high - low or 1.0)

    def ticks(self, gap: float) -> list[float]:
        """The labelled values, ascending and at least `gap` apart: round numbers."""
        if self.kind == "linear":
            step = self.unit
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            found: Sequence[float] = [step * i for i in range(first, last + 1)]
        else:
            found = self._round_numbers()
        shown: list[float] = []
        for value in found:
            if all(abs(self.at(value) - self.at(other)) >= gap for other in shown):
                shown.append(value)
        return sorted(shown)

    def _scaled(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(value)
        return math.log1p(value / self.unit) if self.kind == "symlog" else value

    def _round_numbers(self) -> list[float]:
        """Numbers on a logarithmic axis, the roundest first: powers of ten before multiples of them."""
        first = self.unit if self.kind == "symlog" else self.low
        powers = range(math.floor(math.log10(first)), math.ceil(math.log10(self.high)) + 1)
        found = [factor * 10.0**power for factor in (1, 5, 2, 3, 4, 7) for power in powers]
        listed = [value for value in found if first * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
        return [0.0, *listed] if self.low == 0 else listed


def number(value: float) -> str:
    """A number at an axis: 1,000, 0.25, 2M, 1.5B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= size * (1 - 1e-9):
            return f"{value / size:,.6g}{letter}"
    return f"{value:,.6g}"


def _step(length: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that divides a length into at most five steps."""
    power = 10.0 ** math.floor(math.log10(length / 5))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= length / 5 * (1 - 1e-9))
