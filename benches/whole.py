"""The whole job, from shards to `.bin` and `.idx` on disk, on one and on two processors."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benches import datasets, inputs, peers, reference
from benches.markdown import rate, seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, speed_up

TITLE = "Shards to a dataset on disk"
TARGET = 2.5
CPUS = (1, 2)
RIVALS = ("gigatoken", "gigatoken, parallel=False")


def ours(threads: int, shards: list[str], tokenizer: str) -> Measured:
    """Measures our whole job, with manifest and provenance."""
    paths, file = [Path(shard) for shard in shards], Path(tokenizer)
    peers.PEERS[peers.OURS].start()
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        prefix = Path(folder) / "ours"
        with Stopwatch() as clock:
            peers.tokenize_shards(paths, prefix, file, threads)
        expected = reference.expected(inputs.corpus(paths), file)
        return clock.measured(n_differing=datasets.n_differing(prefix, expected, peers.eod(file)))


def gigatoken(parallel: bool, shards: list[str], tokenizer: str) -> Measured:
    """Measures the most similar job of gigatoken: it reads the same shards and leaves the ids in memory."""
    paths, file = [Path(shard) for shard in shards], Path(tokenizer)
    peer = peers.PEERS["gigatoken"]
    peer.start()
    with Stopwatch() as clock:
        result = peers.gigatoken_shards(paths, file, parallel=parallel)
    expected = reference.expected(inputs.corpus(paths), file)
    return clock.measured(n_differing=expected.n_differing(*peer.flat(result)))


def measure(setting: Setting) -> Result:
    reference.prepare("corpus", **setting.files)
    return {
        "n_bytes": inputs.n_bytes(inputs.corpus(setting.shards)),
        "rounds": {str(cpus): take_turns(_contenders(setting, cpus), setting.rounds) for cpus in CPUS},
    }


def _contenders(setting: Setting, cpus: int) -> dict[str, partial[Measured]]:
    contenders = {peers.OURS: partial(in_process, ours, cpus, threads=cpus, **setting.files)}
    if peers.PEERS["gigatoken"].is_installed:
        contenders["gigatoken"] = partial(in_process, gigatoken, cpus, parallel=True, **setting.files)
        if cpus == 1:
            contenders["gigatoken, parallel=False"] = partial(
                in_process, gigatoken, cpus, parallel=False, **setting.files
            )
    return contenders


def section(result: Result) -> str:
    rows = []
    for cpus, contenders in result["rounds"].items():
        for name, rounds in contenders.items():
            if why := failure(rounds):
                rows.append([cpus, name, why])
                continue
            wall, cpu, peak = (best(rounds, key) for key in ("wall", "cpu", "peak_mib"))
            row = [cpus, name, rate(result["n_bytes"], wall), seconds(wall), spread(values(rounds, "wall"))]
            rows.append([*row, seconds(cpu), f"{peak:,.0f}", differing(rounds)])
    header = ["CPUs", "tool", "MB/s of text", "s", "spread, s", "CPU s", "peak MiB", "documents that differ"]
    return f"""The same shards, {result["n_bytes"] / 1e6:.1f} MB of text. pile-tools does all that
`pile-tools tokenize` does: `.bin`, `.idx`, provenance and manifest, synced to disk; gigatoken
(`JsonlFileSource`) leaves the ids in memory and writes nothing. Loading the tokenizer counts,
importing does not. Each round is a new process, pinned to as many processors as it has threads. The ids of
every round were compared with those of `tokenizers`.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [
        speed_up(f"{TITLE}, {cpus} threads, against gigatoken", TARGET, contenders, RIVALS)
        for cpus, contenders in result["rounds"].items()
    ]
