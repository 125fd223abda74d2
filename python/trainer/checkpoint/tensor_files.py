"""Safetensors files of fp32 tensors, written and read one tensor at a time.

A file's shapes are known before it is written and before it is read, so its header has one right value, and
nothing of a file is interpreted: a reader compares the header and the checksum, then reads at known offsets.
Other programs read the files with the `safetensors` package. Format: eight bytes with the header's length,
the header as JSON padded with spaces to a multiple of eight, the values.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from pile_tools import files
from pile_tools.errors import VerifyError
from pile_tools.manifest import Entry
from pile_tools.terminal import counted
from trainer import failures

Shapes = Mapping[str, tuple[int, ...]]

_CHUNK_BYTES = 1 << 22
_BYTES = torch.float32.itemsize
_ADVICE = "restore it; force starts again"


def header(shapes: Shapes) -> bytes:
    """What a file of these tensors starts with."""
    values: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + math.prod(shape) * _BYTES
        values[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(values, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(path: Path, tensors: Mapping[str, Tensor]) -> Entry:
    """Writes a new file durably, and returns its entry in a manifest of its folder.

    Args:
        path: The file, which must not exist.
        tensors: float32 on the CPU, by name.

    Raises:
        OSError: The disk is full, or fails.
    """
    digest, n_bytes = hashlib.sha256(), 0
    with failures.named(path), path.open("xb", buffering=0) as file:
        for data in _contents(tensors):
            for start in range(0, len(data), _CHUNK_BYTES):
                chunk = data[start : start + _CHUNK_BYTES]
                written = 0
                while written < len(chunk):
                    written += file.write(chunk[written:])
                digest.update(chunk)
                n_bytes += len(chunk)
        files.sync(file.fileno(), path)
    return {"path": path.name, "bytes": n_bytes, "sha256": digest.hexdigest()}


def _contents(tensors: Mapping[str, Tensor]) -> Iterable[memoryview]:
    yield memoryview(header({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
    for tensor in tensors.values():
        values: Any = tensor.contiguous().flatten().numpy()
        yield memoryview(values).cast("B")


class TensorFile:
    """An open file of known tensors; a context manager.

    It stays open from `verify` on, so that the bytes that are read are of the file that was verified.

    Args:
        path: The file.
        shapes: Of its tensors, in their order.

    Raises:
        VerifyError: It is missing, is a link, or cannot hold these tensors.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, shapes: Shapes) -> None:
        self.path, self._shapes = path, dict(shapes)
        try:
            # Not through a link, and without waiting for the other end of a pipe.
            self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError as err:
            reason = {errno.ENOENT: "missing", errno.ELOOP: "a link"}.get(err.errno or 0)
            if reason is None:
                raise
            raise VerifyError(f"{reason}, expected a file of the state; {_ADVICE} ({path})") from None
        try:
            self._check_header()
        except BaseException:
            self._file.close()
            raise

    def _check_header(self) -> None:
        expected = header(self._shapes)
        n_values = sum(math.prod(shape) for shape in self._shapes.values())
        n_bytes, found = os.fstat(self._file.fileno()).st_size, len(expected) + n_values * _BYTES
        if n_bytes != found:
            raise VerifyError(
                f"{counted(n_bytes, 'byte')}, expected {found:,} of this model; {_ADVICE} ({self.path})"
            )
        if self._file.read(len(expected)) != expected:
            raise VerifyError(f"not the tensors of this model: damaged; {_ADVICE} ({self.path})")
        self._offsets, start = {}, len(expected)
        for name, shape in self._shapes.items():
            self._offsets[name] = start
            start += math.prod(shape) * _BYTES

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def verify(self, entry: Entry, on_bytes: Callable[[int], object] = lambda n_bytes: None) -> None:
        """Raises VerifyError unless the file has the bytes of a manifest's entry."""
        self._file.seek(0)
        digest, done = hashlib.sha256(), 0
        while chunk := self._file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            on_bytes(done)
        if done != entry["bytes"] or digest.hexdigest() != entry["sha256"]:
            raise VerifyError(f"other bytes than were saved: damaged; {_ADVICE} ({self.path})")

    def tensor(self, name: str) -> Tensor:
        """A tensor's values, float32 on the CPU. Raises VerifyError if the file became shorter."""
        shape = self._shapes[name]
        data = bytearray(math.prod(shape) * _BYTES)
        self._file.seek(self._offsets[name])
        if self._file.readinto(data) != len(data):
            raise VerifyError(f"became shorter while it was read; {_ADVICE} ({self.path})")
        flat = torch.frombuffer(data, dtype=torch.float32) if data else torch.empty(0)
        return flat.view(shape)
