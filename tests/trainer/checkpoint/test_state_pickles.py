"""Files of a state: what our saves hold passes and is read back, every trick with a pickle is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pile_tools.errors import FormatError, PileError, VerifyError
from trainer.checkpoint import state_pickles
from trainer.checkpoint.state_files import Reader, Writer

NAME = "mp_rank_00_model_states.pt"


def state() -> dict[str, Any]:
    """Values as DeepSpeed saves them, without its own classes."""
    return {
        "module": OrderedDict(weight=torch.arange(600.0), half=torch.ones(3, dtype=torch.bfloat16)),
        "param_shapes": [OrderedDict(weight=torch.Size([600]))],
        "steps": 40,
        "betas": (0.9, 0.95),
        "nothing": None,
        "flags": [True, False],
    }


@pytest.fixture
def saved(tmp_path: Path) -> Writer:
    writer = Writer()
    writer.save(state(), str(tmp_path / NAME))
    return writer


def test_a_state_is_read_back(tmp_path: Path, saved: Writer) -> None:
    reader = Reader(tmp_path, saved.entries)
    for verify_first in (True, False):
        if verify_first:
            reader.verify([NAME])
        found = reader.load(str(tmp_path / NAME))
        assert torch.equal(found["module"]["weight"], state()["module"]["weight"])
        assert found["module"]["half"].dtype == torch.bfloat16
        assert {key: found[key] for key in found if key != "module"} == {
            key: value for key, value in state().items() if key != "module"
        }
    reader.close()


def test_equal_states_are_equal_bytes(tmp_path: Path, saved: Writer) -> None:
    (tmp_path / NAME).unlink()
    again = Writer()
    again.save(state(), str(tmp_path / NAME))
    assert again.entries == saved.entries


def test_no_file_is_written_over(tmp_path: Path, saved: Writer) -> None:
    with pytest.raises(FileExistsError):
        saved.save(state(), str(tmp_path / NAME))


def test_every_damage_is_found_and_named(tmp_path: Path, saved: Writer) -> None:
    path = tmp_path / NAME
    whole = path.read_bytes()
    damages = [whole[:n] for n in range(0, len(whole), 97)]
    damages += [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(0, len(whole), 89)]
    damages += [whole + b"\0", b""]
    for data in damages:
        path.write_bytes(data)
        with pytest.raises(VerifyError, match=NAME):
            Reader(tmp_path, saved.entries).load(str(path))


@pytest.mark.parametrize("what", ["missing", "link", "pipe", "folder", "not listed"])
def test_only_a_listed_regular_file_is_read(tmp_path: Path, saved: Writer, what: str) -> None:
    path = tmp_path / NAME
    path.rename(tmp_path / "moved")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("moved"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "not listed": lambda: (tmp_path / "moved").rename(path),
    }
    make.get(what, lambda: None)()
    with pytest.raises((PileError, OSError)):
        Reader(tmp_path, {} if what == "not listed" else saved.entries).load(str(path))


def archive(data: bytes, more: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A torch file with this pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        members = {"archive/data.pkl": data, "archive/byteorder": b"little", "archive/version": b"3\n"}
        for name, content in (members | (more or {})).items():
            file.writestr(name, content, **options)
    return buffer.getvalue()


def checked(data: bytes) -> None:
    state_pickles.check(io.BytesIO(data), "state.pt")


class Runs:
    """Unpickles to a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch CODE-RAN",)


class Builds:
    """Unpickles by a class of another module and its state."""


def by_name(module: str, name: str) -> bytes:
    """A pickle that only imports."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."


#: A call of os.system in text, by the instructions of protocol 0 and 1.
CALLS = {
    "INST": b"(S'touch CODE-RAN'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch CODE-RAN'\no.",
    "REDUCE": b"cos\nsystem\n(S'touch CODE-RAN'\ntR.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
    "STACK_GLOBAL of memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x01x\x85R.",
    "NEWOBJ_EX": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x01.",
    "EXT4": b"\x80\x02\x84\x01\x01\x01\x01.",
    "PERSID": b"Pcall\n.",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 1) + b".",
    "a second pickle": b"\x80\x02N." + pickle.dumps(Runs(), protocol=2),
    "no end": b"\x80\x02N",
    "an unknown instruction": b"\x80\x02\xff.",
    "nothing": b"",
}


@pytest.mark.parametrize("data", CALLS.values(), ids=CALLS)
def test_instructions_that_call_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"state\.pt"):
        checked(archive(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [Runs(), {"module": [Runs()]}, os.system, eval, Builds()])
def test_other_imports_are_refused(value: object, protocol: int) -> None:
    with pytest.raises(FormatError):
        checked(archive(pickle.dumps(value, protocol=protocol)))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch", "Size.__class__"),
        ("torch", "hub.load"),
        ("torch._utils", "_rebuild_tensor_v2 x"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("torch _utils", "_rebuild_tensor_v2"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("deepspeed.runtime.zero.config", "os"),
        ("builtins", "getattr"),
        ("", ""),
    ],
)
def test_names_close_to_ours_are_refused(module: str, name: str) -> None:
    with pytest.raises(FormatError):
        checked(archive(by_name(module, name)))


@pytest.mark.parametrize(("module", "name"), sorted(state_pickles.GLOBALS))
def test_what_our_saves_import_passes(module: str, name: str) -> None:
    checked(archive(by_name(module, name)))


def repeated() -> bytes:
    """An archive with two pickles of one name: readers differ in which they take."""
    data = archive(b"\x80\x02N.", {"archive/data.pk1": pickle.dumps(Runs(), protocol=2)})
    return data.replace(b"data.pk1", b"data.pkl")


def with_comment() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02N.")
        file.comment = b"PK\x05\x06" + bytes(18)
    return buffer.getvalue()


def legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save(state(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


PLAIN = b"\x80\x02N."
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "repeated": repeated,
    "comment": with_comment,
    "legacy": legacy,
    "a pickle alone": lambda: pickle.dumps(Runs(), protocol=2),
    "bytes before": lambda: b"\x80\x02N." + archive(PLAIN),
    "bytes after": lambda: archive(PLAIN) + bytes(22),
    "another pickle": lambda: archive(PLAIN, {"archive/other.pkl": b"."}),
    "code": lambda: archive(PLAIN, {"archive/code/__torch__.py": b""}),
    "constants": lambda: archive(PLAIN, {"archive/constants.pkl": b"."}),
    "another folder": lambda: archive(PLAIN, {"other/data.pkl": b"."}),
    "above": lambda: archive(PLAIN, {"archive/data/../../x": b"."}),
    "absolute": lambda: archive(PLAIN, {"/etc/x": b"."}),
    "other case": lambda: archive(PLAIN, {"archive/DATA.PKL": b"."}),
    "compressed": lambda: archive(PLAIN, compress_type=zipfile.ZIP_DEFLATED),
    "no pickle": lambda: archive(PLAIN).replace(b"data.pkl", b"byteorde"),
    "cut": lambda: archive(PLAIN)[:-30],
    "empty": lambda: b"",
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES)
def test_other_archives_are_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(FormatError):
        checked(make())


def test_a_listed_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer = Writer()
    writer.save({"module": Runs()}, str(tmp_path / NAME))
    with pytest.raises(FormatError, match=r"imports 'posix\.system'"):
        Reader(tmp_path, writer.entries).load(str(tmp_path / NAME))
    monkeypatch.setattr(state_pickles, "check", lambda file, name: None)
    with pytest.raises(FormatError, match="torch cannot load it"):
        Reader(tmp_path, writer.entries).load(str(tmp_path / NAME))
    assert not (tmp_path / "CODE-RAN").exists()


def test_nothing_else_in_the_product_unpickles() -> None:
    package = Path(state_pickles.__file__).parents[2]
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    loading = {name for name, text in texts.items() if "torch.load(" in text}
    known = {"trainer/checkpoint/state_files.py", "trainer/checkpoint/weights.py", "vqgan_clip/pickles.py"}
    assert loading <= known
    for name in loading:
        assert texts[name].count("torch.load(") == texts[name].count("weights_only=True"), name
    for name, text in texts.items():
        assert not any(f"{pickle}.load" in text for pickle in ("pickle", "dill", "joblib", "shelve")), name
        assert "allow_pickle=True" not in text, name
