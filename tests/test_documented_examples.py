"""The examples in the documentation run, and give what they say."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pile_tools import open_order
from pile_tools.jobs import index, tokenize, verify
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as make_order
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards

DOCS = Path(__file__).parents[1] / "docs"


def test_the_example_of_token_datasets_runs(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    Path("tokens").mkdir()
    config = TokenizeConfig(tokenizer=tokenizer)
    tokenize.run(find_shards(["shards"]), Path("tokens/sample"), config, threads=1)
    page = (DOCS / "datasets.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/datasets.md", "exec"), names)
    said = re.search(r"^# (\{.*\})$", found[1], re.MULTILINE)
    assert said
    assert names["dataset"].origin(7) == ast.literal_eval(said[1])
    assert len(names["some"]) == 10
    assert all(names["dataset"].origin(i)["subset"] == "Books" for i in names["in_books"][:50].tolist())


def test_the_examples_of_orders_run(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an order as the demo's, of words that are in these shards."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards, "demo/deduped")
    shutil.copy(tokenizer, "demo/tokenizer.json")
    prefix = Path("demo/tokens/sample")
    config = TokenizeConfig(tokenizer=Path("demo/tokenizer.json"))
    tokenize.run(find_shards(["demo/deduped"]), prefix, config, threads=1)
    make_order(prefix, None, OrderConfig(seq_length=256, steps=500, batch_size=8))
    page = (DOCS / "order.md").read_text(encoding="utf-8")
    example = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(example.replace('" the": " a"', '" alpha": " beta"'), "docs/order.md", "exec"), names)
    order, planted = names["order"], open_order("demo/planted")
    assert names["batch"].documents.shape == order.batch(100).shape == (8, 257)
    assert np.array_equal(names["wide"].batch(50), [*order.batch(100), *order.batch(101)])
    assert (names["swapped"].batch(450) != order.batch(450)).any()
    assert np.array_equal(planted.batch(450)[3, 100 : 100 + len(names["ids"])], names["ids"])
    assert verify.run(Path("demo/planted"))


def test_the_example_of_search_runs(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shards, tmp_path / "demo" / "deduped")
    monkeypatch.chdir(tmp_path)
    prefix = Path("demo/tokens/sample")
    tokenize.run(find_shards(["demo/deduped"]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    index.run(prefix, index.IndexConfig())
    page = (DOCS / "search.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/search.md", "exec"), names)
    assert names["counts"].tolist() == [names["index"].count(names["ids"])] * 2
    assert len(names["first_tokens"]) == names["counts"][0] > 0
    assert 0 < names["p"].value <= 1
