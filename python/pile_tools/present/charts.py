"""Draws charts without a library: stacked bars and lines as self-contained SVG, bars as text."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pile_tools import publish, terminal
from pile_tools.errors import ConfigError
from pile_tools.publish import PAGE_MARK

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 420, 70, 40, 48, 110
#: Approximate width of a character.
_CHARACTER = 7
#: Degrees by which labels are rotated that do not fit side by side.
_TURN = 35
#: Okabe and Ito's colours, which colour-blind readers can distinguish, then greys.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666", "#AAAAAA")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_N_LABELS = 16


def _markup(text: str) -> str:
    """`text` as the content of an element; control characters, which XML forbids, are escaped."""
    return html.escape(terminal.escape(text))


def sparkline(values: Sequence[float]) -> str:
    """One character for each value, a full block for the largest and a visible one for any above zero."""
    largest = max(values, default=0)
    return "".join(_BLOCKS[-int(-8 * v // largest)] if v > 0 else _BLOCKS[0] for v in values)


def bar(share: float, width: int = 24) -> str:
    """A bar of `share` of the width, to an eighth of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8].strip())


def stacked_bars(
    title: str, unit: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], *, largest: float = 0
) -> str:
    """An SVG with one bar for each label, its series stacked; the axis reaches at least `largest`."""
    sums = [sum(values) for values in zip(*series.values(), strict=True)]
    up = _Scale.of([*sums, largest], _HEIGHT - _BOTTOM, _TOP, False)
    last = _CHARACTER * len(labels[-1]) * math.cos(math.radians(_TURN)) if labels else 0.0
    parts = [
        *_head(title, list(series), _WIDTH + max(0, math.ceil(last) - _RIGHT)),
        *_levels(up, unit),
        *_bars(labels, series, up),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def lines(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """An SVG with one line for each series, through its points, which ascend by x.

    Points that are not above 0 on a logarithmic axis are left out.
    """
    drawable = {
        name: [(x, y) for x, y in of if (x > 0 or not log_x) and (y > 0 or not log_y)]
        for name, of in series.items()
    }
    points = [point for of in drawable.values() for point in of]
    across = _Scale.of([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, log_x)
    up = _Scale.of([y for _, y in points], _HEIGHT - _BOTTOM, _TOP, log_y)
    parts = [*_head(title, list(series), _WIDTH), *_levels(up, y_label), *_columns(across, x_label)]
    for i, of in enumerate(drawable.values()):
        drawn = [(across.at(x), up.at(y)) for x, y in of]
        if len(drawn) == 1:
            parts.append(
                f'<circle cx="{drawn[0][0]:.1f}" cy="{drawn[0][1]:.1f}" r="2.5" fill="{_color(i)}"/>'
            )
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_color(i)}" stroke-width="1.6"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Scale:
    """Maps the values of an axis to coordinates of the page."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, is_log: bool) -> _Scale:
        if not is_log:
            low, high = min([0.0, *values]), max(values, default=0.0)
            step = _step(high - low)
            top = step * max(1, math.ceil(high / step - 1e-9))
            return cls(step * math.floor(low / step), top, start, end, False)
        low = 10.0 ** math.floor(math.log10(min(values, default=1.0)))
        high = 10.0 ** math.ceil(math.log10(max(values, default=1.0)))
        return cls(low, high if high > low else low * 10, start, end, True)

    def at(self, value: float) -> float:
        low, high, value = (
            (math.log10(v) for v in (self.low, self.high, value))
            if self.is_log
            else (self.low, self.high, value)
        )
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """The labelled values: powers of ten, or evenly spaced round numbers."""
        if not self.is_log:
            step = _step(self.high - self.low)
            return [self.low + step * i for i in range(round((self.high - self.low) / step) + 1)]
        n = round(math.log10(self.high / self.low))
        return [self.low * 10**i for i in range(0, n + 1, -(-n // 10))]


def _levels(up: _Scale, label: str) -> list[str]:
    """The axis on the left, with grid lines and numbers."""
    position = f"translate(14 {(up.start + up.end) / 2:.0f}) rotate(-90)"
    parts = [f'<text transform="{position}" text-anchor="middle">{_markup(label)}</text>']
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
    return parts


def _columns(across: _Scale, label: str) -> list[str]:
    """The axis at the bottom, with grid lines and numbers."""
    bottom = _HEIGHT - _BOTTOM
    middle = f'x="{(across.start + across.end) / 2:.0f}" y="{bottom + 38}" text-anchor="middle"'
    parts = [f"<text {middle}>{_markup(label)}</text>"]
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,.10g}</text>')
    return parts


def write_chart(path: Path, svg: str) -> None:
    """Writes a chart as `.svg`, or as an HTML page as `.html`. Raises ConfigError for another suffix."""
    if path.suffix == ".html":
        head = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>pile-tools</title>'
        publish.write_page(path, f"{head}\n{svg}</html>\n")
    elif path.suffix == ".svg":
        publish.write_page(path, svg)
    else:
        raise ConfigError(
            f"a chart is written as .svg or .html, not {path.suffix or 'without a suffix'} ({path})"
        )


def _head(title: str, names: list[str], width: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        PAGE_MARK,
        f'<rect width="{width}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{_markup(title)}</text>',
        *_legend(names),
    ]


def _step(length: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that divides a length into at most five steps."""
    if length <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(length / 5))
    return next(power * step for step in (1, 2, 5, 10, 20) if power * step >= length / 5 * (1 - 1e-9))


def _legend(names: list[str]) -> list[str]:
    parts, x = [], float(_LEFT)
    for i, name in enumerate(names):
        parts.append(f'<rect x="{x:.0f}" y="29" width="10" height="10" fill="{_color(i)}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="38">{_markup(name)}</text>')
        x += 34 + _CHARACTER * len(terminal.escape(name))
    return parts


def _color(i: int) -> str:
    return _COLORS[i % len(_COLORS)]


def _bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], up: _Scale) -> list[str]:
    parts = []
    width = (_WIDTH - _LEFT - _RIGHT) / max(len(labels), 1)
    every = -(-len(labels) // _N_LABELS)
    fit = all(_CHARACTER * len(label) < width * every for label in labels)
    for column, label in enumerate(labels):
        x, base = _LEFT + column * width, 0.0
        for i, values in enumerate(series.values()):
            height = up.at(base) - up.at(base + values[column])
            if height > 0:
                parts.append(
                    f'<rect x="{x + width * 0.06:.2f}" y="{up.at(base + values[column]):.2f}" '
                    f'width="{width * 0.88:.2f}" height="{height:.2f}" fill="{_color(i)}"/>'
                )
            base += values[column]
        if column % every == 0:
            at = f"translate({x + width / 2:.1f} {_HEIGHT - _BOTTOM + 18})"
            anchor = "middle" if fit else "start"
            turn = "" if fit else f" rotate({_TURN})"
            parts.append(f'<text transform="{at}{turn}" text-anchor="{anchor}">{_markup(label)}</text>')
    return parts
