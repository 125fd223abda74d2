"""The page of `pile-train loss-page`: losses, learning rates and speeds of runs, drawn together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pile_tools.errors import ConfigError, FormatError
from pile_tools.present import colors
from pile_tools.present.charts import Lines, Series
from pile_tools.present.pages import Plot, Table
from pile_tools.terminal import counted
from trainer.log import LOG_FILE, VALIDATION_LOG_FILE, LogLine, ValidationLine, read_log, read_validations
from trainer.recorded import RecordedRun, open_recorded
from trainer.smoothing import reach, smooth

#: Runs of a page: each has a colour of its own.
MAX_RUNS = len(colors.SERIES)


@dataclass(frozen=True)
class LoggedRun:
    """A run with what it logged.

    Attributes:
        name: Its name on the page.
        run: The run.
        log: A line for each step so far.
        validations: A line for each validation so far.
    """

    name: str
    run: RecordedRun
    log: list[LogLine]
    validations: list[ValidationLine]


def open_logged(folders: Sequence[Path]) -> list[LoggedRun]:
    """Opens the runs in some folders, finished or in training.

    Raises:
        ConfigError: Too many runs, one of them twice, or one that has trained no step.
        PileError: A folder has no run, or its log is damaged.
        OSError: A file cannot be read.
    """
    if len(folders) > MAX_RUNS:
        raise ConfigError(f"{counted(len(folders), 'run')}, a page compares at most {MAX_RUNS}")
    real = [os.path.realpath(folder) for folder in folders]
    if len(set(real)) < len(real):
        twice = next(folder for folder, path in zip(folders, real, strict=True) if real.count(path) > 1)
        raise ConfigError(f"a run is given twice ({twice})")
    found = []
    for folder, name in zip(folders, _names(folders), strict=True):
        run = open_recorded(folder)
        lines = read_log(folder / LOG_FILE)
        if run.is_finished and (not lines or lines[-1]["step"] != run.steps - 1):
            what = f"does not end with step {run.steps - 1:,}, the last of a finished run"
            raise FormatError(f"{what} ({folder / LOG_FILE})")
        log = [line for line in lines if "skipped" not in line]
        if not log:
            raise ConfigError(f"the run has trained no step yet ({folder})")
        path = folder / VALIDATION_LOG_FILE
        found.append(LoggedRun(name, run, log, read_validations(path) if path.exists() else []))
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """The names of folders without the folders that all of them are in."""
    if len(folders) == 1:
        return [Path(os.path.realpath(folders[0])).name]
    paths = [os.path.realpath(folder) for folder in folders]
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) for path in paths]


def loss_page(runs: Sequence[LoggedRun]) -> Plot:
    """The page of some runs."""
    names = ", ".join(one.name for one in runs)
    is_by_tokens = len({_batch_tokens(one) for one in runs}) > 1
    total = sum(len(one.log) for one in runs)
    charts = [(_losses(runs, is_by_tokens=is_by_tokens), _caption(runs, is_by_tokens=is_by_tokens))]
    if len(runs) > 1 and (chart := _apart(runs)) is not None:
        what = f"Loss of each run less that of {runs[0].name} at the same step, as means like above."
        charts.append((chart, what))
    if any(one.validations for one in runs):
        charts.append((_validations(runs, "loss"), "Mean loss of the validation rows, nats per token."))
    if any("bits_per_byte" in line for one in runs for line in one.validations):
        about = "The same in bits per byte of text, which does not depend on the tokenizer."
        charts.append((_validations(runs, "bits_per_byte"), about))
    charts.append((_measure(runs, "Gradient norm", "norm before clipping", "grad_norm"), _MEANS))
    charts.append((_measure(runs, "Learning rate", "learning rate", "lr"), "The learning rate of each step."))
    if any("tokens_per_second" in line for one in runs for line in one.log):
        speed = _measure(runs, "Speed", "tokens per second", "tokens_per_second")
        charts.append((speed, "Tokens a second, time for saving and validation left out. " + _MEANS))
    about = f"{counted(len(runs), 'run')}, {counted(total, 'step')} logged."
    tables = [_ends(runs)]
    if (settings := _settings(runs)) is not None:
        tables.append(settings)
    return Plot(f"Losses of {names}", about, charts, tables)


_MEANS = "Means of neighbouring steps, 2 % of the run."


def _caption(runs: Sequence[LoggedRun], *, is_by_tokens: bool) -> str:
    of = "Loss of each step's batch, before its update, and the mean of neighbouring steps, 2 % of the run."
    if len(runs) > 1:
        of = (
            "Loss of each step's batch, before its update, as the mean of neighbouring steps, 2 % of the run."
        )
    return of + (" By tokens, as the runs have batches of different sizes." if is_by_tokens else "")


def _line(one: LoggedRun, key: str, *, is_by_tokens: bool = False) -> list[tuple[float, float]]:
    """Means of a key of the log, or learning rates, by step or tokens; lines without it are left out."""
    lines = [line for line in one.log if key in line]
    values = np.array([line[key] for line in lines], dtype=np.float64)  # type: ignore[literal-required]
    if key != "lr":
        values = smooth(values)
    return [
        (line["tokens"] if is_by_tokens else line["step"], value)
        for line, value in zip(lines, values.tolist(), strict=True)
    ]


def _losses(runs: Sequence[LoggedRun], *, is_by_tokens: bool) -> Lines:
    series = []
    if len(runs) == 1:
        of = runs[0].log
        series.append(Series("each step", [(line["step"], line["loss"]) for line in of], colors.PALE, 0.8))
    for i, one in enumerate(runs):
        name = "mean" if len(runs) == 1 else one.name
        series.append(Series(name, _line(one, "loss", is_by_tokens=is_by_tokens), colors.of_series(i)))
    return Lines(
        "Training loss",
        "training tokens" if is_by_tokens else "training step",
        "loss, nats per token",
        series,
        x="symlog",
        is_from_zero=False,
    )


def _batch_tokens(run: LoggedRun) -> int:
    first = run.log[0]
    return first["tokens"] // (first["step"] + 1)


def _apart(runs: Sequence[LoggedRun]) -> Lines | None:
    """How far runs are from the first one, where they have batches of the same size."""
    first, others = runs[0], [one for one in runs if _batch_tokens(one) == _batch_tokens(runs[0])]
    if len(others) < 2:
        return None
    base = {line["step"]: line["loss"] for line in first.log}
    series = []
    for i, one in enumerate(runs):
        # A branch starts at a later step.
        shared = [line for line in one.log if line["step"] in base]
        if one not in others or not shared:
            continue
        # Smoothed after the subtraction: means of runs of other lengths are over other numbers of steps.
        apart = smooth(np.array([line["loss"] - base[line["step"]] for line in shared]))
        # The last means are of few steps.
        shown = apart[: len(apart) - reach(len(apart))].tolist()
        points = [(line["step"], value) for line, value in zip(shared, shown, strict=False)]
        series.append(Series(one.name, points, colors.of_series(i), 1 if one is first else 2))
    title, unit = f"Difference from {first.name}", "difference of loss, nats per token"
    return Lines(title, "training step", unit, series, x="symlog", is_from_zero=False, height=160)


def _validations(runs: Sequence[LoggedRun], key: str) -> Lines:
    series = []
    for i, one in enumerate(runs):
        lines = [line for line in one.validations if key in line]
        points = [(line["step"], line[key]) for line in lines]  # type: ignore[literal-required]
        series.append(Series(one.name, points, colors.of_series(i), is_marked=True))
    title = "Validation loss" if key == "loss" else "Validation, bits per byte"
    unit = "loss, nats per token" if key == "loss" else "bits per byte"
    label = "updates before the validation"
    return Lines(title, label, unit, [s for s in series if s.points], x="symlog", is_from_zero=False)


def _measure(runs: Sequence[LoggedRun], title: str, unit: str, key: str) -> Lines:
    series = [Series(one.name, _line(one, key), colors.of_series(i)) for i, one in enumerate(runs)]
    return Lines(title, "training step", unit, [s for s in series if s.points], x="symlog", height=120)


def _ends(runs: Sequence[LoggedRun]) -> Table:
    rows = []
    for one in runs:
        last, mean = one.log[-1], smooth(np.array([line["loss"] for line in one.log]))
        tail = [line["loss"] for line in one.log[-max(1, reach(len(one.log))) :]]
        validated = one.validations[-1]["loss"] if one.validations else None
        bits = one.validations[-1].get("bits_per_byte") if one.validations else None
        rows.append(
            [
                one.name,
                f"{last['step'] + 1:,} of {one.run.steps:,}",
                f"{last['tokens']:,}",
                f"{sum(tail) / len(tail):.4f}",
                f"{float(mean.min()):.4f}",
                "" if validated is None else f"{validated:.4f}",
                "" if bits is None else f"{bits:.4f}",
            ]
        )
    header = ["Run", "Steps", "Tokens", "Last loss", "Lowest mean", "Validation", "Bits per byte"]
    note = "Last loss: the mean of the last 1 % of the steps."
    return Table("Runs", header, rows, note=note)


def _settings(runs: Sequence[LoggedRun]) -> Table | None:
    """The settings in which runs differ, or None if they do in none."""
    settings = [one.run.record.settings for one in runs]
    names = list(dict.fromkeys(name for of in settings for name in of))
    rows = [
        [name, *(_shown(of.get(name)) for of in settings)]
        for name in names
        if len({_shown(of.get(name)) for of in settings}) > 1
    ]
    orders = [(one.run.record.input("order") or {}).get("sha256", "") for one in runs]
    if len(set(orders)) > 1:
        rows.append(["order, first digits of its SHA-256", *(order[:8] for order in orders)])
    if len(runs) < 2:
        return None
    note = "" if rows else "The runs have the same settings."
    return Table("Settings that differ", ["Setting", *(one.name for one in runs)], rows, note=note)


def _shown(value: object) -> str:
    return "" if value is None else str(value)
