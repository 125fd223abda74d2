"""Files that appear whole, and their checksums."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pile_tools import checked


def write_atomically(path: Path, data: bytes | str, *, scratch: Path | None = None) -> None:
    """Writes a file under another name, syncs it and renames it: readers see the old file or the new.

    For files in a folder that the caller has locked; `pile_tools.publish` writes those that users name.

    Args:
        path: The file.
        data: What it is to hold.
        scratch: A folder of the same file system, which a killed job leaves to be cleared; by default the
            unfinished file is beside the final one.
    """
    data = data.encode() if isinstance(data, str) else data
    temporary = (scratch or path.parent) / f".{path.name[:100]}.{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        # A full disk does not say which file it could not hold, and nobody knows the temporary name.
        err.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folders(folder: Path) -> None:
    """Makes a folder and the folders above it that are missing.

    `Path.mkdir(parents=True)` calls itself for each of them, so that a path of a thousand ends it.

    Raises:
        OSError: A folder cannot be made, or something else has its name.
    """
    missing = [folder]
    while not missing[-1].exists() and missing[-1] != missing[-1].parent:
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of a regular file in hexadecimal.

    Raises:
        FormatError: A folder, pipe or device, or a file that grew or shrank while it was read.
        OSError: The file cannot be read.
    """
    return checked.sha256(path)[1]
