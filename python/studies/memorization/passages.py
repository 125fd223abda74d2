"""The passages that a checkpoint reproduces best: their texts, their documents and the steps with them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pile_tools.types import Origin
from studies.memorization.canaries import Canaries, find_samples
from studies.memorization.rows import Rows, documents_of
from studies.memorization.scores import Scores
from studies.memorization.tables import Fragment, Passage, PassageDocument, Times
from studies.runs import Run

#: Upper limits of rows and of canaries shown: canaries alone would fill the list.
N_ROWS, N_CANARIES = 11, 4


def most_memorized(
    run: Run, rows: Rows, planted: Canaries, n_seen: NDArray[np.int64], scores: Scores, checkpoint: int
) -> list[Passage]:
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
    of_rows = _passages(run, rows.tokens, scores[:n_rows], by_row)
    for i, passage in zip(by_row, of_rows, strict=True):
        passage["row"], passage["documents"] = int(rows.numbers[i]), _documents(run, rows, i)
    of_canaries = _passages(run, planted.tokens, scores[n_rows:], by_canary)
    for i, passage in zip(by_canary, of_canaries, strict=True):
        passage["repeats"] = int(planted.repeats[i])
    return sorted(of_rows + of_canaries, key=lambda passage: (-passage["matches"], -passage["leading"]))


def _best(
    tokens: NDArray[np.int64], scores: Scores, is_seen: NDArray[np.bool_], n_passages: int
) -> list[int]:
    """Indices of the best sequences among those seen, by matches, then leading matches, then index."""
    matches, leading = scores.matches, scores.leading
    chosen: dict[bytes, int] = {}
    # As int: the negative of an unsigned number is a large one.
    for i in np.lexsort((-leading.astype(int), -matches.astype(int))).tolist():
        if is_seen[i] and matches[i] > 0 and len(chosen) < n_passages:
            chosen.setdefault(tokens[i].tobytes(), i)
    return list(chosen.values())


def _passages(run: Run, tokens: NDArray[np.int64], scores: Scores, chosen: list[int]) -> list[Passage]:
    """The texts of some sequences, how much of each the model reproduced, and all steps that see it."""
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
            "documents": [],
        }
        for i, found in zip(chosen, find_samples(tokens[chosen], run), strict=True)
    ]


def _documents(run: Run, rows: Rows, i: int) -> list[PassageDocument]:
    """Where the tokens of a row come from."""
    dataset = run.order.dataset
    documents = documents_of(run, int(rows.numbers[i]), rows.tokens.shape[1])
    return [_document(document, dataset.origin(document)) for document in documents]


def _document(document: int, origin: Origin | None) -> PassageDocument:
    return {"document": document} if origin is None else {"document": document, **origin}


def _graded_fragments(run: Run, tokens: NDArray[np.int64], is_right: NDArray[np.bool_]) -> list[Fragment]:
    """A continuation in fragments that the model reproduced or did not, in order."""
    edges = np.flatnonzero(np.diff(is_right)) + 1
    parts = zip(np.split(tokens, edges), np.split(is_right, edges), strict=True)
    return [{"text": _text(run, part), "is_right": bool(right[0])} for part, right in parts]


def _text(run: Run, tokens: NDArray[np.int64]) -> str:
    """Tokens as text, or as numbers where the run has no tokenizer."""
    if run.tokenizer is None:
        return " ".join(map(str, tokens.tolist()))
    return run.tokenizer.decode(tokens, skip_special_tokens=False, skip_unknown=True)


def _counts(steps: NDArray[np.int64]) -> list[Times]:
    """Each step once, ascending, and how often its batch holds the sequence."""
    return [{"step": step, "times": times} for step, times in sorted(Counter(steps.tolist()).items())]
