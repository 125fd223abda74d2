"""The Rust core: tokenizer, token datasets, training orders and the jobs that make them."""

from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, final, overload

import numpy as np
from numpy.typing import NDArray

from pile_tools.types import AnyPath, Counting, OnProgress, OnTokens, Origin, OriginColumns, TermQuery, Tokens

__all__ = [
    "SuffixIndex",
    "TokenDataset",
    "TokenSource",
    "Tokenizer",
    "TrainingOrder",
    "_panic",
    "batch_documents",
    "blended_order",
    "build_dataset",
    "build_index",
    "build_order",
    "check_mapped",
    "combine_occurrences",
    "count_token_ngrams",
    "count_word_ngrams",
    "dataset_terms",
    "label_dataset",
    "merge_datasets",
    "micro_batch_samples",
    "normalized_weights",
    "order_arithmetic",
    "order_mixture",
    "order_repeats",
    "order_terms",
    "order_trace",
    "order_when",
    "plan_index",
    "report_machine_failures",
    "rows_order",
    "shards_terms",
    "split_documents",
    "token_files",
    "token_ngrams",
    "train_tokenizer",
    "weights_by_documents",
    "write_blend",
]

@final
class Tokenizer:
    """A byte-level BPE tokenizer in Hugging Face's `tokenizer.json` format; gives the same ids.

    Shared freely between threads; pickles by its file's content.
    """

    @staticmethod
    def from_file(path: AnyPath) -> Tokenizer:
        """Loads a `tokenizer.json`.

        Raises:
            FormatError: Not such a file, or a component that is not supported, named.
            OSError: The file cannot be read.
        """

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added tokens included."""

    @property
    def eod(self) -> tuple[str, int] | None:
        """The end-of-document token that the file declares and its id, if it declares one."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> NDArray[np.uint32]:
        """The ids of a text, without post-processor tokens unless asked for: (n_tokens,) uint32.

        Raises:
            FormatError: A byte of the text has no token, or the post-processor cannot be applied.
        """

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = False
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """The ids of all texts one after the other, and where each starts and the last ends.

        Shapes: n texts -> (n_tokens,) uint32, (n + 1,) uint64; text i is `ids[offsets[i]:offsets[i + 1]]`.
        Raises: as `encode`.
        """

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]], skip_special_tokens: bool = True) -> str:
        """The text of ids as `tokenizers` decodes them: ids it does not know are left out.

        Raises:
            ConfigError: An id is negative or above 2**32 - 1.
        """

    @property
    def normalizer(self) -> str | None:
        """Name of the normalizer that the file declares, `NFC`, or None if it changes no text."""

    def normalize(self, text: str) -> bytes:
        """The bytes by which a dataset of this tokenizer holds a text in the middle of a document.

        Added tokens are as they decode, the rest is normalized.
        """

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""

    def id_to_token(self, id: int) -> str | None:
        """The token of an id as the vocabulary spells it, or None."""

    def __new__(cls, json: bytes) -> Tokenizer:
        """Loads the content of a `tokenizer.json`. Raises FormatError."""

    def __getnewargs__(self) -> tuple[bytes]: ...

@final
class TokenDataset:
    """GPT-NeoX's memory-mapped `PREFIX.bin` and `PREFIX.idx`, with `PREFIX.provenance` where we wrote it.

    The tokens may be in shards, `PREFIX-000NN-of-000MM.bin`: documents that cross the end of one are copied.

    A document is one sequence of the index, as GPT-NeoX counts them. Opens in constant time; pickles by path,
    so that workers of a `torch.utils.data.DataLoader` take it as it is. Tokens are given as read-only views
    of the map, not copies: a view stays good when the dataset is gone.

    >>> dataset = TokenDataset("tokens/sample")
    >>> dataset[0]  # the first document
    array([ 12, 1044,  ...,    0], dtype=uint16)
    >>> longest = max(dataset, key=len)
    >>> dataset.origin(7)["subset"]
    'Books'
    """

    def __new__(cls, prefix: AnyPath) -> TokenDataset:
        """Opens a dataset.

        Raises:
            FormatError: The two files are malformed or do not belong together.
            OSError: A file cannot be read.
        """

    @property
    def prefix(self) -> str:
        """The path without its suffixes."""

    @property
    def dtype(self) -> str:
        """`uint16` or `int32`."""

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents."""

    @property
    def has_provenance(self) -> bool:
        """Whether there is a `.provenance`; it may still say of a document that its origin is unknown."""

    @property
    def shards(self) -> list[str]:
        """Paths of the shards that the documents came from, as they were given; empty where unknown."""

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets, in order of first appearance; empty where unknown."""

    @property
    def fingerprint(self) -> str:
        """A digest of index and tokens (of large ones, of 128 pieces spread over them) in hexadecimal.

        How the tokens are cut into shards does not change it.
        """

    def __len__(self) -> int:
        """Number of documents."""

    @property
    def tokens(self) -> Tokens:
        """All tokens, document after document: a read-only view, (n_tokens,) uint16 or int32.

        Of a dataset in shards it is a copy, made anew each time: where memory is short, take documents.
        """

    @overload
    def __getitem__(self, document: SupportsIndex, /) -> Tokens:
        """The tokens of a document, a read-only view: (n_tokens,) uint16 or int32.

        Raises:
            IndexError: No such document.
            FormatError: The index is damaged there.
        """

    @overload
    def __getitem__(self, documents: slice, /) -> list[Tokens]: ...
    def __iter__(self) -> Iterator[Tokens]:
        """The tokens of each document, in order."""

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each document: (n_documents,) int32."""

    def origin(self, document: int) -> Origin | None:
        """Where a document came from, or None where that is unknown. Raises ConfigError."""

    def origins(self) -> OriginColumns | None:
        """Where all documents came from, as columns, or None where the dataset has no provenance.

        Shards and subsets are numbers in `shards` and `subsets`; -1 stands for what is unknown or not there.
        """

    def documents_of(self, shard: int, record: int) -> list[int]:
        """The documents that came from a record of `shards[shard]`, in order.

        Cost: one pass over the documents among which the shard's are.
        Raises: ConfigError if there is no such shard.
        """

    def first_token(self, document: int) -> int:
        """Number of a document's first token among those of the `.bin`. Raises ConfigError."""

    def subset_numbers(self, documents: NDArray[np.int64]) -> NDArray[np.int32]:
        """Numbers in `subsets` of documents, -1 where unknown: (n,) int64 -> (n,) int32."""

    def check(self) -> None:
        """Checks the whole index against the `.bin`; raises FormatError naming the first wrong document."""

    def __getnewargs__(self) -> tuple[str]: ...

@final
class TrainingOrder:
    """The samples a model sees, in order: `seq_length + 1` tokens each, step after step.

    Opens in constant time whatever its size; pickles by path.
    """

    def __new__(
        cls,
        stem: AnyPath,
        seq_length: int,
        prefix: AnyPath,
        extra: int = 1,
        is_padded: bool = False,
        padding: int = 0,
        as_gpt_neox: bool = False,
    ) -> TrainingOrder:
        """Opens `STEM_{doc,sample,shuffle}_idx.npy` over the dataset PREFIX.

        `pile_tools.open_order(FOLDER)` finds these in a folder's `order.json`.

        Args:
            stem: The arrays' path, less `_doc_idx.npy` and so on.
            seq_length: Tokens the model sees at once.
            prefix: A dataset, its tokens whole, in shards, or not here (then only `spans` can be asked for).
            extra: Tokens a sample has beyond these: 1, its last label; 0 as Megatron-LM may have it.
            is_padded: Whether samples are padded and cut to their length, as all but `packed` ones are.
            padding: The token they are padded with.
            as_gpt_neox: Whether a sample that GPT-NeoX cannot read is the one it takes instead.

        Raises:
            FormatError: The files are malformed or do not belong together.
            OSError: A file cannot be read.
        """

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once; samples are one longer."""

    @property
    def sample_length(self) -> int:
        """Tokens of a sample."""

    @property
    def stored_dtype(self) -> str:
        """`uint16` or `int32`: how token ids are searched for; of a blend of both, `int32`."""

    @property
    def replaced(self) -> list[int]:
        """Samples that GPT-NeoX's reader cannot read, in whose place it gives another one."""

    @property
    def dataset(self) -> Any:
        """The documents of the samples: a `TokenDataset` or `TokenSource`; of a blend, a list of these."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, sample: int, /) -> Tokens:
        """A sample: (seq_length + 1,) uint16, int32, or int64 for a blend of both. Raises IndexError."""

    def take(self, indices: NDArray[np.int64]) -> Tokens:
        """Samples at any indices: (n,) int64 -> (n, seq_length + 1), as `samples`. Raises IndexError."""

    def samples(self, first: int, n: int) -> Tokens:
        """`n` samples from place `first`: (n, seq_length + 1) uint16, int32, or int64 for a blend of both.

        Raises: ConfigError.
        """

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """What `n` samples from place `first` consist of, in order.

        Shapes: (n_spans, 4) int64 with columns row, document (-1: unknown), first token in it, tokens.
        """

    def find(
        self, sequences: Sequence[NDArray[np.integer[Any]]], n_samples: int, on_progress: OnProgress = None
    ) -> NDArray[np.int64]:
        """Every place of token sequences in the first `n_samples` samples, in training order.

        A sequence cut by the end of a sample is not found.

        Shapes: (n_places, 3) int64 with columns sequence, sample, offset within the sample.
        Raises: ConfigError for a sequence of fewer than four tokens.
        """

    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class TokenSource:
    """Tokens of unknown origin: rows without an index, or an index whose tokens may be absent.

    Documents of an index without tokens are known, and can be ordered, all the same.
    """

    def __new__(cls, prefix: AnyPath) -> TokenSource:
        """Opens `PREFIX.idx` with `PREFIX.bin`, `PREFIX-000NN-of-000MM.bin` or no tokens.

        Raises:
            FormatError: A shard is missing or damaged, or index and tokens do not belong together.
            OSError: A file cannot be read.
        """

    @property
    def prefix(self) -> str:
        """The path without its suffixes; of rows, their first file."""

    @property
    def dtype(self) -> str:
        """`uint16` or `int32`."""

    @property
    def knows_documents(self) -> bool:
        """Whether its items are documents; the items of rows are rows."""

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens are here."""

    @property
    def has_provenance(self) -> bool:
        """No: origins are not known."""

    @property
    def subsets(self) -> list[str]:
        """None are known."""

    @property
    def fingerprint(self) -> str:
        """A digest as `TokenDataset` has it, over what is here."""

    def __len__(self) -> int:
        """Number of documents, or of rows."""

    def __getitem__(self, document: int, /) -> Tokens:
        """The tokens of a document or row: (n_tokens,) uint16 or int32. Raises IndexError, FormatError."""

    def origin(self, document: int) -> Origin | None:
        """Not known."""

    def subset_numbers(self, documents: NDArray[np.int64]) -> NDArray[np.int32]:
        """Not known: -1 each."""

def token_files(path: AnyPath) -> list[tuple[str, int]]:
    """The files of a token file, whole or in shards, with the bytes of each.

    The shards are checked against one another, and against the `.idx` beside them where there is one.

    Raises:
        FormatError: None are there, one is missing or of a wrong size, or they are of several files.
        OSError: A file cannot be read.
    """

def rows_order(path: AnyPath, row_length: int | None = None, dtype: str | None = None) -> TrainingOrder:
    """Rows in training order: a folder of shards, a shard, or a whole file.

    Without `row_length` rows have Pythia's 2,049 tokens, and documents are refused. Without `dtype` it is
    that of the `.idx` beside the tokens, or uint16.

    Raises:
        FormatError: A shard is missing or damaged, or the bytes are no whole number of rows.
        OSError: A file cannot be read.
    """

def blended_order(stem: AnyPath, parts: Sequence[TrainingOrder]) -> TrainingOrder:
    """Orders of one dataset each, mixed by `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.

    Raises:
        FormatError: A file is malformed.
        ConfigError: The orders cannot be mixed.
    """

def build_dataset(
    shards: Sequence[AnyPath],
    tokenizer: Tokenizer,
    eod: int | None,
    folder: AnyPath,
    name: str,
    job: str,
    n_threads: int,
    is_part: bool,
    discard: bool,
    on_progress: OnTokens = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    add_special_tokens: bool = False,
    max_record: int = ...,
) -> dict[str, Any]:
    """Tokenizes shards into `FOLDER/NAME.bin`, `.idx` and `.provenance`, or goes on with the same `job`.

    `job` names all that the result depends on but the shards and `skip_bad_records`: what an interrupted run
    made without leaving a record out is gone on with either way.

    `on_progress` gets the compressed bytes read and the tokens made so far. Returns the counts by
    shard and subset. Without `is_part`, shards that hold no documents at all are an error.
    Raises: OutputExistsError if the folder holds another job's finished shards and `discard` is off.
    """

def merge_datasets(
    inputs: Sequence[AnyPath],
    folder: AnyPath,
    name: str,
    job: str,
    discard: bool,
    on_progress: OnProgress = None,
) -> dict[str, Any]:
    """Merges datasets, by their prefixes, into `FOLDER/NAME.bin` and so on, or goes on with the same `job`.

    `on_progress` gets the bytes of tokens copied so far. Returns the counts by input.
    Raises: FormatError if an input is damaged or stores its tokens otherwise than the first.
    """

def label_dataset(
    prefix: AnyPath,
    shards: Sequence[AnyPath],
    tokenizer: Tokenizer,
    eod: int | None,
    folder: AnyPath,
    name: str,
    n_threads: int,
    on_progress: OnProgress = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    add_special_tokens: bool = False,
    max_record: int = ...,
) -> dict[str, Any]:
    """Finds the dataset's documents in the shards by their tokens, and writes `FOLDER/NAME.provenance`.

    `eod` is the token that may end each document; whether it does is seen from the documents. `on_progress`
    gets the bytes of the `.bin`, then those of the shards on disk. Returns the counts by shard and subset.
    Raises: FormatError if the dataset was made with another tokenizer's ids.
    """

def train_tokenizer(
    shards: Sequence[AnyPath],
    vocab_size: int,
    min_frequency: int,
    special_tokens: Sequence[str],
    n_threads: int,
    on_progress: OnProgress = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> tuple[str, dict[str, Any]]:
    """Trains a byte-level BPE on all documents of the shards; returns `tokenizer.json` and the counts."""

def build_order(
    prefix: AnyPath,
    stem: AnyPath,
    seq_length: int,
    seed: int,
    *,
    samples: int | None = None,
    epochs: int | None = None,
    rule: str = "packed",
    extra: int = 1,
    drop_last_partial: bool = True,
    documents: tuple[int, int] | None = None,
    allow_chopped: bool = True,
    labels: AnyPath | None = None,
    on_progress: OnProgress = None,
) -> dict[str, Any]:
    """Builds an order as `STEM_{doc,sample,shuffle}_idx.npy`; returns the counts.

    `rule` is `packed`, `pack_until_overflow`, `unpacked` (GPT-NeoX's) or `megatron` (Megatron-LM's). Only the
    index of the dataset PREFIX is read, its tokens need not be here.
    """

def split_documents(split: str, n_documents: int) -> list[tuple[int, int]]:
    """First document and end of train, valid and test, by GPT-NeoX's rule. Raises ConfigError."""

def normalized_weights(weights: Sequence[float], n_samples: int) -> tuple[list[float], list[int]]:
    """Weights that sum to one, and the samples of each dataset: 1.005 times its share, rounded up."""

def weights_by_documents(n_documents: Sequence[int], alpha: float) -> list[float]:
    """GPT-NeoX's weights by numbers of documents."""

def write_blend(
    stem: AnyPath, weights: Sequence[float], available: Sequence[int], as_gpt_neox: bool
) -> tuple[int, list[int]]:
    """Writes a blend of datasets with so many samples each; returns its samples, in all and of each."""

def micro_batch_samples(
    n_samples: int, batch_size: int, step: int, rank: tuple[int, int], micro_batch: tuple[int, int]
) -> tuple[int, int]:
    """What one data-parallel rank reads in one micro-batch of a step: its first sample and how many.

    Rank and micro-batch are their number, from 0, and how many there are. Raises ConfigError.
    """

def batch_documents(
    spans: NDArray[np.int64], n_rows: int, row_length: int, n_inputs: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Documents, position ids and `cu_seqlens` of a batch with these spans: see `pile_tools.order.Batch`.

    `n_inputs` tokens of each row are the model's inputs. Raises ConfigError if the spans do not fit.
    """

@final
class SuffixIndex:
    """The suffix array of a dataset, memory-mapped. `pile_tools.search.Index` wraps it."""

    def __new__(cls, folder: AnyPath, dataset: TokenDataset) -> SuffixIndex:
        """Opens the index in a folder. Raises FormatError if it is damaged or of another dataset."""
    @property
    def dataset(self) -> TokenDataset:
        """The dataset."""
    @property
    def n_segments(self) -> int:
        """Number of segments of the index."""
    @property
    def n_ids(self) -> int:
        """Number of distinct ids in the dataset."""
    @property
    def has_bytes(self) -> bool:
        """Whether the index finds texts: it was built with a tokenizer, so the bytes of ids are known."""
    def is_of(self, tokenizer: Tokenizer) -> bool:
        """Whether every id decodes to the same bytes with a tokenizer."""
    def decode(self, ids: Sequence[int] | NDArray[Any]) -> bytes:
        """The concatenated bytes of ids. Ids that do not occur have none; nor has any without a tokenizer."""
    def count(self, ids: Sequence[int] | NDArray[Any]) -> int:
        """Number of occurrences of a sequence of ids. Raises ConfigError if it is empty."""
    def count_batch(
        self, ids: NDArray[np.int64], starts: NDArray[np.int64], n_threads: int
    ) -> NDArray[np.int64]:
        """Number of occurrences of each n-gram: (n,) int64. Raises ConfigError if one is empty.

        `ids` has the n-grams one after another, and `starts` the index of each one's first id and then
        the end: (n + 1,). The result is the same for any number of threads.
        """
    def locate(self, ids: Sequence[int] | NDArray[Any], max_occurrences: int) -> NDArray[np.int64]:
        """Every occurrence of a sequence of ids, in order: (n, 2) int64, document and token offset.

        Raises ConfigError if `ids` is empty, or occurs more than `max_occurrences` times.
        """
    def count_text(self, text: bytes) -> int:
        """Number of occurrences of a text. Raises ConfigError if it is empty or `has_bytes` is False."""
    def locate_text(self, text: bytes, max_occurrences: int) -> NDArray[np.int64]:
        """Every occurrence of a text, in order: (n, 4) int64.

        The columns are document, token offset, first byte in that token, and number of tokens. Raises
        ConfigError as `count_text`, or if the text occurs more than `max_occurrences` times.
        """
    def sample_text(self, text: bytes, limit: int) -> tuple[int, NDArray[np.int64]]:
        """Number of occurrences of a text, and up to `limit` of them as rows of `locate_text`.

        Raises ConfigError as `count_text`.
        """
    def next_tokens(
        self, context: Sequence[int] | NDArray[Any], longest: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int, int]:
        """The tokens that follow a context, or with `longest` its longest suffix that any token follows.

        Returns the ids and their counts, (n,) int64 by descending count; the occurrences that end with their
        document; 0; and the length in tokens of the context that was used.
        """
    def next_after_text(
        self, text: str, longest: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int, int]:
        """The tokens that follow a text, or with `longest` its longest suffix that any token follows.

        Returns the same as `next_tokens`, with the occurrences that end within a token instead of 0, and the
        length in bytes. Raises ConfigError as `count_text`.
        """
    def probability(self, context: Sequence[int] | NDArray[Any], next: int) -> tuple[int, int, int]:
        """The counts for the probability of `next` after the longest suffix that any token follows.

        Returns the occurrences of that suffix of the context that `next` follows, those that any token
        follows, and the length of the suffix in tokens.
        """
    def spans(self, text: str, min_bytes: int, n_threads: int) -> NDArray[np.int64]:
        """The maximal spans of a text, of at least `min_bytes` bytes, that occur in a document.

        Returns the first byte and the end of each: (n, 2) int64. Raises ConfigError if `min_bytes` is 0 or
        `has_bytes` is False.
        """
    def __getnewargs__(self) -> tuple[str, TokenDataset]: ...

def plan_index(dataset: TokenDataset, memory_bytes: int) -> dict[str, Any]:
    """The segments (`pieces`), `memory_bytes` and `disk_bytes` of an index of the dataset.

    Raises FormatError if the dataset is damaged.
    """

def build_index(
    dataset: TokenDataset,
    tokenizer: Tokenizer | None,
    folder: AnyPath,
    memory_bytes: int,
    on_progress: OnProgress = None,
) -> dict[str, Any]:
    """Builds the index of a dataset in a folder and returns its counts. See `pile_tools.jobs.index`.

    Raises FormatError if the dataset is damaged, and OSError if a file cannot be read or written.
    """

def combine_occurrences(clauses: Sequence[NDArray[np.int64]], window: int | None = None) -> NDArray[np.int64]:
    """The documents with an occurrence of every clause, and the shortest run that contains one of each.

    A clause is the array of its occurrences. Clauses and result are (n, 3) int64: document, token offset,
    number of tokens. If `window` is given, runs of more tokens are left out. Raises ConfigError if there are
    no clauses.
    """

def order_when(
    order: TrainingOrder,
    tokenizer: Tokenizer | None,
    index: SuffixIndex | None,
    texts: Sequence[bytes],
    n_samples: int,
    across_documents: bool,
    max_occurrences: int,
    n_threads: int,
    on_progress: OnProgress = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every time the model saw texts, stored ids where there is no tokenizer: see `pile_tools.timeline.when`.

    Returns a row for each part of an occurrence (text, document, byte, token, n_tokens, copy, part, n_parts,
    sample, offset, length, n_documents), by text its places in the documents and those that no sample
    reaches, and the documents, tokens and tokens without bytes looked at.
    """

def order_trace(order: TrainingOrder, document: int) -> NDArray[np.int64]:
    """Every part of a document in a sample, in training order: copy, sample, offset, start, length."""

def order_repeats(
    order: TrainingOrder,
    n_samples: int,
    interval_samples: int,
    n_threads: int,
    on_progress: OnProgress = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int | None, int | None]:
    """What the first samples read more than once: see `pile_tools.timeline.repeats`.

    Returns tokens by interval (by epoch, by duplicate), a row for each repeated document (same_as, document,
    n_tokens, n_copies, first_sample, last_sample), and the first samples with a token of either kind.
    """

def order_mixture(
    order: TrainingOrder,
    subset_numbers: NDArray[np.int32],
    n_subsets: int,
    n_samples: int,
    interval_samples: int,
    n_threads: int,
    on_progress: OnProgress = None,
) -> NDArray[np.int64]:
    """Tokens read by interval and subset, those of unknown subsets last: (n_intervals, n_subsets + 1).

    `subset_numbers` are those of all documents, -1 where unknown.
    """

def _panic() -> None:
    """Panics in the core, for the test of how a panic is reported."""

def count_token_ngrams(
    dataset: TokenDataset,
    counting: Counting,
    output: AnyPath,
    across_documents: bool,
    tokenizer: Tokenizer | None,
    groups: NDArray[np.uint32],
    group_names: Sequence[str | None],
    on_progress: OnProgress = None,
) -> list[dict[str, Any]]:
    """Counts the n-grams of a dataset into a table; `pile_tools.count_ngrams` is the whole job.

    Args:
        counting: What is counted and kept, and where it may be spilled.
        output: The table: Parquet where its name ends so, otherwise tab-separated text.
        across_documents: Whether an n-gram may run from one document into the next.
        tokenizer: Decodes n-grams for the column `text`; None leaves it out.
        groups: Number of each document's group: (n_documents,) uint32, or (0,) for one group.
        group_names: Names of the groups' columns.
        on_progress: Called with n-grams counted so far.

    Returns:
        By length: `n`, `n_distinct`, `n_occurrences`, `n_kept`, and `counts`, pairs of a count and how many
        n-grams have it, ascending.

    Raises:
        ConfigError: A length that cannot be counted, or ids that are no tokens.
        FormatError: The dataset is damaged, or the disk is too small for what has to be spilled.
        OutputExistsError: The folder holds finished work of another job.
        OSError: A file cannot be read or written.
    """

def count_word_ngrams(
    shards: Sequence[AnyPath],
    counting: Counting,
    output: AnyPath,
    ignore_case: bool,
    by_subset: bool,
    on_progress: OnProgress = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> dict[str, Any]:
    """Counts the n-grams of the words of shards into a table; `pile_tools.count_ngrams` is the whole job.

    Words are cut as `str.split()` cuts. `on_progress` gets compressed bytes.

    Returns:
        `n_documents`, `n_bad_records`, `shards` (their SHA-256), `groups`, and `lengths` as
        `count_token_ngrams` returns them.

    Raises:
        ConfigError: A length that cannot be counted.
        FormatError: A shard is damaged, named with the place, or the disk is too small.
        OutputExistsError: The folder holds finished work of another job.
        OSError: A file cannot be read or written.
    """

def token_ngrams(
    dataset: TokenDataset, counting: Counting, across_documents: bool, on_progress: OnProgress = None
) -> tuple[NDArray[np.uint16] | NDArray[np.int32], NDArray[np.int64]]:
    """The n-grams of one length, sorted, and their counts; `pile_tools.ngrams` is the whole of it.

    Shapes: (n_distinct, n) in the dataset's type, (n_distinct,) int64. Raises as `count_token_ngrams`.
    """

def shards_terms(
    shards: Sequence[AnyPath],
    query: TermQuery,
    by_subset: bool,
    on_progress: OnProgress = None,
    *,
    tokenizer: Tokenizer | None = None,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> tuple[list[NDArray[np.int64]], list[str | None], int, int, list[str]]:
    """Counts terms in the documents of shards: as a dataset of `tokenizer` holds them, or as written.

    Returns:
        Occurrences, documents and pairs, a row for each subset: (n_subsets, n_terms) twice and
        (n_subsets, n_pairs); the subsets, None for documents without one; documents; bad records; SHA-256 of
        each shard.

    Raises:
        ConfigError: No terms, or an empty one.
        FormatError: A shard is damaged, named with the place.
        OSError: A shard cannot be read.
    """

def dataset_terms(
    dataset: TokenDataset,
    tokenizer: Tokenizer,
    query: TermQuery,
    groups: NDArray[np.uint32],
    n_groups: int,
    eod: int | None,
    on_progress: OnProgress = None,
) -> list[NDArray[np.int64]]:
    """Counts terms in the decoded documents of a dataset: occurrences, documents and pairs by group.

    `groups` are numbers of the documents' groups, or (0,) for one group. A document's last token `eod` is no
    part of its text. `on_progress` gets tokens.

    Raises: ConfigError for no terms or an empty one; FormatError for a damaged dataset.
    """

def order_terms(
    order: TrainingOrder,
    tokenizer: Tokenizer,
    query: TermQuery,
    ends: Sequence[int],
    on_progress: OnProgress = None,
) -> list[NDArray[np.int64]]:
    """Counts terms in the first samples of an order: occurrences, samples and pairs, a row for each end.

    `ends` are numbers of samples, ascending; `on_progress` gets samples.

    Raises: ConfigError for no terms, an empty one, or more samples than there are.
    """

def order_arithmetic(
    order: TrainingOrder,
    tokenizer: Tokenizer,
    ends: Sequence[int],
    n_threads: int,
    on_progress: OnProgress = None,
) -> list[list[tuple[str, int]]]:
    """Counts by Pythia's arithmetic rule in the first samples of an order: keys and counts, by `ends`.

    Raises: ConfigError for more samples than there are.
    """

def check_mapped() -> None:
    """Checks that no file became shorter while it was mapped, since the last check.

    What is missing of a file's last page reads as zeros, and no signal tells of it. Raises FormatError.
    """

def report_machine_failures() -> None:
    """Ends this process with exit code 1 and one line on standard error where a library could only crash.

    For commands: an input that becomes shorter while it is mapped, and memory that is used up. A library
    never calls it: there a view of a file that another program shortens ends the process by SIGBUS.
    """
