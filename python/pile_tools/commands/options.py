"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click

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


def size_of(paths: list[Path]) -> int:
    """Bytes of some files together."""
    return sum(path.stat().st_size for path in paths)
