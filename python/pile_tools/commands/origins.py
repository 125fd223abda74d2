"""Where documents come from and which tokens of theirs are meant, as commands print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def subset_labels(subsets: Sequence[str | None]) -> list[str]:
    """The names of subsets in print; documents without one get `unknown`, or a name that no subset has."""
    without = unused_label("unknown", subsets)
    return [without if name is None else name for name in subsets]


def unused_label(label: str, taken: Sequence[str | None]) -> str:
    """The label, with asterisks behind it where it is taken."""
    while label in taken:
        label += "*"
    return label


def tokens_from(start: int, n: int) -> str:
    """A run of tokens of a document or a row, by its first and last."""
    return f"tokens {start:,} to {start + n - 1:,}"


def place_of(dataset: HasOrigins, document: int, start: int, n: int) -> str:
    """A run of tokens of a document, and where that comes from."""
    return f"document {document:,}, {tokens_from(start, n)}: {source_of(dataset, document)}"
