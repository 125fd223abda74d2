"""Checkpoints of GPT-NeoX, in its layouts and split over ranks, are imported as the model they are of."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.trainer.neox.conftest import ENGINE, NEW, Write, configuration

from pile_tools import Tokenizer, manifest
from pile_tools.cli import run
from pile_tools.errors import FormatError
from trainer.checkpoint import hf, hf_folder
from trainer.checkpoint.load import load_model, verify_checkpoint
from trainer.cli import group
from trainer.model.neox import GPTNeoX
from trainer.neox import checkpoints

ModelOf = Callable[..., GPTNeoX]
TOKENS = torch.randint(0, 96, (3, 20), generator=torch.Generator().manual_seed(1))


def make_other(path: Path, kind: str) -> None:
    """Makes a pipe, a broken link or a folder."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("missing")


def imported(*words: str | Path) -> int:
    return run(group, ["import", *map(str, words)])


@pytest.fixture(scope="module")
def model(model_of: ModelOf) -> GPTNeoX:
    """One whose biases are sums of four equal parts, exactly."""
    return model_of(hidden_act="gelu_pytorch_tanh")


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
@pytest.mark.parametrize(("names", "is_pipeline"), [({}, True), (NEW, True), (ENGINE, True), (NEW, False)])
def test_logits_are_those_of_the_model(
    tmp_path: Path,
    write_checkpoint: Write,
    model: GPTNeoX,
    n_ranks: int,
    names: dict[str, str],
    is_pipeline: bool,
) -> None:
    run_folder = write_checkpoint(tmp_path / "run", model, n_ranks, names, is_pipeline=is_pipeline)
    assert imported(run_folder, "-o", tmp_path / "hf") == 0
    found = load_model(tmp_path / "hf")
    assert torch.equal(found(TOKENS), model(TOKENS))
    verify_checkpoint(tmp_path / "hf")
    made = manifest.read(tmp_path / "hf" / "manifest.json")
    assert (made.kind, made.settings) == ("model", {"format": "GPT-NeoX", "step": 3})
    n_files = n_ranks * (model.shape.n_layers + 3 if is_pipeline else 1)
    assert len(made.inputs) == n_files + 1


@pytest.mark.parametrize("names", [{}, ENGINE])
def test_sequential_blocks_have_whole_biases_in_every_rank(
    tmp_path: Path, write_checkpoint: Write, model_of: ModelOf, names: dict[str, str]
) -> None:
    model = model_of(hidden_act="gelu_pytorch_tanh", parallel_residual=False)
    folder = write_checkpoint(tmp_path / "run", model, 2, names)
    assert imported(folder, "-o", tmp_path / "hf") == 0
    assert torch.equal(load_model(tmp_path / "hf")(TOKENS), model(TOKENS))


def test_a_step_with_its_configuration_elsewhere(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "run", model, 2)
    config = tmp_path / "model.yml"
    (folder / "configs" / "model.yml").rename(config)
    assert imported(folder / "global_step3", "-o", tmp_path / "hf") == 2
    assert "no configs/*.yml with the checkpoint: give them by --config" in capsys.readouterr().err
    assert imported(folder / "global_step3", "-o", tmp_path / "hf", "--config", config) == 0
    assert torch.equal(load_model(tmp_path / "hf")(TOKENS), model(TOKENS))


def test_half_precision_stays_and_large_models_have_shards(
    tmp_path: Path, write_checkpoint: Write, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(seed=3).half()
    folder = write_checkpoint(tmp_path / "run", model, 2)
    monkeypatch.setattr(hf_folder.write_weights, "__defaults__", (20_000,))
    assert imported(folder, "-o", tmp_path / "hf") == 0
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 3
    weights = {name: tensor for file in files for name, tensor in load_file(tmp_path / "hf" / file).items()}
    assert weights.keys() == index["weight_map"].keys() == model.state_dict().keys()
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert index["metadata"]["total_size"] == 2 * model.shape.n_parameters
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == "float16"


def test_the_layout_of_20b(tmp_path: Path, write_checkpoint: Write, model_of: ModelOf) -> None:
    """44 blocks in layers 02 to 45, two ranks, the older names: only the width is another."""
    model = model_of(n_layers=44, hidden_size=16, n_heads=2, hidden_act="gelu_pytorch_tanh")
    folder = write_checkpoint(tmp_path / "run", model, 2)
    names = sorted(path.name for path in (folder / "global_step3").glob("layer_*"))
    assert names[-1] == "layer_48-model_01-model_states.pt"
    assert "layer_01-model_00-model_states.pt" not in names
    assert imported(folder, "-o", tmp_path / "hf") == 0
    assert torch.equal(load_model(tmp_path / "hf")(TOKENS), model(TOKENS).detach())


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_parts_that_repeat_their_storage_are_refused_before_they_are_merged(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str], n_ranks: int
) -> None:
    folder = write_checkpoint(tmp_path / "run", model, n_ranks)
    for path in (folder / "global_step3").glob("layer_00-*"):
        _resave(
            path, lambda values: values.update({"word_embeddings.weight": torch.zeros(1).expand(1 << 40, 1)})
        )
    assert imported(folder, "-o", tmp_path / "hf") == 1
    assert "word_embeddings.weight does not hold all its values" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "broken link", "folder"])
def test_a_tokenizer_that_is_no_file_is_named(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert imported(write_checkpoint(tmp_path / "run", model, 1), "-o", tmp_path / "hf") == 0
    path = tmp_path / "hf" / "tokenizer.json"
    make_other(path, kind)
    assert imported(tmp_path / "hf", "-o", tmp_path / "again") == 1
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self._path, "w"))


def _resave(path: Path, change: Callable[[Any], object]) -> None:
    values = torch.load(path, weights_only=False)
    change(values)
    torch.save(values, path)


LAYER = "layer_02-model_01-model_states.pt"

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file of a rank": (lambda f: (f / LAYER).unlink(), "no file of layer 02, model-parallel rank 01"),
    "no layer": (
        lambda f: [path.unlink() for path in f.glob("layer_03-*")],
        "layer 03 is missing of the model, which has 3 blocks",
    ),
    "one layer more": (
        lambda f: [shutil.copy(path, f / path.name.replace("_02-", "_09-")) for path in f.glob("layer_02-*")],
        "layer 09 is not of the model",
    ),
    "no tensor": (
        lambda f: _resave(f / LAYER, lambda v: v.pop("attention.dense.bias")),
        "no tensor attention.dense.bias: layer 02, model-parallel rank 01",
    ),
    "unknown tensor": (
        lambda f: _resave(f / LAYER, lambda v: v.update(more=torch.ones(2))),
        "unknown tensor 'more': layer 02, model-parallel rank 01",
    ),
    "two names": (
        lambda f: _resave(f / LAYER, lambda v: v.update({"mlp.linear1.bias": torch.ones(2)})),
        "several tensors for mlp.dense_h_to_4h.bias",
    ),
    "another shape": (
        lambda f: _resave(f / LAYER, lambda v: v.update({"attention.dense.bias": torch.ones(2)})),
        "attention.dense.bias of layer 02 cannot be merged",
    ),
    "a larger shape": (
        lambda f: [
            _resave(path, lambda v: v.update({"attention.query_key_value.bias": torch.ones(7)}))
            for path in f.glob("layer_02-*")
        ],
        "query_key_value.bias has shape (14,), expected (144,)",
    ),
    "no numbers": (
        lambda f: _resave(f / LAYER, lambda v: v.update({"attention.dense.bias": "text"})),
        "expected tensors by name",
    ),
    "cut short": (lambda f: (f / LAYER).write_bytes((f / LAYER).read_bytes()[:900]), LAYER),
    "a list": (lambda f: torch.save([1], f / LAYER), "expected tensors by name"),
    "a pickle": (lambda f: (f / LAYER).write_bytes(pickle.dumps(Evil(f / "ran"))), "refused"),
    "a planted pickle": (lambda f: torch.save({"x": Evil(f / "ran")}, f / LAYER), "refused to load a pickle"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, message = DAMAGES[name]
    folder = write_checkpoint(tmp_path / "run", model, 2)
    change(folder / "global_step3")
    assert imported(folder, "-o", tmp_path / "hf") == 1
    printed = capsys.readouterr()
    assert message in printed.err or name == "a pickle"
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "hf").exists()
    assert not (tmp_path / "hf.partial").exists()
    assert not (folder / "global_step3" / "ran").exists()


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (0, "word_embeddings.weight"),
        (2, "attention.dense.weight"),
        (2, "attention.dense.bias"),
        (2, "input_layernorm.weight"),
    ],
)
def test_parts_of_any_number_of_dimensions_are_named(
    tmp_path: Path,
    write_checkpoint: Write,
    model: GPTNeoX,
    capsys: pytest.CaptureFixture[str],
    layer: int,
    name: str,
) -> None:
    """Of each way in which parts are merged."""
    folder = write_checkpoint(tmp_path / "run", model, 2) / "global_step3"
    for n in (0, 1, 3):
        for path in folder.glob(f"layer_{layer:02}-*"):
            _resave(path, lambda values, n=n: values.update({name: torch.ones([2] * n)}))
        assert imported(folder.parent, "-o", tmp_path / "hf") == 1, n
        assert f"{name} " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "is_pipeline"),
    [("layer_000-model_00-model_states.pt", True), ("mp_rank_000_model_states.pt", False)],
)
def test_two_files_of_one_rank_are_named(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, name: str, is_pipeline: bool
) -> None:
    folder = write_checkpoint(tmp_path / "run", model, is_pipeline=is_pipeline) / "global_step3"
    (folder / name).write_bytes((folder / name.replace("000", "00")).read_bytes())
    with pytest.raises(FormatError, match=rf"{name}.* are of one layer and rank"):
        checkpoints.find(folder)


def test_a_planted_pickle_in_a_rank_is_not_run(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "run", model, is_pipeline=False)
    path = folder / "global_step3" / "mp_rank_00_model_states.pt"
    _resave(path, lambda values: values.update(more=Evil(tmp_path / "ran")))
    assert imported(folder, "-o", tmp_path / "hf") == 1
    assert "refused to load a pickle that imports" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["f8", "O"])
def test_arrays_of_a_rank_take_no_memory(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, kind: str
) -> None:
    """Two numbers in a pickle say how large they are."""
    folder = write_checkpoint(tmp_path / "run", model, is_pipeline=False)
    path = folder / "global_step3" / "mp_rank_00_model_states.pt"
    _resave(path, lambda values: values.update(more=Array(2**50, kind)))
    assert imported(folder, "-o", tmp_path / "hf") == 0


class Array:
    """Unpickling makes an array of any size."""

    def __init__(self, n: int, kind: str) -> None:
        self.n, self.kind = n, kind

    def __reduce__(self) -> Any:
        return np.ndarray, ((self.n,), self.kind)


def test_states_of_a_pipeline_without_its_layers_are_named(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "run", model)
    for path in (folder / "global_step3").glob("layer_*"):
        path.unlink()
    assert imported(folder, "-o", tmp_path / "hf") == 1
    assert "has no weights under 'module'" in capsys.readouterr().err


def test_a_configuration_of_another_model_is_named(
    tmp_path: Path, write_checkpoint: Write, model: GPTNeoX, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "run", model)
    config = folder / "configs" / "model.yml"
    stored = configuration(model)
    for change, message in (
        (('"norm": "layernorm"', '"norm": "rmsnorm"'), 'norm is "rmsnorm", but here it is: layer norms'),
        (('"num-layers": ', '"num-layers": 9999'), "n_layers must be in [1, 1000]"),
        (('"num-layers": ', '"num-layers": -'), "n_layers must be >= 1"),
        (('"rotary-pct": ', '"rotary-pct": 5'), "rotary_pct must be in [0, 1]"),
        (('"num-attention-heads": ', '"num-attention-heads": 7'), "is not a multiple of n_heads"),
        (('"max-position-embeddings": ', '"max-position-embeddings": -'), "max_positions must be >= 1"),
    ):
        config.write_text(stored.replace(*change))
        assert imported(folder, "-o", tmp_path / "hf") == 1, message
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.endswith(f"({config})\n")


def test_no_more_of_latest_is_read_than_a_name(tmp_path: Path) -> None:
    """A sparse file takes no disk, whatever its size."""
    (tmp_path / "latest").touch()
    os.truncate(tmp_path / "latest", 64 << 20)
    tracemalloc.start()
    assert checkpoints._step_folder(tmp_path) == tmp_path
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_latest_names_a_step_alone(tmp_path: Path, write_checkpoint: Write, model: GPTNeoX) -> None:
    folder = write_checkpoint(tmp_path / "run", model)
    assert checkpoints.find(folder).step == 3
    for name in ("../elsewhere", "/etc", "\0", "x" * 10_000, ""):
        (folder / "latest").write_text(name)
        assert not checkpoints.is_checkpoint(folder)
        with pytest.raises(FormatError, match="no layer_NN"):
            checkpoints.find(folder)


@pytest.fixture
def hugging_face(tmp_path: Path, model_of: ModelOf, tokenizer: Path) -> Path:
    """A folder with a tokenizer and weights of torch.save in two shards, as older conversions have."""
    folder = tmp_path / "source"
    folder.mkdir()
    model = model_of(vocab_size=Tokenizer.from_file(tokenizer).vocab_size)
    weights = list(model.state_dict().items())
    half = len(weights) // 2
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for name, part in zip(names, (weights[:half], weights[half:]), strict=True):
        torch.save(dict(part), folder / name)
    weight_map = {name: names[i >= half] for i, (name, _) in enumerate(weights)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(hf.model_config(model.shape, "float32", None)))
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder


def test_a_hugging_face_folder_is_imported(
    tmp_path: Path, hugging_face: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "hf"
    assert imported(hugging_face, "-o", output) == 0
    assert torch.equal(load_model(output)(TOKENS), load_model(hugging_face)(TOKENS))
    assert sorted(path.name for path in output.iterdir()) == [
        *("README.md", "config.json", "manifest.json", "model.safetensors", "tokenizer.json"),
        "tokenizer_config.json",
    ]
    roles = [entry["role"] for entry in manifest.read(output / "manifest.json").inputs]
    assert roles == ["model"] * 4 + ["tokenizer"]
    capsys.readouterr()
    assert imported(hugging_face, "-o", output) == 0
    assert capsys.readouterr().out == f"{output} is finished already, nothing to do\n"
    (hugging_face / "config.json").write_text(
        (hugging_face / "config.json")
        .read_text()
        .replace('"torch_dtype"', '"dtype_"')
        .replace("dtype_", "torch_dtype")
    )
    assert imported(hugging_face, "-o", output) == 0
    assert run(group, ["generate", str(output), "x", "--max-tokens", "3"]) == 0


def test_a_tokenizer_with_more_ids_than_the_model_is_named(
    tmp_path: Path, hugging_face: Path, capsys: pytest.CaptureFixture[str], model_of: ModelOf
) -> None:
    model = model_of(vocab_size=20)
    for path in hugging_face.glob("pytorch_model*"):
        path.unlink()
    torch.save(model.state_dict(), hugging_face / "pytorch_model.bin")
    config = hf.model_config(model.shape, "float32", None)
    (hugging_face / "config.json").write_text(json.dumps(config))
    for words in (["import", hugging_face, "-o", tmp_path / "hf"], ["generate", hugging_face, "alpha"]):
        assert run(group, [str(word) for word in words]) == 1
        message = capsys.readouterr().err
        assert "another model's tokenizer: it has " in message
        assert message.endswith(f"({hugging_face / 'tokenizer.json'})\n")


def test_tensors_of_one_storage_become_two(tmp_path: Path, model_of: ModelOf) -> None:
    model = model_of()
    (tmp_path / "source").mkdir()
    weights = model.state_dict()
    weights["embed_out.weight"] = weights["gpt_neox.embed_in.weight"]
    torch.save(weights, tmp_path / "source" / "pytorch_model.bin")
    config = hf.model_config(model.shape, "float32", None)
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    assert imported(tmp_path / "source", "-o", tmp_path / "hf") == 0
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert torch.equal(found["embed_out.weight"], weights["gpt_neox.embed_in.weight"])
    assert found.keys() == weights.keys()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{in}", "-o", "{in}"], 2, ""),
        (["{in}", "-o", "{out}", "--config", "x.yml"], 2, "--config is for checkpoints of GPT-NeoX"),
        (["{out}", "-o", "{out}2"], 1, "No such file"),
        (["{empty}", "-o", "{out}"], 1, "no model of Hugging Face or GPT-NeoX"),
        (["{in}", "-o", "{out}", "--tokenizer", "{in}/config.json"], 1, "config.json"),
    ],
)
def test_other_sources_are_named(
    tmp_path: Path,
    hugging_face: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in hugging_face.iterdir())
    names = {"in": hugging_face, "out": tmp_path / "hf", "empty": tmp_path / "empty"}
    found = imported(*(word.format(**names) for word in words))
    printed = capsys.readouterr()
    assert found == code, printed.err
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(path.name for path in hugging_face.iterdir()) == before
