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

#: Tokens as stored: uint16, or int32 for vocabularies of at least 65,500 tokens and for ids beyond uint16.
#: Blends of both are int64, the type in which GPT-NeoX and Megatron-LM return every sample.
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
        record: Lines, or rows of parquet, in the shards, from 0.
        byte_start: First bytes, as in `Origin`.
        byte_length: Numbers of bytes, as in `Origin`.
        subset: Indices of the subsets in the dataset's `subsets`; -1 also for records without a subset.
    """

    shard: NDArray[np.int32]
    record: NDArray[np.int64]
    byte_start: NDArray[np.int64]
    byte_length: NDArray[np.int64]
    subset: NDArray[np.int32]


class Origin(TypedDict):
    """The origin of a document: a line of a shard, or a row of a parquet file.

    Attributes:
        shard: Path of the shard as `tokenize` read it.
        record: Line or row in the shard, from 0.
        byte_start: First byte of the line in the decompressed shard; of a row, the first byte of its text in
            the concatenated texts of the column.
        byte_length: Bytes of the line without its end; of a row, of its text.
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
        """Whether origins are recorded. That of a document may still be unknown."""

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
        top: Number of the most frequent n-grams of each length to retain, by falling count; None for all,
            sorted by tokens or words.
        memory: Bytes of memory; counts that do not fit are spilled.
        threads: Number of threads; the counts do not depend on it.
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
        n_text_bytes: Decompressed bytes of the shard: of the lines with their JSON, not only of their texts.
            Of a parquet file, bytes of the texts.
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


class WrittenShard(TypedDict):
    """A shard that was written again.

    Attributes:
        name: Its file name.
        bytes: Bytes of the file.
        sha256: SHA-256 of the file.
    """

    name: str
    bytes: int
    sha256: str


class RewrittenShard(TypedDict):
    """A shard and the one that was written from it.

    Attributes:
        path: The path as given.
        bytes: Bytes of the stored file.
        sha256: SHA-256 of the stored file.
        n_kept: Records that were written, bad ones included; None for a copied shard, whose records are not
            read.
        n_removed: Records that were left out.
        n_cut: Records of whose text something was cut.
        n_marked: Records that were marked.
        n_text_bytes_removed: Bytes of the texts that were left out, and of what was cut from others.
        output: The new shard, or None for a removed document that is a file.
    """

    path: str
    bytes: int
    sha256: str
    n_kept: int | None
    n_removed: int
    n_cut: int
    n_marked: int
    n_text_bytes_removed: int
    output: WrittenShard | None


class RewriteSummary(TypedDict):
    """Shards that were written again.

    Attributes:
        n_resumed_shards: Number of shards that an earlier, interrupted run finished.
        shards: The shards, in order.
    """

    n_resumed_shards: int
    shards: list[RewrittenShard]


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
        has_provenance: Whether it has a provenance file.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class NearDuplicates:
    """How the core finds near duplicates.

    Attributes:
        threshold: The least similarity, a decimal fraction with at most four digits after the point.
        shingle: `words:N` or `chars:N`.
        verify: The similarity that decides: `jaccard` or `containment`.
        permutations: Length of the signatures.
    """

    threshold: str
    shingle: str
    verify: str
    permutations: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Deduplication:
    """How the core finds duplicates and decides which to remove.

    Attributes:
        n_older: Number of first shards that are an older corpus: their documents are kept, and preferred.
        near: How near duplicates are found; None for exact ones only.
        normalize: What is done to texts before they are compared: `none`, `whitespace` or `case`.
        prefer: Which of similar documents is kept: `first`, `longest` or `subset`.
        subset_priority: Names of subsets, the preferred one first, for `subset`.
        protected: Shards, as indices, and records of documents that are never removed.
        protected_texts: Texts whose documents are never removed either.
        max_cluster: Maximum documents of a cluster from which documents are removed.
        large_clusters: Whether documents are removed from larger clusters too.
        memory: Bytes of memory for sorting.
        threads: Number of threads; the result does not depend on it.
        folder: Folder of the files from which an interrupted job resumes.
        job: Digest of the job's settings, and after a `.` that of the signatures. Only unfinished files of
            the same job are resumed; those of the same settings with other signatures are removed.
        discard: Whether unfinished files of another job may be removed.
        stored: Signatures that are used instead of reading their shards for the first time.
        estimates_older: Whether the texts of the older shards are not read, all of which have stored
            signatures: similarities to their documents are estimated.
    """

    n_older: int = 0
    near: NearDuplicates | None
    normalize: str
    prefer: str
    subset_priority: list[str]
    protected: list[tuple[int, int]]
    protected_texts: list[str]
    max_cluster: int
    large_clusters: bool
    memory: int
    threads: int
    folder: Path
    job: str
    discard: bool
    stored: list[StoredSignatures] = field(default_factory=list)
    estimates_older: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredShard:
    """A shard with stored signatures.

    Attributes:
        index: Index of the shard among those of the job.
        number: Number of the shard among those of the folder.
        n_documents: Number of documents, empty ones included.
        bytes: Size of the shard.
        sha256: Checksum of the shard.
        n_records: Number of records.
        n_text_bytes: Decompressed bytes of the records.
        n_bad_records: Number of bad records, which were skipped.
        rows_sha256: Checksum of `rows-N`.
        signatures_sha256: Checksum of `signatures-N`.
    """

    index: int
    number: int
    n_documents: int
    bytes: int
    sha256: str
    n_records: int
    n_text_bytes: int
    n_bad_records: int
    rows_sha256: str
    signatures_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSignatures:
    """Signatures in a folder that are used instead of reading shards.

    Attributes:
        folder: The folder.
        subsets: Names of the subsets, by their number; None for documents without one.
        shards: The shards that they are used for.
    """

    folder: Path
    subsets: list[str | None]
    shards: list[StoredShard]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketching:
    """How the core makes the signatures of shards.

    Attributes:
        shingle: `words:N` or `chars:N`.
        permutations: Length of the signatures.
        normalize: What is done to texts first: `none`, `whitespace` or `case`.
        memory: Bytes of memory for the shingles of one document.
        threads: Number of threads; the files do not depend on it.
        folder: The folder for the files, from which an interrupted job resumes.
        job: Digest of the job's settings. Only unfinished files of the same job are resumed.
        discard: Whether unfinished files of another job may be removed.
    """

    shingle: str
    permutations: int
    normalize: str
    memory: int
    threads: int
    folder: Path
    job: str
    discard: bool


class SignaturesFile(TypedDict):
    """A file with the rows or the signatures of a shard.

    Attributes:
        name: Its name in the folder.
        sha256: Its checksum.
    """

    name: str
    sha256: str


class DuplicateRows(TypedDict):
    """The members of all clusters of duplicates, by document: one array of n values for each column.

    Attributes:
        document: Number of the document among those of all shards.
        shard: Index of its shard.
        record: Number of its record in the shard.
        cluster: The smallest document of its cluster.
        cluster_size: Number of documents of its cluster.
        decision: 0 if it is kept, 1 if it is removed, 2 if it is kept because its cluster is too large.
        kept_copy: The kept document to which a removed one is charged; otherwise the document itself.
        similarity: The similarity to the kept copy, verified unless `kind` is 3.
        kind: 1 if its normalized text is that of the kept copy, 2 if its shingles are similar, 3 if its
            signature is similar to that of an older document whose text was not read, 0 if it is not removed.
    """

    document: NDArray[np.uint32]
    shard: NDArray[np.uint32]
    record: NDArray[np.uint64]
    cluster: NDArray[np.uint32]
    cluster_size: NDArray[np.uint32]
    decision: NDArray[np.uint8]
    kept_copy: NDArray[np.uint32]
    similarity: NDArray[np.float64]
    kind: NDArray[np.uint8]


class Bands(TypedDict):
    """How signatures are split to find candidate pairs.

    Attributes:
        bands: Number of bands.
        rows: Numbers of a signature in each band.
    """

    bands: int
    rows: int


class SketchedShard(ShardSummary):
    """A shard whose documents were compared.

    Attributes:
        path: The path as given.
        n_documents: Number of documents, empty ones included.
        n_lone_surrogates: Number of lone surrogates in the JSON, which are compared as U+FFFD.
        bad_records: The bad records, which were skipped.
    """

    path: str
    n_documents: int
    n_lone_surrogates: int
    bad_records: BadRecords


class SignaturesSummary(TypedDict):
    """The signatures that were written.

    Attributes:
        n_resumed_shards: Number of shards that an earlier, interrupted run read.
        shards: The shards, in order.
        subsets: Names of the subsets, by their number; None for documents without one.
        files: Two for each shard, in order: rows and signatures.
    """

    n_resumed_shards: int
    shards: list[SketchedShard]
    subsets: list[str | None]
    files: list[SignaturesFile]


class SubsetDuplicates(TypedDict):
    """The duplicates of a subset.

    Attributes:
        name: `meta.pile_set_name`, or None for records without one.
        n_documents: Number of documents.
        n_text_bytes: Bytes of their texts in UTF-8.
        n_removed: Number of documents that are removed.
        n_removed_bytes: Bytes of their texts.
    """

    name: str | None
    n_documents: int
    n_text_bytes: int
    n_removed: int
    n_removed_bytes: int


class DedupSummary(TypedDict):
    """The duplicates that were found in shards.

    Attributes:
        n_documents: Number of documents, empty ones included.
        n_text_bytes: Bytes of their texts in UTF-8.
        n_removed: Number of documents that are removed.
        n_removed_bytes: Bytes of their texts.
        n_exact_copies: Number of documents whose text is that of a document preferred to them.
        n_clusters: Number of clusters of at least two documents.
        largest_cluster: Number of documents of the largest one.
        n_left_alone: Number of documents in clusters that are too large, all of which are kept.
        bands: The bands of signatures; None for exact duplicates only.
        curve: Similarities, and the probability that a pair with each is found.
        n_candidates: Number of pairs of documents that share a band.
        n_verified: Number of those that reach the threshold.
        n_capped_buckets: Number of groups of documents with an equal band that are so large that not all of
            their pairs are candidates.
        histogram: Candidates by similarity, in 100 bins of equal width from 0 to 1; empty for exact ones.
        n_resumed_shards: Number of shards that an earlier, interrupted run read.
        shards: The shards, in order.
        subsets: The subsets, in order of first appearance.
    """

    n_documents: int
    n_text_bytes: int
    n_removed: int
    n_removed_bytes: int
    n_exact_copies: int
    n_clusters: int
    largest_cluster: int
    n_left_alone: int
    bands: Bands | None
    curve: list[list[float]]
    n_candidates: int
    n_verified: int
    n_capped_buckets: int
    histogram: list[int]
    n_resumed_shards: int
    shards: list[SketchedShard]
    subsets: list[SubsetDuplicates]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContaminationSearch:
    """How the core finds the items of a benchmark.

    Attributes:
        threshold: The least share of a part's weight (see `PartTotals`) in one region, above 0 and at most 1.
        max_gap: Maximum number of words from one n-gram of a region to the next, at most 64.
        threads: Number of threads; the result does not depend on it.
        folder: Folder of the files from which an interrupted job resumes.
        job: Digest of the job's settings. Only unfinished files of the same job are resumed.
        discard: Whether unfinished files of another job may be removed.
        lists_bytes: Whether `contaminated` of the matches is listed, 28 bytes for each entry.
    """

    threshold: float
    max_gap: int
    threads: int
    folder: Path
    job: str
    discard: bool
    lists_bytes: bool


class ItemMatches(TypedDict):
    """The parts of items in documents, by part and then in reading order, at most 1,000 of each part.

    Attributes:
        part: Index of the part.
        shard: Index of the shard; 0 without shards.
        document: The record of the shard, or the document.
        kind: 0 verbatim, 1 normalized, 2 partial.
        byte_start, byte_end: The best occurrence in the document's text.
        n_choices: For a question, the choices that are near it.
        score: The share of the part's weight in the best region.
        answer_score: For a question, the share of the answer that is near it; NaN without an answer.
        occurrences: Bytes of all occurrences: (n, 3) int64 with the columns match, start, end.
        text: The text of the best occurrence, up to 1,000 bytes of it.
        contaminated: Shard, record or document, start and end of the bytes of all passages and questions in
            all documents, in reading order and without overlap; empty unless they are listed.
    """

    part: NDArray[np.uint64]
    shard: NDArray[np.uint64]
    document: NDArray[np.uint64]
    kind: NDArray[np.uint64]
    byte_start: NDArray[np.uint64]
    byte_end: NDArray[np.uint64]
    n_choices: NDArray[np.uint64]
    score: NDArray[np.float64]
    answer_score: NDArray[np.float64]
    occurrences: NDArray[np.int64]
    text: list[str]
    contaminated: tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]


class PartTotals(TypedDict):
    """Figures of each part of the items: one array of a value for each part.

    Attributes:
        n_words: Number of words.
        n_grams: Number of distinct n-grams; 0 if the part is too short.
        n_documents: Number of documents with a match.
        weight: The weight of the n-grams together: the rarer one is among the documents, the more it weighs.
        is_telling: Whether they weigh enough to tell the part from common phrases.
    """

    n_words: NDArray[np.uint64]
    n_grams: NDArray[np.uint64]
    n_documents: NDArray[np.uint64]
    weight: NDArray[np.float64]
    is_telling: NDArray[np.bool_]


class ScannedShard(ShardSummary):
    """A shard that was searched for items.

    Attributes:
        path: The path as given.
        n_documents: Number of documents, empty ones included.
        n_candidates: Number of documents with an n-gram of an item.
        bad_records: The bad records, which were skipped.
    """

    path: str
    n_documents: int
    n_candidates: int
    bad_records: BadRecords


class ContaminationSummary(TypedDict):
    """A corpus that was searched for items.

    Attributes:
        n_documents: Number of documents, empty ones included; of rows, what end-of-document tokens separate.
        n_grams: Number of distinct n-grams of all items.
        n_found_grams: Number of those that occur in a document.
        n_candidates: Number of documents with an n-gram of an item.
        shards: The shards, in order; none for tokens.
    """

    n_documents: int
    n_grams: int
    n_found_grams: int
    n_candidates: int
    shards: list[ScannedShard]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PassageSearch:
    """How the core finds repeated passages.

    Attributes:
        length: Bytes of a window, at least 32; or its tokens, at least 16.
        every_copy: Whether the first copies count as repeated too.
        protected: Shards, as indices, and records of documents of which no passage is reported.
        protected_texts: Texts whose documents are protected too.
        memory: Bytes of memory.
        threads: Number of threads; the result does not depend on it.
        folder: Folder of the files from which an interrupted job resumes.
        job: Digest of the job's settings. Only unfinished files of the same job are resumed.
        discard: Whether unfinished files of another job may be removed.
    """

    length: int
    every_copy: bool = False
    protected: list[tuple[int, int]]
    protected_texts: list[str]
    memory: int
    threads: int
    folder: Path
    job: str
    discard: bool


class PassageRows(TypedDict):
    """Repeated passages in reading order: one array of n values for each column.

    Attributes:
        document: Number of the document among those of all shards.
        shard: Index of its shard.
        record: Number of its record in the shard.
        start: First repeated byte of its text, at the start of a character.
        end: End of the repeated bytes, at the end of a character.
        trimmed_start: Repeated bytes before `start`, of a character that begins before them; 0 for tokens.
        trimmed_end: Repeated bytes after `end`; 0 for tokens.
        copy_document: The document in which the window at the passage's first byte occurs first.
        copy_shard: Index of its shard.
        copy_record: Number of its record in the shard.
        copy_start: Where `start` is in that occurrence.
    """

    document: NDArray[np.uint64]
    shard: NDArray[np.uint32]
    record: NDArray[np.uint64]
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    trimmed_start: NDArray[np.uint8]
    trimmed_end: NDArray[np.uint8]
    copy_document: NDArray[np.uint64]
    copy_shard: NDArray[np.uint32]
    copy_record: NDArray[np.uint64]
    copy_start: NDArray[np.uint64]


class SubsetPassages(TypedDict):
    """Repeated passages of the documents of a subset.

    Attributes:
        name: `meta.pile_set_name`, or None for records without one.
        n_documents: Number of documents.
        n_text_bytes: Bytes of their texts in UTF-8.
        n_repeated_bytes: Bytes in passages, trimmed to characters.
    """

    name: str | None
    n_documents: int
    n_text_bytes: int
    n_repeated_bytes: int


class ReadShard(TypedDict):
    """A shard as it was read.

    Attributes:
        path: The path as given.
        bytes: Bytes of the stored file.
        sha256: SHA-256 of the stored file.
    """

    path: str
    bytes: int
    sha256: str


class PassagesSummary(TypedDict):
    """Repeated passages of shards.

    Attributes:
        n_documents: Number of documents, empty ones included.
        n_text_bytes: Bytes of their texts in UTF-8.
        n_repeated_bytes: Bytes in passages, trimmed to characters.
        n_passages: Number of passages.
        n_bad_records: Number of bad records, which were skipped.
        shards: The shards, in order.
        subsets: Figures by subset, sorted by name. The documents without a subset are last.
    """

    n_documents: int
    n_text_bytes: int
    n_repeated_bytes: int
    n_passages: int
    n_bad_records: int
    shards: list[ReadShard]
    subsets: list[SubsetPassages]


class WordsSummary(TypedDict):
    """The n-grams of words that were counted in shards.

    Attributes:
        n_documents: Number of documents, empty ones included.
        n_bad_records: Number of bad records, which were skipped.
        shards: SHA-256 of each shard, in order.
        lengths: The n-grams of each length.
        groups: Names of the groups with counts of their own: the subsets, sorted, and last None for documents
            without one. None alone if subsets are counted together.
    """

    n_documents: int
    n_bad_records: int
    shards: list[str]
    lengths: list[LengthSummary]
    groups: list[str | None]
