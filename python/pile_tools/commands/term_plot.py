"""The plot of a table of terms or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pile_tools.commands.texts import names_of
from pile_tools.config import Settings
from pile_tools.manifest import Manifest
from pile_tools.present import colors
from pile_tools.present.charts import Bars, Chart, Lines, Series
from pile_tools.present.pages import Plot, Table


def plot_of(what: str, inputs: Sequence[Path], made: Manifest) -> Plot:
    """The counts of the most frequent terms: by step if they are of an order, as named bars otherwise.

    Args:
        what: `terms` or `numbers`.
        inputs: What they were counted in.
        made: The manifest of the table. For terms, its summary has `n_found` and `n_occurrences`; for
            numbers, `n_keys` and `n_counts`. Numbers are always of an order, so they always have curves.
    """
    summary, best = made.summary, made.summary["best"]
    in_time = "curves" in summary
    title = f"How often the most frequent {what} {'are seen' if in_time else 'occur'} in {names_of(inputs)}"
    n_occurrences = summary["n_occurrences" if "n_occurrences" in summary else "n_counts"]
    n = summary["n_found" if "n_found" in summary else "n_keys"]
    about = f"{n:,} {what} occur, {n_occurrences:,} times together."
    if "rule" in made.settings:
        about += f" Rule: {made.settings['rule']}."
    charts: list[tuple[Chart, str]] = []
    charts.append(_by_step(title, summary) if in_time else _named(title, best))
    if not in_time and summary["n_found"] > len(best):
        charts.append(_by_rank(what, summary))
    tables = [_best_table(what, summary)]
    if in_time:
        tables.append(_steps_table(summary))
    return Plot(title, about, charts, tables)


def _named(title: str, best: Sequence[dict[str, Any]]) -> tuple[Chart, str]:
    values = [(of["term"], of["occurrences"]) for of in best if of["occurrences"]]
    return Bars(title, "occurrences", values), "Occurrences of each term, the most frequent first."


def _by_step(title: str, summary: Settings) -> tuple[Chart, str]:
    series = [
        Series(
            of["term"],
            [(float(s), float(n)) for s, n in zip(summary["steps"], of["occurrences"], strict=True)],
            colors.of_series(i),
        )
        for i, of in enumerate(summary["curves"])
    ]
    chart = Lines(title, "training step", "occurrences before the step", series, x="symlog", y="symlog")
    return chart, (
        "Occurrences in all batches before a step. Both axes are logarithmic, so a constant rate gives a "
        "straight line."
    )


def _by_rank(what: str, summary: Settings) -> tuple[Chart, str]:
    points = [(float(rank), float(count)) for rank, count in summary["ranks"]]
    title = f"How often {what} occur, by rank"
    chart = Lines(title, "rank", "occurrences", [Series(what, points, colors.SERIES[0])], x="log", y="log")
    return chart, f"Occurrences by rank among all {what} that occur, the most frequent first."


def _best_table(what: str, summary: Settings) -> Table:
    units = "Samples" if "steps" in summary else "Documents"
    has_units = all("units" in of for of in summary["best"])
    rows = [
        [of["term"], f"{of['occurrences']:,}", *([f"{of['units']:,}"] if has_units else [])]
        for of in summary["best"]
        if of["occurrences"]
    ]
    header = [what.capitalize(), "Occurrences", *([units] if has_units else [])]
    n = summary["n_found" if "n_found" in summary else "n_keys"]
    note = f"{n - len(rows):,} less frequent ones are in the table of -o." if n > len(rows) else ""
    return Table(f"The most frequent {what}", header, rows, note=note)


def _steps_table(summary: Settings) -> Table:
    rows = [
        [f"{step:,}", *(f"{of['occurrences'][i]:,}" for of in summary["curves"])]
        for i, step in enumerate(summary["steps"])
    ]
    header = ["Before step", *(of["term"] for of in summary["curves"])]
    return Table("By step", header, rows)
