"""Writes a Hugging Face folder tensor by tensor: the weights in shards, config, tokenizer and model card."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from pile_tools import Tokenizer, files
from trainer import failures
from trainer.checkpoint import card, hf
from trainer.checkpoint.weights import INDEX_SUFFIX
from trainer.shape import ModelShape

#: Largest shard in bytes, one tensor aside that is larger: the default of transformers 4.
MAX_SHARD_BYTES = 5 * 10**9


def write_weights(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int = MAX_SHARD_BYTES
) -> tuple[list[str], str]:
    """Writes tensors as one safetensors file, or as shards with an index.

    Returns:
        The names of the files, and the dtype of most bytes as torch names it without its prefix.

    Raises:
        OSError: A file cannot be written.
    """
    shards: list[list[str]] = []
    waiting: dict[str, Tensor] = {}
    n_waiting, total = 0, 0
    by_dtype: dict[str, int] = {}
    storages: set[int] = set()

    def flush() -> None:
        nonlocal n_waiting
        path = folder / _part(len(shards))
        with failures.named(path), files.of_usual_mode(path):
            save_file(waiting, path, metadata={"format": "pt"})
        shards.append(list(waiting))
        waiting.clear()
        storages.clear()
        n_waiting = 0

    for name, tensor in tensors:
        n_bytes = tensor.numel() * tensor.element_size()
        if waiting and n_waiting + n_bytes > max_shard_bytes:
            flush()
        # safetensors refuses tensors that are not contiguous, and two of one storage, such as tied weights in
        # a pickle. A part of a storage would keep all of it in memory.
        kept = tensor.contiguous()
        storage = kept.untyped_storage()
        if storage.nbytes() > n_bytes or storage.data_ptr() in storages:
            kept = kept.clone()
        storages.add(kept.untyped_storage().data_ptr())
        waiting[name] = kept
        n_waiting, total = n_waiting + n_bytes, total + n_bytes
        dtype = str(tensor.dtype).removeprefix("torch.")
        by_dtype[dtype] = by_dtype.get(dtype, 0) + n_bytes
    flush()
    return _renamed(folder, shards, total), max(by_dtype, key=lambda dtype: by_dtype[dtype])


def _part(number: int) -> str:
    return f"part-{number}.safetensors"


def _renamed(folder: Path, shards: list[list[str]], total: int) -> list[str]:
    """Gives the shards their final names, which have their number, and writes the index."""
    if len(shards) == 1:
        (folder / _part(0)).rename(folder / hf.WEIGHTS_FILE)
        return [hf.WEIGHTS_FILE]
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for number, name in enumerate(names):
        (folder / _part(number)).rename(folder / name)
    weight_map = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
    index = hf.WEIGHTS_FILE + INDEX_SUFFIX
    _write_json(folder / index, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return [*names, index]


def _write_json(path: Path, values: object) -> None:
    """Writes a JSON file. Raises OSError."""
    with failures.named(path):
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_about(
    folder: Path,
    shape: ModelShape,
    dtype: str,
    model_card: str,
    tokenizer: Tokenizer | None,
    tokenizer_data: bytes | None,
) -> list[str]:
    """Writes all but the weights: config, tokenizer if there is one, and model card.

    Returns:
        The names of the files.

    Raises:
        OSError: A file cannot be written.
    """
    eod = tokenizer.eod if tokenizer else None
    _write_json(folder / hf.CONFIG_FILE, hf.model_config(shape, dtype, eod[1] if eod else None))
    names = [hf.CONFIG_FILE]
    if tokenizer is not None and tokenizer_data is not None:
        with failures.named(folder / hf.TOKENIZER_FILE):
            (folder / hf.TOKENIZER_FILE).write_bytes(tokenizer_data)
        config = hf.tokenizer_config(eod[0] if eod else None, shape.max_positions)
        _write_json(folder / hf.TOKENIZER_CONFIG_FILE, config)
        names += [hf.TOKENIZER_FILE, hf.TOKENIZER_CONFIG_FILE]
    with failures.named(folder / card.CARD_FILE):
        (folder / card.CARD_FILE).write_text(model_card, encoding="utf-8")
    return [*names, card.CARD_FILE]
