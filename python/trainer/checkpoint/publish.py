"""Writes checkpoints: complete Hugging Face folders `OUTPUT/checkpoints/step{N}`, after N updates."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from pile_tools import manifest
from pile_tools.manifest import MANIFEST_FILE
from trainer.checkpoint import folders, hf
from trainer.checkpoint.load import checkpoints_folder
from trainer.run import Run


def publish(run: Run, model: nn.Module, step: int) -> Path:
    """Writes the weights after `step` updates as a folder that appears whole, and returns it."""
    final = folders.step_folder(checkpoints_folder(run.config.output), step)
    folder = folders.begin(final)
    dtype = _write_weights(model, folder / hf.WEIGHTS_FILE)
    eod = run.tokenizer.eod if run.tokenizer else None
    _write_json(folder / hf.CONFIG_FILE, hf.model_config(run.recipe.shape, dtype, eod[1] if eod else None))
    if run.tokenizer_file is not None:
        (folder / hf.TOKENIZER_FILE).write_bytes(run.tokenizer_file.path.read_bytes())
        name = eod[0] if eod else None
        config = hf.tokenizer_config(name, run.recipe.shape.max_positions)
        _write_json(folder / hf.TOKENIZER_CONFIG_FILE, config)
    _write_manifest(run, folder, step)
    folders.finish(final)
    return final


def _write_weights(model: nn.Module, path: Path) -> str:
    """Writes the weights and returns their dtype's name."""
    # DeepSpeed makes weights views of one flat tensor; a copy each is what safetensors can store.
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})
    return str(next(iter(weights.values())).dtype).removeprefix("torch.")


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_manifest(run: Run, folder: Path, step: int) -> None:
    outputs = [manifest.file_entry(path, folder) for path in sorted(folder.iterdir())]
    settings = {"step": step, **run.recipe.settings()}
    request = manifest.Request("checkpoint", settings, run.inputs(folder))
    summary = {"n_parameters": run.recipe.shape.n_parameters, "tokens": step * run.tokens_per_step}
    manifest.write(folder / MANIFEST_FILE, request, outputs, summary)
