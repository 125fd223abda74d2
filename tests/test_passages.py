"""Repeated passages of shards, against a dictionary of all windows."""

import json
from pathlib import Path

import pytest

from pile_tools import ConfigError, _core

LENGTH = 40


def write(folder: Path, shards: list[list[str]]) -> list[Path]:
    paths = []
    for number, texts in enumerate(shards):
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return paths


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
    table, summary = _core.find_passages(
        write(tmp_path, shards),
        tmp_path / "scratch",
        length=LENGTH,
        memory=1 << 24,
        threads=2,
        on_progress=done.append,
    )
    texts = [text.encode() for shard in shards for text in shard]
    found: list[set[int]] = [set() for _ in texts]
    for row in table:
        found[row["document"]] |= set(range(row["raw_start"], row["raw_end"]))
        text, copy = texts[row["document"]], texts[row["copy_document"]]
        assert (row["copy_document"], row["copy_start"]) < (row["document"], row["start"])
        n = LENGTH - (row["start"] - row["raw_start"])
        same = slice(row["copy_start"], row["copy_start"] + n - 3)
        assert copy[same] == text[row["start"] : row["start"] + n - 3]
        text[row["start"] : row["end"]].decode()
    assert found == repeated(texts)
    assert summary["n_repeated_bytes"] == int((table["end"] - table["start"]).sum()) > 0
    assert (summary["n_documents"], summary["n_passages"]) == (len(texts), len(table))
    assert summary["n_bytes"] == sum(map(len, texts))
    assert done[-1] == 2 * sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))


def test_shards_without_passages_give_an_empty_table(tmp_path: Path) -> None:
    shards = write(tmp_path, [["a", "b"]])
    table, summary = _core.find_passages(shards, tmp_path / "scratch", length=100, memory=1, threads=1)
    assert (len(table), summary["n_repeated_bytes"]) == (0, 0)
    assert table.dtype.names is not None
    with pytest.raises(ConfigError, match="32 to 1048576 bytes, got 8"):
        _core.find_passages(shards, tmp_path / "scratch", length=8, memory=1, threads=1)
