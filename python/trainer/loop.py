"""The training loop: from an order to checkpoints, and on from where it was stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pile_tools.errors import FormatError
from pile_tools.progress import Bar
from pile_tools.terminal import echo
from trainer import run as runs
from trainer.checkpoint import folders
from trainer.checkpoint.load import checkpoints_folder, list_steps
from trainer.checkpoint.publish import publish
from trainer.checkpoint.resume import load_state, newest_state, resume_folder, save_state
from trainer.config import differences
from trainer.engine import Engine, Processes, TrainingError, process_count, processes
from trainer.log import LOG_FILE, LogWriter, rewind_log
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.run import Run


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
    """Trains, or goes on training, until the last step; every process calls it.

    Args:
        run: What is asked for.
        force: Begin anew, removing what an earlier run left.
        n_threads: Of each process. Default: as the run was begun with, or the cores shared out.

    Raises:
        TrainingError: Loss or gradient is not finite; the last checkpoint is kept.
        OutputExistsError: A run with other settings was begun in the folder.
        ConfigError: The batch cannot be split over the processes, or their number changed.
    """
    _, size = process_count()
    run.recipe.split(size)
    begun_with = runs.begun(run, size, force=force)
    threads = n_threads or begun_with or default_threads(size)
    with processes(threads, run.recipe.seed) as ranks:
        if ranks.rank == 0:
            _prepare(run, ranks, threads, force)
        ranks.barrier()
        engine = _engine(run, ranks)
        first_step = load_state(engine, run.config.output)
        outcome = _Session(run, engine, ranks).go_on(first_step)
        if ranks.rank == 0:
            runs.finish(run, list_steps(run.config.output), ranks.size, threads)
    return outcome


def default_threads(n_processes: int) -> int:
    """The cores that this process may use, shared out among the processes."""
    has_affinity = hasattr(os, "sched_getaffinity")
    n_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, n_cores // n_processes)


def _prepare(run: Run, ranks: Processes, n_threads: int, force: bool) -> None:
    """Brings the folder to the state of the last save: what came after it is made again, byte for byte."""
    output = run.config.output
    runs.begin(run, ranks.size, n_threads, force=force)
    for parent in (checkpoints_folder(output), resume_folder(output)):
        folders.remove_unfinished(parent)
    saved = newest_state(output)
    beyond = [step for step in list_steps(output) if saved is None or step > saved]
    folders.remove_steps(checkpoints_folder(output), beyond)
    rewind_log(output / LOG_FILE, saved or 0)


def _engine(run: Run, ranks: Processes) -> Engine:
    model = GPTNeoX(run.recipe.shape)
    initialize(model, run.recipe.seed)
    return Engine(model, run.recipe, ranks)


class _Session:
    """The steps from one start of the program to its end."""

    def __init__(self, run: Run, engine: Engine, ranks: Processes) -> None:
        self._run, self._engine, self._ranks = run, engine, ranks
        self._is_main = ranks.rank == 0
        self._seconds, self._n_done = 0.0, 0

    def go_on(self, saved: int | None) -> Outcome:
        """Trains from the step that was saved, or from the start, to the last."""
        steps, is_main = self._run.recipe.steps, self._is_main
        self._announce(saved)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(LogWriter(self._run.config.output / LOG_FILE)) if is_main else None
            bar = stack.enter_context(Bar("training", steps, "steps")) if is_main else None
            if saved is None:
                self._save(0, log, "before the first update")
            for step in range(saved or 0, steps):
                self._step(step, log)
                if bar is not None:
                    bar.update(step + 1)
        return Outcome(is_main, self._speed())

    def _announce(self, saved: int | None) -> None:
        recipe = self._run.recipe
        what = f"{recipe.shape.n_parameters:,} parameters, {recipe.steps:,} steps"
        begins = "from the start" if saved is None else f"going on after step {saved}"
        self._say(f"training: {what} of {self._run.tokens_per_step:,} tokens, {begins}")
        model = self._run.config.model
        if model.published is not None:
            self._say(f"{model.preset} differs here from the published recipe in:")
            self._say("\n".join(f"  {line}" for line in differences(recipe, model.published)))

    def _step(self, step: int, log: LogWriter | None) -> None:
        """Update `step`, from 0, its line in the log, and the checkpoint after it."""
        started = time.monotonic()
        lr = self._run.recipe.optimizer.rate(step, self._run.recipe.steps)
        try:
            result = self._engine.step(micro_batches(self._run, self._ranks, step), lr)
        except TrainingError as err:
            saved = list_steps(self._run.config.output)[-1]
            raise TrainingError(f"{err} at step {step}; the last checkpoint is step {saved}") from err
        self._seconds += time.monotonic() - started
        self._n_done += 1
        tokens = (step + 1) * self._run.tokens_per_step
        if log is not None:
            log.add(step=step, tokens=tokens, loss=result.loss, lr=lr, grad_norm=result.grad_norm)
        if self._run.recipe.is_checkpoint(step + 1, self._run.config.checkpoint_every):
            self._save(step + 1, log, f"loss {result.loss:.4f}, {self._speed():,.0f} tokens/s")

    def _speed(self) -> float:
        return self._n_done * self._run.tokens_per_step / self._seconds if self._seconds else 0.0

    def _save(self, n_updates: int, log: LogWriter | None, note: str) -> None:
        """Publishes the weights, and saves the state where it is worth its time: not at the early steps."""
        if log is not None:
            log.sync()
            publish(self._run, self._engine.model, n_updates)
            self._say(f"step {n_updates:,}: {note}, checkpoint written")
        self._ranks.barrier()
        is_regular = n_updates > 0 and n_updates % self._run.config.checkpoint_every == 0
        if is_regular or n_updates == self._run.recipe.steps:
            save_state(self._engine, self._ranks, self._run.config.output, n_updates)

    def _say(self, message: str) -> None:
        if self._is_main:
            echo(message, err=True)


def micro_batches(run: Run, ranks: Processes, step: int) -> Iterator[Tensor]:
    """This process's share of a step, in GPT-NeoX's order.

    Micro-batch m of rank r among R is samples [(m R + r) b, (m R + r + 1) b) of the step's, b each.

    Shapes: yields (b, seq_length + 1) int64.
    Raises: FormatError for a token beyond the model's vocabulary.
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
        tokens = torch.from_numpy(stored.astype("int64"))
        largest = int(tokens.max())
        if largest >= run.recipe.shape.vocab_size:
            known = f"the model's vocabulary has {run.recipe.shape.vocab_size}"
            raise FormatError(f"token {largest} at step {step}, {known} ({run.order.path})")
        yield tokens
