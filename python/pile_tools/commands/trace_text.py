"""`pile-tools trace-text`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from pile_tools import publish, timeline
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.commands.origins import range_of
from pile_tools.commands.texts import note_normalized, quoted, short, times
from pile_tools.errors import ConfigError, FormatError
from pile_tools.present import marked
from pile_tools.present.marked import Entry
from pile_tools.read.shards import STANDARD_INPUT
from pile_tools.read.texts import BYTE_ORDER_MARK, read_bounded
from pile_tools.search import Index, Span, open_index_with
from pile_tools.tables import records
from pile_tools.terminal import Styled, counted, echo, echo_text, note, print_document, style

#: Spans that occur more often are not traced to steps: it takes long, and they are seen throughout the run.
_MAX_TRACED = 10_000


@click.command("trace-text")
@click.argument("prefix", type=artifacts.INDEXED)
@click.argument("file", type=artifacts.TEXT)
@click.option(
    "--min-bytes",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Minimum bytes of a part.",
)
@click.option("--order", type=artifacts.ORDER, metavar="ORDER", help="Also print which steps see each part.")
@click.option("-o", "--output", type=options.PATH, metavar="FILE", help="Write an HTML page: .html.")
@click.option(
    "--occurrences",
    "max_occurrences",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Maximum occurrences listed of each part.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Maximum parts listed."
)
@options.reports
@options.batch_size_if_unnamed
@click.option(
    "--tokenizer", type=artifacts.TOKENIZER, metavar="FILE", help="Tokenizer, if the index's is not found."
)
@options.threads
def command(
    prefix: Path,
    file: Path,
    min_bytes: int,
    order: Path | None,
    output: Path | None,
    max_occurrences: int,
    limit: int,
    as_json: bool,
    batch_size: int | None,
    tokenizer: Path | None,
    threads: int,
) -> None:
    """Mark the longest parts of the text in FILE that occur verbatim in the dataset at PREFIX, by its index.

    FILE is plain text, such as a model's output; - is standard input. A part occurs where its bytes occur in
    the decoded text of one document, and may begin and end within tokens. The parts with the least likely
    tokens are listed first.

    The text is first normalized as the dataset's tokenizer normalizes text. The normalized text is printed
    and written, and byte positions refer to it; a note says if it differs from FILE.

    \b
    Examples:
      pile-tools trace-text tokens/sample answer.txt
      pile-tools trace-text tokens/sample answer.txt --order tokens/ \\
        -o answer.html
      pile-tools trace-text tokens/sample - --json < answer.txt
    """
    if output is not None and output.suffix != ".html":
        raise ConfigError(f"-o writes a page, FILE.html ({output})")
    if order is None:
        options.refuse_given("a search without --order", "batch_size")
    written = _read(file)
    index = open_index_with(prefix, tokenizer)
    text = index.normalize(written).decode(errors="replace")
    is_changed = text != written
    note_normalized([written], [0] if is_changed else [], index.tokenizer)
    if output is not None:
        publish.refuse_page(output, [file])
    spans = index.trace(text, min_bytes=min_bytes, max_occurrences=max_occurrences, threads=threads)
    seen: Sequence[_Seen | None]
    seen = [None] * len(spans) if order is None else _seen(index, order, spans, batch_size)
    entries = [
        Entry(span, [_occurrence(index, row) for row in span.occurrences], _in_words(steps))
        for span, steps in zip(spans, seen, strict=True)
    ]
    about = (
        f"{counted(len(spans), 'part')} of at least {counted(min_bytes, 'byte')} in {index.dataset.prefix}: "
        f"{marked.share(text, spans):.1%} of the text" + (", normalized" if is_changed else "")
    )
    if output is not None:
        publish.write_page(output, marked.page(f"{file}, traced", text, entries, about), [file])
    if as_json:
        print_document(
            {
                "is_normalized": is_changed,
                "n_bytes": len(text.encode()),
                "share": marked.share(text, spans),
                "spans": (_as_json(span, steps) for span, steps in zip(spans, seen, strict=True)),
            }
        )
        return
    if output is None:
        fragments = marked.fragments(text.rstrip("\n"), spans)
        echo_text(*(_marked(fragment) if covering else fragment for fragment, covering in fragments))
        echo()
    echo(about)
    _print_entries(entries, limit)
    if output is not None:
        note(f"page: {output}")


def _marked(fragment: str) -> str | Styled:
    """A fragment within a span as it is printed: underlined on a terminal, in brackets elsewhere."""
    return style(fragment, bold=True, underline=True) if sys.stdout.isatty() else f"[[{fragment}]]"


def _read(file: Path) -> str:
    """The text of a file or of standard input, without a byte-order mark. Raises PileError, OSError."""
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
        raise FormatError(f"the text is empty ({file})")
    return text


def _occurrence(index: Index, row: np.void) -> str:
    document, token, _, n_tokens = row.tolist()
    return range_of(index.dataset, document, token, n_tokens)


@dataclass(frozen=True)
class _Seen:
    """How often, and by which steps, a run sees a span; `n` is None if it is too frequent to be traced."""

    n: int | None
    first_step: int | None = None
    last_step: int | None = None


def _seen(index: Index, order: Path, spans: list[Span], batch_size: int | None) -> list[_Seen]:
    """By which steps each span is seen."""
    opened = opened_order(order, has_compat=False)
    texts = list({span.text: None for span in spans if span.count <= _MAX_TRACED})
    seen = dict.fromkeys((span.text for span in spans), _Seen(None))
    if not texts:
        return [seen[span.text] for span in spans]
    # Spans are normalized already, and bytes are not normalized again.
    queries = [text.encode() for text in texts]
    answer = timeline.when(
        opened, queries, tokenizer=index.tokenizer, index=index.core, batch_size=batch_size
    )
    counts = answer.counts().sum(axis=1).tolist()
    ends = (steps.tolist() for steps in answer.first_and_last())
    for text, count, first, last in zip(texts, counts, *ends, strict=True):
        seen[text] = _Seen(0) if last < 0 else _Seen(count, first, last)
    return [seen[span.text] for span in spans]


def _in_words(seen: _Seen | None) -> str:
    """The steps that see a span; empty without an order."""
    if seen is None:
        return ""
    if seen.n is None:
        return "too frequent to be traced to steps"
    if seen.first_step is None:
        return "in no step"
    is_one = seen.first_step == seen.last_step
    steps = f"step {seen.first_step:,}" if is_one else f"steps {seen.first_step:,} to {seen.last_step:,}"
    return f"seen {times(seen.n)}, {steps}"


def _print_entries(entries: list[Entry], limit: int) -> None:
    ranked = marked.rarest_first([entry.span for entry in entries])
    for number in ranked[:limit]:
        entry = entries[number]
        span = entry.span
        echo()
        echo(f"{short(quoted(span.text), 100)}")
        steps = f"; {entry.seen}" if entry.seen else ""
        echo(f"  {times(span.count)}, bytes {span.start:,} to {span.end - 1:,} of the text{steps}")
        for line in entry.occurrences:
            echo(style(f"  {line}", dim=True))
        if span.count > len(entry.occurrences):
            echo(style(f"  ... and {span.count - len(entry.occurrences):,} more", dim=True))
    if len(ranked) > limit:
        echo()
        echo(f"... and {counted(len(ranked) - limit, 'more part')}; --limit prints more, --json all")


def _as_json(span: Span, seen: _Seen | None) -> dict[str, Any]:
    return {
        "start": span.start,
        "end": span.end,
        "text": span.text,
        "count": span.count,
        "rarity": span.rarity,
        "seen": None if seen is None else asdict(seen),
        "occurrences": records(span.occurrences),
    }
