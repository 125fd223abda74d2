"""The files to which a run adds while it trains: its log, the losses of its rows, the log of validations.

All of them are rewound to the last saved state when a run is resumed, and checked when it is finished.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer import log, row_losses
from trainer.engine import StepResult
from trainer.log import LogWriter, ValidationLine
from trainer.row_losses import RowLossWriter
from trainer.run import Run, validated_steps
from trainer.tensorboard import Board


def rewind(run: Run, saved: int | None, scratch: Path) -> None:
    """Truncates the records to what was written up to the saved step; creates those that do not exist.

    Raises:
        FormatError: One has less than that.
    """
    found, first_step = run.records, run.recipe.first_step
    n_steps = first_step if saved is None else saved
    log.rewind_log(found["log"], n_steps, run.tokens_per_step, first_step=first_step, scratch=scratch)
    if saved is None and first_step:
        # A branch has no losses of the steps before its first.
        row_losses.fill(found["row_losses"], first_step, run.recipe.batch_size)
    row_losses.rewind(found["row_losses"], n_steps, run.recipe.batch_size)
    if "validation_log" in found:
        # The run validates its first weights before it saves them.
        steps = [] if saved is None else validated_steps(run, n_steps)
        log.rewind_validations(found["validation_log"], steps, scratch=scratch)


def check(run: Run) -> None:
    """Raises FormatError unless the records are those of the finished run."""
    found, n_steps = run.records, run.recipe.steps
    log.check_log(found["log"], n_steps, run.tokens_per_step, first_step=run.recipe.first_step)
    row_losses.check(found["row_losses"], n_steps, run.recipe.batch_size)
    if "validation_log" in found:
        log.check_validations(found["validation_log"], validated_steps(run, n_steps))


class Recorder:
    """Adds to the records of a run; a context manager.

    Args:
        run: The run.
        first_step: The first step that will be added.
    """

    def __init__(self, run: Run, first_step: int) -> None:
        self._run, self._first_step = run, first_step
        self._board: Board | None = None
        found = run.records
        self._log = LogWriter(found["log"])
        self._rows = RowLossWriter(found["row_losses"], run.recipe.batch_size)
        self._validations = LogWriter(found["validation_log"]) if "validation_log" in found else None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Recorder:
        with self._opened:
            for file in (self._log, self._rows, self._validations):
                if file is not None:
                    self._opened.enter_context(file)
            if self._run.config.tensorboard:
                self._board = self._opened.enter_context(
                    contextlib.closing(Board(self._run.config.output, self._first_step))
                )
            self._opened = self._opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A file that is full fails again when it is closed: it must know of the first error, which names it.
        self._opened.__exit__(kind, error, trace)

    def step(self, step: int, result: StepResult, lr: float, seconds: float) -> None:
        """Adds step `step`, from 0."""
        per_step = self._run.tokens_per_step
        measured = {"loss": result.loss, "lr": lr, "grad_norm": result.grad_norm}
        speed = round(per_step / max(seconds, 1e-9), 1)
        about: dict[str, Any] = {}
        if result.fault is not None:
            size = self._run.recipe.batch_size
            about = {"skipped": result.fault, "samples": [step * size, (step + 1) * size]}
        tokens = (step + 1) * per_step
        self._log.add(step=step, tokens=tokens, **measured, **about, time=log.now(), tokens_per_second=speed)
        self._rows.add(None if result.row_losses is None else result.row_losses.numpy())
        if self._board is not None:
            self._board.add(step, {**measured, "tokens_per_second": speed}, group="train")

    def validation(self, line: ValidationLine) -> None:
        """Adds a validation."""
        assert self._validations is not None
        self._validations.add(**line)
        if self._board is not None:
            values = {name: value for name, value in line.items() if name in ("loss", "bits_per_byte")}
            self._board.add(line["step"], values, group="validation")  # type: ignore[arg-type]

    def sync(self) -> None:
        """Makes what was added survive a power failure."""
        for file in (self._log, self._rows, self._validations):
            if file is not None:
                file.sync()
        if self._board is not None:
            self._board.flush()
