"""Types shared by signatures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

#: A path as callers give it.
AnyPath: TypeAlias = str | PathLike[str]

#: Tokens as stored: uint16, or int32 for vocabularies of at least 65,500 tokens and for large ids. Blends of
#: both are int64, the type of all tokens in GPT-NeoX and Megatron-LM.
Tokens: TypeAlias = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.int64]

#: Ids of tokens.
Ids: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]

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


class Documents(Protocol):
    """Numbered documents of tokens: a dataset, the datasets of a blend, or rows of unknown documents."""

    @property
    def prefix(self) -> str:
        """Path of the files without suffixes; of several datasets, of the first."""

    @property
    def dtype(self) -> str:
        """Type of the tokens: `uint16`, `int32`, or `int64` for datasets of both."""

    @property
    def has_provenance(self) -> bool:
        """Whether the origin of all documents is known."""

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets."""

    @property
    def fingerprint(self) -> str:
        """A digest that distinguishes the documents from others, in hexadecimal."""

    def __len__(self) -> int: ...

    def __getitem__(self, document: int, /) -> Tokens: ...

    def origin(self, document: int, /) -> Origin | None:
        """The origin of a document, or None if it is unknown."""

    def subset_numbers(self, documents: NDArray[np.int64], /) -> NDArray[np.int32]:
        """The indices in `subsets` of the documents' subsets: (n,) int64 -> (n,) int32, -1 where unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting:
    """How the core counts n-grams.

    Attributes:
        lengths: Lengths of the n-grams in tokens or words, ascending.
        min_count: Minimum occurrences of a retained n-gram.
        top: Number of the most frequent n-grams to retain, by falling count; None for all, sorted.
        memory: Bytes of memory; counts that do not fit are spilled.
        threads: By default one for each core; the counts do not depend on it.
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
        terms: The terms, or a single one; equal ones are counted as one and get the same counts.
            `timeline.count_terms` normalizes a `str` as the tokenizer does; the core takes bytes alone.
        whole_words: Whether only occurrences without an adjacent word character count.
        ignore_case: Whether case is ignored.
        pairs: Indices of the two terms of each pair.
        within_words: Maximum words within which the terms of a pair count as together; None for the whole
            document or sample.
        threads: Threads; the counts do not depend on it.
    """

    terms: Sequence[str | bytes]
    whole_words: bool = False
    ignore_case: bool = False
    pairs: list[tuple[int, int]] = field(default_factory=list)
    within_words: int | None = None
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", listed(self.terms))


def listed(queries: Any) -> Any:
    """The queries as a sequence: a single `str` or `bytes` is one query, not a sequence of characters."""
    return [queries] if isinstance(queries, (str, bytes)) else queries


class BadRecord(TypedDict):
    """A bad record that was skipped.

    Attributes:
        record: Its index in the shard.
        byte: Its first byte in the decompressed shard.
        reason: Why it is bad.
    """

    record: int
    byte: int
    reason: str


class BadRecords(TypedDict):
    """The bad records of a shard that were skipped.

    Attributes:
        n: Number of bad records.
        first: The first 100 of them.
    """

    n: int
    first: list[BadRecord]


class ShardSummary(TypedDict):
    """A shard that was read to its end.

    Attributes:
        bytes: Bytes of the stored file.
        sha256: SHA-256 of the stored file.
        n_records: Number of records.
        n_text_bytes: Decompressed bytes of the records.
    """

    bytes: int
    sha256: str
    n_records: int
    n_text_bytes: int


class BuiltShard(ShardSummary):
    """A shard of a dataset that was built.

    Attributes:
        path: The path as given.
        first_document: Index of its first document in the dataset.
        n_empty: Records without text, which are skipped.
        n_lone_surrogates: Lone surrogates in the JSON, which were replaced by U+FFFD.
        bad_records: Bad records, which were skipped.
    """

    path: str
    first_document: int
    n_empty: int
    n_lone_surrogates: int
    bad_records: BadRecords


class SubsetSummary(TypedDict):
    """The documents of a subset.

    Attributes:
        name: `meta.pile_set_name`, or None for records without one.
        n_documents: Number of documents.
        n_tokens: Number of tokens, end-of-document tokens included.
    """

    name: str | None
    n_documents: int
    n_tokens: int


class BuiltSubset(SubsetSummary):
    """The documents of a subset in a dataset that was built.

    Attributes:
        n_text_bytes: Bytes of their texts in UTF-8.
    """

    n_text_bytes: int


class BuildSummary(TypedDict):
    """A dataset that was built.

    Attributes:
        dtype: The stored type of the tokens.
        n_documents: Number of documents.
        n_tokens: Number of tokens, end-of-document tokens included.
        n_resumed_shards: Number of shards that an earlier, interrupted run finished.
        bin_sha256: SHA-256 of the `.bin`.
        shards: The shards, in order.
        subsets: The subsets, in order of first appearance.
    """

    dtype: str
    n_documents: int
    n_tokens: int
    n_resumed_shards: int
    bin_sha256: str
    shards: list[BuiltShard]
    subsets: list[BuiltSubset]


class MergedInput(TypedDict):
    """A dataset that was merged.

    Attributes:
        path: The path as given.
        first_document: Index of its first document in the result.
        n_documents: Number of documents.
        n_tokens: Number of tokens.
        is_document_array_lost: Whether its document array is missing, as after GPT-NeoX's own merge.
        has_provenance: Whether the origins of its documents are known.
    """

    path: str
    first_document: int
    n_documents: int
    n_tokens: int
    is_document_array_lost: bool
    has_provenance: bool


class MergeSummary(TypedDict):
    """A dataset that was merged from others.

    Attributes:
        dtype: The stored type of the tokens.
        n_documents: Number of documents.
        n_tokens: Number of tokens.
        bin_sha256: SHA-256 of the `.bin`.
        parts: The inputs, in order.
    """

    dtype: str
    n_documents: int
    n_tokens: int
    bin_sha256: str
    parts: list[MergedInput]


class LabelledShard(ShardSummary):
    """A shard whose records were searched for the documents of a dataset.

    Attributes:
        path: The path as given.
        n_documents: Number of documents labelled with a record of the shard.
    """

    path: str
    n_documents: int


class LabelSummary(TypedDict):
    """A dataset whose documents were labelled with their records.

    Attributes:
        n_documents: Number of documents of the dataset.
        n_tokens: Number of tokens of the dataset.
        has_eod: Whether its documents end with the end-of-document token.
        n_found: Number of documents whose record was found, ambiguous ones included.
        n_by_order: Of these, documents with equal tokens whose records were assigned by their order.
        n_ambiguous: Of the documents found, those labelled with the first of several possible records.
        n_texts: Number of texts in the shards, without empty ones.
        n_bad_records: Number of bad records, which were skipped.
        n_other_texts: Number of texts whose tokens are not in the dataset.
        shards: The shards, in order.
        subsets: The subsets of the documents found, in order of first appearance.
    """

    n_documents: int
    n_tokens: int
    has_eod: bool
    n_found: int
    n_by_order: int
    n_ambiguous: int
    n_texts: int
    n_bad_records: int
    n_other_texts: int
    shards: list[LabelledShard]
    subsets: list[SubsetSummary]


class TrainSummary(TypedDict):
    """The text that a tokenizer was trained on, and the size of the result.

    Attributes:
        n_documents: Number of documents, empty ones included.
        n_text_bytes: Bytes of text.
        vocab_size: Number of tokens.
        n_merges: Number of merges.
        n_bad_records: Number of bad records, which were skipped.
        shards: SHA-256 of each shard, in order.
    """

    n_documents: int
    n_text_bytes: int
    vocab_size: int
    n_merges: int
    n_bad_records: int
    shards: list[str]


class OrderSummary(TypedDict):
    """An order that was built.

    Attributes:
        n_samples: Number of samples.
        n_epochs: Passes over the documents, or None for rules that do not count them.
        has_separate_epoch: Whether the last epoch is shuffled separately (Megatron-LM).
        tokens_per_epoch: Number of tokens of the documents, each counted once.
        n_documents: Number of documents, each counted once.
        replaced_by_gpt_neox: Indices of the samples that GPT-NeoX cannot read and replaces by another sample.
    """

    n_samples: int
    n_epochs: int | None
    has_separate_epoch: bool
    tokens_per_epoch: int
    n_documents: int
    replaced_by_gpt_neox: list[int]


class IndexSegment(TypedDict):
    """A segment of an index.

    Attributes:
        first_document: Its first document.
        end_document: The document after its last.
        first_token: Index of its first token in the dataset.
        n_tokens: Number of tokens.
    """

    first_document: int
    end_document: int
    first_token: int
    n_tokens: int


class IndexPlan(TypedDict):
    """What it takes to build an index.

    Attributes:
        segments: The segments; none if the dataset has no tokens.
        memory_bytes: Bytes of memory to sort the largest segment.
        disk_bytes: Bytes of the index on disk, headers and tables of ids aside.
    """

    segments: list[IndexSegment]
    memory_bytes: int
    disk_bytes: int


class IndexSummary(TypedDict):
    """An index that was built.

    Attributes:
        n_documents: Number of documents of the dataset.
        n_tokens: Number of tokens of the dataset.
        n_ids: Number of distinct ids.
        has_bytes: Whether texts can be searched for.
        end_of_document: The id that ends every document and occurs nowhere else, or None.
        n_segments: Number of segments.
        n_reused: Number of segments that an earlier run finished.
    """

    n_documents: int
    n_tokens: int
    n_ids: int
    has_bytes: bool
    end_of_document: int | None
    n_segments: int
    n_reused: int


class LengthSummary(TypedDict):
    """The n-grams of one length.

    Attributes:
        n: Tokens or words of an n-gram.
        n_distinct: Number of distinct n-grams.
        n_occurrences: Number of occurrences of all n-grams.
        n_retained: Number of n-grams that are retained.
        counts: Pairs of a count and the number of n-grams that have it, by ascending count.
    """

    n: int
    n_distinct: int
    n_occurrences: int
    n_retained: int
    counts: list[list[int]]


class SubsetPassages(TypedDict):
    """Repeated passages of the documents of a subset.

    Attributes:
        name: Its name, None for documents without a subset.
        n_documents: Number of documents.
        n_bytes: Bytes of their texts.
        n_repeated_bytes: Bytes in passages, trimmed to characters.
    """

    name: str | None
    n_documents: int
    n_bytes: int
    n_repeated_bytes: int


class PassagesSummary(TypedDict):
    """Repeated passages of shards.

    Attributes:
        n_documents: Number of documents, empty ones included.
        n_bytes: Bytes of their texts.
        n_repeated_bytes: Bytes in passages, trimmed to characters.
        n_passages: Number of passages.
        n_bad_records: Number of bad records, which were skipped.
        shards: SHA-256 of each shard, in order.
        subsets: Figures by subset, sorted by name. The documents without a subset are last.
    """

    n_documents: int
    n_bytes: int
    n_repeated_bytes: int
    n_passages: int
    n_bad_records: int
    shards: list[str]
    subsets: list[SubsetPassages]


class WordsSummary(TypedDict):
    """The n-grams of words that were counted in shards.

    Attributes:
        n_documents: Number of documents, empty ones included.
        n_bad_records: Number of bad records, which were skipped.
        shards: SHA-256 of each shard, in order.
        lengths: The n-grams of each length.
        groups: Names of the groups, None for documents without a subset.
    """

    n_documents: int
    n_bad_records: int
    shards: list[str]
    lengths: list[LengthSummary]
    groups: list[str | None]
