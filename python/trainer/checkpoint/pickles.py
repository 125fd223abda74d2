"""Which globals the pickles of a `torch.save` file name, read without running them.

Unpickling calls the functions and classes that a pickle names, so whoever writes the file chooses what runs.
This module lists the names first. Two formats are covered: the zip archive with one `data.pkl` (torch 1.6 and
later) and the older stream of five pickles before the raw tensors.
"""

from __future__ import annotations

import io
import pickletools
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pile_tools.errors import FormatError

#: First bytes of a zip archive, by which `torch.load` tells the formats apart.
_ZIP_MAGIC = b"PK\x03\x04"
#: Pickles of the older format: magic number, protocol, machine, the object, names of its storages.
_N_LEGACY_PICKLES = 5
#: Limit for `data.pkl`. It describes tensors and holds none: that of the largest Pythia has under 1 MB.
_MAX_PICKLE_BYTES = 64 << 20

#: Opcodes that name a global by values on the stack or by number. `torch.save` writes `GLOBAL` instead.
_INDIRECT_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"})


def refuse_foreign_globals(path: Path, allowed: frozenset[str]) -> None:
    """Raises FormatError if a file of `torch.save` names a global outside `allowed`, without running it.

    Args:
        path: The file.
        allowed: Names such as `torch._utils._rebuild_tensor_v2`, as the pickle writes them.

    Raises:
        FormatError: A foreign global, a pickle whose globals cannot be listed, or another format.
        OSError: The file cannot be read.
    """
    for pickle in _pickles(path):
        for name in _globals(pickle, path):
            if name not in allowed:
                raise FormatError(
                    f"the pickle names {name!r}, which such a file does not need and which could run code; "
                    f"it was not loaded ({path})"
                )


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """The pickles of a file, each as a stream to be read to its end before the next."""
    if path.exists() and not path.is_file():
        raise FormatError(f"not a regular file ({path})")
    with path.open("rb") as file:
        magic = file.read(len(_ZIP_MAGIC))
        file.seek(0)
        if magic == _ZIP_MAGIC:
            yield io.BytesIO(_archived_pickle(path))
            return
        if tarfile.is_tarfile(file):
            raise FormatError(f"a tar archive, the format of torch before 0.1.10, which is not read ({path})")
        file.seek(0)
        for _ in range(_N_LEGACY_PICKLES):
            yield file


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
        if pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise FormatError(
                f"data.pkl has {pickles[0].file_size} bytes, expected at most {_MAX_PICKLE_BYTES} ({path})"
            )
        reader = PyTorchFileReader(str(path))
        if [name for name in reader.get_all_records() if name.lower().endswith(".pkl")] != ["data.pkl"]:
            raise FormatError(f"the archive's directory contradicts itself ({path})")
        data: bytes = reader.get_record("data.pkl")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as err:
        raise FormatError(
            f"not a readable archive of torch.save: {str(err).splitlines()[0]} ({path})"
        ) from err
    return data


def _globals(pickle: IO[bytes], path: Path) -> Iterator[str]:
    """The globals that one pickle names, `module.name`; reads the stream to the pickle's end.

    Raises:
        FormatError: The bytes are no pickle, or a global is named in a way that cannot be listed.
    """
    try:
        for opcode, value, _ in pickletools.genops(pickle):
            if opcode.name in _INDIRECT_OPCODES:
                raise FormatError(
                    f"the pickle has the opcode {opcode.name}, which torch.save never writes ({path})"
                )
            if opcode.name == "GLOBAL":
                module, _, name = str(value).rpartition(" ")
                # A dotted name walks attributes, so that an allowed module would lead anywhere.
                yield f"{module}:{name}" if "." in name else f"{module}.{name}"
    except (ValueError, IndexError, OverflowError, MemoryError) as err:
        raise FormatError(f"not a file of torch.save: {str(err) or type(err).__name__} ({path})") from err
