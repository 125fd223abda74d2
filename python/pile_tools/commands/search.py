"""`pile-tools search`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pile_tools import timeline
from pile_tools.commands import options
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
from pile_tools.order.open import open_order
from pile_tools.search import Index, NextTokens, Query, open_index
from pile_tools.terminal import echo, echo_json
from pile_tools.tokenizers import load_tokenizer

#: A query with more occurrences is only counted: a table of all of them, to print a few, takes too long.
_MAX_LISTED = 1_000_000


@click.command("search")
@click.argument("prefix", type=options.PATH)
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
    "--order", type=options.PATH, metavar="ORDER", help="Also print by which steps each text is seen."
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
@click.option(
    "--json", "as_json", is_flag=True, help="Print every occurrence, token or document as JSON lines."
)
@options.batch_size_if_unnamed
@click.option(
    "--tokenizer", type=options.PATH, metavar="FILE", help="Tokenizer, if the index's is not found."
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
    if cnf is not None:
        if texts or file or ids or following or order:
            raise ConfigError("--cnf holds the whole query: give no texts, --file, --ids, --next or --order")
        clauses = _clauses(cnf)
        index = _opened(prefix, tokenizer)
        _note(index, [query for clause in clauses for query in clause])
        _print_documents(index, clauses, within, limit, (only_count, as_json))
        return
    queries = queries_of(texts, file, ids)
    names = [quoted(query) for query in queries]
    index = _opened(prefix, tokenizer)
    _note(index, queries)
    if following:
        for query, name in zip(queries, names, strict=True):
            _print_next(index, (query, name), index.next_tokens(query, longest=longest), limit, as_json)
        return
    counts = index.count_batch(queries, threads=threads)
    if only_count or len(queries) > 1:
        _print_counts(index, queries, names, counts, as_json=as_json)
    if not only_count:
        for query, name, count in zip(queries, names, counts.tolist(), strict=True):
            _print_occurrences(index, query, (name, count), (limit, context), as_json=as_json)
    if order is not None:
        _print_steps(index, order, queries, names, batch_size)


def _opened(prefix: Path, tokenizer: Path | None) -> Index:
    return open_index(prefix, tokenizer=None if tokenizer is None else load_tokenizer(tokenizer))


def _note(index: Index, queries: Sequence[Query]) -> None:
    """Notes how many of the texts normalization changed."""
    texts = [query for query in queries if isinstance(query, (str, bytes))]
    if texts and index.core.has_bytes:
        changed = [i for i, text in enumerate(texts) if _normalized_field(index, text)]
        note_normalized(texts, changed, index.tokenizer)


def _normalized_field(index: Index, query: Query) -> dict[str, str]:
    """The field `normalized` of a line of JSON; empty if normalization does not change the query."""
    if not isinstance(query, str) or index.normalize(query) == query.encode():
        return {}
    return {"normalized": index.normalize(query).decode(errors="replace")}


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


def _print_counts(
    index: Index, queries: Sequence[Query], names: list[str], counts: NDArray[np.int64], *, as_json: bool
) -> None:
    for query, name, count in zip(queries, names, counts.tolist(), strict=True):
        if as_json:
            echo_json({"query": unquoted(name), **_normalized_field(index, query), "count": count})
        else:
            echo(f"{count:>12,}  {short(name)}")


def _print_occurrences(
    index: Index, query: Query, result: tuple[str, int], how: tuple[int, int], *, as_json: bool
) -> None:
    (name, count), (limit, context) = result, how
    occurrences = index.occurrences(query) if as_json or count <= _MAX_LISTED else None
    if as_json and occurrences is not None:
        normalized = _normalized_field(index, query)
        for occurrence in occurrences:
            values = dict(zip(occurrences.dtype.names or (), occurrence.tolist(), strict=True))
            origin = _origin(index, values["document"])
            echo_json({"query": unquoted(name), **normalized, **values, **origin})
        return
    documents = "" if occurrences is None else f" in {len(np.unique(occurrences['document'])):,} documents"
    echo(f"{short(name)} occurs {times(count)}{documents}" if count else f"{short(name)} never occurs")
    for occurrence in [] if occurrences is None else occurrences[:limit]:
        document, token, _, n_tokens = (int(value) for value in occurrence.tolist())
        echo()
        echo(f"{range_of(index.dataset, document, token, n_tokens)}")
        if index.core.has_bytes:
            _print_text(index, (document, token, n_tokens), context, query)
    if occurrences is None:
        echo(f"more than {_MAX_LISTED:,} times: only counted; --json prints every occurrence")
    elif count > limit:
        echo()
        echo(f"... and {count - limit:,} more; --limit prints more, --json all")


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


def _print_next(
    index: Index, named_query: tuple[Query, str], found: NextTokens, limit: int, as_json: bool
) -> None:
    query, name = named_query
    rows = list(zip(found.ids.tolist(), found.counts.tolist(), found.probabilities.tolist(), strict=True))

    def text(id: int) -> str | None:
        return index.core.decode([id]).decode(errors="replace") if index.core.has_bytes else None

    if as_json:
        for id, count, probability in rows:
            values: dict[str, Any] = {"query": unquoted(name), **_normalized_field(index, query)}
            values |= {"n_context": found.n_context, "id": id, "text": text(id)}
            echo_json({**values, "count": count, "probability": probability})
        return
    n_followed, unit = int(found.counts.sum()), "tokens" if name.startswith("tokens ") else "bytes"
    echo(
        f"{short(name)}: its last {found.n_context:,} {unit} are followed {times(n_followed)} by a token, "
        f"{len(rows):,} distinct; {found.n_ends:,} end their document, {found.n_within:,} end within a token"
    )
    for id, count, probability in rows[:limit]:
        shown = f"  {json.dumps(text(id), ensure_ascii=False)}" if index.core.has_bytes else ""
        echo(f"{count:>12,}  {probability:>8.2%}  {id:>6}{shown}")
    if len(rows) > limit:
        echo(f"... and {len(rows) - limit:,} more; --limit prints more, --json all")


def _print_documents(
    index: Index, clauses: Sequence[Sequence[Query]], within: int | None, limit: int, how: tuple[bool, bool]
) -> None:
    only_count, as_json = how
    found = index.documents(clauses, within=within)
    if as_json:
        for row in found:
            values = dict(zip(found.dtype.names or (), row.tolist(), strict=True))
            echo_json({**values, **_origin(index, values["document"])})
        return
    window = "" if within is None else f" within {within:,} tokens"
    echo(f"{len(found):,} documents hold one of each of {len(clauses):,} lists{window}")
    for row in [] if only_count else found[:limit]:
        document, token, n_tokens = (int(value) for value in row.tolist())
        echo(
            f"document {document:,}, shortest run {tokens_from(token, n_tokens)}: "
            f"{source_of(index.dataset, document)}"
        )
    if not only_count and len(found) > limit:
        echo(f"... and {len(found) - limit:,} more; --limit prints more, --json all")


def _print_steps(
    index: Index,
    order: Path,
    queries: Sequence[str | bytes] | list[list[int]],
    names: list[str],
    batch_size: int | None,
) -> None:
    opened = open_order(order)
    decoder = index.tokenizer if isinstance(queries[0], (str, bytes)) else None
    answer = timeline.when(opened, queries, tokenizer=decoder, index=index.core, batch_size=batch_size)
    counts = answer.counts().sum(axis=1)
    echo()
    echo(f"in the order {order}")
    echo(f"{'seen':>9}  {'first step':>10}  {'last step':>10}  query")
    seen = answer.sightings
    for number, name in enumerate(names):
        steps = seen["step"][seen["text"] == number]
        first, last = (f"{steps.min():,}", f"{steps.max():,}") if len(steps) else ("-", "-")
        echo(f"{counts[number]:>9,}  {first:>10}  {last:>10}  {short(name)}")
    echo("`pile-tools when` prints every step and row, and counts by checkpoint")
