"""The training loop: from an order to checkpoints, and on from where it was stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pile_tools import _core, manifest
from pile_tools.errors import FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.progress import Bar
from pile_tools.terminal import counted, echo, note
from trainer import records
from trainer import run as runs
from trainer.checkpoint import folders
from trainer.checkpoint.load import list_steps
from trainer.checkpoint.publish import check_steps, publish, verify_published
from trainer.checkpoint.resume import (
    load_state,
    newest_state,
    remove_other_states,
    save_state,
    verified_state,
    verify_state,
)
from trainer.config import differences
from trainer.cost import flops_per_token
from trainer.data_check import DataCheck
from trainer.engine import Engine, MicroBatch, StepResult, TrainingError, processes
from trainer.launcher import process_count
from trainer.model.compiled import compile_blocks
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.peak import measured_peak
from trainer.ranks import Processes
from trainer.records import Recorder
from trainer.run import SCRATCH_FOLDER, Run
from trainer.status import StatusLine
from trainer.validation import Validation

#: Seconds between heartbeats of rank 0 to the processes that wait for it: far below their timeouts.
_HEARTBEAT_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        is_main: Whether this process speaks for all.
        tokens_per_second: Speed of this start, saving excluded; 0 where nothing was left to do.
    """

    is_main: bool
    tokens_per_second: float


def train(run: Run, *, force: bool, n_threads: int | None, peak_flops: float | None = None) -> Outcome:
    """Trains, or resumes training, until the last step; every process calls it.

    Args:
        run: The run.
        force: Start again and remove the files of an earlier run.
        n_threads: Of each process. Default: as when the run started, or the cores divided among them.
        peak_flops: Operations a second of all processes at best. Default: measured.

    Raises:
        TrainingError: Loss or gradient is not finite; the last checkpoint is kept.
        OutputExistsError: The folder has a run with other settings.
        ConfigError: The batch cannot be split over the processes, or their number changed.
        VerifyError: The data or the saved state are not the bytes that their manifests name.
        PileError: Another process trains in the folder, or the processes do not share it.
        SystemExit: Any of these, in a run of several processes.
    """
    run.recipe.split(process_count()[1])
    with processes(run.recipe.seed) as ranks, contextlib.ExitStack() as held:
        scratch = run.config.output / SCRATCH_FOLDER
        ranks.main_does(lambda: held.enter_context(runs.writing(run.config.output)))
        _check_folder_is_shared(scratch, ranks)
        threads = _begin(run, ranks, scratch, n_threads, force)
        unverified = _check_data(run, ranks)
        torch.set_num_threads(threads)
        # Before the engine, which takes long to build: a damaged state is reported at once.
        state = verified_state(ranks, run)
        engine = _engine(run, ranks)
        first_step = load_state(engine, state) if state else None
        outcome = _Session(run, engine, ranks, scratch, peak_flops).go_on(first_step)
        if ranks.is_main:
            _publish_manifest(run, ranks.size, threads, unverified)
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


def _begin(run: Run, ranks: Processes, scratch: Path, n_threads: int | None, force: bool) -> int:
    """Brings the folder to the state of the last save, and returns the threads of each process."""

    def begin() -> str:
        if runs.finished(run, force=force) is not None:
            raise PileError(f"was finished by another process just now ({run.config.output})")
        previous_threads = runs.previous_threads(run, ranks.size, force=force)
        threads = n_threads or previous_threads or default_threads(ranks.size)
        _prepare(run, ranks, scratch, threads, force)
        return str(threads)

    return int(ranks.from_main(ranks.agree(lambda: begin() if ranks.is_main else "")))


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
    unverified: list[Path] = []
    for order in filter(None, (run.order, run.validation)):
        data = DataCheck(order, notes, scratch=scratch)
        with Bar("checking the data", data.n_bytes) as bar:

            def on_bytes(n_bytes: int, bar: Bar = bar) -> None:
                bar.update(n_bytes)
                send_heartbeat()

            data.run(on_bytes)
        unverified += data.unverified
    unverified = list(dict.fromkeys(unverified))
    for path in unverified:
        echo(f"not verified, as there are no checksums of it: {path}", err=True)
    return [manifest.relative(path, output) for path in unverified]


class _Throttle:
    """Calls `act` when it is called, but not again within `_HEARTBEAT_SECONDS` of the last time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act, self._last = act, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last >= _HEARTBEAT_SECONDS:
            self._act()
            self._last = time.monotonic()


def _publish_manifest(run: Run, n_processes: int, n_threads: int, unverified: list[str]) -> None:
    """Checks that all files of a finished run exist and are intact, and writes its manifest.

    Raises:
        FormatError, VerifyError, PileError: A file is missing or is not what was written.
    """
    output, n_steps = run.config.output, run.recipe.steps
    records.check(run)
    check_steps(run, n_steps)
    due = runs.due_steps(run, n_steps)
    with Bar("checking checkpoints", len(due), "checkpoints") as bar:
        for number, step in enumerate(due, 1):
            verify_published(run, step)
            bar.update(number)
    verify_state(run, n_steps, n_processes)
    # A run that was killed before it removed the state before its last one still has both.
    remove_other_states(run, n_steps, output / SCRATCH_FOLDER)
    state = folders.step_folder(runs.resume_folder(output), n_steps) / MANIFEST_FILE
    runs.finish(run, state, n_processes, n_threads, unverified)


def default_threads(n_processes: int) -> int:
    """The cores that this process may use, shared out among the processes."""
    has_affinity = hasattr(os, "sched_getaffinity")
    n_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, n_cores // n_processes)


def _prepare(run: Run, ranks: Processes, scratch: Path, n_threads: int, force: bool) -> None:
    """Removes the checkpoints and log lines after the last saved state; the run makes them again."""
    output = run.config.output
    runs.begin(run, scratch, ranks.size, n_threads, force=force)
    saved = newest_state(output)
    checkpoints = folders.checkpoints_folder(output)
    beyond = [step for step in list_steps(output) if saved is None or step > saved]
    folders.check_ours(
        runs.resume_folder(output), runs.STATE_KIND, folders.steps_in(runs.resume_folder(output))
    )
    folders.remove_steps(checkpoints, runs.CHECKPOINT_KIND, beyond, scratch)
    if saved is not None:
        check_steps(run, saved)
    records.rewind(run, saved or 0, scratch)


def _engine(run: Run, ranks: Processes) -> Engine:
    model = GPTNeoX(run.recipe.shape)
    initialize(model, run.recipe.seed)
    model.gpt_neox.recomputes_blocks = run.config.activation_checkpointing
    if run.config.compile:
        ranks.agree(lambda: compile_blocks(model, ranks.device))
    return Engine(model, run.recipe, ranks)


class _Session:
    """The steps from one start of the program to its end."""

    def __init__(
        self, run: Run, engine: Engine, ranks: Processes, scratch: Path, peak_flops: float | None
    ) -> None:
        self._run, self._engine, self._ranks, self._scratch = run, engine, ranks, scratch
        self._is_main = ranks.is_main
        self._seconds, self._n_done = 0.0, 0
        self._peak_flops = peak_flops
        config = run.config.validation
        self._validation = Validation(run, config, run.validation) if config and run.validation else None

    def go_on(self, saved: int | None) -> Outcome:
        """Trains from the step that was saved, or from the start, to the last."""
        steps, is_main = self._run.recipe.steps, self._is_main
        self._announce(saved)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(Recorder(self._run, saved or 0)) if is_main else None
            line = stack.enter_context(self._status_line()) if is_main else None
            if saved is None:
                self._validate(0, log)
                self._save(0, log, "before the first update")
            for step in range(saved or 0, steps):
                result, seconds = self._step(step, log)
                if line is not None:
                    line.update(step + 1, result.loss, seconds)
        return Outcome(is_main, self._speed())

    def _announce(self, saved: int | None) -> None:
        recipe = self._run.recipe
        what = f"{counted(recipe.shape.n_parameters, 'parameter')}, {counted(recipe.steps, 'step')}"
        begins = "from the start" if saved is None else f"going on after step {saved}"
        self._say(f"training: {what} of {counted(self._run.tokens_per_step, 'token')}, {begins}")
        model = self._run.config.model
        if model.published is not None:
            self._say(f"{model.preset} differs here from the published recipe in:")
            for line in differences(
                recipe,
                model.published,
                checkpoint_every=self._run.config.checkpoint_interval,
                order_seed=self._run.order.seed,
            ):
                self._say(f"  {line}")

    def _status_line(self) -> StatusLine:
        recipe = self._run.recipe
        peak = self._peak_flops or measured_peak(self._ranks, recipe.precision)
        return StatusLine(recipe.steps, self._run.tokens_per_step, flops_per_token(recipe.shape), peak)

    def _step(self, step: int, log: Recorder | None) -> tuple[StepResult, float]:
        """Update `step`, from 0, its records, and validation and checkpoint after it.

        Returns:
            What the step measured, and the seconds that it took, without those of validation and checkpoint.
        """
        started = time.monotonic()
        lr = self._run.recipe.rate(step)
        try:
            result = self._engine.step(micro_batches(self._run, self._ranks, step), lr)
        except TrainingError as err:
            saved = runs.due_steps(self._run, step)[-1]
            raise TrainingError(f"{err} at step {step}; the last checkpoint is step {saved}") from err
        seconds = time.monotonic() - started
        self._seconds += seconds
        self._n_done += 1
        if log is not None:
            log.step(step, result, lr, seconds)
        self._validate(step + 1, log)
        if self._run.recipe.is_checkpoint(step + 1, self._run.config.checkpoint_interval):
            self._save(step + 1, log, f"loss {result.loss:.4f}, {self._speed():,.0f} tokens/s")
        return result, seconds

    def _validate(self, n_updates: int, log: Recorder | None) -> None:
        """Validates the weights, and records it, where that is due."""
        if self._validation is None or n_updates not in self._validated_steps:
            return
        line = self._validation.run(self._engine, self._ranks, n_updates)
        if log is not None:
            log.validation(line)
        bits = f", {line['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in line else ""
        self._say(f"step {n_updates:,}: validation loss {line['loss']:.4f}{bits}")

    @cached_property
    def _validated_steps(self) -> set[int]:
        return set(runs.validated_steps(self._run, self._run.recipe.steps))

    def _speed(self) -> float:
        return self._n_done * self._run.tokens_per_step / self._seconds if self._seconds else 0.0

    def _save(self, n_updates: int, log: Recorder | None, about: str) -> None:
        """Publishes the weights, and saves the state where it is worth its time: not at the early steps."""
        if log is not None:
            log.sync()
            publish(self._run, self._engine.model, n_updates, self._scratch)
            self._say(f"step {n_updates:,}: {about}, checkpoint written")
        self._ranks.barrier()
        is_regular = n_updates > 0 and n_updates % self._run.config.checkpoint_interval == 0
        if is_regular or n_updates == self._run.recipe.steps:
            save_state(self._engine, self._ranks, self._run, self._scratch, n_updates)

    def _say(self, message: str) -> None:
        if self._is_main:
            note(message, err=True)


def micro_batches(run: Run, ranks: Processes, step: int) -> Iterator[MicroBatch]:
    """This process's share of a step, in GPT-NeoX's order.

    With R ranks and b samples in a micro-batch, micro-batch m of rank r is samples [(m R + r) b,
    (m R + r + 1) b) of the step.

    Raises: FormatError for a token outside the model's vocabulary, or a dataset that was cut short.
    """
    _, n_micro = run.recipe.split(ranks.size)
    for number in range(n_micro):
        part = (ranks.rank, ranks.size), (number, n_micro)
        samples = run.order.micro_batch_samples(step, *part, run.recipe.batch_size)
        stored = run.order.samples.read(*samples)
        # A map of a dataset that was cut short reads as zeros: they must not get into the weights.
        _core.check_mapped()
        tokens = torch.from_numpy(stored.astype("int64"))
        for token in (int(tokens.min()), int(tokens.max())):
            if not 0 <= token < run.recipe.shape.vocab_size:
                known = f"the model's vocabulary has {run.recipe.shape.vocab_size}"
                raise FormatError(f"token {token} at step {step}, {known} ({run.order.name})")
        positions = None
        if run.recipe.attention_within_documents:
            positions = torch.from_numpy(run.order.positions(*samples))
        yield MicroBatch(tokens, positions)
