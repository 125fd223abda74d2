"""Checks all that a run has written, and finds checkpoints with equal weights.

Published suites had such: branches of several steps with the weights of one (pythia#205), or with a part of
another step's (pythia#206).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from pile_tools import manifest
from pile_tools.errors import PileError
from pile_tools.jobs import verify
from pile_tools.jobs.verify import Check
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE
from trainer.branching import STATE_ROLE, WEIGHTS_ROLE
from trainer.checkpoint import folders, hf
from trainer.checkpoint.weights import read_safetensors
from trainer.log import LOG_FILE, read_log

OnCheck = Callable[[Check], object]


def check_run(folder: Path, on_check: OnCheck = lambda check: None) -> list[Check]:
    """Checks a run, finished or not: each checkpoint and state, what it branched off from, equal weights.

    Args:
        folder: The run's folder.
        on_check: Called with each check when it is done.

    Raises:
        PileError: The folder has no run.
        OSError: A file cannot be read.
    """
    artifacts = list(_artifacts(folder))
    if not artifacts:
        raise PileError(f"no run of pile-train: no manifest of it, of a checkpoint or of a state ({folder})")
    done: list[Check] = []
    seen: set[tuple[str, str]] = set()

    def add(check: Check) -> None:
        # The manifest of a finished run lists those of its checkpoints.
        if (check.state, check.what) not in seen:
            seen.add((check.state, check.what))
            done.append(check)
            on_check(check)

    for path in artifacts:
        try:
            verify.run(path, on_check=add)
        except PileError as err:
            if not any(check.state == "WRONG" for check in done):
                add(Check("WRONG", str(err), path))
    for check in _equal_weights(folder):
        add(check)
    return done


def _artifacts(folder: Path) -> Iterator[Path]:
    """The manifests to check: the run's own, those of its steps, and that of what it branched off from."""
    # What is no regular file is reported by those who read it.
    own = [path for name in (MANIFEST_FILE, RUN_FILE) if os.path.lexists(path := folder / name)]
    yield from own[:1]
    for parent in (folders.checkpoints_folder(folder), folder / "resume"):
        for step in folders.steps_in(parent):
            yield folders.step_folder(parent, step) / MANIFEST_FILE
    if not own:
        return
    run = manifest.read(own[-1])
    for entry in run.inputs:
        path = manifest.input_path(run, entry)
        if entry["role"] in (STATE_ROLE, WEIGHTS_ROLE) and path.name == MANIFEST_FILE and path.is_file():
            yield path


@dataclass(frozen=True)
class Weights:
    """The digests of the tensors of a checkpoint's matrices, by name, and the type of their values.

    Vectors are left out: those that start as zeros or ones may stay so.
    """

    digests: dict[str, str]
    dtype: str


def digests(path: Path) -> Weights:
    """The digests of a file's matrices. Raises FormatError, OSError."""
    found: dict[str, str] = {}
    dtype = ""
    for name, tensor in read_safetensors(path):
        if tensor.ndim >= 2:
            digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            found[name] = digest.hexdigest()
            dtype = str(tensor.dtype)
    return Weights(found, dtype)


def _equal_weights(folder: Path) -> Iterator[Check]:
    """A check for each checkpoint that shares matrices with an earlier one."""
    updates = _Updates(folder)
    first: dict[tuple[str, str], int] = {}
    for step in folders.steps_in(folders.checkpoints_folder(folder)):
        path = folders.step_folder(folders.checkpoints_folder(folder), step) / hf.WEIGHTS_FILE
        try:
            if not _has_recorded_size(path):
                # Reported by the check of its manifest. A sparse file can hold more than any memory.
                continue
            weights = digests(path)
        except PileError as err:
            yield Check("WRONG", str(err), path.with_name(MANIFEST_FILE))
            continue
        shared = [first[item] for item in weights.digests.items() if item in first]
        if shared:
            yield _shared(path, step, max(shared), len(shared), weights, updates)
        for item in weights.digests.items():
            first.setdefault(item, step)


def _has_recorded_size(path: Path) -> bool:
    """Whether a file has the size that the manifest beside it records. Raises FormatError."""
    record = path.with_name(MANIFEST_FILE)
    sizes = {one["path"]: one["bytes"] for one in (manifest.read(record).outputs if record.is_file() else ())}
    return path.is_file() and path.stat().st_size == sizes.get(path.name)


def _shared(path: Path, step: int, earlier: int, n_shared: int, weights: Weights, updates: _Updates) -> Check:
    n = len(weights.digests)
    what = "the weights" if n_shared == n else f"{n_shared} of {n} matrices"
    found = f"step {step} has {what} of step {earlier}"
    artifact = path.with_name(MANIFEST_FILE)
    if not updates.any_between(earlier, step):
        return Check("ok", f"{found}: no step between them changed any", artifact)
    if weights.dtype != "torch.float32":
        return Check("unsure", f"{found}: small updates are lost when {weights.dtype} rounds them", artifact)
    return Check("WRONG", f"{found} ({path})", artifact)


class _Updates:
    """The steps of a run that left the weights as they were, by its log."""

    def __init__(self, folder: Path) -> None:
        path = folder / LOG_FILE
        lines = read_log(path) if path.is_file() else []
        self._idle = {line["step"] for line in lines if "skipped" in line or line["lr"] == 0}

    def any_between(self, earlier: int, later: int) -> bool:
        """Whether an update made weights of the later step from those of the earlier one."""
        return any(step not in self._idle for step in range(earlier, later))
