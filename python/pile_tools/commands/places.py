"""Where documents come from and which tokens of theirs are meant, as commands print it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class HasOrigins(Protocol):
    """A dataset or the dataset of an order."""

    def origin(self, document: int, /) -> Mapping[str, object] | None:
        """Shard, record and subset of a document, if they are known."""


def source_of(dataset: HasOrigins, document: int) -> str:
    """Subset, shard and record of a document, as far as they are known."""
    origin = dataset.origin(document)
    if origin is None:
        return "origin unknown"
    return f"{origin['subset'] or 'subset unknown'}, {origin['shard']} record {origin['record']:,}"


def tokens_from(start: int, n: int) -> str:
    """A run of tokens of a document or a row, by its first and last."""
    return f"tokens {start:,} to {start + n - 1:,}"


def place_of(dataset: HasOrigins, document: int, start: int, n: int) -> str:
    """A run of tokens of a document, and where that comes from."""
    return f"document {document:,}, {tokens_from(start, n)}: {source_of(dataset, document)}"
