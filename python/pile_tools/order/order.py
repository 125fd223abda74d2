"""An order: the samples that a model sees, step after step, wherever they lie.

An order is data; the questions asked of it are in `pile_tools.timeline`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest
from pile_tools._core import Tokenizer, TrainingOrder
from pile_tools.errors import ConfigError
from pile_tools.manifest import Manifest
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.tokens.blends import documents_of
from pile_tools.types import AnyPath, Tokens

#: The manifest of an order, in its folder.
ORDER_FILE = "order.json"

#: Rules by which orders are built.
RULES = (
    "megatron-lm",
    "gpt-neox packed",
    "gpt-neox pack_until_overflow",
    "gpt-neox unpacked",
)

#: Longer samples than any model's.
MAX_SEQ_LENGTH = 2**31 - 2

#: Tokens of a row, and rows of a step, in Pythia's published data.
PYTHIA_ROW_LENGTH, PYTHIA_BATCH_SIZE = 2049, 1024

#: Offsets within a row are 32-bit.
MAX_ROW_LENGTH = (1 << 31) - 1


class Samples(Protocol):
    """What `TrainingOrder`, `RemoteRows` and the views of `pile_tools.order.interventions` have in common."""

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once."""

    @property
    def sample_length(self) -> int:
        """Tokens of a sample."""

    @property
    def dataset(self) -> Any:
        """The documents that the samples are made of."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> Tokens: ...

    def samples(self, first: int, n: int) -> Tokens:
        """`n` samples from index `first`."""

    def take(self, places: NDArray[np.int64]) -> Tokens:
        """Samples at any indices."""

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """What they consist of: columns row, document (-1: unknown), first token in it, tokens."""


@dataclass(frozen=True)
class Batch:
    """A batch with the documents it is made of.

    Attributes:
        tokens: (rows, sample_length) uint16 or int32; all but the last column are inputs.
        documents: (rows, sample_length) int64, the document of each token, -1 where unknown or padding.
        position_ids: (rows, sample_length) int32, counted anew where a document begins in a row.
        cu_seqlens: (n + 1,) int32 over the inputs of all rows, one after the other: where each document's run
            begins, and the end; what attention that stays within documents takes.
    """

    tokens: Tokens
    documents: NDArray[np.int64]
    position_ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]


def batch_of(tokens: Tokens, spans: NDArray[np.int64], n_inputs: int) -> Batch:
    """A batch from its tokens and spans; `n_inputs` of each row are the model's inputs."""
    n_rows, row_length = tokens.shape
    return Batch(tokens, *_core.batch_documents(spans, n_rows, row_length, n_inputs))


@dataclass(frozen=True)
class Order:
    """A training order. As a sequence it is the samples of its run, so data loaders take it as it is.

    Attributes:
        path: The folder's `order.json`, or where the rows lie.
        samples: All samples, see `TrainingOrder`: those of the run, then what is built beyond them.
        batch_size: Samples of a step, or None where the order was made by a number of samples.
        steps: Steps the order was made for, or None.
        seed: Seed of its shuffles; None for rows that came shuffled.
        manifest: The whole manifest; None for rows and views that are not saved, which have none.
        made_for: Samples of the run that the order was made for; None if the run is all samples.
    """

    path: Path
    samples: Samples
    batch_size: int | None
    steps: int | None
    seed: int | None
    manifest: Manifest | None
    labels: Samples | None = None
    made_for: int | None = None

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once; samples are one longer."""
        return self.samples.seq_length

    @property
    def record(self) -> Manifest:
        """The manifest, of an order that has one. Raises ConfigError."""
        if self.manifest is None:
            what = "rows, and views that are not saved, have no manifest, so a run on them cannot be recorded"
            raise ConfigError(f"{what} ({self.path})")
        return self.manifest

    @property
    def dataset(self) -> Any:
        """The documents that the samples are made of; of rows, the rows."""
        return documents_of(self.samples)

    @property
    def knows_documents(self) -> bool:
        """Whether it can be told which documents the samples are made of."""
        return bool(len(self.samples) == 0 or self.samples.spans(0, 1)[0, 1] >= 0)

    @property
    def dataset_manifest(self) -> Manifest | None:
        """The manifest of the order's dataset, or None for one that another tool wrote."""
        path = datasets.with_suffix(Path(str(self.dataset.prefix)), manifest.MANIFEST_SUFFIX)
        return manifest.read(path) if path.exists() else None

    def tokenizer(self, given: AnyPath | None = None) -> Tokenizer:
        """The tokenizer of the order's dataset, see `pile_tools.tokens.datasets.tokenizer_of`."""
        return self.tokenizer_file(given).load()

    def tokenizer_file(self, given: AnyPath | None = None) -> TokenizerFile:
        """The file of the tokenizer; see `tokenizer`."""
        return datasets.tokenizer_file(Path(str(self.dataset.prefix)), given)

    @property
    def replaced_by_gpt_neox(self) -> list[int]:
        """Samples that GPT-NeoX's reader cannot read and replaces by another one.

        `samples` has the true ones, or with `compat="gpt-neox"` what GPT-NeoX gives.
        """
        return self.samples.replaced if isinstance(self.samples, TrainingOrder) else []

    def __len__(self) -> int:
        """Samples of the run: `steps * batch_size` if the order was made for steps, else all of `samples`.

        GPT-NeoX builds 0.5 % more samples than its run sees; these are in `samples` alone.
        """
        n_samples = len(self.samples)
        return n_samples if self.made_for is None else min(self.made_for, n_samples)

    def __getitem__(self, sample: int) -> Tokens:
        """A sample of the run: (seq_length + 1,) uint16, int32, or int64 for a blend of both."""
        n_samples = len(self)
        if not -n_samples <= sample < n_samples:
            raise IndexError(f"{sample} is out of range for {n_samples}")
        return self.samples[sample % n_samples]

    def n_steps(self, batch_size: int | None = None) -> int:
        """Whole steps in `samples`, those beyond the run too."""
        return len(self.samples) // self._size(batch_size)

    def _size(self, batch_size: int | None) -> int:
        size = batch_size or self.batch_size
        if size is None:
            raise ConfigError(f"the order names no batch size; give --batch-size ({self.path})")
        return size

    def first_sample(self, step: int, batch_size: int | None = None) -> tuple[int, int]:
        """The index of a step's first sample and the number of its samples.

        Raises:
            ConfigError: The step is out of range, or no batch size is known.
        """
        size = self._size(batch_size)
        n_steps = len(self.samples) // size
        if not 0 <= step < n_steps:
            raise ConfigError(
                f"no step {step}: the order has {n_steps} of {size} samples, from 0 ({self.path})"
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
        """The samples of a step: (batch_size, seq_length + 1) uint16 or int32, or a `Batch`.

        Step s, from 0, is samples [s * batch_size, (s + 1) * batch_size), as in GPT-NeoX whatever its number
        of ranks and micro-batches. Raises ConfigError.
        """
        first, n = self.first_sample(step, batch_size)
        tokens = self.samples.samples(first, n)
        if not with_documents:
            return tokens
        return batch_of(tokens, self.samples.spans(first, n), self.seq_length)

    def batches(self, start: int, stop: int, batch_size: int | None = None) -> Iterator[tuple[int, Tokens]]:
        """Steps `start` to `stop` (not included) with their batches, each read when it is asked for."""
        if start < stop:
            self.first_sample(stop - 1, batch_size)
        for step in range(start, stop):
            yield step, self.batch(step, batch_size)

    def batch_spans(self, step: int, batch_size: int | None = None) -> NDArray[np.int64]:
        """What a step's samples consist of: (n_spans, 4) with columns row, document, start, tokens."""
        return self.samples.spans(*self.first_sample(step, batch_size))

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
        """What one data-parallel rank reads in one micro-batch of a step, as GPT-NeoX deals it out.

        All of a step together are its batch, whatever their numbers. Raises ConfigError.
        """
        _, size = self.first_sample(step, batch_size)
        ranks, parts = (rank, n_ranks), (micro_batch, n_micro_batches)
        return self.samples.samples(*_core.micro_batch_samples(len(self.samples), size, step, ranks, parts))

    def rebatch(self, *, batch_size: int) -> Order:
        """The same samples of the same run in the same sequence, in steps of another size."""
        if batch_size < 1:
            raise ConfigError(f"batch-size must be at least 1, got {batch_size}")
        return dataclasses.replace(self, batch_size=batch_size, steps=len(self) // batch_size)


def order_file(path: Path) -> Path:
    """The `order.json` of an order given as its folder or as that file."""
    return path / ORDER_FILE if path.is_dir() else path
