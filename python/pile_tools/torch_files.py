"""Finds the pickles of a file of `torch.save`, to check them without running them.

Two formats are covered: the zip archive with one `data.pkl` (torch 1.6 and later) and the older stream of
five pickles before the raw tensors. This package does without torch, so callers pass its reader of archives.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from pile_tools import checked
from pile_tools.errors import FormatError, first_line
from pile_tools.pickles import MAX_PICKLE_BYTES, Global, check_pickle

#: `torch._C.PyTorchFileReader`.
ArchiveReader: TypeAlias = Callable[[str], Any]

#: First bytes of a zip archive, by which `torch.load` tells the formats apart.
_ZIP_MAGIC = b"PK\x03\x04"
#: Pickles of the older format: magic number, protocol, machine, the object, names of its storages.
_N_LEGACY_PICKLES = 5


def check_pickles(path: Path, allowed: frozenset[Global], reader: ArchiveReader) -> None:
    """Checks all pickles of a file of `torch.save` without running it, see `pile_tools.pickles`.

    Args:
        path: The file.
        allowed: The globals that they may name, such as `("torch._utils", "_rebuild_tensor_v2")`.
        reader: `torch._C.PyTorchFileReader`.

    Raises:
        FormatError: A pickle that `check_pickle` refuses, or another format.
        OSError: The file cannot be read.
    """
    for pickle, where in _pickles(path, reader):
        check_pickle(pickle, where, allowed.__contains__)


def _pickles(path: Path, reader: ArchiveReader) -> Iterator[tuple[io.BytesIO, str]]:
    """The pickles of a file and their names, each a stream to be read to its end before the next."""
    if is_archive(path):
        yield io.BytesIO(archived_pickle(path, reader)), f"data.pkl in {path}"
        return
    with checked.open_regular(path) as file:
        if _is_tar(file.read(tarfile.BLOCKSIZE)):
            raise FormatError(f"a tar archive, the format of torch before 0.1.10, which is not read ({path})")
        start = 0
        for _ in range(_N_LEGACY_PICKLES):
            file.seek(start)
            stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
            yield stream, f"the pickle at byte {start} of {path}"
            start += stream.tell()


def _is_tar(block: bytes) -> bool:
    """Whether the first block of a file is the header of a tar archive, as torch looks for it.

    `tarfile.is_tarfile` decompresses, and reads as much as the first header says.
    """
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def is_archive(path: Path) -> bool:
    """Whether `torch.load` takes a file for a zip archive, as `torch.save` writes since torch 1.6.

    A file of the older format may end with an archive: only the first bytes tell.

    Raises:
        FormatError: Not a regular file.
        OSError: The file cannot be read.
    """
    with checked.open_regular(path) as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def archived_pickle(path: Path, reader: ArchiveReader) -> bytes:
    """`data.pkl` of an archive as torch's own reader finds it: what is checked is what would be loaded.

    Args:
        path: The archive.
        reader: `torch._C.PyTorchFileReader`.

    Raises:
        FormatError: Not such an archive, or one that could expand to more than its bytes, or holds code.
        OSError: The file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        # torch finds names in any letter case.
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if any(entry.filename.lower().endswith("/constants.pkl") for entry in pickles):
            what = "a TorchScript archive, which holds code; save its state_dict instead"
            raise FormatError(f"{what} ({path})")
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            names = ", ".join(repr(entry.filename) for entry in pickles[:3]) or "none"
            raise FormatError(f"expected one pickle, data.pkl, in the archive, got {names} ({path})")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise FormatError(f"the archive is compressed, which torch.save never does ({path})")
        # Records of two names can share their bytes, and each of them takes memory of its own.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise FormatError(f"the archive's records have more bytes than the file ({path})")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise FormatError(
                f"data.pkl has {pickles[0].file_size} bytes, expected at most {MAX_PICKLE_BYTES} ({path})"
            )
        opened = reader(str(path))
        if [name for name in opened.get_all_records() if name.lower().endswith(".pkl")] != ["data.pkl"]:
            raise FormatError(f"the archive's directory contradicts itself ({path})")
        data: bytes = opened.get_record("data.pkl")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as err:
        raise FormatError(f"not a readable archive of torch.save: {first_line(err)} ({path})") from err
    return data
