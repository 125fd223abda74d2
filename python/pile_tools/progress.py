"""Shows the progress of a job: a bar on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import datetime
import sys
import time
import types
import typing

from pile_tools.terminal import QUIET, echo, escape, is_chosen

#: Seconds between lines if standard error is not a terminal.
LOG_INTERVAL_SECONDS = 30.0


class Bar:
    """Shows the progress of a job on standard error, unless `--quiet` is given; a context manager.

    Args:
        what: The activity, shown before the bar.
        total: Total units, or None if unknown.
        unit: `"B"` for bytes with a rate in MB/s, or the name of the unit.
    """

    def __init__(self, what: str, total: int | None, unit: str = "B") -> None:
        self._what, self._total, self._unit = escape(what), total, unit
        self._last_line = time.monotonic()
        self._start: tuple[float, int] | None = None
        self._rich: typing.Any = None
        self._is_quiet = is_chosen(QUIET)

    def __enter__(self) -> Bar:
        if not self._is_quiet and sys.stderr.isatty():
            self._rich = _rich_bar(self._unit)
            self._rich.start()
            self._task = self._rich.add_task(self._what, total=self._total, tokens="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def update(self, done: int, n_tokens: int | None = None) -> None:
        """Shows `done` finished units, and the rate of tokens: `n_tokens` are those made by this run."""
        now = time.monotonic()
        if self._start is None:
            # The first call may include the units of an interrupted run, which must not count in the rate.
            self._start = now, done
            if self._rich is not None:
                self._rich.reset(self._task, completed=done)
        seconds = now - self._start[0]
        tokens = f"{n_tokens / seconds / 1e6:,.1f} M tokens/s" if n_tokens and seconds else ""
        if self._rich is not None:
            self._rich.update(self._task, completed=done, tokens=tokens)
        elif not self._is_quiet and now - self._last_line >= LOG_INTERVAL_SECONDS:
            self._last_line = now
            clock = time.strftime("%H:%M:%S")
            echo(f"{clock} {', '.join(filter(None, [self._line(done), tokens]))}", err=True)

    def _line(self, done: int) -> str:
        assert self._start is not None
        since, before = self._start
        rate = (done - before) / max(time.monotonic() - since, 1e-9)
        scale, unit = (1e6, "MB") if self._unit == "B" else (1, self._unit)
        share = f" of {self._total / scale:,.0f}" if self._total else ""
        remaining = ""
        if self._total and rate and done < self._total:
            remaining = f", {datetime.timedelta(seconds=round((self._total - done) / rate))} left"
        return f"{self._what}: {done / scale:,.0f}{share} {unit}, {rate / scale:,.1f} {unit}/s{remaining}"


def _rich_bar(unit: str, **console: typing.Any) -> typing.Any:
    """Rich's progress display on standard error; `console` are further arguments of Rich's `Console`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text
    from rich.theme import Theme

    class CountColumn(ProgressColumn):
        """Finished and total units, with thousands separators, which Rich's own column lacks."""

        def render(self, task: Task) -> Text:
            total = "?" if task.total is None else f"{task.total:,.0f}"
            return Text(f"{task.completed:,.0f}/{total} {unit}")

    # A description may contain brackets, which Rich would read as markup.
    columns = [TextColumn("{task.description}", markup=False), BarColumn()]
    columns += [DownloadColumn(), TransferSpeedColumn()] if unit == "B" else [CountColumn()]
    columns.append(TextColumn("{task.fields[tokens]}"))
    # Rich shows a rate in red, which reads as an error.
    theme = Theme({"progress.data.speed": "none"})
    screen = Console(stderr=True, theme=theme, **console)
    return Progress(*columns, TimeRemainingColumn(), console=screen, transient=True)
