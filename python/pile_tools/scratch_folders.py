"""Scratch folders: where an artifact is made, locked against other processes while one works in it.

A folder is ours if it is empty or holds the marker, an empty regular file. Others are refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from pile_tools import files
from pile_tools.errors import PileError, PileWarning

#: The file in a scratch folder that is locked, and whose name marks the folder as ours.
MARKER = "pile-tools.lock"

SUFFIX = ".partial"

#: Maximum bytes of a path on Linux, with the zero byte after it (PATH_MAX).
_MAX_PATH_BYTES = 4096

#: Error numbers where a user may not change a folder.
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}

#: How often a lock is tried: readers hold it for a moment, to see whether a process works in the folder.
_TRIES, _SECONDS_BETWEEN_TRIES = 10, 0.01

#: How often it is tried at the end of a job of several processes, which end at about the same time.
_TRIES_AT_THE_END = 100

#: Error numbers of `flock` on a file system without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class NoLocksWarning(PileWarning):
    """The file system has no locks, so a second process is not kept out."""


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[Lock]:
    """Creates a scratch folder, or takes over one of ours, and locks it against other processes.

    The lock ends with the block, or with the process. At the end of the block a folder that contains only the
    marker is removed, unless another process of the job still holds the lock.

    Args:
        folder: The scratch folder.
        what: What the holder of the lock does, for the message "another process is making this output".

    Raises:
        PileError: Another process holds the lock, or the folder is not ours.
    """
    is_empty = False
    try:
        with contextlib.closing(Lock(folder, what)) as lock:
            try:
                yield lock
            finally:
                is_empty = lock.is_alone() and [path.name for path in folder.iterdir()] == [MARKER]
                if is_empty:
                    (folder / MARKER).unlink()
    finally:
        # After the marker is closed: NFS, and many file systems of FUSE, keep a removed file that is open in
        # its folder, under another name. Another process may have created a file since.
        if is_empty:
            with contextlib.suppress(OSError):
                folder.rmdir()
                files.sync_folder(folder.parent)


@contextlib.contextmanager
def joined(folder: Path, what: str) -> Iterator[None]:
    """Holds the lock of a scratch folder together with the process that shares it; see `Lock.share`.

    Raises:
        PileError: Another process has taken the folder over.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(folder / MARKER, flags)
    try:
        # Without locks the process that made the folder has said so.
        if _has_locked(file, fcntl.LOCK_SH) is False or not _is_at(folder, file):
            raise _held(folder, what)
        yield
    finally:
        os.close(file)


def clear(folder: Path, keep: set[str] | frozenset[str] = frozenset()) -> None:
    """Removes everything in a locked scratch folder except the marker and `keep`; links are not followed."""
    for path in sorted(folder.iterdir()):
        if path.name != MARKER and path.name not in keep:
            remove_tree(path)


def discard(folder: Path, what: str, empty: Callable[[Path], object] = clear) -> None:
    """Removes a scratch folder that a killed process left, unless a process works in it; see `locked`.

    `empty` removes what is in the folder; a PileError of it keeps the folder.
    """
    if folder.is_dir():
        # Another process that holds it removes it; one that is not ours, or that `empty` refuses, stays, and
        # so does one of another user, or on a file system that is mounted for reading.
        try:
            with contextlib.suppress(PileError), locked(folder, what):
                empty(folder)
        except OSError as err:
            if err.errno not in NOT_ALLOWED:
                raise


def inner(folder: Path, name: str) -> Path:
    """A folder in a locked scratch folder, made if necessary. A file or link of its name is removed first."""
    path = folder / name
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.mkdir(exist_ok=True)
    return path


def remove_tree(path: Path) -> None:
    """Removes a file, a link, or a folder with its contents; links are not followed.

    Raises PileError for a folder that is mounted there: what it shows is another folder's.
    """
    if not is_folder(path):
        path.unlink()
        return
    _refuse_mounted(path)
    # Folders two levels down are moved up to the first, not walked: they may be nested deeper than Python's
    # stack, and their paths may be longer than a system call takes.
    numbers = itertools.count()
    while children := list(path.iterdir()):
        for child in children:
            if is_folder(child):
                _refuse_mounted(child)
                for below in list(child.iterdir()):
                    if is_folder(below):
                        _refuse_mounted(below)
                        free = next(name for n in numbers if not os.path.lexists(name := path / str(n)))
                        _move_or_remove(below, free)
                    else:
                        below.unlink()
                child.rmdir()
            else:
                child.unlink()
    path.rmdir()


def _refuse_mounted(folder: Path) -> None:
    if files.mount(folder) != files.mount(folder.parent):
        raise PileError(f"is a mounted folder, in a scratch folder; unmount it ({folder})")


def _move_or_remove(folder: Path, free: Path) -> None:
    """Renames a folder, or removes one that cannot be renamed: one of the lower layer of an overlay."""
    try:
        folder.rename(free)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
        shutil.rmtree(folder)


def remove_links(folder: Path) -> None:
    """Removes the links in a scratch folder and below. A job makes none, and must not write through one."""
    pending = [folder]
    while pending:
        for path in list(pending.pop().iterdir()):
            if len(os.fsencode(path)) >= _MAX_PATH_BYTES:
                # Nothing is written through a path that no system call takes.
                continue
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                _refuse_mounted(path)
                pending.append(path)


def is_ours(folder: Path) -> bool:
    """Whether a folder with the name of a scratch folder may be one: it is empty or holds the marker."""
    names = [path.name for path in folder.iterdir()]
    return not names or MARKER in names


def is_writable(folder: Path) -> bool:
    """Whether this user may work in a scratch folder: change it and, if it is there, lock its marker."""
    marker = folder / MARKER
    return os.access(folder, os.W_OK) and (not os.path.lexists(marker) or os.access(marker, os.W_OK))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, not a link to one."""
    return stat.S_ISDIR(path.lstat().st_mode)


class Lock:
    """The locked marker of a scratch folder."""

    def __init__(self, folder: Path, what: str) -> None:
        self._folder, self._what = folder, what
        self._is_shared = False
        while True:
            _make_folder(folder)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                # The umask decides whether others of the group may take it over, as for the folder.
                self._file = os.open(folder / MARKER, flags, 0o666)
            except FileNotFoundError:
                # The process that held the lock has just removed the folder.
                continue
            except OSError as err:
                if err.errno == errno.ELOOP:
                    raise PileError(
                        f"is a link, so this is not a scratch folder of pile-tools ({folder / MARKER})"
                    ) from None
                raise
            try:
                self._refuse_foreign(folder)
                if self._take():
                    return
            except BaseException:
                self.close()
                raise
            self.close()

    def _refuse_foreign(self, folder: Path) -> None:
        """Raises PileError unless the marker is an empty regular file, as ours is."""
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise PileError(
                f"is not from pile-tools, so this is not a scratch folder of pile-tools ({folder / MARKER})"
            )

    def _take(self) -> bool:
        """Locks the marker. False if it was removed or replaced before the lock was taken."""
        has_locked = _has_locked(self._file, fcntl.LOCK_EX)
        if has_locked is False:
            raise _held(self._folder, self._what)
        if has_locked is None:
            warnings.warn(
                f"the file system has no locks: do not run the same command twice at once ({self._folder})",
                NoLocksWarning,
                stacklevel=4,
            )
        return _is_at(self._folder, self._file)

    def share(self) -> None:
        """Lets the other processes of the job hold the lock too: it ends when the last of them has ended.

        Raises:
            PileError: Another job took the lock in the moment in which this one held none.
        """
        self._is_shared = True
        if _has_locked(self._file, fcntl.LOCK_SH) is False:
            raise _held(self._folder, self._what)

    def is_alone(self) -> bool:
        """Whether no other process holds the lock; waits a moment for others that are ending."""
        if not self._is_shared:
            return True
        has_locked = _has_locked(self._file, fcntl.LOCK_EX, _TRIES_AT_THE_END)
        return has_locked is not False and _is_at(self._folder, self._file)

    def close(self) -> None:
        """Ends the lock."""
        os.close(self._file)


def _has_locked(file: int, how: int, n_tries: int = _TRIES) -> bool | None:
    """Locks a file, unless another process holds it. None on a file system without locks."""
    for number in range(n_tries):
        if number:
            time.sleep(_SECONDS_BETWEEN_TRIES)
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as err:
            if err.errno not in _NO_LOCKS:
                raise
            return None
        return True
    return False


def _is_at(folder: Path, marker: int) -> bool:
    """Whether an open marker is the one in the folder: it was neither removed nor replaced."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(folder / MARKER), os.fstat(marker))
    return False


def _held(folder: Path, what: str) -> PileError:
    return PileError(f"another process {what}; wait for it or stop it ({folder})")


def _make_folder(folder: Path) -> None:
    """Creates a scratch folder, or checks that an existing one is ours or empty."""
    # Outside the `suppress`: FileExistsError of a parent, such as a broken link, must reach the user.
    # Suppressed, it would make `Lock` try again for ever.
    files.make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        return
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise PileError(f"has the name of the scratch folder; rename or remove it ({folder})")
        can_be_used = is_ours(folder)
    except FileNotFoundError:
        # Removed meanwhile: `Lock` tries again.
        return
    if not can_be_used:
        raise PileError(
            f"has the name of the scratch folder, but its files are not from pile-tools; "
            f"rename or remove it ({folder})"
        )
