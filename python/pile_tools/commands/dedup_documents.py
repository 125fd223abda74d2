"""What `dedup exact` and `dedup near` share: the job, its page, and what is printed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools.commands import artifacts, dedups, options
from pile_tools.jobs import dedup, rewriting
from pile_tools.jobs.dedup import DedupConfig
from pile_tools.manifest import Manifest
from pile_tools.terminal import counted, fit, note

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Largest clusters on the page, and how many of them with two documents compared, which are read again.
_N_CLUSTERS, _N_COMPARED = 20, 5

#: On disk are rows with hashes and signatures, and the shingles of candidates.
_COSTS = dedups.Costs(disk=0.8, bytes_per_second=8e6)


def against(command: _Command) -> _Command:
    """Adds the option `--against`."""
    return click.option(
        "--against",
        type=options.PATH,
        metavar="OLD",
        help="A folder of older shards: remove copies of their documents too, and none of theirs.",
    )(command)


def run(
    shards: tuple[Path, ...], output: Path, config: DedupConfig, how: dedups.How, against: Path | None
) -> None:
    """Runs the job and prints what was removed."""
    n_older_bytes = 0 if against is None else options.size_of(artifacts.find_shards((against,))) or 0
    job = functools.partial(dedup.run, config=config, against=against)
    dedups.run(shards, output, job, how, costs=_COSTS, n_older_bytes=n_older_bytes, page=_page, show=_show)


def _page(made: Manifest, title: str) -> str:
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
            rewriting.text_of(made, of.kept),
            of.removed,
            rewriting.text_of(made, of.removed),
        )
        for of in clusters[:_N_COMPARED]
        if of.removed is not None and of.kept is not None
    ]
    return dedup_page.page(made, title, rows, pairs)


def _show(made: Manifest) -> None:
    summary = made.summary
    if bands := summary["bands"]:
        at = float(made.settings["threshold"])
        chance = next((p for s, p in summary["curve"] if s >= at), 1.0)
        note(
            f"{bands['bands']} bands of {bands['rows']} values find a pair at {at:g} with probability "
            f"{chance:.3f}: {counted(summary['n_candidates'], 'candidate pair')}, "
            f"{summary['n_verified']:,} verified"
        )
    note(f"{'removed':>12}  {'documents':>12}  {'share':>7}  {'MB of text':>12}  subset")
    for subset in [*summary["subsets"], {**summary, "name": "in all"}]:
        share = subset["n_removed"] / max(subset["n_documents"], 1)
        name = "no subset" if subset["name"] is None else fit(subset["name"], 24)
        note(
            f"{subset['n_removed']:>12,}  {subset['n_documents']:>12,}  {share:>7.2%}  "
            f"{subset['n_removed_bytes'] / 1e6:>12,.1f}  {name}"
        )
    for subset in summary["subsets"]:
        if subset["n_removed"] > dedups.MUCH * subset["n_documents"]:
            name = subset["name"] or "no subset"
            note(f"warning: more than half of {name} is removed; look at its clusters first", err=True)
    clusters = counted(summary["n_clusters"], "cluster")
    note(f"{clusters} of copies, the largest of {counted(summary['largest_cluster'], 'document')}")
    if summary["n_left_alone"]:
        n = counted(summary["n_left_alone"], "document")
        note(f"{n} in clusters above --max-cluster left alone; --large-clusters removes copies there too")
    if summary["n_marked"]:
        note(f"{counted(summary['n_marked'], 'document')} marked, none removed")
