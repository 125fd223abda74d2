"""The files of a training state, as DeepSpeed writes and reads them through us.

Every file is new, hashed while it is written, and synced. It is loaded only as the bytes that the state's
manifest names, after `state_pickles.check`, by torch's restricted unpickler: no code from a run runs.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import torch

from pile_tools.errors import FormatError, VerifyError
from pile_tools.manifest import Entry
from pile_tools.terminal import counted
from trainer import failures
from trainer.checkpoint import state_pickles

_CHUNK_BYTES = 1 << 22


class Writer:
    """Writes state files into one folder and records their sizes and checksums.

    Attributes:
        entries: The files written, as a manifest lists them, by name.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def save(self, state_dict: object, path: str) -> None:
        """Writes a file; what DeepSpeed calls."""
        target = Path(path)
        with failures.named(target), target.open("xb") as file:
            hashed = _HashedFile(file)
            try:
                torch.save(state_dict, cast(IO[bytes], hashed))
            except Exception as err:
                # On a full disk torch's writer raises an error that does not name the cause.
                raise hashed.failure or err from err
            file.flush()
            os.fsync(file.fileno())
        entry = {"path": target.name, "bytes": hashed.n_bytes, "sha256": hashed.digest.hexdigest()}
        self.entries[target.name] = entry


class _HashedFile:
    """A file that hashes what is written to it, from the first byte to the last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.n_bytes = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            n_written = self._file.write(data)
        except OSError as err:
            self.failure = err
            raise
        self.digest.update(data)
        self.n_bytes += n_written
        return n_written

    def flush(self) -> None:
        self._file.flush()


class Reader:
    """Loads state files that a manifest lists.

    Args:
        folder: Where they are.
        entries: What the manifest says of each, by name.
    """

    def __init__(self, folder: Path, entries: Mapping[str, Entry]) -> None:
        self._folder, self._entries = folder, entries
        self._verified: dict[str, IO[bytes]] = {}

    def close(self) -> None:
        """Closes the files that were verified and not loaded."""
        while self._verified:
            self._verified.popitem()[1].close()

    def verify(self, names: Sequence[str]) -> None:
        """Checks files without loading them, and keeps them open for `load`.

        Raises:
            VerifyError: A file is not what the manifest says.
            FormatError: Loading it could import something that our saves do not.
        """
        for name in names:
            self._verified[name] = self._opened(name)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Loads a file through the handle by which it was verified; what DeepSpeed calls."""
        name = Path(path).name
        where = self._folder / name
        with self._verified.pop(name, None) or self._opened(name) as file:
            file.seek(0)
            try:
                with failures.named(where), torch.serialization.safe_globals(_safe_globals()):
                    return torch.load(file, map_location=map_location, weights_only=True)
            except (failures.MachineError, OSError):
                raise
            except Exception as err:
                raise FormatError(f"torch cannot load it: {type(err).__name__} ({where})") from err

    def _opened(self, name: str) -> IO[bytes]:
        """The open file, its bytes verified and its pickle checked."""
        path, entry = self._folder / name, self._entries.get(name)
        if entry is None:
            raise VerifyError(f"not listed in the state's manifest ({path})")
        try:
            # Not through a link, and without waiting for the other end of a pipe.
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError as err:
            reason = {errno.ENOENT: "missing", errno.ELOOP: "a link"}.get(err.errno or 0)
            if reason is None:
                raise
            raise VerifyError(
                f"{reason}, expected a file of the training state; {_ADVICE} ({path})"
            ) from None
        try:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes != entry["bytes"]:
                raise VerifyError(
                    f"{counted(n_bytes, 'byte')}, expected {entry['bytes']:,}; {_ADVICE} ({path})"
                )
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise VerifyError(f"other bytes than were saved: damaged; {_ADVICE} ({path})")
            state_pickles.check(file, str(path))
        except BaseException:
            file.close()
            raise
        return file


_ADVICE = "restore it; force starts again"


def _safe_globals() -> list[Any]:
    return [getattr(importlib.import_module(module), name) for module, name in sorted(state_pickles.GLOBALS)]
