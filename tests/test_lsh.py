"""The index of signatures finds what a comparison of all bands finds, and refuses what is no index."""

from __future__ import annotations

import io
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from pile_tools import ConfigError, FormatError, LshIndex, MinHasher, OutputExistsError
from pile_tools.jobs.verify import run as verify


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts, and copies of them with some words replaced."""
    source = random.Random(1)
    words = [f"w{i}" for i in range(500)]
    found = [" ".join(source.choices(words, k=120)) for _ in range(80)]
    for text in found[:60]:
        copy = text.split()
        for _ in range(source.randrange(6)):
            copy[source.randrange(len(copy))] = "other"
        found.append(" ".join(copy))
    return [*found, "too short", ""]


def naive(index: LshIndex, old: np.ndarray, new: np.ndarray) -> list[tuple[int, int, float]]:
    """All pairs that share a band."""
    found = []
    for query, one in enumerate(new):
        rows = []
        for document, two in enumerate(old):
            parts = [slice(band * index.rows, (band + 1) * index.rows) for band in range(index.bands)]
            if one[0] != 2**32 - 1 and any((one[part] == two[part]).all() for part in parts):
                rows.append((query, document, float((one == two).mean())))
        found += sorted(rows, key=lambda row: (-row[2], row[1]))
    return found


@pytest.mark.parametrize(("threshold", "permutations"), [("0.87", 256), ("0.5", 64), ("1", 32)])
def test_candidates_are_those_that_share_a_band(
    texts: list[str], tmp_path: Path, threshold: str, permutations: int
) -> None:
    hasher = MinHasher(permutations)
    old, new = hasher.signatures(texts[:80]), hasher.signatures(texts[60:])
    index = LshIndex.build(old, tmp_path / "index", threshold=threshold)
    found = index.query(new)
    assert [tuple(row) for row in found.tolist()] == naive(index, old, new)
    assert len(index) == 80
    # 20 of the new texts are old ones.
    assert (found["similarity"] == 1).sum() >= 20
    again = LshIndex(tmp_path / "index").query(new)
    assert np.array_equal(again, found)
    assert verify(tmp_path / "index")


def test_texts_without_shingles_are_similar_to_none(tmp_path: Path) -> None:
    hasher = MinHasher(16)
    empty = hasher.signatures(["too short", "too short"])
    index = LshIndex.build(empty, tmp_path / "index")
    assert len(index.query(empty)) == 0
    assert len(LshIndex.build(empty[:0], tmp_path / "none").query(empty)) == 0


def test_an_index_of_the_same_signatures_is_built_once(texts: list[str], tmp_path: Path) -> None:
    old = MinHasher(32).signatures(texts)
    LshIndex.build(old, tmp_path / "index")
    before = (tmp_path / "index" / "keys.npy").stat().st_ino
    LshIndex.build(old, tmp_path / "index")
    assert (tmp_path / "index" / "keys.npy").stat().st_ino == before
    for other in ({"threshold": 0.8}, {}):
        with pytest.raises(OutputExistsError):
            LshIndex.build(old if other else old[1:], tmp_path / "index", **other)
    for same in (0.87, "0.870", "0.8700"):
        assert len(LshIndex.build(old, tmp_path / "index", threshold=same)) == len(old)
    assert len(LshIndex.build(old[1:], tmp_path / "index", force=True)) == len(old) - 1


def test_what_is_no_index_is_refused(texts: list[str], tmp_path: Path) -> None:
    old = MinHasher(32).signatures(texts)
    index = LshIndex.build(old, tmp_path / "index")
    with pytest.raises(ConfigError, match="signatures of 64 values, the index has 32"):
        index.query(MinHasher(64).signatures(texts))
    for wrong in (old.astype(np.int64), old[0], old.tolist()):
        with pytest.raises(ConfigError, match="an array"):
            index.query(wrong)
    with pytest.raises(ConfigError, match="threshold"):
        LshIndex.build(old, tmp_path / "other", threshold=1.5)
    with pytest.raises(OSError, match="No such file"):
        LshIndex(tmp_path / "other")
    documents = tmp_path / "index" / "documents.npy"
    data = documents.read_bytes()
    for damaged in (data[:50], data[:-4], b"", data.replace(b"<u4", b"<i4")):
        documents.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"documents\.npy"):
            LshIndex(tmp_path / "index")
    archive, pipe = io.BytesIO(), tmp_path / "pipe"
    np.savez(archive, a=old)
    for header in (b"(3, (", b"3", b"{'descr': 1, 'x': 2}", b"\xff", b"{'descr': '<u4', 'shape': (3, ("):
        documents.write_bytes(data[:8] + len(header).to_bytes(2, "little") + header)
        with pytest.raises(FormatError, match=r"documents\.npy"):
            LshIndex(tmp_path / "index")
    for other in (archive.getvalue(), pickle.dumps(old)):
        documents.write_bytes(other)
        with pytest.raises(FormatError, match=r"documents\.npy"):
            LshIndex(tmp_path / "index")
    os.mkfifo(pipe)
    documents.unlink()
    documents.symlink_to(pipe)
    with pytest.raises(FormatError, match=r"documents\.npy"):
        LshIndex(tmp_path / "index")
    documents.unlink()
    documents.write_bytes(data[:128] + b"\xff" * (len(data) - 128))
    with pytest.raises(FormatError, match="a document that is not there"):
        LshIndex(tmp_path / "index").query(old)
