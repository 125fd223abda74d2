"""The ids of `tokenizers`, cached in .cache, with which all others are compared."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benches import inputs, peers
from benches.measure import CACHE, Measured, in_process


@dataclass(frozen=True)
class Expected:
    """The ids of all texts, concatenated, and the start of each text followed by the end of the last."""

    ids: np.ndarray
    offsets: np.ndarray

    def n_differing(self, ids: np.ndarray, offsets: np.ndarray) -> int:
        """Number of texts whose ids differ."""
        if np.array_equal(offsets, self.offsets) and np.array_equal(ids, self.ids):
            return 0
        assert len(offsets) == len(self.offsets), "another number of documents"
        found = np.split(ids, offsets[1:-1].astype(np.int64))
        expected = np.split(self.ids, self.offsets[1:-1])
        return sum(not np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def _path(texts: list[str], tokenizer: Path) -> Path:
    version = peers.version(peers.REFERENCE)
    return CACHE / f"ids-{inputs.digest(texts)[:16]}-{inputs.file_digest(tokenizer)[:16]}-{version}.npz"


def prepare(input: str, shards: list[Path], tokenizer: Path) -> None:
    """Computes the ids of an input for [`expected`], unless they are cached."""
    cpus = len(os.sched_getaffinity(0))
    result = in_process(compute, cpus, input=input, shards=shards, tokenizer=tokenizer)
    if "failed" in result:
        raise RuntimeError(f"no reference ids for {input}: {result['failed']}")


def compute(input: str, shards: list[str], tokenizer: str) -> Measured:
    texts = inputs.load(input, [Path(shard) for shard in shards])
    path = _path(texts, Path(tokenizer))
    if not path.exists():
        peer = peers.PEERS[peers.REFERENCE]
        ids, offsets = peer.flat(peer.encode(peer.load(Path(tokenizer)), texts))
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp.npz")
        np.savez(unfinished, ids=ids, offsets=offsets)
        unfinished.rename(path)
    return {}


def expected(texts: list[str], tokenizer: Path) -> Expected:
    """The reference's ids of texts that [`prepare`] was called for."""
    with np.load(_path(texts, tokenizer)) as arrays:
        return Expected(arrays["ids"], arrays["offsets"])
