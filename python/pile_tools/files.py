"""Files that appear whole, and their checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes | str) -> None:
    """Writes a file beside its place, syncs it and renames it: readers see the old file or the new."""
    data = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        # A full disk does not say which file it could not hold.
        err.filename = err.filename or os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
