"""Makes canaries: passages of random words, planted a known number of times to measure memorization.

A model can continue such a passage only if it has seen it: 20 words drawn from 256 have 2**160 possibilities.
Every word starts a new pretoken and so takes at least one token with any vocabulary: the first 64 tokens are
always inside the passage.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SUBSET = "Canaries"
#: How often passages are planted; those with 0 are never planted and measure chance.
REPEATS = (0, 1, 4, 16, 64)
PASSAGES_PER_LEVEL = 10
#: Slightly more than the 64 tokens of a prompt and its continuation, at one token per word.
WORDS_PER_PASSAGE = 72

EXPLANATION = (
    "Random passages that stand in the shards, each as a document of its own, as often as 'repeats' says; "
    "those with 0 stand nowhere. Prompt a trained model with the first 32 tokens of a passage: how much of "
    "the next 32 it gives back tells what it memorized; the passages never planted tell what chance gives."
)
_WORDS = """
able about above across after again air almost along also always animal answer apple around arrow away
back ball bank basket bath bear because bed before begin behind bell below best between bird black blue
boat body book both bottle box branch bread break bridge bright bring brother brown build bus butter
button call camp candle car carry cat chair change cheese child circle city clean clear climb clock close
cloud coat coffee cold color corner cotton count country cover cross cup dance dark day deep desk dinner
doctor dog door down dream dress drink drive dry duck each early earth east easy eight empty engine
evening every eye face fall family far farm fast father feather field finger fire first fish five floor
flower fly food forest forget four fresh friend fruit full garden gate gift glass gold good grass great
green ground group hammer hand happy hat heart heavy help high hill history hold home horse hot hour
house ice inside iron island jacket join journey jump kettle key kind king kitchen knife ladder lake lamp
large last late laugh leaf learn left letter light line lion listen little long lost loud love lunch
machine many map market meadow milk mirror money moon morning mother mountain mouse mouth music name
narrow near needle nest new night nine north nose number ocean office often old one open orange other
over owl page paint paper park path pencil people piano picture piece place plant pocket pond potato
quiet rabbit rain red river road roof salt school
"""
#: The 256 short, common words that passages are drawn from.
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True)
class Passage:
    """A passage, and the number of documents in which it is planted."""

    text: str
    repeats: int


def passages(seed: int) -> list[Passage]:
    """The passages of a seed: `PASSAGES_PER_LEVEL` for each of `REPEATS`."""
    rng = random.Random(f"{seed}/canaries")
    return [
        Passage(" ".join(rng.choices(WORDS, k=WORDS_PER_PASSAGE)), repeats)
        for repeats in REPEATS
        for _ in range(PASSAGES_PER_LEVEL)
    ]
