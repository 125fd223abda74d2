"""Near duplicates among very many short synthetic documents: time, memory and disk of the whole job."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches.dedup_peers import warm_up
from benches.markdown import seconds, table
from benches.measure import CACHE, Measured, Stopwatch, failure, in_process
from benches.setting import Result, Setting
from benches.verdict import Verdict

TITLE = "Near duplicates, many documents"
#: Documents that the figures are computed for.
PILE = 200_000_000
N_SHARDS = 20
N_WORDS = 24
#: Distinct words of the texts: two of them by chance share no shingle of five words.
VOCABULARY = 1 << 16
#: One of this number of documents is a copy of the one before it with a word more: 20 of 21 shingles.
COPY_EVERY = 20
MEMORY = 1 << 30
TIMEOUT_SECONDS = 4 * 3600.0
N_THREADS = 2


def prepared(n_documents: int) -> Path:
    """A folder of shards with `n_documents` documents."""
    folder = CACHE / f"scale-{n_documents}"
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with ProcessPoolExecutor(N_THREADS) as pool:
            write = partial(write_shard, unfinished, n_documents // N_SHARDS)
            list(pool.map(write, range(N_SHARDS)))
        unfinished.rename(folder)
    return folder


def write_shard(folder: Path, n_documents: int, number: int) -> None:
    """Writes a shard of random texts with planted copies."""
    import zstandard

    random = np.random.default_rng(number)
    words = np.array([f"w{i:05x}" for i in range(VOCABULARY)])
    with zstandard.open(folder / f"{number:02}.jsonl.zst", "wt") as file:
        for first in range(0, n_documents, 10_000):
            chosen = words[random.integers(0, VOCABULARY, (min(10_000, n_documents - first), N_WORDS))]
            text = ""
            for i, row in enumerate(chosen.tolist()):
                text = f"{text} {row[0]}" if i % COPY_EVERY == COPY_EVERY - 1 else " ".join(row)
                file.write(f'{{"text": "{text}"}}\n')


@contextmanager
def peak_of_files(folder: Path) -> Iterator[list[int]]:
    """Yields a list of one number: the most bytes that the files in `folder` took so far."""
    peak, is_over = [0], threading.Event()

    def look() -> None:
        while not is_over.wait(0.5):
            found = 0
            for path in folder.rglob("*"):
                try:
                    found += path.lstat().st_blocks * 512
                except FileNotFoundError:
                    continue
            peak[0] = max(peak[0], found)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


def ours(folder: str, output: str) -> Measured:
    """Measures `pile-tools dedup near`."""
    from pile_tools.jobs.dedup import DedupConfig, NearConfig, run

    def job(shards: list[Path], output: Path) -> Any:
        made, _ = run(shards, output, DedupConfig(near=NearConfig()), memory=MEMORY, threads=N_THREADS)
        return made

    warm_up(job)
    work = Path(output)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shards = sorted(Path(folder).glob("*.jsonl.zst"))
    with peak_of_files(work) as peak, Stopwatch() as clock:
        made = job(shards, work / "unique")
    n_written = sum(path.stat().st_size for path in (work / "unique").iterdir())
    found = {key: made.summary[key] for key in ("n_documents", "n_candidates", "n_verified", "n_removed")}
    return clock.measured(**found, n_disk_bytes=peak[0], n_written_bytes=n_written)


def measure(setting: Setting) -> Result:
    n_documents = 20_000 if setting.is_quick else setting.documents
    folder, output = prepared(n_documents), CACHE / "scale-output"
    measured = in_process(ours, N_THREADS, timeout=TIMEOUT_SECONDS, folder=folder, output=output)
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(folder)
    return {"n_documents": n_documents, "run": measured}


def section(result: Result) -> str:
    run, n = result["run"], result["n_documents"]
    if why := failure([run]):
        return f"{n:,} documents: {why}"
    rows = [
        ["CPU s, s", f"{seconds(run['cpu'])}, {seconds(run['wall'])}"],
        ["documents per CPU second", f"{n / run['cpu']:,.0f}"],
        ["peak memory", f"{run['peak_mib']:,.0f} MiB"],
        ["peak disk, output included", f"{run['n_disk_bytes'] / 1e9:.1f} GB"],
        ["output", f"{run['n_written_bytes'] / 1e9:.1f} GB"],
        ["planted copies, removed", f"{n // COPY_EVERY:,}, {run['n_removed']:,}"],
        ["candidates", f"{run['n_candidates']:,}"],
    ]
    scale = PILE / n
    n_gib = 1 + max(run["peak_mib"] / 1024 - 1, 0) * scale
    n_gb = (run["n_disk_bytes"] - run["n_written_bytes"]) * scale / 1e9
    return f"""{n:,} documents of {N_WORDS} random words in {N_SHARDS} shards, one of {COPY_EVERY} a copy of
the one before it with a word more; `dedup near` at its defaults, with {N_THREADS} threads and the default
memory of 1 GiB for sorting.

{table(["what", "found"], rows)}

If all memory above 1 GiB, and all disk but the output, grow with the documents, {PILE:,} take
{n_gib:.1f} GiB of memory and {n_gb:.0f} GB of disk, and {run["cpu"] * scale / 3600:.1f} hours of CPU besides
what longer texts take."""


def verdicts(result: Result) -> list[Verdict]:
    run, n = result["run"], result["n_documents"]
    if failure([run]):
        return []
    found = run["n_removed"] / (n // COPY_EVERY)
    return [
        Verdict(job=f"{TITLE}: planted copies", target="0.99", found=f"{found:.4f}", is_met=found >= 0.99)
    ]
