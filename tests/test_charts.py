"""Charts: nothing is cut off, and axes have round numbers."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pile_tools.present import charts


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@given(
    values=st.lists(st.just(0.0) | st.floats(1e-6, 1e9), min_size=1, max_size=20),
    labels=st.sampled_from(["7", "step128 to end"]),
)
def test_bars_stand_on_round_numbers(values: list[float], labels: str) -> None:
    svg = charts.stacked_bars("title", "unit", [labels] * len(values), {"a": values})
    height = [float(h) for h in re.findall(r'width="[\d.]+" height="([\d.]+)" fill="#0072B2"', svg)]
    assert all(h < 263 for h in height), "a bar is taller than its axis"
    ticks = [float(t.replace(",", "")) for t in texts(svg) if re.fullmatch(r"[\d,.e+-]+", t) and t != labels]
    assert 2 <= len(ticks) <= 8
    steps = {round((b - a) / (ticks[-1] - ticks[0]), 4) for a, b in pairwise(ticks)}
    assert len(steps) == 1
    assert ticks[-1] >= max(values) * (1 - 1e-5)


def test_a_long_label_makes_the_page_wider() -> None:
    narrow = charts.stacked_bars("t", "u", ["1", "2"], {"a": [1, 2]})
    wide = charts.stacked_bars("t", "u", ["step32768 to step65536"] * 9, {"a": range(9)})
    width = {
        name: int(re.search(r'viewBox="0 0 (\d+)', svg)[1]) for name, svg in (("n", narrow), ("w", wide))
    }
    assert width["n"] == 960 < width["w"]
    assert "rotate(35)" not in narrow
    assert "rotate(35)" in wide


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(500, ["0", "100", "200", "300", "400", "500"]), (1720, ["0", "500", "1,000", "1,500", "2,000"])],
)
def test_steps_are_named_by_round_numbers(highest: int, expected: list[str]) -> None:
    svg = charts.lines("t", "step", "seen", {"a": [(0, 1), (highest, 1000)]}, log_y=True)
    assert [t for t in texts(svg) if t in expected or re.fullmatch(r"[\d,]+", t)][
        -len(expected) :
    ] == expected
