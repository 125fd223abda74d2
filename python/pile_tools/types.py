"""Types that signatures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

#: A path as users give it.
AnyPath: TypeAlias = str | PathLike[str]

#: Tokens as they are stored: uint16, or int32 for vocabularies of 65,500 tokens and more or large ids.
#: Blends of both are int64, as GPT-NeoX and Megatron-LM give all tokens.
Tokens: TypeAlias = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.int64]

#: Ids of tokens.
Ids: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]

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
        pieces: The segments; none if the dataset has no tokens.
        memory_bytes: Bytes of memory to sort the largest segment.
        disk_bytes: Bytes of the index on disk, headers and tables of ids aside.
    """

    pieces: list[IndexSegment]
    memory_bytes: int
    disk_bytes: int


class IndexSummary(TypedDict):
    """An index that was built.

    Attributes:
        n_documents: Number of documents of the dataset.
        n_tokens: Number of tokens of the dataset.
        n_ids: Number of distinct ids.
        has_bytes: Whether texts can be searched for.
        ends_with: The id that ends every document and occurs nowhere else, or None.
        n_pieces: Number of segments.
        n_kept: Number of segments that an earlier run finished.
    """

    n_documents: int
    n_tokens: int
    n_ids: int
    has_bytes: bool
    ends_with: int | None
    n_pieces: int
    n_kept: int


class LengthSummary(TypedDict):
    """The n-grams of one length.

    Attributes:
        n: Tokens or words of an n-gram.
        n_distinct: Number of distinct n-grams.
        n_occurrences: Number of occurrences of all n-grams.
        n_kept: Number of n-grams that are retained.
        counts: Pairs of a count and the number of n-grams that have it, by ascending count.
    """

    n: int
    n_distinct: int
    n_occurrences: int
    n_kept: int
    counts: list[list[int]]


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
