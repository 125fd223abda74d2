"""`pile-tools batch`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.commands import options
from pile_tools.datasets import tokenizer_of
from pile_tools.errors import ConfigError
from pile_tools.orders import Order, open_order
from pile_tools.types import Tokens


@click.command("batch")
@click.argument("order", type=options.PATH)
@click.option("--step", type=int, required=True, help="Step, from 0.")
@click.option("--text/--tokens", "as_text", default=True, show_default=True, help="Print text, or token ids.")
@click.option("--row", type=int, help="Print this row of the batch alone.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples of a step, where the order names none."
)
@click.option(
    "--tokenizer", type=options.PATH, metavar="FILE", help="Where the dataset's own tokenizer is not found."
)
def command(
    order: Path, step: int, as_text: bool, row: int | None, batch_size: int | None, tokenizer: Path | None
) -> None:
    """Print what the model sees at a step of ORDER, and from which documents and subsets it comes.

    ORDER is an order's folder. Step s is samples s * batch size and on, whatever the number of GPUs was.

    \b
    Examples:
      pile-tools batch tokens/ --step 100
      pile-tools batch tokens/ --step 100 --row 3 --tokens
    """
    opened = open_order(order)
    first, n_rows = opened.first_sample(step, batch_size)
    if row is not None and not 0 <= row < n_rows:
        raise ConfigError(f"no row {row}: the batch has {n_rows}, from 0")
    tokens = opened.batch(step, batch_size)
    spans = opened.batch_spans(step, batch_size)
    dataset = opened.samples.dataset
    decoder = tokenizer_of(Path(dataset.prefix), tokenizer) if as_text else None
    _print_head(opened, dataset, step, first, n_rows, spans)
    for number in range(n_rows) if row is None else [row]:
        click.echo(f"\nrow {number}, sample {first + number:,}")
        place = 0
        for _, document, start, length in spans[spans[:, 0] == number].tolist():
            click.echo(click.style(f"  {_where(dataset, document, start, length)}", dim=True))
            ids = tokens[number, place : place + length]
            _print_span(ids, decoder)
            place += length


def _print_head(
    order: Order, dataset: TokenDataset, step: int, first: int, n_rows: int, spans: NDArray[np.int64]
) -> None:
    n_documents = len(np.unique(spans[:, 1]))
    click.echo(
        f"step {step:,}: samples {first:,} to {first + n_rows - 1:,} of {len(order.samples):,}, "
        f"{n_rows} x {order.seq_length + 1} tokens from {n_documents} documents"
    )
    shares: Counter[str] = Counter()
    names = dataset.subsets
    for number, length in zip(
        dataset.subset_numbers(spans[:, 1].copy()).tolist(), spans[:, 3].tolist(), strict=True
    ):
        shares[names[number] if number >= 0 else "unknown"] += length
    total = sum(shares.values())
    click.echo("subsets: " + ", ".join(f"{name} {n / total:.1%}" for name, n in shares.most_common()))


def _where(dataset: TokenDataset, document: int, start: int, length: int) -> str:
    origin = dataset.origin(document)
    source = (
        "origin unknown"
        if origin is None
        else f"{origin['subset'] or 'subset unknown'}, {origin['shard']} record {origin['record']}"
    )
    return f"document {document}, tokens {start} to {start + length - 1}: {source}"


def _print_span(ids: Tokens, decoder: Tokenizer | None) -> None:
    if decoder is None:
        click.echo("  " + " ".join(str(id) for id in ids.tolist()))
        return
    text = decoder.decode(ids.astype(np.uint32), skip_special_tokens=False)
    click.echo("\n".join(f"  | {line}" for line in text.splitlines()))
