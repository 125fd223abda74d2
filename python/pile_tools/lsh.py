"""A stored index of MinHash signatures: finds documents that are probably similar to new ones.

>>> import numpy as np, pile_tools
>>> hasher = pile_tools.MinHasher()
>>> index = pile_tools.LshIndex.build(hasher.signatures(old_texts), "old.lsh")  # doctest: +SKIP
>>> found = pile_tools.LshIndex("old.lsh").query(hasher.signatures(new_texts))  # doctest: +SKIP
>>> found["document"][found["similarity"] > 0.9]  # doctest: +SKIP

Signatures are cut into bands, as `pile-tools dedup near` cuts them. Documents that agree in a band are
candidates, and their similarity is estimated from the signatures: the standard error of 256 values is 0.02
at 0.87. Verify candidates by their texts before anything is removed.

The folder holds `signatures.npy`, (n, permutations) uint32; `keys.npy`, (bands, n) uint64, the hashes of each
band, ascending; `documents.npy`, (bands, n) uint32, the document of each hash; and `manifest.json`, written
last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, publish
from pile_tools.config import checked_threshold
from pile_tools.errors import ConfigError, FormatError
from pile_tools.manifest import MANIFEST_FILE, Request
from pile_tools.publish import Built, Target
from pile_tools.tables import mapped_array
from pile_tools.types import AnyPath

Signatures = NDArray[np.uint32]

#: Candidates: the index of the query, the document, and their estimated similarity.
CANDIDATE = np.dtype([("query", "<i8"), ("document", "<i8"), ("similarity", "<f8")])

#: Maximum documents, which have 32-bit numbers.
MAX_DOCUMENTS = (1 << 32) - 1

#: Bytes of signatures that are copied or compared at once.
_CHUNK_BYTES = 64 << 20

_NAMES = ("signatures.npy", "keys.npy", "documents.npy")

#: The number of an empty signature: that of a text shorter than a shingle, which is similar to no other.
_EMPTY = np.uint32(0xFFFFFFFF)

#: Odd multipliers of a band's hash.
_MULTIPLY, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


class LshIndex:
    """An index in a folder, memory-mapped: it opens at once at any size.

    Attributes:
        threshold: The similarity at which a pair is found with a probability of at least 0.999, as text.
        bands: The number of bands.
        rows: The values of each band.
    """

    def __init__(self, folder: AnyPath) -> None:
        """Opens an index.

        Raises:
            FormatError: The folder holds no such index, or its files are damaged.
            PileError: It was replaced while it was opened.
            OSError: A file cannot be read.
        """
        self.folder = Path(folder)
        target = Target.of(self.folder / MANIFEST_FILE)
        with publish.reading(target):
            found = manifest.read(target.manifest)
            if found.kind != "lsh-index":
                raise FormatError(f"a manifest of kind {found.kind!r}, expected an index ({found.path})")
            self.threshold: str = found.checked_settings.text("threshold")
            self.bands = found.checked_settings.integer("bands", 1)
            self.rows = found.checked_settings.integer("rows", 1)
            n = found.checked_summary.integer("n_documents", 0, MAX_DOCUMENTS)
            permutations = found.checked_settings.integer("permutations", self.bands * self.rows)
            shapes = ((n, permutations), (self.bands, n), (self.bands, n))
            arrays = [
                _open(self.folder / name, shape, dtype)
                for name, shape, dtype in zip(_NAMES, shapes, ("<u4", "<u8", "<u4"), strict=True)
            ]
        self._signatures, self._keys, self._documents = arrays

    @classmethod
    def build(
        cls, signatures: Signatures, folder: AnyPath, *, threshold: str | float = "0.87", force: bool = False
    ) -> LshIndex:
        """Builds an index of the signatures of documents, or opens it if it was built from them before.

        A band takes 16 bytes for each document in memory at a time.

        Args:
            signatures: Of `MinHasher`, (n, permutations) uint32; may be a memory map.
            folder: The folder of the index.
            threshold: The similarity for which bands are chosen, as in `pile-tools dedup near`.
            force: Replace an index of other signatures.

        Raises:
            ConfigError: The signatures are no such array, or the threshold is out of range.
            OutputExistsError: The folder has another index and `force` is off.
            OSError: A file cannot be written.
        """
        _check(signatures)
        threshold = checked_threshold(str(threshold))
        n, permutations = signatures.shape
        if n > MAX_DOCUMENTS:
            raise ConfigError(f"an index has at most {MAX_DOCUMENTS:,} documents, got {n:,}")
        bands, rows = _core.lsh_bands(threshold, permutations)
        settings = {
            "threshold": threshold,
            "permutations": permutations,
            "bands": bands,
            "rows": rows,
            "signatures": _digest(signatures),
        }

        def make(scratch: Path) -> Built:
            stored = np.lib.format.open_memmap(scratch / _NAMES[0], "w+", "<u4", signatures.shape)
            for start, chunk in _chunks(signatures):
                stored[start : start + len(chunk)] = chunk
            keys = np.lib.format.open_memmap(scratch / _NAMES[1], "w+", "<u8", (bands, n))
            documents = np.lib.format.open_memmap(scratch / _NAMES[2], "w+", "<u4", (bands, n))
            for band in range(bands):
                hashes = _hashes(stored[:, band * rows : (band + 1) * rows])
                order = np.argsort(hashes, kind="stable")
                keys[band], documents[band] = hashes[order], order
            for array in (stored, keys, documents):
                array.flush()
            return Built(list(_NAMES), {"n_documents": n}, [])

        target = Target.of(Path(folder) / MANIFEST_FILE)
        publish.make(target, Request("lsh-index", settings), make, force=force, names=list(_NAMES))
        return cls(folder)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._signatures)

    def __repr__(self) -> str:
        return f"<LshIndex: {len(self):,} documents, {self.bands} bands of {self.rows} values>"

    def query(self, signatures: Signatures) -> NDArray[np.void]:
        """The documents that share a band with each signature.

        Args:
            signatures: Of the same `MinHasher`, (n, permutations) uint32.

        Returns:
            `query` (the index in `signatures`), `document` and the estimated `similarity`, by query, then by
            falling similarity, then by document: (n_candidates,) `CANDIDATE`.

        Raises:
            ConfigError: The signatures are no such array, or have another length.
        """
        _check(signatures)
        permutations = self._signatures.shape[1]
        if signatures.shape[1] != permutations:
            raise ConfigError(f"signatures of {signatures.shape[1]} values, the index has {permutations}")
        found = []
        for query, signature in enumerate(signatures):
            documents = self._candidates(signature)
            if not len(documents):
                continue
            similarity = np.concatenate(
                [
                    (self._signatures[documents[start : start + step]] == signature).mean(axis=1)
                    for step in [max(_CHUNK_BYTES // (4 * permutations), 1)]
                    for start in range(0, len(documents), step)
                ]
            )
            order = np.lexsort((documents, -similarity))
            rows = np.zeros(len(documents), CANDIDATE)
            rows["query"], rows["document"], rows["similarity"] = query, documents[order], similarity[order]
            found.append(rows)
        return np.concatenate(found) if found else np.zeros(0, CANDIDATE)

    def _candidates(self, signature: Signatures) -> NDArray[np.int64]:
        """The documents that share a band with a signature, ascending."""
        if signature[0] == _EMPTY:
            return np.zeros(0, np.int64)
        shared = []
        for band in range(self.bands):
            columns = slice(band * self.rows, (band + 1) * self.rows)
            values = signature[columns]
            keys, key = self._keys[band], _hashes(values[None])[0]
            start, end = (int(np.searchsorted(keys, key, side)) for side in ("left", "right"))
            documents = np.asarray(self._documents[band, start:end], np.int64)
            if len(documents) and int(documents.max()) >= len(self):
                raise FormatError(f"names a document that is not there ({self.folder / _NAMES[2]})")
            # Different values may have the same hash.
            shared.append(documents[(self._signatures[documents, columns] == values).all(axis=1)])
        return np.unique(np.concatenate(shared))


def _check(signatures: Signatures) -> None:
    """Raises ConfigError unless an array can be signatures."""
    if not isinstance(signatures, np.ndarray) or signatures.ndim != 2 or signatures.dtype != np.uint32:
        raise ConfigError("signatures are an array (n, permutations) of uint32, as of MinHasher.signatures")
    if signatures.shape[1] == 0:
        raise ConfigError("signatures have at least one value")


def _chunks(signatures: Signatures) -> Iterator[tuple[int, Signatures]]:
    """The first document and the signatures of each of several parts."""
    step = max(_CHUNK_BYTES // (4 * signatures.shape[1]), 1)
    for start in range(0, len(signatures), step):
        yield start, np.ascontiguousarray(signatures[start : start + step], "<u4")


def _digest(signatures: Signatures) -> str:
    """SHA-256 of the signatures, which identifies what an index is built from."""
    digest = hashlib.sha256()
    for _, chunk in _chunks(signatures):
        digest.update(chunk.data)
    return digest.hexdigest()


def _hashes(values: NDArray[Any]) -> NDArray[np.uint64]:
    """A hash of each row of values: (n, rows) uint32 -> (n,) uint64. Hashes are stored: never change them."""
    hashes = np.zeros(len(values), np.uint64)
    # Products of numpy integers wrap without a warning only as arrays.
    for column in range(values.shape[1]):
        hashes = (hashes ^ values[:, column].astype(np.uint64)) * _MULTIPLY
        hashes ^= hashes >> np.uint64(32)
    return hashes * _MIX


def _open(path: Path, shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    """A mapped array of known shape. Raises FormatError."""
    array = mapped_array(path)
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise FormatError(f"{array.shape} {array.dtype}, expected {shape} {np.dtype(dtype)} ({path})")
    return array
