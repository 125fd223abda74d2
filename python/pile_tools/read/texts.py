"""Lists that people write, one entry a line, and the bytes by which a text is looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from pile_tools._core import Tokenizer
from pile_tools.errors import ConfigError, PileError

#: What some editors put before UTF-8; it is no part of the text.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: UTF-32 comes first: its little-endian mark starts with that of UTF-16.
_WIDE_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


#: The largest list or text that is read, far more than anyone writes by hand. An endless device exceeds it.
MAX_TEXT_BYTES = 1 << 28


def read_bounded(stream: IO[bytes], what: str, name: Path) -> bytes:
    """The bytes of a list or a text that fits into memory.

    Args:
        stream: Where to read it.
        what: What is read, as in "a list".
        name: The file, for messages.

    Raises:
        PileError: It has more than `MAX_TEXT_BYTES`.
        OSError: The stream cannot be read.
    """
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise PileError(f"{what} of more than {MAX_TEXT_BYTES:,} bytes, the most that is read ({name})")
    return data


def read_lines(file: Path) -> list[bytes]:
    """The lines of a hand-written list, without line ends and without a byte-order mark.

    Lines end at a line feed, or at a carriage return and a line feed, and at no other character.

    Raises:
        PileError: The file is UTF-16 or UTF-32, or has more than `MAX_TEXT_BYTES`.
        OSError: The file cannot be read.
    """
    with file.open("rb") as stream:
        data = read_bounded(stream, "a list", file)
    encoding = _wide_encoding(data)
    if encoding is not None:
        raise PileError(f"the list is {encoding}, expected UTF-8; save it as UTF-8 ({file})")
    lines = data.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def _wide_encoding(data: bytes) -> str | None:
    for mark, name in _WIDE_MARKS.items():
        if data.startswith(mark):
            return name
    # Without a mark: every second byte of ASCII text is NUL.
    head = data[:1024]
    n_zero = max(head[0::2].count(0), head[1::2].count(0))
    return "UTF-16 or UTF-32" if len(head) > 1 and 2 * n_zero > len(head) // 2 else None


def read_texts(file: Path) -> list[str]:
    """The texts of a file, one a line; in a .jsonl file each line is a JSON string.

    Raises:
        PileError: There are none, or a line is blank, not UTF-8 or not a JSON string, named with its number.
        OSError: The file cannot be read.
    """
    lines = read_lines(file)
    if not lines:
        raise PileError(f"holds no texts ({file})")
    read = _json_text if file.suffix.lower() == ".jsonl" else _plain_text
    return [read(line, f"{file}, line {number}") for number, line in enumerate(lines, 1)]


def _plain_text(line: bytes, where: str) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as err:
        raise PileError(f"not UTF-8: {err.reason} at byte {err.start} of the line ({where})") from err
    if not text.strip():
        raise PileError(f"a blank line; white space is asked for as a JSON string in a .jsonl file ({where})")
    return text


def _json_text(line: bytes, where: str) -> str:
    try:
        text = json.loads(line)
        if isinstance(text, str) and text:
            text.encode()
            return text
    except (ValueError, RecursionError) as err:
        raise PileError(f"not a JSON string: {err} ({where})") from err
    raise PileError(f"expected a JSON string that is not empty ({where})")


def encoded(text: str | bytes) -> bytes:
    """A text as UTF-8; bytes as they are. Raises ConfigError for a `str` that is not valid Unicode."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"the text is not valid Unicode: {err.reason}") from err


def normalized(text: str | bytes, tokenizer: Tokenizer | None) -> bytes:
    """The bytes by which a dataset of `tokenizer` holds a text.

    A `str` is normalized as the tokenizer normalizes it; bytes, and any text where the tokenizer is not
    known, are taken as they are. Raises ConfigError for a `str` that is not valid Unicode.
    """
    as_written = encoded(text)
    if isinstance(text, bytes) or tokenizer is None:
        return as_written
    return tokenizer.normalize(text)
