"""Marks the spans of a text that occur in a dataset: as fragments, and as an HTML page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources

from pile_tools.present.markup import markup_lines
from pile_tools.present.pages import document
from pile_tools.publish import PAGE_MARK
from pile_tools.search import Span


@dataclass(frozen=True)
class Entry:
    """A span with the lines printed for it.

    Attributes:
        span: The span.
        occurrences: One line for each of its occurrences.
        seen: The steps that see it; empty without an order.
    """

    span: Span
    occurrences: list[str]
    seen: str


_BODY = """<header><h1>{title}</h1><p>{about}</p></header>
<main><section class="text"><pre>{text}</pre></section>
<section class="spans"><h2>Where they occur, the rarest first</h2><ol>{listed}</ol></section></main>
"""


def fragments(text: str, spans: Sequence[Span]) -> Iterator[tuple[str, range]]:
    """The text split at the ends of the spans, each fragment with the indices of the spans that cover it.

    Spans start and end between characters. They may overlap but not contain each other: sorted by start,
    their ends ascend too, so the spans that cover a fragment are consecutive.
    """
    encoded = text.encode()
    ends = sorted({0, len(encoded), *(end for span in spans for end in (span.start, span.end))})
    first = stop = 0
    for start, end in itertools.pairwise(ends):
        while first < len(spans) and spans[first].end < end:
            first += 1
        while stop < len(spans) and spans[stop].start <= start:
            stop += 1
        yield encoded[start:end].decode(), range(first, stop)


def share(text: str, spans: Sequence[Span]) -> float:
    """The share of the text's bytes that spans cover, 0 to 1."""
    covered = sum(len(fragment.encode()) for fragment, covering in fragments(text, spans) if covering)
    return covered / max(1, len(text.encode()))


def page(title: str, text: str, entries: Sequence[Entry], about: str) -> str:
    """A self-contained HTML page: the text with its spans marked, and a list of their occurrences.

    `entries` are sorted by their start in the text; the page lists the rarest first.
    """
    spans = [entry.span for entry in entries]
    ranked = rarest_first(spans)
    rank_of = {number: rank for rank, number in enumerate(ranked)}
    marked = []
    for fragment, covering in fragments(text, spans):
        if not covering:
            marked.append(markup_lines(fragment))
            continue
        rarest = min(covering, key=rank_of.__getitem__)
        depth = min(3, len(covering))
        marked.append(f'<a class="m{depth}" href="#s{rarest + 1}">{markup_lines(fragment)}</a>')
    listed = "".join(_listed(number, entries[number]) for number in ranked)
    style = resources("pile_tools.present").joinpath("marked.css").read_text(encoding="utf-8")
    body = _BODY.format(
        title=markup_lines(title), about=markup_lines(about), text="".join(marked), listed=listed
    )
    return document(title, body, style, mark=PAGE_MARK)


def rarest_first(spans: Sequence[Span]) -> list[int]:
    """The indices of the spans by falling rarity."""
    return sorted(range(len(spans)), key=lambda number: (-spans[number].rarity, number))


def _listed(number: int, entry: Entry) -> str:
    span = entry.span
    occurrences = "".join(f"<li>{markup_lines(line)}</li>" for line in entry.occurrences)
    n_more = span.count - len(entry.occurrences)
    more = f"<li>... and {n_more:,} more</li>" if n_more > 0 else ""
    seen = f'<p class="seen">{markup_lines(entry.seen)}</p>' if entry.seen else ""
    times = "time" if span.count == 1 else "times"
    return (
        f'<li id="s{number + 1}"><q>{markup_lines(span.text)}</q>'
        f"<p>{span.count:,} {times}, {span.end - span.start:,} bytes</p>{seen}"
        f"<ul>{occurrences}{more}</ul></li>"
    )
