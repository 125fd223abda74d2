"""Building and querying a suffix array, against tokengrams on the same tokens, with equal answers."""

from __future__ import annotations

import random
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches import inputs, when
from benches.markdown import seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.peers import OURS
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, speed_up

TITLE = "Counts of n-grams by a suffix array"
#: Targets of tokens indexed per CPU second, of single counts, and of counts in batches.
TARGET_BUILD, TARGET_ONE, TARGET_MANY = 8.0, 2.0, 10.0
PEER = "tokengrams"
N_QUERIES = 10_000


def prepared(setting: Setting) -> Path:
    """The prefix of the dataset to index, a copy of that of `when`."""
    folder = CACHE / f"search-{inputs.file_digest(*setting.shards, setting.tokenizer)[:16]}"
    if not (folder / "sample.idx").exists():
        source = when.prepared(setting)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in (".bin", ".manifest.json", ".idx"):
            shutil.copy(source / f"sample{suffix}", folder / f"sample{suffix}")
    return folder / "sample"


def queries(prefix: str) -> np.ndarray:
    """4-grams, three quarters of which occur in the tokens. The others are reversed and mostly do not."""
    import pile_tools

    tokens, source = pile_tools.TokenDataset(prefix).tokens, random.Random(0)
    starts = [source.randrange(len(tokens) - 4) for _ in range(N_QUERIES)]
    grams = np.stack([tokens[start : start + 4] for start in starts]).astype(np.int64)
    grams[::4] = grams[::4, ::-1]
    # The peer does not know documents, so no query may cross the end of one.
    eod = tokens[pile_tools.TokenDataset(prefix).first_token(1) - 1]
    return np.ascontiguousarray(grams[~(grams[:, :-1] == eod).any(axis=1)])


def build_ours(prefix: str, tokenizer: str) -> Measured:
    """Measures the whole job of `pile-tools index`, with syncs, checksums and manifest."""
    from pile_tools.jobs.index import IndexConfig, run

    path = Path(prefix)
    shutil.rmtree(path.with_name(path.name + ".index"), ignore_errors=True)
    with Stopwatch() as clock:
        made, _ = run(path, IndexConfig(tokenizer=Path(tokenizer)))
    return clock.measured(n_bytes=sum(entry["bytes"] for entry in made.outputs), n_differing=0)


def build_peer(prefix: str) -> Measured:
    import tokengrams

    index = Path(prefix + ".tokengrams")
    index.unlink(missing_ok=True)
    with Stopwatch() as clock:
        tokengrams.MemmapIndex.build(prefix + ".bin", str(index), 1 << 16)
    return clock.measured(n_bytes=index.stat().st_size, n_differing=0)


def _timed(count: Any, n: int) -> tuple[Any, float]:
    """The result of `count`, and its CPU seconds divided by `n`, the better of two runs."""
    seconds = []
    for _ in range(2):
        started = time.process_time()
        found = count()
        seconds.append((time.process_time() - started) / n)
    return found, min(seconds)


def ask_ours(prefix: str) -> Measured:
    """Measures CPU seconds per count: one by one with lists, and all at once on one processor."""
    import pile_tools

    grams, index = queries(prefix), pile_tools.open_index(prefix)
    lists = grams.tolist()
    one, wall_one = _timed(lambda: [index.count(ids) for ids in lists], len(lists))
    many, wall_many = _timed(lambda: index.count_batch(grams, threads=1), len(lists))
    n_differing = int((np.array(one) != many).sum())
    return {
        "one": wall_one,
        "many": wall_many,
        "counts": many.tolist(),
        "n_differing": n_differing,
        "wall": 0,
        "cpu": 0,
    }


def ask_peer(prefix: str) -> Measured:
    import tokengrams

    grams = queries(prefix).tolist()
    index = tokengrams.MemmapIndex(prefix + ".bin", prefix + ".tokengrams", 1 << 16)
    counts, wall = _timed(lambda: [index.count(ids) for ids in grams], len(grams))
    return {"one": wall, "many": wall, "counts": counts, "n_differing": 0, "wall": 0, "cpu": 0}


def measure(setting: Setting) -> Result:
    prefix = prepared(setting)
    builds = take_turns(
        {
            OURS: partial(in_process, build_ours, 1, prefix=prefix, tokenizer=setting.tokenizer),
            PEER: partial(in_process, build_peer, 1, prefix=prefix),
        },
        setting.rounds,
    )
    asks = take_turns(
        {
            OURS: partial(in_process, ask_ours, 1, prefix=prefix),
            PEER: partial(in_process, ask_peer, 1, prefix=prefix),
        },
        setting.rounds,
    )
    counts = [
        measured.pop("counts") for rounds in asks.values() for measured in rounds if "counts" in measured
    ]
    for measured in asks[OURS]:
        if "failed" not in measured:
            measured["n_differing"] += sum(other != counts[0] for other in counts)
    import pile_tools

    n_tokens = pile_tools.TokenDataset(prefix).n_tokens
    return {"n_tokens": n_tokens, "builds": builds, "asks": asks}


def section(result: Result) -> str:
    n_tokens = result["n_tokens"]
    built, queried = [], []
    for name, rounds in result["builds"].items():
        if why := failure(rounds):
            built.append([name, why])
            continue
        cpu, size = best(rounds, "cpu"), values(rounds, "n_bytes")[0] / n_tokens
        row = [name, f"{n_tokens / cpu / 1e6:,.2f}", seconds(cpu), spread(values(rounds, "cpu"))]
        built.append([*row, f"{size:.2f}", f"{max(values(rounds, 'peak_mib')):,.0f}"])
    for name, rounds in result["asks"].items():
        if why := failure(rounds):
            queried.append([name, why])
            continue
        one, many = (f"{best(rounds, key) * 1e6:.2f}" for key in ("one", "many"))
        queried.append([name, one, many, differing(rounds)])
    build_header = ["tool", "M tokens/CPU-s", "CPU s", "spread, s", "bytes/token", "peak MiB"]
    ask_header = [
        "tool",
        "one by one, CPU us",
        f"a batch of {N_QUERIES:,}, CPU us each",
        "counts that differ",
    ]
    return f"""The suffixes of {n_tokens:,} uint16 tokens sorted and written, on one processor; the index of
pile-tools also finds texts, and its time includes reading the tokenizer, checksums and the manifest.

{table(build_header, built)}

Counts of 4-grams from Python on one processor, three quarters of which occur, with the index in the page
cache. tokengrams takes no array, so its batch is single calls.

{table(ask_header, queried)}"""


def verdicts(result: Result) -> list[Verdict]:
    asks = result["asks"]
    return [
        speed_up(f"{TITLE}, built and written", TARGET_BUILD, result["builds"], (PEER,), "cpu"),
        speed_up(f"{TITLE}, one by one", TARGET_ONE, asks, (PEER,), "one"),
        speed_up(f"{TITLE}, a batch of 10,000", TARGET_MANY, asks, (PEER,), "many"),
    ]
