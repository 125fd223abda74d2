"""Text to ids against `tokenizers`, side by side on the same documents; writes RESULTS.md.

Usage: python benches/encoding.py SHARDS TOKENIZER [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tokenizers
import zstandard

import pile_tools
from pile_tools.shards import find_shards

RESULTS = Path(__file__).with_name("RESULTS.md")


def texts_of(shards: list[Path]) -> list[str]:
    lines = [line for p in shards for line in zstandard.open(p, "rt", encoding="utf-8").read().splitlines()]
    return [json.loads(line)["text"] for line in lines]


def best_seconds(job: Callable[[], object], rounds: int) -> float:
    """The least CPU time of several rounds: the machine may be shared."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        job()
        seconds.append(time.process_time() - started)
    return min(seconds)


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = texts_of(find_shards([arguments.shards]))
    n_bytes = sum(len(text.encode()) for text in texts)

    # A fresh tokenizer for each round: both keep caches.
    def ours() -> tuple[np.ndarray, np.ndarray]:
        return pile_tools.Tokenizer.from_file(arguments.tokenizer).encode_batch(texts)

    def theirs() -> list[tokenizers.Encoding]:
        tokenizer = tokenizers.Tokenizer.from_file(str(arguments.tokenizer))
        return tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    ids, offsets = ours()
    for i, encoding in enumerate(theirs()):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == encoding.ids, f"document {i} differs"
    times = {
        "pile-tools": best_seconds(ours, arguments.rounds),
        "tokenizers": best_seconds(theirs, arguments.rounds),
    }
    vocab_size = pile_tools.Tokenizer.from_file(arguments.tokenizer).vocab_size
    rows = [f"| {name} | {n_bytes / 1e6 / s:.1f} | {s:.2f} |" for name, s in times.items()]
    RESULTS.write_text(
        f"""# Measured

Written by `benches/encoding.py`; not edited by hand. {cpu()}; Python {platform.python_version()},
pile-tools {pile_tools.__version__}, tokenizers {tokenizers.__version__}.

## Text to ids from Python

`encode_batch` on {len(texts):,} documents, {n_bytes / 1e6:.1f} MB of UTF-8 text, with a freshly loaded
tokenizer of {vocab_size:,} tokens (loading included); ids proved equal first; CPU seconds,
best of {arguments.rounds} rounds.

| tool | MB per CPU-second | CPU seconds |
|---|---|---|
{chr(10).join(rows)}

Ratio: {times["tokenizers"] / times["pile-tools"]:.1f} times.
"""
    )
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
