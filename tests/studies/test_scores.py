"""The memorization score against hand-computed values and its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from studies.memorization.scores import compare, seen_and_unseen, summarize

TRUTH = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
GENERATED = np.array([[1, 2, 3, 4], [1, 2, 9, 4], [9, 2, 3, 4], [4, 3, 2, 1]])


def test_scores_of_four_continuations_by_hand() -> None:
    scores = compare(GENERATED, TRUTH)
    assert scores.matches.tolist() == [4, 3, 3, 0]
    assert scores.leading.tolist() == [4, 2, 0, 0]


def test_summary_by_hand() -> None:
    summary = summarize(compare(GENERATED, TRUTH).matches, 4)
    assert summary["n"] == 4
    assert summary["mean_score"] == pytest.approx(10 / 16)
    assert summary["n_memorized"] == 1
    assert summary["share_memorized"] == 0.25
    # Scores 1, .75, .75, 0: deviations .375, .125, .125, -.625 from .625.
    assert summary["standard_error"] == pytest.approx((0.5625 / 3) ** 0.5 / 2)


def test_an_empty_group_has_no_score() -> None:
    summary = summarize(np.zeros(0, np.uint8), 32)
    assert summary["n"] == 0
    assert summary["mean_score"] is summary["share_memorized"] is summary["standard_error"] is None


def test_a_single_sequence_has_no_standard_error() -> None:
    assert summarize(np.array([32], np.uint8), 32)["standard_error"] is None


def test_rows_count_as_seen_once_their_step_is_done() -> None:
    matches, steps = np.array([8, 0, 4, 8], np.uint8), np.array([0, 1, 2, 3])
    at_two = seen_and_unseen(matches, steps, 2, 8)
    assert (at_two["seen"]["n"], at_two["unseen"]["n"]) == (2, 2)
    assert at_two["seen"]["mean_score"] == 0.5
    assert at_two["unseen"]["mean_score"] == 0.75
    assert seen_and_unseen(matches, steps, 0, 8)["seen"]["n"] == 0
    assert seen_and_unseen(matches, steps, 4, 8)["unseen"]["n"] == 0


def test_other_shapes_are_errors() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        compare(TRUTH, TRUTH[:, :3])


@given(
    st.tuples(st.integers(0, 5), st.integers(1, 40)).flatmap(
        lambda shape: st.tuples(*(arrays(np.int64, shape, elements=st.integers(0, 2)) for _ in range(2)))
    )
)
def test_properties_of_the_score(pair: tuple[np.ndarray, np.ndarray]) -> None:
    generated, truth = pair
    scores, n = compare(generated, truth), truth.shape[1]
    matches, leading = scores.matches.astype(int), scores.leading.astype(int)
    assert ((matches >= 0) & (matches <= n)).all()
    assert (leading <= matches).all()
    assert ((matches == n) == (leading == n)).all()
    assert ((matches == n) == (generated == truth).all(axis=1)).all()
