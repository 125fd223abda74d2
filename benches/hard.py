"""Strings that are hard for pretokenizers, caches and merges: 1 MB each, and 4 MB to measure growth."""

from __future__ import annotations

import math
from functools import partial

from benches import batch, inputs, peers, reference
from benches.markdown import seconds, table, times
from benches.measure import Measured, best, failure, in_process, take_turns
from benches.setting import Result, Setting
from benches.verdict import Verdict, is_right

TITLE = "Hard strings"
N_BYTES = 1_000_000
QUICK_BYTES = 50_000
#: Length of the string that measures growth, as a multiple of the other's.
LONGER = 4
#: Maximum exponent of time as a power of size. n log n has 1.07 from 1 to 4 MB, n^2 has 2.
MAX_POWER = 1.25


def measure(setting: Setting) -> Result:
    n_bytes = QUICK_BYTES if setting.is_quick else N_BYTES
    names = {kind: f"hard:{kind}:{n_bytes}" for kind in inputs.HARD}
    rounds = {kind: _rounds(name, list(peers.installed()), setting) for kind, name in names.items()}
    longer = {
        kind: _rounds(f"hard:{kind}:{LONGER * n_bytes}", [peers.OURS], setting)[peers.OURS] for kind in names
    }
    return {"n_bytes": n_bytes, "rounds": rounds, "longer": longer}


def _rounds(input: str, names: list[str], setting: Setting) -> dict[str, list[Measured]]:
    reference.prepare(input, **setting.files)
    print(f"  {input}", flush=True)
    contenders = {
        name: partial(in_process, batch.encode, 1, peer=name, input=input, **setting.files) for name in names
    }
    return take_turns(contenders, setting.rounds)


def _right_on_all(result: Result) -> list[str]:
    kinds = result["rounds"].values()
    return [name for name in peers.PEERS if all(name in kind and is_right(kind[name]) for kind in kinds)]


def _power(result: Result, kind: str) -> float:
    """The exponent of our time as a power of the size."""
    short, long = result["rounds"][kind][peers.OURS], result["longer"][kind]
    return math.log(best(long, "cpu") / best(short, "cpu"), LONGER)


def _cell(rounds: list[Measured]) -> str:
    if failure(rounds):
        return "fails"
    wrong = "" if is_right(rounds) else ", ids differ"
    return seconds(best(rounds, "cpu")) + wrong


def section(result: Result) -> str:
    kinds = list(result["rounds"])
    names = list(result["rounds"][kinds[0]])
    rows = [[name, *(_cell(result["rounds"][kind][name]) for kind in kinds)] for name in names]
    longer = [f"pile-tools, {LONGER} times as long", *(_cell(result["longer"][kind]) for kind in kinds)]
    power = ["its time grows as size to the power of", *(f"{_power(result, kind):.2f}" for kind in kinds)]
    failures = [
        f"- {name}, {kind}: {why}"
        for kind, of_kind in result["rounds"].items()
        for name, rounds in of_kind.items()
        if (why := failure(rounds))
    ]
    return f"""CPU seconds of one `encode_batch` of one string of {result["n_bytes"] / 1e6:.2f} MB, on one
processor, by a newly loaded tokenizer. Ids were compared with those of `tokenizers`. Right on all:
{", ".join(_right_on_all(result))}.

{table(["tool", *kinds], [*rows, longer, power])}

{chr(10).join(["Failures:", "", *failures]) if failures else "Nothing fails."}"""


def verdicts(result: Result) -> list[Verdict]:
    rivals = [name for name in _right_on_all(result) if name != peers.OURS]
    return [verdict for kind in result["rounds"] for verdict in _verdicts(result, kind, rivals)]


def _verdicts(result: Result, kind: str, rivals: list[str]) -> list[Verdict]:
    rounds = result["rounds"][kind]
    rival = min(rivals, key=lambda name: best(rounds[name], "cpu"))
    ratio = best(rounds[rival], "cpu") / best(rounds[peers.OURS], "cpu")
    power = _power(result, kind)
    return [
        Verdict(
            job=f"1 MB, {kind}, against {rival}",
            target="no slower",
            found=times(ratio),
            is_met=ratio >= 1 and peers.OURS in _right_on_all(result),
        ),
        Verdict(
            job=f"1 MB, {kind}, growth to {LONGER} MB",
            target="n log n",
            found=f"n to the power of {power:.2f}",
            is_met=power <= MAX_POWER,
        ),
    ]
