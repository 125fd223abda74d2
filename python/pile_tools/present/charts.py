"""Draws charts without a library: as SVG that any program shows, and bars as text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise, takewhile
from typing import Protocol

from pile_tools import terminal
from pile_tools.present import colors
from pile_tools.present.axes import Axis, Kind, number
from pile_tools.present.markup import markup
from pile_tools.publish import PAGE_MARK

#: Widths that charts are drawn for: a page or a paper, and a phone or half a page. One unit is about a pixel.
WIDE, NARROW = 760, 360

_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
_SIZE, _TITLE_SIZE, _LINE = 12, 15, 17
#: Approximate widths of a character of `_SIZE`, and of one of a script such as Chinese.
_CHARACTER, _WIDE_CHARACTER = 6.6, 12.0
_RIGHT = 20
#: Width beside a name at the end of a line: of the swatch in front of it and of the gaps around both.
_BESIDE_NAME = 30
#: Height below the plot, for the numbers and the name of its axis.
_BELOW = 40
#: Height of a name at the end of a line. Lines that end nearer to each other share a label.
_NAME = 14
_DASHES = ' stroke-dasharray="5 4"'
_BLOCKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """One character for each value, a full block for the largest and a visible one for any above zero."""
    largest = max(values, default=0)
    return "".join(_BLOCKS[-int(-8 * v // largest)] if v > 0 else _BLOCKS[0] for v in values)


def bar(share: float, width: int = 24) -> str:
    """A bar of `share` of the width, to an eighth of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8].strip())


class Chart(Protocol):
    """A chart."""

    @property
    def title(self) -> str:
        """What it shows."""

    def svg(self, width: int, *, is_picture: bool = False) -> str:
        """The chart as an `<svg>` element; a picture of its own has the title and a background too."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: Its name in the legend.
        points: Its points (x, y), ascending by x.
        color: Its colour.
        stroke: Its width.
        is_dashed: Whether it is dashed.
        is_marked: Whether each point has a dot.
        band: For each point, how far a band around the line reaches to each side. A logarithmic axis on the
            left cannot show one that reaches 0.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    stroke: float = 2
    is_dashed: bool = False
    is_marked: bool = False
    band: Sequence[float] = ()


@dataclass(frozen=True)
class Lines:
    """A chart of lines.

    Attributes:
        title: What it shows.
        x_label: The name of the axis at the bottom, with its unit.
        y_label: The name of the axis on the left, with its unit.
        series: The lines; points that a logarithmic axis cannot show are left out.
        x: The kind of the axis at the bottom.
        y: The kind of the axis on the left.
        is_from_zero: Whether a linear axis on the left contains 0; for values of at least 0, whose bands are
            cut there.
        marks: Values of x with a small mark at the bottom.
        is_labelled_at_ends: Names the lines at their last points instead of in a legend, those that end
            together in one label.
        height: Height of the plot.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x: Kind = "linear"
    y: Kind = "linear"
    is_from_zero: bool = True
    marks: Sequence[float] = ()
    is_labelled_at_ends: bool = False
    height: int = 260

    def svg(self, width: int, *, is_picture: bool = False) -> str:
        """See `Chart`."""
        shown = [self._points(one) for one in self.series]
        points = [(point.x, y) for of in shown for point in of for y in (point.low, point.high)]
        names = [_Name(s.name, s.color, s.is_dashed) for s in self.series]
        right = max((_width(s.name) for s in self.series), default=0) + _BESIDE_NAME
        frame = _Frame.of(
            self.title,
            [] if self.is_labelled_at_ends or len(names) < 2 else names,
            (self.x_label, self.y_label),
            Axis.of((y for _, y in points), self.height, 0, self.y, has_zero=self.is_from_zero),
            width,
            right=min(right, width // 3) if self.is_labelled_at_ends else _RIGHT,
            is_picture=is_picture,
        )
        across = frame.across([*(x for x, _ in points), *self.marks], self.x)
        for x in self.marks:
            at = across.at(x)
            frame.add(_line(at, at, frame.bottom, frame.bottom - 7, colors.INK, 1))
        ends = []
        for one, of in zip(self.series, shown, strict=True):
            line = [(across.at(point.x), frame.y(point.y)) for point in of]
            if one.band:
                upper = [(across.at(point.x), frame.y(point.high)) for point in of]
                lower = [(across.at(point.x), frame.y(point.low)) for point in reversed(of)]
                corners = _path([*upper, *lower])
                frame.add(f'<polygon points="{corners}" fill="{one.color}" fill-opacity="0.18"/>')
            frame.add(
                f'<polyline points="{_path(_thinned(line))}" fill="none" stroke="{one.color}" '
                f'stroke-width="{one.stroke:g}" stroke-linejoin="round"{_DASHES if one.is_dashed else ""}/>'
            )
            if one.is_marked or len(line) == 1:
                frame.add(*(_dot(x, y, 3, one.color) for x, y in line))
            if line:
                ends.append((line[-1][1], _Name(one.name, one.color, one.is_dashed)))
        if self.is_labelled_at_ends:
            frame.add(*_end_labels(ends, width - frame.right + 8, frame.right - _BESIDE_NAME, frame.bottom))
        return frame.svg()

    def _points(self, one: Series) -> list[_Point]:
        """The points that the axes can show."""
        band = one.band or [0.0] * len(one.points)
        lowest = 0.0 if self.is_from_zero else float("-inf")
        return [
            _Point(x, y, max(y - away, lowest), y + away)
            for (x, y), away in zip(one.points, band, strict=True)
            if (self.x != "log" or x > 0) and (self.y != "log" or y > 0)
        ]


@dataclass(frozen=True)
class _Point:
    """A point of a line, and the ends of the band there, which are equal to it without a band."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Stack:
    """A chart of bars over intervals, their series stacked.

    Attributes:
        title: What it shows.
        x_label: The name of the axis at the bottom, with its unit.
        y_label: The name of the axis on the left, with its unit.
        edges: The ends of the intervals, ascending, one more than intervals.
        series: The values of each series, one for each interval.
        largest: The axis on the left reaches at least this.
        height: Height of the plot.
    """

    title: str
    x_label: str
    y_label: str
    edges: Sequence[float]
    series: Mapping[str, Sequence[float]]
    largest: float = 0
    height: int = 220

    def svg(self, width: int, *, is_picture: bool = False) -> str:
        """See `Chart`."""
        edges, series = _merged(self.edges, self.series, width // 2)
        sums = [sum(values) for values in zip(*series.values(), strict=True)]
        frame = _Frame.of(
            self.title,
            [_Name(name, colors.of_series(i)) for i, name in enumerate(series)],
            (self.x_label, self.y_label),
            Axis.of([*sums, self.largest], self.height, 0, "linear"),
            width,
            is_picture=is_picture,
        )
        across = frame.across(edges, "linear")
        ends = [across.at(edge) for edge in edges]
        base = [0.0] * len(sums)
        for i, values in enumerate(series.values()):
            for column, (start, end) in enumerate(pairwise(ends)):
                top, bottom = frame.y(base[column] + values[column]), frame.y(base[column])
                gap = min(1.0, (end - start) / 8)
                if bottom > top:
                    frame.add(_box(start, top, end - start - gap, bottom - top, colors.of_series(i)))
                base[column] += values[column]
        return frame.svg()


@dataclass(frozen=True)
class Bars:
    """A chart of bars to the right, each with its name and value.

    Attributes:
        title: What it shows.
        unit: What the values count.
        values: The value of each name, in the order that they are drawn.
    """

    title: str
    unit: str
    values: Sequence[tuple[str, float]]

    def svg(self, width: int, *, is_picture: bool = False) -> str:
        """See `Chart`."""
        shown = [(_fit(name, width * 0.4), value) for name, value in self.values]
        left = max((_width(name) for name, _ in shown), default=0) + 8
        right = max((_width(_count(value)) for _, value in shown), default=0) + 8
        largest = max((value for _, value in shown), default=0) or 1
        picture = _Picture(self.title, width, is_picture=is_picture)
        picture.add(_text(left, picture.y + 12, self.unit, color=colors.GREY))
        picture.y += _LINE + 4
        for (name, value), (whole, _) in zip(shown, self.values, strict=True):
            length = (width - left - right) * value / largest
            middle = picture.y + _LINE / 2 + 3
            picture.add(
                f"<g><title>{markup(whole)}</title>{_text(left - 8, middle, name, anchor='end')}</g>",
                _box(left, picture.y, max(length, 0.5), _LINE - 3, colors.SERIES[0]),
                _text(left + length + 6, middle, _count(value), color=colors.GREY),
            )
            picture.y += _LINE + 2
        return picture.svg()


@dataclass(frozen=True)
class Dots:
    """A chart of groups side by side: a dot for each value, a bar for the mean.

    Attributes:
        title: What it shows.
        x_label: What the groups are.
        y_label: The name of the axis on the left, with its unit.
        groups: The values of each group by its name.
        colors: The colour of each group.
        largest: The axis on the left reaches at least this.
        height: Height of the plot.
    """

    title: str
    x_label: str
    y_label: str
    groups: Mapping[str, Sequence[float]]
    colors: Sequence[str]
    largest: float = 0
    height: int = 260

    def svg(self, width: int, *, is_picture: bool = False) -> str:
        """See `Chart`."""
        values = [value for of in self.groups.values() for value in of]
        frame = _Frame.of(
            self.title,
            [],
            (self.x_label, self.y_label),
            Axis.of([*values, self.largest], self.height, 0, "linear"),
            width,
            is_picture=is_picture,
        )
        column = (width - frame.left - frame.right) / max(1, len(self.groups))
        for i, ((name, of), color) in enumerate(zip(self.groups.items(), self.colors, strict=True)):
            middle = frame.left + column * (i + 0.5)
            frame.add(_text(middle, frame.bottom + 18, _fit(name, column), anchor="middle"))
            if not of:
                continue
            top = frame.y(sum(of) / len(of))
            start, wide = middle - 0.36 * column, 0.72 * column
            frame.add(_box(start, top, wide, frame.bottom - top, color, opacity=0.35))
            for j, value in enumerate(of):
                spread = 0.0 if len(of) == 1 else j / (len(of) - 1) - 0.5
                frame.add(_dot(middle + 0.52 * column * spread, frame.y(value), 3, color))
        return frame.svg()


def _merged(
    edges: Sequence[float], series: Mapping[str, Sequence[float]], most: int
) -> tuple[Sequence[float], Mapping[str, Sequence[float]]]:
    """At most `most` intervals: neighbours are merged and have the mean of their values, by length."""
    n = len(edges) - 1
    if n <= most:
        return edges, series
    borders = [n * i // most for i in range(most + 1)]

    def mean(values: Sequence[float], start: int, end: int) -> float:
        lengths = [edges[i + 1] - edges[i] for i in range(start, end)]
        return sum(length * value for length, value in zip(lengths, values[start:end], strict=True)) / sum(
            lengths
        )

    return [edges[i] for i in borders], {
        name: [mean(values, start, end) for start, end in pairwise(borders)]
        for name, values in series.items()
    }


def stairs(edges: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a line that is constant between edges."""
    ends = zip(pairwise(edges), values, strict=True)
    return [(edge, value) for (start, end), value in ends for edge in (start, end)]


@dataclass(frozen=True)
class _Name:
    """A name in a legend."""

    text: str
    color: str
    is_dashed: bool = False


class _Picture:
    """An `<svg>` element that is drawn from the top down; `y` is the bottom of what is drawn so far."""

    def __init__(self, title: str, width: int, *, is_picture: bool) -> None:
        self.title, self.width, self.is_picture = title, width, is_picture
        self.parts: list[str] = []
        self.y = 4.0
        if is_picture:
            self.parts.append(_text(4, 22, _fit(title, width * _SIZE / _TITLE_SIZE), size=_TITLE_SIZE))
            self.y = 34.0

    def add(self, *parts: str) -> None:
        self.parts += parts

    def svg(self) -> str:
        """The element, which ends at `y`."""
        height = self.y + 4
        size, mark, background = "", [], []
        if self.is_picture:
            size = f'width="{self.width}" height="{height:.0f}" '
            # With the mark, a later command may replace the file. In front, as a title may have any length.
            mark, background = [PAGE_MARK], [_box(0, 0, self.width, height, colors.PAPER)]
        return "\n".join(
            [
                *mark,
                f'<svg xmlns="http://www.w3.org/2000/svg" {size}viewBox="0 0 {self.width} {height:.0f}" '
                f'role="img" aria-label="{markup(self.title)}" font-family="{_FONT}" font-size="{_SIZE}">',
                *background,
                *self.parts,
                "</svg>\n",
            ]
        )


class _Frame:
    """A picture with axes: `left` and `right` are the margins, `top` and `bottom` the ends of the plot."""

    def __init__(self, picture: _Picture, up: Axis, left: float, right: float, x_label: str) -> None:
        self._picture, self._up, self._x_label = picture, up, x_label
        self.left, self.right = left, right
        self.top, self.bottom = picture.y, picture.y + up.start

    @classmethod
    def of(
        cls,
        title: str,
        legend: Sequence[_Name],
        labels: tuple[str, str],
        up: Axis,
        width: int,
        *,
        right: float = _RIGHT,
        is_picture: bool,
    ) -> _Frame:
        """Draws the legend and the axis on the left, whose coordinates are from the top of the plot."""
        picture = _Picture(title, width, is_picture=is_picture)
        ticks = up.ticks(20)
        left = max((_width(number(value)) for value in ticks), default=0) + 14
        _draw_legend(picture, legend)
        picture.add(_text(4, picture.y + 12, labels[1], color=colors.GREY))
        picture.y += _LINE + 10
        for value in ticks:
            y = picture.y + up.at(value)
            picture.add(_line(left, width - right, y, y, colors.GRID, 1))
            picture.add(_text(left - 6, y + 4, number(value), anchor="end", color=colors.GREY))
        frame = cls(picture, up, left, right, labels[0])
        middle = (left + width - right) / 2
        frame.add(_text(middle, frame.bottom + 36, labels[0], anchor="middle", color=colors.GREY))
        return frame

    def y(self, value: float) -> float:
        """The coordinate of a value on the axis on the left."""
        return self.top + self._up.at(value)

    def across(self, values: Iterable[float], kind: Kind) -> Axis:
        """Draws the axis at the bottom for values."""
        width = self._picture.width
        axis = Axis.of(values, self.left, width - self.right, kind, is_exact=True)
        widest = max((_width(number(value)) for value in axis.ticks(0)), default=0)
        for value in axis.ticks(widest + 12):
            x = axis.at(value)
            self.add(_line(x, x, self.top, self.bottom, colors.GRID, 1))
            self.add(_text(x, self.bottom + 18, number(value), anchor="middle", color=colors.GREY))
        return axis

    def add(self, *parts: str) -> None:
        self._picture.add(*parts)

    def svg(self) -> str:
        self.add(_line(self.left, self._picture.width - self.right, self.bottom, self.bottom, colors.NONE, 1))
        self._picture.y = self.bottom + _BELOW
        return self._picture.svg()


def _draw_legend(picture: _Picture, names: Sequence[_Name]) -> None:
    """Draws the legend, in as many lines as it needs."""
    x = 4.0
    for i, name in enumerate(names):
        shown = _fit(name.text, picture.width * 0.6)
        length = 34 + _width(shown)
        if i and x + length > picture.width:
            x, picture.y = 4.0, picture.y + _LINE
        picture.add(_swatch(x, picture.y + 8, name), _text(x + 18, picture.y + 12, shown))
        x += length
    if names:
        picture.y += _LINE + 6


def _swatch(x: float, y: float, name: _Name) -> str:
    if name.is_dashed:
        return _line(x, x + 13, y, y, name.color, 3, more=_DASHES)
    return _line(x, x + 13, y, y, name.color, 7)


def _end_labels(ends: Sequence[tuple[float, _Name]], x: float, width: float, lowest: float) -> list[str]:
    """One label for the lines that end at about the same height: their names below each other."""
    groups = [[end] for end in sorted(ends, key=lambda end: end[0])]

    def middle(group: list[tuple[float, _Name]]) -> float:
        return min(sum(y for y, _ in group) / len(group), lowest - _NAME * (len(group) - 1) / 2)

    def overlap(above: list[tuple[float, _Name]], below: list[tuple[float, _Name]]) -> bool:
        return middle(below) - middle(above) < _NAME * (len(above) + len(below)) / 2

    i = 0
    while i + 1 < len(groups):
        if overlap(groups[i], groups[i + 1]):
            groups[i : i + 2] = [groups[i] + groups[i + 1]]
            # The joint label is higher, and may now overlap the one above it.
            i = max(0, i - 1)
        else:
            i += 1
    parts = []
    for group in groups:
        first = middle(group) - _NAME * (len(group) - 1) / 2
        for row, (_, name) in enumerate(group):
            y = first + row * _NAME
            parts += [_swatch(x, y, name), _text(x + 18, y + 4, _fit(name.text, width))]
    return parts


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are seen: of those within half a unit of x the first, the last and the extremes."""
    kept = []
    for _, found in groupby(points, key=lambda point: round(2 * point[0])):
        group = list(found)
        ends = (0, len(group) - 1)
        extremes = (f(range(len(group)), key=lambda i: group[i][1]) for f in (min, max))
        kept += [group[i] for i in sorted({*ends, *extremes})]
    return kept


def _width(text: str) -> float:
    """The approximate width of a text."""
    return sum(_widths(terminal.escape(text)))


def _widths(shown: str) -> Iterator[float]:
    """The approximate width of each character."""
    return (
        _WIDE_CHARACTER if unicodedata.east_asian_width(character) in "WF" else _CHARACTER
        for character in shown
    )


def _fit(text: str, width: float) -> str:
    """The text, shortened to a width."""
    shown = terminal.escape(text)
    if _width(shown) <= width:
        return shown
    # One pass, as a term may have any length.
    ends = takewhile(lambda end: end <= width - _WIDE_CHARACTER, accumulate(_widths(shown)))
    return shown[: sum(1 for _ in ends)] + "…"


def _count(value: float) -> str:
    return f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = _SIZE, color: str = colors.INK
) -> str:
    how = "" if anchor == "start" else f' text-anchor="{anchor}"'
    how += "" if size == _SIZE else f' font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}"{how}>{markup(text)}</text>'


def _line(x1: float, x2: float, y1: float, y2: float, color: str, width: float, more: str = "") -> str:
    ends = f'x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width:g}"{more}/>'


def _box(x: float, y: float, width: float, height: float, color: str, opacity: float = 1) -> str:
    box = f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{color}"'
    return f"{box}/>" if opacity == 1 else f'{box} fill-opacity="{opacity:g}"/>'


def _dot(x: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{color}"/>'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
