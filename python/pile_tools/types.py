"""Types shared by signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

#: A path as callers give it.
AnyPath: TypeAlias = str | PathLike[str]

#: Tokens as stored: uint16, or int32 for vocabularies of at least 65,500 tokens and for large ids. Blends of
#: both are int64, the type of all tokens in GPT-NeoX and Megatron-LM.
Tokens: TypeAlias = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.int64]

#: Called periodically with the units done; an exception stops the job.
OnProgress: TypeAlias = Callable[[int], object] | None

#: Called periodically with the compressed bytes read and the tokens made; an exception stops the job.
OnTokens: TypeAlias = Callable[[int, int], object] | None


class OriginColumns(TypedDict):
    """The origins of n documents, one array of n values for each column; -1 where unknown.

    Attributes:
        shard: Indices of the shards in the dataset's `shards`.
        record: Numbers of the records in their shards, from 0.
        byte_start: First bytes of the records in the decompressed shards.
        byte_length: Bytes of the records.
        subset: Indices of the subsets in the dataset's `subsets`; -1 also for records without a subset.
    """

    shard: NDArray[np.int32]
    record: NDArray[np.int64]
    byte_start: NDArray[np.int64]
    byte_length: NDArray[np.int64]
    subset: NDArray[np.int32]


class Origin(TypedDict):
    """The origin of a document.

    Attributes:
        shard: Path of the shard as `tokenize` read it.
        record: Line in the shard, from 0.
        byte_start: First byte of the line in the decompressed shard.
        byte_length: Bytes of the line without its end.
        subset: `meta.pile_set_name`, or None if the record has none.
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
        lengths: Lengths of the n-grams in tokens or words, ascending.
        min_count: Minimum occurrences of a retained n-gram.
        top: Number of the most frequent n-grams to retain, by falling count; None for all, sorted.
        memory: Bytes of memory; counts that do not fit are spilled.
        threads: Threads; the counts do not depend on it.
        folder: Folder of the sorted runs that are spilled, from which an interrupted job resumes.
        free_bytes: Free bytes on the folder's disk.
        job: Digest of the job's inputs and settings.
        discard: Whether the runs of another job may be removed.
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
        whole_words: Whether only occurrences without an adjacent word character count.
        ignore_case: Whether case is ignored.
        pairs: Indices of the two terms of each pair.
        within_words: Maximum words within which the terms of a pair count as together; None for the whole
            document or sample.
        threads: Threads; the counts do not depend on it.
    """

    terms: Sequence[str | bytes]
    whole_words: bool
    ignore_case: bool
    pairs: list[tuple[int, int]]
    within_words: int | None
    threads: int
