"""`pile-tools when`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pile_tools import timeline
from pile_tools._core import Tokenizer
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.commands.origins import source_of, tokens_from
from pile_tools.commands.texts import (
    note_normalized,
    print_context,
    queries_of,
    quoted,
    short,
    texts_as_ids,
    texts_file,
    times,
    unquoted,
)
from pile_tools.commands.when_plot import plot_of, selected
from pile_tools.errors import ConfigError
from pile_tools.order.order import Order
from pile_tools.present import charts, pages
from pile_tools.progress import Bar
from pile_tools.tables import records
from pile_tools.terminal import columns, counted, echo, print_document, style
from pile_tools.timeline import When
from pile_tools.timeline.checkpoints import Intervals, intervals
from pile_tools.tokens.datasets import subset_of

#: Maximum texts, and maximum intervals, that are printed.
_N_LISTED = 30


@dataclass(frozen=True)
class _Printed:
    """How occurrences are printed: the queries in quotes, and the tokens shown before and after each."""

    names: list[str]
    context: int
    checkpoints: Intervals
    decoder: Tokenizer | None


@click.command("when")
@click.argument("order", type=artifacts.ORDER_OR_ADDRESS)
@click.argument("texts", nargs=-1)
@texts_file
@texts_as_ids
@click.option(
    "--across-documents",
    is_flag=True,
    help="Also find occurrences that run from one document into the next within a row.",
)
@click.option("--steps", metavar="A:B", help="Only occurrences seen in steps A to B - 1.")
@options.checkpoints
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Maximum occurrences printed."
)
@click.option(
    "--context",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Tokens shown before and after.",
)
@options.reports
@options.plot("occurrences per step between checkpoints")
@options.batch_size
@options.row_length
@options.compat
@options.dataset_tokenizer
@click.option(
    "--index",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto: use the dataset's index if it exists and is faster; none: scan. The answer is the same.",
)
@options.threads
def command(
    order: str,
    texts: tuple[str, ...],
    file: Path | None,
    ids: tuple[str, ...],
    across_documents: bool,
    steps: str | None,
    checkpoints: str | None,
    limit: int,
    context: int,
    as_json: bool,
    plot: Path | None,
    batch_size: int | None,
    row_length: int | None,
    compat: str | None,
    tokenizer: Path | None,
    index: str,
    threads: int,
) -> None:
    """Print every time the model saw TEXTS in ORDER: step, row, document, and the checkpoints around it.

    A text is normalized as the dataset's tokenizer normalizes text, and occurs where its bytes occur in the
    decoded text of one document, whatever the token borders. A row has seq_length + 1 tokens; an occurrence
    split across rows is printed with all its rows. All texts of a --file are searched in one pass.

    \b
    Examples:
      pile-tools when tokens/ "the quick brown fox"
      pile-tools when tokens/ --file canaries.txt --json > seen.jsonl
      pile-tools when tokens/ "Alice" --checkpoints run/ --plot alice.html
    """
    queries = queries_of(texts, file, ids)
    opened = opened_order(order, row_length, batch_size, compat)
    decoder = None if ids and tokenizer is None else opened.tokenizer(tokenizer)
    n_steps, size = timeline.extent(opened, batch_size)
    first, end = _steps(steps, n_steps)
    between = intervals(checkpoints, n_steps)
    with Bar("searching", None, "tokens and samples") as bar:
        answer = timeline.when(
            opened,
            queries,
            tokenizer=decoder,
            index="auto" if index == "auto" else None,
            across_documents=across_documents,
            batch_size=size,
            threads=threads,
            on_progress=bar.update,
        )
    answer = _within(answer, first, end)
    names = [quoted(query) for query in queries]
    if not ids:
        written = [query for query in queries if isinstance(query, (str, bytes))]
        note_normalized(written, answer.changed, decoder)
    if plot is not None:
        pages.write(plot, plot_of(order, answer, between, names, (first, end)), [file] if file else [])
    rule = timeline.RULE + ("; across documents within a row too" if across_documents else "")
    if as_json:
        print_document(_document(opened, answer, between, names) | {"rule": rule, "steps": [first, end]})
        return
    if len(queries) > 1:
        _print_texts(answer, names)
    _print_occurrences(opened, answer, _Printed(names, context, between, decoder), limit)
    _print_counts(answer, between)
    _print_rule(opened, answer, (first, end), rule)
    options.note_plot(plot)


def _steps(given: str | None, n_steps: int) -> tuple[int, int]:
    if given is None:
        return 0, n_steps
    match = re.fullmatch(r"([0-9]*):([0-9]*)", given)
    if match is None:
        raise ConfigError(f"--steps {given!r}: expected A:B, such as 0:1000")
    first, end = int(match[1] or 0), int(match[2] or n_steps)
    if not first < end <= n_steps:
        raise ConfigError(f"--steps {given}: the run has steps 0 to {n_steps - 1:,}")
    return first, end


def _within(answer: When, first: int, end: int) -> When:
    """The answer with only the occurrences of which a part is seen in steps [first, end)."""
    seen = answer.sightings
    numbers = seen["occurrence"][(seen["step"] >= first) & (seen["step"] < end)]
    return selected(answer, np.isin(seen["occurrence"], numbers))


def _print_texts(answer: When, names: list[str]) -> None:
    counts = answer.counts()
    n_seen = int((counts.sum(axis=1) > 0).sum())
    echo(f"{n_seen:,} of {counted(len(names), 'text')} seen, {times(int(counts.sum()))} together")
    ends = answer.first_and_last()
    echo()
    echo(f"{'seen':>9}  {'cut':>7}  {'first step':>10}  {'last step':>10}  text")
    for number, name in enumerate(names[:_N_LISTED]):
        whole, split = counts[number].tolist()
        steps = [f"{of[number]:,}" if whole + split else "-" for of in ends]
        echo(
            f"{whole + split:>9,}  {split:>7,}  {steps[0]:>10}  {steps[1]:>10}  {short(name, columns() - 44)}"
        )
    if len(names) > _N_LISTED:
        echo(f"... and {counted(len(names) - _N_LISTED, 'more text')}; --json prints all")


def _print_occurrences(order: Order, answer: When, how: _Printed, limit: int) -> None:
    whole, split = answer.counts().sum(axis=0).tolist()
    if len(how.names) == 1:
        more = f", {split:,} of them cut by the border of rows" if split else ""
        seen = f"seen {times(whole + split)}" if whole + split else "never seen"
        echo(f"{short(how.names[0])} is {seen}{more}")
    for part in answer.sightings[answer.sightings["occurrence"] < limit]:
        _print_sighting(order, part, how, answer.texts)
    if whole + split > limit:
        echo()
        echo(f"... and {whole + split - limit:,} more; --limit prints more, --json all")


def _print_sighting(order: Order, seen: np.void, how: _Printed, texts: list[bytes]) -> None:
    step, part, n_parts = int(seen["step"]), int(seen["part"]), int(seen["n_parts"])
    before, after = how.checkpoints.around(step)
    around = f"after {f'step{before}' if before is not None else 'the start'}"
    around += f", before {f'step{after}' if after is not None else 'the end'}"
    name = f" {short(how.names[int(seen['text'])], 40)}" if len(how.names) > 1 else ""
    location = f"row {seen['row']:,}, {tokens_from(seen['offset'], seen['length'])}"
    if part == 0:
        echo()
    if n_parts > 1:
        location += f", part {part + 1} of {n_parts}"
    echo(f"step {step:,}, {location}{name} ({around})")
    if part == 0:
        echo(style(f"  {_document_of(order, seen)}", dim=True))
    if how.decoder is not None:
        row = order.samples[int(seen["sample"])].astype(np.uint32)
        start, end = int(seen["offset"]), int(seen["offset"] + seen["length"])
        spans = [row[max(0, start - how.context) : start], row[start:end], row[end : end + how.context]]
        decoded = [how.decoder.decode(ids, skip_special_tokens=False, skip_unknown=True) for ids in spans]
        print_context(decoded, texts[int(seen["text"])].decode(errors="replace"))


def _document_of(order: Order, seen: np.void) -> str:
    document = int(seen["document"])
    if not order.knows_documents:
        return "document unknown: the order is of rows"
    source = source_of(order.dataset, document)
    tokens = tokens_from(seen["token"], seen["n_tokens"])
    if seen["n_documents"] > 1:
        tokens = f"from token {seen['token']:,}, into the next {counted(seen['n_documents'] - 1, 'document')}"
    return f"document {document:,}, {tokens}, byte {seen['byte']:,}, epoch {seen['epoch'] + 1}: {source}"


def _print_counts(answer: When, between: Intervals) -> None:
    if not len(answer.sightings):
        return
    counts = answer.by_interval(between)
    sums = counts.sum(axis=1)
    shown = [i for i in range(len(sums)) if sums[i]]
    labels = between.labels()
    width = max(len(labels[i]) for i in shown)
    echo()
    echo(f"{'between checkpoints':<{width}}  {'seen':>9}  {'cut':>7}")
    for i in shown[:_N_LISTED]:
        chart = charts.bar(float(sums[i] / sums.max()))
        echo(f"{labels[i]:<{max(width, 19)}}  {sums[i]:>9,}  {counts[i, 1]:>7,}  {chart}")
    if len(shown) > _N_LISTED:
        echo(f"... and {counted(len(shown) - _N_LISTED, 'more interval')}; --plot draws all")
    echo(f"all {counted(len(sums), 'interval')}: |{charts.sparkline(_binned(sums, columns() - 24))}|")


def _binned(sums: NDArray[np.int64], n_bins: int) -> list[int]:
    """The sums, of neighbouring intervals together if there are more than `n_bins`."""
    return [int(part.sum()) for part in np.array_split(sums, min(n_bins, len(sums)))]


def _print_rule(order: Order, answer: When, steps: tuple[int, int], rule: str) -> None:
    first, end = steps
    n_rows = (end - first) * answer.batch_size
    documents = counted(answer.n_documents, "document" if order.knows_documents else "row")
    unknown = "" if order.knows_documents else ", whose documents are unknown"
    echo()
    echo(f"rule: {rule}")
    echo(
        f"searched{' by the index' if answer.by_index else ''}: "
        f"{documents}{unknown}, {counted(answer.n_tokens, 'token')}; steps {first:,} to {end - 1:,}, "
        f"{counted(n_rows, 'row')} of {counted(order.samples.sample_length, 'token')}"
    )
    unseen = [
        (int(answer.n_beyond.sum()), "after the run's last step"),
        (int(answer.n_unreached.sum()), "with tokens in no row"),
    ]
    listed = [f"{counted(n, 'occurrence')} {what}" for n, what in unseen if n]
    if n := answer.n_without_bytes:
        listed.append(f"{counted(n, 'token')} whose ids decode to nothing")
    echo(f"not seen: {', '.join(listed) or 'nothing'}")


def _document(order: Order, answer: When, between: Intervals, names: list[str]) -> dict[str, Any]:
    """The document of `--json`, without the rule and the steps."""
    changed = set(answer.changed)
    queries = (
        {
            "query": unquoted(name),
            "normalized": answer.texts[number].decode(errors="replace") if number in changed else None,
            "count": whole + split,
            "n_split": split,
            "n_beyond": int(answer.n_beyond[number]),
            "n_unreached": int(answer.n_unreached[number]),
        }
        for number, (name, (whole, split)) in enumerate(zip(names, answer.counts().tolist(), strict=True))
    )
    return {
        "by_index": answer.by_index,
        "batch_size": answer.batch_size,
        "n_documents": answer.n_documents,
        "n_tokens": answer.n_tokens,
        "n_without_bytes": answer.n_without_bytes,
        "queries": queries,
        "sightings": _sightings(order, answer, between, names),
    }


def _sightings(order: Order, answer: When, between: Intervals, names: list[str]) -> Iterator[dict[str, Any]]:
    for row in records(answer.sightings):
        values: dict[str, Any] = dict(row)
        if not order.knows_documents:
            values |= dict.fromkeys(("document", "byte", "token", "epoch"))
        document = values["document"]
        origin = None if document is None else order.dataset.origin(document)
        before, after = between.around(row["step"])
        yield values | {
            "query": unquoted(names[values.pop("text")]),
            "shard": origin and origin["shard"],
            "record": origin and origin["record"],
            "subset": None if document is None else subset_of(order.dataset, document),
            "checkpoint_before": before,
            "checkpoint_after": after,
        }
