"""Texts that commands are asked for, and how they are printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pile_tools._core import Tokenizer
from pile_tools.commands import options
from pile_tools.errors import ConfigError
from pile_tools.read.texts import read_texts
from pile_tools.terminal import echo, echo_text, style

#: Datasets store ids as int32 at most.
MOST_ID = 2**31 - 1

texts_file = click.option(
    "--file",
    type=options.PATH,
    metavar="FILE",
    help="Texts, one a line; in a .jsonl file each line is a JSON string.",
)
texts_as_ids = click.option(
    "--tokens",
    multiple=True,
    metavar="IDS",
    help='Ids in place of a text, such as "510 1566"; again for more.',
)


def asked(
    texts: tuple[str, ...], file: Path | None, tokens: tuple[str, ...]
) -> Sequence[str | bytes] | list[list[int]]:
    """The texts of a command line, of `--file` or of `--tokens`; bytes where one is not UTF-8.

    Raises ConfigError, PileError.
    """
    if sum([bool(texts), file is not None, bool(tokens)]) != 1:
        raise ConfigError("give texts, or --file, or --tokens")
    if tokens:
        return [_ids(ids) for ids in tokens]
    found = [_typed(text) for text in texts] if file is None else read_texts(file)
    if any(not text for text in found):
        raise ConfigError("a text is empty: it would occur everywhere")
    return found


def _typed(text: str) -> str | bytes:
    """A text of the command line: what is not UTF-8 as the bytes that were typed."""
    data = os.fsencode(text)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _ids(text: str) -> list[int]:
    ids = re.split(r"[\s,]+", text.strip())
    # Python refuses to read numbers of thousands of digits.
    if not all(re.fullmatch(r"\d{1,100}", id) for id in ids):
        raise ConfigError(f'--tokens {text!r}: expected ids such as "510 1566"')
    return [checked_id(int(id)) for id in ids]


def checked_id(id: int) -> int:
    """An id that a dataset can hold. Raises ConfigError."""
    if not 0 <= id <= MOST_ID:
        raise ConfigError(f"ids are 0 to {MOST_ID:,}, got {id}")
    return id


def quoted(text: str | bytes | list[int], is_ids: bool) -> str:
    """A text as it is printed: on one line, in quotes."""
    if is_ids or isinstance(text, list):
        return "tokens " + " ".join(str(id) for id in text)
    shown = text if isinstance(text, str) else text.decode(errors="backslashreplace")
    return json.dumps(shown, ensure_ascii=False)


def note_normalized(texts: Sequence[Any], changed: Sequence[int], tokenizer: Tokenizer | None) -> None:
    """Says on standard error which texts normalization changed, or that it could not be done."""
    n = len(texts)
    if changed and tokenizer is not None:
        what = "the text was" if n == 1 else f"{len(changed):,} of {n:,} texts were"
        how = tokenizer.normalizer or "added tokens"
        echo(f"note: {what} normalized as the tokenizer does ({how})", err=True)
    written = (text if isinstance(text, str) else "" for text in texts)
    if tokenizer is None and not all(text.isascii() for text in written):
        echo("note: the tokenizer is not here: texts are not normalized; --tokenizer FILE", err=True)


def short(name: str, width: int = 60) -> str:
    """As much of a name as fits."""
    return name if len(name) <= width else name[: width - 4] + '..."'


def times(n: int) -> str:
    """How often, in words."""
    return "once" if n == 1 else f"{n:,} times"


def print_context(around: list[str], text: str) -> None:
    """Prints what stands before, at and behind an occurrence, the text marked."""
    before, inside, after = around
    at = inside.find(text)
    if at >= 0:
        before, inside, after = before + inside[:at], text, inside[at + len(text) :] + after
    before, inside, after = (part.replace("\n", "\n  | ") for part in (before, inside, after))
    echo_text("  | ", before, style(inside, bold=True, underline=True), after)
