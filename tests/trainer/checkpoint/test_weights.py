"""Weight folders: whole and in shards, safetensors and torch.save's, damaged and hostile."""

from __future__ import annotations

import collections
import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import trainer
from pile_tools.errors import FormatError
from trainer.checkpoint import hf, weights
from trainer.model.neox import GPTNeoX

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ModelOf = Callable[..., GPTNeoX]
KINDS = ["safetensors", "bin"]


@pytest.fixture
def model(model_of: ModelOf) -> GPTNeoX:
    return model_of(hidden_size=32, n_layers=2)


@pytest.fixture
def folder(model: GPTNeoX, tmp_path: Path) -> Path:
    """A folder with a config.json and no weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf.model_config(model.shape, "float32", 0)))
    return folder


def save(weights: dict[str, Tensor], path: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file(weights, path, metadata={"format": "pt"})
    else:
        torch.save(collections.OrderedDict(weights), path)


def stem(kind: str) -> tuple[str, str]:
    return ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")


def write_whole(weights: dict[str, Tensor], folder: Path, kind: str) -> Path:
    path = folder / ".".join(stem(kind))
    save(weights, path, kind)
    return path


def write_shards(weights: dict[str, Tensor], folder: Path, kind: str, n: int = 3) -> Path:
    """Writes shards and their index, whose path is returned."""
    name, suffix = stem(kind)
    names = list(weights)
    weight_map = {}
    for i in range(n):
        shard = f"{name}-{i + 1:05}-of-{n:05}.{suffix}"
        save({key: weights[key] for key in names[i::n]}, folder / shard, kind)
        weight_map |= dict.fromkeys(names[i::n], shard)
    index = folder / f"{name}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def assert_same(folder: Path, model: GPTNeoX) -> None:
    read = trainer.load_model(folder).state_dict()
    assert read.keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(read[name], weight), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", [write_whole, write_shards])
def test_every_form_is_read(model: GPTNeoX, folder: Path, write: Callable[..., Path], kind: str) -> None:
    old = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}
    write({**model.state_dict(), **old}, folder, kind)
    assert_same(folder, model)


@pytest.mark.parametrize("write", [write_whole, write_shards])
def test_weights_that_are_not_kept_take_the_memory_of_one(
    model: GPTNeoX, folder: Path, write: Callable[..., Path]
) -> None:
    expected = model.state_dict()
    write(expected, folder, "safetensors")
    alive: list[weakref.ref[Tensor]] = []
    for name, tensor in weights.each_weight(folder, expected):
        assert torch.equal(tensor, expected[name])
        assert not any(reference() is not None for reference in alive[:-1])
        alive.append(weakref.ref(tensor))
    assert len(alive) == len(expected)


@torch.no_grad()
@pytest.mark.parametrize("size", ["20KB", "1GB"])
def test_what_transformers_writes_is_read(model: GPTNeoX, folder: Path, tmp_path: Path, size: str) -> None:
    transformers = pytest.importorskip("transformers")
    write_whole(model.state_dict(), folder, "safetensors")
    theirs = transformers.GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "saved", max_shard_size=size)
    assert (tmp_path / "saved" / "model.safetensors.index.json").exists() == (size == "20KB")
    assert_same(tmp_path / "saved", model)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_same_shards(model: GPTNeoX, folder: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    write_shards(model.state_dict(), folder, kind)
    tokens = torch.arange(30)[None]
    theirs = transformers.GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(trainer.load_model(folder)(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)


def test_safetensors_go_before_pickles(model: GPTNeoX, folder: Path) -> None:
    write_shards(model.state_dict(), folder, "safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert_same(folder, model)
    write_whole(model.state_dict(), folder, "safetensors")
    (folder / "model.safetensors.index.json").write_text("not read")
    assert_same(folder, model)


def test_weights_that_change_while_they_are_read_are_no_weights(model: GPTNeoX, folder: Path) -> None:
    """The library maps the file: what is cut off later reads as zeros, and a checksum was made before."""
    write_whole(model.state_dict(), folder, "safetensors")
    path = folder / "model.safetensors"
    read = weights.read_safetensors(path)
    name, tensor = next(iter(read))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(FormatError, match="changed while it was read"):
        list(read)
    assert torch.equal(tensor, model.state_dict()[name])


def write_sparse(path: Path, name: str, n_bytes: int) -> None:
    """A safetensors file with one tensor, of which nothing is on disk."""
    tensor = {name: {"dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}}
    header = json.dumps(tensor).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + n_bytes)


@pytest.mark.parametrize("name", ["gpt_neox.embed_in.weight", "no.tensor.of.a.model"])
def test_no_memory_is_taken_for_tensors_that_the_model_has_not(
    model: GPTNeoX, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_sparse(folder / "model.safetensors", name, 1 << 30)

    def clone(tensor: Tensor) -> Tensor:
        raise AssertionError(f"memory was taken for {tensor.shape}")

    monkeypatch.setattr(Tensor, "clone", clone)
    with pytest.raises(FormatError, match=r"has shape|no tensor"):
        trainer.load_model(folder)


def test_no_weights_are_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights here, expected model\.safetensors"):
        trainer.load_model(folder)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [write_whole, write_shards])
def test_code_in_a_pickle_is_refused_and_not_run(
    model: GPTNeoX, folder: Path, write: Callable[..., Path]
) -> None:
    mark = folder / "ran"
    write({**model.state_dict(), "x": Touch(mark)}, folder, "bin")
    with pytest.raises(FormatError, match="which could run code"):
        trainer.load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("../out.safetensors", "/etc/passwd", "a/model.safetensors", "..", ".", "", "model.bin"),
        *("a\\model.safetensors", "model.safetensors\0", "./model.safetensors", 3, None, ["x"]),
    ],
)
def test_an_index_names_files_of_its_folder_only(model: GPTNeoX, folder: Path, name: object) -> None:
    save(model.state_dict(), folder.parent / "out.safetensors", "safetensors")
    index = {"weight_map": dict.fromkeys(model.state_dict(), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"expected a file \*\.safetensors of this folder"):
        trainer.load_model(folder)


def test_links_lead_out_of_the_folder_in_the_hub_cache_only(model: GPTNeoX, folder: Path) -> None:
    index = write_shards(model.state_dict(), folder, "safetensors")
    shard = next(folder.glob("*-00001-*"))
    shard.rename(folder.parent / "elsewhere")
    shard.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(FormatError, match="a link that leads out of the folder"):
        trainer.load_model(folder)
    snapshot, blobs = folder.parent / "snapshots" / "abc", folder.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate([*folder.iterdir()]):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert index.name in [path.name for path in snapshot.iterdir()]
    assert_same(snapshot, model)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": "x"}',
        "[" * 10**5,
        "\udcff",
    ],
)
def test_what_is_no_index_is_named(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FormatError, match=r"model\.safetensors\.index\.json"):
        trainer.load_model(folder)


NAME = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", [write_whole, write_shards])
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, f"no tensor {NAME}"),
        (torch.zeros(3, 2), rf"{NAME} has shape \(3, 2\), expected \(32, 128\)"),
        (torch.zeros(32, 128, dtype=torch.int64), f"{NAME} has dtype torch.int64"),
    ],
)
def test_a_tensor_of_another_kind_is_named(
    model: GPTNeoX,
    folder: Path,
    write: Callable[..., Path],
    kind: str,
    tensor: Tensor | None,
    message: str,
) -> None:
    weights = model.state_dict()
    del weights[NAME]
    write(weights if tensor is None else {**weights, NAME: tensor}, folder, kind)
    with pytest.raises(FormatError, match=message) as caught:
        trainer.load_model(folder)
    assert str(folder) in str(caught.value)


def test_a_tensor_that_repeats_its_storage_is_refused(model: GPTNeoX, folder: Path) -> None:
    write_whole({**model.state_dict(), NAME: torch.zeros(1).expand(32, 128)}, folder, "bin")
    with pytest.raises(FormatError, match=f"{NAME} does not hold all its values"):
        trainer.load_model(folder)


def test_a_negative_view_is_refused(model: GPTNeoX, folder: Path) -> None:
    """Its values have another sign than its bytes, which safetensors would hold."""
    write_whole({**model.state_dict(), NAME: torch._neg_view(torch.ones(32, 128))}, folder, "bin")
    with pytest.raises(FormatError, match=f"{NAME} is the negative view of other values"):
        trainer.load_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_index_and_shards_that_disagree_are_refused(model: GPTNeoX, folder: Path, kind: str) -> None:
    index = write_shards(model.state_dict(), folder, kind)
    text = index.read_text()
    values = json.loads(text)
    files = sorted(set(values["weight_map"].values()))
    other = next(name for name in files if name != values["weight_map"][NAME])
    for changed in ({**values["weight_map"], NAME: other}, {**values["weight_map"], "more": other}):
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(FormatError, match=r"by index or file|which the index says"):
            trainer.load_model(folder)
    del values["weight_map"][NAME]
    index.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=NAME):
        trainer.load_model(folder)
    index.write_text(text)
    assert_same(folder, model)
    (folder / other).unlink()
    with pytest.raises(FileNotFoundError, match=other):
        trainer.load_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_a_format_error(model: GPTNeoX, folder: Path, kind: str) -> None:
    path = write_whole(model.state_dict(), folder, kind)
    data = path.read_bytes()
    for size in (0, 1, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match=path.name.replace(".", r"\.")):
            trainer.load_model(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match="not a regular file"):
        trainer.load_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_of_headers_never_end_as_a_bug(model: GPTNeoX, folder: Path, kind: str) -> None:
    path = write_whole(model.state_dict(), folder, kind)
    data = path.read_bytes()
    spots = [*range(0, 400, 13), *range(len(data) - 300, len(data), 17)]
    for spot in spots:
        path.write_bytes(data[:spot] + bytes([data[spot] ^ 0x55]) + data[spot + 1 :])
        try:
            trainer.load_model(folder)
        except FormatError as err:
            message = str(err)
        else:
            continue
        assert path.name in message


def test_values_that_are_no_tensors_are_refused(folder: Path) -> None:
    for values in ([torch.zeros(2)], {"a": 1}, {1: torch.zeros(2)}, torch.zeros(2), None):
        torch.save(values, folder / "pytorch_model.bin")
        with pytest.raises(FormatError, match="expected tensors by name"):
            trainer.load_model(folder)
