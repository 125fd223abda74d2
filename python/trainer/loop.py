"""The training loop: from an order to checkpoints, and on from where it was stopped."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from pile_tools import _core, manifest
from pile_tools.errors import FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.progress import Bar
from pile_tools.terminal import QUIET, counted, echo, is_chosen, note, shell_quote
from trainer import records
from trainer import run as runs
from trainer.checkpoint import folders
from trainer.checkpoint.load import list_steps, verify_checkpoint
from trainer.checkpoint.publish import check_steps, publish, verify_published
from trainer.checkpoint.resume import (
    StateSave,
    load_state,
    open_foreign,
    open_newest,
    remove_other_states,
    verify_state,
)
from trainer.checkpoint.saving import Save, Saver
from trainer.checkpoint.state import OpenState, newest_state, states
from trainer.checkpoint.weights import read_weights
from trainer.config import differences
from trainer.cost import flops_per_token
from trainer.data_check import DataCheck
from trainer.engine import Engine, MicroBatch, StepResult, check_machine, processes
from trainer.fitting import micro_batch, process_memory
from trainer.launcher import process_count
from trainer.log import BY_NAME, LOG_FILE, read_log
from trainer.model.compiled import compile_blocks
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.peak import measured_peak
from trainer.pipeline import PipelineEngine
from trainer.ranks import Processes
from trainer.recorded import batch_size_option
from trainer.records import Recorder
from trainer.retention import Retention
from trainer.run import SCRATCH_FOLDER, Run, Start, Stretch
from trainer.signals import exit_code
from trainer.status import StatusLine
from trainer.validation import Validation

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


def train(run: Run, start: Start) -> Outcome:
    """Trains, or resumes training, until the last step; every process calls it.

    Args:
        run: The run.
        start: What this start chooses.

    Raises:
        TrainingError: Too many steps in a row were skipped; the last state is kept.
        OutputExistsError: The folder has a run with other settings.
        ConfigError: The batch cannot be split over the processes, or the machine cannot train so.
        VerifyError: The data or the saved state are not the bytes that their manifests name.
        PileError: Another process trains in the folder, or the processes do not share it.
        SystemExit: Any of these, in a run of several processes; or a signal stopped the run.
    """
    sharding = run.config.deepspeed
    run.recipe.split(process_count()[1], sharding)
    with processes(run.recipe.seed, sharding.pipeline_stages) as ranks, contextlib.ExitStack() as held:
        ranks.agree(lambda: check_machine(run.recipe.precision, ranks.device))
        output = run.config.output
        scratch = output / SCRATCH_FOLDER
        ranks.main_does(lambda: held.enter_context(runs.writing(output, ranks.size)))
        _check_folder_is_shared(scratch, ranks)
        ranks.agree(lambda: None if ranks.is_main else held.enter_context(runs.writing_too(output)))
        run = _begin(run, ranks, scratch, start)
        unverified = _check_data(run, ranks)
        torch.set_num_threads(run.stretches[-1].threads)
        # Before the engine, which takes long to build: a damaged state is reported at once.
        state = open_newest(ranks, run)
        source = _open_source(run, ranks) if state is None else None
        is_from_weights = state is None and source is None and run.source is not None
        engine = _engine(run, ranks, source, is_from_weights=is_from_weights)
        first_step = load_state(engine, state, ranks) if state else None
        outcome = _Session(run, engine, ranks, scratch, start).go_on(first_step)
        if not ranks.is_main:
            held.close()
        # Rank 0 removes the scratch folder once no other holds its lock.
        ranks.barrier()
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


def _begin(run: Run, ranks: Processes, scratch: Path, start: Start) -> Run:
    """Brings the folder to the state of the last save, and returns the run with its stretches."""

    force = start.force
    memory = -ranks.highest(-process_memory(ranks.device, ranks.size))

    def begin() -> str:
        if runs.finished(run, force=force) is not None:
            raise PileError(f"was finished by another process just now ({run.config.output})")
        before = runs.previous_stretches(run, force=force)
        saved = None if force else newest_state(run.config.output)
        step = run.recipe.first_step if saved is None else saved
        new = _stretch(run, ranks, start, step, before, memory)
        started = replace(run, stretches=runs.extended(before, new))
        if len(started.stretches) > 1 and started.stretches[-1].step == step:
            _announce_change(*started.stretches[-2:])
        _prepare(started, scratch, force)
        return json.dumps([one.values() for one in started.stretches])

    text = ranks.from_main(ranks.agree(lambda: begin() if ranks.is_main else ""))
    stretches = tuple(Stretch(**values) for values in json.loads(text))
    recipe = replace(run.recipe, micro_batch_size=stretches[-1].micro_batch_size)
    return replace(run, recipe=recipe, stretches=stretches)


def _stretch(
    run: Run, ranks: Processes, start: Start, saved: int, before: tuple[Stretch, ...], memory: int
) -> Stretch:
    """How this start trains. Without a given number, threads are as before with as many processes."""
    sharding, is_cpu = run.config.deepspeed, ranks.device.type == "cpu"
    size, line = micro_batch(
        run.recipe,
        sharding,
        ranks.size,
        memory,
        # On a CPU, malloc retains what blocks free: measured with glibc, recomputing saves a third at most.
        recompute=run.config.activation_checkpointing and not is_cpu,
        is_offloaded=sharding.offload_optimizer and not is_cpu,
        before=before[-1] if before else None,
    )
    if line is not None:
        note(line, err=True)
    threads = before[-1].threads if before and before[-1].processes == ranks.size else None
    kept = before[-1].keep_states if before else Retention()
    return Stretch(
        step=saved,
        processes=ranks.size,
        threads=start.threads or threads or start.source_threads or default_threads(ranks.size),
        micro_batch_size=size,
        zero_stage=sharding.zero_stage,
        offload_optimizer=sharding.offload_optimizer,
        pipeline_stages=sharding.pipeline_stages,
        checkpoint_every=run.config.checkpoint_interval,
        keep_states=str(kept if start.keep_states is None else start.keep_states),
        activation_checkpointing=run.config.activation_checkpointing,
        compile=run.config.compile,
    )


def _announce_change(before: Stretch, now: Stretch) -> None:
    old, new = before.values(), now.values()
    changed = [key for key in old if key != "step" and old[key] != new[key]]
    changes = ", ".join(f"{key} {old[key]} -> {new[key]}" for key in changed)
    what = "; losses agree to rounding" if set(changed) - {"checkpoint_every", "keep_states"} else ""
    note(f"after step {now.step}: {changes}{what}", err=True)


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
    notes, scratch = folders.resume_folder(output) / runs.CHECKED_FILE, output / runs.SCRATCH_FOLDER
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


def _publish_manifest(run: Run, unverified: list[str]) -> None:
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
    # A run that was killed before it removed the state before its last one still has both.
    remove_other_states(run, n_steps, output / SCRATCH_FOLDER)
    for step in states(output):
        verify_state(run, step)
    folder = folders.resume_folder(output)
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
    folders.check_ours(folders.resume_folder(output), runs.STATE_KIND, states(output))
    folders.remove_steps(checkpoints, runs.CHECKPOINT_KIND, beyond, scratch)
    if saved is not None:
        check_steps(run, saved)
    records.rewind(run, saved, scratch)
    runs.refuse_skipping_the_past(run)


def _open_source(run: Run, ranks: Processes) -> OpenState | None:
    """The verified state that a branch starts from; None if it starts from weights, or is no branch."""
    branch = run.recipe.branch
    if run.source is None or branch is None or branch.fresh_moments:
        return None
    source = run.source
    return ranks.agree(lambda: open_foreign(run, source.folder, ranks))


def _engine(run: Run, ranks: Processes, source: OpenState | None, *, is_from_weights: bool) -> Engine:
    """The model at the start of the run, in training; `source` is the state that it starts from, if any."""
    model = GPTNeoX(run.recipe.shape)
    if is_from_weights:
        weights = ranks.agree(lambda: _weights_of_source(run, model))
        model.load_state_dict(weights)
    else:
        initialize(model, run.recipe.seed)
    model.gpt_neox.recomputes_blocks = run.config.activation_checkpointing
    if run.config.compile:
        ranks.agree(lambda: compile_blocks(model, ranks.device))
    kind = PipelineEngine if ranks.n_stages > 1 else Engine
    engine = kind(model, run.recipe, ranks, run.config.deepspeed)
    if source is not None:
        load_state(engine, source, ranks)
    return engine


def _weights_of_source(run: Run, model: GPTNeoX) -> dict[str, Tensor]:
    """The weights that a branch with fresh moments starts from. A source that is gone is an error."""
    assert run.source is not None
    if not run.source.folder.is_dir():
        raise PileError(f"the model that the run branches off from is gone ({run.source.folder})")
    if (run.source.folder / MANIFEST_FILE).is_file():
        verify_checkpoint(run.source.folder)
    return read_weights(run.source.folder, model.state_dict())


class SkippedSteps:
    """Steps that leave the weights as they are, counted while they are in a row."""

    def __init__(self, run: Run, ranks: Processes) -> None:
        self._run, self._is_main = run, ranks.is_main
        # All processes stop at the same step: rank 0 counts those in the log.
        self._n_in_a_row = int(ranks.from_main(str(self._logged()) if ranks.is_main else ""))

    def _logged(self) -> int:
        reasons = [line.get("skipped") for line in read_log(self._run.config.output / LOG_FILE)]
        return len(list(itertools.takewhile(bool, (r for r in reversed(reasons) if r != BY_NAME))))

    def check(self, step: int, fault: str | None) -> None:
        """Counts a step, and says that it was skipped. Raises TrainingError after too many in a row."""
        if fault == BY_NAME:
            return
        self._n_in_a_row = 0 if fault is None else self._n_in_a_row + 1
        if fault is None:
            return
        limit, name = self._run.config.max_skipped_in_a_row, self._run.order.name
        if self._n_in_a_row >= limit:
            row = f"{counted(limit, 'step')} in a row did not change the weights"
            saved = newest_state(self._run.config.output)
            where = "no state was saved" if saved is None else f"the newest state is of step {saved}"
            raise TrainingError(f"{fault} at step {step}: {row}; {where}")
        if self._is_main:
            size = batch_size_option(self._run.order, self._run.recipe.batch_size)
            batch = f"pile-tools batch {shell_quote(name)} --step {step}{size}"
            note(f"step {step} did not change the weights: {fault}; its rows: {batch}", err=True)


class _Session:
    """The steps from one start of the program to its end."""

    def __init__(self, run: Run, engine: Engine, ranks: Processes, scratch: Path, start: Start) -> None:
        self._run, self._engine, self._ranks, self._scratch = run, engine, ranks, scratch
        self._is_main = ranks.is_main
        # Asked here, because the options of the command are not known to the thread that saves.
        self._is_quiet = is_chosen(QUIET)
        self._seconds, self._n_done = 0.0, 0
        self._peak_flops, self._stop = start.peak_flops, start.stop
        self._saver = Saver(ranks)
        self._skipped = SkippedSteps(run, ranks)
        config = run.config.validation
        self._validation = Validation(run, config, run.validation) if config and run.validation else None

    def go_on(self, saved: int | None) -> Outcome:
        """Trains from the step that was saved, or from the start, to the last."""
        steps, is_main = self._run.recipe.steps, self._is_main
        first_step = self._run.recipe.first_step if saved is None else saved
        self._announce(saved)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(Recorder(self._run, first_step)) if is_main else None
            line = stack.enter_context(self._status_line()) if is_main else None
            stack.enter_context(self._saver)
            stack.enter_context(self._stop.noted())
            if saved is None:
                self._validate(first_step, log)
                self._save(first_step, log, "before the first update")
            for step in range(first_step, steps):
                result, seconds = self._step(step, log)
                if line is not None:
                    line.update(step + 1, result.loss, seconds)
                if number := self._ranks.highest(self._stop.number):
                    self._stop_after(step + 1, log, number)
            self._saver.wait()
        return Outcome(is_main, self._speed())

    def _stop_after(self, n_updates: int, log: Recorder | None, number: int) -> NoReturn:
        """Saves the state, unless it was saved with the step, and ends the process."""
        if not self._run.is_state(n_updates):
            # A checkpoint that is due was published with the step.
            self._save(n_updates, log, None)
        self._saver.wait()
        name = signal.Signals(number).name
        self._say(f"stopped by {name} after step {n_updates:,}; run the same command again to continue")
        raise SystemExit(exit_code(number))

    def _announce(self, saved: int | None) -> None:
        recipe = self._run.recipe
        what = f"{counted(recipe.shape.n_parameters, 'parameter')}, {counted(recipe.steps, 'step')}"
        branch = self._run.config.branch
        start = f"branching off from {branch.source} after step {branch.step}" if branch else "from the start"
        begins = start if saved is None else f"going on after step {saved}"
        self._say(f"training: {what} of {counted(self._run.tokens_per_step, 'token')}, {begins}")
        model = self._run.config.model
        if model.published is not None:
            self._say(f"{model.preset} differs here from the published recipe in:")
            for line in differences(recipe, model.published, self._run.config, self._run.order):
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
        if step in self._run.config.skip_steps:
            result = StepResult(math.nan, math.nan, None, BY_NAME)
        else:
            result = self._engine.step(micro_batches(self._run, self._ranks, step), lr)
        seconds = time.monotonic() - started
        self._seconds += seconds
        self._n_done += 1
        if log is not None:
            log.step(step, result, lr, seconds)
        self._skipped.check(step, result.fault)
        self._validate(step + 1, log)
        if self._run.is_checkpoint(step + 1) or self._run.is_state(step + 1):
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

    def _save(self, n_updates: int, log: Recorder | None, about: str | None) -> None:
        """Publishes the weights if they are due, and saves the state but for early checkpoints.

        Only the copying to memory happens here, once the save before is complete. `about` is for the message
        on a checkpoint; with None, only the state is saved.
        """
        self._saver.wait()
        if log is not None:
            log.sync()
        run, scratch = self._run, self._scratch
        is_published = about is not None and run.is_checkpoint(n_updates)
        weights = self._engine.weights() if is_published else {}
        state = None
        if run.is_state(n_updates) or not is_published:
            state = StateSave(run, self._engine, self._ranks, scratch, n_updates)

        def complete(entries: list[manifest.Entry]) -> None:
            if is_published:
                publish(run, weights, n_updates, scratch)
                self._say(f"step {n_updates:,}: {about}, checkpoint written")
            # After the checkpoint: a state says that all checkpoints up to its step are there.
            if state is not None:
                state.publish(entries)

        write = state.write if state is not None else list
        self._saver.start(Save(state.folder if state else None, self._ranks, write, complete))

    def _say(self, message: str) -> None:
        if self._is_main and not self._is_quiet:
            note(message, err=True)


def micro_batches(run: Run, ranks: Processes, step: int) -> Iterator[MicroBatch]:
    """This process's share of a step, in GPT-NeoX's order.

    With R ranks and b samples in a micro-batch, micro-batch m of rank r is samples [(m R + r) b,
    (m R + r + 1) b) of the step. All stages of a pipeline count as one rank.

    Raises: FormatError for a token outside the model's vocabulary, or a dataset that was cut short.
    """
    _, n_micro = run.recipe.split(ranks.size, run.config.deepspeed)
    for number in range(n_micro):
        part = (ranks.replica, ranks.n_replicas), (number, n_micro)
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
