"""An order: the samples that a model sees, step by step, on disk or on a server.

An order only reads samples; `pile_tools.timeline` searches them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, checked, manifest
from pile_tools._core import Tokenizer, TokenSource, TrainingOrder
from pile_tools.errors import ConfigError, PileError, UnknownBatchSizeError, UnknownTokenizerError
from pile_tools.manifest import ORDER_FILE, Entry, Manifest
from pile_tools.tables import Table, named
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.tokens.concatenated import as_one, sources
from pile_tools.types import AnyPath, Documents, Tokens

#: The rule of an order that was joined from orders, see `jobs.stages`.
STAGES_RULE = "stages"

#: The rules by which orders are built.
RULES = (
    "megatron-lm",
    "gpt-neox packed",
    "gpt-neox pack_until_overflow",
    "gpt-neox unpacked",
    STAGES_RULE,
)

#: The arrays of an order of one dataset, in files `STEM_ARRAY.npy`.
ARRAYS = ("doc_idx", "sample_idx", "shuffle_idx")

#: Maximum tokens that a model sees at once: a sample has one more, and its length must fit an int32.
MAX_SEQ_LENGTH = 2**31 - 2

#: Tokens of a row and rows of a step in Pythia's published data.
PYTHIA_ROW_LENGTH, PYTHIA_BATCH_SIZE = 2049, 1024

#: Maximum tokens of a row: offsets within a row have 31 bits.
MAX_ROW_LENGTH = (1 << 31) - 1


class Samples(Protocol):
    """The samples of an order: `TrainingOrder`, `RemoteRows`, or one of these with interventions."""

    @property
    def seq_length(self) -> int:
        """Tokens that the model sees at once."""

    @property
    def sample_length(self) -> int:
        """Tokens of a sample."""

    @property
    def dataset(self) -> Documents | Sequence[Documents]:
        """The documents that the samples are made of; for a blend, those of its datasets."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> Tokens: ...

    def read(self, first: int, n: int) -> Tokens:
        """The samples [first, first + n): (n, sample_length)."""

    def take(self, indices: NDArray[np.int64], /) -> Tokens:
        """The samples at these indices: (n,) int64 -> (n, sample_length)."""

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """The runs of documents in the samples [first, first + n): (n_spans, 4) int64.

        Columns: row, document (-1: unknown), first token in the document, tokens, at least one. Padding has
        no runs.
        """


@dataclass(frozen=True)
class Batch:
    """A batch with the documents that it consists of.

    Attributes:
        tokens: (rows, sample_length) uint16 or int32, or int64 for a blend of both; all but the last column
            are inputs.
        documents: (rows, sample_length) int64, the document of each token, -1 where unknown or padding.
        position_ids: (rows, sample_length) int32, counted from 0 again where a document begins in a row.
        cu_seqlens: (n + 1,) int32, the boundaries of the documents in the concatenated inputs of all rows, as
            attention kernels that stay within documents take them.
    """

    tokens: Tokens
    documents: NDArray[np.int64]
    position_ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]


def batch_of(tokens: Tokens, spans: NDArray[np.int64], n_inputs: int) -> Batch:
    """The batch of these tokens and spans; the first `n_inputs` tokens of each row are the model's inputs."""
    n_rows, row_length = tokens.shape
    return Batch(tokens, *_core.batch_documents(spans, n_rows, row_length, n_inputs))


@dataclass(frozen=True)
class Order:
    """A training order. As a sequence it is the samples of its run, so data loaders take it as it is.

    Attributes:
        path: The order's `order.json`, or the path or address of the rows.
        samples: All samples: those of the run, followed by those built beyond it.
        batch_size: Samples of a step; None if the order was built for a number of samples.
        steps: Steps that the order was built for, or None.
        seed: Seed of the shuffles; None for rows, which are published shuffled.
        manifest: The order's manifest; None for rows and for unsaved interventions.
        labels: The samples of the parallel dataset of labels, or None.
        made_for: Samples of the run that the order was built for; None if the run is all samples.
        address: The address of rows on a server; None for all other orders.
    """

    path: Path
    samples: Samples
    batch_size: int | None
    steps: int | None
    seed: int | None
    manifest: Manifest | None
    labels: Samples | None = None
    made_for: int | None = None
    address: str | None = None

    @property
    def name(self) -> str:
        """The order's path or address as it was given, for messages."""
        # A path collapses the slashes of an address.
        return self.address or str(self.path)

    @property
    def seq_length(self) -> int:
        """Tokens that the model sees at once; samples are one longer."""
        return self.samples.seq_length

    @property
    def record(self) -> Manifest:
        """The order's manifest. Raises ConfigError for an order without one."""
        if self.manifest is None:
            what = "rows and unsaved interventions have no manifest, so a run on them cannot be recorded"
            raise ConfigError(f"{what} ({self.name})")
        return self.manifest

    def entries(self, folder: Path) -> list[Entry]:
        """The order as inputs of a manifest in `folder`.

        Its manifest, with the fingerprint of its dataset. Without one, the arrays and the dataset; for rows,
        their path and fingerprint.

        Raises ConfigError for unsaved interventions.
        """
        entry: Entry = {"role": "order", "fingerprint": self.dataset.fingerprint}
        if self.manifest is not None:
            return [entry | self.manifest.entry(folder)]
        if not isinstance(self.samples, TrainingOrder):
            raise ConfigError(f"unsaved interventions have no manifest; save them first ({self.name})")
        if stem := arrays_stem(self.path):
            arrays = [self.path.parent / f"{stem}_{array}.npy" for array in ARRAYS]
            files = [manifest.file_entry(path, folder, role="order") for path in arrays]
            return [*files, datasets.entry(self.dataset, folder)]
        return [{**entry, "path": manifest.relative(self.path, folder)}]

    def __getstate__(self) -> dict[str, object]:
        """All but what is cached, and what tells whether the files are the same when they are reopened."""
        state = {name: value for name, value in self.__dict__.items() if name != "dataset"}
        if self.address is None:
            state["of_dataset"] = self._identities()
        if self.manifest is not None:
            # The working folder may be another one then.
            state["of_order"] = self.manifest.path.absolute(), self.manifest.sha256
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Raises PileError if the order or its dataset was replaced since `__getstate__`."""
        of_dataset, of_order = state.pop("of_dataset", None), state.pop("of_order", None)
        self.__dict__.update(state)
        if of_order is not None and checked.sha256(of_order[0])[1] != of_order[1]:
            raise PileError(f"was replaced since the order was opened; open it again ({of_order[0]})")
        if of_dataset is not None and self._identities() != of_dataset:
            what = "a dataset of it was replaced since the order was opened; open it again"
            raise PileError(f"{what} ({self.dataset.prefix})")

    def _identities(self) -> list[Entry]:
        """What tells the datasets of samples and labels from others."""
        found = [self.dataset] if self.labels is None else [self.dataset, as_one(self.labels.dataset)]
        return [datasets.identity(source) for documents in found for source in sources(documents)]

    @functools.cached_property
    def dataset(self) -> Documents:
        """The documents that the samples are made of; for rows, the rows themselves.

        The texts that an intervention inserts are documents too, after those of the base order.
        """
        return as_one(self.samples.dataset)

    @property
    def knows_documents(self) -> bool:
        """Whether the documents of the samples are known; those of rows are not."""
        # Samples do not tell: a padded one may be without any.
        found = [source for source in sources(self.dataset) if isinstance(source, TokenSource)]
        return self.address is None and all(source.knows_documents for source in found)

    @property
    def dataset_manifest(self) -> Manifest | None:
        """The manifest of the order's dataset, or None if another tool wrote it; of a blend, of its first.

        Raises FormatError if the dataset was replaced since the order was opened.
        """
        dataset = self.dataset
        found = datasets.manifest_of(Path(dataset.prefix))
        datasets.check_unchanged(dataset)
        return found

    def tokenizer(self, given: AnyPath | None = None) -> Tokenizer:
        """The tokenizer of the order's dataset: `given`, or the one that the dataset's manifest names.

        Raises:
            UnknownTokenizerError: None is given, and the manifests name none that exists unchanged.
            PileError: The given tokenizer is not found.
            FormatError: The tokenizer's file is damaged.
        """
        return self.tokenizer_file(given).load()

    def tokenizer_file(self, given: AnyPath | None = None) -> TokenizerFile:
        """The file of the tokenizer; see `tokenizer`."""
        if given is None and self.address is not None:
            raise UnknownTokenizerError(f"the tokenizer of rows on a server is unknown ({self.name})")
        return datasets.tokenizer_file(self.dataset, given)

    @property
    def replaced_by_gpt_neox(self) -> list[int]:
        """The indices of the samples that GPT-NeoX's reader cannot read and replaces by others.

        `samples` has the true samples, or with `compat="gpt-neox"` those that GPT-NeoX gives.
        """
        # Interventions change tokens of samples, not which samples GPT-NeoX can read.
        base = getattr(self.samples, "base", self.samples)
        return base.replaced if isinstance(base, TrainingOrder) else []

    def __len__(self) -> int:
        """The samples of the run: `steps * batch_size` if the order was built for steps, else all `samples`.

        GPT-NeoX builds 0.5 % more samples than its run sees; `samples` includes them, the length does not.
        """
        n_samples = len(self.samples)
        return n_samples if self.made_for is None else min(self.made_for, n_samples)

    def __getitem__(self, sample: int) -> Tokens:
        """A sample of the run: (seq_length + 1,) uint16 or int32, or int64 for a blend of both."""
        n_samples = len(self)
        if not -n_samples <= sample < n_samples:
            raise IndexError(f"{sample} is out of range for {n_samples}")
        return self.samples[sample % n_samples]

    def n_steps(self, batch_size: int | None = None) -> int:
        """The number of whole steps in `samples`, those beyond the run included. Raises ConfigError."""
        return len(self.samples) // self.step_size(batch_size)

    def step_size(self, batch_size: int | None = None) -> int:
        """The samples of a step: `batch_size`, or by default the order's.

        Raises UnknownBatchSizeError; ConfigError for a size below 1.
        """
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch-size must be at least 1, got {batch_size}")
        size = batch_size or self.batch_size
        if size is None:
            raise UnknownBatchSizeError(f"the order names no batch size ({self.name})")
        return size

    def first_sample(self, step: int, batch_size: int | None = None) -> tuple[int, int]:
        """The index of the first sample of a step, and the number of its samples.

        Raises:
            ConfigError: The step is out of range, or no batch size is known.
        """
        size = self.step_size(batch_size)
        n_steps = len(self.samples) // size
        if not 0 <= step < n_steps:
            raise ConfigError(
                f"no step {step}: the order has {n_steps:,} steps of {size:,} samples, numbered from 0 "
                f"({self.name})"
            )
        return step * size, size

    @overload
    def batch(
        self, step: int, batch_size: int | None = None, *, with_documents: Literal[False] = False
    ) -> Tokens: ...
    @overload
    def batch(self, step: int, batch_size: int | None = None, *, with_documents: Literal[True]) -> Batch: ...
    def batch(
        self, step: int, batch_size: int | None = None, *, with_documents: bool = False
    ) -> Tokens | Batch:
        """The samples of a step as `Batch.tokens`: (batch_size, seq_length + 1); or a `Batch`.

        Step s, counted from 0, is samples [s * batch_size, (s + 1) * batch_size), as in GPT-NeoX for any
        number of ranks and micro-batches.

        Raises:
            ConfigError: The step is out of range, or no batch size is known.
        """
        first, n = self.first_sample(step, batch_size)
        tokens = self.samples.read(first, n)
        if not with_documents:
            return tokens
        return batch_of(tokens, self.samples.spans(first, n), self.seq_length)

    def batches(self, start: int, stop: int, batch_size: int | None = None) -> Iterator[tuple[int, Tokens]]:
        """The steps [start, stop) with their batches, each read when the iterator reaches it."""
        if start < stop:
            self.first_sample(stop - 1, batch_size)
        for step in range(start, stop):
            yield step, self.batch(step, batch_size)

    def batch_spans(self, step: int, batch_size: int | None = None) -> Table:
        """The runs of documents in a step's samples, row after row, as a table.

        Columns, all int64: row, document (-1: unknown), token (first in the document), length (tokens).

        Raises:
            ConfigError: The step is out of range, or no batch size is known.
        """
        spans = self.samples.spans(*self.first_sample(step, batch_size))
        return named(spans, ("row", "document", "token", "length"))

    def micro_batch(
        self,
        step: int,
        *,
        rank: int,
        n_ranks: int,
        micro_batch: int = 0,
        n_micro_batches: int = 1,
        batch_size: int | None = None,
    ) -> Tokens:
        """The samples that a data-parallel rank reads in a micro-batch of a step, dealt as GPT-NeoX does.

        Together the micro-batches of all ranks are the step's batch, for any number of either.

        Raises:
            ConfigError: Step, rank or micro-batch is out of range, no batch size is known, or the ranks and
                micro-batches do not divide it.
        """
        ranks, parts = (rank, n_ranks), (micro_batch, n_micro_batches)
        return self.samples.read(*self.micro_batch_samples(step, ranks, parts, batch_size))

    def micro_batch_samples(
        self, step: int, rank: tuple[int, int], micro_batch: tuple[int, int], batch_size: int | None = None
    ) -> tuple[int, int]:
        """The index of the first sample of a `micro_batch`, and the number of its samples.

        Args:
            step: From 0.
            rank: The rank from 0, and the number of ranks.
            micro_batch: The micro-batch from 0, and the number of micro-batches.
            batch_size: Samples of the step. Default: the order's.

        Raises:
            ConfigError: As `micro_batch`.
        """
        _, size = self.first_sample(step, batch_size)
        return _core.micro_batch_samples(len(self.samples), size, step, rank, micro_batch)

    def positions(self, first: int, n: int) -> NDArray[np.int32]:
        """The index of each token in its document's run, in the samples [first, first + n).

        Shapes: (n, sample_length), as `Batch.position_ids`.
        """
        spans = self.samples.spans(first, n)
        return _core.batch_documents(spans, n, self.samples.sample_length, self.seq_length)[1]

    def rebatch(self, *, batch_size: int) -> Order:
        """The order of the same samples in steps of another size. Raises ConfigError."""
        if batch_size < 1:
            raise ConfigError(f"batch-size must be at least 1, got {batch_size}")
        return dataclasses.replace(self, batch_size=batch_size, steps=len(self) // batch_size)


def arrays_stem(path: Path) -> str:
    """`STEM` of the name `STEM_ARRAY.npy` of one of GPT-NeoX's arrays; empty for another name."""
    stem = path.name.rsplit("_", 2)[0]
    return stem if path.name in [f"{stem}_{array}.npy" for array in ARRAYS] else ""


def order_file(path: Path) -> Path:
    """The `order.json` of an order given as its folder or as that file."""
    return path / ORDER_FILE if path.is_dir() else path
