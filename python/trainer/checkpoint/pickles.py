"""Finds the pickles of a `torch.save` file and checks them without running them.

Two formats are covered: the zip archive with one `data.pkl` (torch 1.6 and later) and the older stream of
five pickles before the raw tensors.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pile_tools.errors import FormatError, first_line
from pile_tools.pickles import MAX_PICKLE_BYTES, Global, check_pickle

#: First bytes of a zip archive, by which `torch.load` tells the formats apart.
_ZIP_MAGIC = b"PK\x03\x04"
#: Pickles of the older format: magic number, protocol, machine, the object, names of its storages.
_N_LEGACY_PICKLES = 5


def check_pickles(path: Path, allowed: frozenset[Global]) -> None:
    """Checks all pickles of a file of `torch.save` without running it, see `pile_tools.pickles`.

    Args:
        path: The file.
        allowed: The globals that they may name, such as `("torch._utils", "_rebuild_tensor_v2")`.

    Raises:
        FormatError: A pickle that `check_pickle` refuses, or another format.
        OSError: The file cannot be read.
    """
    for pickle, where in _pickles(path):
        check_pickle(pickle, where, allowed.__contains__)


def _pickles(path: Path) -> Iterator[tuple[io.BytesIO, str]]:
    """The pickles of a file and their names, each a stream to be read to its end before the next."""
    if path.exists() and not path.is_file():
        raise FormatError(f"not a regular file ({path})")
    with path.open("rb") as file:
        magic = file.read(len(_ZIP_MAGIC))
        file.seek(0)
        if magic == _ZIP_MAGIC:
            yield io.BytesIO(_archived_pickle(path)), f"data.pkl in {path}"
            return
        if tarfile.is_tarfile(file):
            raise FormatError(f"a tar archive, the format of torch before 0.1.10, which is not read ({path})")
        start = 0
        for _ in range(_N_LEGACY_PICKLES):
            file.seek(start)
            stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
            yield stream, f"the pickle at byte {start} of {path}"
            start += stream.tell()


def _archived_pickle(path: Path) -> bytes:
    """`data.pkl` of a zip archive as torch's own reader finds it: what is listed is what would be loaded."""
    # Importing torch takes seconds; the other format does without.
    from torch._C import PyTorchFileReader

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        # `constants.pkl` makes a TorchScript archive, which holds code; torch finds names in any letter case.
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            names = ", ".join(repr(entry.filename) for entry in pickles[:3]) or "none"
            raise FormatError(f"expected one pickle, data.pkl, in the archive, got {names} ({path})")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise FormatError(f"the archive is compressed, which torch.save never does ({path})")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise FormatError(
                f"data.pkl has {pickles[0].file_size} bytes, expected at most {MAX_PICKLE_BYTES} ({path})"
            )
        reader = PyTorchFileReader(str(path))
        if [name for name in reader.get_all_records() if name.lower().endswith(".pkl")] != ["data.pkl"]:
            raise FormatError(f"the archive's directory contradicts itself ({path})")
        data: bytes = reader.get_record("data.pkl")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as err:
        raise FormatError(f"not a readable archive of torch.save: {first_line(err)} ({path})") from err
    return data
