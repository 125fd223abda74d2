"""Reads checkpoints: ours by run and step, verified, and any GPT-NeoX folder of Hugging Face's."""

from __future__ import annotations

from pathlib import Path

import torch

from pile_tools import files, manifest
from pile_tools.errors import PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE
from trainer.checkpoint import folders, hf
from trainer.checkpoint.config_json import read_shape
from trainer.checkpoint.weights import read_weights
from trainer.model.neox import GPTNeoX


def list_steps(output: str | Path) -> list[int]:
    """The steps of a run's checkpoints, ascending; empty if it has none."""
    return folders.steps_in(folders.checkpoints_folder(Path(output)))


def checkpoint_folder(output: str | Path, step: int) -> Path:
    """The Hugging Face folder of a run's checkpoint.

    Raises:
        PileError: There is none of that step; the message names those there are.
    """
    folder = folders.step_folder(folders.checkpoints_folder(Path(output)), step)
    if not folder.is_dir():
        known = ", ".join(map(str, list_steps(output))) or "none"
        raise PileError(f"no checkpoint of step {step}; there are: {known} ({folder.parent})")
    return folder


def verify_checkpoint(folder: Path) -> None:
    """Raises VerifyError unless every file exists and matches the checkpoint's manifest, itself unchanged."""
    if not manifest.is_intact(folder / MANIFEST_FILE):
        raise VerifyError(f"was changed after it was written ({folder / MANIFEST_FILE})")
    found = manifest.read(folder / MANIFEST_FILE)
    for entry in found.outputs:
        path = manifest.output_path(found, entry)
        if not path.is_file():
            raise VerifyError(f"missing of the checkpoint ({path})")
        if path.stat().st_size != entry["bytes"] or files.sha256(path) != entry["sha256"]:
            raise VerifyError(f"not the file that the checkpoint was written with ({path})")


def load_checkpoint(
    output: str | Path, step: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> GPTNeoX:
    """A run's model after `step` updates, its files verified.

    Args:
        output: The run's folder.
        step: One of `list_steps`.
        dtype: Of the weights in memory.
        device: Where they go.

    Raises:
        PileError: There is no such checkpoint.
        VerifyError: A file of it is missing or damaged.
    """
    folder = checkpoint_folder(output, step)
    verify_checkpoint(folder)
    return load_model(folder, dtype=dtype, device=device)


def load_model(folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> GPTNeoX:
    """The model of a GPT-NeoX folder of Hugging Face's, ours or Pythia's, in evaluation mode.

    Its logits are those of transformers 5. Weights are read from `model.safetensors` or `pytorch_model.bin`,
    whole or in shards; see `trainer.checkpoint.weights`.

    Args:
        folder: The folder, with `config.json` and weights.
        dtype: Of the weights in memory, whatever the file's.
        device: Where they go.

    Raises:
        FormatError: Not a GPT-NeoX model that we can run, or a damaged file.
        OSError: A file cannot be read.
    """
    shape = read_shape(Path(folder) / hf.CONFIG_FILE)
    # Tensors on "meta" have shapes and no memory; the weights that are read replace all of them, as
    # the model has no buffers that its state dict leaves out.
    with torch.device("meta"):
        model = GPTNeoX(shape)
    model.load_state_dict(read_weights(Path(folder), model.state_dict()), assign=True)
    return model.to(device=device, dtype=dtype).eval()
