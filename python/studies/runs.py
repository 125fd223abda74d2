"""A run as studies see it: its manifest, the order it was trained in, its checkpoints and its log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pile_tools import Order, Tokenizer, manifest
from pile_tools.errors import FormatError, PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.terminal import counted
from pile_tools.tokenizers import TOKENIZER_FILE, tokenizer_in
from studies.checked import items, record, text, whole
from trainer.checkpoint.folders import checkpoints_folder, step_folder
from trainer.config import MAX_COUNT
from trainer.recorded import order_of

#: What a study reads of a run's manifest.
_SETTINGS = record(
    {"steps": whole(1, MAX_COUNT), "batch_size": whole(1, MAX_COUNT), "seed": whole(), "precision": text}
)
_SUMMARY = record({"checkpoints": items(whole()), "n_parameters": whole(1)})


@dataclass(frozen=True)
class Run:
    """A run's folder, read.

    Attributes:
        folder: The folder that `pile-train` wrote.
        manifest: Its manifest.
        order: The samples it was trained on.
        steps: Updates of the whole run; step s, from 0, trains on batch s.
        batch_size: Samples of a step.
        checkpoints: Numbers of updates after which weights were saved, ascending.
    """

    folder: Path
    manifest: Manifest
    order: Order
    steps: int
    batch_size: int
    checkpoints: list[int]

    @property
    def n_samples(self) -> int:
        """Samples the run is trained on: the first of its order."""
        return self.steps * self.batch_size

    @property
    def first_step(self) -> int:
        """The run's first step: 0, or where it branches off from another run."""
        settings = self.manifest.checked_settings
        return settings.integer("branch.step") if settings.has("branch.step") else 0

    @cached_property
    def skipped(self) -> list[int]:
        """The steps that left the weights as they were: nothing was learnt from their rows."""
        summary = self.manifest.checked_summary
        # Runs of earlier versions do not list them.
        return summary.integers("skipped") if summary.has("skipped") else []

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer in the checkpoints, or None if they have none.

        Raises:
            VerifyError: It is not the one that the manifest of the last checkpoint lists.
            FormatError, OSError: It cannot be read.
        """
        folder = self.checkpoint(self.checkpoints[-1])
        found = tokenizer_in(folder)
        listed = {entry["path"]: entry["sha256"] for entry in manifest.read(folder / MANIFEST_FILE).outputs}
        if (found.sha256 if found else None) != listed.get(TOKENIZER_FILE):
            path = folder / TOKENIZER_FILE
            raise VerifyError(f"missing, or not the file that the checkpoint was written with ({path})")
        return found.load() if found else None

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return step_folder(checkpoints_folder(self.folder), step)


def open_run(folder: Path) -> Run:
    """Opens a run and checks that its order is the one it was trained on.

    Raises:
        PileError: No run, no checkpoint, or an order that is not here or another one.
        OSError: A file cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise PileError(f"no finished run of pile-train: {MANIFEST_FILE} is missing ({folder})")
    found = manifest.read(path)
    if found.kind != "run":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected a run ({path})")
    _SETTINGS(found.settings, f"{path}, settings")
    _SUMMARY(found.summary, f"{path}, summary")
    run = Run(
        folder=folder,
        manifest=found,
        order=order_of(found),
        steps=found.checked_settings.integer("steps", 1),
        batch_size=found.checked_settings.integer("batch_size", 1),
        checkpoints=found.checked_summary.integers("checkpoints"),
    )
    _check_run(run)
    return run


def _check_run(run: Run) -> None:
    """Raises an error for a run that does not fit its order or lacks a checkpoint."""
    steps = run.checkpoints
    if not steps:
        raise PileError(f"the run has no checkpoints ({run.manifest.path})")
    if steps != sorted(set(steps)) or steps[-1] > run.steps:
        raise FormatError(
            f"checkpoints are not steps from 0 to {run.steps:,}, ascending ({run.manifest.path})"
        )
    for step in steps:
        if not run.checkpoint(step).is_dir():
            raise PileError(f"a checkpoint of the run is missing ({run.checkpoint(step)})")
    if run.n_samples > len(run.order.samples):
        raise FormatError(
            f"{counted(run.steps, 'step')} of {counted(run.batch_size, 'row')}, "
            f"the order has {counted(len(run.order.samples), 'row')} ({run.manifest.path})"
        )
