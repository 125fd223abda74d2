"""Prompts: `a red circle | blue sky:0.5 | text:-1`, parsed into texts, weights and thresholds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pile_tools.errors import ConfigError
from vqgan_clip.config import MAX_MEASURE

#: Texts, and images, that are prompts of one picture; each costs a distance per view and step.
MAX_PROMPTS = 100
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """A text, or the path of an image, with its weight and threshold; see `guidance.prompt_loss`."""

    text: str
    weight: float = 1.0
    stop: float = -math.inf

    def __str__(self) -> str:
        """The prompt as `parse_prompt` reads it; of several, a bar in the text must be escaped."""
        weight, stop = _written(self.weight), _written(self.stop)
        # With both numbers, no part of a text such as `at 12:30` is read as one.
        if self.stop > -math.inf or ":" in self.text:
            return f"{self.text}:{weight}:{stop}"
        return self.text if self.weight == 1 else f"{self.text}:{weight}"


def _written(number: float) -> str:
    """A number as it is read again: in six digits if these are all, as most are."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def parse_prompts(text: str) -> tuple[Prompt, ...]:
    r"""The prompts of a text, separated by `|`; `\|` is a bar within a prompt.

    Raises: ConfigError if there is none, or one is empty or has a weight that is no weight.
    """
    parts = re.split(r"(?<!\\)\|", text)
    if len(parts) > MAX_PROMPTS:
        raise ConfigError(f"{len(parts):,} prompts; at most {MAX_PROMPTS} can be given")
    return tuple(parse_prompt(part.replace("\\|", "|")) for part in parts)


def parse_prompt(text: str) -> Prompt:
    """One prompt: `text`, `text:weight` or `text:weight:stop`. A last part that is no number is text.

    Raises: ConfigError if the text is empty, or the weight is zero or not finite.
    """
    words, *numbers = _without_numbers(text.strip())
    if not words:
        raise ConfigError(f"an empty prompt: {text!r}; write some words, then the weight if any")
    weight = numbers[0] if numbers else 1.0
    stop = numbers[1] if len(numbers) > 1 else -math.inf
    limits = f"from -{MAX_MEASURE:g} to {MAX_MEASURE:g}"
    if weight == 0 or not abs(weight) <= MAX_MEASURE:
        raise ConfigError(f"the weight of a prompt must be {limits} and not 0: {text.strip()!r}")
    if stop > MAX_MEASURE or -math.inf < stop < -MAX_MEASURE:
        raise ConfigError(f"the threshold of a prompt must be {limits}, or -inf: {text.strip()!r}")
    return Prompt(words, weight, stop)


def _without_numbers(text: str) -> tuple[str, *tuple[float, ...]]:
    """The text before up to two numbers at its end, each after a colon, and these."""
    numbers: list[float] = []
    while len(numbers) < 2:
        head, colon, tail = text.rpartition(":")
        if not colon or not _NUMBER.fullmatch(tail.strip()):
            break
        numbers.insert(0, float(tail))
        text = head
    return text.strip(), *numbers
