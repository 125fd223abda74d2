"""Wherever an output is put, the same command finds it finished, or is refused and changes nothing."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from tests.commands.conftest import LONG, World

#: Command lines with an output at `{}`, and the suffixes that it may have.
COMMANDS = {
    "pile-tools dedup exact shards -o {} --against fresh": [""],
    "pile-tools dedup exact shards -o out --report {}": [".html"],
    "pile-tools dedup near shards -o {} --permutations 64 --keep-signatures": [""],
    "pile-tools dedup near shards -o out --permutations 64 --keep-signatures --report {}": [".html"],
    "pile-tools dedup signatures shards -o {} --permutations 64": [""],
    "pile-tools dedup passages shards -o {} --length 40 --report r.html": [""],
    "pile-tools train-tokenizer shards -o {} --vocab-size 300": [".json", ""],
    "pile-tools tokenize shards -o {} --tokenizer tokenizer.json": ["", "-00000-of-00000"],
    "pile-tools tokenize shards -o {} --tokenizer tokenizer.json --part 1/2": [""],
    "pile-tools merge tokens/sample tokens/sample -o {}": ["", "-00000-of-00000"],
    "pile-tools merge tokens -o {}": [""],
    "pile-tools order tokens/sample -o {} --seq-length 64 --steps 6 --batch-size 4": [""],
    "pile-tools stages tokens:4 tokens:2 -o {}": [""],
    "pile-tools shard tokens/sample.bin -o {} --bytes 10000": [""],
    "pile-tools unshard sharded -o {}": [".bin", "-00000-of-00000.bin"],
    "pile-tools count-ngrams tokens/sample -o {}": [".tsv", ".parquet"],
    "pile-tools count-ngrams shards -o out.tsv --plot {}": [".html", ".svg"],
    "pile-tools count-terms terms.txt tokens --checkpoints 2 -o {}": [".tsv"],
    "pile-tools count-terms terms.txt shards -o out.tsv --plot {}": [".html"],
    "pile-tools count-numbers tokens --checkpoints 2 -o {}": [".tsv"],
    "pile-tools batch tokens --step 1 --npy {}": [".npy"],
    "pile-tools export tokens --steps 0:2 -o {}": [".csv"],
    "pile-tools mixture tokens --every 2 --plot {}": [".html"],
    "pile-tools when tokens alpha --plot {}": [".html"],
    "pile-tools trace-text tokens/sample text.txt -o {}": [".html"],
    "pile-tools contamination items.jsonl shards -o {}": [""],
    "pile-tools contamination items.jsonl shards -o out --purify documents --report {}": [".html"],
    "pile-tools contamination items.jsonl tokens -o {} --checkpoints 2": [""],
    "pile-train loss-page run -o {}": [".html"],
    "pile-train neox-config neox.yml -o {}": [".toml"],
    "pile-train import run/checkpoints/step1 -o {}": [""],
    "pile-study report run --memorization study -o {}": [".html"],
    "vqgan-clip generate star -o {} --steps 1 --views 1": [".png"],
    "vqgan-clip generate star -o out.png --steps 1 --views 1 --every 1 --state {}": [""],
    "vqgan-clip generate star -o out.png --steps 1 --views 1 --every 1 --frames {}": [""],
    "vqgan-clip generate star -o out.png --steps 1 --views 1 --every 1 --preview {}": [".png"],
}
FOLDERS = [
    *(".", "shards", "fresh", "tokens", "tokens/sample.index", "sharded", "rows", "study", f"{LONG}/sigs"),
    *("run", "run/checkpoints", "run/checkpoints/step0", f"{LONG}/near", f"{LONG}/near/signatures"),
    *("out", "out.partial", "out.parts", "out.tsv.partial", "tokens.partial", "tokens/sample.partial"),
    *("shards.partial", "run.partial", "run/run.json.partial", "tokens/order.json.partial"),
]
NAMES = ["zz", "out", "signatures", "sample", "manifest", "order", "run", "00", "step1", "checkpoints"]

#: Folders and names that are tried, of all; more by `PILE_TOOLS_PLACES`.
N_TRIED = int(os.environ.get("PILE_TOOLS_PLACES", "3"))


def contents(folder: Path) -> dict[str, bytes | None]:
    """The files below a folder, and None for each folder."""
    paths = (path for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in paths}


def restore(folder: Path, before: dict[str, bytes | None]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if str(path.relative_to(folder)) not in before:
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture
def copied(world: World, tmp_path: Path) -> World:
    """A copy of the artifacts, and shards of other names in `fresh`."""
    folder = tmp_path / "world"
    shutil.copytree(world.folder, folder)
    for path in (folder / "shards").iterdir():
        (folder / "fresh").mkdir(exist_ok=True)
        shutil.copy(path, folder / "fresh" / f"old-{path.name}")
    return World(folder)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_same_command_finds_its_output_wherever_it_is(copied: World, line: str) -> None:
    folder, before = copied.folder, contents(copied.folder)
    every = [f"{parent}/{name}{suffix}" for parent in FOLDERS for name in NAMES for suffix in COMMANDS[line]]
    for output in random.Random(line).sample(every, min(N_TRIED, len(every))):
        words = line.format(output).split()
        first = copied.call(*words)
        after = contents(folder)
        if first.code:
            assert first.code in (1, 2), (words, first)
            assert after == before, (words, first, after.keys() ^ before.keys())
            continue
        assert {name: after.get(name, 0) for name in before} == before, words
        second = copied.call(*words)
        assert second.code == 0, (words, second)
        assert contents(folder) == after, words
        restore(folder, before)
