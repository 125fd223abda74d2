"""What a torch file would run when it is loaded, found without loading it.

A torch file is a zip archive with one pickle, and a pickle is a program: it may call whatever it can import.
Ours import a few classes only. `check` reads the pickle's instructions and refuses every other import, every
instruction that our files do not hold, and every archive that another reader might read differently.
Loading then goes through torch's own restricted unpickler, with the same list.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import IO

from pile_tools.errors import FormatError
from pile_tools.terminal import counted
from trainer.checkpoint.pickles import check_pickle

#: What the pickles of our saves import, of DeepSpeed's ZeRO-1 with fp32 and bf16, in any number of processes.
GLOBALS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
        ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
        ("deepspeed.utils.tensor_fragment", "fragment_address"),
        ("torch", "BFloat16Storage"),
        ("torch", "FloatStorage"),
        ("torch", "Size"),
        ("torch._utils", "_rebuild_tensor_v2"),
    }
)

#: Pickles hold names and shapes; the numbers are in files of their own.
MAX_PICKLE_BYTES = 256 << 20

_MEMBER = re.compile(
    r"archive/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|"
    r"data/[0-9]{1,9})"
)

#: End of a zip archive without a comment: signature, numbers, length of the comment.
_END_BYTES, _END_SIGNATURE, _LOCAL_SIGNATURE = 22, b"PK\x05\x06", b"PK\x03\x04"


def check(file: IO[bytes], name: str) -> None:
    """Raises FormatError unless loading a torch file can import nothing but `GLOBALS`; `name` names it."""
    _check_ends(file, name)
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive.infolist(), name)
            data = archive.read("archive/data.pkl")
    except (zipfile.BadZipFile, NotImplementedError, KeyError, ValueError, EOFError, RuntimeError) as err:
        raise FormatError(f"not a file that torch wrote for pile-train: {err} ({name})") from err
    _check_pickle(data, name)


def _check_ends(file: IO[bytes], name: str) -> None:
    """An archive from the first byte to the last: nothing before it or after it."""
    n_bytes = file.seek(0, 2)
    file.seek(0)
    head = file.read(len(_LOCAL_SIGNATURE))
    file.seek(max(0, n_bytes - _END_BYTES))
    end = file.read(_END_BYTES)
    if head != _LOCAL_SIGNATURE or not end.startswith(_END_SIGNATURE) or end[-2:] != b"\0\0":
        raise FormatError(f"not a file that torch wrote for pile-train: no plain zip archive ({name})")


def _check_members(members: list[zipfile.ZipInfo], name: str) -> None:
    seen: set[str] = set()
    for member in members:
        if not _MEMBER.fullmatch(member.filename) or member.filename in seen:
            raise FormatError(f"unexpected or repeated member {member.filename!r} of the archive ({name})")
        seen.add(member.filename)
        is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        if not is_plain or member.file_size != member.compress_size:
            raise FormatError(f"member {member.filename!r} is compressed or encrypted ({name})")
        if member.filename == "archive/data.pkl" and member.file_size > MAX_PICKLE_BYTES:
            raise FormatError(f"a pickle of {member.file_size} bytes, at most {MAX_PICKLE_BYTES} ({name})")


def _check_pickle(data: bytes, name: str) -> None:
    stream = io.BytesIO(data)
    check_pickle(stream, GLOBALS, f"data.pkl in {name}")
    if stream.tell() != len(data):
        raise FormatError(f"{counted(len(data) - stream.tell(), 'byte')} after the pickle's end ({name})")
