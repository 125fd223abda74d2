"""Writes checkpoints: complete Hugging Face folders `OUTPUT/checkpoints/step{N}`, after N updates."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from pile_tools import files, manifest
from pile_tools.errors import PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE
from trainer import failures
from trainer.checkpoint import folders, hf, hf_folder
from trainer.checkpoint.load import verify_checkpoint
from trainer.checkpoint.run_card import run_card
from trainer.run import CHECKPOINT_KIND, Run, due_steps


def publish(run: Run, weights: dict[str, Tensor], step: int, scratch: Path) -> Path:
    """Writes the weights after `step` updates as a folder that appears whole, and returns it.

    Args:
        run: The run.
        weights: By name, on the CPU, each with memory of its own: safetensors stores no views.
        step: Updates that were made.
        scratch: The run's scratch folder.
    """
    final = folders.step_folder(folders.checkpoints_folder(run.config.output), step)
    folder = folders.begin(scratch, "checkpoint")
    dtype = _write_weights(weights, folder / hf.WEIGHTS_FILE)
    data = None
    if run.tokenizer_file is not None:
        data = run.tokenizer_file.path.read_bytes()
    hf_folder.write_about(folder, run.recipe.shape, dtype, run_card(run, step), run.tokenizer, data)
    _write_manifest(run, folder, step)
    folders.finish(folder, final)
    return final


def _write_weights(weights: dict[str, Tensor], path: Path) -> str:
    """Writes the weights and returns their dtype's name."""
    with failures.named(path), files.of_usual_mode(path):
        save_file(weights, path, metadata={"format": "pt"})
    return str(next(iter(weights.values())).dtype).removeprefix("torch.")


def request(run: Run, step: int) -> manifest.Request:
    """The request that the manifest of a checkpoint records."""
    folder = folders.step_folder(folders.checkpoints_folder(run.config.output), step)
    return manifest.Request(CHECKPOINT_KIND, {"step": step, **run.recipe.settings()}, run.inputs(folder))


def _write_manifest(run: Run, folder: Path, step: int) -> None:
    outputs = [manifest.file_entry(path, folder) for path in sorted(folder.iterdir())]
    summary = {"n_parameters": run.recipe.shape.n_parameters, "tokens": step * run.tokens_per_step}
    manifest.write(folder / MANIFEST_FILE, request(run, step), outputs, summary)


def check_steps(run: Run, n_updates: int) -> None:
    """Raises PileError unless the checkpoints due after `n_updates` updates exist, and no others."""
    folder = folders.checkpoints_folder(run.config.output)
    there, due = set(folders.steps_in(folder)), set(due_steps(run, n_updates))
    folders.check_ours(folder, CHECKPOINT_KIND, sorted(there))
    if due - there:
        raise VerifyError(f"no checkpoint of step {min(due - there)}; force starts again ({folder})")
    if there - due:
        raise PileError(
            f"is not a checkpoint of this run; move it away ({folders.step_folder(folder, min(there - due))})"
        )


def verify_published(run: Run, step: int) -> None:
    """Raises VerifyError unless a checkpoint is of this run and its files are as they were written."""
    folder = folders.step_folder(folders.checkpoints_folder(run.config.output), step)
    path = folder / MANIFEST_FILE
    if not manifest.read(path).is_of(request(run, step)) or not manifest.is_intact(path):
        raise VerifyError(f"not a checkpoint of this run; force starts again ({folder})")
    verify_checkpoint(folder)
