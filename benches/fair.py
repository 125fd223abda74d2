"""The whole job per CPU second, against a peer made of `tokenizers` and common packages."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benches import datasets, inputs, peers, reference, whole
from benches.markdown import rate, seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, speed_up

TITLE = "Shards to a dataset, for each second of CPU"
TARGET = 50.0
CPUS = 2
FAIR = "tokenizers + orjson + zstandard + numpy"


def fair_peer(shards: list[str], tokenizer: str) -> Measured:
    from benches import fair_peer

    paths, file = [Path(shard) for shard in shards], Path(tokenizer)
    eod = peers.eod(file)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        prefix = Path(folder) / "fair"
        with Stopwatch() as clock:
            fair_peer.run(paths, prefix, file, eod, CPUS)
        expected = reference.expected(inputs.corpus(paths), file)
        return clock.measured(n_differing=datasets.n_differing(prefix, expected, eod))


def measure(setting: Setting) -> Result:
    reference.prepare("corpus", **setting.files)
    contenders = {
        peers.OURS: partial(in_process, whole.ours, CPUS, threads=CPUS, **setting.files),
        FAIR: partial(in_process, fair_peer, CPUS, **setting.files),
    }
    n_bytes = inputs.n_bytes(inputs.corpus(setting.shards))
    return {"n_bytes": n_bytes, "rounds": take_turns(contenders, setting.rounds)}


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        cpu, wall = best(rounds, "cpu"), best(rounds, "wall")
        row = [name, rate(result["n_bytes"], cpu), seconds(cpu), spread(values(rounds, "cpu"))]
        rows.append([*row, seconds(wall), str(len(rounds)), differing(rounds)])
    header = [
        "tool",
        "MB per CPU-second",
        "CPU s",
        "spread, CPU s",
        "wall s",
        "rounds",
        "documents that differ",
    ]
    return f"""`benches/fair_peer.py` in {CPUS} processes against `pile-tools tokenize` with {CPUS} threads,
on {CPUS} processors; user and system CPU time of all processes counts. Both write `.bin` and `.idx`,
whose tokens were compared with the reference's.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [speed_up(f"{TITLE}, against {FAIR}", TARGET, result["rounds"], [FAIR], "cpu")]
