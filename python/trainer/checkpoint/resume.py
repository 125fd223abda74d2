"""The state that a stopped run goes on from: `OUTPUT/resume/step{N}`, written by DeepSpeed.

A new state gets its name before the old one is removed, so a kill at any time leaves one to go on from.
"""

from __future__ import annotations

from pathlib import Path

from trainer.checkpoint import folders
from trainer.engine import Engine, Processes


def resume_folder(output: Path) -> Path:
    """Where a run's state is."""
    return output / "resume"


def save_state(engine: Engine, ranks: Processes, output: Path, step: int) -> None:
    """Saves the state after `step` updates and removes older ones; every process calls it."""
    parent = resume_folder(output)
    final = folders.step_folder(parent, step)
    if ranks.rank == 0:
        folders.begin(final)
    ranks.barrier()
    engine.save(folders.unfinished(final))
    ranks.barrier()
    if ranks.rank == 0:
        folders.finish(final)
        folders.remove_steps(parent, [old for old in folders.steps_in(parent) if old != step])
    ranks.barrier()


def load_state(engine: Engine, output: Path) -> int | None:
    """Takes up the newest state and returns its step, or None where there is none."""
    step = newest_state(output)
    if step is not None:
        engine.load(folders.step_folder(resume_folder(output), step))
    return step


def newest_state(output: Path) -> int | None:
    """The step of the newest state, or None."""
    return max(folders.steps_in(resume_folder(output)), default=None)
