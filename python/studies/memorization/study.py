"""Scores every checkpoint of a run on the same rows and canaries, and writes what comes of it.

    OUT/scores.npz         per row and checkpoint: matches and leading matches
    OUT/canaries.json      per canary and checkpoint: how often it was seen, and the same
    OUT/memorization.json  the tables, and the passages memorized best
    OUT/manifest.json      what it was made from

An interrupted study resumes with the checkpoints that are finished in `OUT.partial/`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pile_tools import checked, files, publish, scratch_folders
from pile_tools.errors import FormatError, OutputExistsError
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.publish import Built, Target
from pile_tools.types import OnProgress
from studies.memorization import results
from studies.memorization.plan import BATCH_SIZE, Plan
from studies.memorization.scores import Scores

#: The folder in the scratch folder with the scores of finished checkpoints.
_SCORES = "scores"

#: What numpy raises for a file that is not a whole `.npz`.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, TypeError, AttributeError),
    *(NotImplementedError, RuntimeError, IndexError, OverflowError),
)


def run(
    plan: Plan, folder: Path, *, force: bool = False, on_progress: OnProgress = None
) -> tuple[Manifest, bool]:
    """Scores the checkpoints that are not scored yet; returns the manifest and whether it was made now.

    Args:
        plan: From `prepare`.
        folder: Where the results go.
        force: Replace a study of something else.
        on_progress: Called with the sequences scored so far, over all checkpoints.

    Raises:
        OutputExistsError: The folder has another study and `force` is off.
        OSError: A file cannot be read or written.
    """
    request, names = plan.request(folder), results.names(plan)

    def build(scratch: Path) -> Built:
        shape = (len(plan.rows.numbers) + len(plan.canaries), plan.config.continuation_tokens)
        scores = _all_scores(
            plan,
            _Parts(scratch_folders.inner(scratch, _SCORES), request.digest, shape, discard=force),
            on_progress,
        )
        results.write(plan, scratch, scores)
        summary = {"n_rows": len(plan.rows.numbers), "checkpoints": plan.steps}
        return Built(names, summary, request.inputs)

    target = Target.of(folder / MANIFEST_FILE)
    return publish.make(target, request, build, force=force, names=names, resumes=[_SCORES])


def _all_scores(plan: Plan, parts: _Parts, on_progress: OnProgress) -> list[Scores]:
    """Rows' and canaries' scores by each checkpoint, one array after the other, computed or read."""
    sequences = np.concatenate([plan.rows.tokens, plan.canaries.tokens])
    scores = []
    for number, step in enumerate(plan.steps):
        known = parts.read(step)
        if known is None:
            known = _score_checkpoint(plan, step, sequences, number * len(sequences), on_progress)
            parts.write(step, known)
        scores.append(known)
        if on_progress is not None:
            on_progress((number + 1) * len(sequences))
    return scores


class _Parts:
    """Scores of finished checkpoints in the scratch folder, from which an interrupted study resumes."""

    def __init__(self, scratch: Path, digest: str, shape: tuple[int, int], *, discard: bool) -> None:
        self._scratch, self._digest, self._shape = scratch, digest, shape
        self._state = scratch / publish.STATE
        self._checksums: dict[str, str] = self._read_checksums(discard)

    def _read_checksums(self, discard: bool) -> dict[str, str]:
        """Checksums by file name; empty if the state is missing or damaged.

        Raises:
            OutputExistsError: They are those of another study, and `discard` is off.
        """
        try:
            found = checked.read_json(self._state)
            request, sums = found.text("request"), found.object("sha256")
            checksums = {name: sums.hexadecimal(name) for name in sums.values}
        except (OSError, FormatError):
            return {}
        if request == self._digest:
            return checksums
        if checksums and not discard:
            raise OutputExistsError(
                "holds scores of an interrupted study with other rows or settings, which its command "
                f"resumes ({self._scratch})"
            )
        return {}

    def read(self, step: int) -> Scores | None:
        """The scores of a checkpoint, if they were finished and are as they were."""
        path = self._path(step)
        if path.name not in self._checksums or not path.is_file() or path.is_symlink():
            return None
        if files.sha256(path) != self._checksums[path.name]:
            return None
        # The checksums may come from whoever made the folder, as the scores.
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as part:
                is_right = part["is_right"]
        except _UNREADABLE:
            return None
        return Scores(is_right) if (is_right.shape, is_right.dtype) == (self._shape, np.bool_) else None

    def write(self, step: int, scores: Scores) -> None:
        """Keeps the scores of a checkpoint."""
        path = self._path(step)
        data = results.npz(is_right=scores.is_right)
        files.write_atomically(path, data)
        self._checksums[path.name] = hashlib.sha256(data).hexdigest()
        state = {"request": self._digest, "sha256": self._checksums}
        files.write_atomically(self._state, json.dumps(state))

    def _path(self, step: int) -> Path:
        return self._scratch / f"step{step}.npz"


def _score_checkpoint(
    plan: Plan,
    step: int,
    sequences: NDArray[np.int64],
    n_before: int,
    on_progress: OnProgress,
) -> Scores:
    from studies.memorization import models

    greedy = models.load_greedy(plan.run, step, plan.config.continuation_tokens, plan.ban)
    plan.check_unchanged(step)
    batches = []
    for batch in models.score(greedy, sequences, plan.config.prompt_tokens, BATCH_SIZE):
        batches.append(batch)
        n_before += len(batch.is_right)
        if on_progress is not None:
            on_progress(n_before)
    return Scores(np.concatenate([batch.is_right for batch in batches]))
