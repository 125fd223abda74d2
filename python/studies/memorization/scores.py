"""The memorization score and its summary over groups of sequences.

Source: Biderman et al. 2023, arXiv:2304.11158, equation 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from studies.memorization.tables import Group

#: The longest continuation whose counts fit the arrays.
MAX_CONTINUATION_TOKENS = 255


@dataclass(frozen=True)
class Scores:
    """How greedy continuations compare with the true ones.

    Attributes:
        is_right: Where the two are equal: (n, l) bool, l at most 255.
    """

    is_right: NDArray[np.bool_]

    @property
    def matches(self) -> NDArray[np.uint8]:
        """Positions at which the two are equal, wherever they are: (n,) uint8."""
        matches: NDArray[np.uint8] = self.is_right.sum(axis=1, dtype=np.uint8)
        return matches

    @property
    def leading(self) -> NDArray[np.uint8]:
        """Positions before the first difference: (n,) uint8."""
        leading: NDArray[np.uint8] = np.logical_and.accumulate(self.is_right, axis=1).sum(
            axis=1, dtype=np.uint8
        )
        return leading

    def __getitem__(self, sequences: slice) -> Scores:
        """The scores of some of the sequences."""
        return Scores(self.is_right[sequences])


def compare(generated: NDArray[np.int64], truth: NDArray[np.int64]) -> Scores:
    """Each generated continuation next to the true one, position by position.

    The published score is matches / l: a match after a difference counts.

    Shapes: two (n, l), l at most 255.
    Raises: ValueError if the shapes differ or l is longer.
    """
    if generated.shape != truth.shape or truth.ndim != 2 or truth.shape[1] > MAX_CONTINUATION_TOKENS:
        raise ValueError(f"expected two equal shapes (n, l <= 255), got {generated.shape} and {truth.shape}")
    return Scores(generated == truth)


def summarize(matches: NDArray[np.uint8], n_tokens: int) -> Group:
    """Mean score and share memorized (all of `n_tokens` match) of a group; None where it is empty.

    `standard_error` is that of the mean score, for independent sequences.
    """
    n = len(matches)
    if n == 0:
        return {"n": 0, "mean_score": None, "standard_error": None, "n_memorized": 0, "share_memorized": None}
    scores = matches / n_tokens
    n_memorized = int((matches == n_tokens).sum())
    return {
        "n": n,
        "mean_score": float(scores.mean()),
        "standard_error": float(scores.std(ddof=1)) / math.sqrt(n) if n > 1 else None,
        "n_memorized": n_memorized,
        "share_memorized": n_memorized / n,
    }


def seen_and_unseen(
    matches: NDArray[np.uint8], steps_seen: NDArray[np.int64], checkpoint: int, n_tokens: int
) -> dict[Literal["seen", "unseen"], Group]:
    """The summaries of rows a checkpoint was trained on and of rows it was not yet.

    Args:
        matches: Of each row, by the checkpoint: (n,) uint8.
        steps_seen: The first step whose batch holds each row's tokens; after `checkpoint` updates those below
            it are done.
        checkpoint: Number of updates.
        n_tokens: Tokens of a continuation.
    """
    is_seen = steps_seen < checkpoint
    return {
        "seen": summarize(matches[is_seen], n_tokens),
        "unseen": summarize(matches[~is_seen], n_tokens),
    }
