"""The fair peer: `tokenizers`, orjson, zstandard and a numpy writer, with one process per processor.

This is what a careful user would write without pile-tools. The shards are distributed over the processes.
Each process encodes batches of documents in one thread, because more threads would only compete for its
processor, and writes a part. The parts are joined.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
import tokenizers

from benches.datasets import with_suffix, write_idx
from benches.inputs import shard_lines

BATCH = 256


def run(shards: list[Path], prefix: Path, tokenizer: Path, eod: int, n_processes: int) -> None:
    """Writes `.bin` and `.idx` of the shards' documents, empty ones left out."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parts = [with_suffix(prefix, f".part{i}") for i in range(len(shards))]
    with multiprocessing.get_context("fork").Pool(n_processes) as pool:
        work = partial(_write_part, tokenizer=tokenizer, eod=eod)
        lengths = pool.starmap(work, zip(shards, parts, strict=True), chunksize=1)
        pool.close()
        pool.join()
    with with_suffix(prefix, ".bin").open("wb") as joined:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, joined)
            part.unlink()
    write_idx(prefix, np.concatenate(lengths))


_loaded: dict[Path, tokenizers.Tokenizer] = {}


def _write_part(shard: Path, part: Path, tokenizer: Path, eod: int) -> np.ndarray:
    if tokenizer not in _loaded:  # once per process
        _loaded[tokenizer] = tokenizers.Tokenizer.from_file(str(tokenizer))
    lengths: list[int] = []
    with shard_lines(shard) as lines, part.open("wb") as out:
        batch: list[str] = []
        for line in lines:
            batch.append(orjson.loads(line)["text"])
            if len(batch) == BATCH:
                lengths += _write_batch(batch, out, _loaded[tokenizer], eod)
                batch.clear()
        lengths += _write_batch(batch, out, _loaded[tokenizer], eod)
    return np.array(lengths, dtype=np.int32)


def _write_batch(batch: list[str], out: BinaryIO, tokenizer: tokenizers.Tokenizer, eod: int) -> list[int]:
    encodings = tokenizer.encode_batch_fast([text for text in batch if text], add_special_tokens=False)
    rows = [[*encoding.ids, eod] for encoding in encodings]
    out.write(np.array([id for row in rows for id in row], dtype=np.uint16).tobytes())
    return [len(row) for row in rows]
