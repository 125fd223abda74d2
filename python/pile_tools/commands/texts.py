"""The texts and token ids that commands search for, and how they are printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from pile_tools._core import Tokenizer
from pile_tools.commands import artifacts
from pile_tools.errors import ConfigError
from pile_tools.read.texts import read_texts
from pile_tools.terminal import counted, echo_text, fit, note, style, width

#: Largest id that a dataset can store: int32.
MAX_ID = 2**31 - 1

texts_file = click.option(
    "--file",
    type=artifacts.TEXT,
    metavar="FILE",
    help="Texts, one a line; in a .jsonl file each line is a JSON string.",
)
texts_as_ids = click.option(
    "--ids",
    multiple=True,
    metavar="IDS",
    help='Token ids instead of a text, such as "510 1566"; can be repeated.',
)


def queries_of(
    texts: tuple[str, ...], file: Path | None, ids: tuple[str, ...]
) -> Sequence[str | bytes] | list[list[int]]:
    """The queries of a command line: its texts, those of `--file`, or the ids of `--ids`.

    A text of the command line that is not UTF-8 is returned as bytes.

    Raises:
        ConfigError: Not exactly one of the three is given, or a text or id is invalid.
        PileError: The file is not a list of texts.
        OSError: The file cannot be read.
    """
    if sum([bool(texts), file is not None, bool(ids)]) != 1:
        raise ConfigError("give texts, or --file, or --ids")
    if ids:
        return [_ids(query) for query in ids]
    found = [_typed(text) for text in texts] if file is None else read_texts(file)
    if any(not text for text in found):
        raise ConfigError("a text is empty: it would occur everywhere")
    return found


def _typed(text: str) -> str | bytes:
    """A text of the command line; as the bytes that were typed if they are not UTF-8."""
    data = os.fsencode(text)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _ids(text: str) -> list[int]:
    ids = re.split(r"[\s,]+", text.strip())
    # Python refuses to convert numbers of thousands of digits.
    if not all(re.fullmatch(r"[0-9]{1,100}", id) for id in ids):
        raise ConfigError(f'--ids {text!r}: expected ids such as "510 1566"')
    return [checked_id(int(id)) for id in ids]


def checked_id(id: int) -> int:
    """The id, if a dataset can store it. Raises ConfigError."""
    if not 0 <= id <= MAX_ID:
        raise ConfigError(f"ids are 0 to {MAX_ID:,}, got {id:,}")
    return id


def quoted(query: str | bytes | list[int]) -> str:
    """A query as it is printed: a text in quotes on one line, or its ids."""
    if isinstance(query, list):
        return "tokens " + " ".join(str(id) for id in query)
    text = query if isinstance(query, str) else query.decode(errors="backslashreplace")
    return json.dumps(text, ensure_ascii=False)


def unquoted(name: str) -> str:
    """A query as lines of JSON hold it, from its `quoted` form."""
    text: str = json.loads(name) if name.startswith('"') else name
    return text


def note_normalized(
    texts: Sequence[str | bytes], changed: Sequence[int], tokenizer: Tokenizer | None
) -> None:
    """Notes on standard error how many texts normalization changed, or that no tokenizer normalizes them."""
    n = len(texts)
    if changed and tokenizer is not None:
        subject = "the text was" if n == 1 else f"{len(changed):,} of {counted(n, 'text')} were"
        rule = tokenizer.normalizer or "added tokens"
        note(f"note: {subject} normalized as the tokenizer does ({rule})", err=True)
    # Bytes are never normalized, and normalization does not change ASCII.
    is_ascii = all(text.isascii() for text in texts if isinstance(text, str))
    if tokenizer is None and not is_ascii:
        note("note: the tokenizer is not found: texts are not normalized; give --tokenizer FILE", err=True)


def short(name: str, n_columns: int = 60) -> str:
    """A quoted query, cut to `n_columns`."""
    return name if width(name) <= n_columns else fit(name, n_columns - 1) + '"'


def times(n: int) -> str:
    """A count in words: `once`, or `n times`."""
    return "once" if n == 1 else f"{n:,} times"


def print_context(around: list[str], text: str) -> None:
    """Prints an occurrence with its context, the text highlighted.

    Args:
        around: The decoded tokens before, at and after the occurrence.
        text: The text, which may begin and end within the tokens at the occurrence.
    """
    before, inside, after = around
    start = inside.find(text)
    if start >= 0:
        before, inside, after = before + inside[:start], text, inside[start + len(text) :] + after
    before, inside, after = (part.replace("\n", "\n  | ") for part in (before, inside, after))
    echo_text("  | ", before, style(inside, bold=True, underline=True), after)


def names_of(paths: Sequence[Path]) -> str:
    """Inputs in a line: the first one, and how many more there are."""
    more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}"
