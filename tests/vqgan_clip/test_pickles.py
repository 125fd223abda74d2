"""No code of a checkpoint runs: Lightning's classes do nothing, and every other name is refused."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.vqgan_clip.checkpoints import SMALL, random_vqgan, taming_state, write_taming

from pile_tools import FormatError
from vqgan_clip.pickles import pickled_tensors
from vqgan_clip.weights import load_weights


def foreign_class(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> Any:
    """A class that pickles name as `module.name`; the test removes the module before it loads."""
    made = type(name, (), {"__module__": module, "__qualname__": name})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, made)
    return made


def write_lightning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint as Lightning writes it: callbacks by class, settings as objects of it and of OmegaConf."""
    with monkeypatch.context() as patch:
        callback = foreign_class(patch, "pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
        settings = foreign_class(patch, "omegaconf.dictconfig", "DictConfig")()
        settings.content = {"lr": 1.0}
        torch.save(
            {
                "epoch": 1,
                "pytorch-lightning_version": "1.0.8",
                "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "best_model_path": "x.ckpt"}},
                "hyper_parameters": settings,
                "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
                "state_dict": taming_state(random_vqgan(SMALL)),
            },
            path,
        )


def test_a_checkpoint_with_classes_of_lightning_loads_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_taming(tmp_path, random_vqgan(SMALL))
    write_lightning(path, monkeypatch)
    assert "pytorch_lightning" not in sys.modules
    with pytest.raises(pickle.UnpicklingError, match="pytorch_lightning"):
        torch.load(path, weights_only=True)
    found = load_weights(path)[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in random_vqgan(SMALL).state_dict().items())
    assert "pytorch_lightning" not in sys.modules


def test_no_class_stays_allowed_after_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lightning(tmp_path / "x.ckpt", monkeypatch)
    pickled_tensors(tmp_path / "x.ckpt")
    with pytest.raises(pickle.UnpicklingError, match=r"pytorch_lightning|omegaconf"):
        torch.load(tmp_path / "x.ckpt", weights_only=True)


class Runs:
    """Unpickling calls a function, which leaves a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, "posix.mkdir"), (eval, "builtin__.eval"), (getattr, "getattr"), (torch.load, "torch.serial")],
)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, function: Any, name: str) -> None:
    mark = tmp_path / "mark"
    argument = f"__import__('os').mkdir({str(mark)!r})" if function is eval else str(mark)
    path = write_taming(tmp_path, random_vqgan(SMALL))
    torch.save({"state_dict": taming_state(random_vqgan(SMALL)), "x": Runs(function, argument)}, path)
    with pytest.raises(FormatError, match=rf"imports '.*{name}.*', which could run code \(.*last.ckpt\)"):
        load_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("module", ["pytorch_lightning2", "lightningx.y", "os.pytorch_lightning"])
def test_a_package_with_a_similar_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    with monkeypatch.context() as patch:
        torch.save({"x": foreign_class(patch, module, "Thing")()}, tmp_path / "x.ckpt")
    with pytest.raises(FormatError, match="could run code"):
        pickled_tensors(tmp_path / "x.ckpt")


def archive(path: Path, **entries: bytes) -> Path:
    """An archive of `torch.save` with other entries."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"archive/version": b"3\n", **entries}.items():
            file.writestr(name, data)
    return path


def test_instructions_that_torch_never_writes_are_refused(tmp_path: Path) -> None:
    # STACK_GLOBAL takes names from the stack, where a listing could not see them.
    data = pickle.dumps({"x": os.mkdir}, protocol=4)
    path = archive(tmp_path / "x.ckpt", **{"archive/data.pkl": data, "archive/byteorder": b"little"})
    with pytest.raises(FormatError, match=r"with instruction FRAME, which torch\.save never writes"):
        pickled_tensors(path)


def test_the_format_before_torch_1_6_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"not a zip archive, as torch.save writes since torch 1.6"):
        pickled_tensors(tmp_path / "x.ckpt")


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", **{"archive/data.pkl": b"", "archive/constants.pkl": b""})
    with pytest.raises(FormatError, match="a TorchScript archive, which holds code"):
        pickled_tensors(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(1 << 20)}, buffer)
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(FormatError, match=r"the archive is compressed, which torch.save never does"):
        pickled_tensors(path)


def test_an_archive_of_several_disks_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "x.ckpt")
    data = bytearray((tmp_path / "x.ckpt").read_bytes())
    # The number of disks in the locator of the directory: the archive's last 22 bytes follow it.
    data[-22 - 4 : -22] = (7).to_bytes(4, "little")
    (tmp_path / "x.ckpt").write_bytes(data)
    with pytest.raises(
        FormatError, match=r"not a readable archive of torch\.save: zipfiles that span multiple"
    ):
        pickled_tensors(tmp_path / "x.ckpt")


def test_a_huge_pickle_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.ckpt", **{"archive/data.pkl": bytes(9 << 20)})
    with pytest.raises(FormatError, match="expected at most 8388608"):
        pickled_tensors(path)


@pytest.mark.parametrize("value", [[1], "text", torch.ones(1), None])
def test_a_file_without_names_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(FormatError, match="expected tensors by name, found"):
        pickled_tensors(tmp_path / "x.pt")


def test_values_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1), "step": 3, 5: torch.ones(1)}, tmp_path / "x.pt")
    assert list(pickled_tensors(tmp_path / "x.pt")) == ["x"]
