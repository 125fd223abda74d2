"""Which training rows are scored: evenly spaced over the run, and some that it never reaches.

A row counts as seen from the first batch on that holds its scored tokens as a whole, in whichever row: where
an order has several epochs or its documents repeat, most rows still to come were seen before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pile_tools import ConfigError
from pile_tools.jobs.sampling import canaries
from pile_tools.terminal import counted
from studies.memorization.canaries import find_samples
from studies.runs import Run

#: Scored rows of the run for each row beyond its end, if the order is longer than the run.
CONTROL_DIVISOR = 4
#: Candidates beyond the run for each row to score: some were seen before.
CANDIDATES_PER_ROW = 4


@dataclass(frozen=True)
class Rows:
    """Training rows, the same for every checkpoint.

    Attributes:
        numbers: Indices in the order, ascending: (n,) int64.
        steps_seen: The first step whose batch holds these tokens as a whole: (n,) int64. For rows that the
            run does not see, the step that would train on them.
        tokens: Their first tokens, prompt and continuation: (n, k + l) int64.
        n_left_out: Rows left out because these tokens hold canaries.
        n_padded: Rows left out because their text is shorter and padding follows it. Such a row is found in
            no batch, as only text is searched; and a continuation of zeros is nothing to memorize.
    """

    numbers: NDArray[np.int64]
    steps_seen: NDArray[np.int64]
    tokens: NDArray[np.int64]
    n_left_out: int
    n_padded: int


def choose(run: Run, n_rows: int, n_tokens: int) -> Rows:
    """`n_rows` rows evenly spaced over the run (all if it has fewer), and a control beyond its end.

    Rows beyond the end, at most a quarter as many, hold tokens that no batch of the run holds as a whole, so
    that the last checkpoint too has rows to compare with. Rows that begin with canaries are left out: those
    are planted to be memorized and scored apart. So are rows with padding among these tokens, and those of
    steps that were skipped.

    Raises:
        ConfigError: Rows have fewer than `n_tokens` tokens, or none of them can be scored.
    """
    samples = run.order.samples
    if samples.seq_length + 1 < n_tokens:
        raise ConfigError(
            f"rows have {counted(samples.seq_length + 1, 'token')}, prompt and continuation {n_tokens:,}"
        )
    n_beyond = n_rows // CONTROL_DIVISOR
    trained = _evenly(0, run.n_samples, n_rows)
    trained = trained[~np.isin(trained // run.batch_size, run.skipped)]
    if not len(trained):
        raise ConfigError("every one of these rows is of a step that was skipped; choose more rows")
    candidates = _evenly(run.n_samples, len(samples), n_beyond * CANDIDATES_PER_ROW)
    n_looked_at = len(trained) + len(candidates)
    trained, candidates = (found[_have_text(run, found, n_tokens)] for found in (trained, candidates))
    numbers = np.concatenate([trained, candidates])
    if not len(numbers):
        raise ConfigError(f"the text of each of these rows has fewer tokens than {n_tokens:,}; choose fewer")
    tokens = np.stack([samples[int(number)][:n_tokens] for number in numbers]).astype(np.int64)
    steps_seen = _first_steps(run, numbers, tokens)
    unseen = len(trained) + np.flatnonzero(steps_seen[len(trained) :] >= run.steps)
    chosen = np.concatenate([np.arange(len(trained)), unseen[_evenly(0, len(unseen), n_beyond)]])
    scored = chosen[~_hold_canaries(run, numbers[chosen], n_tokens)]
    if not len(scored):
        raise ConfigError("every one of these rows holds canaries; choose more rows")
    n_canaries, n_padded = len(chosen) - len(scored), n_looked_at - len(numbers)
    return Rows(numbers[scored], steps_seen[scored], tokens[scored], n_canaries, n_padded)


def _have_text(run: Run, numbers: NDArray[np.int64], n_tokens: int) -> NDArray[np.bool_]:
    """Whether the first `n_tokens` tokens of each row are of documents, not padding: (n,) bool."""
    # Padding comes last, and has no spans.
    n_text = (int(run.order.samples.spans(int(number), 1)[:, 3].sum()) for number in numbers)
    return np.fromiter((n >= n_tokens for n in n_text), dtype=np.bool_, count=len(numbers))


def _first_steps(run: Run, numbers: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The step of the first row that holds each sequence, of the run's rows and its own: (n,) int64."""
    found = find_samples(tokens, run)
    pairs = zip(numbers.tolist(), found, strict=True)
    firsts = [min(number, int(samples[0])) if len(samples) else number for number, samples in pairs]
    return np.array(firsts, dtype=np.int64) // run.batch_size


def documents_of(run: Run, row: int, n_tokens: int) -> list[int]:
    """The documents that a row's first `n_tokens` tokens are of."""
    spans = run.order.samples.spans(row, 1)
    starts = np.cumsum(spans[:, 3]) - spans[:, 3]
    return [int(document) for document in spans[starts < n_tokens, 1]]


def _hold_canaries(run: Run, numbers: NDArray[np.int64], n_tokens: int) -> NDArray[np.bool_]:
    """Whether each row has tokens of canaries among its first `n_tokens`: (n,) bool."""
    dataset = run.order.dataset
    if canaries.SUBSET not in dataset.subsets:
        return np.zeros(len(numbers), dtype=np.bool_)
    planted = dataset.subsets.index(canaries.SUBSET)
    documents = (np.array(documents_of(run, int(number), n_tokens), dtype=np.int64) for number in numbers)
    return np.array([bool((dataset.subset_numbers(found) == planted).any()) for found in documents])


def _evenly(first: int, end: int, n: int) -> NDArray[np.int64]:
    """`n` evenly spaced indices in [first, end), or all of them if they are fewer."""
    n = max(0, min(n, end - first))
    return first + (np.arange(n, dtype=np.int64) * (end - first) + (end - first) // 2) // max(n, 1)
