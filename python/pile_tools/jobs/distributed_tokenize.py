"""Tokenizes the parts of a dataset as tasks on a Ray cluster, one part per shard.

Parts are those of a tokenize job for shards i of n, beside the dataset on storage that all machines share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from pile_tools import manifest, publish, scratch_folders
from pile_tools.jobs import cluster, tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.manifest import MANIFEST_SUFFIX
from pile_tools.publish import Target
from pile_tools.tokens import datasets
from pile_tools.tokens.parts import Part
from pile_tools.types import OnTokens


def make_parts(
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    *,
    threads: int,
    force: bool = False,
    on_progress: OnTokens = None,
) -> list[Path]:
    """Tokenizes each shard into a part of the dataset at `prefix`, for `merge` to join.

    Runs on the cluster that Ray is connected to, else on that of RAY_ADDRESS, else on a running cluster on
    this machine, else on a local cluster that is stopped at the end. All machines need this package, and the
    shards, the tokenizer and the output under the same paths.

    Args:
        shards: Shards in the order of the dataset.
        prefix: Prefix of the dataset.
        config: Settings of the dataset.
        threads: Threads of each task, and CPUs that it requests from Ray. Ray waits without end for a machine
            that has as many; if there is none at the start, a warning says so.
        force: Replace parts of another job: of other settings, another tokenizer or other shards. A damaged
            part, and one whose shard has another size now, is made again without it.
        on_progress: Called with the compressed bytes read and the tokens made.

    Returns:
        The prefixes of the parts, in order.

    Raises:
        PileError: Another process makes this dataset, no cluster is reached or started, the worker of a part
            died in every attempt, or a shard changed its size. Otherwise the first error of a task, as
            `tokenize.run` raises it.
    """
    parts = [Part(number, len(shards)) for number in range(1, len(shards) + 1)]
    make = functools.partial(_make_part, shards, prefix, config, threads, force)
    is_relative = not all(path.is_absolute() for path in (*shards, prefix, config.tokenizer))
    tasks = [
        cluster.Task(
            f"part {part}",
            sum(path.stat().st_size for path in part.of(shards)),
            functools.partial(make, part),
            is_relative,
        )
        for part in parts
    ]
    # Each task locks its part alone: the lock of the whole keeps out a second run of the same dataset. It
    # ends with this function; `merge` takes it again.
    scratch = Target.of(datasets.with_suffix(prefix, MANIFEST_SUFFIX)).scratch
    with scratch_folders.locked(scratch, "is making this output"):
        cluster.run(tasks, threads=threads, on_progress=on_progress)
        prefixes = [part.prefix(prefix) for part in parts]
        # Each task compares its shard at its own end, which may be long before that of the last.
        for made in prefixes:
            path = datasets.with_suffix(made, MANIFEST_SUFFIX)
            publish.refuse_resized(manifest.read(path).inputs, path.parent)
    return prefixes


def _make_part(
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    threads: int,
    force: bool,
    part: Part,
    on_progress: Callable[[int, int], None],
) -> None:
    # `renews_part`: a part that is damaged, or whose shard has another size now, is made again without force.
    tokenize.run(
        shards,
        prefix,
        config,
        threads=threads,
        part=part,
        renews_part=True,
        force=force,
        on_progress=on_progress,
    )
