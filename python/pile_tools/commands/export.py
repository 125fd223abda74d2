"""`pile-tools export`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools._core import Tokenizer
from pile_tools.commands import options
from pile_tools.errors import ConfigError
from pile_tools.orders import open_order
from pile_tools.stages.export import run
from pile_tools.terminal import echo
from pile_tools.views import find_tokenizer


@click.command("export")
@click.argument("order")
@click.option("--steps", metavar="A:B", required=True, help="Steps from A to B, B not included.")
@click.option(
    "-o", "--output", type=options.PATH, metavar="FILE.parquet", required=True, help="File to write."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples of a step, where the order names none."
)
@click.option(
    "--row-length", type=click.IntRange(min=2), help="Tokens of a row, of rows. Default: Pythia's 2049."
)
@click.option(
    "--tokenizer", type=options.PATH, metavar="FILE", help="Where the dataset's own tokenizer is not found."
)
@options.force
def command(
    order: str,
    steps: str,
    output: Path,
    batch_size: int | None,
    row_length: int | None,
    tokenizer: Path | None,
    force: bool,
) -> None:
    """Write steps of ORDER as Parquet: step, row, document, subset, text; one record a run of a document.

    What is not known is null. Needs pyarrow: pip install 'pile-tools[export]'.

    \b
    Examples:
      pile-tools export tokens/ --steps 0:10 -o first.parquet
      pile-tools export preshuffled/ --steps 1000:1001 -o step1000.parquet --tokenizer tokenizer.json
    """
    opened = open_order(order, row_length=row_length, batch_size=batch_size)
    first, colon, end = steps.partition(":")
    if not (colon and first.isdigit() and end.isdigit()):
        raise ConfigError(f"--steps are A:B, such as 0:10, got {steps!r}")
    decoder = Tokenizer.from_file(tokenizer) if tokenizer is not None else find_tokenizer(opened)
    n_records = run(opened, (int(first), int(end)), output, decoder, force=force)
    echo(f"{output}: {n_records:,} records of {int(end) - int(first):,} steps")
