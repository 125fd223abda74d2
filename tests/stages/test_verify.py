"""Verifying: what is right passes, every kind of damage is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pile_tools import PileError, VerifyError
from pile_tools.stages import order, tokenize, verify
from pile_tools.stages.train_tokenizer import TrainTokenizerConfig
from pile_tools.stages.train_tokenizer import run as train_tokenizer


@pytest.fixture
def chain(tmp_path: Path, shards: Path) -> Path:
    """Shards, tokenizer, dataset and order in one folder."""
    shutil.copytree(shards, tmp_path / "shards")
    found = sorted((tmp_path / "shards").iterdir())
    train_tokenizer(found, tmp_path / "tokenizer.json", TrainTokenizerConfig(vocab_size=300), threads=1)
    config = tokenize.TokenizeConfig(tokenizer=tmp_path / "tokenizer.json")
    tokenize.run(found, tmp_path / "tokens" / "d", config, threads=1)
    order.run(tmp_path / "tokens" / "d", tmp_path / "order", order.OrderConfig(seq_length=16, samples=20))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["order", "order/order.json", "tokens", "tokens/d", "tokens/d.bin", "tokens/d.idx", "tokenizer.json"],
)
def test_what_is_right_passes(chain: Path, name: str) -> None:
    checks = verify.run(chain / name, chain=True)
    assert {check.state for check in checks} == {"ok"}
    assert any("00.jsonl" in check.what for check in checks), "the chain ends at the shards"


def test_it_holds_after_a_move(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("moved") / "here"
    shutil.copytree(chain, place)
    shutil.rmtree(chain)
    assert {check.state for check in verify.run(place / "order", chain=True)} == {"ok"}


@pytest.mark.parametrize(
    ("damaged", "verified", "named"),
    [
        ("tokens/d.bin", "tokens/d", "another SHA-256"),
        ("tokens/d.idx", "tokens/d", "d.idx"),
        ("tokens/d.bin", "order", "another dataset"),
        ("shards/02.jsonl", "tokens/d", "02.jsonl has another SHA-256"),
        ("tokenizer.json", "tokens/d", "tokenizer.json has another SHA-256"),
        ("shards/02.jsonl", "order", "02.jsonl has another SHA-256"),
    ],
)
def test_a_changed_byte_is_named(chain: Path, damaged: str, verified: str, named: str) -> None:
    path = chain / damaged
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=named):
        verify.run(chain / verified, chain=True)


def test_a_missing_output_is_wrong_and_a_missing_input_absent(chain: Path) -> None:
    shutil.rmtree(chain / "shards")
    states = [check.state for check in verify.run(chain / "tokens" / "d")]
    assert states.count("absent") == 4
    next((chain / "order").glob("*_doc_idx.npy")).unlink()
    with pytest.raises(VerifyError, match=r"doc_idx\.npy is not here"):
        verify.run(chain / "order")


def test_a_dataset_of_another_tool_has_its_structure_checked(golden: Path, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx"):
        shutil.copy(golden / "dataset" / f"zero{suffix}", tmp_path)
    assert [check.state for check in verify.run(tmp_path / "zero")] == ["ok", "unsure"]
    with (tmp_path / "zero.bin").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(VerifyError, match="index speaks of"):
        verify.run(tmp_path / "zero")


def test_what_has_no_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(PileError, match="no manifest"):
        verify.run(tmp_path)
