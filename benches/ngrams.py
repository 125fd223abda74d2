"""Exact counts of all n-grams of tokens, against numpy.unique on packed keys and a plain Counter."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from benches import peers
from benches.markdown import seconds, table
from benches.measure import Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, is_right, speed_up
from benches.when import prepared

TITLE = "Exact 3-grams of tokens, all counts"
TARGET_NUMPY, TARGET_COUNTER, TARGET_MEMORY = 3.0, 15.0, 0.5
NUMPY, COUNTER, TWO = "numpy.unique on packed keys", "Counter", "pile-tools, 2 threads"
N = 3


def _digest(keys: np.ndarray, counts: np.ndarray) -> str:
    hashed = hashlib.sha256(np.ascontiguousarray(keys, dtype="<u8").tobytes())
    hashed.update(np.ascontiguousarray(counts, dtype="<u8").tobytes())
    return hashed.hexdigest()


def _packed(tokens: np.ndarray) -> np.ndarray:
    wide = tokens.astype(np.uint64)
    return (wide[0] << np.uint64(32)) | (wide[1] << np.uint64(16)) | wide[2]


def _measured(clock: Stopwatch, found: str, expected: str | None, n: int) -> Measured:
    return clock.measured(digest=found, n_found=n, n_differing=0 if expected in (None, found) else 1)


def ours(prefix: str, n_threads: int, expected: str | None) -> Measured:
    import pile_tools

    dataset = pile_tools.TokenDataset(prefix)
    with Stopwatch() as clock:
        tokens, counts = pile_tools.ngrams(dataset, N, across_documents=True, threads=n_threads)
    measured = clock.measured()
    return measured | _measured(clock, _digest(_packed(tokens.T), counts), expected, len(counts))


def unique(prefix: str) -> Measured:
    tokens = np.fromfile(prefix + ".bin", "<u2")
    with Stopwatch() as clock:
        keys = tokens[:-2].astype(np.uint64)
        keys <<= np.uint64(16)
        keys |= tokens[1:-1]
        keys <<= np.uint64(16)
        keys |= tokens[2:]
        found, counts = np.unique(keys, return_counts=True)
    return _measured(clock, _digest(found, counts), None, len(counts))


def counter(prefix: str, expected: str | None) -> Measured:
    tokens = np.fromfile(prefix + ".bin", "<u2").tolist()
    with Stopwatch() as clock:
        counted = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    grams = sorted(counted)
    keys = _packed(np.array(grams, dtype=np.uint16).T)
    counts = np.array([counted[gram] for gram in grams])
    return _measured(clock, _digest(keys, counts), expected, len(grams))


def measure(setting: Setting) -> Result:
    prefix = str(Path(prepared(setting)) / "sample")
    reference = in_process(unique, 1, prefix=prefix)
    expected = reference.get("digest")
    contenders = {
        peers.OURS: partial(in_process, ours, 1, prefix=prefix, n_threads=1, expected=expected),
        TWO: partial(in_process, ours, 2, prefix=prefix, n_threads=2, expected=expected),
        NUMPY: partial(in_process, unique, 1, prefix=prefix),
    }
    rounds = take_turns(contenders, setting.rounds)
    rounds[COUNTER] = [in_process(counter, 1, prefix=prefix, expected=expected)]
    n_tokens = Path(prefix + ".bin").stat().st_size // 2
    return {"n_tokens": n_tokens, "rounds": rounds}


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        cpu = best(rounds, "cpu")
        row = [name, f"{result['n_tokens'] / cpu / 1e6:.1f}", seconds(cpu), seconds(best(rounds, "wall"))]
        same = "yes" if is_right(rounds) else "**no**"
        rows.append([*row, f"{max(values(rounds, 'peak_mib')):,.0f}", f"{rounds[0]['n_found']:,}", same])
    header = ["tool", "M tokens per CPU s", "CPU s", "s", "peak MiB", "distinct 3-grams", "equal"]
    return f"""All {result["n_tokens"]:,} tokens of the corpus, n-grams across documents, sorted, counted, as
arrays in memory. Peak memory is that of the whole process, including imports and the tokens; pile-tools
counts with the default limit of 1 GiB. Keys and counts of all tools are hashed and compared.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds = result["rounds"]
    ours_peak = max(values(rounds[peers.OURS], "peak_mib"), default=float("inf"))
    numpy_peak = min(values(rounds[NUMPY], "peak_mib"), default=float("nan"))
    return [
        speed_up(f"{TITLE}, per CPU second, against {NUMPY}", TARGET_NUMPY, rounds, (NUMPY,), "cpu"),
        speed_up(f"{TITLE}, per CPU second, against {COUNTER}", TARGET_COUNTER, rounds, (COUNTER,), "cpu"),
        Verdict(
            job=f"{TITLE}, peak memory against {NUMPY}",
            target=f"at most {TARGET_MEMORY:.0%}",
            found=f"{ours_peak / numpy_peak:.0%}",
            is_met=ours_peak <= TARGET_MEMORY * numpy_peak,
        ),
    ]
