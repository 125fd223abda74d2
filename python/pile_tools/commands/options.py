"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools.errors import ConfigError
from pile_tools.shards import STANDARD_INPUT
from pile_tools.sizes import parse_size
from pile_tools.terminal import echo

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Each thread has tables and buffers of some 20 MB: more threads are a slip of the pen.
MAX_THREADS = 1024

#: A path, not checked by click: what is missing is named by the stage, with exit code 1.
PATH = click.Path(path_type=Path)

force = click.option("--force", is_flag=True, help="Replace output that was made from something else.")
threads = click.option(
    "--threads",
    type=click.IntRange(min=1, max=MAX_THREADS),
    default=min(os.cpu_count() or 1, MAX_THREADS),
    show_default="all cores",
    help="Threads; the output is the same for any number.",
)
memory = click.option(
    "--memory",
    default="1GiB",
    show_default=True,
    callback=lambda context, option, given: parse_size(given),
    help="Memory to count in; what does not fit is spilled beside the output.",
)
shards = click.argument("shards", nargs=-1, required=True, type=PATH)
dataset_output = click.option(
    "-o", "--output", type=PATH, required=True, metavar="PREFIX", help="Writes PREFIX.bin, PREFIX.idx, ..."
)


def plot(what: str) -> Callable[[_Command], _Command]:
    """The option `--plot FILE`, which draws `what`; another kind of file is refused."""
    return click.option(
        "--plot", type=PATH, metavar="FILE", callback=_chart_file, help=f"Draw {what}: .svg or .html."
    )


def _chart_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (".svg", ".html"):
        raise ConfigError(f"--plot writes .svg or .html ({path})")
    return path


def size_of(shards: list[Path]) -> int | None:
    """Bytes of the shards together; None for standard input, which it says cannot be gone on with."""
    if STANDARD_INPUT in shards:
        echo("reading standard input: if this is interrupted, it starts from the beginning", err=True)
        return None
    return sum(path.stat().st_size for path in shards)
