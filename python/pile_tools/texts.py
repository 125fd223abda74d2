"""Files of texts, one a line."""

from __future__ import annotations

import json
from pathlib import Path

from pile_tools.errors import PileError


def read_texts(file: Path) -> list[bytes]:
    """The texts of a file, one a line, without line ends; in a .jsonl file each line is a JSON string.

    Raises:
        PileError: There are none, or a line is blank, not UTF-8 or not a JSON string, named with its number.
        OSError: The file cannot be read.
    """
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
