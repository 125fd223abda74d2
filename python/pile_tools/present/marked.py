"""A text with those parts marked that stand in a dataset: in pieces, and as a page of its own."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources

from pile_tools.publish import PAGE_MARK
from pile_tools.search import Span
from pile_tools.terminal import escape_text


@dataclass(frozen=True)
class Entry:
    """A span as it is listed.

    Attributes:
        span: The span.
        places: Its places, one line each.
        seen: By which steps it is seen, where an order was asked; else empty.
    """

    span: Span
    places: list[str]
    seen: str


_PAGE = """<!doctype html>
<html lang="en"><head>{mark}<meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><header><h1>{title}</h1><p>{about}</p></header>
<main><section class="text"><pre>{text}</pre></section>
<section class="spans"><h2>Where they stand, the rarest first</h2><ol>{listed}</ol></section></main>
</body></html>
"""


def _markup(text: str) -> str:
    """`text` inside of an element: its lines stay, other control characters are shown as escapes."""
    return html.escape(escape_text(text))


def pieces(text: str, spans: Sequence[Span]) -> Iterator[tuple[str, range]]:
    """The text in pieces, each with the numbers of the spans that hold it.

    Spans may overlap, but none lies within another: in order, both their starts and their ends ascend.
    """
    encoded = text.encode()
    cuts = sorted({0, len(encoded), *(at for span in spans for at in (span.start, span.end))})
    first = behind = 0
    for start, end in itertools.pairwise(cuts):
        while first < len(spans) and spans[first].end < end:
            first += 1
        while behind < len(spans) and spans[behind].start <= start:
            behind += 1
        yield encoded[start:end].decode(), range(first, behind)


def share(text: str, spans: Sequence[Span]) -> float:
    """Share of the text's bytes that spans hold."""
    held = sum(len(piece.encode()) for piece, holding in pieces(text, spans) if holding)
    return held / max(1, len(text.encode()))


def page(title: str, text: str, entries: Sequence[Entry], about: str) -> str:
    """A self-contained HTML page: the text, its spans marked, and beside it where each of them stands.

    `entries` are in the order of the text; they are listed with the rarest first.
    """
    spans = [entry.span for entry in entries]
    ranked = rarest_first(spans)
    rank_of = {number: rank for rank, number in enumerate(ranked)}
    marked = []
    for piece, holding in pieces(text, spans):
        if not holding:
            marked.append(_markup(piece))
            continue
        best = min(holding, key=rank_of.__getitem__)
        depth = min(3, len(holding))
        marked.append(f'<a class="m{depth}" href="#s{best + 1}">{_markup(piece)}</a>')
    listed = "".join(_listed(number, entries[number]) for number in ranked)
    style = resources("pile_tools.present").joinpath("marked.css").read_text(encoding="utf-8")
    return _PAGE.format(
        mark=PAGE_MARK,
        title=_markup(title),
        style=style,
        about=_markup(about),
        text="".join(marked),
        listed=listed,
    )


def rarest_first(spans: Sequence[Span]) -> list[int]:
    """The numbers of spans, those of the most unlikely tokens first."""
    return sorted(range(len(spans)), key=lambda number: (-spans[number].rarity, number))


def _listed(number: int, entry: Entry) -> str:
    span = entry.span
    places = "".join(f"<li>{_markup(place)}</li>" for place in entry.places)
    more = span.count - len(entry.places)
    more_places = f"<li>... and {more:,} more</li>" if more > 0 else ""
    seen = f'<p class="seen">{_markup(entry.seen)}</p>' if entry.seen else ""
    times = "time" if span.count == 1 else "times"
    return (
        f'<li id="s{number + 1}"><q>{_markup(span.text)}</q>'
        f"<p>{span.count:,} {times}, {span.end - span.start:,} bytes</p>{seen}"
        f"<ul>{places}{more_places}</ul></li>"
    )
