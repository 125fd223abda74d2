"""Opening an order and reading one batch, against numpy copying the same rows out of a memory map."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches import when
from benches.markdown import seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, slow_down

TITLE = "Opening an order and reading a batch"
LIMIT = 2.0
BATCH_SIZE, STEP = 1024, 0
ROW_LENGTH = when.SEQ_LENGTH + 1
ROWS, DOCUMENTS = "pile-tools, rows", "pile-tools, documents"
COPY, SPANS = "numpy, the same rows one after the other", "numpy, the same spans of the documents"


def prepared(setting: Setting) -> tuple[Path, Path, str]:
    """An order over documents, the same samples as rows in a file, and a digest of the batch."""
    import pile_tools

    folder = when.prepared(setting)
    order = pile_tools.open_order(folder, batch_size=BATCH_SIZE)
    n_rows = (STEP + 1) * BATCH_SIZE
    if len(order) < n_rows:
        raise SystemExit(f"{len(order)} samples; this bench needs {n_rows}: give it more text")
    rows = CACHE / f"{folder.name}-rows.bin"
    order.samples.read(0, n_rows).tofile(rows)
    starts = np.concatenate([[0], np.cumsum(order.dataset.lengths())])
    spans = [(int(starts[d] + s), int(n)) for _, d, s, n in order.batch_spans(STEP).tolist()]
    Path(f"{rows}.spans.json").write_text(json.dumps(spans))
    return folder, rows, _digest(order.batch(STEP))


def _digest(tokens: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).hexdigest()


def _warm(*paths: Path) -> None:
    for path in paths:
        path.read_bytes()


def ours(order: str, expected: str) -> Measured:
    """Measures opening an order and reading a batch, after imports, in a process that opened nothing yet."""
    import pile_tools

    _warm(*([Path(order)] if order.endswith(".bin") else Path(order).glob("*")))
    with Stopwatch() as clock:
        batch = pile_tools.open_order(order, batch_size=BATCH_SIZE).batch(STEP)
    return clock.measured(n_differing=int(_digest(batch) != expected))


def copy(rows: str, expected: str) -> Measured:
    """Measures copying the rows from a new memory map to a new array."""
    _warm(Path(rows))
    with Stopwatch() as clock:
        mapped = np.memmap(rows, np.uint16, "r").reshape(-1, ROW_LENGTH)
        batch = np.array(mapped[STEP * BATCH_SIZE : (STEP + 1) * BATCH_SIZE])
    return clock.measured(n_differing=int(_digest(batch) != expected))


def spans(folder: str, rows: str, expected: str) -> Measured:
    """Measures copying the same spans of documents, whose offsets are known, to a new array."""
    where = json.loads(Path(f"{rows}.spans.json").read_text())
    tokens = Path(folder) / "sample.bin"
    _warm(tokens)
    with Stopwatch() as clock:
        mapped = np.asarray(np.memmap(tokens, np.uint16, "r"))
        batch, at = np.empty(BATCH_SIZE * ROW_LENGTH, np.uint16), 0
        for start, n in where:
            batch[at : at + n] = mapped[start : start + n]
            at += n
    return clock.measured(n_differing=int(_digest(batch) != expected))


def measure(setting: Setting) -> Result:
    folder, rows, expected = prepared(setting)
    contenders = {
        ROWS: partial(in_process, ours, 1, order=rows, expected=expected),
        COPY: partial(in_process, copy, 1, rows=rows, expected=expected),
        DOCUMENTS: partial(in_process, ours, 1, order=folder, expected=expected),
        SPANS: partial(in_process, spans, 1, folder=folder, rows=rows, expected=expected),
    }
    # A round takes milliseconds, so more rounds are cheap.
    return {"rounds": take_turns(contenders, 3 * setting.rounds)}


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        wall = [1000 * value for value in values(rounds, "wall")]
        rows.append([name, seconds(1000 * best(rounds, "wall")), spread(wall), differing(rounds)])
    header = ["what", "ms", "spread, ms", "rounds that differ"]
    return f"""A batch of {BATCH_SIZE:,} x {ROW_LENGTH:,} tokens on one processor, in a fresh process with
imports done and the files in the page cache: `open_order(...).batch({STEP})` of an order over documents,
with the check of its dataset, and of the same order as rows in a file. numpy maps the file and copies.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds = result["rounds"]
    return [
        slow_down(f"{TITLE}, rows, next to a copy of them", LIMIT, rounds[ROWS], rounds[COPY]),
        slow_down(
            f"{TITLE}, documents, next to a copy of their spans", LIMIT, rounds[DOCUMENTS], rounds[SPANS]
        ),
        slow_down(f"{TITLE}, documents, next to a copy of the rows", LIMIT, rounds[DOCUMENTS], rounds[COPY]),
    ]
