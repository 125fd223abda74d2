"""Near duplicates of shards, removed and written, against other tools that do it by MinHash."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from benches import dedup_peers, inputs, peers
from benches.dedup_peers import BANDS, N_PERMUTATIONS, N_WORDS, RENSA_BANDS, ROWS, THRESHOLD
from benches.markdown import speeds, table
from benches.measure import CACHE, Measured, failure, in_process, take_turns
from benches.setting import Result, Setting
from benches.verdict import Verdict, speed_up

TITLE = "Near duplicates"
RENSA, RENSA_INDEX = "rensa, verified by signatures", "rensa, not verified"
DATASKETCH, TEXT_DEDUP, DATATROVE, DUPLODOCUS = "datasketch", "text-dedup 0.4", "datatrove", "duplodocus"
#: How many times our speed is at least that of each.
TARGETS = {
    (RENSA, RENSA_INDEX): 3.0,
    (DATASKETCH,): 25.0,
    (TEXT_DEDUP,): 10.0,
    (DATATROVE,): 10.0,
    (DUPLODOCUS,): 1.5,
}
MIN_RECALL = 0.99
#: Slow tools get the first shards with this many bytes of text.
SLOW, SLOW_BYTES = (DATASKETCH, TEXT_DEDUP, DATATROVE), 10_000_000


def prepared(setting: Setting) -> tuple[Path, Path]:
    """Two folders of shards: all of them, and the first ones for slow tools."""
    folder = CACHE / f"dedup-{inputs.file_digest(*setting.shards)[:16]}"
    everything, first = folder / "all", folder / "first"
    if not first.exists():
        shutil.rmtree(folder, ignore_errors=True)
        unfinished, n_bytes = folder / "unfinished", 0
        for made in (everything, unfinished):
            made.mkdir(parents=True)
        for shard in setting.shards:
            shutil.copyfile(shard, everything / shard.name)
            if n_bytes < SLOW_BYTES:
                shutil.copyfile(shard, unfinished / shard.name)
                n_bytes += inputs.n_bytes(inputs.corpus([shard]))
        unfinished.rename(first)
    return everything, first


def tools(setting: Setting) -> dict[str, partial[Measured]]:
    """The tools that are here, each as a function of its input and its output."""
    of = dedup_peers
    found = {peers.OURS: partial(of.ours, n_threads=1)}
    if peers.version("rensa"):
        found |= {RENSA: partial(of.rensa_deduplicator), RENSA_INDEX: partial(of.rensa_index)}
    if peers.version("datasketch"):
        found[DATASKETCH] = partial(of.datasketch)
    if of.TEXT_DEDUP.exists():
        found[TEXT_DEDUP] = partial(of.text_dedup)
    if peers.version("datatrove"):
        found[DATATROVE] = partial(of.datatrove, bands=BANDS, rows=ROWS)
    if setting.duplodocus:
        program = str(setting.duplodocus / "target" / "release" / "duplodocus")
        found[DUPLODOCUS] = partial(of.duplodocus, program=program, bands=BANDS, rows=ROWS)
    return found


def output_of(name: str) -> Path:
    """The folder that a tool writes."""
    return CACHE / "dedup-output" / re.sub(r"\W+", "-", name)


def contenders(setting: Setting, folder: Path, names: Iterable[str]) -> dict[str, partial[Measured]]:
    """The tools of some names, each run in a process with one processor on the shards in `folder`."""
    return {
        name: partial(in_process, tool.func, 1, folder=folder, output=output_of(name), **tool.keywords)
        for name, tool in tools(setting).items()
        if name in names
    }


class Truth:
    """Planted documents, and the pairs of them that are similar, by comparison of all pairs.

    Texts of fewer words than a shingle are left out: tools differ in what these are similar to.
    """

    def __init__(self, folder: Path) -> None:
        lines = (folder / "docs.jsonl").read_text().splitlines()
        self.texts = {int(record["id"]): record["text"] for record in map(json.loads, lines)}
        self.short = {i for i, text in self.texts.items() if len(text.split()) < N_WORDS}
        rows = [line.split("\t") for line in (folder / "pairs.tsv").read_text().splitlines()[1:]]
        self.pairs = {
            (int(a), int(b))
            for a, b, similarity, _ in rows
            if float(similarity) >= THRESHOLD and not {int(a), int(b)} & self.short
        }
        self.like: dict[int, set[int]] = {}
        for a, b in self.pairs:
            self.like.setdefault(a, set()).add(b)
            self.like.setdefault(b, set()).add(a)

    def judged(self, kept: set[int]) -> Measured:
        """What a tool removed, how much of it is like no document that stays, and what it left."""
        removed = set(self.texts) - kept - self.short
        n_wrong = sum(not self.like.get(i, set()) & kept for i in removed)
        n_left = sum(any(j < i for j in self.like.get(i, set()) & kept) for i in kept)
        return {"n_removed": len(removed), "n_wrong": n_wrong, "n_left": n_left}

    def scored(self, found: set[tuple[int, int]]) -> Measured:
        """Recall and precision of pairs."""
        found = {pair for pair in found if not set(pair) & self.short}
        n_right = len(found & self.pairs)
        return {"recall": n_right / len(self.pairs), "precision": n_right / max(len(found), 1)}


def our_pairs(planted: str, output: str) -> Measured:
    """The recall of the pairs that a run verified, and the precision of those by which it removes.

    The job verifies one document of each text, so the pairs of its copies are not counted.
    """
    import pyarrow.parquet as pq

    truth = Truth(Path(planted))
    summary = json.loads(Path(output, "manifest.json").read_text())["summary"]
    first: dict[str, int] = {}
    for i, text in truth.texts.items():
        first.setdefault(text, i)
    distinct = {pair for pair in truth.pairs if all(first[truth.texts[i]] == i for i in pair)}
    rows = pq.read_table(Path(output, "clusters.parquet")).to_pylist()
    charged = {
        (min(row["record"], row["kept_record"]), max(row["record"], row["kept_record"]))
        for row in rows
        if row["decision"] == "removed"
    }
    precision = truth.scored(charged)["precision"]
    return {"recall": summary["n_verified"] / len(distinct), "precision": precision, "wall": 0, "cpu": 0}


def rensa_pairs(planted: str, verified: bool) -> Measured:
    """The candidates of rensa's index, all of them or those that their signatures verify."""
    import rensa

    truth = Truth(Path(planted))
    index = rensa.RMinHashLSH(THRESHOLD, N_PERMUTATIONS, RENSA_BANDS)
    shingles = [list(dedup_peers.shingles(text)) for text in truth.texts.values()]
    signatures = rensa.RMinHash.from_token_sets(shingles, N_PERMUTATIONS, 42)
    by_id = dict(zip(truth.texts, signatures, strict=True))
    found = set[tuple[int, int]]()
    for i, signature in by_id.items():
        near = index.query(signature)
        found |= {
            (other, i) for other in near if not verified or by_id[other].jaccard(signature) >= THRESHOLD
        }
        index.insert(i, signature)
    return {**truth.scored(found), "wall": 0, "cpu": 0}


def datasketch_pairs(planted: str) -> Measured:
    """The candidates of datasketch's index."""
    from datasketch import MinHashLSH

    truth = Truth(Path(planted))
    index = MinHashLSH(threshold=THRESHOLD, num_perm=N_PERMUTATIONS)
    found = set[tuple[int, int]]()
    for i, text in truth.texts.items():
        signature = dedup_peers.datasketch_signature(text)
        found |= {(other, i) for other in index.query(signature)}
        index.insert(i, signature)
    return {**truth.scored(found), "wall": 0, "cpu": 0}


def removals(planted: str, output: str) -> Measured:
    """What a tool removed of the planted documents, by the records that it wrote."""
    return {**Truth(Path(planted)).judged(dedup_peers.kept_ids(output)), "wall": 0, "cpu": 0}


def quality(setting: Setting, planted: Path) -> Result:
    """Runs every tool on the planted documents."""
    folder = CACHE / "dedup-planted"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(planted / "docs.jsonl", folder / "docs.jsonl")
    judged = {}
    for name, contender in contenders(setting, folder, tools(setting)).items():
        judged[name] = contender()
        if "failed" not in judged[name]:
            judged[name] = in_process(removals, 1, planted=planted, output=output_of(name))
    scored = {peers.OURS: in_process(our_pairs, 1, planted=planted, output=output_of(peers.OURS))}
    if peers.version("rensa"):
        for name, verified in ((RENSA, True), (RENSA_INDEX, False)):
            scored[name] = in_process(rensa_pairs, 1, planted=planted, verified=verified)
    if peers.version("datasketch"):
        scored[DATASKETCH] = in_process(datasketch_pairs, 1, planted=planted)
    return {"n_pairs": len(Truth(planted).pairs), "removals": judged, "pairs": scored}


def measure(setting: Setting) -> Result:
    everything, first = prepared(setting)
    fast = [name for name in tools(setting) if name not in SLOW]
    result: Result = {"quality": quality(setting, setting.planted) if setting.planted else None}
    for name, folder, names in (("fast", everything, fast), ("slow", first, (peers.OURS, *SLOW))):
        n_bytes = inputs.n_bytes(inputs.corpus(dedup_peers.shards_of(folder)))
        rounds = take_turns(contenders(setting, folder, names), setting.rounds)
        result[name] = {"n_bytes": n_bytes, "rounds": rounds}
    return result


#: What each tool leaves out of the job, or does otherwise.
NOTES = {
    peers.OURS: "candidates verified by their sets of shingles, in two passes; clusters, checksums, manifest",
    RENSA: "in memory; verified by estimates; no clusters; 16 bands",
    RENSA_INDEX: "in memory; not verified: removes what shares one of 16 bands with any before",
    DATASKETCH: "in memory; not verified: removes what shares a band of its choice with one that stays",
    TEXT_DEDUP: "in memory; not verified: one of each cluster stays; bands of its choice; start not counted",
    DATATROVE: f"not verified: one of each cluster stays; {BANDS} x {ROWS}; parses and writes JSON again",
    DUPLODOCUS: f"not verified: one of each cluster stays; {BANDS} x {ROWS}; other words",
}


def _speeds(part: Result) -> str:
    rows = []
    for name, rounds in part["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        row = speeds(name, part["n_bytes"], rounds)
        removed = rounds[0].get("n_removed")
        rows.append([*row, "" if removed is None else f"{removed:,}", NOTES[name]])
    return table(["tool", "MB per CPU s", "CPU s", "s", "removed", "what it does otherwise"], rows)


def _qualities(found: Result) -> str:
    rows = []
    for name, judged in found["removals"].items():
        if "failed" in judged:
            rows.append([name, judged["failed"]])
            continue
        pairs = found["pairs"].get(name, {})
        if "failed" in pairs:
            pairs = {}
        scores = [f"{pairs[key]:.3f}" if key in pairs else "" for key in ("recall", "precision")]
        rows.append([name, *scores, *(f"{judged[key]:,}" for key in ("n_removed", "n_wrong", "n_left"))])
    header = ["tool", "recall of pairs", "precision", "removed", "like none that stays", "left beside a copy"]
    n_pairs = found["n_pairs"]
    return f"""Planted duplicates, {n_pairs} pairs with a similarity of at least {THRESHOLD} by comparison
of all pairs; texts of fewer than {N_WORDS} words are not counted. The pairs of pile-tools are those that the
job verified, of one document of each text, and its precision is that of the pairs by which it removes. The
pairs of rensa are the candidates of its index with {RENSA_BANDS} bands, those of datasketch the candidates of
its index. The other tools tell no pairs; text-dedup and duplodocus compare words of their own, so their
removals are judged by another measure than theirs. A removal is wrong if no document that stays is similar.

{table(header, rows)}"""


def section(result: Result) -> str:
    fast, slow = result["fast"], result["slow"]
    missing = [name for name in NOTES if name not in fast["rounds"] and name not in slow["rounds"]]
    left_out = f" Not here, so left out: {', '.join(missing)}." if missing else ""
    sizes = [f"{part['n_bytes'] / 1e6:.1f} MB" for part in (fast, slow)]
    text = f"""Shards to shards without near duplicates: threshold {THRESHOLD}, sets of {N_WORDS} words,
signatures of {N_PERMUTATIONS} values, one thread. {sizes[0]} of text, and {sizes[1]} for slow tools and
for pile-tools beside them. The libraries read with zstandard and orjson, shingle in Python and write the
kept lines with zstandard at level 3.{left_out}

{_speeds(fast)}

{_speeds(slow)}"""
    return f"{text}\n\n{_qualities(result['quality'])}" if result["quality"] else text


def verdicts(result: Result) -> list[Verdict]:
    found = []
    for rivals, target in TARGETS.items():
        rounds = result["slow" if rivals[0] in SLOW else "fast"]["rounds"]
        against = rivals[0].split(",")[0]
        found.append(speed_up(f"{TITLE}, per CPU second, against {against}", target, rounds, rivals, "cpu"))
    if not result["quality"]:
        return found
    pairs, removed = (result["quality"][key][peers.OURS] for key in ("pairs", "removals"))
    recall, precision, n_wrong = pairs.get("recall", 0), pairs.get("precision", 0), removed.get("n_wrong")
    return [
        *found,
        Verdict(
            job=f"{TITLE}, recall of planted pairs",
            target=f"{MIN_RECALL}",
            found=f"{recall:.3f}",
            is_met=recall >= MIN_RECALL,
        ),
        Verdict(job=f"{TITLE}, precision", target="1.000", found=f"{precision:.3f}", is_met=precision == 1),
        Verdict(
            job=f"{TITLE}, removals like no document that stays",
            target="none",
            found="none" if n_wrong == 0 else str(n_wrong),
            is_met=n_wrong == 0,
        ),
    ]
