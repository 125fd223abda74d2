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

from pile_tools.errors import FormatError, first_line

#: First bytes of a zip archive, by which `torch.load` tells the formats apart.
_ZIP_MAGIC = b"PK\x03\x04"
#: Pickles of the older format: magic number, protocol, machine, the object, names of its storages.
_N_LEGACY_PICKLES = 5
#: Limit for `data.pkl`. It describes tensors and holds none: that of the largest Pythia has under 1 MB.
_MAX_PICKLE_BYTES = 64 << 20

#: A module and a name in it, as a pickle writes them.
Global = tuple[str, str]

#: Instructions that build plain values, name the memo or a storage, or use what GLOBAL imported: all that
#: `torch.save` writes. Others name globals by values on the stack or by number, and could not be listed.
_INSTRUCTIONS = frozenset(
    {
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
        *("BINFLOAT", "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST"),
        *("APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET"),
        *("LONG_BINGET", "BINPERSID", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD"),
    }
)


def check_pickle(stream: IO[bytes], allowed: frozenset[Global], where: str) -> None:
    """Reads one pickle to its end, without running it; `where` names it in messages.

    Raises:
        FormatError: It imports a global outside `allowed`, has an instruction that `torch.save` never writes,
            or is no pickle.
    """
    try:
        for instruction, argument, offset in pickletools.genops(stream):
            _check_instruction(instruction.name, argument, allowed, f"byte {offset} of {where}")
    except FormatError:
        raise
    except Exception as err:
        # Its decoders raise what they please on damaged arguments.
        raise FormatError(f"not a pickle of torch.save: {err or type(err).__name__} ({where})") from err


def _check_instruction(instruction: str, argument: object, allowed: frozenset[Global], where: str) -> None:
    if instruction not in _INSTRUCTIONS:
        raise FormatError(f"a pickle with instruction {instruction}, which torch.save never writes ({where})")
    # Exactly one space: neither part of an allowed pair has one.
    if instruction == "GLOBAL" and tuple(str(argument).split(" ", 1)) not in allowed:
        what = str(argument).replace(" ", ".", 1)
        raise FormatError(f"refused to load a pickle that imports {what!r}, which could run code ({where})")


def refuse_foreign_globals(path: Path, allowed: frozenset[Global]) -> None:
    """Raises FormatError if a file of `torch.save` names a global outside `allowed`, without running it.

    Args:
        path: The file.
        allowed: Such as `("torch._utils", "_rebuild_tensor_v2")`.

    Raises:
        FormatError: A foreign global, a pickle whose globals cannot be listed, or another format.
        OSError: The file cannot be read.
    """
    for pickle, where in _pickles(path):
        check_pickle(pickle, allowed, where)


def _pickles(path: Path) -> Iterator[tuple[IO[bytes], str]]:
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
        file.seek(0)
        for _ in range(_N_LEGACY_PICKLES):
            yield file, str(path)


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
        raise FormatError(f"not a readable archive of torch.save: {first_line(err)} ({path})") from err
    return data
