"""The chart of a table of terms or numbers."""

from __future__ import annotations

from pile_tools.manifest import Manifest
from pile_tools.present import charts


def chart_of(made: Manifest) -> str:
    """The counts by step if they are of an order, by rank otherwise: an SVG."""
    summary = made.summary
    if "curves" in summary:
        series = {
            of["term"]: [
                (float(s), float(n)) for s, n in zip(summary["steps"], of["occurrences"], strict=True)
            ]
            for of in summary["curves"]
        }
        title = "How often the most frequent terms were seen"
        return charts.lines(title, "step", "occurrences so far", series, log_y=True)
    ranks = [(float(rank), float(count)) for rank, count in summary["ranks"]]
    title = "How often terms occur, by rank"
    return charts.lines(title, "rank", "occurrences", {"terms": ranks}, log_x=True, log_y=True)
