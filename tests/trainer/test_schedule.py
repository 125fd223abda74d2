from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.schedule import DECAY_SHAPES, SCHEDULES, learning_rate

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


@st.composite
def any_run(draw: st.DrawFn) -> dict[str, Any]:
    """A schedule with its values, of a run of 1 to 100,000 steps."""
    warmup = draw(st.floats(0, 0.9))
    decay = draw(st.floats(1e-3, 1 - warmup))
    lr = draw(st.floats(1e-6, 1))
    return {
        "n_steps": draw(st.integers(1, 100_000)),
        "lr": lr,
        "min_lr": lr * draw(st.floats(0, 1)),
        "warmup": warmup,
        "schedule": draw(st.sampled_from(SCHEDULES)),
        "decay": decay,
        "decay_shape": draw(st.sampled_from(sorted(DECAY_SHAPES))),
    }


@given(any_run(), st.data())
def test_every_rate_is_in_range_and_falls_after_the_warmup(run: dict[str, Any], data: st.DataObject) -> None:
    step = data.draw(st.integers(0, run["n_steps"] - 1))
    found, following = learning_rate(step, **run), learning_rate(step + 1, **run)
    is_warm = step > run["warmup"] * run["n_steps"]
    assert (run["min_lr"] if is_warm else 0) <= found <= run["lr"]
    assert following <= found + 1e-12 if is_warm else following <= run["lr"]


@given(any_run(), st.data())
def test_no_rate_jumps(run: dict[str, Any], data: st.DataObject) -> None:
    """Two neighbouring steps differ by at most the steepest slope of any of the curves."""
    n_steps = run["n_steps"] = 10_000 + run["n_steps"]
    step = data.draw(st.integers(0, n_steps - 1))
    apart = abs(learning_rate(step + 1, **run) - learning_rate(step, **run))
    shortest = n_steps * min(run["warmup"] or 1, run["decay"], 1 - run["warmup"])
    # The slope of a square root is infinite where it starts: the largest step there is of length 1 / sqrt(n).
    is_root = run["schedule"] == "wsd" and run["decay_shape"] == "sqrt"
    assert apart <= run["lr"] * (1 / math.sqrt(shortest) if is_root else 2 / shortest) + 1e-12


OFF_BY_A_DIGIT = {
    "n_steps": 2,
    "lr": 0.9891755451906491,
    "min_lr": 0.1854704147232467,
    "warmup": 0.0,
    "schedule": "constant",
    "decay": 1.0,
    "decay_shape": "cosine",
}


@given(any_run())
@example(OFF_BY_A_DIGIT)
def test_the_ends_are_those_that_are_asked_for(run: dict[str, Any]) -> None:
    n_steps, lr, schedule = run["n_steps"], run["lr"], run["schedule"]
    top = run["warmup"] * n_steps
    if schedule != "neox_v1":
        end = lr if schedule == "constant" else run["min_lr"]
        assert learning_rate(n_steps, **run) == pytest.approx(end, rel=1e-9, abs=1e-12 * lr)
        assert learning_rate(math.ceil(top), **run) <= lr
    if schedule == "constant" and top < n_steps - 1:
        assert learning_rate(n_steps - 1, **run) == lr


def wsd(step: int, shape: str) -> float:
    """100 steps, the first 10 warm up and the last 20 decay."""
    of = {"lr": 1.0, "min_lr": 0.2, "warmup": 0.1, "schedule": "wsd", "decay": 0.2, "decay_shape": shape}
    return learning_rate(step, 100, **of)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "middle"),
    [("linear", 0.6), ("sqrt", 0.434315), ("cosine", 0.6), ("exponential", 0.2 + 0.8 * 0.414214)],
)
def test_warm_up_stable_decay_in_numbers(shape: str, middle: float) -> None:
    assert [wsd(step, shape) for step in (0, 1, 5, 10, 11, 45, 80)] == [0.1, 0.1, 0.5, 1, 1, 1, 1]
    assert wsd(90, shape) == pytest.approx(middle, abs=1e-6)
    assert wsd(100, shape) == pytest.approx(0.2)


def test_the_linear_schedule_in_numbers() -> None:
    found = [learning_rate(s, 100, lr=1, min_lr=0.1, warmup=0.2, schedule="linear") for s in (20, 60, 100)]
    assert found == pytest.approx([1, 0.55, 0.1])
