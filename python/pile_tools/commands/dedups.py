"""What the commands that deduplicate shards share: options, the job, and what is printed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools import publish
from pile_tools.commands import artifacts, options
from pile_tools.manifest import Manifest
from pile_tools.progress import Bar
from pile_tools.read.shards import BESIDE_SHARDS
from pile_tools.terminal import counted, note

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: The share of a subset above which its loss is a warning.
MUCH = 0.5


@dataclass(frozen=True)
class Costs:
    """What a job needs, for text that is compressed three to four times.

    Attributes:
        disk: Bytes beside the output for each byte of the shards.
        bytes_per_second: Bytes of the shards that a thread reads in a second, over all passes.
    """

    disk: float
    bytes_per_second: float


@dataclass(frozen=True)
class How:
    """The options that are not part of `DedupConfig`."""

    protect: Path | None
    dry_run: bool
    report: Path | None
    memory: int
    threads: int
    as_json: bool
    force: bool

    @property
    def inputs(self) -> list[Path]:
        """The files among them that are read."""
        return [] if self.protect is None else [self.protect]


def shards_to_folder(command: _Command) -> _Command:
    """Adds the argument SHARDS and the option `--output`."""
    output = click.option(
        "-o",
        "--output",
        type=options.PATH,
        required=True,
        metavar="OUT",
        help="The folder of the new shards.",
    )
    return options.shards(output(command))


def how(command: _Command) -> _Command:
    """Adds the options of `How`, but for `--json` and `--force`."""
    for option in (
        options.threads,
        options.memory("Memory for sorting; what does not fit is on disk beside the output meanwhile."),
        options.report("amounts by subset, similarities, the largest clusters compared"),
        click.option("--dry-run", is_flag=True, help="Write all but the shards."),
        click.option(
            "--protect",
            type=options.PATH,
            metavar="FILE",
            help="Documents that stay: lines SHARD:RECORD, or the canaries.json of a sample.",
        ),
    ):
        command = option(command)
    return command


def run(
    shards: tuple[Path, ...],
    output: Path,
    job: Callable[..., tuple[Manifest, bool]],
    how: How,
    *,
    costs: Costs,
    n_older_bytes: int = 0,
    keeps_signatures: bool = False,
    page: Callable[[Manifest, str], str],
    show: Callable[[Manifest], None],
) -> None:
    """Runs a job and prints what was removed, as the commands do.

    Args:
        shards: The shards as they are named on the command line.
        output: The folder of the new shards.
        job: `run` of a module that writes shards again, with its config.
        how: Its other options.
        costs: What the job is expected to need, which is printed first.
        n_older_bytes: Bytes of older shards, which are read but not written.
        keeps_signatures: Whether the new shards are read once more for their signatures.
        page: The page of `--report`, from the manifest and a title.
        show: Prints the figures of the manifest.
    """
    found = artifacts.find_shards(shards)
    n_bytes = options.size_of(found) or 0
    started = time.monotonic()
    # The shards are read to compare texts, to verify candidates, and to write them again.
    total = 2 * (n_bytes + n_older_bytes) + (0 if how.dry_run else n_bytes) + keeps_signatures * n_bytes
    with Bar("deduplicating", total) as bar:
        made, is_new = job(
            found,
            output,
            protect=how.protect,
            dry_run=how.dry_run,
            memory=how.memory,
            threads=how.threads,
            force=how.force,
            on_plan=functools.partial(_note_plan, costs),
            on_progress=bar.update,
        )
    if how.report is not None:
        publish.write_page(
            how.report, page(made, f"Deduplicated shards: {output.name or output}"), how.inputs
        )
    if options.is_reported(made, output, is_new=is_new, as_json=how.as_json):
        return
    show(made)
    if n := made.summary.get("n_bad_records"):
        note(f"{counted(n, 'bad record')} left where they are, compared with nothing")
    tables = [entry["path"] for entry in made.outputs if entry.get("role") in BESIDE_SHARDS]
    note(f"{output}: the list is {tables[0]}, in {time.monotonic() - started:.1f} s")
    options.print_passed_over(made)
    if how.report is not None:
        note(f"report: {how.report}")


def _note_plan(costs: Costs, n_passes: int, n_bytes: int) -> None:
    disk = n_bytes * costs.disk / 1e6
    seconds = n_passes * n_bytes / costs.bytes_per_second
    note(
        f"reading {n_bytes / 1e6:,.1f} MB up to {n_passes} times, in about {seconds:,.0f} s with one thread; "
        f"about {disk:,.1f} MB of disk beside the output meanwhile",
        err=True,
    )
