"""What the README shows in Python runs as it stands there, and its figures and versions are true."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

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
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    example = next(block for block in blocks if "pile_tools.tokenize(" in block)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards, "demo/deduped")
    shutil.copy(tokenizer, "demo/tokenizer.json")
    prefix = Path("demo/tokens/sample")
    config = TokenizeConfig(tokenizer=Path("demo/tokenizer.json"))
    make_dataset(find_shards(["demo/deduped"]), prefix, config, threads=1)
    make_order(prefix, prefix.parent, OrderConfig(seq_length=32, steps=120, batch_size=4, seed=1))
    values: dict[str, object] = {}
    exec(example, values)
    assert values["batch"].shape == (4, 33)  # type: ignore[attr-defined]
    assert values["origin"]["shard"].startswith("demo/deduped/")  # type: ignore[index]


def test_the_figures_of_speed_are_those_of_the_benchmarks() -> None:
    """Each figure with a unit occurs in benches/RESULTS.md; a peer is in bold if it is faster."""
    found = re.search(
        r"^\| job \| pile-tools \| peer \|\n\|[-|]+\|\n((?:\|.*\n)+)", README.read_text(), re.MULTILINE
    )
    assert found
    results = README.with_name("benches").joinpath("RESULTS.md").read_text()
    known = set(re.findall(r"\d[\d,.]*\d", results))
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]
    assert len(rows) >= 8
    for job, ours, peers in rows:
        figures = [re.findall(r"\d+\.\d+(?= (?:MB/s|s|ms|CPU s|M tokens))", cell) for cell in (ours, peers)]
        assert len(figures[0]) == 1
        assert figures[1]
        assert {*figures[0], *figures[1]} <= known, job
        is_rate = "/" in ours
        own, first = float(figures[0][0]), float(figures[1][0])
        assert peers.startswith("**") == (first > own if is_rate else first < own), job


def test_the_lowest_python_has_every_package() -> None:
    """`make setup` installs these versions, whichever Python made the list of them."""
    [lowest] = re.findall(r"with Python >= (\S+),", README.read_text())
    needs = {
        f"{package.name}=={package.version}": package.metadata["Requires-Python"]
        for package in metadata.distributions()
    }
    assert len(needs) > 100
    refused = {name: need for name, need in needs.items() if need and f"{lowest}.0" not in SpecifierSet(need)}
    assert refused == {}
