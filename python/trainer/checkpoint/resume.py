"""The state that a stopped run continues from: `OUTPUT/resume/step{N}`, written by DeepSpeed.

    resume/step40/state/*.pt       the model's weights, and a shard of the optimizer for each process
    resume/step40/manifest.json    written last: size and checksum of every file, checksum of the log so far

A new state gets its name before the old one is removed, and only when the shards of all processes are found,
so a kill at any time leaves a whole one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pile_tools import files, manifest
from pile_tools.errors import FormatError, PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE, Manifest, Request
from pile_tools.terminal import counted
from trainer import failures
from trainer.checkpoint import folders
from trainer.checkpoint.state_files import Reader, Writer
from trainer.engine import TAG, Engine
from trainer.ranks import Processes
from trainer.run import STATE_KIND, Run, resume_folder

_ADVICE = "restore it; force starts again"

_MODEL_FILE = "mp_rank_00_model_states.pt"
_SHARD_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(0|[1-9][0-9]{0,8})_mp_rank_00_optim_states\.pt")


def request(run: Run, step: int, n_processes: int) -> Request:
    """What a state's manifest answers: another run's state is refused."""
    settings = {"step": step, "processes": n_processes, **run.request.settings}
    folder = folders.step_folder(resume_folder(run.config.output), step)
    return Request(STATE_KIND, settings, run.inputs(folder))


def save_state(engine: Engine, ranks: Processes, run: Run, scratch: Path, step: int) -> None:
    """Saves the state after `step` updates and removes older ones; every process calls it.

    The log and the run's other records hold these steps and no others.
    """
    folder = scratch / ranks.from_main(folders.begin(scratch, "state").name if ranks.is_main else "")
    writer = Writer()
    engine.save(folder, writer)
    written = [json.loads(text) for text in ranks.gather(json.dumps(writer.entries))]
    ranks.main_does(lambda: _publish(run, scratch, folder, step, written))


def _publish(
    run: Run, scratch: Path, folder: Path, step: int, written: list[dict[str, manifest.Entry]]
) -> None:
    """Gives a saved state its manifest and its name, and removes the states before it."""
    entries = {name: entry for of_rank in written for name, entry in of_rank.items()}
    _check_complete(set(entries), len(written), folder)
    for name, entry in entries.items():
        path = folder / TAG / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise PileError(f"a shard of the state is not in the output: no shared folder ({path})")
    for path in folder.iterdir():
        # DeepSpeed's scripts, which nothing here runs.
        if path.is_file():
            path.unlink()
    outputs = [{**entry, "path": f"{TAG}/{name}"} for name, entry in sorted(entries.items())]
    summary = {f"{name}_sha256": files.sha256(path) for name, path in run.records.items()}
    manifest.write(folder / MANIFEST_FILE, request(run, step, len(written)), outputs, summary)
    folders.finish(folder, folders.step_folder(resume_folder(run.config.output), step))
    remove_other_states(run, step, scratch)


def remove_other_states(run: Run, step: int, scratch: Path) -> None:
    """Removes the states of all steps but this one."""
    parent = resume_folder(run.config.output)
    others = [other for other in folders.steps_in(parent) if other != step]
    folders.remove_steps(parent, STATE_KIND, others, scratch)


def _check_complete(names: set[str], n_processes: int, where: Path) -> None:
    """Raises VerifyError unless these are the model's file and the shard of every process."""
    shards = {name for name in names if _rank(name) >= 0}
    if names != shards | {_MODEL_FILE} or sorted(map(_rank, shards)) != list(range(n_processes)):
        raise VerifyError(
            f"not the files of a state of {counted(n_processes, 'process')}: {sorted(names)} ({where})"
        )


def _rank(name: str) -> int:
    match = _SHARD_FILE.fullmatch(name)
    return int(match[1]) if match else -1


@dataclass(frozen=True)
class SavedState:
    """A verified state, its files open.

    Attributes:
        step: Updates after which it was saved.
        folder: Where it is.
        reader: Loads its files.
    """

    step: int
    folder: Path
    reader: Reader


def verified_state(ranks: Processes, run: Run) -> SavedState | None:
    """The newest state, its files verified, or None if none exists; every process calls it.

    Raises:
        VerifyError: A file of it is missing or damaged.
        FormatError: It is not a state that this run saved.
    """
    text = ranks.from_main(str(newest_state(run.config.output)))
    return None if text == "None" else ranks.agree(lambda: _verified(run, ranks, int(text)))


def _verified(run: Run, ranks: Processes, step: int) -> SavedState:
    found = check_state(run, step, ranks.size)
    entries = {Path(entry["path"]).name: entry for entry in found.outputs}
    reader = Reader(found.folder / TAG, entries)
    reader.verify([name for name in entries if name == _MODEL_FILE or _rank(name) == ranks.rank])
    return SavedState(step, found.folder, reader)


def load_state(engine: Engine, state: SavedState) -> int:
    """Continues from a state and returns its step.

    Raises:
        FormatError: DeepSpeed cannot load it.
    """
    try:
        with failures.named(state.folder):
            engine.load(state.folder, state.reader)
    except (PileError, OSError):
        raise
    except Exception as err:
        what = f"{type(err).__name__} {err}".splitlines()[0]
        raise FormatError(f"DeepSpeed cannot load it: {what} ({state.folder})") from err
    finally:
        state.reader.close()
    return state.step


def check_state(run: Run, step: int, n_processes: int) -> Manifest:
    """The manifest of a state that this run saved, its files there, and no others; their bytes are not read.

    The log, which holds `step` lines now, and the other records are compared with those of the time when the
    state was saved.

    Raises:
        VerifyError: It is not this run's, files are missing, or the log is another one.
        PileError: A file of someone else is in the folder.
    """
    parent = resume_folder(run.config.output)
    folder = folders.step_folder(parent, step)
    folders.check_ours(parent, STATE_KIND, [step])
    found = manifest.read(folder / MANIFEST_FILE)
    if found.request != request(run, step, n_processes).digest:
        raise VerifyError(f"not the state of this run; force starts again ({found.path})")
    if not manifest.is_intact(found.path):
        raise VerifyError(f"damaged; force starts again ({found.path})")
    paths = [entry["path"] for entry in found.outputs]
    if any(path != f"{TAG}/{Path(path).name}" for path in paths) or len(set(paths)) != len(paths):
        raise FormatError(f"files outside the state's folder ({found.path})")
    _check_complete({Path(path).name for path in paths}, n_processes, found.path)
    for path in (folder / name for name in paths):
        if not path.is_file():
            raise VerifyError(f"missing of the training state; force starts again ({path})")
    _check_records(run, found)
    return found


def _check_records(run: Run, state: Manifest) -> None:
    """Raises VerifyError unless the records are what they were when a state was saved."""
    for name, path in run.records.items():
        digest = state.summary.get(f"{name}_sha256")
        if digest is not None and files.sha256(path) != digest:
            what = "not the lines that were logged" if path.suffix == ".jsonl" else "not the losses"
            raise VerifyError(f"{what} before the state was saved; {_ADVICE} ({path})")


def verify_state(run: Run, step: int, n_processes: int) -> None:
    """Checks every file of a state by size and checksum. Raises as `check_state`, and for other bytes."""
    found = check_state(run, step, n_processes)
    entries = {Path(entry["path"]).name: entry for entry in found.outputs}
    for name in entries:
        reader = Reader(found.folder / TAG, entries)
        try:
            reader.verify([name])
        finally:
            reader.close()


def newest_state(output: Path) -> int | None:
    """The step of the newest state, or None."""
    return max(folders.steps_in(resume_folder(output)), default=None)
