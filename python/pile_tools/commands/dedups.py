"""What the commands that deduplicate shards share: options, the job, and what is printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools import publish
from pile_tools.commands import artifacts, options
from pile_tools.jobs import dedup
from pile_tools.jobs.dedup import CLUSTERS_FILE, DedupConfig
from pile_tools.manifest import Manifest
from pile_tools.progress import Bar
from pile_tools.sizes import parse_size
from pile_tools.terminal import counted, echo, fit, note

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: The share of a subset's documents above which their removal is a warning.
_MUCH = 0.5

#: Largest clusters on the page, and how many of them with two documents compared, which are read again.
_N_CLUSTERS, _N_COMPARED = 20, 5

#: Bytes on disk for each byte of the shards that is expected beside the output: rows with hashes and
#: signatures, and the shingles of candidates, for text that is compressed three to four times.
_SCRATCH_SHARE = 0.8

#: Compressed bytes that a thread reads in a second, over all passes, for such text.
_BYTES_PER_SECOND = 8e6


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
        click.option(
            "--memory",
            default="1GiB",
            show_default=True,
            callback=lambda context, option, given: parse_size(given),
            help="Memory for sorting; what does not fit is on disk beside the output meanwhile.",
        ),
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


def run(shards: tuple[Path, ...], output: Path, config: DedupConfig, how: How) -> None:
    """Runs the job and prints what was removed, as the commands do."""
    found = artifacts.find_shards(shards)
    n_bytes = options.size_of(found) or 0
    started = time.monotonic()
    with Bar("deduplicating", (2 if how.dry_run else 3) * n_bytes) as bar:
        made, is_new = dedup.run(
            found,
            output,
            config,
            protect=how.protect,
            dry_run=how.dry_run,
            memory=how.memory,
            threads=how.threads,
            force=how.force,
            on_plan=_note_plan,
            on_progress=bar.update,
        )
    if how.report is not None:
        _write_report(how.report, made, output)
    if options.is_reported(made, output, is_new=is_new, as_json=how.as_json):
        return
    _print(made, output, time.monotonic() - started)
    if how.report is not None:
        note(f"report: {how.report}")


def _note_plan(n_passes: int, n_bytes: int) -> None:
    disk = n_bytes * _SCRATCH_SHARE / 1e6
    seconds = n_passes * n_bytes / _BYTES_PER_SECOND
    note(
        f"reading {n_bytes / 1e6:,.1f} MB up to {n_passes} times, in about {seconds:,.0f} s with one thread; "
        f"about {disk:,.1f} MB of disk beside the output meanwhile",
        err=True,
    )


def _write_report(path: Path, made: Manifest, output: Path) -> None:
    # Imported only where a page is written.
    from pile_tools.present import dedup_page

    clusters = dedup.largest_clusters(made, _N_CLUSTERS)
    rows = [
        [of.name, *(f"{n:,}" for n in (of.size, of.n_removed, of.n_kept, of.n_left_alone))] for of in clusters
    ]
    pairs = [
        dedup_page.Pair(
            f"A cluster of {counted(of.size, 'document')}: similarity {of.similarity:.4f}",
            of.kept,
            dedup.text_of(made, of.kept),
            of.removed,
            dedup.text_of(made, of.removed),
        )
        for of in clusters[:_N_COMPARED]
        if of.removed is not None and of.kept is not None
    ]
    title = f"Deduplicated shards: {output.name or output}"
    publish.write_page(path, dedup_page.page(made, title, rows, pairs))


def _print(made: Manifest, output: Path, elapsed: float) -> None:
    summary = made.summary
    if bands := summary["bands"]:
        at = float(made.settings["threshold"])
        chance = next((p for s, p in summary["curve"] if s >= at), 1.0)
        note(
            f"{bands['bands']} bands of {bands['rows']} values find a pair at {at:g} with probability "
            f"{chance:.3f}: {counted(summary['n_candidates'], 'candidate pair')}, "
            f"{summary['n_verified']:,} verified"
        )
    echo(f"{'removed':>12}  {'documents':>12}  {'share':>7}  {'MB of text':>12}  subset")
    for subset in [*summary["subsets"], {**summary, "name": "in all"}]:
        share = subset["n_removed"] / max(subset["n_documents"], 1)
        name = "no subset" if subset["name"] is None else fit(subset["name"], 24)
        echo(
            f"{subset['n_removed']:>12,}  {subset['n_documents']:>12,}  {share:>7.2%}  "
            f"{subset['n_removed_bytes'] / 1e6:>12,.1f}  {name}"
        )
    for subset in summary["subsets"]:
        if subset["n_removed"] > _MUCH * subset["n_documents"]:
            name = subset["name"] or "no subset"
            note(f"warning: more than half of {name} is removed; look at its clusters first", err=True)
    clusters = counted(summary["n_clusters"], "cluster")
    note(f"{clusters} of copies, the largest of {counted(summary['largest_cluster'], 'document')}")
    if summary["n_left_alone"]:
        n = counted(summary["n_left_alone"], "document")
        note(f"{n} in clusters above --max-cluster left alone; --large-clusters removes copies there too")
    if summary["n_marked"]:
        note(f"{counted(summary['n_marked'], 'document')} marked, none removed")
    note(f"{output}: members of all clusters in {CLUSTERS_FILE}, in {elapsed:.1f} s")
    options.print_passed_over(made)
