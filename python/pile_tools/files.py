"""Writes files atomically, makes folders and computes checksums."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from pile_tools import checked

#: Inode, bytes and time of modification in nanoseconds: see `version`.
Version: TypeAlias = tuple[int, int, int]

#: Device and inode: see `identity`.
Identity: TypeAlias = tuple[int, int]


def write_atomically(path: Path, data: bytes | str, *, scratch: Path | None = None) -> None:
    """Writes a file under a temporary name, syncs it and renames it: readers see the old file or the new.

    For files in a folder that the caller has locked; `pile_tools.publish` writes files that users name.

    Args:
        path: The file.
        data: Its contents; a `str` is encoded as UTF-8.
        scratch: A folder of the same file system for the temporary file, which is cleared after a killed job;
            by default the folder of `path`.
    """
    data = data.encode() if isinstance(data, str) else data
    # Without the name of `path`: one as long as the file system allows could not be extended.
    temporary = (scratch or path.parent) / f".pile-tools-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno(), path)
        temporary.replace(path)
    except OSError as err:
        # A full disk's error names no file, others name the temporary file, which the user does not know.
        err.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def new_file(path: Path) -> IO[bytes]:
    """Opens a new file in a scratch folder for writing; one that a killed job left is removed.

    pyarrow is given an open file, since it takes a path with a colon for an address.
    """
    path.unlink(missing_ok=True)
    return path.open("xb")


@contextlib.contextmanager
def of_usual_mode(path: Path) -> Iterator[None]:
    """A context in which a library writes a new file, which then has the mode of the files that we write.

    safetensors makes files that only their owner can read.
    """
    path.touch()
    mode = path.stat().st_mode
    yield
    # A file system without modes may refuse to set one.
    if path.stat().st_mode != mode:
        path.chmod(stat.S_IMODE(mode))


def make_folders(folder: Path) -> None:
    """Creates a folder and its missing parents, durably.

    `Path.mkdir(parents=True)` recurses for each parent: a path of a thousand folders exceeds Python's stack.

    Raises:
        OSError: A folder cannot be created, a file has its name, or `..` follows a folder that is missing.
    """
    check_parents(folder)
    for path in reversed(_missing(folder)):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _missing(folder: Path) -> list[Path]:
    """A folder and its parents, up to the first that is there."""
    missing = [folder]
    while not missing[-1].exists() and missing[-1] != missing[-1].parent:
        missing.append(missing[-1].parent)
    return missing


def check_parents(folder: Path) -> None:
    """Raises FileNotFoundError if `..` follows a folder that is missing.

    `new/../data` is no path before `new` is made, and that of `data` after it: an input that no check has
    found there would be replaced.
    """
    for path in _missing(folder)[:-1]:
        if path.name == "..":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))


def sync(descriptor: int, path: Path) -> None:
    """Makes the bytes of an open file durable. The system's error names no file, so this one names `path`."""
    try:
        os.fsync(descriptor)
    except OSError as err:
        err.filename = os.fspath(path)
        raise


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in a folder durable, if the file system supports it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(handle, folder)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 of a regular file in hexadecimal.

    Raises:
        FormatError: A folder, pipe or device, or a file that grew or shrank while it was read.
        OSError: The file cannot be read.
    """
    return checked.sha256(path)[1]


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file, not a link to one."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def identity(path: Path) -> Identity | None:
    """Device and inode of the file or folder, which all of its names share; None if there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def mount(path: Path) -> tuple[int, int] | None:
    """The device of a folder, or of a file's folder, and the number of the mount; None if there is no file.

    Nothing is renamed from one mount to another, even if both show folders of one device. Only Linux tells
    the number, which is -1 elsewhere.
    """
    with contextlib.suppress(OSError):
        found, number = path.stat(), _mount_number(path)
        if stat.S_ISREG(found.st_mode) and number != -1:
            # An overlay can show a file with the device of its layer: that of its folder is the overlay's.
            found = Path(os.path.realpath(path)).parent.stat()
        return found.st_dev, number
    return None


def _mount_number(path: Path) -> int:
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            about = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii")
        finally:
            # Nothing was written: an error says nothing about the mount.
            with contextlib.suppress(OSError):
                os.close(handle)
        return next((int(line[7:]) for line in about.splitlines() if line.startswith("mnt_id:")), -1)
    return -1


def is_in(path: Path, folders: Container[Identity]) -> bool:
    """Whether a path, there or still to be made, is one of these folders or below one.

    Paths do not tell: a folder that is mounted twice has two, without links.
    """
    real = Path(os.path.realpath(path))
    return any((found := identity(above)) and found in folders for above in (real, *real.parents))


def folders_in(folder: Path) -> set[Identity]:
    """A folder and all below it; links are not followed. Folders that cannot be read count as empty."""
    found: set[Identity] = set()
    pending = [folder]
    while pending:
        path = pending.pop()
        if (known := identity(path)) and known not in found and path.is_dir():
            found.add(known)
            with contextlib.suppress(OSError):
                pending += [Path(entry) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    return found


def version(path: Path) -> Version | None:
    """What changes if a file is replaced or rewritten; None if there is no file.

    The time of change is left out: `unchanged.remember` changes it.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None
