"""Scores every checkpoint of a run on the same rows and canaries, and writes what comes of it.

    OUT/scores.npz         per row and checkpoint: matches and leading matches
    OUT/canaries.json      per canary and checkpoint: how often it was seen, and the same
    OUT/memorization.json  the tables, and the passages memorized best
    OUT/manifest.json      what it was made from

While it works, finished checkpoints lie in `OUT/parts/`; an interrupted study goes on with the next one.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pile_tools import files, manifest
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.types import OnProgress
from studies.memorization import results
from studies.memorization.plan import BATCH_SIZE, Plan
from studies.memorization.scores import Scores

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
        OutputExistsError: Another study lies there and `force` is off.
        OSError: A file cannot be read or written.
    """
    request = plan.request(folder)
    final = folder / MANIFEST_FILE
    if done := manifest.finished(final, request, force=force):
        return done, False
    manifest.refuse_foreign(folder / results.SUMMARY_FILE, final, force=force)
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    scores = _all_scores(plan, parts, request.digest, on_progress)
    final.unlink(missing_ok=True)
    names = results.write(plan, folder, scores)
    outputs = [manifest.file_entry(folder / name, folder) for name in names]
    made = manifest.write(
        final, request, outputs, {"n_rows": len(plan.rows.numbers), "checkpoints": plan.steps}
    )
    shutil.rmtree(parts)
    return made, True


def _all_scores(plan: Plan, parts: Path, digest: str, on_progress: OnProgress) -> list[Scores]:
    """Rows' and canaries' scores by each checkpoint, one array after the other, computed or read."""
    sequences = np.concatenate([plan.rows.tokens, plan.canaries.tokens])
    scores = []
    for number, step in enumerate(plan.steps):
        path = parts / f"step{step}.npz"
        shape = (len(sequences), plan.config.continuation_tokens)
        known = _read_part(path, digest, shape)
        if known is None:
            known = _score_checkpoint(plan, step, sequences, number * len(sequences), on_progress)
            files.write_atomically(path, results.npz(request=np.array(digest), is_right=known.is_right))
        scores.append(known)
        if on_progress is not None:
            on_progress((number + 1) * len(sequences))
    return scores


def _score_checkpoint(
    plan: Plan,
    step: int,
    sequences: NDArray[np.int64],
    n_before: int,
    on_progress: OnProgress,
) -> Scores:
    from studies.memorization import models

    greedy = models.load_greedy(plan.run, step, plan.config.continuation_tokens, plan.ban)
    batches = []
    for batch in models.score(greedy, sequences, plan.config.prompt_tokens, BATCH_SIZE):
        batches.append(batch)
        n_before += len(batch.is_right)
        if on_progress is not None:
            on_progress(n_before)
    return Scores(np.concatenate([batch.is_right for batch in batches]))


def _read_part(path: Path, digest: str, shape: tuple[int, int]) -> Scores | None:
    """The scores of a checkpoint finished before for the same request, or None."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as part:
            is_right, request = part["is_right"], str(part["request"])
    except (FileNotFoundError, *_UNREADABLE):
        return None
    is_ours = request == digest and is_right.shape == shape and is_right.dtype == np.bool_
    return Scores(is_right) if is_ours else None
