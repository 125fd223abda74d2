"""Saves the state of a run in training, and continues from the newest one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pile_tools import manifest
from pile_tools.errors import PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest
from trainer.branching import check_shape
from trainer.checkpoint import folders, tensor_files
from trainer.checkpoint.state import (
    Layout,
    Logits,
    OpenState,
    Summary,
    check_files,
    check_records,
    check_state,
    fixed_batch,
    newest_state,
    record_entries,
    record_lengths,
    request,
    states,
)
from trainer.engine import Engine
from trainer.ranks import Processes
from trainer.run import STATE_KIND, Run


class StateSave:
    """A state that was copied to memory, to be written in the background.

    Args:
        run: The run.
        engine: What is saved.
        ranks: The processes; every one makes this object at the same step.
        scratch: The run's scratch folder.
        step: Updates that were made.
    """

    def __init__(self, run: Run, engine: Engine, ranks: Processes, scratch: Path, step: int) -> None:
        self._run, self._ranks, self._scratch, self._step = run, ranks, scratch, step
        self._layout = Layout.of_run(run)
        self.folder = scratch / ranks.from_main(folders.begin(scratch, "state").name if ranks.is_main else "")
        self._tensors = engine.snapshot(lambda name: self._owner(self._layout.file_of(f"weight/{name}")))
        # Hashed later, in the background: the records only grow.
        self._lengths = record_lengths(run) if ranks.is_main else {}
        self._summary = Summary(
            tokens=step * run.tokens_per_step,
            records={},
            adam_updates=engine.adam_updates,
            loss_scale=engine.loss_scale,
            logits=Logits.of(engine.logits(fixed_batch(run.recipe.shape.vocab_size))),
        )

    def _owner(self, file: int) -> int:
        return file % self._ranks.size

    def write(self) -> list[Entry]:
        """Writes this process's files and returns their entries."""
        entries = []
        for number, (name, shapes) in enumerate(zip(self._layout.names, self._layout.files, strict=True)):
            if self._owner(number) == self._ranks.rank:
                tensors = {tensor: self._tensors.pop(tensor) for tensor in shapes}
                entries.append(tensor_files.write(self.folder / name, tensors))
        return entries

    def publish(self, entries: list[Entry]) -> None:
        """Gives the state its manifest and its name, and removes those that are not kept; rank 0 calls it.

        Args:
            entries: Of the files of all processes.
        """
        by_name = {entry["path"]: entry for entry in entries}
        for name in self._layout.names:
            path = self.folder / name
            if name not in by_name or not path.is_file() or path.stat().st_size != by_name[name]["bytes"]:
                raise PileError(f"a file of the state is not in the output: no shared folder ({path})")
        outputs = [by_name[name] for name in self._layout.names]
        summary = replace(self._summary, records=record_entries(self._run, self._lengths))
        about = summary.values(self._run)
        manifest.write(self.folder / MANIFEST_FILE, request(self._run, self._step), outputs, about)
        folders.finish(
            self.folder, folders.step_folder(folders.resume_folder(self._run.config.output), self._step)
        )
        remove_other_states(self._run, self._step, self._scratch)


def remove_other_states(run: Run, step: int, scratch: Path) -> None:
    """Removes the states of all steps but this one and those that the run keeps."""
    parent = folders.resume_folder(run.config.output)
    others = [other for other in states(run.config.output) if other != step and not run.keeps_state(other)]
    folders.remove_steps(parent, STATE_KIND, others, scratch)


def open_newest(ranks: Processes, run: Run) -> OpenState | None:
    """The newest state, its files verified and open, or None if none exists; every process calls it.

    Raises:
        VerifyError: A file of it is missing or damaged.
        FormatError: It is not a state that this run saved.
    """
    text = ranks.from_main(json.dumps(newest_state(run.config.output)))
    step = json.loads(text)
    return None if step is None else ranks.agree(lambda: _own(run, ranks, step))


def _own(run: Run, ranks: Processes, step: int) -> OpenState:
    found = check_state(run, step)
    check_records(run, found)
    return _verified(run, found, ranks)


def _verified(run: Run, found: Manifest, ranks: Processes) -> OpenState:
    state = OpenState(run, found)
    try:
        state.verify(ranks.rank, ranks.size)
    except BaseException:
        state.__exit__()
        raise
    return state


def open_foreign(run: Run, folder: Path, ranks: Processes) -> OpenState:
    """The verified state of another run, from which this one branches off.

    Raises:
        ConfigError: It is of another model.
        VerifyError: A file of it is missing or damaged.
    """
    found = manifest.read(folder / MANIFEST_FILE)
    if found.kind != STATE_KIND or not manifest.is_intact(found.path):
        raise VerifyError(f"not the state of a run, or damaged ({found.path})")
    check_shape(found, run.request.settings)
    check_files(run, found)
    return _verified(run, found, ranks)


def load_state(engine: Engine, state: OpenState, ranks: Processes) -> int:
    """Continues from a verified state and returns its step; every process calls it.

    Raises:
        VerifyError: The model has other logits than when it was saved.
    """
    summary = Summary.read(state.manifest)
    with state:
        engine.restore(state.tensor, summary.adam_updates, summary.loss_scale)
    tokens = fixed_batch(_vocab_size(state))
    found = Logits.of(engine.logits(tokens))
    ranks.agree(lambda: summary.logits.check(found, state.manifest.path))
    return state.manifest.checked_settings.integer("step")


def _vocab_size(state: OpenState) -> int:
    return state.manifest.checked_settings.integer("shape.vocab_size", 1)


def verify_state(run: Run, step: int) -> None:
    """Checks every file of a state by size and checksum. Raises as `check_state`, and for other bytes."""
    with OpenState(run, check_state(run, step)) as state:
        state.verify()
