"""Reads and writes token datasets with numpy alone, to compare with ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benches.peers import Flat, offsets_of
from benches.reference import Expected

MAGIC = b"MMIDIDX\0\0"
#: The token type of each of GPT-NeoX's type codes.
TYPES: dict[int, np.dtype[Any]] = {8: np.dtype("<u2"), 4: np.dtype("<i4")}


def with_suffix(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def write_idx(prefix: Path, lengths: np.ndarray) -> None:
    """Writes the index of a `.bin` of uint16 with documents of these lengths."""
    n = len(lengths)
    pointers = offsets_of(lengths)[:-1] * 2
    with with_suffix(prefix, ".idx").open("wb") as idx:
        idx.write(MAGIC)
        idx.write(np.uint64(1).tobytes() + np.uint8(8).tobytes() + np.array([n, n + 1], "<u8").tobytes())
        idx.write(lengths.astype("<i4").tobytes() + pointers.astype("<i8").tobytes())
        idx.write(np.arange(n + 1, dtype="<i8").tobytes())


def read(prefix: Path) -> Flat:
    """All tokens of a dataset, and the start of each document followed by the end of the last."""
    idx = with_suffix(prefix, ".idx").read_bytes()
    assert idx.startswith(MAGIC), "not an index"
    n = int(np.frombuffer(idx, "<u8", 1, offset=18)[0])
    lengths = np.frombuffer(idx, "<i4", n, offset=34)
    return np.fromfile(with_suffix(prefix, ".bin"), TYPES[idx[17]]), offsets_of(lengths)


def with_eod(expected: Expected, eod: int) -> Expected:
    """The documents that a dataset holds: those that are not empty, each with its end-of-document token."""
    lengths = np.diff(expected.offsets)
    ends = expected.offsets[1:][lengths > 0]
    return Expected(np.insert(expected.ids, ends, eod), offsets_of(lengths[lengths > 0] + 1))


def n_differing(prefix: Path, expected: Expected, eod: int) -> int:
    """Number of documents of a dataset whose tokens differ from the reference."""
    return with_eod(expected, eod).n_differing(*read(prefix))
