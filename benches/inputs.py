"""The inputs to encode: the corpus, its English documents, and hard strings.

An input has a name, by which a measuring process loads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

#: The subsets of prose in the sample corpora. The others are programs in C and Python.
PROSE = ("HTMLDocs", "Handbook", "Help", "Manpages", "Reference")

#: The most common words of English. They are much rarer in texts of other languages, even with some English.
ENGLISH_WORDS = frozenset(
    re.findall(r"\w+", "the of and to a in is for that be on with as are this it by or not from an can")
)
MIN_ENGLISH_SHARE = 0.2
MIN_ASCII_SHARE = 0.99

HARD = ("one letter", "spaces", "random Unicode", "CJK without spaces", "random letters")


def records(shards: list[Path]) -> Iterator[tuple[str, str]]:
    """The subset and the text of every record, so that results can be compared record by record."""
    for shard in shards:
        with shard_lines(shard) as lines:
            for line in lines:
                record = json.loads(line)
                yield record.get("meta", {}).get("pile_set_name", ""), record["text"]


def shard_lines(shard: Path) -> BinaryIO:
    """The lines of a `.jsonl` or `.jsonl.zst` file."""
    if shard.suffix != ".zst":
        return shard.open("rb")
    stream = zstandard.ZstdDecompressor().stream_reader(shard.open("rb"), read_across_frames=True)
    return io.BufferedReader(stream, 1 << 20)


def corpus(shards: list[Path]) -> list[str]:
    return [text for _, text in records(shards)]


def is_english(text: str) -> bool:
    words = re.findall(r"\w+", text.lower())
    n_common = sum(word in ENGLISH_WORDS for word in words)
    n_ascii = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return n_common > MIN_ENGLISH_SHARE * len(words) and n_ascii >= MIN_ASCII_SHARE * len(text)


def english(shards: list[Path]) -> list[str]:
    return [text for subset, text in records(shards) if subset in PROSE and is_english(text)]


def _of_size(n_bytes: int, characters: Callable[[random.Random], str]) -> str:
    """Characters of a fixed random sequence with at least `n_bytes` of UTF-8."""
    source, text, size = random.Random(0), [], 0
    while size < n_bytes:
        character = characters(source)
        text.append(character)
        size += len(character.encode())
    return "".join(text)


def _any_character(source: random.Random) -> str:
    """A random code point that is not a surrogate."""
    number = source.randrange(0x110000 - 0x800)
    return chr(number if number < 0xD800 else number + 0x800)


def hard(kind: str, n_bytes: int) -> str:
    """A string that is hard for pretokenizers, caches and merges."""
    match kind:
        case "one letter":
            return "a" * n_bytes
        case "spaces":
            return " " * n_bytes
        case "random Unicode":
            return _of_size(n_bytes, _any_character)
        case "CJK without spaces":
            return _of_size(n_bytes, lambda source: chr(source.randrange(0x4E00, 0xA000)))
        case "random letters":
            return _of_size(n_bytes, lambda source: chr(source.randrange(ord("a"), ord("z") + 1)))
    raise ValueError(f"no hard string {kind!r}: {', '.join(HARD)}")


def load(name: str, shards: list[Path]) -> list[str]:
    """The texts of an input: `corpus`, `english`, or `hard:KIND:BYTES`."""
    match name.split(":"):
        case ["corpus"]:
            return corpus(shards)
        case ["english"]:
            return english(shards)
        case ["hard", kind, n_bytes]:
            return [hard(kind, int(n_bytes))]
    raise ValueError(f"no input {name!r}")


def n_bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def digest(texts: list[str]) -> str:
    hashed = hashlib.sha256()
    for text in texts:
        data = text.encode()
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def file_digest(*paths: Path) -> str:
    """SHA-256 over the bytes of files, in the given order."""
    hashed = hashlib.sha256()
    for path in paths:
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
