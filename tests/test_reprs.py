"""The `repr` of each class of the core is one line that names its content."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from pile_tools import _core
from pile_tools.jobs import tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shards: Path, tokenizer: Path) -> Path:
    """A dataset, its index, orders and rows, in a folder whose name has a line feed and no UTF-8."""
    folder = tmp_path_factory.mktemp("repr") / "a\nb\udcff"
    folder.mkdir()
    prefix = folder / "sample"
    tokenize.run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    for seed in (1, 2):
        stem = folder / f"order{seed}"
        _core.build_order(prefix, stem, 32, seed, samples=100)
    _core.write_blend(folder / "blend", [1.0, 1.0], [100, 100], False)
    np.arange(20, dtype=np.uint16).tofile(folder / "rows.bin")
    (folder / "index").mkdir()
    loaded = _core.Tokenizer.from_file(tokenizer)
    _core.build_index(_core.TokenDataset(prefix), loaded, folder / "index", 1 << 14)
    (folder / "bare.idx").write_bytes((folder / "sample.idx").read_bytes())
    return folder


def test_each_class_says_what_it_holds(folder: Path, tokenizer: Path) -> None:
    prefix = folder / "sample"
    dataset = _core.TokenDataset(prefix)
    index = _core.SuffixIndex(folder / "index", dataset)
    orders = [_core.TrainingOrder(folder / f"order{seed}", 32, prefix) for seed in (1, 2)]
    blend = _core.blended_order(folder / "blend", orders)
    rows = _core.rows_order(folder / "rows.bin", 5)
    n, n_tokens = len(dataset), dataset.n_tokens
    n_entries = len(json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"])
    assert min(n, index.n_segments) > 1

    def quoted(name: str) -> str:
        return repr(str(folder / name))

    expected = {
        _core.Tokenizer.from_file(tokenizer): f"<Tokenizer: {n_entries} tokens>",
        dataset: f"<TokenDataset {quoted('sample')}: {n} documents, {n_tokens} tokens, uint16>",
        index: f"<SuffixIndex {quoted('index')}: {n} documents, {n_tokens} tokens, "
        f"{index.n_segments} segments>",
        orders[0]: f"<TrainingOrder {quoted('order1')} of dataset {quoted('sample')}: "
        f"{len(orders[0])} samples of 33 tokens>",
        blend: f"<TrainingOrder {quoted('blend')} of 2 datasets: {len(blend)} samples of 33 tokens>",
        rows: f"<TrainingOrder {quoted('rows.bin')} of rows: 4 samples of 5 tokens>",
        rows.dataset: f"<TokenSource {quoted('rows.bin')}: 4 rows, uint16>",
        _core.TokenSource(prefix): f"<TokenSource {quoted('sample')}: {n} documents, uint16>",
        _core.TokenSource(
            folder / "bare"
        ): f"<TokenSource {quoted('bare')}: {n} documents, uint16, no tokens>",
    }
    assert {type(value) for value in expected} == {c for _, c in inspect.getmembers(_core, inspect.isclass)}
    for value, text in expected.items():
        assert repr(value) == text
        assert len(text.splitlines()) == 1
