"""Reads checkpoints of GPT-NeoX: the weights of all model-parallel ranks, merged layer by layer.

    global_step9/layer_00-model_00-model_states.pt   embedding; 02 to L+1 blocks, L+3 norm, L+4 output
    global_step9/mp_rank_00_model_states.pt          without pipeline: `module`, with `sequential.{i}.` names
    configs/*.yml, beside or in the folder           the configuration that it was trained with

Layers 01 and L+2 have no weights. Tensors keep their dtype. No pickle is executed: a file that names anything
but tensors, and what GPT-NeoX's random states are made of, is refused before it is loaded.

Source: GPT-NeoX, `tools/ckpts/convert_neox_to_hf.py`, and `tools/convert_to_hf.py` of its version 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pile_tools import checked
from pile_tools.errors import FormatError
from pile_tools.terminal import counted
from trainer.checkpoint.weights import TENSOR_GLOBALS, check_tensor, check_values, read_pickled
from trainer.shape import ModelShape

_LAYER_FILE = re.compile(r"layer_([0-9]{2,4})-model_([0-9]{2,4})-model_states\.pt")
_RANK_FILE = re.compile(r"mp_rank_([0-9]{2,4})_model_states\.pt")
_STEP_FOLDER = re.compile(r"global_step([0-9]{1,15})")

#: What the states of random numbers are made of, beside the weights in `mp_rank` files. Nothing reads them.
_OTHER_GLOBALS = frozenset({("_codecs", "encode"), ("torch", "Size")})
_NUMPY_GLOBALS = frozenset(
    {
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
        *(("numpy", "ndarray"), ("numpy", "dtype")),
    }
)


#: Makes one tensor of the parts of all ranks.
_Merge = Callable[[list[Tensor]], Tensor]

#: Tensors of a layer by GPT-NeoX's names: the name in Hugging Face's files, and how parts are merged.
_Layer = Mapping[str, tuple[str, _Merge]]


def _concatenated(dim: int) -> _Merge:
    return lambda parts: torch.cat(parts, dim=dim)


def _summed(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).float().sum(dim=0).to(parts[0].dtype)


def _averaged(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).float().mean(dim=0).to(parts[0].dtype)


#: Tensors of a block: their names in the versions of GPT-NeoX, the name in Hugging Face's files, and how the
#: parts of model-parallel ranks make one in a parallel block: each rank adds its bias of the row-parallel
#: layers, `dense` and `dense_4h_to_h`, to its part of the sum. See `_block` for sequential ones.
_BLOCK: dict[str, tuple[tuple[str, ...], _Merge]] = {
    "input_layernorm.weight": ((), _averaged),
    "input_layernorm.bias": ((), _averaged),
    "post_attention_layernorm.weight": (("mlp.layer_norm_weight",), _averaged),
    "post_attention_layernorm.bias": (("mlp.layer_norm_bias",), _averaged),
    "attention.query_key_value.weight": (("attention.qkv.weight",), _concatenated(0)),
    "attention.query_key_value.bias": (("attention.qkv.bias",), _concatenated(0)),
    "attention.dense.weight": (("attention.proj.weight",), _concatenated(1)),
    "attention.dense.bias": (("attention.proj.bias",), _summed),
    "mlp.dense_h_to_4h.weight": (("mlp.linear1.weight", "mlp.fc1_weight"), _concatenated(0)),
    "mlp.dense_h_to_4h.bias": (("mlp.linear1.bias", "mlp.fc1_bias"), _concatenated(0)),
    "mlp.dense_4h_to_h.weight": (("mlp.linear2.weight", "mlp.fc2_weight"), _concatenated(1)),
    "mlp.dense_4h_to_h.bias": (("mlp.linear2.bias", "mlp.fc2_bias"), _summed),
}

_EMBEDDING: _Layer = {"word_embeddings.weight": ("gpt_neox.embed_in.weight", _concatenated(0))}
_NORM: _Layer = {
    "norm.weight": ("gpt_neox.final_layer_norm.weight", _averaged),
    "norm.bias": ("gpt_neox.final_layer_norm.bias", _averaged),
}
_OUTPUT: _Layer = {"final_linear.weight": ("embed_out.weight", _concatenated(0))}

#: Buffers: masks, rotary frequencies and the scales of TransformerEngine.
_BUFFER = re.compile(r"(attention\.(bias|masked_bias)|.*rotary_emb\.inv_freq|.*_extra_state)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of GPT-NeoX on disk.

    Attributes:
        folder: The folder with its files.
        files: Its files with weights, by layer and rank; one entry for each rank under -1 without pipeline.
        n_ranks: Model-parallel ranks.
        step: Updates it was trained for, by its folder's name, if that says so.
    """

    folder: Path
    files: dict[int, list[Path]]
    n_ranks: int
    step: int | None

    @property
    def has_layer_files(self) -> bool:
        """Whether each layer has files of its own."""
        return -1 not in self.files

    def all_files(self) -> list[Path]:
        """The files with weights, in the order in which they are read."""
        return [path for layer in sorted(self.files) for path in self.files[layer]]

    def configurations(self) -> list[Path]:
        """The YAML files that were saved with it, in its folder or in the folder of the run; may be none."""
        for parent in (self.folder, self.folder.parent):
            if found := sorted((parent / "configs").glob("*.y*ml")):
                return found
        return []


def is_checkpoint(source: Path) -> bool:
    """Whether a folder, or the step that its file `latest` names, has files of GPT-NeoX's checkpoints."""
    folder = _step_folder(source)
    return folder.is_dir() and any(
        _LAYER_FILE.fullmatch(path.name) or _RANK_FILE.fullmatch(path.name) for path in folder.iterdir()
    )


def find(source: Path) -> Checkpoint:
    """The checkpoint in a folder, or the last one of a run's folder.

    Raises:
        FormatError: Files of a rank or layer are missing, or there are two.
        OSError: The folder cannot be read.
    """
    folder = _step_folder(source)
    found: dict[tuple[int, int], Path] = {}
    whole: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.iterdir()):
        if (match := _LAYER_FILE.fullmatch(path.name)) is not None:
            files, key = found, (int(match[1]), int(match[2]))
        elif (match := _RANK_FILE.fullmatch(path.name)) is not None:
            files, key = whole, (-1, int(match[1]))
        else:
            continue
        # A number may have more zeros in one name than in another.
        if (other := files.setdefault(key, path)) != path:
            raise FormatError(f"{other.name} and {path.name} are of one layer and rank ({folder})")
    found = found or whole
    if not found:
        raise FormatError(f"no layer_NN-model_NN-model_states.pt or mp_rank_NN_model_states.pt ({folder})")
    layers, ranks = sorted({layer for layer, _ in found}), sorted({rank for _, rank in found})
    by_layer: dict[int, list[Path]] = {}
    for layer in layers:
        for rank in range(ranks[-1] + 1):
            if (layer, rank) not in found:
                which = f"rank {rank}" if layer < 0 else f"layer {layer:02}, model-parallel rank {rank:02}"
                raise FormatError(f"no file of {which}, but of rank {ranks[-1]:02} ({folder})")
            by_layer.setdefault(layer, []).append(found[layer, rank])
    match = _STEP_FOLDER.fullmatch(folder.name)
    return Checkpoint(folder, by_layer, len(ranks), int(match[1]) if match else None)


def _step_folder(source: Path) -> Path:
    """The folder of a step: `source`, or what `latest` in it names, as DeepSpeed writes it."""
    latest = source / "latest"
    if not latest.is_file():
        return source
    with checked.open_regular(latest) as file:
        name = file.read(100).decode(errors="replace").strip()
    return source / name if _STEP_FOLDER.fullmatch(name) else source


def vocab_size(checkpoint: Checkpoint) -> int:
    """Rows of the embedding of all ranks. Raises FormatError, OSError."""
    for name, tensor in tensors(checkpoint, None):
        if name == "gpt_neox.embed_in.weight":
            if tensor.ndim != 2:
                raise FormatError(
                    f"word_embeddings.weight has {tensor.ndim} dimensions ({checkpoint.folder})"
                )
            return tensor.shape[0]
    raise FormatError(f"no tensor word_embeddings.weight ({checkpoint.folder})")


def tensors(checkpoint: Checkpoint, shape: ModelShape | None) -> Iterator[tuple[str, Tensor]]:
    """The merged weights by the names of Hugging Face's files, layer by layer.

    Args:
        checkpoint: From `find`.
        shape: The model's, for which each layer must be here; None: only the embedding is read.

    Raises:
        FormatError: A foreign or damaged file, or a tensor that is missing or unknown.
        OSError: A file cannot be read.
    """
    n_layers = 0 if shape is None else shape.n_layers
    layers: list[tuple[int, _Layer]] = [(0, _EMBEDDING)]
    if shape is not None:
        layers += [(i + 2, _block(i, shape)) for i in range(n_layers)]
        layers += [(n_layers + 3, _NORM), (n_layers + 4, _OUTPUT)]
        _check_layers(checkpoint, [layer for layer, _ in layers])
    parts = _layer_parts(checkpoint) if checkpoint.has_layer_files else _sequential_parts(checkpoint)
    for layer, names in layers:
        by_rank = parts(layer)
        _check_names(by_rank, names, layer, checkpoint)
        for stored, (name, merge) in names.items():
            found = [_named(rank, stored) for rank in by_rank]
            try:
                yield name, found[0] if len(found) == 1 else merge(found)
            except (RuntimeError, TypeError, IndexError) as err:
                first = str(err).splitlines()[0]
                raise FormatError(
                    f"{stored} of layer {layer:02} cannot be merged: {first} ({checkpoint.folder})"
                ) from err


def check_shapes(
    found: Iterator[tuple[str, Tensor]], expected: dict[str, Tensor], checkpoint: Checkpoint
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `tensors`, each with the shape that the model has. Raises FormatError."""
    for name, tensor in found:
        check_tensor(name, tensor, expected[name], checkpoint.folder)
        yield name, tensor


def _block(number: int, shape: ModelShape) -> _Layer:
    # In a sequential block the parts are summed first, and each rank adds the same whole bias to the sum.
    # GPT-NeoX's converter sums these biases too, so its bias is as many times too large as there are ranks.
    of_biases = _summed if shape.parallel_residual else _averaged
    return {
        name: (f"gpt_neox.layers.{number}.{name}", of_biases if merge is _summed else merge)
        for name, (_, merge) in _BLOCK.items()
    }


def _check_layers(checkpoint: Checkpoint, expected: list[int]) -> None:
    if not checkpoint.has_layer_files:
        return
    found = sorted(checkpoint.files)
    if found != expected:
        other = sorted(set(found) ^ set(expected))[0]
        what = "is missing of the model" if other in expected else "is not of the model"
        blocks = counted(len(expected) - 3, "block")
        raise FormatError(f"layer {other:02} {what}, which has {blocks} ({checkpoint.folder})")


_Parts = Callable[[int], list[dict[str, Tensor]]]


def _layer_parts(checkpoint: Checkpoint) -> _Parts:
    """Reads the files of one layer at a time: a model of 20 billion weights need not fit in memory."""

    def read(layer: int) -> list[dict[str, Tensor]]:
        if layer not in checkpoint.files:
            raise FormatError(f"no files of layer {layer:02} ({checkpoint.folder})")
        return [_tensors_of(read_pickled(path, TENSOR_GLOBALS), path) for path in checkpoint.files[layer]]

    return read


def _sequential_parts(checkpoint: Checkpoint) -> _Parts:
    """Reads whole ranks, whose tensors are named `sequential.{layer}.{name}`."""
    ranks = []
    for path in checkpoint.files[-1]:
        values = read_pickled(path, TENSOR_GLOBALS | _OTHER_GLOBALS, _NUMPY_GLOBALS)
        module = values.get("module") if isinstance(values, dict) else None
        if module is None:
            raise FormatError(f"has no weights under 'module': give the folder with layer_ files ({path})")
        ranks.append(_tensors_of(module, path))

    def read(layer: int) -> list[dict[str, Tensor]]:
        prefix = f"sequential.{layer}."
        return [
            {name.removeprefix(prefix): tensor for name, tensor in rank.items() if name.startswith(prefix)}
            for rank in ranks
        ]

    return read


def _tensors_of(values: Any, path: Path) -> dict[str, Tensor]:
    """Tensors by name, buffers aside. Raises FormatError for anything else."""
    if not isinstance(values, dict):
        raise FormatError(f"expected tensors by name ({path})")
    found = {}
    for name, tensor in values.items():
        if isinstance(name, str) and _BUFFER.fullmatch(re.sub(r"^sequential\.[0-9]+\.", "", name)):
            continue
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise FormatError(f"expected tensors by name, found {str(name)[:40]!r} ({path})")
        # Before it is merged with the parts of other ranks, which takes memory for all its values.
        check_values(name, tensor, path)
        found[name] = tensor
    return found


def _aliases(stored: str) -> tuple[str, ...]:
    return (stored, *_BLOCK[stored][0]) if stored in _BLOCK else (stored,)


def _named(rank: dict[str, Tensor], stored: str) -> Tensor:
    return next(rank[alias] for alias in _aliases(stored) if alias in rank)


def _check_names(by_rank: list[dict[str, Tensor]], names: _Layer, layer: int, checkpoint: Checkpoint) -> None:
    """Raises FormatError unless a layer has each of its tensors once, and no others, in all ranks."""
    for number, rank in enumerate(by_rank):
        where = f"layer {layer:02}, model-parallel rank {number:02} ({checkpoint.folder})"
        known = set()
        for stored in names:
            found = [alias for alias in _aliases(stored) if alias in rank]
            if len(found) != 1:
                what = "no tensor" if not found else "several tensors for"
                raise FormatError(f"{what} {stored}: {where}")
            known.add(found[0])
        if unknown := sorted(set(rank) - known):
            raise FormatError(f"unknown tensor {unknown[0][:60]!r}: {where}")
