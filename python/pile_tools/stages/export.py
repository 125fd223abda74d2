"""Writes steps of an order as a Parquet file that any tool reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pile_tools import publish
from pile_tools._core import Tokenizer
from pile_tools.errors import ConfigError
from pile_tools.orders import Order


def run(
    order: Order, steps: tuple[int, int], output: Path, tokenizer: Tokenizer, *, force: bool = False
) -> int:
    """Writes the runs of documents in steps [first, end); returns how many. One step is in memory at a time.

    Columns: step, row, document (null where unknown), start, tokens, subset (null where unknown), text.

    Raises:
        ConfigError: The steps are out of range.
        OutputExistsError: The file exists and `force` is off.
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if steps[0] >= steps[1]:
        raise ConfigError(f"no steps from {steps[0]} to {steps[1]}")
    order.first_sample(steps[1] - 1)
    schema = pa.schema(
        [
            ("step", pa.int64()),
            ("row", pa.int64()),
            ("document", pa.int64()),
            ("start", pa.int64()),
            ("tokens", pa.int64()),
            ("subset", pa.string()),
            ("text", pa.string()),
        ]
    )
    n_records = 0

    def fill(temporary: Path) -> None:
        nonlocal n_records
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for step in range(*steps):
                records = _records(order, step, tokenizer)
                writer.write_table(pa.Table.from_pylist(records, schema=schema))
                n_records += len(records)

    publish.write_file(output, fill, force=force)
    return n_records


def _records(order: Order, step: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    tokens = order.batch(step)
    records: list[dict[str, Any]] = []
    before, place = -1, 0
    for row, document, start, length in order.batch_spans(step).tolist():
        place = place if row == before else 0
        is_known = document >= 0
        origin = order.dataset.origin(document) if is_known else None
        ids = tokens[row, place : place + length].astype(np.uint32)
        records.append(
            {
                "step": step,
                "row": row,
                "document": document if is_known else None,
                "start": start if is_known else None,
                "tokens": length,
                "subset": origin["subset"] if origin else None,
                "text": tokenizer.decode(ids, skip_special_tokens=False),
            }
        )
        before, place = row, place + length
    return records
