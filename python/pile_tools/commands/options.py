"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pile_tools.shards import STANDARD_INPUT

#: A path, not checked by click: what is missing is named by the stage, with exit code 1.
PATH = click.Path(path_type=Path)

force = click.option("--force", is_flag=True, help="Replace output that was made from something else.")
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Threads; the output is the same for any number.",
)
shards = click.argument("shards", nargs=-1, required=True, type=PATH)


def size_of(shards: list[Path]) -> int | None:
    """Bytes of the shards together; None for standard input, which it says cannot be gone on with."""
    if STANDARD_INPUT in shards:
        click.echo("reading standard input: if this is interrupted, it starts from the beginning", err=True)
        return None
    return sum(path.stat().st_size for path in shards)
