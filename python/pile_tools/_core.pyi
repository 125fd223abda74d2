"""The Rust core: tokenizer, token datasets, training orders and the jobs that make them."""

from collections.abc import Callable, Iterator, Sequence
from typing import SupportsIndex, final, overload

import numpy as np
from numpy.typing import NDArray

from pile_tools.types import (
    AnyPath,
    BuildSummary,
    ContaminationSearch,
    ContaminationSummary,
    Counting,
    Deduplication,
    DedupSummary,
    DuplicateRows,
    Ids,
    IndexPlan,
    IndexSummary,
    ItemMatches,
    LabelSummary,
    LengthSummary,
    MergeSummary,
    OnProgress,
    OnTokens,
    OrderSummary,
    Origin,
    OriginColumns,
    PartTotals,
    PassageRows,
    PassageSearch,
    PassagesSummary,
    RewriteSummary,
    SignaturesSummary,
    Sketching,
    TermQuery,
    Tokens,
    TrainSummary,
    WordsSummary,
)

__all__ = [
    "BenchmarkItems",
    "MinHasher",
    "SuffixIndex",
    "TokenDataset",
    "TokenSource",
    "Tokenizer",
    "TrainingOrder",
    "_panic",
    "band_probability",
    "batch_documents",
    "blended_order",
    "build_dataset",
    "build_index",
    "build_order",
    "changed_order",
    "check_mapped",
    "combine_occurrences",
    "count_token_ngrams",
    "count_word_ngrams",
    "dataset_terms",
    "documents_contamination",
    "find_duplicates",
    "find_passages",
    "is_mapped",
    "label_dataset",
    "lsh_bands",
    "mapped_bytes",
    "merge_datasets",
    "micro_batch_samples",
    "normalized_weights",
    "order_arithmetic",
    "order_mixture",
    "order_repeats",
    "order_sightings",
    "order_terms",
    "order_trace",
    "order_when",
    "plan_index",
    "read_record",
    "read_record_at",
    "record_text",
    "report_machine_failures",
    "rewrite_shards",
    "rows_order",
    "run_dedup_task",
    "shards_contamination",
    "shards_terms",
    "split_documents",
    "token_files",
    "token_ngrams",
    "train_tokenizer",
    "weights_by_documents",
    "write_blend",
    "write_signatures",
]

@final
class Tokenizer:
    """A byte-level BPE tokenizer in Hugging Face's `tokenizer.json` format. Gives the same ids.

    `Tokenizer(json)` loads the bytes of a `tokenizer.json`; `Tokenizer.from_file` loads a file. Threads
    may share a tokenizer. It pickles by the content of its file.

    Raises:
        FormatError: The bytes are not a `tokenizer.json`, or a component is not supported; the message
            names it.
    """

    @staticmethod
    def from_file(path: AnyPath) -> Tokenizer:
        """Loads a `tokenizer.json`.

        Raises:
            FormatError: The file is not a `tokenizer.json`, or a component is not supported; the message
                names it.
            OSError: The file cannot be read.
        """

    @property
    def vocab_size(self) -> int:
        """Number of distinct tokens, added tokens included."""

    @property
    def eod(self) -> tuple[str, int] | None:
        """The end-of-document token of the file and its id, or None.

        It is the first special added token of `<|endoftext|>`, `<|end_of_text|>`, `</s>`, `<eos>` and
        `<|im_end|>` that the file has.
        """

    def encode(self, text: str, *, add_special_tokens: bool = False) -> NDArray[np.uint32]:
        """The ids of a text: (n_tokens,) uint32.

        With `add_special_tokens`, the post-processor of the file adds its tokens.

        Raises:
            FormatError: A byte of the text has no token, or the post-processor cannot be applied.
            ConfigError: The text has 4 GiB or more, or a run of more than 32 MiB that cannot be split.
        """

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = False
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """The concatenated ids of texts, and their offsets: (n_tokens,) uint32 and (n_texts + 1,) uint64.

        The ids of text i are `ids[offsets[i]:offsets[i + 1]]`.

        Raises:
            FormatError: As `encode`.
            ConfigError: As `encode`.
        """

    def decode(self, ids: Ids, skip_special_tokens: bool = True, skip_unknown: bool = False) -> str:
        """The text of ids. Invalid UTF-8 becomes U+FFFD, as in `tokenizers`, which also skips unknown ids.

        Raises:
            ConfigError: An id is unknown and `skip_unknown` is off, negative, or above 2**32 - 1.
            FormatError: The text is longer than 1 GiB.
        """

    @property
    def normalizer(self) -> str | None:
        """Name of the normalizer of the file, `NFC`, or None if texts are not normalized."""

    def normalize(self, text: str) -> bytes:
        """The bytes that a dataset of this tokenizer stores for a text inside a document.

        Added tokens are replaced by what they decode to, and the rest is normalized. No prefix space is
        added.
        """

    def token_to_id(self, token: str) -> int | None:
        """The id of a token in the spelling of the vocabulary, or None."""

    def id_to_token(self, id: int) -> str | None:
        """The token of an id in the spelling of the vocabulary, or None."""

    def __new__(cls, json: bytes) -> Tokenizer: ...
    def __getnewargs__(self) -> tuple[bytes]: ...

@final
class TokenDataset:
    """A dataset in GPT-NeoX's format: `PREFIX.bin` and `PREFIX.idx`, memory-mapped.

    A document is one sequence of the index, as GPT-NeoX counts them. `PREFIX.provenance`, if it exists,
    has the origins of the documents. The tokens may be in shards `PREFIX-000NN-of-000MM.bin`.

    `dataset[i]` is the tokens of a document, (n_tokens,) uint16 or int32; a slice gives a list of
    documents. They are read-only views of the map, which stay valid after the dataset is deleted; a
    document that spans shards is a copy. `len(dataset)` is the number of documents. Opens in constant
    time. Pickles by path, so that the workers of a `torch.utils.data.DataLoader` can use it.

        >>> dataset = TokenDataset("tokens/sample")
        >>> dataset[0]  # the first document
        array([ 12, 1044,  ...,    0], dtype=uint16)
        >>> longest = max(dataset, key=len)
        >>> dataset.origin(7)["subset"]
        'Books'

    Raises:
        FormatError: The files are malformed or do not belong together; on access, the index is damaged
            there.
        OSError: A file cannot be read.
        IndexError: On access, there is no such document.
    """

    def __new__(cls, prefix: AnyPath) -> TokenDataset: ...
    def check_unchanged(self) -> None:
        """Raises FormatError if the dataset at the prefix was replaced since it was opened."""

    @property
    def prefix(self) -> str:
        """The path of the files, without suffixes."""

    @property
    def dtype(self) -> str:
        """The stored type of the tokens: `uint16` or `int32`."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all documents."""

    @property
    def has_provenance(self) -> bool:
        """Whether `PREFIX.provenance` exists. The origin of a document may still be unknown."""

    @property
    def shards(self) -> list[str]:
        """Paths of the shards that the documents came from, as they were given; empty without provenance."""

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets, in order of first appearance; empty without provenance."""

    @property
    def fingerprint(self) -> str:
        """A digest of the index and the tokens, in hexadecimal.

        Of a file above 512 KiB, it covers 128 blocks of 4 KiB. It does not depend on the division into
        shards.
        """

    def __len__(self) -> int: ...
    @property
    def tokens(self) -> Tokens:
        """The concatenated tokens of all documents: (n_tokens,) uint16 or int32, a read-only view.

        If the tokens are in several shards, it is a new copy each time.
        """

    @overload
    def __getitem__(self, document: SupportsIndex, /) -> Tokens: ...
    @overload
    def __getitem__(self, documents: slice, /) -> list[Tokens]: ...
    def __iter__(self) -> Iterator[Tokens]: ...
    def lengths(self) -> NDArray[np.int32]:
        """Number of tokens of each document: (n_documents,) int32.

        Raises:
            FormatError: The index is damaged.
        """

    def origin(self, document: int) -> Origin | None:
        """The origin of a document, or None if it is unknown.

        Raises:
            ConfigError: There is no such document.
            FormatError: The provenance file is damaged.
        """

    def origins(self) -> OriginColumns | None:
        """The origins of all documents as columns, or None without provenance.

        `shard` and `subset` are indices into `shards` and `subsets`. Unknown values are -1.

        Raises:
            FormatError: The provenance file is damaged.
        """

    def documents_of(self, shard: int, record: int) -> list[int]:
        """The documents that came from a record of `shards[shard]`, ascending; empty without provenance.

        Reads the locations of all documents of the shard.

        Raises:
            ConfigError: There is no such shard.
            FormatError: The provenance file is damaged.
        """

    def first_token(self, document: int) -> int:
        """Index of a document's first token in `tokens`.

        Raises:
            ConfigError: There is no such document.
            FormatError: The index is damaged there.
        """

    def subset_numbers(self, documents: NDArray[np.int64]) -> NDArray[np.int32]:
        """Indices into `subsets` of documents, -1 if unknown: (n,) int64 to (n,) int32.

        Raises:
            ConfigError: There is no such document.
            FormatError: The provenance file is damaged.
        """

    def check(self) -> None:
        """Checks the whole index against the tokens.

        Raises:
            FormatError: The index is damaged; the message names the first wrong document.
        """

    def __getnewargs__(self) -> tuple[str]: ...

@final
class TrainingOrder:
    """The samples that a model sees, in order, from `STEM_{doc,sample,shuffle}_idx.npy` and a dataset.

    `order[i]` is the sample at an index, (sample_length,) uint16 or int32, or int64 if the datasets of a
    blend differ in type. `len(order)` is the number of samples. `pile_tools.open_order(FOLDER)` reads the
    arguments from the folder's `order.json`. Opens in constant time. Pickles by path, with the
    fingerprint of the dataset.

    Args:
        stem: The path of the three arrays, without `_doc_idx.npy` and so on.
        seq_length: Number of tokens the model sees at once.
        prefix: The dataset. If only its `.idx` exists, `spans` works but samples cannot be read.
        extra: Tokens of a sample beyond `seq_length`: 1 for the last label, or 0 (an option of
            Megatron-LM).
        is_padded: Whether the documents of a sample may be shorter or longer, and are padded or cut.
        padding: The token that fills short samples.
        as_gpt_neox: Whether a sample that GPT-NeoX cannot read is replaced by the one that it returns
            instead.

    Raises:
        FormatError: The files are malformed or do not belong together; on access, there are no tokens.
        OSError: A file cannot be read.
        IndexError: On access, there is no such sample.
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
    ) -> TrainingOrder: ...
    @property
    def seq_length(self) -> int:
        """Number of tokens the model sees at once."""

    @property
    def sample_length(self) -> int:
        """Number of tokens of a sample, usually `seq_length + 1`."""

    @property
    def stored_dtype(self) -> str:
        """The type in which token ids are searched for, `uint16` or `int32`; `int32` for a blend of both."""

    @property
    def replaced(self) -> list[int]:
        """Indices of the samples that GPT-NeoX cannot read and replaces by another sample, ascending."""

    @property
    def dataset(self) -> TokenDataset | TokenSource | list[TokenDataset | TokenSource]:
        """The source of the documents: a `TokenDataset` or a `TokenSource`; for a blend, a list of them."""

    def __len__(self) -> int: ...
    def __getitem__(self, sample: int, /) -> Tokens: ...
    def take(self, indices: NDArray[np.int64]) -> Tokens:
        """The samples at any indices: (n,) int64 to (n, sample_length) in the type of `read`.

        Raises:
            IndexError: There is no such sample.
            FormatError: The dataset or an array is damaged, or there are no tokens.
            MemoryError: The samples do not fit into memory.
        """

    def read(self, first: int, n: int) -> Tokens:
        """`n` consecutive samples from index `first`: (n, sample_length) uint16 or int32.

        The type is int64 if the datasets of a blend differ in type, as in GPT-NeoX and Megatron-LM.

        Raises:
            ConfigError: The order has fewer samples.
            FormatError: The dataset or an array is damaged, or there are no tokens.
            MemoryError: The samples do not fit into memory.
        """

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """The spans of documents in `n` consecutive samples from index `first`: (n_spans, 4) int64.

        The columns are row, document (-1: unknown), first token in the document, and number of tokens.

        Raises:
            ConfigError: The order has fewer samples.
            FormatError: The dataset or an array is damaged.
        """

    def __setstate__(self, of_dataset: str) -> None:
        """Compares the fingerprint of the reopened dataset with that of the pickled order.

        Raises:
            FormatError: The dataset was replaced meanwhile.
        """

    def __reduce__(self) -> tuple[object, ...]: ...

@final
class TokenSource:
    """Tokens in documents or rows, without the origins of documents, which `TokenDataset` has.

    `TokenSource(prefix)` opens `PREFIX.idx`, and `PREFIX.bin` or its shards if they exist. Without
    tokens, the documents can still be counted and ordered. Rows come from `rows_order`. `source[i]` is
    the tokens of a document or row, (n_tokens,) uint16 or int32; `len(source)` is their number.

    Raises:
        FormatError: A shard is missing or damaged, or the files do not belong together; on access, there
            are no tokens.
        OSError: A file cannot be read.
        IndexError: On access, there is no such document or row.
    """

    def __new__(cls, prefix: AnyPath) -> TokenSource: ...
    def check_unchanged(self) -> None:
        """Raises FormatError if the dataset at the prefix was replaced since; rows are not checked."""

    @property
    def prefix(self) -> str:
        """The path of the files, without suffixes; for rows, the path of their first file."""

    @property
    def dtype(self) -> str:
        """The stored type of the tokens: `uint16` or `int32`."""

    @property
    def knows_documents(self) -> bool:
        """Whether the items are documents. Otherwise they are rows."""

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens exist, not only the index."""

    @property
    def has_provenance(self) -> bool:
        """False: the origins are unknown."""

    @property
    def subsets(self) -> list[str]:
        """An empty list: the subsets are unknown."""

    @property
    def fingerprint(self) -> str:
        """A digest of the files that exist, in hexadecimal, as `TokenDataset.fingerprint`."""

    def __len__(self) -> int: ...
    def __getitem__(self, document: int, /) -> Tokens: ...
    def origin(self, document: int) -> Origin | None:
        """None: the origin of every document is unknown."""

    def subset_numbers(self, documents: NDArray[np.int64]) -> NDArray[np.int32]:
        """-1 for each document, as its subset is unknown: (n,) int64 to (n,) int32."""

def token_files(path: AnyPath) -> list[tuple[str, int]]:
    """The files of a token file, one or its shards, and their sizes in bytes.

    Checks them against each other and against their `.idx`, if there is one.

    Raises:
        FormatError: There is no such file, a shard is missing, surplus or of a wrong size, or the index is
            damaged.
        OSError: A file cannot be read.
    """

def rows_order(path: AnyPath, row_length: int | None = None, dtype: str | None = None) -> TrainingOrder:
    """The order of rows that are stored in training order: a folder of shards, one shard, or a whole file.

    Args:
        path: The folder or file.
        row_length: Number of tokens of a row. None is the 2,049 of Pythia's data; an `.idx` with a sequence
            of another length is then an error, as its tokens are documents.
        dtype: `uint16` or `int32`. None is the type in the `.idx` of the tokens, or uint16 without one.

    Raises:
        FormatError: A shard is missing or damaged, or the bytes are not a whole number of rows.
        ConfigError: `dtype` is another type.
        OSError: A file cannot be read.
    """

def blended_order(stem: AnyPath, parts: Sequence[TrainingOrder]) -> TrainingOrder:
    """The blend of orders by `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.

    Each of the orders has one dataset. Short samples are padded with token 0.

    Raises:
        FormatError: A file is malformed.
        ConfigError: There are no orders, they differ in sequence length, or one is a blend or an order of
            rows.
        OSError: A file cannot be read.
    """

def changed_order(
    base: TrainingOrder, changes: NDArray[np.int64], tokens: NDArray[np.int64]
) -> TrainingOrder:
    """An order with changed tokens, as an intervention on it reads.

    Its documents are those of `base`, and then the inserted texts in the order of `changes`.

    Args:
        base: The order without the changes, which is not of this kind itself.
        changes: Changed tokens, by sample and offset: (n, 4) int64 with the columns sample, offset of the
            first token in the sample, n_tokens, and 1 for an inserted text or 0 for replaced tokens.
        tokens: The tokens of all changes, one after the other: (n_tokens,) int64.

    Raises:
        ConfigError: The changes are not sorted, overlap, are not within a sample, or have tokens that the
            dataset cannot store.
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
) -> BuildSummary:
    """Tokenizes shards into `FOLDER/NAME.bin`, `.idx` and `.provenance`, or resumes the same job.

    Args:
        shards: The shards, in the order of the dataset.
        tokenizer: The tokenizer.
        eod: The token that is appended to each document, or None.
        folder: The folder for the files, unfinished and finished.
        name: The name of the files.
        job: A digest of everything that the tokens depend on, except the shards and `skip_bad_records`. Only
            unfinished files of the same job are resumed.
        n_threads: Number of threads that encode.
        is_part: Whether the shards are part of a larger job, so that they may hold no documents.
        discard: Whether unfinished files of another job are discarded. Otherwise they are an error.
        on_progress: Called with the compressed bytes read and the tokens made so far.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        add_special_tokens: Whether the post-processor of the tokenizer adds its tokens to each text.
        max_record: Number of bytes above which a record is bad.

    Returns:
        A `BuildSummary` of `pile_tools.types`.

    Raises:
        FormatError: A shard is damaged, or all shards together hold no documents.
        OutputExistsError: The folder has unfinished files of another job, and `discard` is False.
        OSError: A file cannot be read or written.
    """

def merge_datasets(
    inputs: Sequence[AnyPath],
    folder: AnyPath,
    name: str,
    job: str,
    discard: bool,
    on_progress: OnProgress,
    bin_sha256: Sequence[str],
) -> MergeSummary:
    """Merges datasets into `FOLDER/NAME.bin`, `.idx` and `.provenance`, or resumes the same job.

    Args:
        inputs: The prefixes of the datasets, in order.
        folder: The folder for the files, unfinished and finished.
        name: The name of the files.
        job: A digest of everything that the result depends on. Only unfinished files of the same job are
            resumed.
        discard: Whether unfinished files of another job are discarded. Otherwise they are an error.
        on_progress: Called with the bytes of tokens copied so far.
        bin_sha256: The SHA-256 that the `.bin` of each input must have, in hexadecimal; empty for no check.

    Returns:
        A `MergeSummary` of `pile_tools.types`.

    Raises:
        ConfigError: There are no inputs.
        FormatError: An input is damaged, has another SHA-256, or differs from the first in its token type.
        OutputExistsError: The folder has unfinished files of another job, and `discard` is False.
        OSError: A file cannot be read or written.
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
) -> LabelSummary:
    """Finds the record of each document of a dataset by its tokens, and writes `FOLDER/NAME.provenance`.

    Args:
        prefix: The dataset.
        shards: The shards, in the order in which the dataset was made.
        tokenizer: The tokenizer of the dataset.
        eod: The token that may end each document, or None. The majority of the documents decides whether it
            does.
        folder: The folder for the file.
        name: The name of the file.
        n_threads: Number of threads that encode.
        on_progress: Called with the bytes read so far: of the `.bin`, then of the shards on disk.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        add_special_tokens: Whether the post-processor of the tokenizer adds its tokens to each text.
        max_record: Number of bytes above which a record is bad.

    Returns:
        A `LabelSummary` of `pile_tools.types`.

    Raises:
        FormatError: The dataset or a shard is damaged, or the dataset is of another tokenizer.
        OSError: A file cannot be read or written.
    """

def read_record(
    shard: AnyPath, record: int, *, text_field: str = "text", max_record: int = ...
) -> tuple[bytes, str]:
    """The bytes of a record, without its line end, and its text. The shard is read up to the record.

    Args:
        shard: The shard.
        record: The number of the record in the shard, bad records included. A row of a table has the bytes of
            its text.
        text_field: The field of the record that has its text.
        max_record: Number of bytes above which a record is bad.

    Raises:
        FormatError: The shard is damaged, has fewer records or is no regular file, or the record is bad.
        OSError: The shard cannot be read.
    """

def read_record_at(shard: AnyPath, byte_start: int, byte_length: int, *, max_record: int = ...) -> bytes:
    """The bytes of the record at a position of a shard. A compressed shard is decompressed up to the record.

    Args:
        shard: The shard: lines or text, not a table.
        byte_start: The first byte of the record in the decompressed shard.
        byte_length: Bytes of the record, without the line end.
        max_record: Maximum bytes of a record.

    Raises:
        FormatError: The shard is damaged, ends before the record, is a table or is no regular file, or the
            record is longer than `max_record`.
        OSError: The shard cannot be read.
    """

def record_text(shard: AnyPath, record: bytes, text_field: str = "text") -> str | None:
    """The text of a record of a shard, given the bytes of the record, or None if it has no text.

    Only the name of the shard is used. Lone surrogates become U+FFFD.
    """

def rewrite_shards(
    shards: Sequence[AnyPath],
    names: Sequence[str],
    folder: AnyPath,
    job: str,
    n_threads: int,
    discard: bool,
    on_progress: OnProgress = None,
    *,
    removed: tuple[NDArray[np.uint32], NDArray[np.uint64]] | None = None,
    cuts: tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]] | None = None,
    marks: tuple[NDArray[np.uint32], NDArray[np.uint64], str, Sequence[tuple[str, NDArray[np.uint64]]]]
    | None = None,
    sha256: Sequence[str] = ...,
    text_field: str = "text",
    max_record: int = ...,
    zstd_level: int = 3,
    gzip_level: int = 6,
) -> RewriteSummary:
    """Writes shards again, without some records or with other texts or marks, or resumes the same job.

    All other bytes of the decompressed shards stay as they are. A shard without changes is copied. The bytes
    are the same for any number of threads. A `.txt` shard whose document is removed is not written. The
    columns of `removed`, `cuts` and `marks` ascend by shard, record and start. No record may be in two of
    them.

    A cut text becomes a JSON string with no more escapes than JSON requires; a list of strings becomes one
    string. A mark is a JSON object in the `meta` of a record, which is added if it is missing or null. A
    record that is a string becomes an object with the string as its text. Text files and Parquet files
    cannot have marks.

    The rows of a Parquet file are encoded again, with the schema, the compression and the row groups of the
    file, less those that have lost all rows.

    Args:
        shards: The shards; none may be a stream.
        names: The name of each new shard, with the ending of the shard.
        folder: The folder for the files, unfinished and finished.
        job: A digest of everything that the files depend on. Only finished shards of the same job are
            resumed.
        n_threads: Number of threads. Each writes a shard.
        discard: Whether finished shards of another job are discarded. Otherwise they are an error.
        on_progress: Called with the compressed bytes read so far.
        removed: Shard and record of each record that is left out: (n,) uint32 and (n,) uint64.
        cuts: Shard, record, start and end of each range of bytes that is cut from a text: (n,) uint32 and
            three (n,) uint64. A record may have several, which must not overlap or split a character.
        marks: Shard and record of each mark, its key in `meta`, and the keys of the mark with their values:
            (n,) uint32, (n,) uint64, a name, and names with (n,) uint64.
        sha256: The SHA-256 that each shard must have, in hexadecimal; empty for no check.
        text_field: The field of a record that has its text.
        max_record: Number of bytes above which a record cannot be changed.
        zstd_level: The compression level of zstd, 1 to 22.
        gzip_level: The compression level of gzip, 0 to 9.

    Returns:
        A `RewriteSummary` of `pile_tools.types`.

    Raises:
        ConfigError: A level, a name or a column is invalid, or a record has two changes.
        FormatError: A shard is damaged or has changed, or a record cannot be changed as asked.
        OutputExistsError: The folder has finished shards of another job, and `discard` is False.
        OSError: A file cannot be read or written.
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
) -> tuple[str, TrainSummary]:
    """Trains a byte-level BPE tokenizer on the documents of shards. The same for any number of threads.

    Args:
        shards: The shards.
        vocab_size: Number of tokens: the special ones, 256 bytes and the merges. Fewer if no pair is left to
            merge.
        min_frequency: Number of occurrences below which a pair is not merged. 0 means 1.
        special_tokens: Tokens that get the first ids. Their text in the documents is treated like any other.
        n_threads: Number of threads.
        on_progress: Called with the compressed bytes read and the merges made so far, added up.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        The content of the `tokenizer.json`, and a `TrainSummary` of `pile_tools.types`.

    Raises:
        ConfigError: The vocabulary is too small or too large, or a special token is invalid.
        FormatError: A shard is damaged, or all documents are empty.
        OSError: A shard cannot be read.
    """

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
) -> OrderSummary:
    """Builds an order and writes it as `STEM_{doc,sample,shuffle}_idx.npy`.

    Args:
        prefix: The dataset. Only its `.idx` is read.
        stem: The path of the three arrays, without `_doc_idx.npy` and so on.
        seq_length: Number of tokens the model sees at once.
        seed: The seed of all shuffles.
        samples: Number of samples. Exactly one of `samples` and `epochs` is given.
        epochs: Number of passes over the documents.
        rule: GPT-NeoX's `packed`, `pack_until_overflow` or `unpacked`, or `megatron` for Megatron-LM's order.
        extra: Tokens of a sample beyond `seq_length`: 1 for the last label, or 0. For `megatron` only.
        drop_last_partial: Whether a partial last sample is dropped. For `megatron` only.
        documents: The first document to use and the end; None for all.
        allow_chopped: Whether documents longer than a sample are cut. Otherwise they are excluded. `packed`
            and `megatron` always cut.
        labels: A parallel dataset of labels. `pack_until_overflow` and `unpacked` exclude documents whose
            labels are all masked; the other rules ignore it.
        on_progress: Called with the samples built so far.

    Returns:
        An `OrderSummary` of `pile_tools.types`.

    Raises:
        ConfigError: The arguments do not fit each other or the dataset.
        FormatError: A dataset is damaged.
        OSError: A file cannot be read or written.
    """

def split_documents(split: str, n_documents: int) -> list[tuple[int, int]]:
    """The first document and the end of train, valid and test, by GPT-NeoX's rule.

    `split` is up to three shares such as `969,30,1`.

    Raises:
        ConfigError: `split` is not such shares, one is negative or not finite, or their sum is 0.
    """

def normalized_weights(weights: Sequence[float], n_samples: int) -> tuple[list[float], list[int]]:
    """The weights scaled to sum to one, and the number of samples to build of each dataset.

    The number is 1.005 times the share of `n_samples`, rounded up, as in GPT-NeoX.

    Raises:
        ConfigError: There are no weights, one is negative or not finite, or their sum is 0.
    """

def weights_by_documents(n_documents: Sequence[int], alpha: float) -> list[float]:
    """The weights of datasets by GPT-NeoX's `weight_by_num_documents`.

    A smaller `alpha` gives small datasets more than their share.
    """

def write_blend(
    stem: AnyPath, weights: Sequence[float], available: Sequence[int], as_gpt_neox: bool
) -> tuple[int, list[int]]:
    """Writes the blend of datasets as `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.

    If a dataset runs out of samples, the blend ends there; with `as_gpt_neox`, it starts again with the first
    sample of the dataset.

    Args:
        stem: The path of the two arrays, without `_dataset_index.npy` and so on.
        weights: The weight of each dataset.
        available: Number of samples of each dataset.
        as_gpt_neox: Whether the blend is GPT-NeoX's.

    Returns:
        The number of samples of the blend, and how many are from each dataset.

    Raises:
        ConfigError: The weights are invalid, or their number is not that of the datasets.
        OSError: A file cannot be written.
    """

def micro_batch_samples(
    n_samples: int, batch_size: int, step: int, rank: tuple[int, int], micro_batch: tuple[int, int]
) -> tuple[int, int]:
    """The first sample that a data-parallel rank reads in a micro-batch of a step, and their number.

    `rank` and `micro_batch` are each an index from 0 and the number of them.

    Raises:
        ConfigError: There is no such step, rank or micro-batch, or the batch does not divide into equal
            micro-batches.
    """

def batch_documents(
    spans: NDArray[np.int64], n_rows: int, row_length: int, n_inputs: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """The documents, position ids and cumulative lengths of a batch: see `pile_tools.order.Batch`.

    Args:
        spans: The spans of the batch: `TrainingOrder.spans`.
        n_rows: Number of rows.
        row_length: Number of tokens of a row.
        n_inputs: Number of the first tokens of each row that are inputs of the model.

    Returns:
        The document of each token, (n_rows, row_length) int64; its index in its run, (n_rows, row_length)
        int32; and the start of each run in the concatenated inputs, then their number, (n_runs + 1,) int32.

    Raises:
        ConfigError: The spans do not fit the rows.
    """

@final
class SuffixIndex:
    """The suffix array of a dataset, memory-mapped. `pile_tools.search.Index` wraps it.

    `SuffixIndex(folder, dataset)` opens the index in a folder. Pickles by path.

    Raises:
        FormatError: The index is incomplete, damaged, or of another dataset.
        OSError: A file cannot be read.
    """

    def __new__(cls, folder: AnyPath, dataset: TokenDataset) -> SuffixIndex: ...
    @property
    def dataset(self) -> TokenDataset:
        """The dataset of the index."""
    @property
    def n_segments(self) -> int:
        """Number of segments of the index."""
    @property
    def n_ids(self) -> int:
        """Number of distinct ids in the dataset."""
    @property
    def has_bytes(self) -> bool:
        """Whether the index can search for texts, as it was built with a tokenizer."""
    def is_of(self, tokenizer: Tokenizer) -> bool:
        """Whether every id decodes to the same bytes with a tokenizer. False if `has_bytes` is."""
    def decode(self, ids: Ids) -> bytes:
        """The concatenated bytes of ids.

        Ids that do not occur have no bytes, nor has any id if `has_bytes` is False.

        Raises:
            ConfigError: The bytes are longer than 1 GiB.
        """
    def count(self, ids: Ids) -> int:
        """Number of occurrences of an n-gram, given by its ids.

        Raises:
            ConfigError: The n-gram is empty.
        """
    def count_batch(
        self, ids: NDArray[np.int64], starts: NDArray[np.int64], n_threads: int
    ) -> NDArray[np.int64]:
        """Number of occurrences of each n-gram: (n,) int64. The same for any number of threads.

        Args:
            ids: The concatenated n-grams.
            starts: Index of each n-gram's first id, then the end of the last one: (n + 1,) int64.
            n_threads: Number of threads.

        Raises:
            ConfigError: An n-gram is empty, or `starts` does not ascend within `ids`.
        """
    def locate(self, ids: Ids, max_occurrences: int) -> NDArray[np.int64]:
        """Every occurrence of an n-gram, in order: (n, 2) int64.

        The columns are document and token offset.

        Raises:
            ConfigError: The n-gram is empty, or occurs more than `max_occurrences` times.
        """
    def count_text(self, text: bytes) -> int:
        """Number of occurrences of a text. Overlapping occurrences count.

        Raises:
            ConfigError: The text is empty, or `has_bytes` is False.
        """
    def locate_text(self, text: bytes, max_occurrences: int) -> NDArray[np.int64]:
        """Every occurrence of a text, in order: (n, 4) int64.

        The columns are document, token offset, first byte in that token, and number of tokens.

        Raises:
            ConfigError: As `count_text`; or the text occurs more than `max_occurrences` times.
        """
    def sample_text(self, text: bytes, limit: int) -> tuple[int, NDArray[np.int64]]:
        """Number of occurrences of a text, and up to `limit` of them as rows of `locate_text`.

        Which ones is arbitrary but deterministic.

        Raises:
            ConfigError: As `count_text`.
        """
    def next_tokens(
        self, context: Ids, longest: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int, int]:
        """The tokens that follow a context, or with `longest` its longest suffix that any token follows.

        For an empty context: all ids and their counts.

        Returns:
            The ids, by descending count and then by id, and their counts: (n,) int64 each. The number of
            occurrences that end with their document. 0, as no occurrence of tokens ends within a token. The
            number of tokens of the context that was used.
        """
    def next_after_text(
        self, text: str, longest: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int, int]:
        """The tokens that follow a text, or with `longest` its longest suffix that any token follows.

        Returns:
            The ids, by descending count and then by id, and their counts: (n,) int64 each. The number of
            occurrences that end with their document, and of those that end within a token. The number of
            bytes of the text that was used.

        Raises:
            ConfigError: As `count_text`.
        """
    def probability(self, context: Ids, next: int) -> tuple[int, int, int]:
        """The counts of `next` after the longest suffix of a context that any token follows.

        Returns:
            The number of occurrences of the suffix that `next` follows, the number of those that any token of
            the same document follows, and the length of the suffix in tokens.
        """
    def spans(self, text: str, min_bytes: int, n_threads: int) -> NDArray[np.int64]:
        """The maximal spans of a text, of at least `min_bytes` bytes, that occur in a document: (n, 2) int64.

        The columns are the first byte and the end of each span. Spans are in order, cut to whole characters,
        and none is within another.

        Raises:
            ConfigError: `min_bytes` is 0, or `has_bytes` is False.
        """
    def __getnewargs__(self) -> tuple[str, TokenDataset]: ...

def plan_index(dataset: TokenDataset, memory_bytes: int) -> IndexPlan:
    """The segments, memory and disk of the index that `build_index` would build.

    Returns:
        An `IndexPlan` of `pile_tools.types`.

    Raises:
        FormatError: The dataset is damaged, or a document has more tokens than a segment can hold.
    """

def build_index(
    dataset: TokenDataset,
    tokenizer: Tokenizer | None,
    folder: AnyPath,
    memory_bytes: int,
    on_progress: OnProgress = None,
    *,
    discard: bool = False,
) -> IndexSummary:
    """Builds the index of a dataset in a folder: see `pile_tools.jobs.index`.

    Args:
        dataset: The dataset.
        tokenizer: The tokenizer of the dataset. With None, the index cannot search for texts.
        folder: The folder. Finished segments of the same index in it are reused.
        memory_bytes: Bytes of memory to sort a segment. A longer document takes more.
        on_progress: Called with the tokens processed so far. Each is processed twice.
        discard: Whether finished work of other jobs in the folder is removed.

    Returns:
        An `IndexSummary` of `pile_tools.types`.

    Raises:
        FormatError: The dataset is damaged, or a document has more tokens than a segment can hold.
        OutputExistsError: The folder has finished work of another job, and `discard` is off.
        OSError: A file cannot be read or written.
    """

def combine_occurrences(clauses: Sequence[NDArray[np.int64]], window: int | None = None) -> NDArray[np.int64]:
    """The documents with an occurrence of every clause, in order, and the shortest run that has one of each.

    Args:
        clauses: The occurrences of each clause, in any order: (n, 3) int64 with the columns document, token
            offset and number of tokens.
        window: Number of tokens above which a run is left out, or None.

    Returns:
        A row for each document: (n_documents, 3) int64 with the columns document, token offset and number of
        tokens of the run. Of several shortest runs it is the first.

    Raises:
        ConfigError: There are no clauses, or one has another number of columns.
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
    """Every time the model saw texts: see `pile_tools.timeline.when`.

    Args:
        order: The order.
        tokenizer: Decodes the documents. With None, texts are ids in the stored type.
        index: An index of the dataset to search in. With None, the documents are scanned.
        texts: The texts.
        n_samples: Number of samples of the run. Used with `across_documents` only.
        across_documents: Whether occurrences that span documents of a row are found too.
        max_occurrences: Number of occurrences above which the search fails.
        n_threads: Number of threads.
        on_progress: Called with the tokens or texts searched and the entries of the order read so far.

    Returns:
        A row for each part of an occurrence in a sample: (n, 12) int64 with the columns text, document, byte
        offset, token offset, n_tokens, copy, part, n_parts, sample, offset, length, n_documents. For each
        text, the number of its occurrences in the documents, and of those that no sample shows: (n_texts,)
        int64 each. The numbers of documents, tokens, and tokens without bytes that were searched: (3,) int64.

    Raises:
        ConfigError: A text is empty, or the texts occur more than `max_occurrences` times.
        FormatError: The dataset or the order is damaged, or there are no tokens.
    """

def order_trace(order: TrainingOrder, document: int) -> NDArray[np.int64]:
    """Every part of a document that a sample shows, in training order: (n, 5) int64.

    The columns are copy of the document, sample, offset in the sample, first token in the document, and
    number of tokens.

    Raises:
        ConfigError: There is no such document.
        FormatError: The order is damaged.
    """

def order_repeats(
    order: TrainingOrder,
    n_samples: int,
    interval_samples: int,
    n_threads: int,
    on_progress: OnProgress = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int | None, int | None]:
    """What the first `n_samples` samples repeat: see `pile_tools.timeline.repeats`.

    `on_progress` gets the documents and the entries of the order read so far.

    Returns:
        For each interval of `interval_samples` samples, the tokens that were read before in another copy of
        their document, and those read before in a duplicate only: (n_intervals, 2) int64. The repeated
        documents: (n, 6) int64 with the columns same_as, document, n_tokens, n_copies, first_sample,
        last_sample. The first sample with a token of either kind, or None.

    Raises:
        ConfigError: The order has fewer samples.
        FormatError: The dataset or the order is damaged, or there are no tokens.
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
    """Tokens of each subset that the model reads in each interval: (n_intervals, n_subsets + 1) int64.

    The last column is that of unknown subsets.

    Args:
        order: The order.
        subset_numbers: The index of each document's subset, -1 if unknown: (n_documents,) int32.
        n_subsets: Number of subsets.
        n_samples: Number of samples of the run.
        interval_samples: Number of samples of an interval.
        n_threads: Number of threads.
        on_progress: Called with the samples read so far.

    Raises:
        ConfigError: The order has fewer samples.
        FormatError: The order is damaged.
    """

def _panic() -> None:
    """Panics, to test the message that users get."""

def count_token_ngrams(
    dataset: TokenDataset,
    counting: Counting,
    output: AnyPath,
    across_documents: bool,
    tokenizer: Tokenizer | None,
    groups: NDArray[np.uint32],
    group_names: Sequence[str | None],
    on_progress: OnProgress = None,
) -> list[LengthSummary]:
    """Counts the n-grams of a dataset and writes the retained ones to a table: see `pile_tools.count_ngrams`.

    Args:
        dataset: The dataset.
        counting: The settings.
        output: The table: Parquet if its name ends in `.parquet`, otherwise tab-separated text.
        across_documents: Whether an n-gram may span documents.
        tokenizer: Decodes n-grams for the column `text`. With None, the table has no such column.
        groups: The group number of each document: (n_documents,) uint32, or (0,) for one group.
        group_names: The names of the groups.
        on_progress: Called with the n-grams counted so far.

    Returns:
        A `LengthSummary` of `pile_tools.types` for each length.

    Raises:
        ConfigError: A length cannot be counted, or the groups do not fit the documents.
        FormatError: The dataset is damaged or has ids that are not tokens, or the disk has too little space.
        OutputExistsError: The scratch folder has work of another job.
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
) -> WordsSummary:
    """Counts the n-grams of the words of shards and writes the retained ones to a table.

    Words are those of `str.split()`. `pile_tools.count_ngrams` is the whole job.

    Args:
        shards: The shards.
        counting: The settings.
        output: The table: Parquet if its name ends in `.parquet`, otherwise tab-separated text.
        ignore_case: Whether words that differ in case only are equal.
        by_subset: Whether n-grams are also counted by subset.
        on_progress: Called with the compressed bytes read so far.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        A `WordsSummary` of `pile_tools.types`.

    Raises:
        ConfigError: A length cannot be counted.
        FormatError: A shard is damaged, or the disk has too little space.
        OutputExistsError: The scratch folder has work of another job.
        OSError: A file cannot be read or written.
    """

def find_passages(
    shards: Sequence[AnyPath],
    search: PassageSearch,
    on_progress: OnProgress = None,
    *,
    tokenizer: Tokenizer | None = None,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> tuple[PassageRows, PassagesSummary]:
    """Finds the bytes of texts in windows of a given length, in bytes or tokens, that also begin earlier.

    Earlier is in reading order. Windows do not cross documents. A job that was interrupted resumes.

    Args:
        shards: The shards, in reading order. Each is read twice.
        search: The settings.
        on_progress: Called with the compressed bytes read so far; in the end, twice those of all shards.
        tokenizer: The tokenizer whose tokens are counted; by default windows are of bytes.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        A `PassageRows`, whose arrays map files of the search's folder, and a `PassagesSummary` of
        `pile_tools.types`.

    Raises:
        ConfigError: The length is out of range, or a protected record has no document.
        FormatError: A shard is no regular file, is damaged, changed between the passes, or has a text that
            cannot be tokenized; or the shards have too many subsets.
        OutputExistsError: The folder has work of another job.
        OSError: A file cannot be read or written.
    """

def token_ngrams(
    dataset: TokenDataset, counting: Counting, across_documents: bool, on_progress: OnProgress = None
) -> tuple[NDArray[np.uint16] | NDArray[np.int32], NDArray[np.int64]]:
    """The retained n-grams of a dataset, (n_retained, n) in its type, and their counts, (n_retained,) int64.

    `counting` has one length, n. `on_progress` gets the n-grams counted so far.

    Raises:
        ConfigError, FormatError, OutputExistsError, OSError: As `count_token_ngrams`.
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
    """Counts terms in the documents of shards.

    Args:
        shards: The shards.
        query: The terms and how they are counted.
        by_subset: Whether each subset is a group. Otherwise there is one group.
        on_progress: Called with the compressed bytes read so far.
        tokenizer: Normalizes the texts as a dataset of it holds them. With None, they are counted as written.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        Three tables with a row for each group: occurrences and documents, (n_groups, n_terms) int64 each, and
        pairs, (n_groups, n_pairs) int64. The names of the groups, None for documents without a subset. The
        number of documents. The number of bad records. The SHA-256 of each shard.

    Raises:
        ConfigError: There are no terms, or one is empty.
        FormatError: A shard is damaged.
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
    """Counts terms in the decoded documents of a dataset.

    Args:
        dataset: The dataset.
        tokenizer: Decodes the documents.
        query: The terms and how they are counted.
        groups: The group number of each document: (n_documents,) uint32, or (0,) for one group.
        n_groups: Number of groups.
        eod: A token that is not part of the text if it ends a document, or None.
        on_progress: Called with the tokens read so far.

    Returns:
        Three tables with a row for each group: occurrences and documents, (n_groups, n_terms) int64 each, and
        pairs, (n_groups, n_pairs) int64.

    Raises:
        ConfigError: There are no terms, one is empty, or the groups do not fit the documents.
        FormatError: The dataset is damaged.
    """

def order_terms(
    order: TrainingOrder,
    tokenizer: Tokenizer,
    query: TermQuery,
    ends: Sequence[int],
    on_progress: OnProgress = None,
) -> list[NDArray[np.int64]]:
    """Counts terms in the first samples of an order, up to each of `ends`.

    Args:
        order: The order.
        tokenizer: Decodes the samples.
        query: The terms and how they are counted.
        ends: Numbers of samples, ascending.
        on_progress: Called with the samples read so far.

    Returns:
        Three tables with a row for each end: occurrences and samples, (n_ends, n_terms) int64 each, and
        pairs, (n_ends, n_pairs) int64.

    Raises:
        ConfigError: There are no terms, one is empty, or the order has fewer samples than an end.
        FormatError: The dataset or the order is damaged, or there are no tokens.
    """

def order_arithmetic(
    order: TrainingOrder,
    tokenizer: Tokenizer,
    ends: Sequence[int],
    n_threads: int,
    on_progress: OnProgress = None,
) -> list[list[tuple[str, int]]]:
    """Counts by Pythia's arithmetic rule in the first samples of an order, up to each of `ends`.

    Args:
        order: The order.
        tokenizer: Decodes the samples.
        ends: Numbers of samples, ascending.
        n_threads: Number of threads.
        on_progress: Called with the samples read so far.

    Returns:
        For each end, pairs of a key and its count. A key is a number, `A-B` for two numbers, or `A-UNIT` for
        a number and a unit of time.

    Raises:
        ConfigError: The order has fewer samples than an end.
        FormatError: The dataset or the order is damaged, or there are no tokens.
    """

def check_mapped() -> None:
    """Checks that no file became shorter while it was mapped, since the last check.

    The missing bytes of a file's last page read as zeros, and no signal reports it.

    Raises:
        FormatError: A file became shorter.
    """

def is_mapped(path: AnyPath) -> bool:
    """Whether this process has mapped the file at a path, under this name or another one: it is an input."""

def mapped_bytes(path: AnyPath) -> NDArray[np.uint8]:
    """The bytes of a file, memory-mapped: a read-only array, (n_bytes,) uint8.

    While the array lives, `check_mapped` watches the file.

    Raises:
        FormatError: The path is of another kind than a regular file.
        OSError: The file cannot be read.
    """

def report_machine_failures() -> None:
    """Makes the process end with exit code 1 and a message if a mapped file shrinks or memory runs out.

    For commands only. In a library, reading a mapped file that another program shortened ends the process by
    SIGBUS.
    """

def find_duplicates(
    shards: Sequence[AnyPath],
    deduplication: Deduplication,
    on_progress: OnProgress = None,
    *,
    run_tasks: Callable[[list[tuple[str, str]]], object] | None = None,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> tuple[DuplicateRows, DedupSummary]:
    """Finds the duplicate documents of shards, and decides which to remove.

    Args:
        shards: The shards, in reading order. Each is read twice.
        deduplication: The settings.
        on_progress: Called with the compressed bytes read so far; in the end, twice those of all shards.
        run_tasks: Called several times with tasks of the job, for near duplicates: names of their folders
            in that of the job, and what `run_dedup_task` takes. It returns when all are finished. Without
            it, this process does all work.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        A `DuplicateRows` and a `DedupSummary` of `pile_tools.types`.

    Raises:
        ConfigError: A setting is invalid, or a protected record has no document.
        FormatError: A shard is damaged, changes while it is read, or cannot be read twice.
        OutputExistsError: The scratch folder has work of another job.
        OSError: A file cannot be read or written.
    """

def run_dedup_task(
    shards: Sequence[AnyPath],
    deduplication: Deduplication,
    task: str,
    on_progress: OnProgress = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> None:
    """Runs a task of `find_duplicates`, or finds it finished. No other process may run it at the same time.

    Args:
        shards: The shards, as `find_duplicates` has them.
        deduplication: Its settings, but for `memory` and `threads`, which are those of this task.
        task: What it has passed to `run_tasks`.
        on_progress: Called with the compressed bytes read so far.
        text_field: As there.
        skip_bad_records: As there.
        max_record: As there.

    Raises:
        ConfigError: A setting is invalid, or this is no task of the job.
        FormatError: A shard is damaged or changes while it is read, or the job has not come to this task.
        OSError: A file cannot be read or written.
    """

def write_signatures(
    shards: Sequence[AnyPath],
    sketching: Sketching,
    on_progress: OnProgress = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> SignaturesSummary:
    """Writes the signatures of shards, which `find_duplicates` uses instead of a pass, or resumes the job.

    Two files for each shard: `rows-N`, 40 bytes for each document, and `signatures-N`, 4 bytes for each
    permutation of each document. They are the same for any number of threads.

    Args:
        shards: The shards, in reading order.
        sketching: The settings.
        on_progress: Called with the compressed bytes read so far.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        A `SignaturesSummary` of `pile_tools.types`.

    Raises:
        ConfigError: A setting is invalid.
        FormatError: A shard is damaged.
        OutputExistsError: The folder has work of another job.
        OSError: A file cannot be read or written.
    """

@final
class MinHasher:
    """Computes the MinHash signatures of texts, those by which `find_duplicates` finds candidates.

    `MinHasher(permutations, shingle, normalize)`: 1 to 4,096 permutations, `words:N` or `chars:N`, and
    `none`, `whitespace` or `case`. Threads may share it. Signatures are the same on every machine,
    and only those of equal settings can be compared.

    Raises:
        ConfigError: An argument is invalid.
    """

    def __new__(
        cls, permutations: int = 256, shingle: str = "words:5", normalize: str = "none"
    ) -> MinHasher: ...
    def signatures(self, texts: Sequence[str]) -> NDArray[np.uint32]:
        """The signatures of texts: (n_texts, permutations) uint32.

        The share of equal numbers in two signatures estimates the Jaccard similarity of the sets of shingles.
        A text that is shorter than a shingle has a signature of 2**32 - 1 only, and is similar to no other.
        """

def lsh_bands(threshold: str, permutations: int) -> tuple[int, int]:
    """The number of bands and of rows of each into which signatures are split to find candidate pairs.

    They find a pair whose similarity is the threshold with a probability of at least 0.999 if the
    permutations allow it, with as few candidates below the threshold as possible. The threshold is a decimal
    fraction with at most four digits after the point.

    Raises:
        ConfigError: The threshold is not above 0 and up to 1, or there are not 1 to 4,096 permutations.
    """

def band_probability(similarity: float, bands: int, rows: int) -> float:
    """The probability that two texts of a similarity share a band: `1 - (1 - similarity**rows)**bands`."""

@final
class BenchmarkItems:
    """The items of a benchmark, with a table of their n-grams.

    Args:
        n_items: Number of items.
        parts: The parts, by item: the number of the item, the role (0 passage, 1 question, 2 answer,
            3 choice), and the text.
        ngram: Words of an n-gram, from 4 to 64. A part of fewer words is one n-gram if it has at least 4.

    Raises:
        ConfigError: The n-grams have too few or too many words, there is no such role, or the parts are not
            sorted by item.
    """

    def __new__(cls, n_items: int, parts: Sequence[tuple[int, int, str]], ngram: int) -> BenchmarkItems: ...
    def __len__(self) -> int: ...

def shards_contamination(
    items: BenchmarkItems,
    shards: Sequence[AnyPath],
    search: ContaminationSearch,
    on_progress: OnProgress = None,
    *,
    text_field: str = "text",
    skip_bad_records: bool = False,
    max_record: int = ...,
) -> tuple[ItemMatches, PartTotals, ContaminationSummary]:
    """Finds the items of a benchmark in the documents of shards.

    Args:
        items: The items.
        shards: The shards, in reading order.
        search: The settings.
        on_progress: Called with the compressed bytes read so far.
        text_field: The field of a record that has its text.
        skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
        max_record: Number of bytes above which a record is bad.

    Returns:
        An `ItemMatches`, a `PartTotals` and a `ContaminationSummary` of `pile_tools.types`.

    Raises:
        ConfigError: A setting is invalid.
        FormatError: A shard is damaged or changes while it is read.
        OutputExistsError: The scratch folder has work of another job.
        OSError: A file cannot be read or written.
    """

def documents_contamination(
    items: BenchmarkItems,
    documents: TokenDataset | TrainingOrder,
    tokenizer: Tokenizer,
    eod: int | None,
    search: ContaminationSearch,
    on_progress: OnProgress = None,
) -> tuple[ItemMatches, PartTotals, ContaminationSummary]:
    """Finds the items of a benchmark in the decoded documents of a dataset, or in those of an order.

    The rows of an order of rows are documents. The end-of-document token separates texts wherever it is.

    Args:
        items: The items.
        documents: The dataset or the order.
        tokenizer: Decodes the documents.
        eod: The id of the end-of-document token.
        search: The settings.
        on_progress: Called with the tokens read so far.

    Returns:
        As `shards_contamination`.

    Raises:
        ConfigError: A setting is invalid.
        FormatError: The dataset is damaged, or there are no tokens.
        OSError: A file cannot be read or written.
    """

def order_sightings(
    order: TrainingOrder, tokenizer: Tokenizer, ranges: NDArray[np.int64], on_progress: OnProgress = None
) -> NDArray[np.int64]:
    """Every sample of an order that shows some bytes of its documents, in the columns of `order_when`.

    Args:
        order: The order.
        tokenizer: Decodes the documents.
        ranges: The document, the first byte and the end of each range: (n, 3) int64. The number of a range is
            the text of its sightings.
        on_progress: Called with the entries of the order read so far.

    Raises:
        ConfigError: There is no such document, or a range has no byte.
        FormatError: The dataset or the order is damaged, or there are no tokens.
    """
