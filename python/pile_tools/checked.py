"""Reads untrusted JSON: bounded files, checked types, errors that name file and key."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from pile_tools.errors import FormatError
from pile_tools.terminal import counted

#: Maximum bytes of a parsed file, and maximum nesting of objects and lists.
MAX_BYTES, MAX_DEPTH = 256 << 20, 32

#: Maximum length of a path on Linux.
MAX_PATH_CHARACTERS = 4096

#: The core's sizes and counts are 64-bit signed; seeds are 64-bit unsigned.
MAX_COUNT, MAX_SEED = 2**63 - 1, 2**64 - 1

#: Measured values are below. They are those of float32, and sums and squares of larger ones would overflow.
MAX_MEASURE = 1e100

_Value = TypeVar("_Value")

_HEX = re.compile(r"[0-9a-f]+")

#: Surrogates that cannot be encoded. Excluded are those for undecodable bytes of a file name (PEP 383).
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file, or a link to one, for reading; an error in reading names it.

    Raises:
        FormatError: A folder, pipe, socket or device: reading one could block or never end.
        OSError: The file cannot be read.
    """
    _require_regular(path.stat().st_mode, path)
    # Another process may replace the file by a pipe since: O_NONBLOCK keeps `open` from waiting for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
        return io.BufferedReader(_NamedFile(descriptor, path))
    except BaseException:
        os.close(descriptor)
        raise


class _NamedFile(io.FileIO):
    """An open file whose errors have its name: those of the system's reads have none."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor)
        self._path = path

    # Files of /proc may have nothing to read yet, which is None.
    def readinto(self, buffer: Any) -> int:
        return self._named(lambda: super(_NamedFile, self).readinto(buffer)) or 0

    def readall(self) -> bytes:
        return self._named(super().readall) or b""

    def _named(self, read: Callable[[], _Value]) -> _Value:
        try:
            return read()
        except OSError as err:
            err.filename = os.fspath(self._path)
            raise


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        raise FormatError(f"expected a file, found a {kinds.get(stat.S_IFMT(mode), 'device')} ({path})")


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of bounded size.

    Raises:
        FormatError: Not a regular file, or more than `max_bytes`.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FormatError(f"more than {max_bytes:,} bytes, the maximum for such a file ({path})")
    return data


def bounded_lines(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[bytes]:
    """The lines of a regular file, with their line feeds; the last one may have none.

    A line is in memory as a whole, a file need not be: a sparse file takes no disk, whatever its size.

    Raises:
        FormatError: Not a regular file, or a line of more than `max_bytes`.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(max_bytes + 1):
            number += 1
            if len(line) > max_bytes:
                what = f"more than {max_bytes:,} bytes, the maximum for a line of such a file"
                raise FormatError(f"{what} ({path}, line {number})")
            yield line


def sha256(path: Path) -> tuple[int, str]:
    """The size in bytes and the SHA-256 (hexadecimal) of a regular file.

    Raises:
        FormatError: Not a regular file, or one that grew or shrank while it was read.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        digest, n_read = hashlib.sha256(), 0
        # The bound ends the loop on a file that grows as fast as it is read.
        while n_read <= n_bytes and (data := file.read(1 << 20)):
            digest.update(data)
            n_read += len(data)
    if n_read != n_bytes:
        raise FormatError(f"changed while it was read: {counted(n_bytes, 'byte')}, then {n_read:,} ({path})")
    return n_bytes, digest.hexdigest()


def read_json(path: Path, what: str = "JSON") -> Values:
    """The JSON object in a file, with bounded size, depth and numbers and without duplicate keys.

    `what` names the expected file in messages, as in "a manifest of pile-tools".

    Raises:
        FormatError: The file is not a regular file or not such an object.
        OSError: The file cannot be read.
    """
    return parse_json(read_bytes(path), path, what)


def parse_json(data: bytes, path: Path | str, what: str = "JSON") -> Values:
    """The JSON object in `data`; `path` names its file in messages. Raises FormatError."""

    def parse() -> object:
        values = _DECODER.decode(data.decode())
        # UTF-8 has no surrogates, so only escapes can make half of a pair. Values are nested no deeper than
        # there are opening brackets, those in strings included: few lines need the slower check.
        if _SURROGATE_ESCAPE.search(data) or data.count(b"{") + data.count(b"[") > MAX_DEPTH:
            _check(values, 0)
        return values

    return _object(parse, path, what)


def parse_keys(data: bytes, path: Path | str, keys: Collection[str], what: str = "JSON") -> Values:
    """Some keys of the JSON object in `data`, whose depth and texts alone are checked.

    All values may be any that Python writes as JSON, NaN included; an integer of 20 characters or more is a
    text. Of a key that occurs several times the last counts. Raises FormatError.
    """

    def parse() -> object:
        values = _LENIENT_DECODER.decode(data.decode())
        if isinstance(values, dict):
            values = {key: values[key] for key in keys if key in values}
        _check(values, 0)
        return values

    return _object(parse, path, what)


def _object(parse: Callable[[], object], path: Path | str, what: str) -> Values:
    try:
        values = parse()
    except (ValueError, RecursionError) as err:
        reason = "nested too deep" if isinstance(err, RecursionError) else str(err)
        raise FormatError(f"not {what}: {reason} ({path})") from err
    if not isinstance(values, dict):
        raise FormatError(f"not {what}: {_name(values)}, expected an object ({path})")
    return Values(values, str(path))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        # Counter takes linear time: the file may have millions of keys.
        name = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"key {name!r} occurs twice")
    return values


def _shortened(number: str) -> str:
    """A number in a message: one that no type holds may have millions of digits."""
    return number if len(number) <= 40 else f"{number[:20]}... of {len(number):,} characters"


def _integer(text: str) -> int:
    # 20 characters hold every 64-bit number; `int` refuses thousands of digits with another message.
    if len(text) > 20 or not -MAX_COUNT <= int(text) <= MAX_SEED:
        raise ValueError(f"number {_shortened(text)} is out of range")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {_shortened(text)} is out of range")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


#: Made once: a file of JSON lines is parsed line by line.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
)


#: Takes NaN and infinities. Integers of 20 characters or more, which 64 bits may not hold, stay text: to
#: convert a long one takes quadratic time, and `int` refuses thousands of digits.
_LENIENT_DECODER = json.JSONDecoder(parse_int=lambda text: int(text) if len(text) < 20 else text)


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode a text. It cannot if bytes of another encoding are in it, as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(value: object, depth: int) -> None:
    """Raises ValueError for deep nesting and for text that cannot be encoded as UTF-8."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise ValueError("text with half of a surrogate pair")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth + 1)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


def _name(value: object) -> str:
    """A short description of a value for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True)
class Values:
    """A JSON object with typed accessors.

    Each accessor raises FormatError for a missing key, another type or a value out of range.

    Attributes:
        values: The object.
        where: File and key of the object, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def require_keys(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raises FormatError for a missing required key, or a key that is neither required nor optional."""
        required, optional = list(required), list(optional)
        if missing := [name for name in required if name not in self.values]:
            raise FormatError(f"missing key {missing[0]!r} ({self.where})")
        if unknown := [name for name in self.values if name not in required and name not in optional]:
            known = ", ".join([*required, *optional])
            raise FormatError(f"unknown key {_shown(unknown[0])}; known are: {known} ({self.where})")

    def has(self, key: str) -> bool:
        """Whether the key exists and its value is not null."""
        return self.values.get(key) is not None

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise FormatError(f"missing key {key!r} ({self.where})")
        return self.values[key]

    def refuse(self, key: str, expected: str) -> FormatError:
        """The FormatError for an unexpected value, to be raised by the caller."""
        return FormatError(f"{key} is {_name(self._get(key))}, expected {expected} ({self.where})")

    def integer(self, key: str, at_least: int = 0, at_most: int = MAX_COUNT) -> int:
        """A whole number within bounds."""
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
            bound = f" from {at_least}" if at_most == MAX_COUNT else f" from {at_least} to {at_most}"
            raise self.refuse(key, f"a whole number{bound}")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.refuse(key, "a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def text(self, key: str, choices: Sequence[str] | None = None) -> str:
        """Text that UTF-8 can encode; one of `choices` if they are given."""
        value = self._get(key)
        if not isinstance(value, str) or (choices is not None and value not in choices):
            raise self.refuse(key, "text" if choices is None else f"one of {', '.join(choices)}")
        if not is_utf8(value):
            raise self.refuse(key, "text without halves of surrogate pairs")
        return value

    def path(self, key: str) -> str:
        """A path: text of 1 to `MAX_PATH_CHARACTERS` characters without NUL."""
        value = self._get(key)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_PATH_CHARACTERS or "\0" in value:
            raise self.refuse(key, "a path")
        return value

    def file_name(self, key: str) -> str:
        """A file name, or the start of one: a path without a folder."""
        value = self.path(key)
        if "/" in value or value in (".", ".."):
            raise self.refuse(key, "a file's name")
        return value

    def hexadecimal(self, key: str, n_digits: int | None = None) -> str:
        """A digest in lower-case hexadecimal digits."""
        value = self._get(key)
        is_hex = isinstance(value, str) and _HEX.fullmatch(value) is not None
        if not is_hex or (n_digits is not None and len(value) != n_digits):
            digits = "" if n_digits is None else f"{n_digits} "
            raise self.refuse(key, f"{digits}hexadecimal digits")
        return str(value)

    def object(self, key: str) -> Values:
        """An object."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.refuse(key, "an object")
        return Values(value, f"{self.where}, {key}")

    def objects(self, key: str) -> list[Values]:
        """A list of objects."""
        items = self._list(key)
        if not all(isinstance(item, dict) for item in items):
            raise self.refuse(key, "a list of objects")
        return [Values(item, f"{self.where}, {key}[{i}]") for i, item in enumerate(items)]

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        return self.items_of(key, lambda items, name: items.text(name))

    def integers(self, key: str, at_least: int = 0, at_most: int = MAX_COUNT) -> list[int]:
        """A list of whole numbers within bounds."""
        return self.items_of(key, lambda items, name: items.integer(name, at_least, at_most))

    def items_of(self, key: str, read: Callable[[Values, str], _Value]) -> list[_Value]:
        """A list, each item read by an accessor: `read(values, key_of_item)`."""
        items = Values({f"{key}[{i}]": item for i, item in enumerate(self._list(key))}, self.where)
        return [read(items, name) for name in items.values]

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self.refuse(key, "a list")
        return value

    def optional_count(self, key: str) -> int | None:
        """A whole number of at least 1, or None if the value is null or missing."""
        return self.optional(key, lambda key: self.integer(key, at_least=1))

    def optional(self, key: str, read: Callable[[str], _Value]) -> _Value | None:
        """The result of `read(key)`, or None if the value is null or missing."""
        return read(key) if self.has(key) else None


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:37] + "...")
