"""Detects changed inputs of an artifact without reading all of them again.

Manifests contain no times, so that the same request gives the same bytes. The identity of each input (device,
inode, size, and times of modification and change) is hashed into an extended attribute of the manifest. An
input with the same identity is unchanged: programs cannot choose the time of change, which is the system's
clock. Any other input (it was written, touched or replaced) is compared by its checksum. If the attribute is
missing, because the file system has none or a copy dropped it, every input is compared by its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ATTRIBUTE = "user.pile_tools.inputs"

#: Maximum hashes in the attribute, 2 KiB: some file systems limit all attributes of a file to 4 KiB. The
#: identities of more inputs are hashed in groups.
_MAX_GROUPS = 256
_HASH_BYTES = 8

#: A file changed less than this before its identity was taken may change again without a change of its times,
#: which advance in steps: milliseconds on most file systems, a second on some.
_UNSETTLED_NS = 10**9


@dataclass(frozen=True)
class Identities:
    """Identities of files by path, taken before a job reads the files.

    Attributes:
        by_path: Device, inode, bytes, and times of modification and change in nanoseconds. None for a file
            that is missing or changed less than a second before.
    """

    by_path: Mapping[Path, tuple[int, ...] | None]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Identities:
        """The current identities of files."""
        return cls({path: _identity(path) for path in paths})

    def hashes(self, paths: Sequence[Path]) -> list[bytes]:
        """A hash for each group of paths (see `group`); a random one, which matches no other, for a None."""
        groups: list[list[tuple[int, ...] | None]] = [[] for _ in range(min(len(paths), _MAX_GROUPS))]
        for i, path in enumerate(paths):
            groups[group(i)].append(self.by_path.get(path))
        return [
            os.urandom(_HASH_BYTES)
            if None in identities
            else hashlib.blake2b(repr(identities).encode(), digest_size=_HASH_BYTES).digest()
            for identities in groups
        ]


def group(i: int) -> int:
    """The number of the group of input `i`."""
    return i % _MAX_GROUPS


def remember(manifest: Path, paths: Sequence[Path], identities: Identities) -> None:
    """Stores the identities of a manifest's inputs with it, if the file system supports attributes."""
    # AttributeError: `os.setxattr` exists on Linux only.
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(manifest, ATTRIBUTE, b"".join(identities.hashes(paths)))


def changed(manifest: Path, paths: Sequence[Path], identities: Identities) -> list[int]:
    """Indices, ascending, of the inputs in groups whose hash differs from the one stored."""
    stored = b""
    with contextlib.suppress(OSError, AttributeError):
        stored = os.getxattr(manifest, ATTRIBUTE)
    hashes = identities.hashes(paths)
    if len(stored) != len(hashes) * _HASH_BYTES:
        return list(range(len(paths)))
    is_same = [stored[k * _HASH_BYTES :][:_HASH_BYTES] == digest for k, digest in enumerate(hashes)]
    return [i for i in range(len(paths)) if not is_same[group(i)]]


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_ctime_ns > time.time_ns() - _UNSETTLED_NS:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
