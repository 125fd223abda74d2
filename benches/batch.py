"""Text to ids from Python, on one processor: `encode_batch` of each peer on a list of documents."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benches import inputs, peers, reference
from benches.markdown import rate, seconds, spread, table
from benches.measure import Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, speed_up

TITLE = "Text to ids from Python"
TARGET = 2.5
RIVALS = ("gigatoken", "gigatoken, parallel=False")


def encode(peer: str, input: str, shards: list[str], tokenizer: str) -> Measured:
    """Measures one pass of a fresh tokenizer over an input, and counts the texts with wrong ids."""
    of = peers.PEERS[peer]
    texts = inputs.load(input, [Path(shard) for shard in shards])
    of.start()
    with Stopwatch() as loading:
        loaded = of.loaded(Path(tokenizer))
    with Stopwatch() as clock:
        result = of.encode(loaded, texts)
    expected = reference.expected(texts, Path(tokenizer))
    return clock.measured(load_cpu=loading.cpu, n_differing=expected.n_differing(*of.flat(result)))


def measure(setting: Setting) -> Result:
    reference.prepare("corpus", **setting.files)
    contenders = {
        peer: partial(in_process, encode, 1, peer=peer, input="corpus", **setting.files)
        for peer in peers.installed()
    }
    texts = inputs.corpus(setting.shards)
    return {
        "n_documents": len(texts),
        "n_bytes": inputs.n_bytes(texts),
        "rounds": take_turns(contenders, setting.rounds),
    }


def section(result: Result) -> str:
    rows = []
    for peer, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([peer, why])
            continue
        wall = best(rounds, "wall")
        rows.append(
            [
                peer,
                rate(result["n_bytes"], wall),
                seconds(wall),
                seconds(best(rounds, "cpu")),
                spread(values(rounds, "wall")),
                str(len(rounds)),
                seconds(best(rounds, "load_cpu")),
                f"{best(rounds, 'peak_mib'):,.0f}",
                differing(rounds),
            ]
        )
    header = [
        "tool",
        "MB/s",
        "s",
        "CPU s",
        "spread, s",
        "rounds",
        "loading, s",
        "peak MiB",
        "documents that differ",
    ]
    size = f"{result['n_documents']:,} documents, {result['n_bytes'] / 1e6:.1f} MB of UTF-8"
    return f"""`encode_batch` on {size}, pinned to one processor, by a tokenizer newly loaded in a separate
process: caches are cold. Loading (with the encoding of one full stop, because some tokenizers set up threads
and tables only then) is listed separately and not counted. The ids of every round were compared with those of
`tokenizers`. The peaks include the texts.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    job = f"{TITLE}, 1 thread, against gigatoken"
    return [speed_up(job, TARGET, result["rounds"], RIVALS)]
