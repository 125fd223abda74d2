"""The globals of torch.save files are listed without running anything, in both formats."""

from __future__ import annotations

import bz2
import collections
import copy
import gzip
import io
import lzma
import os
import pickle
import pickletools
import tarfile
import tracemalloc
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
    check_pickles(path, ALLOWED, torch._C.PyTorchFileReader)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def weights() -> dict[str, torch.Tensor]:
    return collections.OrderedDict(a=torch.ones(3, 2), b=torch.arange(4))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_pass(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=zipped)
    check(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_refused_and_not_run(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path, mark = tmp_path / "weights.bin", tmp_path / "ran"
    found = {**weights(), "x": Touch(mark)}
    torch.save(found, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match=r"weights\.bin"):
        check(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


def legacy(number: int, bad: bytes) -> bytes:
    """A file of the older format with one of its five pickles replaced."""
    stream = io.BytesIO()
    torch.save(weights(), stream, _use_new_zipfile_serialization=False)
    stream.seek(0)
    ends = [0]
    for _ in range(5):
        collections.deque(pickletools.genops(stream), maxlen=0)
        ends.append(stream.tell())
    data = stream.getvalue()
    return data[: ends[number]] + bad + data[ends[number + 1] :]


@pytest.mark.parametrize("number", range(5))
def test_each_pickle_of_the_older_format_is_read(tmp_path: Path, number: int) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(legacy(number, pickle.dumps(print, protocol=2)))
    with pytest.raises(FormatError, match=r"'__builtin__\.print'"):
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
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_whose_globals_cannot_be_listed_is_refused(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / "weights.bin"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", PICKLES[name])
            archive.writestr("archive/version", "3\n")
    else:
        path.write_bytes(PICKLES[name])
    with pytest.raises(FormatError, match=r"weights\.bin"):
        check(path)


def test_every_cut_of_a_file_is_refused_or_its_globals_are_known(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    for zipped in (True, False):
        torch.save(weights(), path, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        for size in range(0, len(data), 7):
            path.write_bytes(data[:size])
            try:
                check(path)
            except FormatError:
                continue
            assert not zipped
            assert size > len(data) // 2


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


def test_records_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Each record takes memory of its own: a file of some MB would take any amount."""
    path = tmp_path / "weights.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/data/0", bytes(4096))
        for number in range(1, 9):
            entry = copy.copy(archive.getinfo("archive/data/0"))
            entry.filename = entry.orig_filename = f"archive/data/{number}"
            archive.filelist.append(entry)
    with pytest.raises(FormatError, match="records have more bytes than the file"):
        check(path)


@pytest.mark.parametrize("opened", [open, gzip.open, bz2.open, lzma.open])
def test_what_a_header_of_a_tar_archive_announces_is_not_read(tmp_path: Path, opened: Any) -> None:
    """A long name of 1 TB, sparse or compressed."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = b"L", 1 << 40
    path = tmp_path / "weights.bin"
    with opened(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        if opened is not open:
            for _ in range(64):
                file.write(bytes(1 << 20))
    if opened is open:
        os.truncate(path, 1 << 41)
    tracemalloc.start()
    with pytest.raises(FormatError, match="tar archive" if opened is open else "pickle"):
        check(path)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_tar_archives_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    with pytest.raises(FormatError, match="tar archive"):
        check(path)
    with pytest.raises(FormatError, match="expected a file, found a folder"):
        check(tmp_path)
