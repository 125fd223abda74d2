"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pile_tools import manifest, publish, terminal
from pile_tools.commands import artifacts
from pile_tools.config import MAX_THREADS, checked_threads
from pile_tools.errors import ConfigError
from pile_tools.manifest import Manifest
from pile_tools.order.order import MAX_ROW_LENGTH
from pile_tools.read.shards import has_stream
from pile_tools.sizes import parse_size
from pile_tools.terminal import escape, note, print_document

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Maximum ignored files printed; the manifest lists more.
_N_PASSED_OVER = 5

#: A path that click does not check: the job reports one that is missing or may not be read, with exit code 1.
PATH = click.Path(path_type=Path, readable=False)

force = click.option("--force", is_flag=True, help="Replace output made from other inputs or settings.")
threads = click.option(
    "--threads",
    type=click.IntRange(min=1, max=MAX_THREADS),
    default=checked_threads(None),
    show_default="all cores",
    help="Threads; the output is the same for any number.",
)


def threads_of_tasks(threads: int) -> int:
    """The threads of each task on a cluster: one, unless `--threads` was given."""
    is_default = click.get_current_context().get_parameter_source("threads") == ParameterSource.DEFAULT
    return 1 if is_default else threads


def memory(what: str) -> Callable[[_Command], _Command]:
    """The option `--memory`, with `what` it is for as its help."""
    return click.option(
        "--memory",
        default="1GiB",
        show_default=True,
        callback=lambda context, option, given: parse_size(given),
        help=what,
    )


shards = click.argument("shards", nargs=-1, required=True, type=artifacts.SHARDS)
batch_size = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Samples of a step; by default the order's, for rows 1,024.",
)
batch_size_if_unnamed = click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples of a step; by default the order's."
)


def folder_of_run(context: click.Context, option: click.Parameter, given: str | None) -> str | None:
    """The callback of `--checkpoints`: refuses an artifact that has no checkpoints."""
    if given is not None and not re.fullmatch(r"[0-9,]+", given):
        artifacts.refuse_other(Path(given), ("run",))
    return given


checkpoints = click.option(
    "--checkpoints",
    metavar="N|LIST|DIR",
    callback=folder_of_run,
    help="Every N steps, a list such as 0,100,200, or a run's folder.  [default: Pythia's 154]",
)
dataset_tokenizer = click.option(
    "--tokenizer",
    type=artifacts.TOKENIZER,
    metavar="FILE",
    help="Tokenizer, if the dataset's is not found.",
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
quiet = click.option(
    "--quiet",
    terminal.QUIET,
    is_flag=True,
    expose_value=False,
    callback=terminal.choose,
    help="Print no progress, summary or note; errors and warnings stay.",
)


def reports(command: _Command) -> _Command:
    """Adds `--json`, as the argument `as_json`, and `--quiet`: every command has both."""
    as_json = click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=terminal.choose,
        help="Print one JSON document on standard output; all else goes to standard error.",
    )
    return as_json(quiet(command))


def made(found: Manifest, *, is_new: bool, is_temporary: bool = False, **more: Any) -> dict[str, Any]:
    """The document that `--json` prints for an artifact; a temporary one has no path."""
    path, summary = None if is_temporary else str(found.path), found.summary
    if is_temporary and (passed := summary.get("passed_over")):
        # Its paths are relative to the temporary folder.
        paths = [os.path.relpath(manifest.input_path(found, one)) for one in passed["first"]]
        first = [{**one, "path": name} for one, name in zip(passed["first"], paths, strict=True)]
        summary = {**summary, "passed_over": {**passed, "first": first}}
    about: dict[str, Any] = {"kind": found.kind, "manifest": path, "is_new": is_new}
    return about | {"summary": summary} | more


def is_reported(found: Manifest, output: Path, *, is_new: bool, as_json: bool) -> bool:
    """Prints the document of `--json`, or that the output was finished before.

    Returns:
        Whether either was printed; if not, the command prints its summary.
    """
    if as_json:
        print_document(made(found, is_new=is_new))
    elif not is_new:
        note(f"{output} is finished already, nothing to do")
    return as_json or not is_new


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
        type=_path_type(f.name) if hint is Path else hint,
        required=is_required,
        **default,
        show_default=f.default is not None,
        metavar=f.metadata.get("metavar"),
        help=f.metadata["help"],
    )


def _path_type(name: str) -> click.Path:
    return artifacts.TOKENIZER if name == "tokenizer" else PATH


def plot(what: str) -> Callable[[_Command], _Command]:
    """The option `--plot FILE`, which draws `what` and refuses files that no plot can be written to."""
    return click.option(
        "--plot",
        type=PATH,
        metavar="FILE.html",
        callback=_plot_file,
        help=f"Write a page that draws {what}, with a table; FILE.svg: the bare picture.",
    )


def report(what: str) -> Callable[[_Command], _Command]:
    """The option `--report FILE.html`, which writes a page of `what`."""
    return click.option(
        "--report",
        type=PATH,
        metavar="FILE.html",
        callback=_report_file,
        help=f"Write a page: {what}.",
    )


def _report_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix != ".html":
        raise ConfigError(f"--report writes a page, FILE.html ({path})")
    if path is not None:
        publish.refuse_page(path)
    return path


def note_plot(path: Path | None) -> None:
    """Notes the chart that was written, if one was asked for."""
    if path is not None:
        note(f"plot: {path}")


def _plot_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is None:
        return None
    # Imported here because all commands import this module, most draw nothing, and the import takes 9 ms.
    from pile_tools.present import pages

    if path.suffix not in pages.SUFFIXES:
        raise ConfigError(f"--plot writes a page, FILE.html, or a picture, FILE.svg ({path})")
    publish.refuse_page(path)
    return path


#: The options of `RecordConfig`, which say how shards are read.
OF_RECORDS = ("text_field", "on_bad_record", "max_record")


def refuse_given(inputs: str, *names: str) -> None:
    """Raises ConfigError if one of these options is given, which mean nothing for such inputs."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name.replace('_', '-')} means nothing for {inputs}; leave it out")


def refuse_batch_size() -> None:
    """Raises ConfigError if a batch size is given with inputs that were not recognized as an order."""
    refuse_given("what is no order (of rows, give --row-length)", "batch_size")


def size_of(shards: list[Path]) -> int | None:
    """The bytes of all shards; None if one is a stream, with a note that the job cannot resume."""
    if has_stream(shards):
        stream = "standard input" if str(shards[0]) == "-" else "a pipe"
        note(f"reading {stream}: an interrupted run starts from the beginning", err=True)
        return None
    return sum(path.stat().st_size for path in shards)


def print_passed_over(made: Manifest) -> None:
    """Prints the files that the manifest lists as found beside the shards and ignored."""
    passed = made.summary.get("passed_over", {"n": 0, "first": []})
    if not passed["n"]:
        return
    note(f"{passed['n']:,} ignored beside the shards:")
    for one in passed["first"][:_N_PASSED_OVER]:
        # The manifest's paths are relative to its folder; print them relative to the working directory.
        path = Path.cwd() / manifest.input_path(made, one)
        below = os.path.relpath(path)
        note(f"  {escape(str(path) if below.startswith('..') else below)}: {one['reason']}")
    if passed["n"] > _N_PASSED_OVER:
        note(f"  and {passed['n'] - _N_PASSED_OVER:,} more")
