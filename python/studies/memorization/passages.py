"""The passages that a checkpoint gives back best: what they say, whence they come and when they were seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.memorization.canaries import find_samples
from studies.memorization.rows import Rows, documents_of
from studies.memorization.scores import Scores
from studies.runs import Run

N_PASSAGES = 15


def most_memorized(
    run: Run, rows: Rows, scores: Scores, n_prompt: int, checkpoint: int
) -> list[dict[str, Any]]:
    """The rows with the most matches that the checkpoint was trained on, equal ones once, best first.

    Rows without a single match are left out.
    """
    matches, leading = scores.matches, scores.leading
    chosen = _best(rows, matches, leading, checkpoint)
    samples = find_samples(rows.tokens[chosen], run)
    return [
        {
            "row": int(rows.numbers[i]),
            "matches": int(matches[i]),
            "leading": int(leading[i]),
            "distinct_tokens": len(set(rows.tokens[i, n_prompt:].tolist())),
            "prompt": _text(run, rows.tokens[i, :n_prompt]),
            "continuation": _pieces(run, rows.tokens[i, n_prompt:], scores.is_right[i]),
            "documents": [
                {"document": d, **(run.order.samples.dataset.origin(d) or {})}
                for d in documents_of(run, int(rows.numbers[i]), rows.tokens.shape[1])
            ],
            "seen_at_steps": _counts(found // run.batch_size),
        }
        for i, found in zip(chosen, samples, strict=True)
    ]


def _best(rows: Rows, matches: NDArray[np.uint8], leading: NDArray[np.uint8], checkpoint: int) -> list[int]:
    """Places of the best rows among those seen, by matches, then leading matches, then place."""
    order = np.lexsort((rows.numbers, -leading.astype(int), -matches.astype(int)))
    chosen: dict[bytes, int] = {}
    for i in order.tolist():
        if rows.steps_seen[i] < checkpoint and matches[i] > 0 and len(chosen) < N_PASSAGES:
            chosen.setdefault(rows.tokens[i].tobytes(), i)
    return list(chosen.values())


def _pieces(run: Run, tokens: NDArray[np.int64], is_right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """A continuation in pieces that the model gave back right or wrong, one after the other."""
    edges = np.flatnonzero(np.diff(is_right)) + 1
    parts = zip(np.split(tokens, edges), np.split(is_right, edges), strict=True)
    return [{"text": _text(run, part), "is_right": bool(right[0])} for part, right in parts]


def _text(run: Run, tokens: NDArray[np.int64]) -> str:
    """Tokens as text, or as numbers where the run has no tokenizer."""
    if run.tokenizer is None:
        return " ".join(map(str, tokens.tolist()))
    return run.tokenizer.decode(tokens, skip_special_tokens=False)


def _counts(steps: NDArray[np.int64]) -> list[dict[str, int]]:
    """Each step once, ascending, and how often its batch holds the sequence."""
    return [{"step": step, "times": times} for step, times in sorted(Counter(steps.tolist()).items())]
