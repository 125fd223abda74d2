"""Joins orders into the order of a run of several stages: pretraining, then annealing.

The result is a blend, in GPT-NeoX's format, of all datasets of the stages' orders, whose samples are those of
the first stage's steps, then those of the second's, and so on. So all that reads orders reads it: batches,
the steps that saw a text or a document, the subsets over the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, checked, manifest, publish
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, FormatError
from pile_tools.jobs.merge import refuse_mixture
from pile_tools.jobs.order import BLEND_ARRAYS
from pile_tools.manifest import ORDER_FILE, Entry, Manifest, Request
from pile_tools.order.open import open_order
from pile_tools.order.order import ARRAYS, RULES, STAGES_RULE, Order
from pile_tools.publish import Built, Target
from pile_tools.tables import mapped_array
from pile_tools.terminal import counted
from pile_tools.tokens import datasets
from pile_tools.tokens.concatenated import prefixes

#: Datasets of all stages: GPT-NeoX stores the dataset of a sample as a byte.
MAX_DATASETS = 255

#: Samples of the arrays that are written at once.
_CHUNK = 1 << 22

#: Name of the arrays that say of which stage and dataset each sample is.
_STEM = "stages"


@dataclass(frozen=True)
class Stage:
    """Some steps of a run on an order.

    Attributes:
        order: The order's folder, or its `order.json`.
        steps: Steps, the first ones of the order; None for those that it was built for.
    """

    order: Path
    steps: int | None = None


@dataclass(frozen=True)
class _Source:
    """An opened stage: its order's manifest, its steps, the stems of its arrays and its datasets."""

    order: Order
    steps: int
    stems: list[str]
    blend: str | None
    datasets: list[Entry]

    @property
    def record(self) -> Manifest:
        return self.order.record


def run(
    stages: Sequence[Stage], folder: Path, *, batch_size: int | None = None, force: bool = False
) -> tuple[Manifest, bool]:
    """Builds the order of several stages; returns its manifest, and whether it was made now.

    Args:
        stages: At least two, in training order.
        folder: The folder of the new order.
        batch_size: Samples of a step; by default that of the orders, which must agree.
        force: Replace another order.

    Raises:
        OutputExistsError: The folder holds another order and `force` is off.
        ConfigError: The orders do not fit each other, or one has too few samples.
        PileError: Their datasets were made with different tokenizers.
        FormatError: An order is damaged.
        OSError: A file cannot be read or written.
    """
    if len(stages) < 2:
        raise ConfigError("give at least two orders")
    orders = [open_order(stage.order) for stage in stages]
    size = _batch_size(orders, batch_size)
    sources = [_source(order, stage, size) for order, stage in zip(orders, stages, strict=True)]
    _check_agree(sources)
    read = [prefix for order in orders for prefix in prefixes(order.dataset)]
    refuse_mixture(read, [datasets.manifest_of(prefix) for prefix in read])
    first = sources[0].record.checked_settings
    settings: Settings = {
        "rule": STAGES_RULE,
        "seq_length": orders[0].seq_length,
        "steps": sum(source.steps for source in sources),
        "batch_size": size,
        "seed": None,
        "compat": first.values.get("compat"),
        "layout": _layout(sources[0]),
        "stem": _STEM,
        "stems": [_copied(number, stem) for number, source in enumerate(sources) for stem in source.stems],
        "stages": [{"steps": source.steps} for source in sources],
    }
    inputs: list[Entry] = [
        {**entry, "path": manifest.relative(manifest.input_path(source.record, entry), folder)}
        for source in sources
        for entry in source.datasets
    ]
    inputs += [source.record.entry(folder, role="stage") for source in sources]
    request = Request("order", settings, inputs)

    def build(partial: Path) -> Built:
        names = [name for number, source in enumerate(sources) for name in _copy(source, number, partial)]
        names += _write_blend(sources, size, partial)
        n_samples = settings["steps"] * size
        return Built(names, {"n_samples": n_samples}, inputs)

    or_else = ", another folder keeps both"
    return publish.make(Target.of(folder / ORDER_FILE), request, build, force=force, or_else=or_else)


def _batch_size(orders: list[Order], given: int | None) -> int:
    sizes = {order.batch_size for order in orders}
    if given is None and (len(sizes) > 1 or None in sizes):
        raise ConfigError(f"the orders do not name one batch size; give batch-size ({orders[0].name})")
    return given or orders[0].step_size()


def _source(order: Order, stage: Stage, batch_size: int) -> _Source:
    """An order as a stage. Raises ConfigError if it cannot be one."""
    record = order.record
    settings = record.checked_settings
    rule = settings.text("rule")
    if rule not in RULES or rule == STAGES_RULE:
        raise ConfigError(f"interventions and orders of stages cannot be a stage ({order.name})")
    if order.labels is not None:
        raise ConfigError(f"an order with labels cannot be a stage ({order.name})")
    # The run is the samples that the order was built for, in steps of any size.
    steps = stage.steps or (order.steps and order.rebatch(batch_size=batch_size).steps)
    if steps is None:
        raise ConfigError(f"the order names no steps; give them as ORDER:STEPS ({order.name})")
    if stage.steps is None and len(order) % batch_size:
        what = f"the {counted(len(order), 'sample')} of its run are no whole steps of {batch_size:,}"
        raise ConfigError(f"{what}; give the steps as ORDER:STEPS ({order.name})")
    if steps * batch_size > len(order.samples):
        needed = f"{counted(steps, 'step')} of {batch_size} need {counted(steps * batch_size, 'sample')}"
        raise ConfigError(f"{needed}, the order has {len(order.samples):,} ({order.name})")
    is_blend = settings.has("stems")
    stem = settings.file_name("stem")
    return _Source(
        order=order,
        steps=steps,
        stems=settings.items_of("stems", checked.Values.file_name) if is_blend else [stem],
        blend=stem if is_blend else None,
        datasets=[entry for entry in record.inputs if entry["role"] == "dataset"],
    )


def _layout(source: _Source) -> Settings:
    # Null counts as missing, as when an order is opened.
    layout: Settings | None = source.record.settings.get("layout")
    return layout or {"extra": 1, "is_padded": False}


def _check_agree(sources: list[_Source]) -> None:
    """Raises ConfigError unless all orders have samples of one kind and few enough datasets."""
    first = sources[0]
    for other in sources[1:]:
        if other.order.seq_length != first.order.seq_length:
            lengths = f"{other.order.seq_length:,} and {first.order.seq_length:,} tokens"
            raise ConfigError(f"stages of {lengths} a sample ({other.order.name})")
        same = _layout(other) == _layout(first)
        if not same or other.record.settings.get("compat") != first.record.settings.get("compat"):
            raise ConfigError(f"the samples of the stages are padded or read otherwise ({other.order.name})")
    n = sum(len(source.stems) for source in sources)
    if n > MAX_DATASETS:
        raise ConfigError(f"{n:,} datasets in all stages, at most {MAX_DATASETS} are possible")


def _copied(number: int, stem: str) -> str:
    """The stem of a stage's arrays in the new order: two stages may have arrays of the same name."""
    return f"{_STEM}_{number}_{stem}"


def _copy(source: _Source, number: int, folder: Path) -> list[str]:
    """Copies the arrays of a stage, which the core reads there; returns their names.

    Raises:
        FormatError: An array is not the one that the order's manifest lists.
    """
    names = []
    for stem in source.stems:
        for array in ARRAYS:
            name, copied = f"{stem}_{array}.npy", f"{_copied(number, stem)}_{array}.npy"
            path = source.record.folder / name
            checked.open_regular(path).close()
            shutil.copyfile(path, folder / copied)
            _check_listed(source, path, folder / copied)
            names.append(copied)
    return names


def _check_listed(source: _Source, path: Path, copied: Path) -> None:
    """Raises FormatError if an array, or a copy of it, is not the one that the order's manifest lists."""
    listed = [entry for entry in source.record.outputs if entry["path"] == path.name]
    if not all(manifest.matches(copied, entry) for entry in listed):
        raise FormatError(f"not the array that {ORDER_FILE} lists: damaged or replaced ({path})")


def _write_blend(sources: list[_Source], batch_size: int, folder: Path) -> list[str]:
    """Writes the dataset and the index of each sample of the run; returns the names of both arrays."""
    n_samples = sum(source.steps for source in sources) * batch_size
    names = [f"{_STEM}_{array}.npy" for array in BLEND_ARRAYS]
    for number, (name, dtype) in enumerate(zip(names, (np.uint8, np.int64), strict=True)):
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (n_samples,)}
        with (folder / name).open("xb") as file:
            # Not by a map, in which a full disk kills the process.
            np.lib.format.write_array_header_1_0(file, header)
            first_dataset = 0
            for source in sources:
                for values in _of_stage(source, source.steps * batch_size, first_dataset)[number]:
                    file.write(values.astype(dtype).tobytes())
                first_dataset += len(source.stems)
    _core.check_mapped()
    return names


def _of_stage(
    source: _Source, n: int, first_dataset: int
) -> tuple[Iterator[NDArray[np.int64]], Iterator[NDArray[np.int64]]]:
    """The datasets of the first `n` samples of a stage, and their indices, in chunks."""
    parts = [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
    if source.blend is None:
        datasets = (np.full(part.stop - part.start, first_dataset) for part in parts)
        return datasets, (np.arange(part.start, part.stop) for part in parts)
    paths = [source.record.folder / f"{source.blend}_{array}.npy" for array in BLEND_ARRAYS]
    for path in paths:
        checked.open_regular(path).close()
        _check_listed(source, path, path)
    of_dataset, of_sample = map(mapped_array, paths)
    n_datasets = len(source.stems)
    return (
        (_below(n_datasets, of_dataset[part], paths[0]) + first_dataset for part in parts),
        (_below(checked.MAX_COUNT, of_sample[part], paths[1]) for part in parts),
    )


def _below(n: int, values: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """The values of a blend's array as int64. Raises FormatError for one that is not from 0 to `n` - 1."""
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= n):
        raise FormatError(f"an entry is not from 0 to {n - 1:,}: the index is damaged ({path})")
    return values.astype(np.int64)
