"""A run as its folder records it, finished or in training: settings, order, losses of rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pile_tools import Order, manifest, open_order
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE, Manifest
from pile_tools.terminal import counted
from trainer.config import MAX_COUNT
from trainer.row_losses import RowLosses, read_row_losses


@dataclass(frozen=True)
class RecordedRun:
    """A run's folder, opened.

    Attributes:
        folder: The folder that `pile-train` wrote.
        record: Its manifest, or its `run.json` while it trains.
    """

    folder: Path
    record: Manifest

    @property
    def is_finished(self) -> bool:
        """Whether the run has reached its last step."""
        return self.record.path.name == MANIFEST_FILE

    @property
    def batch_size(self) -> int:
        """Rows of a step."""
        return self.record.checked_settings.integer("batch_size", 1, MAX_COUNT)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.record.checked_settings.integer("steps", 1, MAX_COUNT)

    @cached_property
    def order(self) -> Order:
        """The order that the run is trained on. Raises PileError if it is not here or another one."""
        found = order_of(self.record)
        if len(found.samples) < self.steps * self.batch_size:
            n_steps = counted(self.steps, "step")
            raise FormatError(f"the order has fewer rows than {n_steps} of {self.batch_size} ({found.name})")
        return found

    @cached_property
    def row_losses(self) -> RowLosses:
        """The losses of the rows of all steps so far: (steps, batch_size) float16, mapped."""
        return read_row_losses(self.folder)

    def losses_of(self, step: int) -> RowLosses:
        """The losses of the rows of a step: (batch_size,). Raises ConfigError if the run is not there yet."""
        n_steps = len(self.row_losses)
        if not 0 <= step < n_steps:
            known = f"the run has trained {counted(n_steps, 'step')}, from 0"
            raise ConfigError(f"no step {step}: {known} ({self.folder})")
        losses: RowLosses = self.row_losses[step]
        return losses


def open_recorded(folder: Path) -> RecordedRun:
    """Opens a run. Raises PileError if the folder has none, OSError if a file cannot be read."""
    paths = [path for name in (MANIFEST_FILE, RUN_FILE) if (path := folder / name).exists()]
    if not paths:
        raise PileError(f"no run of pile-train: {RUN_FILE} is missing ({folder})")
    found = manifest.read(paths[0])
    if found.kind != "run":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected a run ({paths[0]})")
    return RecordedRun(folder, found)


def batch_size_option(order: Order, batch_size: int) -> str:
    """What `pile-tools batch` needs to show the steps of a run: its batch size, if it is not the order's."""
    return "" if order.batch_size == batch_size else f" --batch-size {batch_size}"


def order_of(record: Manifest) -> Order:
    """The order that a run's manifest names, if it is unchanged. Raises PileError, OSError."""
    entry = record.input("order")
    if entry is None:
        raise FormatError(f"the run names no order ({record.path})")
    sha256 = manifest.required(record, entry, "sha256")
    order = open_order(manifest.input_path(record, entry))
    if order.record.sha256 != sha256:
        raise PileError(f"not the order that the run was trained on: it was made again since ({order.path})")
    return order
