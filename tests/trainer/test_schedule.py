from __future__ import annotations

import math

import pytest

from trainer.schedule import learning_rate

#: Steps of Pythia's runs.
PYTHIA_STEPS = 143_000


def pythia(step: int) -> float:
    """The formula as GPT-NeoX v1.0 writes it."""
    n, warmup, end = step, 0.01 * PYTHIA_STEPS, PYTHIA_STEPS
    counted = min(n, end - warmup)
    if n <= warmup:
        return 1e-3 * counted / warmup
    return max(1e-4, 1e-3 / 2 * (math.cos(math.pi * (counted - warmup) / end) + 1))


@pytest.mark.parametrize(
    "step", [0, 1, 2, 715, 1429, 1430, 1431, 35750, 71500, 107250, 114000, 120000, 142999]
)
def test_the_older_formula_is_pythias(step: int) -> None:
    found = learning_rate(step, PYTHIA_STEPS, lr=1e-3, min_lr=1e-4, warmup=0.01, schedule="neox_v1")
    assert found == pytest.approx(pythia(step), rel=1e-12, abs=0)


def test_the_older_formula_in_numbers() -> None:
    def older(step: int) -> float:
        return learning_rate(step, PYTHIA_STEPS, lr=1.0, min_lr=0.1, warmup=0.01, schedule="neox_v1")

    assert older(0) == 0.0
    assert older(715) == 0.5
    assert older(1430) == 1.0
    assert older(1430 + 71500) == pytest.approx(0.5)
    assert older(142999) == 0.1
    newer = learning_rate(107250, PYTHIA_STEPS, lr=1.0, min_lr=0.1, warmup=0.01)
    assert newer / older(107250) == pytest.approx(1.49, abs=0.01)


def test_the_older_formula_without_warmup_starts_at_the_top() -> None:
    assert learning_rate(0, 10, lr=1.0, min_lr=0.1, warmup=0.0, schedule="neox_v1") == 1.0


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
