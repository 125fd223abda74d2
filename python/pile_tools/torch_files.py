"""Reads the pickle of a file of `torch.save`, to check it without running it.

A file is a zip archive with one `data.pkl`. The format before torch 1.6, pickles in a row, is not read: torch
takes memory for what its pickle names and does not look whether values follow. This package does without
torch, so callers pass its reader of archives.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

from pile_tools import checked
from pile_tools.errors import FormatError, first_line
from pile_tools.pickles import MAX_PICKLE_BYTES, Global, check_pickle

#: `torch._C.PyTorchFileReader`.
ArchiveReader: TypeAlias = Callable[[str], Any]

#: Limit for the directory of an archive: some hundred bytes for each tensor, of which large models have 10^4.
_MAX_DIRECTORY_BYTES = 32 << 20

#: First bytes of a zip archive. Whatever a file ends with, `torch.load` takes one with others for one of the
#: older format.
_ZIP_MAGIC = b"PK\x03\x04"


def check_pickles(
    path: Path,
    reader: ArchiveReader,
    allowed: Callable[[Global], bool],
    is_inert: Callable[[Global], bool] = lambda _: False,
) -> set[Global]:
    """Checks the pickle of a file of `torch.save` without running it; see `pile_tools.pickles.check_pickle`.

    Args:
        path: The file.
        reader: `torch._C.PyTorchFileReader`.
        allowed: Whether it may name a global, such as `("torch._utils", "_rebuild_tensor_v2")`.
        is_inert: Whether a global is replaced by a class that does nothing.

    Returns:
        The globals that it names.

    Raises:
        FormatError: A pickle that `check_pickle` refuses, or another format.
        OSError: The file cannot be read.
    """
    pickle = io.BytesIO(_archived_pickle(path, reader))
    return check_pickle(pickle, f"data.pkl in {path}", allowed, is_inert)


class _Bounded:
    """An open archive whose directory is read at once, and must not be larger than any of `torch.save`."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, n: int = -1) -> bytes:
        """Bytes of the file. Raises FormatError for more than `_MAX_DIRECTORY_BYTES`."""
        if n > _MAX_DIRECTORY_BYTES:
            what = f"a directory of {n:,} bytes, expected at most {_MAX_DIRECTORY_BYTES:,}"
            raise FormatError(f"the archive has {what} ({self._path})")
        return self._file.read(n)


def _archived_pickle(path: Path, reader: ArchiveReader) -> bytes:
    """`data.pkl` of an archive as torch's own reader finds it: what is checked is what would be loaded."""
    with checked.open_regular(path) as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            what = "not a zip archive, as torch.save writes since torch 1.6; save it again with a later one"
            raise FormatError(f"{what} ({path})")
    try:
        with checked.open_regular(path) as file, zipfile.ZipFile(_Bounded(file, path)) as archive:
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
        # Each storage of a tensor is a record, and two names of one record would be two storages in memory.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise FormatError(f"the records of the archive have more bytes than the file ({path})")
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
