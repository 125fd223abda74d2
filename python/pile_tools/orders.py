"""An order on disk: a folder with `order.json` beside GPT-NeoX's three `.npy` files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import manifest, timeline
from pile_tools._core import Tokenizer, TrainingOrder
from pile_tools.errors import ConfigError, FormatError
from pile_tools.manifest import Manifest
from pile_tools.types import OnProgress, Tokens

#: The manifest of an order, in its folder.
ORDER_FILE = "order.json"


@dataclass(frozen=True)
class Order:
    """A training order with what its folder's manifest says of it.

    Attributes:
        path: The folder's `order.json`.
        samples: The samples, see `TrainingOrder`.
        batch_size: Samples of a step, or None where the order was made by a number of samples.
        steps: Steps the order was made for, or None.
        seed: Seed of its shuffles.
        manifest: The whole manifest.
    """

    path: Path
    samples: TrainingOrder
    batch_size: int | None
    steps: int | None
    seed: int
    manifest: Manifest

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once; samples are one longer."""
        return self.samples.seq_length

    @property
    def dataset_manifest(self) -> Manifest | None:
        """The manifest of the order's dataset, or None for one that another tool wrote."""
        path = Path(self.samples.dataset.prefix + manifest.MANIFEST_SUFFIX)
        return manifest.read(path) if path.exists() else None

    def first_sample(self, step: int, batch_size: int | None = None) -> tuple[int, int]:
        """The place of a step's first sample and the number of its samples.

        Raises:
            ConfigError: The step is out of range, or no batch size is known.
        """
        size = batch_size or self.batch_size
        if size is None:
            raise ConfigError(f"the order names no batch size; give --batch-size ({self.path})")
        n_steps = len(self.samples) // size
        if not 0 <= step < n_steps:
            raise ConfigError(
                f"no step {step}: the order has {n_steps} of {size} samples, from 0 ({self.path})"
            )
        return step * size, size

    def batch(self, step: int, batch_size: int | None = None) -> Tokens:
        """The samples of a step: (batch_size, seq_length + 1) uint16 or int32.

        Step s, from 0, is samples [s * batch_size, (s + 1) * batch_size), as in GPT-NeoX whatever its number
        of ranks and micro-batches. Raises ConfigError.
        """
        return self.samples.samples(*self.first_sample(step, batch_size))

    def batch_spans(self, step: int, batch_size: int | None = None) -> NDArray[np.int64]:
        """What a step's samples consist of: (n_spans, 4) with columns row, document, start, tokens."""
        return self.samples.spans(*self.first_sample(step, batch_size))

    def when(
        self,
        texts: Sequence[str | bytes | Sequence[int]],
        *,
        tokenizer: Tokenizer | None = None,
        across_documents: bool = False,
        batch_size: int | None = None,
        max_places: int = timeline.MAX_PLACES,
        threads: int | None = None,
        on_progress: OnProgress = None,
    ) -> timeline.When:
        """Every time the model saw each of `texts`: see `pile_tools.timeline.when`."""
        return timeline.when(
            self,
            texts,
            tokenizer=tokenizer,
            across_documents=across_documents,
            batch_size=batch_size,
            max_places=max_places,
            threads=threads,
            on_progress=on_progress,
        )

    def trace(self, document: int, *, batch_size: int | None = None) -> timeline.Table:
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


def open_order(path: str | Path) -> Order:
    """Opens an order by its folder (or its `order.json`), checked to be of its dataset.

    Raises:
        FormatError: Not an order, or its dataset is not the one it was built for.
        OSError: A file cannot be read.
    """
    file = order_file(Path(path))
    found = manifest.read(file)
    if found.kind != "order":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected an order ({file})")
    dataset = found.input("dataset")
    if dataset is None:
        raise FormatError(f"names no dataset ({file})")
    settings: dict[str, Any] = found.settings
    stem = found.folder / settings["stem"]
    samples = TrainingOrder(stem, settings["seq_length"], found.folder / dataset["path"])
    if samples.dataset.fingerprint != dataset["fingerprint"]:
        raise FormatError(
            f"built for another dataset than {samples.dataset.prefix} now is; build it anew ({file})"
        )
    return Order(
        path=file,
        samples=samples,
        batch_size=settings["batch_size"],
        steps=settings["steps"],
        seed=settings["seed"],
        manifest=found,
    )
