"""Exports steps of an order as Parquet or CSV."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pile_tools import files, publish
from pile_tools._core import Tokenizer
from pile_tools.errors import ConfigError
from pile_tools.order.order import Order
from pile_tools.tokens.datasets import subset_of

Record: TypeAlias = dict[str, Any]

#: A row group ends with the record that reaches this: Arrow holds all of its texts.
_GROUP_CHARACTERS = 1 << 26

#: Columns of an export, with Arrow's names of their types.
COLUMNS = {
    "step": "int64",
    "row": "int64",
    "document": "int64",
    "start": "int64",
    "tokens": "int64",
    "subset": "string",
    "text": "string",
}


def run(
    order: Order,
    steps: tuple[int, int],
    output: Path,
    tokenizer: Tokenizer,
    *,
    force: bool = False,
    inputs: Iterable[Path] = (),
) -> int:
    """Writes a record for each run of a document in the rows of steps [first, end); returns their number.

    Only one step is in memory at a time. Columns: step, row, document, start, tokens, subset, text. Document,
    start and subset are null if unknown.

    Args:
        order: The order.
        steps: The first step and the end, exclusive.
        output: The file to write: `.parquet`, or `.csv` with text quoted and null empty.
        tokenizer: Tokenizer that decodes the runs.
        force: Replace an existing file.
        inputs: Files that are not replaced, beside those of the order: that of the tokenizer.

    Raises:
        ConfigError: The steps are out of range, or the suffix is another one.
        OutputExistsError: The file exists and `force` is off.
        ModuleNotFoundError: pyarrow, which Parquet needs, is not installed.
        OSError: The file cannot be written.
    """
    write = writer_of(output)
    if steps[0] >= steps[1]:
        raise ConfigError(f"no steps from {steps[0]} to {steps[1]}")
    # Raises ConfigError before a file is made.
    order.first_sample(steps[1] - 1)
    n_records = 0

    def fill(temporary: Path) -> None:
        nonlocal n_records
        n_records = write(temporary, (_records(order, step, tokenizer) for step in range(*steps)))

    publish.write_file(output, fill, force=force, inputs=inputs)
    return n_records


def writer_of(output: Path) -> Callable[[Path, Iterator[Iterator[Record]]], int]:
    """The function that writes the format of a file's suffix. Raises ConfigError for another suffix."""
    writers = {".parquet": _write_parquet, ".csv": _write_csv}
    if output.suffix.lower() not in writers:
        raise ConfigError(f"an export is .parquet or .csv, got {output.suffix or 'no suffix'!r} ({output})")
    return writers[output.suffix.lower()]


def _write_parquet(path: Path, steps: Iterator[Iterator[Record]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    n_records = 0
    with files.new_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for step in steps:
            for records in _groups(step):
                writer.write_table(pa.Table.from_pylist(records, schema=schema))
                n_records += len(records)
    return n_records


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Splits the records of a step into row groups: a single one unless its texts are long."""
    group: list[Record] = []
    n_characters = 0
    for record in records:
        group.append(record)
        n_characters += len(str(record["text"]))
        if n_characters >= _GROUP_CHARACTERS:
            yield group
            group, n_characters = [], 0
    if group:
        yield group


def _write_csv(path: Path, steps: Iterator[Iterator[Record]]) -> int:
    """Writes RFC 4180; the `csv` module of Python 3.11 cannot distinguish an empty text from null."""
    n_records = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\r\n")
        for record in itertools.chain.from_iterable(steps):
            file.write(",".join(map(_field, record.values())) + "\r\n")
            n_records += 1
    return n_records


def _field(value: int | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value)


def _records(order: Order, step: int, tokenizer: Tokenizer) -> Iterator[Record]:
    tokens = order.batch(step)
    previous, offset = -1, 0
    for row, document, start, length in order.batch_spans(step).tolist():
        offset = offset if row == previous else 0
        is_known = document >= 0
        ids = tokens[row, offset : offset + length].astype(np.uint32)
        yield {
            "step": step,
            "row": row,
            "document": document if is_known else None,
            "start": start if is_known else None,
            "tokens": length,
            "subset": subset_of(order.dataset, document) if is_known else None,
            "text": tokenizer.decode(ids, skip_special_tokens=False, skip_unknown=True),
        }
        previous, offset = row, offset + length
