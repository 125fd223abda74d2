"""Imports a model: a Hugging Face folder or a checkpoint of GPT-NeoX becomes one folder of ours, verified.

The output is a Hugging Face folder of safetensors with a manifest of its inputs. Weights keep their dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pile_tools import files, manifest, publish
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.tokenizers import TokenizerFile, find_tokenizer, tokenizer_in
from trainer.checkpoint import card, hf, hf_folder, weights
from trainer.checkpoint.config_json import read_shape
from trainer.model.neox import GPTNeoX
from trainer.neox import checkpoints, yaml_files
from trainer.neox.translate import model_shape
from trainer.shape import ModelShape

KIND = "model"


class Source(Protocol):
    """A model on disk, in any of the formats."""

    @property
    def what(self) -> str:
        """The format in words."""

    @property
    def step(self) -> int | None:
        """Updates the model was trained for, if that is known."""

    @property
    def paths(self) -> list[Path]:
        """Files that are read, the tokenizer's aside."""

    def shape(self) -> ModelShape:
        """The model's shape. Raises FormatError, ConfigError, OSError."""

    def tensors(self, shape: ModelShape, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The weights by name, with the shapes of the expected ones. Raises FormatError, OSError."""


@dataclass(frozen=True)
class HuggingFace:
    """A Hugging Face folder, whole or in shards; see `trainer.checkpoint.weights`."""

    folder: Path
    what: str = "Hugging Face"
    step: int | None = None

    @property
    def paths(self) -> list[Path]:
        """The config, and the files of weights."""
        return [self.folder / hf.CONFIG_FILE, *weights.weight_files(self.folder)]

    def shape(self) -> ModelShape:
        """The shape that `config.json` describes."""
        return read_shape(self.folder / hf.CONFIG_FILE)

    def tensors(self, shape: ModelShape, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The weights, file by file."""
        return weights.each_weight(self.folder, expected)


@dataclass(frozen=True)
class GPTNeoXCheckpoint:
    """A checkpoint of GPT-NeoX, and the configuration that says what its weights mean."""

    checkpoint: checkpoints.Checkpoint
    configurations: Sequence[Path]
    what: str = "GPT-NeoX"

    @property
    def step(self) -> int | None:
        """The number in the folder's name."""
        return self.checkpoint.step

    @property
    def paths(self) -> list[Path]:
        """The configuration, and the files of all layers and ranks."""
        return [*self.configurations, *self.checkpoint.all_files()]

    def shape(self) -> ModelShape:
        """The shape by the configuration; the vocabulary is as large as the embedding."""
        values = yaml_files.read_files(self.configurations)
        vocab_size = checkpoints.vocab_size(self.checkpoint)
        try:
            return model_shape(values, vocab_size)
        except (ConfigError, FormatError) as err:
            raise FormatError(f"{err} ({', '.join(map(str, self.configurations))})") from err

    def tensors(self, shape: ModelShape, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The merged weights, layer by layer."""
        return checkpoints.check_shapes(
            checkpoints.tensors(self.checkpoint, shape), expected, self.checkpoint
        )


def find_source(folder: Path, configurations: Sequence[Path]) -> Source:
    """The model in a folder.

    Args:
        folder: A Hugging Face folder, or one of GPT-NeoX: of a step, or of a run, whose last step it is.
        configurations: YAML files, for a checkpoint of GPT-NeoX that has none beside it.

    Raises:
        FormatError: Neither of the two, or files are missing.
        ConfigError: A configuration for a folder that has its own, or none for one that needs it.
        OSError: The folder cannot be read.
    """
    if checkpoints.is_checkpoint(folder):
        found = checkpoints.find(folder)
        used = list(configurations) or found.configurations()
        if not used:
            raise ConfigError(f"no configs/*.yml with the checkpoint: give them by --config ({folder})")
        return GPTNeoXCheckpoint(found, used)
    if not (folder / hf.CONFIG_FILE).is_file():
        # For the system's own error if the folder is missing.
        next(folder.iterdir(), None)
        raise FormatError(f"no model of Hugging Face or GPT-NeoX: no config.json or layer files ({folder})")
    if configurations:
        raise ConfigError(f"--config is for checkpoints of GPT-NeoX; this folder has its own ({folder})")
    return HuggingFace(folder)


def run(
    source: Source, output: Path, tokenizer: TokenizerFile | None, *, force: bool
) -> tuple[Manifest, bool]:
    """Imports a model to the folder `output`, unless it is there already.

    Returns:
        The manifest, and whether the model was imported now.

    Raises:
        FormatError, ConfigError: The source is damaged or is no model that ours can be.
        OutputExistsError: Other output exists, and `force` is off.
        OSError: A file cannot be read or written.
    """
    inputs: list[Entry] = [
        {"role": "model", "path": manifest.relative(path, output), "bytes": path.stat().st_size}
        for path in source.paths
    ]
    if tokenizer is not None:
        inputs.append(tokenizer.entry(output))
    settings = {"format": source.what, "step": source.step}
    return publish.make(
        Target.of(output / MANIFEST_FILE),
        Request(KIND, settings, inputs),
        lambda scratch: _build(scratch, source, output, tokenizer),
        force=force,
        # Certain before the work; the names of the weights depend on how many shards they need.
        names=[hf.CONFIG_FILE],
    )


def _build(scratch: Path, source: Source, output: Path, tokenizer: TokenizerFile | None) -> Built:
    versions = {path: files.version(path) for path in source.paths}
    entries = [manifest.file_entry(path, output, role="model") for path in source.paths]
    shape = source.shape()
    known = tokenizer.load() if tokenizer else None
    if tokenizer is not None and known is not None:
        shape.refuse_tokenizer(known.vocab_size, tokenizer.path)
    with torch.device("meta"):
        expected = GPTNeoX(shape).state_dict()
    names, dtype = hf_folder.write_weights(scratch, source.tensors(shape, expected))
    data = tokenizer.path.read_bytes() if tokenizer else None
    text = _card(source, shape, dtype)
    names += hf_folder.write_about(scratch, shape, dtype, text, known, data)
    for path, version in versions.items():
        if files.version(path) != version:
            raise PileError(f"changed while it was read; run the command again ({path})")
    if tokenizer is not None:
        entries.append(tokenizer.entry(output))
    summary = {"n_parameters": shape.n_parameters, "vocab_size": shape.vocab_size, "dtype": dtype}
    return Built(names, summary, entries)


def _card(source: Source, shape: ModelShape, dtype: str) -> str:
    rows = [*card.shape_rows(shape), ("stored in", dtype)]
    if source.step is not None:
        rows.insert(0, ("step", f"{source.step:,}"))
    about = (
        f"Imported by pile-tools from a checkpoint of {source.what}, whose files manifest.json lists with "
        f"their checksums. The data and the order that it was trained on are not known here."
    )
    facts = {"step": source.step, "imported_from": source.what}
    return card.text("A GPT-NeoX language model", about, rows, facts)


def tokenizer_of(folder: Path, given: Path | None) -> TokenizerFile | None:
    """The tokenizer that is given, or the one of a Hugging Face folder; None if there is neither."""
    return find_tokenizer(given) if given is not None else tokenizer_in(folder)
