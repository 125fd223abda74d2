"""`pile-tools search`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from pile_tools import timeline
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.commands.origins import range_of, source_of, tokens_from
from pile_tools.commands.texts import (
    checked_id,
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
from pile_tools.errors import ConfigError
from pile_tools.search import Index, NextTokens, Query, open_index_with
from pile_tools.tables import Table, records
from pile_tools.terminal import columns, counted, echo, print_document

#: A query with more occurrences is only counted: a table of all of them, to print a few, takes too long.
_MAX_LISTED = 1_000_000


@click.command("search")
@click.argument("prefix", type=artifacts.INDEXED)
@click.argument("texts", nargs=-1)
@texts_file
@texts_as_ids
@click.option("--next", "following", is_flag=True, help="Print the tokens that follow.")
@click.option("--longest", is_flag=True, help="With --next: after the longest suffix that any token follows.")
@click.option(
    "--cnf",
    metavar="JSON",
    help='Documents with one of each list, such as \'[["cat", "dog"], ["food"]]\'; ids as [[[510, 1566]]].',
)
@click.option("--within", type=click.IntRange(min=1), metavar="N", help="With --cnf: all within N tokens.")
@click.option(
    "--order", type=artifacts.ORDER, metavar="ORDER", help="Also print by which steps each text is seen."
)
@click.option("--count", "only_count", is_flag=True, help="Print only the counts.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Maximum occurrences, tokens or documents printed.",
)
@click.option(
    "--context",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Tokens shown before and after.",
)
@options.reports
@options.batch_size_if_unnamed
@click.option(
    "--tokenizer", type=artifacts.TOKENIZER, metavar="FILE", help="Tokenizer, if the index's is not found."
)
@options.threads
def command(
    prefix: Path,
    texts: tuple[str, ...],
    file: Path | None,
    ids: tuple[str, ...],
    following: bool,
    longest: bool,
    cnf: str | None,
    within: int | None,
    order: Path | None,
    only_count: bool,
    limit: int,
    context: int,
    as_json: bool,
    batch_size: int | None,
    tokenizer: Path | None,
    threads: int,
) -> None:
    """Print how often, and where, TEXTS occur in the dataset at PREFIX, by its index.

    A text is normalized as the dataset's tokenizer normalizes text, and occurs where its bytes occur in the
    decoded text of one document, whatever the token borders. Ids occur where they follow each other in one
    document. Overlapping occurrences all count.

    \b
    Examples:
      pile-tools search tokens/sample "the quick brown fox"
      pile-tools search tokens/sample --file names.txt --count
      pile-tools search tokens/sample --ids "510 1566" --next
      pile-tools search tokens/sample --cnf '[["cat", "dog"], ["food"]]' \\
        --within 100
      pile-tools search tokens/sample "Alice" --order tokens/
    """
    if longest and not following:
        raise ConfigError("--longest goes with --next")
    if within is not None and cnf is None:
        raise ConfigError("--within goes with --cnf")
    if only_count and following:
        raise ConfigError("--count goes without --next")
    if order is None:
        options.refuse_given("a search without --order", "batch_size")
    if cnf is not None:
        if texts or file or ids or following or order:
            raise ConfigError("--cnf holds the whole query: give no texts, --file, --ids, --next or --order")
        clauses = _clauses(cnf)
        index = open_index_with(prefix, tokenizer)
        _prepare(index, [query for clause in clauses for query in clause])
        found = index.documents(clauses, within=within)
        if as_json:
            rows = None if only_count else _with_origins(index, found)
            found_by = _of_clauses(index, [query for clause in clauses for query in clause])
            print_document({"n_documents": len(found), "documents": rows, "queries": found_by})
        else:
            _print_documents(index, found, len(clauses), within, 0 if only_count else limit, only_count)
        return
    queries = queries_of(texts, file, ids)
    names = [quoted(query) for query in queries]
    index = open_index_with(prefix, tokenizer)
    _prepare(index, queries)
    if following and not as_json:
        for query, name in zip(queries, names, strict=True):
            _print_next(index, name, index.next_tokens(query, longest=longest), limit)
        if order is not None:
            _print_steps(order, _seen(index, order, queries, batch_size), names)
        return
    counts = index.count_batch(queries, threads=threads).tolist()
    seen = None if order is None else _seen(index, order, queries, batch_size)
    if as_json:
        results = _found(index, queries, names, counts, seen, only_count, following, longest)
        print_document({"n_documents": None, "documents": None, "queries": results})
        return
    if only_count or len(queries) > 1:
        for name, count in zip(names, counts, strict=True):
            echo(f"{count:>12,}  {short(name, columns() - 14)}")
    if not only_count:
        for query, name, count in zip(queries, names, counts, strict=True):
            _print_occurrences(index, query, _Printed(name, limit, context), count)
    if order is not None and seen is not None:
        _print_steps(order, seen, names)


def _prepare(index: Index, queries: Sequence[Query]) -> None:
    """Notes how many of the texts normalization changed.

    Raises ConfigError for an id that the dataset cannot store, as a search of an order does.
    """
    largest = np.iinfo(index.dataset.dtype).max
    for query in queries:
        if not isinstance(query, (str, bytes)) and max(query) > largest:
            raise ConfigError(f"id {max(query)} cannot be stored as {index.dataset.dtype}")
    texts = [query for query in queries if isinstance(query, (str, bytes))]
    if texts and index.core.has_bytes:
        changed = [i for i, text in enumerate(texts) if _normalized(index, text) is not None]
        note_normalized(texts, changed, index.tokenizer)


def _normalized(index: Index, query: Query) -> str | None:
    """The normalized text; None if normalization does not change the query."""
    if not isinstance(query, str) or index.normalize(query) == query.encode():
        return None
    return index.normalize(query).decode(errors="replace")


def _of_clauses(index: Index, queries: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The queries of `--cnf` in the document of `--json`: none of them has a count of its own."""
    for query in queries:
        empty = dict.fromkeys(("count", "occurrences", "next", "seen"))
        yield {"query": unquoted(quoted(query)), "normalized": _normalized(index, query), **empty}


def _found(
    index: Index,
    queries: Sequence[Query],
    names: list[str],
    counts: list[int],
    seen: list[_Seen] | None,
    only_count: bool,
    following: bool,
    longest: bool,
) -> Iterator[dict[str, Any]]:
    """The results of the queries in the document of `--json`."""
    for number, (query, name, count) in enumerate(zip(queries, names, counts, strict=True)):
        is_listed = not (only_count or following)
        yield {
            "query": unquoted(name),
            "normalized": _normalized(index, query),
            "count": count,
            "occurrences": _with_origins(index, index.occurrences(query)) if is_listed else None,
            "next": _next_tokens(index, index.next_tokens(query, longest=longest)) if following else None,
            "seen": None if seen is None else seen[number]._asdict(),
        }


def _with_origins(index: Index, table: Table) -> Iterator[dict[str, Any]]:
    return (row | _origin(index, row["document"]) for row in records(table))


def _next_tokens(index: Index, found: NextTokens) -> dict[str, Any]:
    rows = zip(found.ids.tolist(), found.counts.tolist(), found.probabilities.tolist(), strict=True)
    tokens = (
        {"id": id, "text": _text_of(index, id), "count": count, "probability": probability}
        for id, count, probability in rows
    )
    context = {"n_context": found.n_context, "n_ends": found.n_ends, "n_within": found.n_within}
    return context | {"tokens": tokens}


def _text_of(index: Index, id: int) -> str | None:
    return index.core.decode([id]).decode(errors="replace") if index.core.has_bytes else None


def _clauses(text: str) -> list[list[Query]]:
    try:
        clauses = json.loads(text)
    except (ValueError, RecursionError) as err:
        reason = "nested too deep" if isinstance(err, RecursionError) else str(err)
        raise ConfigError(f"--cnf is not JSON: {reason}") from err
    if not isinstance(clauses, list) or not all(isinstance(clause, list) for clause in clauses):
        raise ConfigError('--cnf: expected a list of lists, such as \'[["cat", "dog"], ["food"]]\'')
    for number, clause in enumerate(clauses, 1):
        for i, query in enumerate(clause, 1):
            is_ids = isinstance(query, list) and all(type(id) is int for id in query)
            if not (isinstance(query, str) or is_ids) or not query:
                raise ConfigError(
                    f"--cnf: query {i} of clause {number} is not a text or a list of ids, or is empty"
                )
            if is_ids:
                query[:] = map(checked_id, query)
    return clauses


@dataclass(frozen=True)
class _Printed:
    """How occurrences are printed: the query in quotes, how many, and the tokens before and after each."""

    name: str
    limit: int
    context: int


def _print_occurrences(index: Index, query: Query, how: _Printed, count: int) -> None:
    occurrences = index.occurrences(query) if count <= _MAX_LISTED else None
    documents = (
        "" if occurrences is None else " in " + counted(len(np.unique(occurrences["document"])), "document")
    )
    name = short(how.name)
    echo(f"{name} occurs {times(count)}{documents}" if count else f"{name} never occurs")
    for occurrence in [] if occurrences is None else occurrences[: how.limit]:
        document, token, _, n_tokens = (int(value) for value in occurrence.tolist())
        echo()
        echo(f"{range_of(index.dataset, document, token, n_tokens)}")
        if index.core.has_bytes:
            _print_text(index, (document, token, n_tokens), how.context, query)
    if occurrences is None:
        echo(f"more than {_MAX_LISTED:,} times: only counted; --json prints every occurrence")
    elif count > how.limit:
        echo()
        echo(f"... and {count - how.limit:,} more; --limit prints more, --json all")


def _print_text(index: Index, token_range: tuple[int, int, int], context: int, query: Query) -> None:
    document, token, n_tokens = token_range
    ids = index.dataset[document]
    spans = [ids[max(0, token - context) : token], ids[token : token + n_tokens]]
    spans.append(ids[token + n_tokens : token + n_tokens + context])
    around = [index.core.decode(span).decode(errors="replace") for span in spans]
    text = index.normalize(query) if isinstance(query, (str, bytes)) else around[1].encode()
    print_context(around, text.decode(errors="replace"))


def _origin(index: Index, document: int) -> dict[str, Any]:
    origin = index.dataset.origin(document)
    return {name: origin and origin[name] for name in ("shard", "record", "subset")}


def _print_next(index: Index, name: str, found: NextTokens, limit: int) -> None:
    rows = list(zip(found.ids.tolist(), found.counts.tolist(), found.probabilities.tolist(), strict=True))
    n_followed, unit = int(found.counts.sum()), "token" if name.startswith("tokens ") else "byte"
    echo(
        f"{short(name)}: after its last {counted(found.n_context, unit)} a token follows {times(n_followed)}"
        f", {len(rows):,} distinct; {found.n_ends:,} end their document, "
        f"{found.n_within:,} end within a token"
    )
    for id, count, probability in rows[:limit]:
        shown = f"  {json.dumps(_text_of(index, id), ensure_ascii=False)}" if index.core.has_bytes else ""
        echo(f"{count:>12,}  {probability:>8.2%}  {id:>6}{shown}")
    if len(rows) > limit:
        echo(f"... and {len(rows) - limit:,} more; --limit prints more, --json all")


def _print_documents(
    index: Index, found: Table, n_clauses: int, within: int | None, limit: int, only_count: bool
) -> None:
    window = "" if within is None else " within " + counted(within, "token")
    echo(f"one of each of {counted(n_clauses, 'list')}{window}: {counted(len(found), 'document')}")
    for row in found[:limit]:
        document, token, n_tokens = (int(value) for value in row.tolist())
        echo(
            f"document {document:,}, shortest run {tokens_from(token, n_tokens)}: "
            f"{source_of(index.dataset, document)}"
        )
    if not only_count and len(found) > limit:
        echo(f"... and {len(found) - limit:,} more; --limit prints more, --json all")


class _Seen(NamedTuple):
    """How often, and by which steps, a run sees a query; the steps are None for no step."""

    n: int
    first_step: int | None
    last_step: int | None


def _seen(
    index: Index,
    order: Path,
    queries: Sequence[str | bytes] | list[list[int]],
    batch_size: int | None,
) -> list[_Seen]:
    opened = opened_order(order, has_compat=False)
    decoder = index.tokenizer if isinstance(queries[0], (str, bytes)) else None
    answer = timeline.when(opened, queries, tokenizer=decoder, index=index.core, batch_size=batch_size)
    counts = answer.counts().sum(axis=1).tolist()
    ends = (steps.tolist() for steps in answer.first_and_last())
    return [
        _Seen(count, None if first < 0 else first, None if last < 0 else last)
        for count, first, last in zip(counts, *ends, strict=True)
    ]


def _print_steps(order: Path, seen: list[_Seen], names: list[str]) -> None:
    echo()
    echo(f"in the order {order}")
    echo(f"{'seen':>9}  {'first step':>10}  {'last step':>10}  query")
    for of, name in zip(seen, names, strict=True):
        first, last = ("-" if step is None else f"{step:,}" for step in of[1:])
        echo(f"{of.n:>9,}  {first:>10}  {last:>10}  {short(name, columns() - 35)}")
    echo("`pile-tools when` prints every step and row, and counts by checkpoint")
