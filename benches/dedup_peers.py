"""Deduplicating a folder of shards by MinHash, as each tool does it best: texts to kept records on disk.

Each function runs in a process of its own and is timed from the files in `folder` to the files in `output`.
Shingles are those of `str.split()`, five words each, where a tool lets one choose. A text of fewer words is
one shingle. Records keep their `id`, by which `kept_ids` finds what a tool wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches import inputs
from benches.measure import ROOT, Measured, Stopwatch

THRESHOLD = 0.87
N_PERMUTATIONS = 256
N_WORDS = 5
#: Bands and rows of 256 values for tools that choose none for a threshold: those of pile-tools.
BANDS, ROWS = 21, 12
#: Bands of rensa's index, which must divide 256. They find 0.84 of the pairs at the threshold.
RENSA_BANDS = 16

#: text-dedup pins packages that the other peers and pile-tools need in later versions.
TEXT_DEDUP = ROOT / ".venv-bench" / "text-dedup" / "bin" / "python"


def shards_of(folder: str | Path) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if ".jsonl" in path.name)


def emptied(output: str) -> Path:
    """An empty folder."""
    shutil.rmtree(output, ignore_errors=True)
    Path(output).mkdir(parents=True)
    return Path(output)


def warm_up(job: Callable[[list[Path], Path], object]) -> None:
    """Runs a job on one short record, so that it imports all it needs, as the peers do before they are timed.

    Else the job would be charged with pandas where that is installed: pyarrow imports it then.
    """
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder, "0.jsonl")
        shard.write_text('{"text": "one"}\n')
        job([shard], Path(folder, "output"))


def shingles(text: str) -> Iterator[str]:
    """The shingles of a text, by the fastest way of plain Python that was found."""
    words = text.split()
    if len(words) < N_WORDS:
        return iter([text])
    return map(" ".join, zip(*(words[i:] for i in range(N_WORDS)), strict=False))


def hashed_shingles(text: str) -> np.ndarray:
    """Hashes of the shingles as tuples, which takes less time than joining them."""
    words = text.split()
    if len(words) < N_WORDS:
        return np.array([hash(text)]).view(np.uint64)
    found = map(hash, zip(*(words[i:] for i in range(N_WORDS)), strict=False))
    return np.fromiter(found, np.int64, len(words) - N_WORDS + 1).view(np.uint64)


def keep(folder: str, output: str, is_new: Callable[[str], bool]) -> Measured:
    """Writes the records whose text `is_new`, in one pass over the shards."""
    import orjson
    import zstandard

    n_removed = 0
    written = emptied(output)
    with Stopwatch() as clock:
        for shard in shards_of(folder):
            name = shard.name.removesuffix(".zst") + ".zst"
            compressor = zstandard.ZstdCompressor(level=3)
            with inputs.shard_lines(shard) as lines, zstandard.open(written / name, "wb", compressor) as file:
                for line in lines:
                    if is_new(orjson.loads(line)["text"]):
                        file.write(line)
                    else:
                        n_removed += 1
    return clock.measured(n_removed=n_removed)


def ours(folder: str, output: str, n_threads: int) -> Measured:
    """Measures the whole job of `pile-tools dedup near`, with its manifest and checksums."""
    from pile_tools.jobs.dedup import DedupConfig, NearConfig, run

    def job(shards: list[Path], output: Path) -> Any:
        made, _ = run(shards, output, DedupConfig(near=NearConfig()), memory=1 << 30, threads=n_threads)
        return made

    warm_up(job)
    shutil.rmtree(output, ignore_errors=True)
    with Stopwatch() as clock:
        made = job(shards_of(folder), Path(output))
    return clock.measured(n_removed=made.summary["n_removed"])


def rensa_deduplicator(folder: str, output: str) -> Measured:
    """Verifies candidates by their signatures. The bands of its own choice miss half of the pairs."""
    import rensa

    found = rensa.RMinHashDeduplicator(THRESHOLD, N_PERMUTATIONS, True, RENSA_BANDS)
    numbers = iter(range(1 << 62))
    return keep(folder, output, lambda text: found.add_pairs([(str(next(numbers)), list(shingles(text)))])[0])


def rensa_index(folder: str, output: str) -> Measured:
    """Verifies nothing: a document is removed if it shares a band with any before."""
    import rensa

    index = rensa.RMinHashLSH(THRESHOLD, N_PERMUTATIONS, RENSA_BANDS)
    numbers = iter(range(1 << 62))

    def is_new(text: str) -> bool:
        hashes = hashed_shingles(text)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, [0, len(hashes)], N_PERMUTATIONS, 42
        )
        return not index.insert_matrix_and_query_duplicate_flags(matrix, start_key=next(numbers))[0]

    return keep(folder, output, is_new)


def datasketch_signature(text: str) -> Any:
    from datasketch import MinHash

    signature = MinHash(num_perm=N_PERMUTATIONS)
    signature.update_batch([shingle.encode() for shingle in set(shingles(text))])
    return signature


def datasketch(folder: str, output: str) -> Measured:
    """Verifies nothing: a document is removed if it shares a band with one that stays."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=N_PERMUTATIONS)
    numbers = iter(range(1 << 62))

    def is_new(text: str) -> bool:
        signature = datasketch_signature(text)
        if index.query(signature):
            return False
        index.insert(next(numbers), signature, check_duplication=False)
        return True

    return keep(folder, output, is_new)


def datatrove(folder: str, output: str, bands: int, rows: int) -> Measured:
    """Runs the four steps in this process. Verifies nothing: one document of each cluster stays."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        """Faster than the default, spaCy's, and with the shingles of the other tools."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            raise NotImplementedError

    as_it_is = TextNormConfig(
        lowercase=False,
        norm_whitespace=False,
        remove_punctuation=False,
        norm_unicode_diacritics=False,
        norm_numbers=False,
    )
    config = MinhashConfig(n_grams=N_WORDS, num_buckets=bands, hashes_per_bucket=rows, norm_config=as_it_is)
    work = emptied(output)
    reader = JsonlReader(str(folder), glob_pattern="*.jsonl*")
    n_shards = len(shards_of(folder))
    signatures, buckets, removed = (str(work / name) for name in ("signatures", "buckets", "removed"))
    with Stopwatch() as clock:
        steps = [
            (n_shards, [reader, MinhashDedupSignature(signatures, config, language=Words())]),
            (bands, [MinhashDedupBuckets(signatures, buckets, config=config)]),
            (1, [MinhashDedupCluster(buckets, removed, config=config)]),
            (
                n_shards,
                [
                    reader,
                    MinhashDedupFilter(removed),
                    JsonlWriter(str(work / "kept"), "${rank}.jsonl.zst", compression="zstd"),
                ],
            ),
        ]
        for number, (n_tasks, pipeline) in enumerate(steps):
            logs = str(work / "logs" / str(number))
            LocalPipelineExecutor(pipeline, tasks=n_tasks, workers=1, logging_dir=logs).run()
    n_removed = sum(path.stat().st_size // 4 for path in Path(removed).glob("*.remove"))
    return clock.measured(n_removed=n_removed)


def text_dedup(folder: str, output: str) -> Measured:
    """Runs its command. Verifies nothing: one document of each cluster stays; shingles of its own words."""
    work = emptied(output)
    plain = work / "plain"
    plain.mkdir()
    # Only the fields that all records have: its reader wants the same ones in each record.
    for shard in shards_of(folder):
        with inputs.shard_lines(shard) as lines, (plain / shard.name.removesuffix(".zst")).open("w") as file:
            for line in lines:
                record = json.loads(line)
                print(json.dumps({"id": record.get("id"), "text": record["text"]}), file=file)
    arguments = {
        "path": "json",
        "data_files": str(plain / "*.jsonl"),
        "split": "train",
        "cache_dir": str(work / "cache"),
        "output": str(work / "kept"),
        "column": "text",
        "threshold": THRESHOLD,
        "num_perm": N_PERMUTATIONS,
        "ngram": N_WORDS,
        "hash_func": "xxh3",
        "num_proc": 1,
    }
    command = [str(TEXT_DEDUP), "-m", "text_dedup.minhash"]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    environment = {**os.environ, "HF_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1"}
    with Stopwatch() as start:
        _run([*command[:3], "--help"], environment)
    with Stopwatch() as clock:
        _run(command, environment)
    return clock.measured() | {"wall": clock.wall - start.wall, "cpu": clock.cpu - start.cpu}


def duplodocus(folder: str, output: str, program: str, bands: int, rows: int) -> Measured:
    """Runs its command. Verifies nothing: one of each cluster stays; words by Unicode."""
    work = emptied(output)
    arguments = {
        "input-dir": folder,
        "storage-dir": work / "storage",
        "output-dir": work / "kept",
        "text-key": "text",
        "num-buckets": bands,
        "bucket-size": rows,
        "ngram-size": N_WORDS,
        "tokenizer": "uniseg",
        "remove-duplicates": "true",
    }
    command = [program, "minhash-memory"]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    with Stopwatch() as clock:
        _run(command, {**os.environ, "RAYON_NUM_THREADS": "1"})
    return clock.measured()


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise RuntimeError(said[-1] if said else f"exit code {done.returncode}")


def kept_ids(output: str) -> set[int]:
    """The `id` of every record that a tool wrote."""
    folder = Path(output)
    kept = folder / "kept" if (folder / "kept").exists() else folder
    if (kept / "dataset_info.json").exists():
        return _arrow_ids(kept)
    found = set()
    for shard in sorted(path for path in kept.rglob("*.jsonl*") if path.is_file()):
        with inputs.shard_lines(shard) as lines:
            # datatrove writes no 0.
            found |= {int(json.loads(line).get("id", 0)) for line in lines}
    return found


def _arrow_ids(folder: Path) -> set[int]:
    import pyarrow as pa

    found: set[int] = set()
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            found |= set(pa.ipc.open_stream(file).read_all()["id"].to_pylist())
    return found
