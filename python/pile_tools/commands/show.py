"""`pile-tools show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.commands import artifacts, options
from pile_tools.commands.origins import subset_labels
from pile_tools.errors import ConfigError, PileError
from pile_tools.terminal import echo, echo_text, print_document
from pile_tools.tokens import documents
from pile_tools.tokens.datasets import tokenizer_of
from pile_tools.types import Origin, Tokens


# Numbers from the end start with a dash: without this click would read -1 as an option.
@click.command("show", context_settings={"ignore_unknown_options": True})
@click.argument("prefix", type=artifacts.DATASET)
@click.argument("document")
@click.option("--tokens", "as_tokens", is_flag=True, help="Print token ids instead of text.")
@click.option("--raw", is_flag=True, help="Print the record, read again from its shard.")
@options.reports
@click.option(
    "--tokenizer",
    type=artifacts.TOKENIZER,
    metavar="FILE|FOLDER|ID",
    help="Tokenizer, if the dataset's is not found.",
)
def command(
    prefix: Path, document: str, as_tokens: bool, raw: bool, as_json: bool, tokenizer: Path | None
) -> None:
    """Print a document of the dataset at PREFIX: its origin, the range of its tokens, and its text.

    DOCUMENT is a number, from 0 or with -1 for the last, or SHARD:RECORD with the shard's path or the end of
    it and the record's line from 0. With --raw the shard is decompressed up to the record, which is printed
    only if it still gives the same tokens.

    \b
    Examples:
      pile-tools show tokens/sample 633
      pile-tools show tokens/sample -1 --tokens
      pile-tools show tokens/sample 04.jsonl.zst:52 --raw
    """
    dataset = TokenDataset(prefix)
    number, *others = documents.find(dataset, document)
    shown = _about(dataset, number, others)
    ids = dataset[number]
    if as_tokens:
        shown["tokens"] = ids.tolist()
    if raw and shown["origin"] is None:
        raise ConfigError("--raw needs a known origin; `pile-tools label` finds it")
    if raw or not as_tokens:
        decoder = tokenizer_of(dataset, tokenizer)
        if raw:
            shown["raw"] = _record(prefix, shown["origin"], decoder, ids)
        else:
            shown["text"] = decoder.decode(
                ids.astype(np.uint32), skip_special_tokens=False, skip_unknown=True
            )
    if as_json:
        print_document(shown)
    else:
        _print(shown, prefix)


def _record(prefix: Path, origin: Origin, tokenizer: Tokenizer, ids: Tokens) -> str:
    try:
        path = documents.find_shard(prefix, origin["shard"])
        return documents.record_of(path, origin, documents.text_field_of(prefix), tokenizer, ids)
    except ConfigError as err:
        raise ConfigError(f"{err}; without --raw the document's text is shown") from err
    except PileError as err:
        raise PileError(f"{err}; without --raw the document's text is shown") from err


def _about(dataset: TokenDataset, number: int, others: list[int]) -> dict[str, Any]:
    """The number, origin and token range of a document, and the other documents of its record."""
    about: dict[str, Any] = {
        "document": number,
        "n_documents": len(dataset),
        "origin": dataset.origin(number),
        "first_token": dataset.first_token(number),
        "n_tokens": len(dataset[number]),
    }
    return about | {"of_the_same_record": others, "tokens": None, "text": None, "raw": None}


def _print(shown: dict[str, Any], prefix: Path) -> None:
    echo(f"document {shown['document']:,} of {shown['n_documents']:,}")
    origin, first, n_tokens = shown["origin"], shown["first_token"], shown["n_tokens"]
    if origin is None:
        echo("  origin  unknown")
    else:
        start, n_bytes = origin["byte_start"], origin["byte_length"]
        echo(f"  subset  {subset_labels([origin['subset']])[0]}")
        echo(f"  shard   {origin['shard']}, record {origin['record']:,}")
        echo(f"  bytes   {n_bytes:,}, from byte {start:,} of the decompressed shard")
    echo(f"  tokens  {n_tokens:,}, from token {first:,} of {prefix}.bin")
    if others := shown["of_the_same_record"]:
        some = ", ".join(f"{other:,}" for other in others[:10]) + (", ..." if len(others) > 10 else "")
        echo(f"  also    {len(others):,} more of the same record: {some}")
    if shown["raw"] is not None:
        echo("  record  read again from the shard; it gives the same tokens")
    echo()
    if shown["tokens"] is not None:
        echo(" ".join(map(str, shown["tokens"])))
    for what in ("raw", "text"):
        if shown[what] is not None:
            echo_text(shown[what])
