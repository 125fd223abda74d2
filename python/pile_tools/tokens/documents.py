"""A document of a token dataset, by its number or its record, and that record read again from its shard."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import IO

import zstandard

from pile_tools import checked, manifest
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.tokens import datasets
from pile_tools.types import Origin, Tokens

#: Bytes decompressed at once on the way to a record, and the largest window that shards have.
PIECE_BYTES, MAX_WINDOW_BYTES = 1 << 20, 1 << 31

#: Longest record that is read again.
MAX_RECORD_BYTES = 1 << 30

#: Records have smaller numbers.
MAX_RECORDS = 1 << 32


def find(dataset: TokenDataset, name: str) -> list[int]:
    """The numbers of the documents that `name` means: one by number, as a rule one by `SHARD:RECORD`.

    Numbers may count from the end, -1 is the last document. SHARD is a path as `tokenize` was given it, or
    enough of its end to tell it from the others.

    Raises:
        ConfigError: There is no such document, shard or record, or several shards are meant.
    """
    if re.fullmatch(r"-?\d{1,18}", name, re.ASCII):
        n, number = len(dataset), int(name)
        if not -n <= number < n:
            raise ConfigError(f"no document {number}: {dataset.prefix} has {n:,}, from 0")
        return [number % n]
    found = re.fullmatch(r"(.+):(\d{1,18})", name, re.ASCII | re.DOTALL)
    if not found:
        raise ConfigError(f"{name!r} is neither a document's number nor SHARD:RECORD")
    if not dataset.shards:
        raise ConfigError(
            f"where the documents of {dataset.prefix} came from is unknown; `pile-tools label` finds it"
        )
    shard, record = shard_named(dataset.shards, found[1]), int(found[2])
    numbers = [i for i, path in enumerate(dataset.shards) if path == shard and record < MAX_RECORDS]
    documents = [document for i in numbers for document in dataset.documents_of(i, record)]
    if not documents:
        raise ConfigError(
            f"no document of {dataset.prefix} is from record {record} of {shard}: "
            "there is no such record, or its text is empty"
        )
    return documents


def shard_named(shards: list[str], name: str) -> str:
    """The one of some shards' paths that is `name` or ends with it. Raises ConfigError."""
    if name in shards:
        return name
    found = sorted({path for path in shards if path.endswith("/" + name)})
    if not found:
        some = ", ".join(shards[:3]) + (", ..." if len(shards) > 3 else "")
        raise ConfigError(f"no shard {name!r} among the dataset's {len(shards)}: {some}")
    if len(found) > 1:
        raise ConfigError(f"{name!r} may be {' or '.join(found[:2])}; give more of the path")
    return found[0]


def find_shard(prefix: Path, shard: str) -> Path:
    """Where a shard of the dataset at `prefix` is: at the path it was given by, or where a manifest says.

    Raises:
        PileError: It is not there now.
    """
    if Path(shard).is_file():
        return Path(shard)
    for found in datasets.manifests(prefix):
        # Manifests name shards from their own folder: that holds if the tree was moved as a whole.
        for entry in found.inputs:
            path = manifest.input_path(found, entry)
            if entry["role"] == "shard" and path.name == Path(shard).name and path.exists():
                return path
    raise PileError(f"the shard is not here now; without --raw its tokens are shown ({shard})")


def read_record(path: Path, origin: Origin) -> bytes:
    """The bytes of a record, line end excluded; a compressed shard is read up to it.

    Raises:
        FormatError: The shard ends before, is damaged or is no file, or the record is longer than any.
        OSError: It cannot be read.
    """
    if origin["byte_length"] > MAX_RECORD_BYTES:
        raise FormatError(f"a record of {origin['byte_length']:,} bytes is not read again ({path})")
    if path.suffix.lower() == ".parquet":
        raise ConfigError(f"--raw reads lines and files; this is row {origin['record']} of a table ({path})")
    with checked.open_regular(path) as file:
        if path.suffix.lower() in (".zst", ".zstd", ".gz"):
            line = _decompress(path, file, origin)
        else:
            file.seek(origin["byte_start"])
            line = _read(file, origin["byte_length"])
    if len(line) < origin["byte_length"]:
        raise FormatError(f"ends before the record: it is another than it was ({path})")
    return line


def _decompress(path: Path, file: IO[bytes], origin: Origin) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        with (
            gzip.GzipFile(fileobj=file)
            if path.suffix.lower() == ".gz"
            else decompressor.stream_reader(file, read_across_frames=True)
        ) as stream:
            before = origin["byte_start"]
            while before:
                piece = stream.read(min(before, PIECE_BYTES))
                if not piece:
                    return b""
                before -= len(piece)
            return _read(stream, origin["byte_length"])
    except (zstandard.ZstdError, gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise FormatError(f"{err} ({path})") from err


def _read(stream: IO[bytes] | gzip.GzipFile | zstandard.ZstdDecompressionReader, n_bytes: int) -> bytes:
    """Up to `n_bytes`, in pieces: the number may be wrong, and room for all of it is not made at once."""
    pieces = []
    while n_bytes and (piece := stream.read(min(n_bytes, PIECE_BYTES))):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def record_of(path: Path, origin: Origin, text_field: str, tokenizer: Tokenizer, tokens: Tokens) -> str:
    """The record of a document, read again and checked to give the document's tokens.

    A dataset may come from anyone and name any file as its shard: only what it holds itself is shown.

    Raises:
        FormatError: What is there gives other tokens, or none.
        OSError: The shard cannot be read.
    """
    line = read_record(path, origin)
    if not len(tokens) or not gives_tokens(text_of(path, line, text_field), tokenizer, tokens):
        raise FormatError(
            "the record gives other tokens than the dataset's: the shard has changed, "
            f"or is not the dataset's ({path})"
        )
    return line.decode(errors="replace")


def text_of(path: Path, line: bytes, text_field: str) -> str | None:
    """The text of a record of the shard at `path`, or None if it holds none."""
    try:
        content = line.decode().lstrip("\ufeff")
        if ".txt" in [suffix.lower() for suffix in path.suffixes[-2:]]:
            return content
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    text = record.get(text_field) if isinstance(record, dict) else record
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        return "\n\n".join(text)
    return text if isinstance(text, str) else None


def text_field_of(prefix: Path) -> str:
    """The key under which records have their text, by what the manifests of the dataset say."""
    named = (found.settings.get("text_field") for found in datasets.manifests(prefix))
    return next((name for name in named if name is not None), "text")


def gives_tokens(text: str | None, tokenizer: Tokenizer, tokens: Tokens) -> bool:
    """Whether a text gives these tokens, with or without an end-of-document token and special tokens."""
    if text is None:
        return False
    # Lone surrogates have become U+FFFD in the tokens.
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    found = tokens.tolist()
    for add_special_tokens in (False, True):
        try:
            ids = tokenizer.encode(text, add_special_tokens=add_special_tokens).tolist()
        except FormatError:
            # The tokenizer cannot write the text, or has no post-processor that can be applied.
            continue
        if found == ids or (len(found) > 0 and found[:-1] == ids):
            return True
    return False
