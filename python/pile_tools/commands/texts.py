"""Texts that commands are asked for, and how they are printed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import click

from pile_tools.commands import options
from pile_tools.errors import ConfigError
from pile_tools.terminal import echo_text, style
from pile_tools.texts import read_texts

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
) -> list[bytes] | list[list[int]]:
    """The texts of a command line, of `--file` or of `--tokens`. Raises ConfigError, PileError."""
    if sum([bool(texts), file is not None, bool(tokens)]) != 1:
        raise ConfigError("give texts, or --file, or --tokens")
    if tokens:
        return [_ids(ids) for ids in tokens]
    found = [os.fsencode(text) for text in texts] if file is None else read_texts(file)
    if any(not text for text in found):
        raise ConfigError("a text is empty: it would occur everywhere")
    return found


def _ids(text: str) -> list[int]:
    ids = re.split(r"[\s,]+", text.strip())
    if not all(re.fullmatch(r"\d+", id) for id in ids):
        raise ConfigError(f'--tokens {text!r}: expected ids such as "510 1566"')
    return [int(id) for id in ids]


def quoted(text: bytes | list[int], is_ids: bool) -> str:
    """A text as it is printed: on one line, in quotes."""
    if is_ids or isinstance(text, list):
        return "tokens " + " ".join(str(id) for id in text)
    return json.dumps(text.decode(errors="backslashreplace"), ensure_ascii=False)


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
