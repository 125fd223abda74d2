"""Formats numbers and tables for RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence

from benches.measure import Measured, best


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    filled = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    lines = [header, ["---"] * len(header), *filled]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def seconds(value: float) -> str:
    """A number of seconds with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def rate(n_bytes: float, value: float) -> str:
    return f"{n_bytes / 1e6 / value:.1f}"


def speeds(name: str, n_bytes: float, rounds: list[Measured]) -> list[str]:
    """The first cells of a tool's row: name, MB per CPU second, CPU seconds and seconds, at best."""
    cpu = best(rounds, "cpu")
    return [name, rate(n_bytes, cpu), seconds(cpu), seconds(best(rounds, "wall"))]


def times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 10 else f"{ratio:.2f} times"


def spread(values: Sequence[float]) -> str:
    """The range from the best to the worst round."""
    return f"{seconds(min(values))} to {seconds(max(values))}"
