"""Repeated passages of shards, against a dictionary of all windows."""

import json
from pathlib import Path
from typing import Any

import pytest

from pile_tools import ConfigError, _core
from pile_tools.types import PassageSearch

LENGTH = 40


def write(folder: Path, shards: list[list[str]]) -> list[Path]:
    paths = []
    for number, texts in enumerate(shards):
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return paths


def search(folder: Path, length: int, memory: int = 1 << 24, **more: Any) -> PassageSearch:
    return PassageSearch(
        length=length,
        protected=more.pop("protected", []),
        protected_texts=more.pop("protected_texts", []),
        memory=memory,
        threads=2,
        folder=folder / "scratch",
        job="test",
        discard=False,
        **more,
    )


def repeated(texts: list[bytes]) -> list[set[int]]:
    """The bytes of each text in windows that also begin earlier."""
    seen: set[bytes] = set()
    found: list[set[int]] = []
    for text in texts:
        found.append(set())
        for start in range(len(text) - LENGTH + 1):
            window = text[start : start + LENGTH]
            if window in seen:
                found[-1] |= set(range(start, start + LENGTH))
            seen.add(window)
    return found


def test_passages_are_those_of_a_dictionary_of_windows(tmp_path: Path) -> None:
    line = "ein Satz, der öfter vorkommt, mit Umläuten ü und 日本語; "
    shards = [["", "a" + line, " " * 100], ["no repeat"], [line * 3 + "x", "ß" + line[1:]]]
    done: list[int] = []
    table, summary = _core.find_passages(write(tmp_path, shards), search(tmp_path, LENGTH), done.append)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    texts = [text.encode() for shard in shards for text in shard]
    found: list[set[int]] = [set() for _ in texts]
    for row in rows:
        document, copied = int(row["document"]), int(row["copy_document"])
        start, end, copy_start = int(row["start"]), int(row["end"]), int(row["copy_start"])
        raw_start = start - int(row["trimmed_start"])
        found[document] |= set(range(raw_start, end + int(row["trimmed_end"])))
        text, copy = texts[document], texts[copied]
        assert (copied, copy_start) < (document, start)
        n = LENGTH - (start - raw_start)
        assert copy[copy_start : copy_start + n - 3] == text[start : start + n - 3]
        text[start:end].decode()
        assert (row["copy_shard"], row["copy_record"]) == place(shards, copied)
        assert (row["shard"], row["record"]) == place(shards, document)
    assert found == repeated(texts)
    assert summary["n_repeated_bytes"] == sum(int(row["end"]) - int(row["start"]) for row in rows) > 0
    assert (summary["n_documents"], summary["n_passages"]) == (len(texts), len(rows))
    assert summary["n_text_bytes"] == sum(map(len, texts))
    assert done[-1] == 2 * sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))


def place(shards: list[list[str]], document: int) -> tuple[int, int]:
    """Shard and record of a document."""
    shard = 0
    while document >= len(shards[shard]):
        document -= len(shards[shard])
        shard += 1
    return shard, document


def test_protected_documents_have_no_passages_but_others_are_copies_of_theirs(tmp_path: Path) -> None:
    line = "the same words in all of these documents, again and again; "
    shards = write(tmp_path, [[line + "a", line + "b"], [line + "c", line + "d"]])
    protected = {"protected": [(0, 1)], "protected_texts": [line + "c"]}
    table, summary = _core.find_passages(shards, search(tmp_path, LENGTH, **protected))
    assert table["document"].tolist() == [3]
    assert table["copy_document"].tolist() == [0]
    assert summary["n_repeated_bytes"] == len(line)
    other = search(tmp_path / "other", LENGTH, protected=[(1, 2)])
    with pytest.raises(ConfigError, match=r"a protected document is record 2 of .*1\.jsonl"):
        _core.find_passages(shards, other)


def test_shards_without_passages_give_empty_arrays(tmp_path: Path) -> None:
    shards = write(tmp_path, [["a", "b"]])
    table, summary = _core.find_passages(shards, search(tmp_path, 100, memory=1))
    assert (len(table["shard"]), summary["n_repeated_bytes"]) == (0, 0)
    with pytest.raises(ConfigError, match="32 to 1048576 bytes, got 8"):
        _core.find_passages(shards, search(tmp_path, 8))
