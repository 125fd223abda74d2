"""The examples in the documentation run, and give what they say."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pile_tools.shards import find_shards
from pile_tools.stages import index, tokenize
from pile_tools.stages.tokenize import TokenizeConfig

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


def test_the_example_of_search_runs(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shards, tmp_path / "demo" / "shards")
    monkeypatch.chdir(tmp_path)
    prefix = Path("demo/tokens/sample")
    tokenize.run(find_shards(["demo/shards"]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    index.run(prefix, index.IndexConfig())
    page = (DOCS / "search.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/search.md", "exec"), names)
    assert names["counts"].tolist() == [names["index"].count(names["ids"])] * 2
    assert len(names["first_tokens"]) == names["counts"][0] > 0
    assert 0 < names["p"].value <= 1
