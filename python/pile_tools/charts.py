"""Charts without a library: stacked bars as self-contained SVG, bars in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from pile_tools import files
from pile_tools.errors import ConfigError

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 420, 70, 20, 48, 110
#: Okabe and Ito's colours, told apart by colour-blind readers too, then greys.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666", "#AAAAAA")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_N_LABELS = 16


def sparkline(values: Sequence[float]) -> str:
    """One character a value, the largest a full block; what is above zero is never blank."""
    largest = max(values, default=0)
    return "".join(_BLOCKS[-int(-8 * v // largest)] if v > 0 else _BLOCKS[0] for v in values)


def bar(share: float, width: int = 24) -> str:
    """A bar of `share` of the width, to an eighth of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8].strip())


def stacked_bars(
    title: str, unit: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], *, largest: float = 0
) -> str:
    """An SVG with one bar a label, the series on top of each other; the axis reaches `largest` at least."""
    sums = [sum(values) for values in zip(*series.values(), strict=True)]
    top = _round_up(max([*sums, largest]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>',
        *_legend(list(series)),
        *_axis(top, unit),
        *_bars(labels, series, top),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def write_chart(path: Path, svg: str) -> None:
    """Writes a chart as `.svg`, or as a page of its own as `.html`. Raises ConfigError."""
    if path.suffix == ".html":
        head = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>pile-tools</title>'
        files.write_atomically(path, f"{head}\n{svg}</html>\n")
    elif path.suffix == ".svg":
        files.write_atomically(path, svg)
    else:
        raise ConfigError(
            f"a chart is written as .svg or .html, not {path.suffix or 'without a suffix'} ({path})"
        )


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value > 0:
        power /= 10
    return next((power * step for step in (1, 2, 5, 10) if power * step >= value * (1 - 1e-9)), 1.0) or 1.0


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top


def _axis(top: float, unit: str) -> list[str]:
    at = f"translate(14 {_y(top / 2, top):.0f}) rotate(-90)"
    parts = [f'<text transform="{at}" text-anchor="middle">{escape(unit)}</text>']
    for i in range(5):
        value = top * i / 4
        y = _y(value, top)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
    return parts


def _legend(names: list[str]) -> list[str]:
    parts, x = [], float(_LEFT)
    for i, name in enumerate(names):
        parts.append(f'<rect x="{x:.0f}" y="29" width="10" height="10" fill="{_color(i)}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="38">{escape(name)}</text>')
        x += 30 + 6.6 * len(name)
    return parts


def _color(i: int) -> str:
    return _COLORS[i % len(_COLORS)]


def _bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], top: float) -> list[str]:
    parts = []
    width = (_WIDTH - _LEFT - _RIGHT) / max(len(labels), 1)
    every = -(-len(labels) // _N_LABELS)
    for place, label in enumerate(labels):
        x, below = _LEFT + place * width, 0.0
        for i, values in enumerate(series.values()):
            height = _y(below, top) - _y(below + values[place], top)
            below += values[place]
            if height > 0:
                parts.append(
                    f'<rect x="{x + width * 0.06:.2f}" y="{_y(below, top):.2f}" width="{width * 0.88:.2f}" '
                    f'height="{height:.2f}" fill="{_color(i)}"/>'
                )
        if place % every == 0:
            at = f"translate({x + width / 2:.1f} {_HEIGHT - _BOTTOM + 14}) rotate(35)"
            parts.append(f'<text transform="{at}">{escape(label)}</text>')
    return parts
