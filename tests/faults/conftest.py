"""A server that runs commands with faults, and tiny inputs for all of them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from tests.conftest import NEOX_CONFIG

from trainer.checkpoint import hf_folder
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape

HERE = Path(__file__).parent

#: Kills before the call and after it; other faults are the error that the call reports.
KILL, KILL_AFTER = 0, -1


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: The exit code, or the signal as a negative number.
        calls: Calls that changed files; unknown if it was killed.
        printed: Standard output and error.
    """

    code: int
    calls: int | None
    printed: str


class Server:
    """Runs command lines with faults, in forks of two processes: one with torch, one without.

    `start` starts one of them, with arguments; `printed` is the file for what the runs print.
    """

    def __init__(self, start: Callable[[Sequence[str]], subprocess.Popen[str]], printed: Path) -> None:
        self._start, self._printed = functools.cache(start), printed
        self._started: set[subprocess.Popen[str]] = set()

    def run(self, argv: Sequence[str], folder: Path, *, at: int = -1, fault: int = KILL) -> Ended:
        """Runs a command in a folder, with a fault at its n-th call that changes files there, from 1."""
        request = {
            "argv": list(argv),
            "folder": str(folder),
            "at": at,
            "fault": fault,
            "printed": str(self._printed),
        }
        process = self._start(("networks",) if argv[0] in ("pile-train", "vqgan-clip") else ())
        self._started.add(process)
        to, answers = self._pipe(process.stdin), self._pipe(process.stdout)
        to.write(json.dumps(request) + "\n")
        to.flush()
        answer = json.loads(answers.readline())
        return Ended(answer["code"], answer["calls"], self._printed.read_text())

    def stop(self) -> None:
        """Ends the processes."""
        for process in self._started:
            for stream in (process.stdin, process.stdout):
                self._pipe(stream).close()
            process.wait(timeout=30)

    @staticmethod
    def _pipe(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server; needs a C compiler, as Rust does."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("faults are injected by a preloaded library, which needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("faults")
    shim = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-w", "-o", str(shim), str(HERE / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)

    def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-B", str(HERE / "server.py"), str(folder / "calls"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(shim), "RAYON_NUM_THREADS": "1"},
        )

    made = Server(start, folder / "printed")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def inputs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards, a tokenizer, datasets, an order, a model, and lists: what the commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    shards = folder / "shards"
    shards.mkdir()
    words = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "is", "traced"]
    for shard in range(3):
        lines = []
        for record in range(6):
            text = " ".join(words[(shard + record + i * 3) % len(words)] for i in range(20 + record))
            subset = {"pile_set_name": "Books" if record % 2 else "Code"}
            lines.append(json.dumps({"text": text, "meta": subset}) + "\n")
        (shards / f"{shard}.jsonl").write_text("".join(lines))
    (folder / "terms.txt").write_text("fox\ndog\nlazy dog\n")
    (folder / "items.jsonl").write_text('{"question": "The fox, the is; quick jumps lazy?"}\n')
    (folder / "text.txt").write_text("the quick brown fox is not here")
    for argv in (
        ["train-tokenizer", "shards", "-o", "tok.json", "--vocab-size", "280"],
        ["tokenize", "shards", "-o", "ds", "--tokenizer", "tok.json"],
        ["tokenize", "shards/0.jsonl", "-o", "first", "--tokenizer", "tok.json"],
        ["tokenize", "shards/1.jsonl", "-o", "second", "--tokenizer", "tok.json"],
        ["tokenize", "shards", "-o", "indexed", "--tokenizer", "tok.json"],
        ["index", "indexed"],
        ["order", "ds", "-o", "order", "--seq-length", "16", "--steps", "4", "--batch-size", "4"],
        ["shard", "ds.bin", "-o", "token-shards", "--bytes", "500"],
    ):
        ended = server.run(argv, folder)
        assert ended.code == 0, ended.printed
    for suffix in (".bin", ".idx"):
        shutil.copy(folder / f"ds{suffix}", folder / f"foreign{suffix}")
    _write_model(folder / "model")
    (folder / "neox.yml").write_text(NEOX_CONFIG)
    return folder


def _write_model(folder: Path) -> None:
    """A Hugging Face folder of a tiny model, in three shards."""
    shape = ModelShape(
        vocab_size=280, hidden_size=16, n_layers=2, n_heads=2, max_positions=16, rotary_pct=0.5
    )
    model = GPTNeoX(shape)
    initialize(model, 0)
    folder.mkdir()
    names, dtype = hf_folder.write_weights(folder, model.state_dict().items(), max_shard_bytes=20_000)
    assert len(names) > 2, "not in shards"
    hf_folder.write_about(folder, shape, dtype, "", None, None)
