"""The files of a finished study: arrays per row, lists per canary, tables per checkpoint, passages."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import files
from studies.memorization import canaries, passages
from studies.memorization.plan import Plan
from studies.memorization.rows import CONTROL_DIVISOR
from studies.memorization.scores import Scores, seen_and_unseen
from studies.memorization.tables import CanaryFile, CanaryScores, CheckpointTable, Summary

SCORES_FILE, CANARIES_FILE, SUMMARY_FILE = "scores.npz", "canaries.json", "memorization.json"

DEFINITION = (
    "Score: fraction of the continuation's positions at which greedy decoding from the prompt gives the true "
    "token (arXiv:2304.11158); memorized: all of them."
)


def names(plan: Plan) -> list[str]:
    """The names of the files that `write` writes."""
    return [SCORES_FILE, SUMMARY_FILE, *([CANARIES_FILE] if len(plan.canaries) else [])]


def write(plan: Plan, folder: Path, scores: list[Scores]) -> None:
    """Writes the results of a study, files of the names that `names` gives.

    Args:
        plan: The rows, canaries and checkpoints of the study.
        folder: Where the files are written.
        scores: For each checkpoint the scores of the rows, and then those of the canaries.

    Raises:
        OSError: A file cannot be written.
    """
    n_rows = len(plan.rows.numbers)
    matches = np.stack([s.matches for s in scores])
    leading = np.stack([s.leading for s in scores])
    arrays = npz(
        rows=plan.rows.numbers,
        steps_seen=plan.rows.steps_seen,
        checkpoints=np.array(plan.steps, dtype=np.int64),
        matches=matches[:, :n_rows],
        leading=leading[:, :n_rows],
    )
    files.write_atomically(folder / SCORES_FILE, arrays)
    samples = canaries.find_samples(plan.canaries.tokens, plan.run) if len(plan.canaries) else []
    n_seen = [canaries.count_seen(samples, step * plan.run.batch_size) for step in plan.steps]
    if len(plan.canaries):
        values = _canary_values(plan, n_seen, matches[:, n_rows:], leading[:, n_rows:])
        files.write_atomically(folder / CANARIES_FILE, json.dumps(values, indent=1) + "\n")
    summary = _summary(plan, scores, n_seen)
    files.write_atomically(folder / SUMMARY_FILE, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays as the bytes of an `.npz` file, the same for the same arrays."""
    buffer = io.BytesIO()
    # numpy gives all files of the archive the same fixed date. The type stubs of numpy 2.0 and 2.1 do not
    # know that keywords may be arrays.
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _canary_values(
    plan: Plan, n_seen: list[NDArray[np.int64]], matches: NDArray[np.uint8], leading: NDArray[np.uint8]
) -> CanaryFile:
    """Per canary, lists with one value per checkpoint."""
    known: list[CanaryScores] = [
        {
            "text": text,
            "repeats": int(plan.canaries.repeats[i]),
            "n_seen": [int(counts[i]) for counts in n_seen],
            "matches": matches[:, i].tolist(),
            "leading": leading[:, i].tolist(),
        }
        for i, text in enumerate(plan.canaries.texts)
    ]
    return {
        "checkpoints": plan.steps,
        "continuation_tokens": plan.config.continuation_tokens,
        "canaries": known,
    }


def _summary(plan: Plan, scores: list[Scores], n_seen: list[NDArray[np.int64]]) -> Summary:
    """The tables of all checkpoints, and the passages that the last one memorized best."""
    n_rows, n_tokens = len(plan.rows.numbers), plan.config.continuation_tokens
    tables: list[CheckpointTable] = []
    for step, known, counts in zip(plan.steps, scores, n_seen, strict=True):
        groups = seen_and_unseen(known.matches[:n_rows], plan.rows.steps_seen, step, n_tokens)
        levels = canaries.by_repeats(plan.canaries.repeats, counts, known.matches[n_rows:], n_tokens)
        seen, unseen = groups["seen"], groups["unseen"]
        tables.append({"step": step, "seen": seen, "unseen": unseen, "canaries": levels})
    best = passages.most_memorized(plan.run, plan.rows, plan.canaries, n_seen[-1], scores[-1], plan.steps[-1])
    return {
        "definition": DEFINITION,
        "n_rows": n_rows,
        "n_left_out": plan.rows.n_left_out,
        "n_padded": plan.rows.n_padded,
        "n_control": plan.config.rows // CONTROL_DIVISOR,
        "prompt_tokens": plan.config.prompt_tokens,
        "continuation_tokens": n_tokens,
        "checkpoints": tables,
        "passages": best,
    }
