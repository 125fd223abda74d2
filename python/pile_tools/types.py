"""Types that signatures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

#: A path as users give it.
AnyPath: TypeAlias = str | PathLike[str]

#: Tokens as they are stored: uint16, or int32 for vocabularies of 65,500 tokens and more or large ids.
#: Blends of both are int64, as GPT-NeoX and Megatron-LM give all tokens.
Tokens: TypeAlias = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.int64]

#: Called from time to time with the units done so far; an exception stops the job.
OnProgress: TypeAlias = Callable[[int], object] | None

#: The same where tokens are made: called with the compressed bytes read and the tokens made so far.
OnTokens: TypeAlias = Callable[[int, int], object] | None


class OriginColumns(TypedDict):
    """Where documents came from, one array of n values each; -1 where unknown.

    Attributes:
        shard: Numbers of the shards in the dataset's `shards`.
        record: Numbers of the records in their shards.
        byte_start: First bytes of the records in the decompressed shards.
        byte_length: Bytes of the records.
        subset: Numbers of the subsets in the dataset's `subsets`, -1 also where a record names none.
    """

    shard: NDArray[np.int32]
    record: NDArray[np.int64]
    byte_start: NDArray[np.int64]
    byte_length: NDArray[np.int64]
    subset: NDArray[np.int32]


class Origin(TypedDict):
    """Where a document came from.

    Attributes:
        shard: The shard's path as it was given to `tokenize`.
        record: Its line in the shard, from 0.
        byte_start: The line's first byte in the decompressed shard.
        byte_length: The line's bytes, line end excluded.
        subset: `meta.pile_set_name`, or None where the record has none.
    """

    shard: str
    record: int
    byte_start: int
    byte_length: int
    subset: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting:
    """How the core counts n-grams.

    Attributes:
        lengths: Tokens or words of the n-grams, ascending.
        min_count: Those that occur at least so often are kept.
        top: Of these so many of the most frequent ones, by falling count; None for all, sorted.
        memory: Bytes; what does not fit is spilled.
        threads: Threads; what is counted is the same for any number.
        folder: Where it is spilled, and the pieces stay that a job goes on with.
        free_bytes: Bytes free there.
        job: A digest of what is asked for.
        discard: Whether another job's pieces may be thrown away.
    """

    lengths: list[int]
    min_count: int
    top: int | None
    memory: int
    threads: int
    folder: Path
    free_bytes: int
    job: str
    discard: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TermQuery:
    """Which terms the core counts, and how.

    Attributes:
        terms: The terms; equal ones are counted as one and get the same counts. `timeline.count_terms`
            normalizes a `str` as the tokenizer does; the core takes bytes alone.
        whole_words: Whether no word character may stand directly before or behind an occurrence.
        ignore_case: Whether what differs in case only is equal.
        pairs: Numbers of terms that are counted together.
        within_words: Together is within so many words; None for within a document or sample.
        threads: Threads; the counts are the same for any number.
    """

    terms: Sequence[str | bytes]
    whole_words: bool
    ignore_case: bool
    pairs: list[tuple[int, int]]
    within_words: int | None
    threads: int
