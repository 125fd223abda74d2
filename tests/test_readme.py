"""What the README shows in Python runs as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as make_order
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.jobs.tokenize import run as make_dataset
from pile_tools.read.shards import find_shards

README = Path(__file__).parents[1] / "README.md"


def test_the_data_example_runs(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder as the demo leaves it."""
    example = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
        if "torch" not in block
    )
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards, "demo/shards")
    shutil.copy(tokenizer, "demo/tokenizer.json")
    prefix = Path("demo/tokens/sample")
    config = TokenizeConfig(tokenizer=Path("demo/tokenizer.json"))
    make_dataset(find_shards(["demo/shards"]), prefix, config, threads=1)
    make_order(prefix, prefix.parent, OrderConfig(seq_length=32, steps=120, batch_size=4, seed=1))
    values: dict[str, object] = {}
    exec(example, values)
    assert values["batch"].shape == (4, 33)  # type: ignore[attr-defined]
    assert values["origin"]["shard"].startswith("demo/shards/")  # type: ignore[index]
