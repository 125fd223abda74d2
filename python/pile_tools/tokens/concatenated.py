"""Several sources of documents as one: the documents of each follow those of the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pile_tools.config import fingerprint
from pile_tools.types import Documents, Origin, Tokens


def as_one(sources: Documents | Sequence[Documents]) -> Documents:
    """One source of documents as it is, or a list of them, such as the datasets of a blend, as one."""
    return Concatenated(sources) if isinstance(sources, Sequence) else sources


def sources(documents: Documents) -> list[Documents]:
    """The sources that documents concatenate, or the documents themselves as the only one.

    A source may be concatenated too, as a blend is to which an intervention adds its texts.
    """
    if not isinstance(documents, Concatenated):
        return [documents]
    return [source for part in documents.parts for source in sources(part)]


def prefixes(documents: Documents) -> list[Path]:
    """The prefix of each dataset that documents come from, once."""
    return [Path(prefix) for prefix in dict.fromkeys(source.prefix for source in sources(documents))]


class Concatenated:
    """Several sources of documents, with the properties of a `TokenDataset` of all their documents."""

    def __init__(self, parts: Sequence[Documents]) -> None:
        self.parts = list(parts)
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in self.parts])])
        self.subsets = list(dict.fromkeys(name for part in self.parts for name in part.subsets))
        number = {name: n for n, name in enumerate(self.subsets)}
        # By the parts' numbers of subsets; the last item is for -1, an unknown subset.
        self._to_all = [
            np.array([*(number[name] for name in part.subsets), -1], np.int32) for part in self.parts
        ]

    @property
    def prefix(self) -> str:
        """The prefix of the first source. Its manifest names the tokenizer, which all sources must share."""
        return str(self.parts[0].prefix)

    @property
    def dtype(self) -> str:
        """`uint16` or `int32` if all sources have that type; else `int64`, GPT-NeoX's type of all samples."""
        dtypes = {str(part.dtype) for part in self.parts}
        return dtypes.pop() if len(dtypes) == 1 else "int64"

    @property
    def has_provenance(self) -> bool:
        """Whether all sources have provenance. The origin of a document may still be unknown."""
        return all(part.has_provenance for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """A digest of the fingerprints of all sources."""
        return fingerprint({"sources": [part.fingerprint for part in self.parts]})

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _locate(self, document: int) -> tuple[Documents, int]:
        """The source of a document, and the document's number in it. Raises IndexError."""
        # Of equal starts the last one counts: the sources before it have no documents.
        part = int(np.searchsorted(self._starts, document, side="right")) - 1
        if not 0 <= part < len(self.parts):
            raise IndexError(f"{document} is out of range for {len(self)}")
        return self.parts[part], document - int(self._starts[part])

    def __getitem__(self, document: int, /) -> Tokens:
        part, number = self._locate(document)
        return part[number].astype(self.dtype, copy=False)

    def origin(self, document: int, /) -> Origin | None:
        """The origin of a document, or None if it is unknown."""
        part, number = self._locate(document)
        return part.origin(number)

    def subset_numbers(self, documents: NDArray[np.int64], /) -> NDArray[np.int32]:
        """The indices in `subsets` of the documents' subsets: (n,) int64 -> (n,) int32, -1 where unknown."""
        numbers = np.full(len(documents), -1, np.int32)
        for k, part in enumerate(self.parts):
            inside = (documents >= self._starts[k]) & (documents < self._starts[k + 1])
            own = part.subset_numbers(documents[inside] - self._starts[k])
            numbers[inside] = self._to_all[k][own]
        return numbers
