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
    """A target of ours, and what came out."""

    job: str
    target: str
    found: str
    is_met: bool


def n_differing(rounds: list[Measured]) -> int:
    """Documents with other ids than the reference's, in the worst round."""
    return int(max(values(rounds, "n_differing"), default=0))


def is_right(rounds: list[Measured]) -> bool:
    return not failure(rounds) and n_differing(rounds) == 0


def differing(rounds: list[Measured]) -> str:
    """The same for a table."""
    return f"{n_differing(rounds):,}" if n_differing(rounds) else "none"


def speed_up(job: str, target: float, rounds: Rounds, rivals: Sequence[str], key: str = "wall") -> Verdict:
    """How many times as fast we are as the fastest of some rivals, by their best rounds."""
    present = [name for name in rivals if name in rounds and not failure(rounds[name])]
    if not present or not is_right(rounds[OURS]):
        found = "our ids differ or we fail" if present else f"no {rivals[0]} to compare with"
        return Verdict(job=job, target=times(target), found=found, is_met=False)
    ratio = min(best(rounds[name], key) for name in present) / best(rounds[OURS], key)
    return Verdict(job=job, target=times(target), found=times(ratio), is_met=ratio >= target)


def slow_down(
    job: str, limit: float, ours: list[Measured], theirs: list[Measured], key: str = "wall"
) -> Verdict:
    """How many times as long as something else we take, by the best rounds; `limit` is the most it may be."""
    target = f"at most {times(limit)}"
    if not is_right(ours) or not is_right(theirs):
        return Verdict(job=job, target=target, found="an answer differs or fails", is_met=False)
    ratio = best(ours, key) / best(theirs, key)
    return Verdict(job=job, target=target, found=times(ratio), is_met=ratio <= limit)
