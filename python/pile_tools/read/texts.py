"""Reads lists that people write, one entry a line, and encodes and normalizes texts for a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from pile_tools._core import Tokenizer
from pile_tools.errors import ConfigError, PileError

#: Some editors put this before UTF-8; it is not part of the text.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: UTF-32 comes first: its little-endian mark starts with that of UTF-16.
_WIDE_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


#: Maximum bytes of a list or a text. It is far more than anyone writes by hand, and stops an endless device.
MAX_TEXT_BYTES = 1 << 28


def read_bounded(stream: IO[bytes], what: str, name: Path) -> bytes:
    """All bytes of a stream that has at most `MAX_TEXT_BYTES`.

    Args:
        stream: The stream to read.
        what: What the stream holds, for the message, as in "a list".
        name: The file, for the message.

    Raises:
        PileError: The stream has more than `MAX_TEXT_BYTES`.
        OSError: The stream cannot be read.
    """
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise PileError(f"{what} of more than {MAX_TEXT_BYTES:,} bytes, the maximum ({name})")
    return data


def read_lines(file: Path) -> list[bytes]:
    """The lines of a list, without line ends and byte-order mark.

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
        PileError: There are no texts, or a line, named with its number, is blank, not UTF-8 or not a JSON
            string.
        OSError: The file cannot be read.
    """
    lines = read_lines(file)
    if not lines:
        raise PileError(f"holds no texts ({file})")
    parse = _json_text if file.suffix.lower() == ".jsonl" else _verbatim_text
    return [parse(line, f"{file}, line {number}") for number, line in enumerate(lines, 1)]


def _verbatim_text(line: bytes, where: str) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as err:
        raise PileError(f"not UTF-8: {err.reason} at byte {err.start} of the line ({where})") from err
    if not text.strip():
        raise PileError(f"a blank line; write white space as a JSON string in a .jsonl file ({where})")
    return text


def _json_text(line: bytes, where: str) -> str:
    try:
        text = json.loads(line)
        if isinstance(text, str) and text:
            text.encode()  # Raises for half of a surrogate pair, which JSON can hold and UTF-8 cannot.
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
    """The bytes of a text as a dataset of `tokenizer` holds it: a `str` normalized as the tokenizer does.

    Bytes are returned unchanged, and without a tokenizer a `str` is only encoded as UTF-8. Raises ConfigError
    for a `str` that is not valid Unicode.
    """
    as_written = encoded(text)
    if isinstance(text, bytes) or tokenizer is None:
        return as_written
    return tokenizer.normalize(text)
