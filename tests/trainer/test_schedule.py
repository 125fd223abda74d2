from __future__ import annotations

import math

import pytest

from trainer.schedule import learning_rate


def rate(step: int, n_steps: int = 1000, warmup: float = 0.01) -> float:
    return learning_rate(step, n_steps, lr=1.0, min_lr=0.1, warmup=warmup)


def test_warmup_is_a_line_whose_first_two_steps_are_equal() -> None:
    assert [rate(s) for s in (0, 1, 2, 5, 10)] == pytest.approx([0.1, 0.1, 0.2, 0.5, 1.0])


def test_half_a_cosine_follows() -> None:
    assert rate(505) == pytest.approx(0.1 + 0.45 * (math.cos(math.pi * 495 / 990) + 1))
    assert rate(999) == pytest.approx(0.1, abs=1e-5)
    assert rate(999) >= 0.1


def test_no_warmup_starts_at_the_top() -> None:
    assert rate(0, warmup=0.0) == 1.0


def test_a_warmup_below_one_step_does_not_overshoot() -> None:
    assert rate(0, n_steps=12) == 1.0
