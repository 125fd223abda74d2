"""From texts to every step that saw them: one passage and ten thousand, against two straightforward ways."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches import inputs, peers
from benches.markdown import rate, seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, speed_up

TITLE = "From texts to the steps that saw them"
#: One text against the peer; and ten thousand against one, as a part of its speed.
TARGET, TARGET_MANY = 10.0, 0.5
SEQ_LENGTH, BATCH_SIZE = 2048, 64
PEER, MANY = "tokenizers, bytes.find", "pile-tools, 10,000 texts"


def prepared(setting: Setting) -> Path:
    """The folder of a dataset of the shards and an order over it, made once."""
    digest = inputs.file_digest(*setting.shards, setting.tokenizer)[:16]
    folder = CACHE / f"order-{digest}"
    if not (folder / "order.json").exists():
        from pile_tools.jobs.order import OrderConfig, run

        folder.mkdir(parents=True, exist_ok=True)
        peers.tokenize_shards(setting.shards, folder / "sample", setting.tokenizer, 2)
        dataset = _dataset(folder)
        n_samples = max(1, (dataset.n_tokens - 1) // SEQ_LENGTH)
        run(folder / "sample", folder, OrderConfig(seq_length=SEQ_LENGTH, samples=n_samples))
    return folder


def _dataset(folder: Path) -> Any:
    import pile_tools

    return pile_tools.TokenDataset(folder / "sample")


def passages(folder: Path, tokenizer: Path, n: int) -> list[bytes]:
    """Passages of 30 to 60 tokens cut from the documents at any token, the same ones each time."""
    import pile_tools

    dataset, decoder = _dataset(folder), pile_tools.Tokenizer.from_file(tokenizer)
    source, texts = random.Random(0), set[bytes]()
    while len(texts) < n:
        ids = dataset[source.randrange(len(dataset))]
        start = source.randrange(len(ids))
        passage = ids[start : start + source.randint(30, 60)].astype(np.uint32)
        text = decoder.decode(passage, skip_special_tokens=False)
        if len(text.encode()) >= 64 and "\ufffd" not in text:
            texts.add(text.encode())
    return sorted(texts)


def ours(folder: str, tokenizer: str, n_texts: int, n_threads: int, expected: int | None) -> Measured:
    """The whole answer: places, rows and steps."""
    import pile_tools
    from pile_tools import timeline

    texts = passages(Path(folder), Path(tokenizer), n_texts)
    order, decoder = pile_tools.open_order(folder), pile_tools.Tokenizer.from_file(tokenizer)
    with Stopwatch() as clock:
        answer = timeline.when(order, texts, tokenizer=decoder, batch_size=BATCH_SIZE, threads=n_threads)
    found = int(answer.n_occurrences.sum())
    return clock.measured(n_found=found, n_differing=0 if expected in (None, found) else 1)


def decode_and_find(folder: str, tokenizer: str) -> Measured:
    """What one writes without us, for one text: decode each document, look for the bytes."""
    import tokenizers

    dataset, decoder = _dataset(Path(folder)), tokenizers.Tokenizer.from_file(tokenizer)
    text, n_found = passages(Path(folder), Path(tokenizer), 1)[0], 0
    with Stopwatch() as clock:
        for document in range(len(dataset)):
            decoded = decoder.decode(dataset[document].tolist(), skip_special_tokens=False).encode()
            at = decoded.find(text)
            while at >= 0:
                n_found += 1
                at = decoded.find(text, at + 1)
    return clock.measured(n_found=n_found, n_differing=0)


def measure(setting: Setting) -> Result:
    folder = prepared(setting)
    files = {"folder": folder, "tokenizer": setting.tokenizer}
    n_many = 1000 if setting.is_quick else 10_000
    peer = in_process(decode_and_find, 1, **files)
    one = partial(in_process, ours, 1, n_texts=1, n_threads=1, expected=peer.get("n_found"), **files)
    many = partial(in_process, ours, 1, n_texts=n_many, n_threads=1, expected=None, **files)
    rounds = take_turns({peers.OURS: one, MANY: many}, setting.rounds)
    return {
        "n_bytes": inputs.n_bytes(inputs.corpus(setting.shards)),
        "n_many": n_many,
        "rounds": rounds | {PEER: [peer]},
    }


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        wall = best(rounds, "wall")
        row = [name, rate(result["n_bytes"], wall), seconds(wall), seconds(best(rounds, "cpu"))]
        found = f"{rounds[0]['n_found']:,}"
        rows.append([*row, spread(values(rounds, "wall")), found, differing(rounds)])
    header = ["tool", "MB/s of text", "s", "CPU s", "spread, s", "places found", "rounds that differ"]
    return f"""Passages of 30 to 60 tokens cut from {result["n_bytes"] / 1e6:.1f} MB of documents, on one
processor, the tokens in the page cache and the tokenizer loaded. pile-tools gives step, row and offset of
every occurrence, in rows of {SEQ_LENGTH + 1:,} tokens; the peer decodes each document with `tokenizers`
and looks for the bytes, and gives no rows.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds = result["rounds"]
    against_one = {peers.OURS: rounds[MANY], "one text": rounds[peers.OURS]}
    return [
        speed_up(f"{TITLE}, one text, against {PEER}", TARGET, rounds, (PEER,)),
        speed_up(
            f"{TITLE}, 10,000 texts, as a part of one text's speed", TARGET_MANY, against_one, ("one text",)
        ),
    ]
