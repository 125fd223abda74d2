"""A small run folder made by hand: a real order, checkpoints that hold no weights."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pile_tools import Tokenizer, manifest
from pile_tools.jobs import tokenize, train_tokenizer
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig
from pile_tools.manifest import Request
from pile_tools.order.open import open_order
from pile_tools.read.shards import find_shards

STEPS, BATCH_SIZE, CHECKPOINTS = 20, 4, [0, 4, 20]

Greedy = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def write_run(folder: Path, order: Path, tokenizer: Path | None) -> Path:
    """A run of `STEPS` steps over an order, its log and checkpoints; returns its folder."""
    inputs = [manifest.file_entry(order / "order.json", folder, role="order")]
    shape = {"shape.hidden_size": 8, "shape.n_layers": 2, "shape.n_heads": 2, "shape.vocab_size": 512}
    settings = {"steps": STEPS, "batch_size": BATCH_SIZE, "seed": 1, "precision": "fp32", **shape}
    outputs = []
    for step in CHECKPOINTS:
        checkpoint = folder / "checkpoints" / f"step{step}"
        checkpoint.mkdir(parents=True)
        files_there: list[manifest.Entry] = []
        if tokenizer is not None:
            (checkpoint / "tokenizer.json").write_bytes(tokenizer.read_bytes())
            files_there.append(manifest.file_entry(checkpoint / "tokenizer.json", checkpoint))
        request = Request("checkpoint", {"step": step, **settings}, inputs)
        manifest.write(
            checkpoint / "manifest.json", request, files_there, {"n_parameters": 12345, "tokens": step}
        )
        outputs.append(manifest.file_entry(checkpoint / "manifest.json", folder))
    lines = [
        {"step": s, "tokens": (s + 1) * 320, "loss": 6 - s / 8, "lr": 1e-3 * (s + 1), "grad_norm": 1.0}
        for s in range(STEPS)
    ]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outputs.append(manifest.file_entry(folder / "train_log.jsonl", folder))
    summary = {"steps": STEPS, "tokens": STEPS * 320, "n_parameters": 12345, "checkpoints": CHECKPOINTS}
    manifest.write(folder / "manifest.json", Request("run", settings, inputs), outputs, summary)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_shard: Callable[..., Path]) -> Path:
    """A folder with shards of random words, no two passages alike, a tokenizer and `tokens/sample`."""
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(3)
    words = ["alpha", "beta", "gamma", "delta", "naïve", "日本語", "<script>", "don't", "x_1", "&amp;"]
    for shard in range(2):
        texts = [" ".join(rng.choices(words, k=rng.randint(20, 120))) for _ in range(80)]
        records = (
            {"text": t, "meta": {"pile_set_name": ["Books", "<b>Code</b>"][len(t) % 2]}} for t in texts
        )
        write_shard(folder / "shards" / f"{shard:02}.jsonl.zst", records)
    shards, tokenizer = find_shards([folder / "shards"]), folder / "tokenizer.json"
    train_tokenizer.run(shards, tokenizer, TrainTokenizerConfig(vocab_size=400), threads=1)
    tokenize.run(shards, folder / "tokens" / "sample", TokenizeConfig(tokenizer=tokenizer), threads=1)
    return folder


@pytest.fixture(scope="session")
def tokenizer(corpus: Path) -> Path:
    """The tokenizer of the corpus."""
    return corpus / "tokenizer.json"


@pytest.fixture(scope="session")
def order(corpus: Path) -> Path:
    """An order of rows of 80 + 1 tokens, longer than the run."""
    folder = corpus / "tokens"
    build_order(
        folder / "sample", folder, OrderConfig(seq_length=80, steps=STEPS, batch_size=BATCH_SIZE, seed=5)
    )
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, order: Path, tokenizer: Path) -> Path:
    """A run folder over the order."""
    return write_run(tmp_path / "run", order, tokenizer)


def greedy_that_knows(order: Path, n_samples: int, n_new: int) -> Greedy:
    """A model that continues the prompts of the order's first samples rightly and all others with -1."""
    samples = open_order(order).samples

    def greedy(prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        n_prompt = prompts.shape[1]
        rows = samples.read(0, n_samples).astype(np.int64) if n_samples else np.zeros((0, 81), np.int64)
        known = {row[:n_prompt].tobytes(): row[n_prompt : n_prompt + n_new] for row in rows}
        unknown = np.full(n_new, -1, dtype=np.int64)
        return np.stack([known.get(prompt.tobytes(), unknown) for prompt in prompts])

    return greedy


@pytest.fixture
def loaded_steps(order: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces models: each checkpoint knows the rows it was trained on. Lists the steps that are loaded."""
    from studies.memorization import models

    steps: list[int] = []

    def load_greedy(run: object, step: int, n_new: int, ban: int | None) -> Greedy:
        steps.append(step)
        return greedy_that_knows(order, step * BATCH_SIZE, n_new)

    monkeypatch.setattr(models, "load_greedy", load_greedy)
    return steps


@pytest.fixture
def canaries_file(tmp_path: Path, order: Path, tokenizer: Path) -> Path:
    """Canaries: the beginning of documents of the dataset as if planted once, and one never planted."""
    samples, known = open_order(order).samples, Tokenizer.from_file(tokenizer)
    documents = [samples.dataset[i] for i in range(len(samples.dataset))]
    texts = [known.decode(d) for d in documents if len(d) > 70][:3]
    passages = [{"text": text, "repeats": 1} for text in texts]
    passages.append({"text": "never planted " * 40, "repeats": 0})
    path = tmp_path / "canaries.json"
    path.write_text(json.dumps({"passages": passages}))
    return path
