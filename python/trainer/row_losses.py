"""`row_losses.f16`: the loss of every row that a run trained on, in the order of training.

Row r of step s is the float16 at index s * batch_size + r, little-endian, without a header: the mean loss of
the row's tokens in nats, of the weights before the update. Rows are those of `pile-tools batch --step s`. A
row whose loss was not computed has NaN.

Two bytes a row make 293 MB of Pythia's 146 million rows. Of the two types of that size, float16 has the finer
values below 65,504: a loss of 2 to 4 is right to 0.001 nats, in bfloat16 to 0.008, which is what documents
often differ by. Nor does numpy have bfloat16.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, checked, files, manifest
from pile_tools.errors import FormatError
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE
from pile_tools.terminal import counted
from trainer import failures
from trainer.appending import Appender
from trainer.config import MAX_COUNT

ROW_LOSSES_FILE = "row_losses.f16"

_DTYPE = np.dtype("<f2")

RowLosses: TypeAlias = NDArray[np.float16]


def read_row_losses(run: str | Path) -> RowLosses:
    """The losses of all rows of a run, mapped from its file; of one in training, of the steps so far.

    Args:
        run: The run's folder.

    Shapes: (steps, batch_size) float16, nats.
    Raises:
        FormatError: The folder has no run of pile-train, or the file is not one of losses.
        OSError: A file cannot be read.
    """
    folder = Path(run)
    record = folder / MANIFEST_FILE if (folder / MANIFEST_FILE).exists() else folder / RUN_FILE
    found = manifest.read(record)
    if found.kind != "run":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected a run ({record})")
    settings = found.checked_settings
    batch_size, n_steps = (settings.integer(key, 1, MAX_COUNT) for key in ("batch_size", "steps"))
    if record.name == MANIFEST_FILE:
        check(folder / ROW_LOSSES_FILE, n_steps, batch_size)
    losses = mapped(folder / ROW_LOSSES_FILE, batch_size)
    if len(losses) > n_steps:
        what = f"losses of {counted(len(losses), 'step')}, expected at most {n_steps:,}"
        raise FormatError(f"{what} ({folder / ROW_LOSSES_FILE})")
    return losses


def mapped(path: Path, batch_size: int) -> RowLosses:
    """The losses of the whole steps in a file: (steps, batch_size). Raises FormatError, OSError."""
    found = _core.mapped_bytes(path)
    n_bytes = len(found) // (batch_size * _DTYPE.itemsize) * (batch_size * _DTYPE.itemsize)
    return found[:n_bytes].view(_DTYPE).reshape(-1, batch_size)


def check(path: Path, n_steps: int, batch_size: int) -> None:
    """Raises FormatError unless a file holds the rows of exactly `n_steps` steps."""
    with checked.open_regular(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
    expected = n_steps * batch_size * _DTYPE.itemsize
    if n_bytes != expected:
        raise FormatError(f"{counted(n_bytes, 'byte')} of losses, expected {expected:,} ({path})")


def rewind(path: Path, n_steps: int, batch_size: int) -> None:
    """Truncates a file to its first `n_steps` steps; creates an empty one if it does not exist.

    Raises:
        FormatError: It has fewer.
    """
    expected = n_steps * batch_size * _DTYPE.itemsize
    if path.exists():
        checked.open_regular(path).close()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        n_bytes = os.fstat(descriptor).st_size
        if n_bytes < expected:
            what = f"{counted(n_bytes, 'byte')} of losses, expected {expected:,}"
            raise FormatError(f"{what}; force starts again ({path})")
        if n_bytes > expected:
            os.ftruncate(descriptor, expected)
        files.sync(descriptor, path)
    finally:
        os.close(descriptor)


def fill(path: Path, n_steps: int, batch_size: int) -> None:
    """Writes a file in which the losses of the first `n_steps` steps are not known: NaN."""
    values = np.full(batch_size, np.nan, _DTYPE).tobytes()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    # A full disk's error names no file.
    with failures.named(path), os.fdopen(descriptor, "wb") as file:
        for _ in range(n_steps):
            file.write(values)


class RowLossWriter(Appender):
    """Appends the losses of steps to a file, which `rewind` made."""

    def __init__(self, path: Path, batch_size: int) -> None:
        super().__init__(path)
        self._batch_size = batch_size

    def add(self, losses: NDArray[np.float32] | None) -> None:
        """Adds the losses of the next step: (batch_size,) float32, or None where none were computed."""
        if losses is None:
            losses = np.full(self._batch_size, np.nan, np.float32)
        assert losses.shape == (self._batch_size,), losses.shape
        # Losses beyond the largest float16 are infinite.
        with np.errstate(over="ignore"):
            self.append(losses.astype(_DTYPE).tobytes())
