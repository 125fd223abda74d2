"""Progress of long work: a bar on a terminal, a line now and then in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
import types
import typing

#: Seconds between two lines where standard error is not a terminal.
LOG_INTERVAL_SECONDS = 30.0


class Bar:
    """Draws how far a job is on standard error; use as a context manager.

    Args:
        what: What is being done, shown before the bar.
        total: Units in all, or None where not known.
        unit: `"B"` shows bytes with a rate in MB/s; anything else is the unit's name.
    """

    def __init__(self, what: str, total: int | None, unit: str = "B") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._started = self._last_line = time.monotonic()
        self._rich: typing.Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            self._rich = _rich_bar(self._unit)
            self._rich.start()
            self._task = self._rich.add_task(self._what, total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def update(self, done: int) -> None:
        """Shows that `done` units are finished."""
        if self._rich is not None:
            self._rich.update(self._task, completed=done)
        elif time.monotonic() - self._last_line >= LOG_INTERVAL_SECONDS:
            self._last_line = time.monotonic()
            print(self._line(done), file=sys.stderr, flush=True)

    def _line(self, done: int) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        scale, unit = (1e6, "MB") if self._unit == "B" else (1, self._unit)
        share = f" of {self._total / scale:,.0f}" if self._total else ""
        return f"{self._what}: {done / scale:,.0f}{share} {unit}, {done / scale / seconds:,.1f} {unit}/s"


def _rich_bar(unit: str) -> typing.Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    is_bytes = unit == "B"
    columns = [TextColumn("{task.description}"), BarColumn()]
    columns += (
        [DownloadColumn(), TransferSpeedColumn()] if is_bytes else [MofNCompleteColumn(), TextColumn(unit)]
    )
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
