"""An order: the samples that a model sees, step after step, wherever they lie.

An order on disk is a folder with `order.json` beside the reference's `.npy` files; rows that are in training
order already, as Pythia's published data are, are an order of their own, here or on a server.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, publish, timeline
from pile_tools._core import Tokenizer, TrainingOrder
from pile_tools.checked import MAX_SEED, Values
from pile_tools.errors import ConfigError, FormatError
from pile_tools.manifest import Manifest
from pile_tools.publish import Target
from pile_tools.search import MAX_PLACES
from pile_tools.tables import Table
from pile_tools.types import OnProgress, Tokens

if TYPE_CHECKING:
    from pile_tools.views import Insert

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
    """What `TrainingOrder`, `RemoteRows` and the views of `pile_tools.views` have in common."""

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
        """`n` samples from place `first`."""

    def take(self, places: NDArray[np.int64]) -> Tokens:
        """Samples at any places."""

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
        return self.samples.dataset

    @property
    def knows_documents(self) -> bool:
        """Whether it can be told which documents the samples are made of."""
        return bool(len(self.samples) == 0 or self.samples.spans(0, 1)[0, 1] >= 0)

    @property
    def dataset_manifest(self) -> Manifest | None:
        """The manifest of the order's dataset, or None for one that another tool wrote."""
        path = Path(str(self.dataset.prefix) + manifest.MANIFEST_SUFFIX)
        return manifest.read(path) if path.exists() else None

    @property
    def replaced_by_gpt_neox(self) -> list[int]:
        """Samples that GPT-NeoX's reader cannot read, in whose place it gives another one.

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
        """The place of a step's first sample and the number of its samples.

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

    def with_tokens(
        self, table: Mapping[str, str], *, steps: tuple[int, int], tokenizer: Tokenizer | None = None
    ) -> Order:
        """The order with words replaced in steps [first, end): see `pile_tools.views.replace_tokens`."""
        from pile_tools import views

        return views.replace_tokens(self, table, steps=steps, tokenizer=tokenizer)

    def with_inserts(self, table: Sequence[Insert]) -> Order:
        """The order with token sequences written over given places: see `pile_tools.views.insert_tokens`."""
        from pile_tools import views

        return views.insert_tokens(self, table)

    def rebatch(self, *, batch_size: int) -> Order:
        """The same samples of the same run in the same sequence, in steps of another size."""
        if batch_size < 1:
            raise ConfigError(f"batch-size must be at least 1, got {batch_size}")
        return dataclasses.replace(self, batch_size=batch_size, steps=len(self) // batch_size)

    def when(
        self,
        texts: Sequence[str | bytes | Sequence[int]],
        *,
        tokenizer: Tokenizer | None = None,
        index: timeline.Finder = "auto",
        across_documents: bool = False,
        batch_size: int | None = None,
        max_places: int = MAX_PLACES,
        threads: int | None = None,
        on_progress: OnProgress = None,
    ) -> timeline.When:
        """Every time the model saw each of `texts`: see `pile_tools.timeline.when`."""
        return timeline.when(
            self,
            texts,
            tokenizer=tokenizer,
            index=index,
            across_documents=across_documents,
            batch_size=batch_size,
            max_places=max_places,
            threads=threads,
            on_progress=on_progress,
        )

    def trace(self, document: int, *, batch_size: int | None = None) -> Table:
        """Every row that holds any part of a document: see `pile_tools.timeline.trace`."""
        return timeline.trace(self, document, batch_size=batch_size)

    def repeats(
        self, *, interval_steps: int = 1000, batch_size: int | None = None, threads: int | None = None
    ) -> timeline.Repeats:
        """What the model reads more than once: see `pile_tools.timeline.repeats`."""
        return timeline.repeats(self, interval_steps=interval_steps, batch_size=batch_size, threads=threads)

    def mixture(
        self, *, interval_steps: int = 1000, batch_size: int | None = None, threads: int | None = None
    ) -> timeline.Mixture:
        """Tokens of each subset that the model reads: see `pile_tools.timeline.mixture`."""
        return timeline.mixture(self, interval_steps=interval_steps, batch_size=batch_size, threads=threads)


def order_file(path: Path) -> Path:
    """The `order.json` of an order given as its folder or as that file."""
    return path / ORDER_FILE if path.is_dir() else path


def open_order(
    path: str | Path,
    *,
    row_length: int | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    compat: str | None = None,
) -> Order:
    """Opens an order in constant time, checked to be of its dataset.

    Args:
        path: An order's folder or its `order.json`; the `..._shuffle_idx.npy` that GPT-NeoX wrote beside its
            dataset; or rows in training order: their folder, one of their shards, or an address
            `https://...` or `hf://datasets/...`.
        row_length: Tokens of a row, for rows; by default Pythia's 2,049. Without it an `.idx` beside them
            means documents, unless every sequence is one such row.
        batch_size: Samples of a step, by default the order's own; for rows Pythia's 1,024.
        dtype: Type of a token, for rows: `uint16` or `int32`; by default that of an `.idx` beside them, or
            `uint16`.
        compat: `gpt-neox` gives the samples that GPT-NeoX's reader puts in place of those it cannot read, see
            `Order.replaced_by_gpt_neox`; by default as the order was built, or the true ones.

    Raises:
        ConfigError: Another `compat`.
        FormatError: Not an order, or its dataset is not the one it was built for.
        OSError: A file cannot be read.
    """
    if compat not in (None, "gpt-neox"):
        raise ConfigError(f"no compat {compat!r}; there is gpt-neox")
    text = str(path)
    if row_length is not None and not 1 <= row_length <= MAX_ROW_LENGTH:
        raise ConfigError(f"row-length must be 1 to {MAX_ROW_LENGTH:,}, got {row_length:,}")
    size = batch_size or PYTHIA_BATCH_SIZE
    if re.match(r"(https?|hf)://", text, re.IGNORECASE):
        from pile_tools.remote import RemoteRows

        rows: Samples = RemoteRows(text, row_length, dtype)
        return _of_rows(Path(text), rows, size)
    path = Path(path)
    if text.endswith(".npy"):
        return _of_arrays(path, batch_size, compat)
    file = order_file(path)
    with publish.reading(Target.of(file)):
        if not file.exists() or file.suffix == ".bin":
            # Rows that are being replaced may have their scratch folder alone: the core says so.
            if path.suffix == ".bin" or any(any(path.glob(name)) for name in ("*.bin", "*.partial")):
                return _of_rows(path, _core.rows_order(path, row_length, dtype), size)
            what = f"no {ORDER_FILE} and no rows here" if path.exists() else "No such file or directory"
            raise FileNotFoundError(2, what, str(path))
        order = _of_manifest(file, compat)
    return order if batch_size is None else order.rebatch(batch_size=batch_size)


def _of_rows(path: Path, rows: Samples, batch_size: int) -> Order:
    return Order(path, rows, batch_size, len(rows) // batch_size, seed=None, manifest=None)


#: GPT-NeoX's names, of v1.0 and of now, less the array's.
_STEM = re.compile(
    r"(?P<prefix>.+)_(?P<name>(?:train|valid|test)(?:_\d+)?)_indexmap_(?P<samples>\d+|None)ns_(?P<seq>\d+)sl_"
    r"(?P<seed>\d+)s(?:_(?P<packing>packed|pack_until_overflow|unpacked)pi(?P<chopped>_ac)?)?"
)


def _of_arrays(path: Path, batch_size: int | None, compat: str | None) -> Order:
    """An order that GPT-NeoX wrote beside its dataset, by the name of one of its arrays."""
    stem = re.sub(r"_(doc|sample|shuffle)_idx\.npy$", "", path.name)
    found = _STEM.fullmatch(stem)
    if found is None:
        raise FormatError(f"not a name of GPT-NeoX's index files ({path})")
    is_padded = found["packing"] in ("pack_until_overflow", "unpacked")
    samples = TrainingOrder(
        path.with_name(stem),
        int(found["seq"]),
        path.with_name(found["prefix"]),
        is_padded=is_padded,
        as_gpt_neox=compat is not None,
    )
    steps = len(samples) // batch_size if batch_size else None
    return Order(path, samples, batch_size, steps, seed=int(found["seed"]), manifest=None)


def _of_manifest(file: Path, compat: str | None) -> Order:
    found = manifest.read(file)
    if found.kind != "order":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected an order ({file})")
    if found.checked_settings.text("rule", (*RULES, "view")) == "view":
        from pile_tools import views

        return views.open_view(found, compat)
    datasets = [entry for entry in found.inputs if entry["role"] == "dataset"]
    if not datasets:
        raise FormatError(f"names no dataset ({file})")
    settings = _Settings.read(found)
    if compat is not None:
        settings = dataclasses.replace(settings, is_as_gpt_neox=True)
    if len(settings.stems) != len(datasets):
        raise FormatError(f"{len(settings.stems)} stems for {len(datasets)} datasets ({file})")
    parts = [
        _part(found, settings, stem, entry) for stem, entry in zip(settings.stems, datasets, strict=True)
    ]
    labels = [entry for entry in found.inputs if entry["role"] == "labels"]
    return Order(
        path=file,
        samples=_core.blended_order(found.folder / settings.blend, parts) if settings.blend else parts[0],
        batch_size=settings.batch_size,
        steps=settings.steps,
        seed=settings.seed,
        manifest=found,
        labels=_part(found, settings, settings.stems[0], labels[0], padding=-100) if labels else None,
        made_for=settings.steps * settings.batch_size if settings.steps and settings.batch_size else None,
    )


@dataclass(frozen=True)
class _Settings:
    """What a manifest says of how its arrays are read.

    Attributes:
        seq_length: Tokens the model sees at once.
        extra: Tokens of a sample beyond that.
        is_padded: Whether samples shorter than the others are filled up.
        is_as_gpt_neox: Whether samples are replaced as GPT-NeoX's reader does.
        stems: Beginning of the arrays' names, one for each dataset.
        blend: Beginning of the names of the arrays that mix them, of a blend.
    """

    seq_length: int
    extra: int
    is_padded: bool
    is_as_gpt_neox: bool
    batch_size: int | None
    steps: int | None
    seed: int | None
    stems: list[str]
    blend: str | None

    @classmethod
    def read(cls, found: Manifest) -> _Settings:
        """Those of a manifest of an order that is no view. Raises FormatError."""
        values = found.checked_settings
        values.require_keys(
            ("rule", "seq_length", "stem", "batch_size", "steps", "seed"),
            ("samples", "epochs", "split", "part", "compat", "layout", "stems", "weights"),
        )

        def count(key: str) -> int | None:
            return values.optional(key, lambda key: values.integer(key, at_least=1))

        # These say how the order was built; they are checked with the others, and not used.
        for key in ("samples", "epochs"):
            count(key)
        for key in ("split", "part"):
            values.optional(key, values.text)
        values.optional("weights", lambda key: values.items_of(key, Values.number))
        compat = values.optional("compat", lambda key: values.text(key, ("gpt-neox",)))
        extra, is_padded = 1, False
        if values.has("layout"):
            layout = values.object("layout")
            layout.require_keys(("extra", "is_padded"))
            extra, is_padded = layout.integer("extra", 0, 1), layout.flag("is_padded")
        is_blend = values.has("stems")
        stem = values.file_name("stem")
        return cls(
            seq_length=values.integer("seq_length", 1, MAX_SEQ_LENGTH),
            extra=extra,
            is_padded=is_padded,
            is_as_gpt_neox=compat is not None,
            batch_size=count("batch_size"),
            steps=count("steps"),
            seed=values.optional("seed", lambda key: values.integer(key, at_most=MAX_SEED)),
            stems=values.items_of("stems", Values.file_name) if is_blend else [stem],
            blend=stem if is_blend else None,
        )


def _part(
    found: Manifest, settings: _Settings, stem: str, entry: manifest.Entry, padding: int = 0
) -> TrainingOrder:
    samples = TrainingOrder(
        found.folder / stem,
        settings.seq_length,
        found.folder / entry["path"],
        extra=settings.extra,
        is_padded=settings.is_padded,
        padding=padding,
        as_gpt_neox=settings.is_as_gpt_neox,
    )
    if samples.dataset.fingerprint != manifest.required(found, entry, "fingerprint"):
        raise FormatError(
            f"built for another dataset than {samples.dataset.prefix} now is; build it anew ({found.path})"
        )
    return samples
