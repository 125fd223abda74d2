"""Tells whether an artifact's inputs are those that it was made from, without reading them all again.

Manifests hold no times, so that the same request gives the same bytes. What the file system said of each
input is kept as an extended attribute of the manifest: device, inode, size, and times of modification and
of change. An input of which it says the same is unchanged, as no program can set the time of change. Any
other input (it was written or touched, or another file is at its path now) is compared by its checksum. So
is every input where the attribute is missing: on a file system without attributes, or after a copy that
left them out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ATTRIBUTE = "user.pile_tools.inputs"

#: Marks in the attribute. Some file systems give a file 4 KiB of attributes; beyond, inputs share a mark.
_MAX_MARKS = 256
_MARK_BYTES = 8

#: A file that changed so shortly before it was looked at may have changed again with the same times.
_UNSETTLED_NS = 10**9


@dataclass(frozen=True)
class Identities:
    """What the file system said of files, by path; taken before a job reads them.

    Attributes:
        by_path: Device, inode, bytes, and times of modification and of change in nanoseconds. None for a file
            that is missing, or that changed just before.
    """

    by_path: Mapping[Path, tuple[int, ...] | None]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Identities:
        """Those of files now."""
        return cls({path: _identity(path) for path in paths})

    def marks(self, paths: Sequence[Path]) -> list[bytes]:
        """A mark for each group of paths, see `group`; one that no other has, where a file is not known."""
        groups: list[list[tuple[int, ...] | None]] = [[] for _ in range(min(len(paths), _MAX_MARKS))]
        for i, path in enumerate(paths):
            groups[group(i)].append(self.by_path.get(path))
        return [
            os.urandom(_MARK_BYTES)
            if None in of
            else hashlib.blake2b(repr(of).encode(), digest_size=_MARK_BYTES).digest()
            for of in groups
        ]


def group(i: int) -> int:
    """The number of the mark that input `i` has."""
    return i % _MAX_MARKS


def remember(manifest: Path, paths: Sequence[Path], seen: Identities) -> None:
    """Keeps with a manifest what was seen of its inputs. Where that is not possible they are read again."""
    # `os.setxattr` is Linux's alone.
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(manifest, ATTRIBUTE, b"".join(seen.marks(paths)))


def changed(manifest: Path, paths: Sequence[Path], seen: Identities) -> list[int]:
    """Numbers of the inputs of which the file system does not say what it said before, ascending."""
    found = b""
    with contextlib.suppress(OSError, AttributeError):
        found = os.getxattr(manifest, ATTRIBUTE)
    marks = seen.marks(paths)
    if len(found) != len(marks) * _MARK_BYTES:
        return list(range(len(paths)))
    is_same = [found[k * _MARK_BYTES :][:_MARK_BYTES] == mark for k, mark in enumerate(marks)]
    return [i for i in range(len(paths)) if not is_same[group(i)]]


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found: Any = path.stat()
    except OSError:
        return None
    if found.st_ctime_ns > time.time_ns() - _UNSETTLED_NS:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
