"""How often terms and numbers were seen before each checkpoint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core
from pile_tools._core import Tokenizer
from pile_tools.order.order import Order
from pile_tools.read.texts import normalized
from pile_tools.timeline.steps import core_order, extent
from pile_tools.types import OnProgress, TermQuery


@dataclass(frozen=True)
class TermsInTime:
    """How often terms were seen up to checkpoints.

    Attributes:
        steps: Numbers of steps, ascending: (n,) int64.
        occurrences: Occurrences of each term up to each of them: (n, n_terms) int64.
        samples: Rows that hold it: (n, n_terms) int64.
        pairs: How often the terms of each pair were seen together: (n, n_pairs) int64.
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
    """How often terms were seen before each of some steps, all in one pass over the rows.

    A term is seen where its bytes stand in the decoded text of one document's part of a row; what the border
    of two rows cuts is in neither, and what lies within the one token that two rows share is in both. Seen
    before step N is what the checkpoint stepN has seen.

    Args:
        query: Terms and pairs; within a unit is within a row. A `str` is normalized as the tokenizer
            normalizes text; bytes are taken as they are.
        steps: Ascending.
        tokenizer: What decodes the rows, by default the one that the dataset's manifest names.
        on_progress: Called with rows.

    Raises:
        ConfigError: No terms, an empty one, more steps than the order has, or no batch size is known.
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
    """Counts of numbers, pairs of numbers, and numbers with units of time, before each of some steps.

    The rule is that of Pythia's study of arithmetic, and so are the keys: `"7"`, `"7-12"`, `"7-day"`. Rows
    are decoded whole, all documents in them.

    Raises: ConfigError for more steps than the order has, or where no batch size is known.
    Source: Biderman et al. 2023, arXiv:2304.01373, case study of term frequencies.
    """
    _, size = extent(order, batch_size)
    counts = _core.order_arithmetic(
        core_order(order),
        tokenizer or order.tokenizer(),
        [size * s for s in steps],
        threads or os.cpu_count() or 1,
        on_progress,
    )
    return [dict(of) for of in counts]
