"""Canaries: passages planted a known number of times, those never planted to compare with.

The file is `canaries.json` of `pile-tools sample`, or any of its form:

    {"passages": [{"text": "...", "repeats": 16}, ...]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import FormatError, PileError, TrainingOrder
from studies.memorization.scores import summarize
from studies.runs import Run


@dataclass(frozen=True)
class Canaries:
    """Passages in tokens.

    Attributes:
        texts: The passages.
        repeats: Documents each was planted as: (n,) int64.
        tokens: Their first tokens, prompt and continuation: (n, k + l) int64.
    """

    texts: list[str]
    repeats: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


def no_canaries(n_tokens: int) -> Canaries:
    """The canaries of a study that is given none."""
    return Canaries([], np.zeros(0, dtype=np.int64), np.zeros((0, n_tokens), dtype=np.int64))


def load(path: Path, run: Run, n_tokens: int) -> Canaries:
    """The canaries of a file in the tokens of a run.

    Raises:
        FormatError: Not such a file.
        PileError: The run has no tokenizer, or a passage has fewer than `n_tokens` tokens.
        OSError: The file cannot be read.
    """
    passages = _read(path)
    if run.tokenizer is None:
        raise PileError(f"canaries need the run's tokenizer; its checkpoints hold none ({run.folder})")
    sequences = [run.tokenizer.encode(text)[:n_tokens].astype(np.int64) for text, _ in passages]
    short = [len(tokens) for tokens in sequences if len(tokens) < n_tokens]
    if short:
        raise PileError(f"a passage has {short[0]} tokens, expected {n_tokens} at least ({path})")
    repeats = np.array([repeats for _, repeats in passages], dtype=np.int64)
    return Canaries([text for text, _ in passages], repeats, np.stack(sequences))


def find_samples(sequences: NDArray[np.int64], run: Run) -> list[NDArray[np.int64]]:
    """The samples of the run that hold each sequence whole, in training order, once for each place.

    A sequence that the end of a sample cuts is not found there.

    Shapes: (n, k + l) int64 -> n arrays (n_places,) int64.
    """
    samples = run.order.samples
    if not isinstance(samples, TrainingOrder):
        raise PileError(f"passages are found in orders over a token dataset only ({run.order.path})")
    places = samples.find(list(sequences), run.n_samples)
    return [places[places[:, 0] == i, 1] for i in range(len(sequences))]


def count_seen(samples: list[NDArray[np.int64]], n_samples: int) -> NDArray[np.int64]:
    """How often each sequence stands among the first `n_samples` samples: (n,) int64."""
    return np.array([int((places < n_samples).sum()) for places in samples], dtype=np.int64)


def _read(path: Path) -> list[tuple[str, int]]:
    """Text and repeats of each passage of a file."""
    try:
        passages = [
            (p["text"], p["repeats"]) for p in json.loads(path.read_text(encoding="utf-8"))["passages"]
        ]
    except (ValueError, KeyError, TypeError) as err:
        raise FormatError(f"not a file of canaries: {type(err).__name__} {err} ({path})") from err
    if not passages or not all(isinstance(t, str) and isinstance(n, int) and n >= 0 for t, n in passages):
        raise FormatError(f'expected "passages" of "text" and "repeats" each ({path})')
    return passages


def by_repeats(
    repeats: NDArray[np.int64], n_seen: NDArray[np.int64], matches: NDArray[np.uint8], n_tokens: int
) -> list[dict[str, Any]]:
    """The summary of each level of repeats, never planted first, with how often they were seen on average.

    Shapes: all (n,), one value per canary.
    """
    levels = []
    for level in np.unique(repeats):
        is_level = repeats == level
        group = summarize(matches[is_level], n_tokens)
        levels.append({"repeats": int(level), "mean_seen": float(n_seen[is_level].mean()), **group})
    return levels
