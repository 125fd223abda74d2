"""Counting ten thousand overlapping terms in shards, against the aho-corasick crate on parsed JSON."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
from functools import partial
from pathlib import Path

import numpy as np

from benches import inputs, peers
from benches.markdown import rate, seconds, table
from benches.measure import CACHE, ROOT, Measured, Stopwatch, best, failure, in_process, take_turns
from benches.setting import Result, Setting
from benches.verdict import Verdict, is_right, speed_up

TITLE = "Terms in shards"
TARGET = 2.0
PEER = "aho-corasick over serde_json"


def prepared(setting: Setting) -> Path:
    """A folder of uncompressed shards and the terms: one to four consecutive words of a document."""
    folder = CACHE / f"terms-{inputs.file_digest(*setting.shards)[:16]}"
    if not (folder / "terms.txt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for shard in setting.shards:
            with inputs.shard_lines(shard) as lines:
                (folder / (shard.name.removesuffix(".zst"))).write_bytes(lines.read())
        source, terms = random.Random(0), set[str]()
        documents = [re.findall(r"\S+", text) for text in inputs.corpus(setting.shards)]
        documents = [words for words in documents if len(words) > 4]
        while len(terms) < 10_000:
            words = source.choice(documents)
            start, n = source.randrange(len(words) - 4), source.randint(1, 4)
            term = " ".join(words[start : start + n])
            if 2 <= len(term) <= 80:
                terms.add(term)
        (folder / "terms.txt").write_text("".join(f"{term}\n" for term in sorted(terms)))
    return folder


def _digest(occurrences: np.ndarray, documents: np.ndarray) -> str:
    return hashlib.sha256(np.stack([occurrences, documents]).astype("<i8").tobytes()).hexdigest()


def ours(folder: str, n_threads: int, expected: str | None) -> Measured:
    from pile_tools import _core
    from pile_tools.read.texts import read_texts
    from pile_tools.types import TermQuery

    shards = sorted(Path(folder).glob("*.jsonl"))
    with Stopwatch() as clock:
        query = TermQuery(
            terms=[term.encode() for term in read_texts(Path(folder, "terms.txt"))],
            whole_words=False,
            ignore_case=False,
            pairs=[],
            within_words=None,
            threads=n_threads,
        )
        (occurrences, documents, _), *_ = _core.shards_terms(shards, query, False)
    found = _digest(occurrences[0], documents[0])
    n = int(occurrences.sum())
    return clock.measured(n_found=n, n_differing=0 if expected in (None, found) else 1)


def peer(folder: str) -> Measured:
    program = ROOT / "target" / "dist" / "examples" / "terms_peer"
    shards = sorted(Path(folder).glob("*.jsonl"))
    with Stopwatch() as clock:
        done = subprocess.run([program, Path(folder, "terms.txt"), *shards], capture_output=True, check=True)
    counts = np.array([line.split(b"\t") for line in done.stdout.splitlines()], dtype=np.int64)
    digest = _digest(counts[:, 0], counts[:, 1])
    return clock.measured(n_found=int(counts[:, 0].sum()), n_differing=0, digest=digest)


def measure(setting: Setting) -> Result:
    command = [
        "cargo",
        "build",
        "--locked",
        "--profile",
        "dist",
        "-p",
        "pile-core",
        "--example",
        "terms_peer",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    folder = str(prepared(setting))
    expected = in_process(peer, 1, folder=folder).get("digest")
    contenders = {
        peers.OURS: partial(in_process, ours, 1, folder=folder, n_threads=1, expected=expected),
        PEER: partial(in_process, peer, 1, folder=folder),
    }
    n_bytes = sum(path.stat().st_size for path in Path(folder).glob("*.jsonl"))
    return {"n_bytes": n_bytes, "rounds": take_turns(contenders, setting.rounds)}


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        cpu = best(rounds, "cpu")
        row = [name, rate(result["n_bytes"], cpu), seconds(cpu), seconds(best(rounds, "wall"))]
        same = "yes" if is_right(rounds) else "**no**"
        rows.append([*row, f"{rounds[0]['n_found']:,}", same])
    header = ["tool", "MB per CPU s", "CPU s", "s", "occurrences", "equal"]
    size = f"{result['n_bytes'] / 1e6:.1f} MB"
    return f"""10,000 terms of one to four words cut from the documents, as substrings, with overlapping
occurrences: occurrences and documents of each term. {size} of JSON lines, not compressed, parsed by each
tool; one thread. The peer builds a contiguous automaton, which is faster here than its other kind.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [
        speed_up(f"{TITLE}: 10,000, per CPU second, against {PEER}", TARGET, result["rounds"], (PEER,), "cpu")
    ]
