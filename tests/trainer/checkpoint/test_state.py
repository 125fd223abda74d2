"""The files of a state: their format, their layout, what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from pile_tools.errors import VerifyError
from trainer.checkpoint import tensor_files
from trainer.checkpoint.state import Layout, Logits
from trainer.checkpoint.tensor_files import TensorFile

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "scalar": torch.tensor(-0.0),
    "empty": torch.empty(0, 4),
    "b/ü": torch.tensor([float("nan"), -0.0, 1e-45]),
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensor_files.write(tmp_path / "f.safetensors", TENSORS)
    return tmp_path / "f.safetensors"


def bits(tensor: Tensor) -> list[int]:
    values: list[int] = tensor.flatten().view(torch.int32).tolist()
    return values


def test_a_file_is_read_by_us_and_by_safetensors_bit_for_bit(path: Path) -> None:
    theirs = load_file(path)
    with TensorFile(path, SHAPES) as file:
        for name, tensor in TENSORS.items():
            assert bits(file.tensor(name)) == bits(theirs[name]) == bits(tensor)
            assert file.tensor(name).shape == theirs[name].shape == tensor.shape


def test_the_entry_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    # Longer than what is written at once.
    entry = tensor_files.write(tmp_path / "f", {"x": torch.rand(3_000_001)})
    data = (tmp_path / "f").read_bytes()
    assert entry == {"path": "f", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with TensorFile(tmp_path / "f", {"x": (3_000_001,)}) as file:
        file.verify(entry)
        with pytest.raises(VerifyError, match="other bytes than were saved"):
            file.verify({**entry, "sha256": "0" * 64})


def test_other_tensors_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"bytes, expected .* of this model"):
        TensorFile(path, {**SHAPES, "a": (2, 4)})
    with pytest.raises(VerifyError, match="not the tensors of this model"):
        TensorFile(path, {**SHAPES, "a": (3, 2)})
    with pytest.raises(VerifyError, match="missing"):
        TensorFile(tmp_path / "absent", SHAPES)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(VerifyError, match="a link"):
        TensorFile(tmp_path / "link", SHAPES)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VerifyError, match="0 bytes"):
        TensorFile(tmp_path / "pipe", SHAPES)


def test_a_file_that_is_in_the_way_stays(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        tensor_files.write(path, TENSORS)
    assert path.read_bytes() == before


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40), st.integers(1, 3000))
def test_a_layout_has_every_parameter_once_in_order_in_files_of_bounded_size(
    sizes: list[int], max_bytes: int
) -> None:
    parameters = {f"p{i}": (size,) for i, size in enumerate(sizes)}
    layout = Layout.of(parameters, max_bytes=max_bytes)
    names = [name for shapes in layout.files for name in shapes]
    kinds = ("weight", "exp_avg", "exp_avg_sq")
    assert names == [f"{kind}/{name}" for name in parameters for kind in kinds]
    for shapes in layout.files:
        n_bytes = 4 * sum(shape[0] for shape in shapes.values())
        assert n_bytes <= max_bytes or len(shapes) == len(kinds)
    assert all(layout.names[layout.file_of(name)] for name in names)


def test_eight_processes_share_the_writing_of_a_small_model() -> None:
    layout = Layout.of({f"p{i}": (100,) for i in range(80)})
    assert len(layout.files) == 8


def test_logits_of_another_model_are_refused() -> None:
    logits = torch.linspace(-4, 4, 32 * 50).view(1, 32, 50)
    saved = Logits.of(logits)
    saved.check(Logits.of(logits), Path("manifest.json"))
    saved.check(Logits.of(logits * 1.001), Path("manifest.json"))
    for other in (logits * 2, -logits, logits * float("nan")):
        with pytest.raises(VerifyError, match="other logits"):
            saved.check(Logits.of(other), Path("manifest.json"))


def test_logits_of_weights_that_diverged_are_compared() -> None:
    logits = torch.linspace(-4, 4, 32 * 50).view(1, 32, 50)
    logits[0, -1, 2:] = float("inf")
    saved = Logits.of(logits)
    saved.check(Logits.of(logits), Path("manifest.json"))
    saved.check(Logits.of(logits * 1.001), Path("manifest.json"))
    for other in (logits.nan_to_num(posinf=4.0), logits * 2):
        with pytest.raises(VerifyError, match="other logits"):
            saved.check(Logits.of(other), Path("manifest.json"))
