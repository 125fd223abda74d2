"""`pile-tools batch`."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

from pile_tools import publish
from pile_tools._core import Tokenizer
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.commands.origins import range_of, subset_labels
from pile_tools.errors import ConfigError
from pile_tools.order.order import Order
from pile_tools.order.remote import RemoteRows
from pile_tools.tables import Table
from pile_tools.terminal import counted, echo, echo_text, note, print_document, style
from pile_tools.tokens.datasets import subset_of
from pile_tools.types import Tokens


@click.command("batch")
@click.argument("order", type=artifacts.ORDER_OR_ADDRESS)
@click.option("--step", type=int, required=True, help="Step, from 0.")
@click.option(
    "--text/--tokens",
    "as_text",
    default=None,
    help="Print text, or token ids.  [default: text if a tokenizer is known]",
)
@click.option("--row", type=int, help="Print only this row of the batch.")
@click.option("--npy", type=options.PATH, metavar="FILE", help="Write the batch as a numpy array instead.")
@options.reports
@options.batch_size
@options.row_length
@options.compat
@options.dataset_tokenizer
@options.force
def command(
    order: str,
    step: int,
    as_text: bool | None,
    row: int | None,
    npy: Path | None,
    as_json: bool,
    batch_size: int | None,
    row_length: int | None,
    compat: str | None,
    tokenizer: Path | None,
    force: bool,
) -> None:
    """Print what the model sees at a step of ORDER, and the documents and subsets it comes from.

    ORDER is an order's folder, or rows in training order, as Pythia's data are: the folder of their shards,
    or an address, from which only this step is read. The documents and subsets of rows are unknown. Step s is
    the batch of samples from s * batch size on, for any number of GPUs.

    \b
    Examples:
      pile-tools batch tokens/ --step 100
      pile-tools batch tokens/ --step 100 --row 3 --tokens
      pile-tools batch pile-standard-pythia-preshuffled/ --step 1000 \\
        --npy step1000.npy
      pile-tools batch hf://datasets/EleutherAI/pile-standard-pythia-preshuffled \\
        --step 1000 --row 0
    """
    if npy is not None and as_json:
        raise ConfigError("--npy and --json exclude each other")
    opened = opened_order(order, row_length, batch_size, compat)
    first, n_rows = opened.first_sample(step, batch_size)
    if row is not None and not 0 <= row < n_rows:
        raise ConfigError(f"no row {row:,}: the batch has {n_rows:,}, from 0")
    rows = list(range(n_rows)) if row is None else [row]
    tokens = opened.batch(step, batch_size)
    spans = opened.batch_spans(step, batch_size)
    if npy is not None:
        # `publish` refuses to replace any file that is mapped, such as those of the order, and those listed.
        _write_npy(npy, tokens[rows], force=force, inputs=[tokenizer] if tokenizer else [])
        # The array may be written to /dev/stdout.
        note(f"{npy}: {len(rows):,} x {tokens.shape[1]:,} {tokens.dtype}", err=True)
        return
    decoder = _tokenizer(opened, tokenizer, as_text)
    if as_json:
        shown = (_json(opened, first, number, tokens, spans, decoder) for number in rows)
        print_document({"step": step, "n_rows": n_rows, "rows": shown})
        return
    _print_head(opened, step, first, n_rows, spans)
    for number in rows:
        echo()
        echo(f"row {number:,}, sample {first + number:,}")
        offset = 0
        for _, document, start, length in spans[spans["row"] == number].tolist():
            source = (
                "document unknown, subset unknown"
                if document < 0
                else range_of(opened.dataset, document, start, length)
            )
            echo(style(f"  {source}", dim=True))
            _print_span(tokens[number, offset : offset + length], decoder)
            offset += length
        if offset < tokens.shape[1]:
            echo(style(f"  {counted(tokens.shape[1] - offset, 'token')} of padding", dim=True))


def _write_npy(path: Path, tokens: Tokens, *, force: bool, inputs: list[Path]) -> None:
    def fill(temporary: Path) -> None:
        # To a file itself numpy writes by the C library, and does not notice that the last write fails.
        data = io.BytesIO()
        np.save(data, tokens)
        temporary.write_bytes(data.getbuffer())

    publish.write_file(path, fill, force=force, inputs=inputs)


def _print_head(order: Order, step: int, first: int, n_rows: int, spans: Table) -> None:
    n_documents = len(np.unique(spans["document"]))
    documents = f"from {counted(n_documents, 'document')}" if order.knows_documents else "documents unknown"
    echo(
        f"step {step:,}: samples {first:,} to {first + n_rows - 1:,} of {len(order.samples):,}, "
        f"{n_rows:,} x {order.samples.sample_length:,} tokens, {documents}"
    )
    shares: Counter[str | None] = Counter()
    names = order.dataset.subsets
    numbers = order.dataset.subset_numbers(spans["document"]) if names else np.full(len(spans), -1)
    for number, length in zip(numbers.tolist(), spans["length"].tolist(), strict=True):
        shares[names[number] if number >= 0 else None] += length
    total = sum(shares.values()) or 1
    ranked = shares.most_common()
    labels = subset_labels([name for name, _ in ranked])
    listed = zip(labels, ranked, strict=True)
    echo("subsets: " + ", ".join(f"{label} {n / total:.1%}" for label, (_, n) in listed))
    if isinstance(order.samples, RemoteRows):
        echo(f"{counted(order.samples.bytes_moved, 'byte')} transferred")


def _json(
    order: Order,
    first: int,
    row: int,
    tokens: Tokens,
    spans: Table,
    decoder: Tokenizer | None,
) -> dict[str, Any]:
    """A row as JSON: unknown documents and subsets are null."""
    found, offset = [], 0
    for _, document, start, length in spans[spans["row"] == row].tolist():
        text = None if decoder is None else _text(tokens[row, offset : offset + length], decoder)
        span = {
            "document": document if document >= 0 else None,
            "start": start if document >= 0 else None,
            "n_tokens": length,
            "subset": subset_of(order.dataset, document) if document >= 0 else None,
            "text": text,
        }
        found.append(span)
        offset += length
    return {"row": row, "sample": first + row, "tokens": tokens[row].tolist(), "spans": found}


def _text(ids: Tokens, decoder: Tokenizer) -> str:
    # Data of another tokenizer may hold ids that this one lacks: such a token shows as no text.
    return decoder.decode(ids.astype(np.uint32), skip_special_tokens=False, skip_unknown=True)


def _print_span(ids: Tokens, decoder: Tokenizer | None) -> None:
    if decoder is None:
        echo("  " + " ".join(str(id) for id in ids.tolist()))
        return
    for line in _text(ids, decoder).split("\n"):
        echo_text(f"  | {line}")


def _tokenizer(order: Order, given: Path | None, as_text: bool | None) -> Tokenizer | None:
    """The tokenizer given, or the one that the dataset's manifest names; None to print ids.

    Rows and GPT-NeoX's own arrays name no tokenizer: without --text their ids are printed.
    """
    if as_text is False:
        return None
    if given is None and as_text is None and order.manifest is None:
        return None
    return order.tokenizer(given)
