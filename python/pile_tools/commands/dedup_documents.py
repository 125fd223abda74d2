"""What `dedup exact` and `dedup near` share: the job, its page, and what is printed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools import _core
from pile_tools.commands import artifacts, dedups, options
from pile_tools.jobs import dedup, rewriting, signatures
from pile_tools.jobs.clusters import largest_clusters
from pile_tools.jobs.dedup import DedupConfig
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.terminal import counted, fit, note

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: The probability of finding a pair at the threshold that the core chooses bands for, if it can.
_MIN_PROBABILITY = 0.999

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


@dataclass(frozen=True)
class Signatures:
    """The options about signatures.

    Attributes:
        folders: Those that are used.
        keeps: Whether those of the new shards are stored.
        unverified: Whether similarities to older documents are estimated from theirs.
        are_distributed: Whether they are computed, and candidates found and verified, on a Ray cluster.
    """

    folders: tuple[Path, ...] = ()
    keeps: bool = False
    unverified: bool = False
    are_distributed: bool = False


def run(
    shards: tuple[Path, ...],
    output: Path,
    config: DedupConfig,
    how: dedups.How,
    against: Path | None,
    of: Signatures | None = None,
) -> None:
    """Runs the job and prints what was removed."""
    of = of or Signatures()
    if of.unverified and against is None:
        raise click.UsageError("--unverified is for similarities to the documents of --against OLD")
    if of.keeps and how.dry_run:
        raise click.UsageError("--keep-signatures and --dry-run exclude each other")
    with _workers(how.threads) if of.are_distributed else contextlib.nullcontext() as workers:
        job = functools.partial(
            dedup.run,
            config=config,
            against=against,
            unverified=of.unverified,
            stored=of.folders,
            workers=workers,
            keep_signatures=of.keeps,
        )
        dedups.run(
            shards,
            output,
            job,
            how,
            costs=_COSTS,
            n_older_bytes=_older_bytes(against),
            keeps_signatures=of.keeps,
            page=_page,
            show=_show,
        )
        if of.keeps:
            note(f"{output / signatures.BESIDE}: the signatures of the new shards")


def _workers(threads: int) -> AbstractContextManager[dedup.Workers]:
    # Imported here because ray is an optional dependency.
    from pile_tools.jobs import distributed_dedup

    return distributed_dedup.workers(options.threads_of_tasks(threads))


def _older_bytes(against: Path | None) -> int:
    """The bytes of the older shards, which need not be there if they have signatures."""
    if against is None:
        return 0
    folder = against / signatures.BESIDE
    if (folder / MANIFEST_FILE).is_file():
        return sum(entry["bytes"] for entry in signatures.entries_of(signatures.read(folder)))
    return options.size_of(artifacts.find_shards((against,))) or 0


def _page(made: Manifest, title: str) -> str:
    # Imported only where a page is written.
    from pile_tools.present import dedup_page

    clusters = largest_clusters(made, _N_CLUSTERS)
    rows = [
        [of.name, *(f"{n:,}" for n in (of.size, of.n_removed, of.n_kept, of.n_left_alone))] for of in clusters
    ]
    pairs = [
        dedup_page.Pair(
            f"A cluster of {counted(of.size, 'document')}: {dedup_page.measure(made)} {of.similarity:.4f}",
            of.kept,
            rewriting.text_of(made, of.kept),
            of.removed,
            rewriting.text_of(made, of.removed),
        )
        for of in clusters[:_N_COMPARED]
        if of.removed is not None and of.kept is not None and rewriting.is_here(made, of.kept)
    ]
    return dedup_page.page(made, title, rows, pairs)


def _show(made: Manifest) -> None:
    summary = made.summary
    if bands := summary["bands"]:
        at = float(made.settings["threshold"])
        chance = _core.band_probability(at, bands["bands"], bands["rows"])
        similar = "verified or estimated" if made.settings.get("unverified") else "verified"
        note(
            f"{bands['bands']} bands of {bands['rows']} values find a pair of Jaccard similarity {at:g} with "
            f"probability {chance:.3f}: {counted(summary['n_candidates'], 'candidate pair')}, "
            f"{summary['n_verified']:,} {similar}"
        )
        if chance < _MIN_PROBABILITY:
            note("warning: too few --permutations for this threshold; many pairs are missed", err=True)
        if made.settings["verify"] == "containment":
            note("containment is verified of these candidates only: excerpts of much longer texts are missed")
    names = {subset["name"] for subset in summary["subsets"]}
    for name in dedup.preferred_subsets(made.settings["prefer"]):
        if name not in names:
            note(f"warning: no document is of the preferred subset {name or 'without a name'}", err=True)
    note(f"{'removed':>12}  {'documents':>12}  {'share':>7}  {'MB removed':>12}  subset")
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
    if made.settings.get("unverified"):
        n = counted(summary["n_estimated"], "document")
        done = "marked as copies" if made.settings["mark"] else "removed"
        note(f"estimate: {n} {done} for an unverified similarity to older ones,")
        note("  and copies of older ones for an equal hash of 128 bits")
    clusters = counted(summary["n_clusters"], "cluster")
    note(f"{clusters} of copies, the largest of {counted(summary['largest_cluster'], 'document')}")
    if summary["n_left_alone"]:
        n = counted(summary["n_left_alone"], "document")
        note(f"{n} in clusters above --max-cluster left alone; --large-clusters removes copies there too")
    if summary["n_marked"]:
        note(f"{counted(summary['n_marked'], 'document')} marked, none removed")
    if made.settings["dry_run"]:
        note("a dry run: no shard was written")
