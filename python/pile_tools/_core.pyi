"""The Rust core: tokenizer, token datasets, training orders and the jobs that make them."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pile_tools.types import AnyPath, OnProgress, Origin, Tokens

__all__ = [
    "TokenDataset",
    "Tokenizer",
    "TrainingOrder",
    "_panic",
    "build_dataset",
    "build_order",
    "label_dataset",
    "merge_datasets",
    "order_file_stem",
    "train_tokenizer",
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

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text, without post-processor tokens: (n_tokens,) uint32."""

    def encode_batch(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """The ids of all texts one after the other, and where each starts and the last ends.

        Shapes: n texts -> (n_tokens,) uint32, (n + 1,) uint64; text i is `ids[offsets[i]:offsets[i + 1]]`.
        """

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]], skip_special_tokens: bool = True) -> str:
        """The text of ids as `tokenizers` decodes them: ids it does not know are left out.

        Raises:
            ConfigError: An id is negative or above 2**32 - 1.
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

    A document is one sequence of the index, as GPT-NeoX counts them. Opens in constant time; pickles by path.
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
        """A digest of both files (of large ones, of 128 pieces spread over them) in hexadecimal."""

    def __len__(self) -> int:
        """Number of documents."""

    def __getitem__(self, document: int, /) -> Tokens:
        """The tokens of a document, a copy: (n_tokens,) uint16 or int32. Raises IndexError."""

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each document: (n_documents,) int32."""

    def origin(self, document: int) -> Origin | None:
        """Where a document came from, or None where that is unknown. Raises ConfigError."""

    def documents_of(self, shard: int, record: int) -> list[int]:
        """The documents that came from a record of `shards[shard]`, in order.

        Cost: a binary search; for datasets labelled out of order, one pass over 8 bytes a document.
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

    def __new__(cls, stem: AnyPath, seq_length: int, prefix: AnyPath) -> TrainingOrder:
        """Opens `STEM_{doc,sample,shuffle}_idx.npy` over the dataset PREFIX.

        `pile_tools.open_order(FOLDER)` finds these in a folder's `order.json`.

        Raises:
            FormatError: The files are malformed or do not belong together.
            OSError: A file cannot be read.
        """

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once; samples are one longer."""

    @property
    def dataset(self) -> TokenDataset:
        """The documents that the samples are made of."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, sample: int, /) -> Tokens:
        """A sample: (seq_length + 1,) uint16 or int32. Raises IndexError."""

    def samples(self, first: int, n: int) -> Tokens:
        """`n` samples from place `first`: (n, seq_length + 1) uint16 or int32. Raises ConfigError."""

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """What `n` samples from place `first` consist of, in order.

        Shapes: (n_spans, 4) int64 with columns row (from 0), document, first token in it, tokens.
        """

    def find(
        self, sequences: Sequence[NDArray[np.integer[Any]]], n_samples: int, on_progress: OnProgress = None
    ) -> NDArray[np.int64]:
        """Every place of token sequences in the first `n_samples` samples, in training order.

        A sequence cut by the end of a sample is not found.

        Shapes: (n_places, 3) int64 with columns sequence, sample, offset within the sample.
        Raises: ConfigError for a sequence of fewer than four tokens.
        """

    def __getnewargs__(self) -> tuple[str, int, str]: ...

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
    on_progress: OnProgress = None,
) -> dict[str, Any]:
    """Tokenizes shards into `FOLDER/NAME.bin`, `.idx` and `.provenance`, or goes on with the same `job`.

    `on_progress` gets the compressed bytes read so far. Returns the counts by shard and subset. Without
    `is_part`, shards that hold no documents at all are an error.
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
) -> tuple[str, dict[str, Any]]:
    """Trains a byte-level BPE on all documents of the shards; returns `tokenizer.json` and the counts."""

def build_order(
    prefix: AnyPath,
    stem: AnyPath,
    seq_length: int,
    n_samples: int,
    seed: int,
    on_progress: OnProgress = None,
) -> dict[str, Any]:
    """Builds GPT-NeoX's packed order as `STEM_{doc,sample,shuffle}_idx.npy`; returns the counts."""

def order_file_stem(prefix_name: str, name: str, n_samples: int, seq_length: int, seed: int) -> str:
    """The name GPT-NeoX gives the files of a packed order, less `_doc_idx.npy` and so on."""

def _panic() -> None:
    """Panics in the core, for the test of how a panic is reported."""
