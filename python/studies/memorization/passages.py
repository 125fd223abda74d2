"""The passages that a checkpoint gives back best: what they say, whence they come and when they were seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.memorization.canaries import Canaries, find_samples
from studies.memorization.rows import Rows, documents_of
from studies.memorization.scores import Scores
from studies.runs import Run

#: Upper limits of rows and of canaries shown: canaries alone would fill the list.
N_ROWS, N_CANARIES = 11, 4


def most_memorized(
    run: Run, rows: Rows, planted: Canaries, n_seen: NDArray[np.int64], scores: Scores, checkpoint: int
) -> list[dict[str, Any]]:
    """The rows and canaries with the most matches that the checkpoint was trained on, best first.

    Equal ones are taken once; those without a single match are left out.

    Args:
        run: The run.
        rows: The rows that were scored.
        planted: The canaries that were scored.
        n_seen: How often each canary was seen by the checkpoint: (n_canaries,) int64.
        scores: Of the rows, then of the canaries.
        checkpoint: Number of updates.
    """
    n_rows = len(rows.numbers)
    by_row = _best(rows.tokens, scores[:n_rows], rows.steps_seen < checkpoint, N_ROWS)
    by_canary = _best(planted.tokens, scores[n_rows:], n_seen > 0, N_CANARIES)
    found = [
        {"row": int(rows.numbers[i]), "documents": _documents(run, rows, i), **passage}
        for i, passage in zip(by_row, _passages(run, rows.tokens, scores[:n_rows], by_row), strict=True)
    ] + [
        {"repeats": int(planted.repeats[i]), "documents": [], **passage}
        for i, passage in zip(
            by_canary, _passages(run, planted.tokens, scores[n_rows:], by_canary), strict=True
        )
    ]
    return sorted(found, key=lambda passage: (-passage["matches"], -passage["leading"]))


def _best(
    tokens: NDArray[np.int64], scores: Scores, is_seen: NDArray[np.bool_], n_passages: int
) -> list[int]:
    """Indices of the best sequences among those seen, by matches, then leading matches, then index."""
    matches, leading = scores.matches, scores.leading
    chosen: dict[bytes, int] = {}
    for i in np.lexsort((-leading.astype(int), -matches.astype(int))).tolist():
        if is_seen[i] and matches[i] > 0 and len(chosen) < n_passages:
            chosen.setdefault(tokens[i].tobytes(), i)
    return list(chosen.values())


def _passages(run: Run, tokens: NDArray[np.int64], scores: Scores, chosen: list[int]) -> list[dict[str, Any]]:
    """The texts of some sequences, how much of them the model reproduced, and the steps that saw them."""
    matches, leading = scores.matches, scores.leading
    n_prompt = tokens.shape[1] - scores.is_right.shape[1]
    return [
        {
            "matches": int(matches[i]),
            "leading": int(leading[i]),
            "distinct_tokens": len(set(tokens[i, n_prompt:].tolist())),
            "prompt": _text(run, tokens[i, :n_prompt]),
            "continuation": _graded_fragments(run, tokens[i, n_prompt:], scores.is_right[i]),
            "seen_at_steps": _counts(found // run.batch_size),
        }
        for i, found in zip(chosen, find_samples(tokens[chosen], run), strict=True)
    ]


def _documents(run: Run, rows: Rows, i: int) -> list[dict[str, Any]]:
    """Where the tokens of a row come from."""
    dataset = run.order.dataset
    documents = documents_of(run, int(rows.numbers[i]), rows.tokens.shape[1])
    return [{"document": document, **(dataset.origin(document) or {})} for document in documents]


def _graded_fragments(
    run: Run, tokens: NDArray[np.int64], is_right: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """A continuation in fragments that the model reproduced or did not, in order."""
    edges = np.flatnonzero(np.diff(is_right)) + 1
    parts = zip(np.split(tokens, edges), np.split(is_right, edges), strict=True)
    return [{"text": _text(run, part), "is_right": bool(right[0])} for part, right in parts]


def _text(run: Run, tokens: NDArray[np.int64]) -> str:
    """Tokens as text, or as numbers where the run has no tokenizer."""
    if run.tokenizer is None:
        return " ".join(map(str, tokens.tolist()))
    return run.tokenizer.decode(tokens, skip_special_tokens=False, skip_unknown=True)


def _counts(steps: NDArray[np.int64]) -> list[dict[str, int]]:
    """Each step once, ascending, and how often its batch holds the sequence."""
    return [{"step": step, "times": times} for step, times in sorted(Counter(steps.tolist()).items())]
