"""Targets, and whether they were met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benches.markdown import times
from benches.measure import Measured, best, failure, values
from benches.peers import OURS

Rounds = Mapping[str, list[Measured]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A target and the result."""

    job: str
    target: str
    found: str
    is_met: bool


def n_differing(rounds: list[Measured]) -> int:
    """Number of documents whose ids differ from the reference, in the worst round."""
    return int(max(values(rounds, "n_differing"), default=0))


def is_right(rounds: list[Measured]) -> bool:
    return not failure(rounds) and n_differing(rounds) == 0


def differing(rounds: list[Measured]) -> str:
    """The number of differing documents, formatted for a table."""
    return f"{n_differing(rounds):,}" if n_differing(rounds) else "none"


def speed_up(job: str, target: float, rounds: Rounds, rivals: Sequence[str], key: str = "wall") -> Verdict:
    """Our speed relative to the fastest of some rivals, by the best rounds."""
    present = [name for name in rivals if name in rounds and not failure(rounds[name])]
    if not present or not is_right(rounds[OURS]):
        found = "our ids differ or we fail" if present else f"no {rivals[0]} to compare with"
        return Verdict(job=job, target=times(target), found=found, is_met=False)
    ratio = min(best(rounds[name], key) for name in present) / best(rounds[OURS], key)
    return Verdict(job=job, target=times(target), found=times(ratio), is_met=ratio >= target)


def slow_down(
    job: str, limit: float, ours: list[Measured], theirs: list[Measured], key: str = "wall"
) -> Verdict:
    """Our time relative to that of `theirs`, by the best rounds; the target is at most `limit`."""
    target = f"at most {times(limit)}"
    if not is_right(ours) or not is_right(theirs):
        return Verdict(job=job, target=target, found="an answer differs or fails", is_met=False)
    ratio = best(ours, key) / best(theirs, key)
    return Verdict(job=job, target=target, found=times(ratio), is_met=ratio <= limit)
