"""Prompts are parsed into texts, weights and thresholds; what cannot be meant is refused."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pile_tools.errors import ConfigError
from vqgan_clip.prompts import Prompt, parse_prompt, parse_prompts


def test_the_documented_example() -> None:
    assert parse_prompts("a red circle | blue sky:0.5 | text:-1") == (
        Prompt("a red circle"),
        Prompt("blue sky", 0.5),
        Prompt("text", -1.0),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:0.5:0.2", Prompt("a", 0.5, 0.2)),
        ("a:-1:-0.5", Prompt("a", -1.0, -0.5)),
        ("a:1:-inf", Prompt("a", 1.0, -math.inf)),
        (" a : 2 ", Prompt("a", 2.0)),
        ("note: a star", Prompt("note: a star")),
        ("https://a/b.png", Prompt("https://a/b.png")),
        ("at 12:30:1:-inf", Prompt("at 12:30", 1.0)),
        ("a:1e-1", Prompt("a", 0.1)),
    ],
)
def test_numbers_at_the_end(text: str, expected: Prompt) -> None:
    assert parse_prompt(text) == expected


def test_a_bar_can_be_part_of_a_prompt() -> None:
    assert parse_prompts(r"a \| b | c") == (Prompt("a | b"), Prompt("c"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty prompt"),
        ("a | | b", "an empty prompt"),
        ("a |", "an empty prompt"),
        (":0.5", "an empty prompt"),
        ("a:0", "must be from -1e+06 to 1e+06 and not 0"),
        ("a:inf", "must be from -1e+06 to 1e+06 and not 0"),
        ("a:1:inf", "must be from -1e+06 to 1e+06, or -inf"),
        ("|".join("a" * 101), "101 prompts; at most 100"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_prompts(text)


_TEXTS = st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]), min_size=1).map(str.strip)
_NUMBERS = st.floats(-100, 100).filter(bool)
_PROMPTS = st.builds(Prompt, _TEXTS.filter(bool), _NUMBERS, _NUMBERS | st.just(-math.inf))


@given(st.lists(_PROMPTS, min_size=1))
def test_prompts_survive_being_written(prompts: list[Prompt]) -> None:
    assert [parse_prompt(str(prompt)) for prompt in prompts] == prompts
    escaped = (str(prompt).replace("|", "\\|") for prompt in prompts[:100])
    assert list(parse_prompts(" | ".join(escaped))) == prompts[:100]


def test_most_numbers_are_written_as_before() -> None:
    assert [str(Prompt("a", weight)) for weight in (1.0, 2.0, 0.25, 1.000004)] == [
        *("a", "a:2", "a:0.25", "a:1.000004"),
    ]
