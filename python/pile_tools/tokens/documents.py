"""Finds documents of a token dataset by number or record, and reads their records again from the shards."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from pile_tools import manifest
from pile_tools._core import TokenDataset, Tokenizer, read_record_at, record_text
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.tokens import datasets
from pile_tools.types import Origin, Tokens


def find(dataset: TokenDataset, name: str) -> list[int]:
    """The numbers of the documents with this name: a number, or `SHARD:RECORD`.

    Negative numbers count from the end: -1 is the last document. SHARD is the path that `tokenize` read, or
    an end of it that no other shard has. A record has several documents in a dataset that was merged with
    itself: such a dataset also lists the shard twice.

    Raises:
        ConfigError: There is no such document, shard or record, or several shards end in SHARD.
    """
    # 18 digits fit the core's integers, and Python refuses to convert thousands.
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
            f"the origin of the documents of {dataset.prefix} is unknown; `pile-tools label` finds it"
        )
    shard, record = shard_named(dataset.shards, found[1]), int(found[2])
    numbers = [i for i, path in enumerate(dataset.shards) if path == shard]
    documents = [document for i in numbers for document in dataset.documents_of(i, record)]
    if not documents:
        raise ConfigError(
            f"no document of {dataset.prefix} is from record {record} of {shard}: "
            "there is no such record, or its text is empty"
        )
    return documents


def shard_named(shards: list[str], name: str, whose: str = "the dataset's") -> str:
    """The path in `shards` that is `name` or ends with it. Raises ConfigError if there is not exactly one.

    `whose` names the owner of the shards in the message.
    """
    if name in shards:
        return name
    found = sorted({path for path in shards if path.endswith("/" + name)})
    if not found:
        some = ", ".join(shards[:3]) + (", ..." if len(shards) > 3 else "")
        raise ConfigError(f"no shard {name!r} among {whose} {len(shards)}: {some}")
    if len(found) > 1:
        raise ConfigError(f"{name!r} is ambiguous: {' or '.join(found[:2])}; give more of the path")
    return found[0]


def find_shard(prefix: Path, shard: str) -> Path:
    """The path of a shard of the dataset at `prefix`: the one that `tokenize` read, or one from a manifest.

    Of the manifests' shards with the same file name it is the one whose folders agree the furthest up: shards
    in several folders often have the same names.

    Raises:
        PileError: The shard is at none of these paths.
    """
    if Path(shard).is_file():
        return Path(shard)
    # Paths in a manifest are relative to its folder: they stay right if the whole tree is moved.
    paths = [
        manifest.input_path(found, entry)
        for found in datasets.manifests(prefix)
        for entry in found.inputs
        if entry["role"] == "shard"
    ]
    here = [path for path in paths if path.name == Path(shard).name and path.exists()]
    if not here:
        raise PileError(f"the shard is not here ({shard})")
    return max(here, key=lambda path: _n_equal_ends(path, Path(shard)))


def _n_equal_ends(a: Path, b: Path) -> int:
    """The number of names in which two paths agree, counted from their ends."""
    pairs = zip(reversed(a.parts), reversed(b.parts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def read_record(path: Path, origin: Origin) -> bytes:
    """The bytes of a record without its line end; a compressed shard is decompressed up to the record.

    Raises:
        FormatError: The shard ends before the record, is damaged or is no regular file, or the record is
            longer than 1 GiB.
        ConfigError: The shard is a Parquet file, whose records are rows of a table.
        OSError: The shard cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        raise ConfigError(f"row {origin['record']} of a table has no text to print as it is stored ({path})")
    return read_record_at(path, origin["byte_start"], origin["byte_length"])


def record_of(path: Path, origin: Origin, text_field: str, tokenizer: Tokenizer, tokens: Tokens) -> str:
    """The record of a document, read again from its shard and checked against the document's tokens.

    A dataset may come from anyone and name any file as its shard. The check ensures that a record is returned
    only if the dataset itself holds its text; the record's other fields come with it.

    Raises:
        FormatError: The record gives other tokens than the document, or cannot be read: see `read_record`.
        ConfigError: The shard is a Parquet file.
        OSError: The shard cannot be read.
    """
    line = read_record(path, origin)
    if not len(tokens) or not gives_tokens(record_text(path, line, text_field), tokenizer, tokens):
        raise FormatError(
            "the record gives other tokens than the document has: the shard has changed, "
            f"or is another file ({path})"
        )
    return line.decode(errors="replace")


def text_field_of(prefix: Path) -> str:
    """The key of the text in a record, from the manifests of the dataset; `text` if they do not name it."""
    named = (found.settings.get("text_field") for found in datasets.manifests(prefix))
    return next((name for name in named if name is not None), "text")


def gives_tokens(text: str | None, tokenizer: Tokenizer, tokens: Tokens) -> bool:
    """Whether a text gives these tokens, with or without end-of-document token and special tokens.

    None and the empty text give no document.
    """
    if not text:
        return False
    found = tokens.tolist()
    for add_special_tokens in (False, True):
        try:
            ids = tokenizer.encode(text, add_special_tokens=add_special_tokens).tolist()
        except FormatError:
            # The tokenizer has no token for a part of the text, or no usable post-processor.
            continue
        if ids in (found, found[:-1]):
            return True
    return False
