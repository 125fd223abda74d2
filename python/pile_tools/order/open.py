"""Opens orders: built ones, saved interventions, arrays of GPT-NeoX, and rows on disk or on a server.

An order on disk is a folder with `order.json` and GPT-NeoX's `.npy` files. Rows that are already in training
order, as in Pythia's published data, are an order without further files.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from pile_tools import _core, checked, manifest, publish
from pile_tools._core import TrainingOrder
from pile_tools.checked import MAX_SEED, Values
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError, PileError, UnknownTokenizerError
from pile_tools.manifest import ORDER_FILE, Manifest
from pile_tools.order.interventions import MAX_DEPTH, VIEW_FILE, applied
from pile_tools.order.order import (
    MAX_ROW_LENGTH,
    MAX_SEQ_LENGTH,
    PYTHIA_BATCH_SIZE,
    RULES,
    Order,
    Samples,
    arrays_stem,
    order_file,
)
from pile_tools.order.remote import RemoteRows, is_address
from pile_tools.publish import Target
from pile_tools.tokens import datasets as token_datasets
from pile_tools.tokens.concatenated import as_one
from pile_tools.types import Documents

#: The label of a position without a label, which PyTorch's loss ignores; GPT-NeoX pads labels with it.
_NO_LABEL = -100


def open_order(
    path: str | Path,
    *,
    row_length: int | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    compat: str | None = None,
) -> Order:
    """The order at a path or address, opened in constant time and checked against its dataset's fingerprint.

    Args:
        path: An order's folder or its `order.json`; the `..._shuffle_idx.npy` that GPT-NeoX wrote beside its
            dataset; or rows in training order: their folder, one of their shards, or an address
            `https://...` or `hf://datasets/...`.
        row_length: Tokens of a row, for rows; by default Pythia's 2,049. Without it, tokens with an `.idx`
            beside them are documents, unless every sequence is one such row.
        batch_size: Samples of a step, by default the order's; for rows Pythia's 1,024.
        dtype: Type of a token, for rows: `uint16` or `int32`; by default that of an `.idx` beside them, or
            `uint16`.
        compat: With `gpt-neox`, samples that GPT-NeoX's reader cannot read are those that it reads instead,
            see `Order.replaced_by_gpt_neox`; by default as the order was built, or the true samples.

    Raises:
        ConfigError: `row_length`, `batch_size`, `dtype` or `compat` is out of range, or for other orders.
        PileError: The base order of saved interventions has changed, or the tokenizer of words that they
            replace is not here.
        FormatError: This is not an order, or it was built for another dataset.
        OSError: A file cannot be read.
    """
    if compat not in (None, "gpt-neox"):
        raise ConfigError(f"no compat {compat!r}; there is gpt-neox")
    text = str(path)
    if row_length is not None and not 1 <= row_length <= MAX_ROW_LENGTH:
        raise ConfigError(f"row-length must be 1 to {MAX_ROW_LENGTH:,}, got {row_length:,}")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch-size must be at least 1, got {batch_size}")
    size = batch_size or PYTHIA_BATCH_SIZE
    if is_address(text):
        _refuse_compat(compat, text)
        rows = _of_rows(Path(text), RemoteRows(text, row_length, dtype), size)
        return dataclasses.replace(rows, address=text)
    path = Path(path)
    if text.endswith(".npy"):
        with publish.reading(Target.of(path.parent / ORDER_FILE)):
            return _with_rows_of(_of_arrays(path, batch_size, compat), row_length, dtype)
    file = order_file(path)
    with publish.reading(Target.of(file)):
        if not file.exists() or file.suffix == ".bin":
            # Of rows that are being replaced there may be only the scratch folder, `*.partial`: the core's
            # error then says that they are being replaced.
            if path.suffix == ".bin" or any(any(path.glob(name)) for name in ("*.bin", "*.partial")):
                _refuse_compat(compat, text)
                return _of_rows(path, _core.rows_order(path, row_length, dtype), size)
            what = f"no {ORDER_FILE} and no rows here" if path.exists() else "No such file or directory"
            raise FileNotFoundError(2, what, str(path))
        order = _with_rows_of(_of_manifest(file, compat), row_length, dtype)
    return order if batch_size is None else order.rebatch(batch_size=batch_size)


def _refuse_compat(compat: str | None, name: str) -> None:
    if compat is not None:
        raise ConfigError(f"rows have no samples that GPT-NeoX replaces; compat is for other orders ({name})")


def _with_rows_of(order: Order, row_length: int | None, dtype: str | None) -> Order:
    """The order, which has its own rows. Raises ConfigError if others are given."""
    n = order.samples.sample_length
    if row_length not in (None, n):
        raise ConfigError(
            f"rows of this order have {n:,} tokens, got row-length {row_length:,} ({order.name})"
        )
    if dtype not in (None, order.dataset.dtype):
        raise ConfigError(f"tokens of this order are {order.dataset.dtype}, got dtype {dtype} ({order.name})")
    return order


def _of_rows(path: Path, rows: Samples, batch_size: int) -> Order:
    return Order(path, rows, batch_size, len(rows) // batch_size, seed=None, manifest=None)


#: GPT-NeoX's names of index files, v1.0 and current, without the suffix of the array. `_ac`, allow chopped,
#: changes which documents the arrays have, and not how they are read.
_STEM = re.compile(
    r"(?P<prefix>.+)_(?P<name>(?:train|valid|test)(?:_[0-9]+)?)_indexmap_(?P<samples>[0-9]+|None)ns_"
    r"(?P<seq>[0-9]{1,10})sl_(?P<seed>[0-9]{1,20})s(?:_(?P<packing>packed|pack_until_overflow|unpacked)pi(?P<chopped>_ac)?)?"
)


def _of_arrays(path: Path, batch_size: int | None, compat: str | None) -> Order:
    """The order that GPT-NeoX wrote beside its dataset, described by the name of one of its arrays."""
    stem = arrays_stem(path)
    found = _STEM.fullmatch(stem)
    if found is None:
        raise FormatError(f"not a name of GPT-NeoX's index files ({path})")
    seq_length = int(found["seq"])
    if not 1 <= seq_length <= MAX_SEQ_LENGTH:
        lengths = f"{seq_length:,} tokens, expected 1 to {MAX_SEQ_LENGTH:,}"
        raise FormatError(f"names sequences of {lengths} ({path})")
    is_padded = found["packing"] in ("pack_until_overflow", "unpacked")
    samples = TrainingOrder(
        path.parent / stem,
        seq_length,
        path.parent / found["prefix"],
        is_padded=is_padded,
        as_gpt_neox=compat is not None,
    )
    _refuse_another_dataset(path, as_one(samples.dataset))
    steps = len(samples) // batch_size if batch_size else None
    return Order(path, samples, batch_size, steps, seed=int(found["seed"]), manifest=None)


def _refuse_another_dataset(array: Path, dataset: Documents) -> None:
    """Raises FormatError if an order beside its array says that it was built for another dataset."""
    file = array.parent / ORDER_FILE
    if not file.exists():
        return
    found = manifest.read(file)
    if any(entry["path"] == array.name for entry in found.outputs):
        known = [entry for entry in found.inputs if entry["role"] == "dataset"]
        if not any(token_datasets.is_of(dataset, entry) for entry in known):
            raise FormatError(_built_for_another(dataset, found))


def _built_for_another(dataset: Documents, found: Manifest) -> str:
    return f"built for another dataset than {dataset.prefix} is now; build it again ({found.path})"


def _of_manifest(file: Path, compat: str | None) -> Order:
    found = manifest.read(file)
    if found.kind != "order":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected an order ({file})")
    if found.checked_settings.text("rule", (*RULES, "view")) == "view":
        return _of_interventions(found, compat)
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
    if labels and settings.blend:
        raise FormatError(f"names labels of a blend, which cannot be read ({file})")
    return Order(
        path=file,
        samples=_core.blended_order(found.folder / settings.blend, parts) if settings.blend else parts[0],
        batch_size=settings.batch_size,
        steps=settings.steps,
        seed=settings.seed,
        manifest=found,
        labels=_part(found, settings, settings.stems[0], labels[0], padding=_NO_LABEL) if labels else None,
        made_for=settings.steps * settings.batch_size if settings.steps and settings.batch_size else None,
    )


def _of_interventions(found: Manifest, compat: str | None) -> Order:
    """The order of saved interventions, applied to their base, which must be unchanged."""
    settings = found.checked_settings
    settings.require_keys(("rule", "kind", "seq_length", "batch_size", "steps", "seed", "view"))
    path, sha256 = _base_order(found)
    _refuse_deep_interventions(path)
    table = checked.read_json(_view_file(found), what="a table of views")
    table.require_keys(("views",))
    if fingerprint(table.values) != settings.text("view"):
        raise FormatError(f"not the table that its {ORDER_FILE} names ({_view_file(found)})")
    order = open_order(path, compat=compat)
    if order.record.sha256 != sha256:
        raise PileError(f"the base order was replaced while it was opened; try again ({path})")
    for intervention in table.objects("views"):
        try:
            order = applied(order, intervention)
        except UnknownTokenizerError as err:
            # No option gives it: the words are those of the dataset's own tokenizer.
            raise PileError(f"words are replaced, for which the tokenizer is needed: {err}") from err
        except ConfigError as err:
            # The values are the file's, no one gave them.
            raise FormatError(f"{err} ({_view_file(found)})") from err
    size, steps = (settings.optional_count(key) for key in ("batch_size", "steps"))
    return dataclasses.replace(order, path=found.path, manifest=found, batch_size=size, steps=steps)


def _base_order(found: Manifest) -> tuple[Path, str]:
    """The path and SHA-256 of the base order of interventions, if it is unchanged.

    Raises:
        FormatError: No base order is named.
        PileError: The base order has changed since.
    """
    entry = found.input("order")
    if entry is None:
        raise FormatError(f"names no base order ({found.path})")
    path, sha256 = manifest.input_path(found, entry), manifest.required(found, entry, "sha256")
    if checked.sha256(path)[1] != sha256:
        raise PileError(f"the base order has changed since the interventions were saved ({path})")
    return path, sha256


def _refuse_deep_interventions(path: Path) -> None:
    """Raises FormatError for interventions on each other deeper than `MAX_DEPTH`, or in a cycle.

    Only manifests are read: opening an order in a cycle would exhaust the stack.
    """
    for _ in range(MAX_DEPTH):
        found = manifest.read(path)
        if found.settings.get("rule") != "view":
            return
        path, _ = _base_order(found)
    raise FormatError(f"more than {MAX_DEPTH} saved interventions on each other ({path})")


def _view_file(found: Manifest) -> Path:
    return manifest.output_path(found, {"path": VIEW_FILE})


@dataclass(frozen=True)
class _Settings:
    """The settings of an order's manifest that say how its arrays are read.

    Attributes:
        seq_length: Tokens that the model sees at once.
        extra: Tokens of a sample beyond `seq_length`.
        is_padded: Whether short samples are padded.
        is_as_gpt_neox: Whether samples are replaced as GPT-NeoX's reader replaces them.
        batch_size: Samples of a step, or None.
        steps: Steps that the order was built for, or None.
        seed: Seed of the shuffles.
        stems: File name prefixes of the arrays, one for each dataset.
        blend: File name prefix of the arrays that mix the datasets, or None for one dataset.
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
        """The settings of the manifest of an order without interventions. Raises FormatError."""
        values = found.checked_settings
        values.require_keys(
            ("rule", "seq_length", "stem", "batch_size", "steps", "seed"),
            ("samples", "epochs", "split", "part", "compat", "layout", "stems", "weights", "stages"),
        )

        # These record how the order was built. Reading does not need them, but a damaged manifest is refused.
        for key in ("samples", "epochs"):
            values.optional_count(key)
        for key in ("split", "part"):
            values.optional(key, values.text)
        values.optional("weights", lambda key: values.items_of(key, Values.number))
        if values.has("stages"):
            for stage in values.objects("stages"):
                stage.require_keys(("steps",))
                stage.integer("steps", 1)
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
            batch_size=values.optional_count("batch_size"),
            steps=values.optional_count("steps"),
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
        manifest.input_path(found, entry),
        extra=settings.extra,
        is_padded=settings.is_padded,
        padding=padding,
        as_gpt_neox=settings.is_as_gpt_neox,
    )
    dataset = as_one(samples.dataset)
    manifest.required(found, entry, "fingerprint")
    if not token_datasets.is_of(dataset, entry):
        raise FormatError(_built_for_another(dataset, found))
    return samples
