"""The checkpoints of a run and the intervals between them. stepN is the model after N updates."""

from __future__ import annotations

import bisect
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pile_tools.errors import ConfigError

#: The 154 checkpoints of Pythia: 0, powers of two up to 512, then every 1,000 steps.
PYTHIA = (0, *(2**i for i in range(10)), *range(1000, 143_001, 1000))

_STEP_FOLDER = re.compile(r"step(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Intervals:
    """The steps of a run, divided at its checkpoints.

    Attributes:
        checkpoints: Numbers of updates, ascending, none above `n_steps`.
        n_steps: Steps of the run; step s, from 0, makes update s + 1.
    """

    checkpoints: tuple[int, ...]
    n_steps: int

    @property
    def edges(self) -> NDArray[np.int64]:
        """The ends of the intervals, (n + 1,) int64: interval i is steps [edges[i], edges[i + 1])."""
        return np.unique(np.array([0, *self.checkpoints, self.n_steps], dtype=np.int64))

    def of(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of the interval of each step, all below `n_steps`: (n,) int64."""
        indices: NDArray[np.int64] = np.searchsorted(self.edges, steps, side="right") - 1
        return indices

    def labels(self) -> list[str]:
        """The intervals' names, such as `step512 to step1000`."""
        known = set(self.checkpoints)

        def name(edge: int) -> str:
            if edge in known:
                return f"step{edge}"
            return "start" if edge == 0 else "end"

        return [f"{name(a)} to {name(b)}" for a, b in itertools.pairwise(self.edges.tolist())]

    def around(self, step: int) -> tuple[int | None, int | None]:
        """The last checkpoint before a step and the first one after it, None where there is none.

        The checkpoint with the number of the step is before it: step s makes update s + 1.
        """
        n_before = bisect.bisect_right(self.checkpoints, step)
        after = self.checkpoints[n_before] if n_before < len(self.checkpoints) else None
        return (self.checkpoints[n_before - 1] if n_before else None), after


def intervals(given: str | None, n_steps: int) -> Intervals:
    """The intervals between the checkpoints that a text describes, as on the command line.

    Args:
        given: A number N for every N steps, a list such as `0,100,200`, a folder of a run or of checkpoints
            named `stepN`, or None for Pythia's.
        n_steps: Steps of the run; later checkpoints are left out.

    Raises:
        ConfigError: The text is none of these.
        OSError: The folder cannot be read.
    """
    return Intervals(tuple(c for c in _given(given, n_steps) if c <= n_steps), n_steps)


def _given(given: str | None, n_steps: int) -> list[int]:
    if given is None:
        return list(PYTHIA)
    # `Path.is_dir` raises an error for a list that is longer than the longest file name.
    if os.path.isdir(given):  # noqa: PTH112
        return _in_folder(Path(given))
    # More digits are no number of steps, and `int` raises another error for thousands of them.
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", given):
        raise ConfigError(
            f"checkpoints {given!r}: expected a number (every N steps), a list such as 0,100,200, "
            "or a run's folder"
        )
    numbers = sorted({int(number) for number in given.split(",")})
    if "," in given:
        return numbers
    if numbers[0] == 0:
        raise ConfigError("checkpoints every 0 steps: give at least 1")
    return list(range(0, n_steps + 1, numbers[0]))


def _in_folder(folder: Path) -> list[int]:
    inner = folder / "checkpoints"
    names = [entry.name for entry in (inner if inner.is_dir() else folder).iterdir() if entry.is_dir()]
    found = sorted(int(match[1]) for name in names if (match := _STEP_FOLDER.fullmatch(name)))
    if not found:
        raise ConfigError(f"no folders named stepN here ({folder})")
    return found
