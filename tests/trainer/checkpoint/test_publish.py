"""Checkpoints: written, read back by us and by transformers, missing, damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import trainer
from pile_tools import manifest
from pile_tools.errors import FormatError, PileError, VerifyError
from trainer.checkpoint import hf_folder
from trainer.checkpoint.load import verify_checkpoint
from trainer.checkpoint.publish import publish
from trainer.config import ModelConfig, TrainConfig
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.run import Run, plan, writing

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ModelOf = Callable[..., GPTNeoX]


@pytest.fixture
def run(order: Path, tokenizer: Path, tmp_path: Path) -> Run:
    model = ModelConfig(hidden_size=48, n_layers=2, n_heads=4, rotary_pct=0.5)
    return plan(TrainConfig(order=order, output=tmp_path / "run", tokenizer=tokenizer, model=model))


@pytest.fixture
def model(run: Run) -> GPTNeoX:
    model = GPTNeoX(run.recipe.shape)
    initialize(model, 5)
    return model


def published(run: Run, model: GPTNeoX, step: int) -> Path:
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with writing(run.config.output) as scratch:
        return publish(run, weights, step, scratch)


def test_it_is_read_back(run: Run, model: GPTNeoX) -> None:
    published(run, model, 8)
    published(run, model, 0)
    assert trainer.list_steps(run.config.output) == [0, 8]
    read = trainer.load_checkpoint(run.config.output, 8)
    assert not read.training
    for name, weight in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], weight), name
    half = trainer.load_checkpoint(run.config.output, 8, dtype=torch.bfloat16)
    assert half.embed_out.weight.dtype == torch.bfloat16


@torch.no_grad()
def test_transformers_computes_the_same(run: Run, model: GPTNeoX) -> None:
    transformers = pytest.importorskip("transformers")
    folder = published(run, model, 8)
    theirs, report = transformers.GPTNeoXForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    tokens = torch.randint(0, model.shape.vocab_size, (3, 32), generator=torch.Generator().manual_seed(0))
    difference = (theirs(tokens).logits - trainer.load_model(folder)(tokens)).abs().max()
    assert difference <= 1e-5


def test_transformers_reads_the_tokenizer(run: Run, model: GPTNeoX) -> None:
    transformers = pytest.importorskip("transformers")
    assert run.tokenizer is not None
    read = transformers.AutoTokenizer.from_pretrained(published(run, model, 0))
    text = "alpha beta don't 日本語"
    assert read(text)["input_ids"] == list(run.tokenizer.encode(text))
    assert (read.eos_token, read.eos_token_id) == run.tokenizer.eod


@torch.no_grad()
def test_a_folder_of_transformers_is_read(model_of: ModelOf, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        rotary_pct=0.5,
    )
    theirs = transformers.GPTNeoXForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(0, 96, (2, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trainer.load_model(tmp_path)(tokens), theirs(tokens).logits)


def test_the_manifest_names_its_order_and_files(run: Run, model: GPTNeoX) -> None:
    folder = published(run, model, 8)
    found = manifest.read(folder / "manifest.json")
    assert found.kind == "checkpoint"
    assert found.settings["step"] == 8
    by_role = {entry["role"]: entry for entry in found.inputs}
    assert (folder / by_role["order"]["path"]).resolve() == run.order.path.resolve()
    assert {entry["path"] for entry in found.outputs} == {
        path.name for path in folder.iterdir() if path.name != "manifest.json"
    }


def test_every_file_has_the_mode_that_the_umask_gives(run: Run, model: GPTNeoX, usual_mode: int) -> None:
    """safetensors makes files that only their owner can read."""
    folder = published(run, model, 8)
    assert {path.name: oct(path.stat().st_mode) for path in folder.iterdir()} == {
        path.name: oct(usual_mode) for path in folder.iterdir()
    }


def test_weights_in_shards_have_the_mode_that_the_umask_gives(tmp_path: Path, usual_mode: int) -> None:
    names, _ = hf_folder.write_weights(tmp_path, [("a", torch.zeros(2)), ("b", torch.ones(2))], 8)
    assert len(names) == 3
    assert {oct((tmp_path / name).stat().st_mode) for name in names} == {oct(usual_mode)}


def test_the_same_weights_make_the_same_bytes(run: Run, model: GPTNeoX) -> None:
    folder = published(run, model, 8)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    published(run, model, 8)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_step_is_named_with_those_there_are(run: Run, model: GPTNeoX) -> None:
    with pytest.raises(PileError, match=r"no checkpoint of step 7; there are: none"):
        trainer.load_checkpoint(run.config.output, 7)
    published(run, model, 8)
    with pytest.raises(PileError, match=r"no checkpoint of step 7; there are: 8"):
        trainer.load_checkpoint(run.config.output, 7)


def test_a_damaged_file_is_found(run: Run, model: GPTNeoX) -> None:
    path = published(run, model, 8) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=r"model\.safetensors"):
        trainer.load_checkpoint(run.config.output, 8)


def test_a_changed_manifest_is_found(run: Run, model: GPTNeoX) -> None:
    """Its checksums decide what the right weights are."""
    path = published(run, model, 8) / "manifest.json"
    values = json.loads(path.read_text())
    values["summary"]["tokens"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(VerifyError, match=r"changed after it was written .*manifest\.json"):
        trainer.load_checkpoint(run.config.output, 8)


def test_a_missing_file_is_found(run: Run, model: GPTNeoX) -> None:
    folder = published(run, model, 8)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(VerifyError, match=r"missing of the checkpoint .*tokenizer\.json"):
        verify_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{", "not a safetensors file"),
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "a list, expected an object"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    run: Run, model: GPTNeoX, name: str, data: bytes, message: str
) -> None:
    folder = published(run, model, 8)
    (folder / name).write_bytes(data)
    with pytest.raises(FormatError, match=message):
        trainer.load_model(folder)


def test_weights_of_another_shape_are_refused(run: Run, model: GPTNeoX) -> None:
    folder = published(run, model, 8)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (({"vocab_size": 7}, "has shape"), ({"num_hidden_layers": 3}, "no tensor")):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(FormatError, match=message):
            trainer.load_model(folder)


def test_the_model_card_names_order_precision_step_and_tokens(run: Run, model: GPTNeoX) -> None:
    yaml = pytest.importorskip("yaml")
    text = (published(run, model, 8) / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "transformers"
    assert header["pile_tools"] == {
        "step": 8,
        "tokens": 8 * run.tokens_per_step,
        "order": manifest.read(run.order.path).sha256,
        "train_precision": "fp32",
    }
    assert "| step | 8 of 40 |" in text
    assert f"| order of the data | fingerprint {header['pile_tools']['order']} |" in text
    dataset = next(entry for entry in run.inputs(run.config.output) if "fingerprint" in entry)
    assert f"| dataset | fingerprint {dataset['fingerprint']} |" in text
    # The same run elsewhere has the same card.
    assert str(run.config.output) not in text
