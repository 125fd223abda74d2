"""`pile-tools export`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.errors import ConfigError
from pile_tools.jobs.export import run, writer_of
from pile_tools.terminal import counted, note, print_document


@click.command("export")
@click.argument("order", type=artifacts.ORDER_OR_ADDRESS)
@click.option("--steps", metavar="A:B", required=True, help="Steps A to B - 1.")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE",
    required=True,
    help="File to write: .parquet or .csv.",
)
@options.batch_size
@options.row_length
@options.compat
@options.dataset_tokenizer
@options.reports
@options.force
def command(
    order: str,
    steps: str,
    output: Path,
    batch_size: int | None,
    row_length: int | None,
    compat: str | None,
    tokenizer: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write steps of ORDER as Parquet or CSV, one record for each run of a document in a row.

    The columns are step, row, document, start, tokens, subset and text. Unknown values are null, in CSV
    empty. Parquet needs pyarrow: pip install 'pile-tools[export]'.

    \b
    Examples:
      pile-tools export tokens/ --steps 0:10 -o first.parquet
      pile-tools export preshuffled/ --steps 1000:1001 -o step1000.parquet \\
        --tokenizer tokenizer.json
    """
    writer_of(output)
    opened = opened_order(order, row_length, batch_size, compat)
    found = re.fullmatch(r"([0-9]+):([0-9]+)", steps)
    if found is None:
        raise ConfigError(f"--steps are A:B, such as 0:10, got {steps!r}")
    source = opened.tokenizer_file(tokenizer)
    first, end = int(found[1]), int(found[2])
    n_records = run(opened, (first, end), output, source.load(), force=force, inputs=[source.path])
    n_steps = end - first
    if as_json:
        print_document({"file": str(output), "n_records": n_records, "n_steps": n_steps})
        return
    note(f"{output}: {counted(n_records, 'record')} of {counted(n_steps, 'step')}")
