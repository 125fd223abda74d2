"""The training loop: from an order to checkpoints, and on from where it was stopped."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pile_tools import _core, manifest
from pile_tools.errors import FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.progress import Bar
from pile_tools.terminal import counted, echo, note
from trainer import run as runs
from trainer.checkpoint import folders
from trainer.checkpoint.load import list_steps
from trainer.checkpoint.publish import check_steps, publish, verify_published
from trainer.checkpoint.resume import (
    StateSave,
    load_state,
    open_newest,
    remove_other_states,
    verify_state,
)
from trainer.checkpoint.saving import Save, Saver
from trainer.checkpoint.state import newest_state, states
from trainer.config import differences
from trainer.data_check import DataCheck
from trainer.engine import Engine, check_machine, processes
from trainer.launcher import process_count
from trainer.log import LOG_FILE, LogWriter, check_log, rewind_log
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.ranks import Processes
from trainer.run import SCRATCH_FOLDER, Run, Stretch

#: Seconds between heartbeats of rank 0 to the processes that wait for it: far below their timeouts.
_HEARTBEAT_SECONDS = 20.0


class TrainingError(PileError):
    """Training cannot go on: losses or gradients are not finite."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        is_main: Whether this process speaks for all.
        tokens_per_second: Speed of this start, saving excluded; 0 where nothing was left to do.
    """

    is_main: bool
    tokens_per_second: float


def train(run: Run, *, force: bool, n_threads: int | None) -> Outcome:
    """Trains, or resumes training, until the last step; every process calls it.

    Args:
        run: The run.
        force: Start again and remove the files of an earlier run.
        n_threads: Of each process. Default: as before, with as many processes, or the cores divided among
            them.

    Raises:
        TrainingError: Too many steps in a row were skipped; the last state is kept.
        OutputExistsError: The folder has a run with other settings.
        ConfigError: The batch cannot be split over the processes, or the machine cannot train so.
        VerifyError: The data or the saved state are not the bytes that their manifests name.
        PileError: Another process trains in the folder, or the processes do not share it.
        SystemExit: Any of these, in a run of several processes.
    """
    run.recipe.split(process_count()[1])
    with processes(run.recipe.seed) as ranks, contextlib.ExitStack() as held:
        check_machine(run.recipe.precision, ranks.device)
        scratch = run.config.output / SCRATCH_FOLDER
        ranks.main_does(lambda: held.enter_context(runs.writing(run.config.output)))
        _check_folder_is_shared(scratch, ranks)
        run = _begin(run, ranks, scratch, n_threads, force)
        unverified = _check_data(run, ranks)
        torch.set_num_threads(run.stretches[-1].threads)
        # Before the engine, which takes long to build: a damaged state is reported at once.
        state = open_newest(ranks, run)
        engine = _engine(run, ranks)
        first_step = load_state(engine, state, ranks) if state else None
        outcome = _Session(run, engine, ranks, scratch).go_on(first_step)
        if ranks.is_main:
            _publish_manifest(run, unverified)
    return outcome


def _check_folder_is_shared(scratch: Path, ranks: Processes) -> None:
    """Stops all processes if one of them, on another node, does not see what rank 0 writes.

    The folder that rank 0 makes for this stays in the scratch folder, which `_prepare` clears.
    """
    names: list[str] = []
    ranks.main_does(lambda: names.append(folders.begin(scratch, "shared").name))
    seen = scratch / ranks.from_main("".join(names))

    def check() -> None:
        if not seen.is_dir():
            what = f"process {ranks.rank} does not see what process 0 writes in the output"
            raise PileError(f"{what}; all nodes need one shared folder ({scratch.parent})")

    ranks.agree(check)


def _begin(run: Run, ranks: Processes, scratch: Path, n_threads: int | None, force: bool) -> Run:
    """Brings the folder to the state of the last save, and returns the run with its stretches."""

    def begin() -> str:
        if runs.finished(run, force=force) is not None:
            raise PileError(f"was finished by another process just now ({run.config.output})")
        before = runs.previous_stretches(run, force=force)
        saved = None if force else newest_state(run.config.output)
        new = _stretch(run, ranks, n_threads, saved or 0, before)
        started = replace(run, stretches=runs.extended(before, new))
        if len(started.stretches) > 1 and started.stretches[-1].step == (saved or 0):
            _announce_change(*started.stretches[-2:])
        _prepare(started, scratch, force)
        return json.dumps([one.values() for one in started.stretches])

    text = ranks.from_main(ranks.agree(lambda: begin() if ranks.is_main else ""))
    return replace(run, stretches=tuple(Stretch(**values) for values in json.loads(text)))


def _stretch(
    run: Run, ranks: Processes, n_threads: int | None, saved: int, before: tuple[Stretch, ...]
) -> Stretch:
    """How this start trains. Without a given number, threads are as before with as many processes."""
    sharding = run.config.deepspeed
    previous = before[-1].threads if before and before[-1].processes == ranks.size else None
    return Stretch(
        step=saved,
        processes=ranks.size,
        threads=n_threads or previous or default_threads(ranks.size),
        micro_batch_size=run.recipe.split(ranks.size)[0],
        zero_stage=sharding.zero_stage,
        offload_optimizer=sharding.offload_optimizer,
        checkpoint_every=run.config.checkpoint_every,
    )


def _announce_change(before: Stretch, now: Stretch) -> None:
    old, new = before.values(), now.values()
    changes = [f"{key} {old[key]:,} -> {new[key]:,}" for key in old if key != "step" and old[key] != new[key]]
    what = "; losses agree to rounding" if set(changes) != {"checkpoint_every"} else ""
    note(f"after step {now.step}: {', '.join(changes)}{what}", err=True)


def _check_data(run: Run, ranks: Processes) -> list[str]:
    """Compares the run's data with their checksums in rank 0; returns the datasets that have none.

    Other ranks return an empty list. They wait in a collective operation that rank 0 repeats before its
    timeout, until it sends an empty text.
    """
    waiting = "waiting"
    unverified: list[str] = []

    def check() -> None:
        try:
            unverified.extend(_checked_data(run, _Throttle(lambda: ranks.from_main(waiting))))
        finally:
            ranks.from_main("")

    def wait() -> None:
        while ranks.from_main("") == waiting:
            pass

    ranks.agree(check if ranks.is_main else wait)
    return unverified


def _checked_data(run: Run, send_heartbeat: Callable[[], None]) -> list[str]:
    output = run.config.output
    notes, scratch = runs.resume_folder(output) / runs.CHECKED_FILE, output / runs.SCRATCH_FOLDER
    data = DataCheck(run.order, notes, scratch=scratch)
    with Bar("checking the data", data.n_bytes) as bar:

        def on_bytes(n_bytes: int) -> None:
            bar.update(n_bytes)
            send_heartbeat()

        data.run(on_bytes)
    for path in data.unverified:
        echo(f"not verified, as there are no checksums of it: {path}", err=True)
    return [manifest.relative(path, output) for path in data.unverified]


class _Throttle:
    """Calls `act` when it is called, but not again within `_HEARTBEAT_SECONDS` of the last time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act, self._last = act, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last >= _HEARTBEAT_SECONDS:
            self._act()
            self._last = time.monotonic()


def _publish_manifest(run: Run, unverified: list[str]) -> None:
    """Checks that all files of a finished run exist and are intact, and writes its manifest.

    Raises:
        FormatError, VerifyError, PileError: A file is missing or is not what was written.
    """
    output, n_steps = run.config.output, run.recipe.steps
    check_log(output / LOG_FILE, n_steps, run.tokens_per_step)
    check_steps(run, n_steps)
    due = runs.due_steps(run, n_steps)
    with Bar("checking checkpoints", len(due), "checkpoints") as bar:
        for number, step in enumerate(due, 1):
            verify_published(run, step)
            bar.update(number)
    # A run that was killed before it removed the state before its last one still has both.
    remove_other_states(run, n_steps, output / SCRATCH_FOLDER)
    for step in states(output):
        verify_state(run, step)
    folder = runs.resume_folder(output)
    runs.finish(
        run, [folders.step_folder(folder, step) / MANIFEST_FILE for step in states(output)], unverified
    )


def default_threads(n_processes: int) -> int:
    """The cores that this process may use, shared out among the processes."""
    has_affinity = hasattr(os, "sched_getaffinity")
    n_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, n_cores // n_processes)


def _prepare(run: Run, scratch: Path, force: bool) -> None:
    """Removes the checkpoints and log lines after the last saved state; the run makes them again."""
    output = run.config.output
    runs.begin(run, scratch, force=force)
    saved = newest_state(output)
    checkpoints = folders.checkpoints_folder(output)
    beyond = [step for step in list_steps(output) if saved is None or step > saved]
    folders.check_ours(runs.resume_folder(output), runs.STATE_KIND, states(output))
    folders.remove_steps(checkpoints, runs.CHECKPOINT_KIND, beyond, scratch)
    if saved is not None:
        check_steps(run, saved)
    rewind_log(output / LOG_FILE, saved or 0, run.tokens_per_step, scratch=scratch)


def _engine(run: Run, ranks: Processes) -> Engine:
    model = GPTNeoX(run.recipe.shape)
    initialize(model, run.recipe.seed)
    return Engine(model, run.recipe, ranks, run.config.deepspeed)


class _Session:
    """The steps from one start of the program to its end."""

    def __init__(self, run: Run, engine: Engine, ranks: Processes, scratch: Path) -> None:
        self._run, self._engine, self._ranks, self._scratch = run, engine, ranks, scratch
        self._is_main = ranks.is_main
        self._seconds, self._n_done = 0.0, 0
        self._saver = Saver(ranks)

    def go_on(self, saved: int | None) -> Outcome:
        """Trains from the step that was saved, or from the start, to the last."""
        steps, is_main = self._run.recipe.steps, self._is_main
        self._announce(saved)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(LogWriter(self._run.config.output / LOG_FILE)) if is_main else None
            bar = stack.enter_context(Bar("training", steps, "steps")) if is_main else None
            stack.enter_context(self._saver)
            if saved is None:
                self._save(0, log, "before the first update")
            for step in range(saved or 0, steps):
                self._step(step, log)
                if bar is not None:
                    bar.update(step + 1)
            self._saver.wait()
        return Outcome(is_main, self._speed())

    def _announce(self, saved: int | None) -> None:
        recipe = self._run.recipe
        what = f"{counted(recipe.shape.n_parameters, 'parameter')}, {counted(recipe.steps, 'step')}"
        begins = "from the start" if saved is None else f"going on after step {saved}"
        self._say(f"training: {what} of {counted(self._run.tokens_per_step, 'token')}, {begins}")
        model = self._run.config.model
        if model.published is not None:
            self._say(f"{model.preset} differs here from the published recipe in:")
            for line in differences(recipe, model.published):
                self._say(f"  {line}")

    def _step(self, step: int, log: LogWriter | None) -> None:
        """Update `step`, from 0, its line in the log, and the checkpoint after it."""
        started = time.monotonic()
        lr = self._run.recipe.optimizer.rate(step, self._run.recipe.steps)
        result = self._engine.step(micro_batches(self._run, self._ranks, step), lr)
        if result.fault is not None:
            saved = runs.due_steps(self._run, step)[-1]
            raise TrainingError(f"{result.fault} at step {step}; the last checkpoint is step {saved}")
        self._seconds += time.monotonic() - started
        self._n_done += 1
        tokens = (step + 1) * self._run.tokens_per_step
        if log is not None:
            log.add(step=step, tokens=tokens, loss=result.loss, lr=lr, grad_norm=result.grad_norm)
        if self._run.is_checkpoint(step + 1):
            self._save(step + 1, log, f"loss {result.loss:.4f}, {self._speed():,.0f} tokens/s")

    def _speed(self) -> float:
        return self._n_done * self._run.tokens_per_step / self._seconds if self._seconds else 0.0

    def _save(self, n_updates: int, log: LogWriter | None, about: str) -> None:
        """Publishes the weights, and saves the state where it is worth its time: not at the early steps.

        Only the copying to memory happens here, once the save before is complete.
        """
        self._saver.wait()
        if log is not None:
            log.sync()
        run, scratch = self._run, self._scratch
        weights = self._engine.weights()
        state = None
        if run.is_regular(n_updates):
            state = StateSave(run, self._engine, self._ranks, scratch, n_updates)

        def complete(entries: list[manifest.Entry]) -> None:
            publish(run, weights, n_updates, scratch)
            self._say(f"step {n_updates:,}: {about}, checkpoint written")
            # After the checkpoint: a state says that all checkpoints up to its step are there.
            if state is not None:
                state.publish(entries, lambda step: False)

        write = state.write if state is not None else list
        self._saver.start(Save(state.folder if state else None, self._ranks, write, complete))

    def _say(self, message: str) -> None:
        if self._is_main:
            note(message, err=True)


def micro_batches(run: Run, ranks: Processes, step: int) -> Iterator[Tensor]:
    """This process's share of a step, in GPT-NeoX's order.

    With R ranks and b samples in a micro-batch, micro-batch m of rank r is samples [(m R + r) b,
    (m R + r + 1) b) of the step.

    Shapes: yields (b, seq_length + 1) int64.
    Raises: FormatError for a token outside the model's vocabulary, or a dataset that was cut short.
    """
    _, n_micro = run.recipe.split(ranks.size)
    for number in range(n_micro):
        stored = run.order.micro_batch(
            step,
            rank=ranks.rank,
            n_ranks=ranks.size,
            micro_batch=number,
            n_micro_batches=n_micro,
            batch_size=run.recipe.batch_size,
        )
        # A map of a dataset that was cut short reads as zeros: they must not get into the weights.
        _core.check_mapped()
        tokens = torch.from_numpy(stored.astype("int64"))
        for token in (int(tokens.min()), int(tokens.max())):
            if not 0 <= token < run.recipe.shape.vocab_size:
                known = f"the model's vocabulary has {run.recipe.shape.vocab_size}"
                raise FormatError(f"token {token} at step {step}, {known} ({run.order.name})")
        yield tokens
