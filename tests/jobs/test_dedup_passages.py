"""Repeated passages: every byte in a window that also begins earlier is cut, and nothing else changes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq
import pytest
import zstandard
from tests.conftest import Run

from pile_tools import manifest
from pile_tools._core import Tokenizer
from pile_tools.errors import ConfigError, OutputExistsError
from pile_tools.jobs import dedup_passages, train_tokenizer
from pile_tools.jobs.dedup_passages import PassagesConfig, longest_passages
from pile_tools.jobs.rewriting import PASSAGES_FILE
from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig
from pile_tools.read.shards import find_shards

LENGTH = 40
MEMORY = 16 << 20
LINE = "Ein Satz, der öfter vorkommt, mit Umläuten ü und 日本語; "
LICENSE = "Permission is hereby granted to any person obtaining a copy of this text. " * 3

#: Texts by shard. The third is one document, a text file.
TEXTS = [
    [LINE + "a", "own words", LICENSE + "first", " " * 200],
    ["b" + LINE, LICENSE + "second" + LICENSE, "", "語" * 80],
    ["x" + LICENSE + "third"],
    ["own words too", LINE * 3, LICENSE],
]


def cut(texts: list[str], length: int, spared: frozenset[int] = frozenset()) -> list[str]:
    """The texts without the bytes in windows that also begin earlier, by a set of all windows."""
    seen: set[bytes] = set()
    found = []
    for number, text in enumerate(texts):
        data, is_cut = text.encode(), [False] * len(text.encode())
        for start in range(len(data) - length + 1):
            window = data[start : start + length]
            if window in seen:
                is_cut[start : start + length] = [True] * length
            seen.add(window)
        if number in spared:
            found.append(text)
            continue
        kept, position = [], 0
        for character in text:
            n = len(character.encode())
            # A character goes only if all its bytes are repeated.
            if not all(is_cut[position : position + n]):
                kept.append(character)
            position += n
        found.append("".join(kept))
    return found


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, texts in enumerate(TEXTS):
        lines = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts).encode()
        if number == 0:
            (folder / "0.jsonl.zst").write_bytes(zstandard.compress(lines))
        elif number == 1:
            (folder / "1.jsonl.gz").write_bytes(gzip.compress(lines))
        elif number == 2:
            (folder / "2.txt").write_text(texts[0], encoding="utf-8")
        else:
            pq.write_table(pyarrow.table({"text": texts, "n": [1] * len(texts)}), folder / "3.parquet")
    return folder


def run(shards: Path, output: Path, length: int = LENGTH, **how: Any) -> manifest.Manifest:
    how = {"memory": MEMORY, "threads": 2, **how}
    return dedup_passages.run(find_shards([shards]), output, PassagesConfig(length=length), **how)[0]


def read(folder: Path) -> list[str]:
    """The texts of the shards in a folder."""
    texts = []
    for path in find_shards([folder]):
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        elif path.suffix == ".gz":
            data = gzip.decompress(data)
        if path.suffix == ".txt":
            texts.append(data.decode())
        elif path.suffix == ".parquet":
            texts += pq.read_table(path)["text"].to_pylist()
        else:
            texts += [json.loads(line)["text"] for line in data.splitlines()]
    return texts


def test_what_is_repeated_is_cut_and_nothing_else(shards: Path, tmp_path: Path) -> None:
    made = run(shards, tmp_path / "out")
    texts = [text for of in TEXTS for text in of]
    expected = cut(texts, LENGTH)
    assert read(tmp_path / "out") == expected
    n_cut = sum(len(text.encode()) for text in texts) - sum(len(text.encode()) for text in expected)
    assert made.summary["n_repeated_bytes"] == n_cut > 0
    assert [path.name for path in find_shards([tmp_path / "out"])] == [p.name for p in find_shards([shards])]


def test_the_table_names_each_passage_and_an_earlier_copy(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "out", dry_run=True)
    assert not [path for path in find_shards([shards]) if (tmp_path / "out" / path.name).exists()]
    names = [path.name for path in find_shards([shards])]
    rows = pq.read_table(tmp_path / "out" / PASSAGES_FILE).to_pylist()
    assert rows
    places = []
    for row in rows:
        place, copy = (
            (names.index(Path(row[f"{prefix}shard"]).name), row[f"{prefix}record"], row[f"{prefix}start"])
            for prefix in ("", "copy_")
        )
        assert copy < place
        passage, earlier = (TEXTS[shard][record].encode()[at:] for shard, record, at in (place, copy))
        n = min(row["end"] - row["start"], LENGTH - 6)
        assert passage[:n] == earlier[:n]
        passage[: row["end"] - row["start"]].decode()
        places.append(place)
    assert places == sorted(places)


def test_threads_memory_and_interruptions_change_nothing(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "out")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def stop(n: int) -> None:
        if n > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(shards, tmp_path / "again", memory=1 << 12, threads=1, on_progress=stop)
    assert not (tmp_path / "again" / PASSAGES_FILE).exists()
    run(shards, tmp_path / "again", memory=1 << 12, threads=1)
    found = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert found == expected
    assert not (tmp_path / "again.partial").exists()


def test_protected_documents_stay_whole(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "stay.txt").write_text("1.jsonl.gz:1\n3.parquet:2\n")
    run(shards, tmp_path / "out", protect=tmp_path / "stay.txt")
    texts = [text for of in TEXTS for text in of]
    assert read(tmp_path / "out") == cut(texts, LENGTH, frozenset({5, 11}))


def test_shards_with_the_name_of_a_table_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pyarrow.table({"text": [LICENSE, LICENSE]}), tmp_path / "in" / PASSAGES_FILE)
    run(tmp_path / "in", tmp_path / "out")
    assert read(tmp_path / "out") == [cut([LICENSE], LENGTH)[0], ""]


def test_a_finished_output_is_kept_and_another_request_refused(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "out")
    again, is_new = dedup_passages.run(
        find_shards([shards]), tmp_path / "out", PassagesConfig(length=LENGTH), memory=MEMORY, threads=1
    )
    assert not is_new
    with pytest.raises(OutputExistsError):
        run(shards, tmp_path / "out", length=50)
    run(shards, tmp_path / "out", length=50, force=True)
    assert longest_passages(manifest.read(again.path), 3)


def test_the_longest_passages_come_first(shards: Path, tmp_path: Path) -> None:
    made = run(shards, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / PASSAGES_FILE).to_pylist()
    lengths = sorted((row["end"] - row["start"] for row in rows), reverse=True)
    found = longest_passages(made, 4)
    assert [passage.end - passage.start for passage in found] == lengths[:4]


@pytest.mark.parametrize("length", [31, (1 << 20) + 1])
def test_lengths_out_of_range_are_usage_errors(length: int) -> None:
    with pytest.raises(ConfigError, match="length must be 32 to 1,048,576 bytes"):
        PassagesConfig(length=length)


def cut_tokens(texts: list[str], tokenizer: Tokenizer, length: int) -> list[str]:
    """The texts without the bytes of tokens in windows that also begin earlier, by a set of all windows.

    A part of a character is no reason to cut the rest of it.
    """
    seen: set[tuple[int, ...]] = set()
    found = []
    for text in texts:
        ids = tokenizer.encode(text).tolist()
        is_cut = [False] * len(ids)
        for start in range(len(ids) - length + 1):
            window = tuple(ids[start : start + length])
            if window in seen:
                is_cut[start : start + length] = [True] * length
            seen.add(window)
        # Tokens that share a character stay or go together.
        kept, pending = [], []
        for id, cut_it in zip(ids, is_cut, strict=True):
            pending.append((id, cut_it))
            characters = tokenizer.decode([id for id, _ in pending])
            if "\ufffd" not in characters:
                kept += [] if all(cut_it for _, cut_it in pending) else [characters]
                pending = []
        found.append("".join(kept))
    return found


def test_windows_of_tokens_are_those_of_a_set_of_ids(shards: Path, tmp_path: Path) -> None:
    trained = tmp_path / "tokenizer.json"
    train_tokenizer.run(find_shards([shards]), trained, TrainTokenizerConfig(vocab_size=400), threads=1)
    config = PassagesConfig(min_tokens=16, tokenizer=trained)
    made, _ = dedup_passages.run(find_shards([shards]), tmp_path / "out", config, memory=MEMORY, threads=2)
    texts = [text for of in TEXTS for text in of]
    expected = cut_tokens(texts, Tokenizer.from_file(trained), 16)
    assert read(tmp_path / "out") == expected
    n_cut = sum(len(text.encode()) for text in texts) - sum(len(text.encode()) for text in expected)
    assert made.summary["n_repeated_bytes"] == n_cut > 0
    assert made.settings["min_tokens"] == 16
    assert "length" not in made.settings
    assert [entry["role"] for entry in made.inputs].count("tokenizer") == 1
    # Another tokenizer makes another output.
    other = tmp_path / "other.json"
    train_tokenizer.run(find_shards([shards]), other, TrainTokenizerConfig(vocab_size=300), threads=1)
    config = PassagesConfig(min_tokens=16, tokenizer=other)
    with pytest.raises(OutputExistsError):
        dedup_passages.run(find_shards([shards]), tmp_path / "out", config, memory=MEMORY, threads=2)


def test_tokens_need_a_tokenizer_and_exclude_bytes() -> None:
    for config in ({"min_tokens": 50}, {"tokenizer": Path("t.json")}):
        with pytest.raises(ConfigError, match="need both"):
            PassagesConfig(**config)
    with pytest.raises(ConfigError, match="not both"):
        PassagesConfig(length=100, min_tokens=50, tokenizer=Path("t.json"))
    with pytest.raises(ConfigError, match="16 to 1,048,576 tokens, got 15"):
        PassagesConfig(min_tokens=15, tokenizer=Path("t.json"))


def test_from_the_command_line(cli: Run, shards: Path, tmp_path: Path) -> None:
    report, out = tmp_path / "report.html", tmp_path / "out"
    done = cli(
        "dedup", "passages", shards, "-o", out, "--length", LENGTH, "--report", report, "--threads", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "passages of at least 40 bytes cut" in done.stdout
    assert "no subset" in done.stdout
    page = report.read_text()
    assert "Longest passages" in page
    assert "Permission is hereby granted" in page
    back = cli("dedup", "restore", out, "3.parquet:2")
    assert back.stdout.rstrip("\n") == LICENSE
    assert cli("verify", out).returncode == 0
    assert cli("dedup", "passages", "-", "-o", tmp_path / "no").returncode == 2
