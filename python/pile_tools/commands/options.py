"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools import manifest, publish
from pile_tools.errors import ConfigError
from pile_tools.manifest import Manifest
from pile_tools.order.order import MAX_ROW_LENGTH
from pile_tools.present import pages
from pile_tools.read.shards import has_stream
from pile_tools.sizes import parse_size
from pile_tools.terminal import echo, escape

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Maximum ignored files printed; the manifest lists more.
_N_PASSED_OVER = 5
#: Each thread has tables and buffers of about 20 MB: a larger number is a typing error.
MAX_THREADS = 1024

#: A path that click does not check: the job reports a missing one, with exit code 1.
PATH = click.Path(path_type=Path)

force = click.option("--force", is_flag=True, help="Replace output made from other inputs or settings.")
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
    help="Memory for the counting tables; counts that do not fit are spilled to disk beside the output.",
)
shards = click.argument("shards", nargs=-1, required=True, type=PATH)
batch_size = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Samples of a step; by default the order's, for rows 1,024.",
)
batch_size_if_unnamed = click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples of a step, if the order names no batch size."
)
checkpoints = click.option(
    "--checkpoints",
    metavar="N|LIST|DIR",
    help="Every N steps, a list such as 0,100,200, or a run's folder.  [default: Pythia's 154]",
)
dataset_tokenizer = click.option(
    "--tokenizer", type=PATH, metavar="FILE", help="Tokenizer, if the dataset's is not found."
)
row_length = click.option(
    "--row-length",
    type=click.IntRange(2, MAX_ROW_LENGTH),
    help="Tokens of a row, if ORDER is rows.  [default: 2049, as Pythia's]",
)
compat = click.option(
    "--compat",
    type=click.Choice(["gpt-neox"]),
    help="Read the samples that GPT-NeoX reads instead of those it cannot read.",
)
dataset_output = click.option(
    "-o", "--output", type=PATH, required=True, metavar="PREFIX", help="Writes PREFIX.bin, PREFIX.idx, ..."
)


def config_options(
    cls: type,
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A decorator that adds an option for each field of a config dataclass that has a help text."""
    hints = typing.get_type_hints(cls)

    def wrap(fn: Callable[..., object]) -> Callable[..., object]:
        for f in reversed(dataclasses.fields(cls)):
            if "help" in f.metadata:
                fn = _option(f, hints[f.name])(fn)
        return fn

    return wrap


def _option(f: dataclasses.Field[Any], hint: Any) -> Callable[..., Any]:
    name = f.name.replace("_", "-")
    if hint is bool:
        return click.option(
            f"--{name}/--no-{name}", default=f.default, show_default=True, help=f.metadata["help"]
        )
    if isinstance(hint, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    is_required = f.default is dataclasses.MISSING
    # click treats an explicit default of None as a value.
    default: dict[str, Any] = {} if is_required else {"default": f.default}
    return click.option(
        f"--{name}",
        type=PATH if hint is Path else hint,
        required=is_required,
        **default,
        show_default=f.default is not None,
        metavar=f.metadata.get("metavar"),
        help=f.metadata["help"],
    )


def plot(what: str) -> Callable[[_Command], _Command]:
    """The option `--plot FILE`, which draws `what` and refuses files that no plot can be written to."""
    return click.option(
        "--plot",
        type=PATH,
        metavar="FILE.html",
        callback=_plot_file,
        help=f"Write a page that draws {what}, with a table; FILE.svg: the bare picture.",
    )


def _plot_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in pages.SUFFIXES:
        raise ConfigError(f"--plot writes a page, FILE.html, or a picture, FILE.svg ({path})")
    if path is not None:
        publish.refuse_page(path)
    return path


def size_of(shards: list[Path]) -> int | None:
    """The bytes of all shards; None if one is a stream, with a note that the job cannot resume."""
    if has_stream(shards):
        stream = "standard input" if str(shards[0]) == "-" else "a pipe"
        echo(f"reading {stream}: an interrupted run starts from the beginning", err=True)
        return None
    return sum(path.stat().st_size for path in shards)


def print_passed_over(made: Manifest) -> None:
    """Prints the files that the manifest lists as found beside the shards and ignored."""
    passed = made.summary.get("passed_over", {"n": 0, "first": []})
    if not passed["n"]:
        return
    echo(f"{passed['n']:,} ignored beside the shards:")
    for one in passed["first"][:_N_PASSED_OVER]:
        # The manifest's paths are relative to its folder; print them relative to the working directory.
        path = Path.cwd() / manifest.input_path(made, one)
        below = os.path.relpath(path)
        echo(f"  {escape(str(path) if below.startswith('..') else below)}: {one['reason']}")
    if passed["n"] > _N_PASSED_OVER:
        echo(f"  and {passed['n'] - _N_PASSED_OVER:,} more")
