"""`pile-tools trace-text`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pile_tools import publish, timeline
from pile_tools.commands import options
from pile_tools.commands.places import place_of
from pile_tools.commands.texts import note_normalized, quoted, short, times
from pile_tools.errors import ConfigError, FormatError
from pile_tools.order.open import open_order
from pile_tools.present import marked
from pile_tools.present.marked import Entry
from pile_tools.read.shards import STANDARD_INPUT
from pile_tools.read.texts import BYTE_ORDER_MARK, read_bounded
from pile_tools.search import Index, Span, open_index
from pile_tools.terminal import Styled, echo, echo_json, echo_text, style
from pile_tools.tokenizers import load_tokenizer

#: Spans that occur more often are not traced to steps: nothing of interest comes of it.
_MAX_TRACED = 10_000


@click.command("trace-text")
@click.argument("prefix", type=options.PATH)
@click.argument("file", type=options.PATH)
@click.option(
    "--min-bytes",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Bytes of the shortest part told.",
)
@click.option("--order", type=options.PATH, metavar="ORDER", help="Tell also which steps see each part.")
@click.option("-o", "--output", type=options.PATH, metavar="FILE", help="Write a page: .html.")
@click.option(
    "--places", type=click.IntRange(min=1), default=5, show_default=True, help="Places told of each part."
)
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Parts listed.")
@click.option("--json", "as_json", is_flag=True, help="Print each part as a line of JSON.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples of a step, where the order names none."
)
@click.option("--tokenizer", type=options.PATH, metavar="FILE", help="Where the index's own is not found.")
@options.threads
def command(
    prefix: Path,
    file: Path,
    min_bytes: int,
    order: Path | None,
    output: Path | None,
    places: int,
    limit: int,
    as_json: bool,
    batch_size: int | None,
    tokenizer: Path | None,
    threads: int,
) -> None:
    """Mark the longest parts of the text in FILE that stand verbatim in the dataset at PREFIX, by its index.

    FILE is plain text, such as a model's output; - is standard input. A part stands where its bytes stand in
    the decoded text of one document, and may begin and end within tokens. The parts are listed with the most
    unlikely tokens first.

    The text is first normalized as the dataset's tokenizer normalizes text. What is printed and written is
    that text, and byte positions are in it; a note says when it is not the same as FILE.

    \b
    Examples:
      pile-tools trace-text tokens/sample answer.txt
      pile-tools trace-text tokens/sample answer.txt --order tokens/ -o answer.html
      pile-tools trace-text tokens/sample - --json < answer.txt
    """
    if output is not None and output.suffix != ".html":
        raise ConfigError(f"-o writes .html ({output})")
    given = _read(file)
    index = open_index(prefix, tokenizer=None if tokenizer is None else load_tokenizer(tokenizer))
    text = index.normalize(given).decode(errors="replace")
    is_changed = text != given
    note_normalized([given], [0] if is_changed else [], index.tokenizer)
    if output is not None:
        publish.refuse_page(output)
    spans = index.trace(text, min_bytes=min_bytes, max_places=places, threads=threads)
    seen = [""] * len(spans) if order is None else _seen(index, order, spans, batch_size)
    entries = [
        Entry(span, [_place(index, place) for place in span.places], steps)
        for span, steps in zip(spans, seen, strict=True)
    ]
    about = (
        f"{_parts(len(spans))} of at least {min_bytes:,} bytes in {index.dataset.prefix}: "
        f"{marked.share(text, spans):.1%} of the text" + (", normalized" if is_changed else "")
    )
    if output is not None:
        publish.write_page(output, marked.page(f"{file}, traced", text, entries, about))
    if as_json:
        _print_json(entries, is_changed)
        return
    if output is None:
        pieces = marked.pieces(text.rstrip("\n"), spans)
        echo_text(*(_marked(piece) if held else piece for piece, held in pieces))
        echo()
    echo(about)
    _print_entries(entries, limit)
    if output is not None:
        echo(f"page: {output}")


def _marked(piece: str) -> str | Styled:
    """A piece as it is printed: underlined, or in brackets where the output is no terminal."""
    return style(piece, bold=True, underline=True) if sys.stdout.isatty() else f"[[{piece}]]"


def _read(file: Path) -> str:
    """The text of a file or of standard input, without a byte-order mark. Raises PileError."""
    if str(file) == str(STANDARD_INPUT):
        data = read_bounded(sys.stdin.buffer, "a text", file)
    else:
        with file.open("rb") as stream:
            data = read_bounded(stream, "a text", file)
    data = data.removeprefix(BYTE_ORDER_MARK)
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        raise FormatError(f"not UTF-8: {err.reason} at byte {err.start} ({file})") from err
    if not text.strip():
        raise ConfigError(f"the text is empty ({file})")
    return text


def _place(index: Index, row: Any) -> str:
    document, token, _, n_tokens = row.tolist()
    return place_of(index.dataset, document, token, n_tokens)


def _seen(index: Index, order: Path, spans: list[Span], batch_size: int | None) -> list[str]:
    """By which steps each span is seen."""
    opened = open_order(order)
    texts = list({span.text: None for span in spans if span.count <= _MAX_TRACED})
    told = dict.fromkeys((span.text for span in spans), "too frequent to be traced to steps")
    if not texts:
        return [told[span.text] for span in spans]
    # As bytes: the parts are of the normalized text.
    wanted = [text.encode() for text in texts]
    answer = timeline.when(opened, wanted, tokenizer=index.tokenizer, index=index.core, batch_size=batch_size)
    counts = answer.counts().sum(axis=1)
    for place, text in enumerate(texts):
        steps = answer.sightings["step"][answer.sightings["text"] == place]
        told[text] = "in no step"
        if len(steps):
            first, last = int(steps.min()), int(steps.max())
            when = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
            told[text] = f"seen {times(int(counts[place]))}, {when}"
    return [told[span.text] for span in spans]


def _parts(n: int) -> str:
    return "1 part" if n == 1 else f"{n:,} parts"


def _print_entries(entries: list[Entry], limit: int) -> None:
    ranked = marked.rarest_first([entry.span for entry in entries])
    for number in ranked[:limit]:
        entry = entries[number]
        span = entry.span
        echo()
        echo(f"{short(quoted(span.text.encode(), False), 100)}")
        steps = f"; {entry.seen}" if entry.seen else ""
        echo(f"  {times(span.count)}, bytes {span.start:,} to {span.end - 1:,} of the text{steps}")
        for place in entry.places:
            echo(style(f"  {place}", dim=True))
        if span.count > len(entry.places):
            echo(style(f"  ... and {span.count - len(entry.places):,} more", dim=True))
    if len(ranked) > limit:
        echo()
        echo(f"... and {_parts(len(ranked) - limit)} more; --limit prints more, --json all")


def _print_json(entries: list[Entry], is_changed: bool) -> None:
    for entry in entries:
        span = entry.span
        values = {
            "start": span.start,
            "end": span.end,
            "text": span.text,
            "count": span.count,
            "rarity": span.rarity,
        }
        names = span.places.dtype.names or ()
        places = [dict(zip(names, place.tolist(), strict=True)) for place in span.places]
        more: dict[str, Any] = {"seen": entry.seen} if entry.seen else {}
        if is_changed:
            more["is_normalized"] = True
        echo_json({**values, **more, "places": places})
