"""Builds the order in which a model sees a dataset, exactly as GPT-NeoX does."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pile_tools import _core, files, manifest
from pile_tools.errors import ConfigError, OutputExistsError
from pile_tools.manifest import Manifest, Request
from pile_tools.orders import ORDER_FILE
from pile_tools.types import OnProgress

ARRAYS = ("doc_idx", "sample_idx", "shuffle_idx")

#: GPT-NeoX asks for this many times the samples of a training run that has its own data paths.
SAMPLES_MARGIN = 1.005

#: The name GPT-NeoX gives the first of the training data paths.
SPLIT_NAME = "train_0"


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderConfig:
    """What an order depends on, its dataset aside."""

    seq_length: int = field(metadata={"help": "Tokens the model sees at once; samples are one longer."})
    samples: int | None = field(default=None, metadata={"help": "Samples to build, at least."})
    steps: int | None = field(default=None, metadata={"help": "Training steps, with --batch-size."})
    batch_size: int | None = field(default=None, metadata={"help": "Samples of a step, over all ranks."})
    seed: int = field(default=1234, metadata={"help": "Seed of the shuffles, 0 to 2^32 - 1."})

    def __post_init__(self) -> None:
        for name in ("seq_length", "samples", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name.replace('_', '-')} must be at least 1, got {value}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be within 0 and 2^32 - 1, got {self.seed}")
        if (self.samples is None) == (self.steps is None):
            raise ConfigError("give either --samples, or --steps and --batch-size")
        if self.steps is not None and self.batch_size is None:
            raise ConfigError("--steps needs --batch-size")

    @property
    def n_samples(self) -> int:
        """Samples to ask for: GPT-NeoX's margin is added to steps times batch size."""
        if self.steps is None or self.batch_size is None:
            return self.samples or 0  # one of the two is given: checked at construction
        return math.ceil(self.steps * self.batch_size * SAMPLES_MARGIN)


def run(
    prefix: Path,
    folder: Path | None,
    config: OrderConfig,
    *,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Builds the order of dataset `prefix` in `folder`; returns its manifest and whether it was made now.

    Without a folder it lies beside the dataset, where GPT-NeoX looks for its three `.npy` files.

    Raises:
        OutputExistsError: Another order lies there and `force` is off.
        FormatError: The dataset is damaged.
        OSError: A file cannot be read or written.
    """
    folder = prefix.parent if folder is None else folder
    dataset = _core.TokenDataset(prefix)
    stem = _core.order_file_stem(prefix.name, SPLIT_NAME, config.n_samples, config.seq_length, config.seed)
    settings = {
        "rule": "gpt-neox packed",
        "seq_length": config.seq_length,
        "samples": config.samples,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "stem": stem,
    }
    source = {
        "role": "dataset",
        "path": manifest.relative(prefix, folder),
        "fingerprint": dataset.fingerprint,
    }
    request = Request("order", settings, [source])
    if done := manifest.finished(folder / ORDER_FILE, request, force=force):
        return done, False
    parts = folder / f"{ORDER_FILE}.partial"
    parts.mkdir(parents=True, exist_ok=True)
    try:
        summary = _core.build_order(
            prefix, parts / stem, config.seq_length, config.n_samples, config.seed, on_progress
        )
        return _publish(parts, folder, stem, request, summary, force=force), True
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _publish(
    parts: Path, folder: Path, stem: str, request: Request, summary: dict[str, Any], *, force: bool
) -> Manifest:
    """Renames the arrays into place and writes `order.json` last: without it there is no order."""
    names = [f"{stem}_{array}.npy" for array in ARRAYS]
    for name in names:
        _refuse_other(parts / name, folder / name, force=force)
    old = folder / ORDER_FILE
    if old.exists():
        replaced = [folder / entry["path"] for entry in manifest.read(old).outputs]
        old.unlink()
        for path in replaced:
            path.unlink(missing_ok=True)
    for name in names:
        (parts / name).replace(folder / name)
    outputs = [manifest.file_entry(folder / name, folder) for name in names]
    return manifest.write(folder / ORDER_FILE, request, outputs, summary)


def _refuse_other(new: Path, place: Path, *, force: bool) -> None:
    """Equal arrays may stand there, GPT-NeoX's own say; others are replaced only by force."""
    if place.exists() and not force and files.sha256(place) != files.sha256(new):
        raise OutputExistsError(
            f"exists with other content; --force replaces it, -o puts the order elsewhere ({place})"
        )
