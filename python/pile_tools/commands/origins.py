"""How commands print token ranges of documents and the origins of documents."""

from __future__ import annotations

from collections.abc import Sequence

from pile_tools.tokens.datasets import subset_of
from pile_tools.types import Documents


def source_of(dataset: Documents, document: int) -> str:
    """Subset, shard and record of a document in print; that it is inserted; or that they are unknown."""
    origin = dataset.origin(document)
    if origin is None:
        return subset_of(dataset, document) or "origin unknown"
    subset = "subset unknown" if origin["subset"] is None else shown_subset(origin["subset"])
    return f"{subset}, {origin['shard']} record {origin['record']:,}"


def shown_subset(name: str) -> str:
    """The name of a subset in print, where an empty one would not be seen."""
    return name or '""'


def subset_labels(subsets: Sequence[str | None]) -> list[str]:
    """The names of subsets in print; None becomes `unknown`, with asterisks if a subset has that name."""
    unknown = unused_label("unknown", subsets)
    return [unknown if name is None else shown_subset(name) for name in subsets]


def unused_label(label: str, taken: Sequence[str | None]) -> str:
    """The label, followed by as many asterisks as make it differ from the labels in `taken`."""
    while label in taken:
        label += "*"
    return label


def tokens_from(start: int, n: int) -> str:
    """A range of tokens in print, by its first and last token."""
    return f"tokens {start:,} to {start + n - 1:,}"


def range_of(dataset: Documents, document: int, start: int, n: int) -> str:
    """A range of tokens of a document in print, with the document's origin."""
    return f"document {document:,}, {tokens_from(start, n)}: {source_of(dataset, document)}"
