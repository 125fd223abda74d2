"""Counts the terms and numbers that the model has seen before each checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core
from pile_tools._core import Tokenizer
from pile_tools.config import checked_threads
from pile_tools.order.order import Order
from pile_tools.read.texts import normalized
from pile_tools.timeline.steps import core_order, extent
from pile_tools.types import OnProgress, TermQuery


@dataclass(frozen=True)
class TermsInTime:
    """Counts of terms before each of some steps.

    Attributes:
        steps: The steps, ascending: (n,) int64.
        occurrences: Occurrences of each term before each step: (n, n_terms) int64.
        samples: Rows before each step that contain the term: (n, n_terms) int64.
        pairs: Rows before each step that contain both terms of a pair: (n, n_pairs) int64. With
            `within_words` not rows are counted, but the pairs of an occurrence of each term that start within
            so many words of each other.
    """

    steps: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    samples: NDArray[np.int64]
    pairs: NDArray[np.int64]


def count_terms(
    order: Order,
    query: TermQuery,
    steps: Sequence[int],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
    on_progress: OnProgress = None,
) -> TermsInTime:
    """Counts terms before each of some steps, in one pass over the rows.

    A term occurs where its bytes occur in the decoded text of one document's part of a row. An occurrence
    split across two rows counts in neither; one within the single token that two rows share counts in both.
    The counts before step N are those of the checkpoint stepN.

    Args:
        order: The order of the run.
        query: Terms and pairs; the unit in which the terms of a pair must occur together is the row. A `str`
            is normalized as the tokenizer normalizes text; bytes are searched unchanged.
        steps: The steps, ascending.
        tokenizer: Tokenizer that decodes the rows, by default the one that the dataset's manifest names.
        batch_size: Samples of a step, by default the order's.
        on_progress: Called with the rows read.

    Raises:
        ConfigError: There are no terms, a term is empty, a step is beyond the order, no batch size or
            tokenizer is known, or the order is of rows on a server.
    """
    _, size = extent(order, batch_size)
    decoder = tokenizer or order.tokenizer()
    terms = [normalized(term, decoder) for term in query.terms]
    occurrences, samples, pairs = _core.order_terms(
        core_order(order),
        decoder,
        dataclasses.replace(query, terms=terms),
        [size * s for s in steps],
        on_progress,
    )
    return TermsInTime(np.array(steps, dtype=np.int64), occurrences, samples, pairs)


def count_arithmetic(
    order: Order,
    steps: Sequence[int],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> list[dict[str, int]]:
    """Counts numbers, pairs of numbers, and numbers with units of time before each of some steps.

    Returns one dict of counts by key for each step. Rule and keys are those of Pythia's study of arithmetic
    (Biderman et al. 2023, arXiv:2304.01373, case study of term frequencies): `"7"`, `"7-12"`, `"7-day"`. A
    row is decoded as one text, across its documents.

    Raises:
        ConfigError: A step is beyond the order, no batch size or tokenizer is known, or the order is of rows
            on a server.
    """
    _, size = extent(order, batch_size)
    counts = _core.order_arithmetic(
        core_order(order),
        tokenizer or order.tokenizer(),
        [size * s for s in steps],
        checked_threads(threads),
        on_progress,
    )
    return [dict(of) for of in counts]
