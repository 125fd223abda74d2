"""Canaries: passages planted a known number of times, some zero times as a control.

The file is `canaries.json` of `pile-tools sample`, or any of its form:

    {"passages": [{"text": "...", "repeats": 16}, ...]}
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pile_tools import FormatError, PileError, timeline
from pile_tools.order.order import Samples
from pile_tools.terminal import counted
from studies.checked import items, read_object, record, text, whole
from studies.memorization.scores import summarize
from studies.memorization.tables import Level
from studies.runs import Run

#: A canary of the file; `repeats` is bounded by what arrays hold.
_PASSAGE = record({"text": text, "repeats": whole()})

#: Rows that are read at once where the core cannot search.
SCAN_ROWS = 1024


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
    sequences = [run.tokenizer.encode(passage)[:n_tokens].astype(np.int64) for passage, _ in passages]
    short = [len(tokens) for tokens in sequences if len(tokens) < n_tokens]
    if short:
        raise PileError(
            f"a passage has {counted(short[0], 'token')}, expected {n_tokens:,} at least ({path})"
        )
    repeats = np.array([repeats for _, repeats in passages], dtype=np.int64)
    return Canaries([passage for passage, _ in passages], repeats, np.stack(sequences))


def find_samples(sequences: NDArray[np.int64], run: Run) -> list[NDArray[np.int64]]:
    """The samples of the run that hold each sequence whole, in training order, once for each occurrence.

    A sequence that the end of a sample cuts is not found there, nor is one in a batch that was skipped.

    Shapes: (n, k + l) int64 -> n arrays (n_occurrences,) int64.
    """
    if not len(sequences):
        return []
    if timeline.is_searchable(run.order):
        of_run = dataclasses.replace(run.order, made_for=run.n_samples, batch_size=run.batch_size)
        sightings = timeline.when(of_run, sequences.tolist(), across_documents=True).sightings
        whole = sightings[sightings["n_parts"] == 1]
        found = [whole["sample"][whole["text"] == number] for number in range(len(sequences))]
    else:
        found = _scan(sequences, run.order.samples, run.n_samples)
    return [numbers[~np.isin(numbers // run.batch_size, run.skipped)] for numbers in found]


def _scan(sequences: NDArray[np.int64], samples: Samples, n_samples: int) -> list[NDArray[np.int64]]:
    """`find_samples` for rows on a server, which the core cannot read."""
    n_tokens = sequences.shape[1]
    numbers_by_sequence: dict[bytes, list[int]] = {}
    for number, sequence in enumerate(sequences):
        numbers_by_sequence.setdefault(sequence.tobytes(), []).append(number)
    heads = _pairs(sequences[:, :2])[:, 0]
    found: list[list[int]] = [[] for _ in sequences]
    for first in range(0, n_samples, SCAN_ROWS):
        rows = samples.read(first, min(SCAN_ROWS, n_samples - first)).astype(np.int64)
        starts = _pairs(rows)[:, : rows.shape[1] - n_tokens + 1]
        for row, offset in np.argwhere(np.isin(starts, heads)).tolist():
            for number in numbers_by_sequence.get(rows[row, offset : offset + n_tokens].tobytes(), ()):
                found[number].append(first + row)
    return [np.array(numbers, dtype=np.int64) for numbers in found]


def _pairs(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each two neighbouring tokens as one number: (n, k) -> (n, k - 1)."""
    pairs: NDArray[np.int64] = rows[:, :-1] * (1 << 32) + rows[:, 1:]
    return pairs


def count_seen(samples: list[NDArray[np.int64]], n_samples: int) -> NDArray[np.int64]:
    """The number of occurrences of each sequence in the first `n_samples` samples: (n,) int64."""
    return np.array([int((numbers < n_samples).sum()) for numbers in samples], dtype=np.int64)


def _read(path: Path) -> list[tuple[str, int]]:
    """Text and repeats of each passage of a file."""
    passages = read_object(path, record({"passages": items(_PASSAGE)}))["passages"]
    if not passages:
        raise FormatError(f"no canaries, expected passages with text and repeats ({path})")
    return [(passage["text"], passage["repeats"]) for passage in passages]


def by_repeats(
    repeats: NDArray[np.int64], n_seen: NDArray[np.int64], matches: NDArray[np.uint8], n_tokens: int
) -> list[Level]:
    """The summary of each level of repeats, never planted first, with how often they were seen on average.

    Canaries that were never planted and were seen all the same are no control: `n_left_out` counts them.

    Shapes: all (n,), one value per canary.
    """
    levels: list[Level] = []
    for level in np.unique(repeats):
        is_level = repeats == level
        is_scored = is_level & ((n_seen == 0) | (level > 0))
        levels.append(
            {
                "repeats": int(level),
                "mean_seen": float(n_seen[is_scored].mean()) if is_scored.any() else 0.0,
                "n_left_out": int(is_level.sum() - is_scored.sum()),
                **summarize(matches[is_scored], n_tokens),
            }
        )
    return levels
