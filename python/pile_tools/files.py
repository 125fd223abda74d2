"""Files that appear whole, and their checksums."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pile_tools.errors import PileError

#: What file systems without locks say; a job goes on there unguarded.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


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


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Makes the folder and keeps out other processes that lock it; the lock ends with the process.

    A folder that holds nothing else afterwards is removed.

    Raises:
        PileError: Another process holds it; `what` says what that one is doing.
    """
    lock = folder / "lock"
    with _locked_file(lock, what):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [lock.name]:
                lock.unlink()
                # With the lock's file gone, another process may have come in already.
                with contextlib.suppress(OSError):
                    folder.rmdir()


def clear(folder: Path) -> None:
    """Removes the files of a locked folder; the lock stays, that none comes in while some are left."""
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()


def _locked_file(path: Path, what: str) -> IO[bytes]:
    while True:
        try:
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(parents=True)
            file = path.open("wb")
        except FileNotFoundError:
            # The folder was removed just now.
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in NO_LOCKS:
                file.close()
                if err.errno != errno.EWOULDBLOCK:
                    raise
                raise PileError(f"another process {what}; wait for it or stop it ({path.parent})") from None
        # Whoever held it before may have removed the folder, and the lock with it.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()
