"""Texts that commands are asked for, and how they are printed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import click

from pile_tools.errors import ConfigError, PileError


def asked(
    texts: tuple[str, ...], file: Path | None, tokens: tuple[str, ...]
) -> list[bytes] | list[list[int]]:
    """The texts of a command line, of `--file` or of `--tokens`. Raises ConfigError, PileError."""
    if sum([bool(texts), file is not None, bool(tokens)]) != 1:
        raise ConfigError("give texts, or --file, or --tokens")
    if tokens:
        return [_ids(ids) for ids in tokens]
    found = [os.fsencode(text) for text in texts] if file is None else _lines(file)
    if any(not text for text in found):
        raise ConfigError("a text is empty: it would occur everywhere")
    return found


def _ids(text: str) -> list[int]:
    ids = re.split(r"[\s,]+", text.strip())
    if not all(re.fullmatch(r"\d+", id) for id in ids):
        raise ConfigError(f'--tokens {text!r}: expected ids such as "510 1566"')
    return [int(id) for id in ids]


def _lines(file: Path) -> list[bytes]:
    """The texts of a file, without line ends."""
    lines = file.read_bytes().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise PileError(f"holds no texts ({file})")
    read = _json_text if file.suffix == ".jsonl" else _plain_text
    return [read(line.removesuffix(b"\r"), f"{file}, line {number}") for number, line in enumerate(lines, 1)]


def _plain_text(line: bytes, where: str) -> bytes:
    try:
        text = line.decode()
    except UnicodeDecodeError as err:
        raise PileError(f"not UTF-8: {err.reason} at byte {err.start} of the line ({where})") from err
    if not text.strip():
        raise PileError(f"a blank line; white space is asked for as a JSON string in a .jsonl file ({where})")
    return line


def _json_text(line: bytes, where: str) -> bytes:
    try:
        text = json.loads(line)
        if isinstance(text, str) and text:
            return text.encode()
    except ValueError as err:
        raise PileError(f"not a JSON string: {err} ({where})") from err
    raise PileError(f"expected a JSON string that is not empty ({where})")


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
    lines = (before + click.style(inside, bold=True, underline=True) + after).split("\n")
    click.echo("\n".join(f"  | {line}" for line in lines))
