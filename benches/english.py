"""English documents only: the speed of the first pass, and of repeated passes after it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benches import inputs, peers, reference
from benches.batch import RIVALS
from benches.markdown import rate, spread, table
from benches.measure import Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.reference import Expected
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, speed_up

TITLE = "English, first pass and steady state"
TARGET = 2.0
STEADY_BYTES = 10**9
QUICK_BYTES = 2 * 10**7


def passes(peer: str, n_copies: int, shards: list[str], tokenizer: str) -> Measured:
    """Measures a fresh tokenizer on the documents, then the same tokenizer on many copies of them."""
    of = peers.PEERS[peer]
    texts = inputs.english([Path(shard) for shard in shards])
    expected = reference.expected(texts, Path(tokenizer))
    # Each copy has its own memory: a text that is read repeatedly would stay in the processor's cache.
    copies = ["".join((text[:1], text[1:])) for _ in range(n_copies) for text in texts]
    of.start()
    loaded = of.loaded(Path(tokenizer))
    with Stopwatch() as first:
        result = of.encode(loaded, texts)
    n_differing = expected.n_differing(*of.flat(result))
    del result
    with Stopwatch() as steady:
        result = of.encode(loaded, copies)
    ids, offsets = of.flat(result)
    n_differing += _n_differing_copies(expected, ids, offsets, n_copies)
    return first.measured(steady_wall=steady.wall, steady_cpu=steady.cpu, n_differing=n_differing)


def _n_differing_copies(expected: Expected, ids: np.ndarray, offsets: np.ndarray, n_copies: int) -> int:
    n_documents = len(expected.offsets) - 1
    offsets, n_differing = offsets.astype(np.int64), 0
    for first in range(0, n_copies * n_documents, n_documents):
        of_copy = offsets[first : first + n_documents + 1]
        n_differing += expected.n_differing(ids[of_copy[0] : of_copy[-1]], of_copy - of_copy[0])
    return n_differing


def measure(setting: Setting) -> Result:
    reference.prepare("english", **setting.files)
    texts = inputs.english(setting.shards)
    n_bytes = inputs.n_bytes(texts)
    n_copies = -(-(QUICK_BYTES if setting.is_quick else STEADY_BYTES) // n_bytes)
    contenders = {
        peer: partial(in_process, passes, 1, peer=peer, n_copies=n_copies, **setting.files)
        for peer in peers.installed(peers.OURS, *RIVALS)
    }
    rounds = take_turns(contenders, setting.rounds)
    return {"n_documents": len(texts), "n_bytes": n_bytes, "n_copies": n_copies, "rounds": rounds}


def section(result: Result) -> str:
    n_bytes, n_copies, rows = result["n_bytes"], result["n_copies"], []
    for peer, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([peer, why])
            continue
        row = [peer]
        for key, n_passes in (("wall", 1), ("steady_wall", n_copies)):
            row += [rate(n_passes * n_bytes, best(rounds, key)), spread(values(rounds, key))]
        rows.append([*row, differing(rounds)])
    header = ["tool", "first pass, MB/s", "spread, s", "steady, MB/s", "spread, s", "documents that differ"]
    return f"""{result["n_documents"]:,} documents, {n_bytes / 1e6:.1f} MB: those of the subsets of prose
with at least {inputs.MIN_ASCII_SHARE:.0%} ASCII and more than {inputs.MIN_ENGLISH_SHARE:.0%} of their words
among the {len(inputs.ENGLISH_WORDS)} commonest of English. `encode_batch` on one processor: first pass by a
newly loaded tokenizer; steady state by the same object afterwards, on {n_copies} copies,
{n_copies * n_bytes / 1e9:.2f} GB in one call. All ids were compared with those of `tokenizers`.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [
        speed_up(f"English, {job}, against gigatoken", TARGET, result["rounds"], RIVALS, key)
        for job, key in (("first pass", "wall"), ("steady state", "steady_wall"))
    ]
