"""The line that a run shows while it trains: step, loss, speed, share of the machine's peak, time left."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any

from pile_tools.progress import LOG_INTERVAL_SECONDS
from pile_tools.terminal import QUIET, echo, is_chosen

#: Columns of the line, so that it fits a terminal of 80 after the clock of a log.
MAX_COLUMNS = 71

#: Steps whose mean speed is shown.
_RECENT_STEPS = 50


def status(
    *,
    step: int,
    n_steps: int,
    loss: float,
    tokens_per_second: float,
    share: float | None,
    seconds_left: float,
) -> str:
    """The line. If it is too long, the share is left out, then the speed, then the loss.

    Args:
        step: Steps that are done.
        n_steps: Steps of the run.
        loss: Of the last step, nats.
        tokens_per_second: Speed.
        share: Of the machine's peak as it was measured, or None if that is not known. Not shown above 1.
        seconds_left: Until the end of the run.
    """
    parts = [f"step {step:,}/{n_steps:,}", f"loss {loss:.3f}", f"{_short(tokens_per_second)} tokens/s"]
    # More than the peak: other work slowed the machine while that was measured, so it says nothing.
    if share is not None and share <= 1:
        parts.append(f"{share:.0%} of peak")
    parts.append(f"{_span(seconds_left)} left")
    while len(", ".join(parts)) > MAX_COLUMNS:
        # The time left, at the end, stays; of the others, the share changes least.
        parts.pop(-2)
    return ", ".join(parts)


def _short(number: float) -> str:
    """A number in three digits: 950, 5.12k, 1.23M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # From 999.5 on, three digits round to 1e+03 of the smaller unit.
        if number >= size * 0.9995:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _span(seconds: float) -> str:
    """A span of time in its two largest units: 3d 4h, 12m 5s."""
    whole = round(seconds)
    for large, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size:,}{large} {whole % size // part}{small}"
    return f"{whole}s"


class StatusLine:
    """Shows `status` on standard error: in the same line of a terminal, elsewhere now and then.

    Nothing with `--quiet`. A context manager.

    Args:
        n_steps: Steps of the run.
        tokens_per_step: Tokens of a step.
        flops_per_token: Of the model, see `cost.flops_per_token`.
        peak_flops: Operations a second that the machine can do, all processes together; None if not known.
    """

    def __init__(
        self, n_steps: int, tokens_per_step: int, flops_per_token: int, peak_flops: float | None
    ) -> None:
        self._n_steps, self._tokens_per_step = n_steps, tokens_per_step
        self._flops_per_token, self._peak_flops = flops_per_token, peak_flops
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._started = self._last_line = time.monotonic()
        self._n_done = 0
        self._is_quiet = is_chosen(QUIET)
        self._rich: Any = None

    def __enter__(self) -> StatusLine:
        if not self._is_quiet and sys.stderr.isatty():
            self._rich = _rich_line()
            self._rich.start()
            self._task = self._rich.add_task("", line="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def update(self, step: int, loss: float, seconds: float) -> None:
        """Shows that `step` steps are done.

        Args:
            step: Steps of the run that are done.
            loss: Of the last one, nats.
            seconds: That it took.
        """
        self._recent.append(seconds)
        self._n_done += 1
        now = time.monotonic()
        is_due = self._rich is not None or now - self._last_line >= LOG_INTERVAL_SECONDS
        if self._is_quiet or not is_due:
            return
        speed = self._tokens_per_step * len(self._recent) / max(sum(self._recent), 1e-9)
        line = status(
            step=step,
            n_steps=self._n_steps,
            loss=loss,
            tokens_per_second=speed,
            share=speed * self._flops_per_token / self._peak_flops if self._peak_flops else None,
            # Unlike the speed, this counts the time of saving and validation too.
            seconds_left=(self._n_steps - step) * (now - self._started) / self._n_done,
        )
        if self._rich is not None:
            self._rich.update(self._task, line=line)
        else:
            self._last_line = now
            echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def _rich_line() -> Any:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    return Progress(
        TextColumn("{task.fields[line]}", markup=False), console=Console(stderr=True), transient=True
    )
