"""The globals of torch.save files are listed without running anything, and no file expands in memory."""

from __future__ import annotations

import collections
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pile_tools.errors import FormatError
from pile_tools.torch_files import check_pickles

ALLOWED = frozenset(
    {
        *(("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")),
        *(("torch", "FloatStorage"), ("torch", "LongStorage")),
    }
)


def check(path: Path) -> None:
    check_pickles(path, torch._C.PyTorchFileReader, ALLOWED.__contains__)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def weights() -> dict[str, torch.Tensor]:
    return collections.OrderedDict(a=torch.ones(3, 2), b=torch.arange(4))


def test_tensors_pass(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(weights(), path)
    check(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    path, mark = tmp_path / "weights.bin", tmp_path / "ran"
    torch.save({**weights(), "x": Touch(mark)}, path, pickle_protocol=protocol)
    with pytest.raises(FormatError, match=r"weights\.bin"):
        check(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


def test_the_format_before_torch_1_6_is_refused(tmp_path: Path) -> None:
    """torch takes memory for the storages that its pickle names, and values of the heap if none follow."""
    path = tmp_path / "weights.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"not a zip archive, .* save it again .*weights\.bin"):
        check(path)
    # Whatever the file ends with: torch looks at its first bytes.
    torch.save(weights(), tmp_path / "archive")
    with zipfile.ZipFile(tmp_path / "archive") as good, zipfile.ZipFile(path, "a") as both:
        for entry in good.infolist():
            both.writestr(entry.filename, good.read(entry))
    assert zipfile.is_zipfile(path)
    with pytest.raises(FormatError, match="not a zip archive"):
        check(path)


def test_a_record_with_many_names_is_refused(tmp_path: Path) -> None:
    """The directory of an archive may name one record for every storage: each would be in memory."""
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.zeros(1000), "b": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        large, small = archive.getinfo("weights/data/0"), archive.getinfo("weights/data/1")
    assert (large.file_size, small.file_size) == (4000, 4)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"weights/data/1") - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    # Sizes and offset of the record, in the directory.
    data[at + 20 : at + 28] = struct.pack("<II", 4000, 4000)
    data[at + 42 : at + 46] = struct.pack("<I", large.header_offset)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="have more bytes than the file"):
        check(path)


PICKLES = {
    "dotted name": b"\x80\x04ctorch\nserialization.os.system\n.",
    "dotted name of an allowed module": b"\x80\x04ccollections\nOrderedDict.fromkeys\n.",
    "INST": b"(S'x'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'x'\no.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "space in a name": b"ctorch._utils\n_rebuild_tensor_v2 x\n.",
    "truncated": b"\x80\x02cos\n",
    "huge length": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "negative length": b"T\xff\xff\xff\xff.",
    "not ascii": b"c\xff\xfe\n\xff\n.",
    "empty": b"",
    "no pickle": b"hello world",
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_whose_globals_cannot_be_listed_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLES[name])
        archive.writestr("archive/version", "3\n")
    with pytest.raises(FormatError, match=r"weights\.bin"):
        check(path)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(weights(), path)
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            check(path)


@pytest.mark.parametrize(
    "names",
    [
        ["archive/data.pkl", "archive/constants.pkl"],
        ["archive/data.pkl", "archive/DATA.PKL"],
        ["archive/data.pkl", "other/data.pkl"],
        ["archive/DATA.pkl"],
        ["data.pkl"],
        ["archive/version"],
    ],
)
def test_an_archive_with_other_pickles_is_refused(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "weights.bin"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"\x80\x02N.")
    with pytest.raises(FormatError, match=r"expected one pickle|TorchScript archive"):
        check(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    with pytest.raises(FormatError, match="compressed"):
        check(path)


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected a file, found a folder"):
        check(tmp_path)
