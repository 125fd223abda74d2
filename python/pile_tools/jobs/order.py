"""Builds the order in which a model sees a dataset, exactly as GPT-NeoX or Megatron-LM builds it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pile_tools import _core, publish
from pile_tools.config import Settings
from pile_tools.errors import ConfigError
from pile_tools.jobs.merge import refuse_mixture
from pile_tools.manifest import ORDER_FILE, Manifest, Request
from pile_tools.order.order import ARRAYS, MAX_SEQ_LENGTH
from pile_tools.publish import Built, Target
from pile_tools.terminal import counted
from pile_tools.tokens import datasets
from pile_tools.types import OnProgress, OrderSummary

BLEND_ARRAYS = ("dataset_index", "dataset_sample_index")

PACKINGS = ("packed", "pack_until_overflow", "unpacked", "megatron")
PARTS = ("train", "valid", "test")
NAMES = ("now", "v1.0")

#: Maximum samples, far more than any run has: each takes at least 8 bytes.
MAX_SAMPLES = 2**40


def _choice(choices: tuple[str, ...], default: str | None, text: str) -> Any:
    return field(default=default, metadata={"help": f"{text}: {', '.join(choices)}."})


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderConfig:
    """The settings of an order, apart from its datasets."""

    seq_length: int = field(metadata={"help": "Tokens that the model sees at once; samples are one longer."})
    samples: int | None = field(default=None, metadata={"help": "Minimum number of samples to build."})
    steps: int | None = field(default=None, metadata={"help": "Training steps, with --batch-size."})
    epochs: int | None = field(
        default=None, metadata={"help": "Whole epochs instead of a number of samples."}
    )
    batch_size: int | None = field(default=None, metadata={"help": "Samples of a step, over all ranks."})
    seed: int = field(default=1234, metadata={"help": "Seed of the shuffles, 0 to 2^32 - 1."})
    packing: str = _choice(PACKINGS, "packed", "How documents become samples")
    chop: bool = field(
        default=True,
        metadata={"help": "Split documents longer than a sample, or leave them out (not for packed)."},
    )
    split: str | None = field(
        default=None, metadata={"help": "Shares of train, valid and test of one data path, such as 969,30,1."}
    )
    part: str = _choice(PARTS, "train", "The part to order")
    names: str = _choice(NAMES, "now", "Style of the file names, GPT-NeoX's current or v1.0")
    compat: str | None = _choice(
        ("gpt-neox",), None, "Read the samples that this tool reads instead of those it cannot read"
    )

    def __post_init__(self) -> None:
        for name in ("seq_length", "samples", "steps", "batch_size", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name.replace('_', '-')} must be at least 1, got {value}")
        if self.seq_length > MAX_SEQ_LENGTH:
            raise ConfigError(f"seq-length must be at most {MAX_SEQ_LENGTH:,}, got {self.seq_length:,}")
        if (self.samples or (self.steps or 0) * (self.batch_size or 0)) > MAX_SAMPLES:
            raise ConfigError(f"an order has at most {MAX_SAMPLES:,} samples")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be within 0 and 2^32 - 1, got {self.seed}")
        if sum(value is not None for value in (self.samples, self.steps, self.epochs)) != 1:
            raise ConfigError("give either samples, or steps and batch-size, or epochs")
        if self.steps is not None and self.batch_size is None:
            raise ConfigError("steps need a batch-size")
        choices = (("packing", PACKINGS), ("part", PARTS), ("names", NAMES), ("compat", (None, "gpt-neox")))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"no {name} {getattr(self, name)!r}; there are {', '.join(map(str, allowed))}"
                )
        if self.names == "v1.0" and self.packing != "packed":
            raise ConfigError("GPT-NeoX v1.0 has only the packing packed")

    @property
    def n_samples(self) -> int | None:
        """The samples to build, with GPT-NeoX's margin for a run without a split; None for epochs."""
        if self.steps is None or self.batch_size is None:
            return self.samples
        n_samples = self.steps * self.batch_size
        if self.split is not None or self.packing == "megatron":
            return n_samples
        return _core.normalized_weights([1.0], n_samples)[1][0]

    @property
    def n_run_samples(self) -> int:
        """The samples that the run sees, without a margin; 0 for epochs."""
        return self.samples or (self.steps or 0) * (self.batch_size or 0)

    def name(self, number: int) -> str:
        """GPT-NeoX's name of the part: `train` with a split, `train_0` for a separate data path."""
        return self.part if self.split is not None else f"{self.part}_{number}"

    def stem(self, prefix_name: str, number: int, n_samples: int | None) -> str:
        """GPT-NeoX's name of the index files, without the suffix of the array."""
        rest = f"{n_samples}ns_{self.seq_length}sl_{self.seed}s"
        stem = f"{prefix_name}_{self.name(number)}_indexmap_{rest}"
        if self.packing == "megatron":
            return f"{stem}_megatron"
        return stem if self.names == "v1.0" else f"{stem}_{self.packing}pi{'_ac' if self.chop else ''}"


@dataclass(frozen=True)
class Blend:
    """Several datasets and their weights, by default from their numbers of documents and `alpha`."""

    prefixes: tuple[Path, ...]
    weights: tuple[float, ...] | None = None
    alpha: float = 0.3

    def normalized(self, n_documents: list[int], n_samples: int) -> tuple[list[float], list[int]]:
        """The weights scaled to sum 1, and the samples to build of each dataset."""
        weights = self.weights or tuple(_core.weights_by_documents(n_documents, self.alpha))
        return _core.normalized_weights(list(weights), n_samples)


@dataclass(frozen=True)
class _Part:
    """The arrays to build of one dataset."""

    prefix: Path
    stem: str
    n_samples: int | None
    documents: tuple[int, int] | None


def _refuse_other_lengths(prefix: Path, labels: Path, sources: list[_core.TokenSource]) -> None:
    """Raises ConfigError for labels that are not parallel to the tokens: a label for each token."""
    n_documents, n_labels = len(sources[0]), len(sources[-1])
    if n_documents != n_labels:
        what = f"{counted(n_labels, 'document')} of labels for {n_documents:,} of tokens"
        raise ConfigError(f"{what}: {labels} is not parallel to {prefix}")
    if not all(source.has_tokens for source in (sources[0], sources[-1])):
        return
    lengths = [_core.TokenDataset(path).lengths() for path in (prefix, labels)]
    differing = np.flatnonzero(lengths[0] != lengths[1])
    if len(differing):
        n_tokens, n_labels = (int(of[differing[0]]) for of in lengths)
        what = f"document {differing[0]:,} has {counted(n_tokens, 'token')} and {counted(n_labels, 'label')}"
        raise ConfigError(f"{what}: {labels} is not parallel to {prefix}")


def _same_split(split: str) -> str:
    """A split as manifests record it, equal for equal shares; one that the core refuses as it is."""
    try:
        shares = [float(share) for share in re.split("," if "," in split else "/", split)]
    except ValueError:
        return split
    return ",".join(str(int(share)) if share.is_integer() else str(share) for share in shares)


def run(
    prefix: Path | Blend,
    folder: Path | None,
    config: OrderConfig,
    *,
    labels: Path | None = None,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Builds the order of a dataset or a blend; returns its manifest, and whether it was made now.

    Args:
        prefix: The dataset's prefix, or a blend of datasets.
        folder: The folder of the order; by default that of the first dataset, where GPT-NeoX reads its
            `.npy` files.
        config: The settings of the order.
        labels: The prefix of the parallel dataset of labels; not for a blend, whose datasets would each need
            one.
        force: Replace another order.
        on_progress: Called with the samples built.

    Raises:
        OutputExistsError: The folder holds another order and `force` is off.
        ConfigError: The settings do not fit the datasets.
        PileError: The datasets of a blend were made with different tokenizers.
        FormatError: A dataset is damaged.
        OSError: A file cannot be read or written.
    """
    blend = prefix if isinstance(prefix, Blend) else None
    if blend and labels is not None:
        raise ConfigError("a blend takes no labels: they are parallel to a single dataset")
    prefixes = blend.prefixes if blend else (prefix,) if isinstance(prefix, Path) else ()
    folder = prefixes[0].parent if folder is None else folder
    sources = [_core.TokenSource(path) for path in prefixes]
    refuse_mixture(prefixes, [datasets.manifest_of(path) for path in prefixes])
    weights, parts = _parts(prefixes, blend, [len(source) for source in sources], config)
    stem = f"blend_{config.name(0)}_{parts[0].stem.rpartition('_indexmap_')[2]}" if blend else parts[0].stem
    is_padded = config.packing in ("pack_until_overflow", "unpacked")
    # `chop` and `names` are recorded by the stem alone, which has them as GPT-NeoX's names do.
    settings = {
        "rule": "megatron-lm" if config.packing == "megatron" else f"gpt-neox {config.packing}",
        "seq_length": config.seq_length,
        "samples": config.samples,
        "steps": config.steps,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "split": None if config.split is None else _same_split(config.split),
        "part": config.part,
        "compat": config.compat,
        "layout": {"extra": 1, "is_padded": is_padded},
        "stem": stem,
        **({"stems": [part.stem for part in parts], "weights": weights} if blend else {}),
    }
    inputs = [datasets.entry(source, folder) for source in sources]
    if labels is not None:
        sources.append(_core.TokenSource(labels))
        _refuse_other_lengths(prefixes[0], labels, sources)
        inputs.append(datasets.entry(sources[-1], folder, "labels"))
    request = Request("order", settings, inputs)

    def build(partial: Path) -> Built:
        summaries = [_build(part, partial, config, labels, on_progress) for part in parts]
        # The core has opened the datasets again, by path.
        for source in sources:
            source.check_unchanged()
        names = [f"{part.stem}_{array}.npy" for part in parts for array in ARRAYS]
        summary: Settings = {**summaries[0]}
        if blend:
            available = [one["n_samples"] for one in summaries]
            n, counts = _core.write_blend(partial / stem, weights, available, config.compat is not None)
            names += [f"{stem}_{array}.npy" for array in BLEND_ARRAYS]
            summary = {**_together(summaries), "n_samples": n, "samples_of_datasets": counts}
            _check_blend(n, config)
        return Built(names, summary, request.inputs)

    or_else = ", another folder keeps both"
    return publish.make(Target.of(folder / ORDER_FILE), request, build, force=force, or_else=or_else)


def _parts(
    prefixes: tuple[Path, ...], blend: Blend | None, n_documents: list[int], config: OrderConfig
) -> tuple[list[float], list[_Part]]:
    """The weights of the datasets, and the arrays to build of each."""
    if blend is None:
        documents = None
        if config.split is not None:
            documents = _core.split_documents(config.split, n_documents[0])[PARTS.index(config.part)]
        stem = config.stem(prefixes[0].name, 0, config.n_samples)
        return [1.0], [_Part(prefixes[0], stem, config.n_samples, documents)]
    if config.split is not None or not config.n_run_samples:
        raise ConfigError("a blend takes whole datasets and a number of samples: no split, no epochs")
    if blend.weights is not None and len(blend.weights) != len(prefixes):
        raise ConfigError(f"{counted(len(blend.weights), 'weight')} for {counted(len(prefixes), 'dataset')}")
    weights, samples = blend.normalized(n_documents, config.n_run_samples)
    for path, n in zip(prefixes, samples, strict=True):
        if n <= 0:
            raise ConfigError(f"the weight of {path} gives no samples: leave it out")
    parts = [
        _Part(path, config.stem(path.name, k, n), n, None)
        for k, (path, n) in enumerate(zip(prefixes, samples, strict=True))
    ]
    return weights, parts


def _build(
    part: _Part, folder: Path, config: OrderConfig, labels: Path | None, on_progress: OnProgress
) -> OrderSummary:
    return _core.build_order(
        part.prefix,
        folder / part.stem,
        config.seq_length,
        config.seed,
        samples=part.n_samples,
        epochs=config.epochs,
        rule=config.packing,
        documents=part.documents,
        allow_chopped=config.chop,
        labels=labels,
        on_progress=on_progress,
    )


def _together(summaries: list[OrderSummary]) -> Settings:
    """The total counts of the datasets of a blend."""
    return {
        "n_documents": sum(one["n_documents"] for one in summaries),
        "tokens_per_epoch": sum(one["tokens_per_epoch"] for one in summaries),
        "n_epochs": None,
        "epochs_of_datasets": [one["n_epochs"] for one in summaries],
    }


def _check_blend(n_samples: int, config: OrderConfig) -> None:
    if n_samples < config.n_run_samples:
        raise ConfigError(
            f"the datasets give {counted(n_samples, 'sample')} at these weights, "
            f"{config.n_run_samples:,} are needed; "
            "GPT-NeoX would repeat samples from the start, as compat gpt-neox does"
        )
