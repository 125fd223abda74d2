"""Tokenizes the parts of a dataset as tasks on a Ray cluster, one part a shard.

Parts are what `tokenize --shards i/n` makes: they lie on storage that all machines share, beside the dataset,
and one that is finished is never made again. So a task whose worker or machine dies is done again by Ray,
and a run whose driver dies goes on with the parts that are not there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pile_tools import manifest, publish
from pile_tools.errors import PileError, first_line
from pile_tools.jobs import tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.manifest import MANIFEST_SUFFIX
from pile_tools.tokens import datasets
from pile_tools.tokens.parts import Part
from pile_tools.types import OnTokens

#: Seconds between two reports of a task, and between two looks of the driver.
TICK_SECONDS = 0.5

#: Seconds that tasks get to stop in.
STOP_SECONDS = 10.0


def make_parts(
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    *,
    threads: int,
    force: bool = False,
    on_progress: OnTokens = None,
) -> list[Path]:
    """Tokenizes each shard into a part of the dataset at `prefix`; `merge` joins the parts.

    Runs on the cluster that ray is connected to, else that of RAY_ADDRESS, else the one on this machine,
    else one that it starts on this machine and stops at the end. All machines need this package, and the
    shards, the tokenizer and the output under the same paths.

    Args:
        shards: In the order that is to be the dataset's.
        prefix: Path of the dataset without its suffixes.
        config: Tokenizer and end-of-document token.
        threads: Threads of each task, and CPUs that it asks Ray for.
        force: Replace parts made before from something else.
        on_progress: Called with the compressed bytes read and the tokens made so far.

    Returns:
        The parts' prefixes, in order.

    Raises:
        PileError: Workers died again and again at one part; or what `tokenize.run` raises, from the first
            task to fail.
    """
    parts = [Part(number, len(shards)) for number in range(1, len(shards) + 1)]
    sizes = {part: sum(path.stat().st_size for path in part.of(shards)) for part in parts}
    with _cluster():
        counter = _Counter.remote()  # type: ignore[attr-defined]
        pending = {}
        for part in parts:
            task = _make_part.options(num_cpus=threads)
            ref = task.remote(Path.cwd(), shards, prefix, config, part, threads, force, counter)
            pending[ref] = part
        try:
            _wait(pending, sizes, counter, on_progress)
        finally:
            _stop(list(pending))
    return [part.prefix(prefix) for part in parts]


def remove_parts(parts: Sequence[Path]) -> None:
    """Removes parts that are merged, and their folder if nothing else is in it."""
    for part in parts:
        publish.remove(manifest.read(datasets.with_suffix(part, MANIFEST_SUFFIX)))
    with contextlib.suppress(OSError):
        parts[0].parent.rmdir()


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """A connection to a cluster, closed again if it was not there before."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as err:
        # Ray raises bare ones; its own processes say why in their logs.
        ray.shutdown()
        reason = first_line(err)
        raise PileError(f"no Ray cluster could be reached or started: {reason}") from err
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote(num_cpus=0, max_restarts=-1)
class _Counter:
    """How many bytes each part's task has read, and how many tokens it has made of them."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[int, int]] = {}

    def update(self, part: int, n_bytes: int, n_tokens: int) -> None:
        """Says how far a part's task is."""
        self._done[part] = n_bytes, n_tokens

    def done(self) -> dict[int, tuple[int, int]]:
        """Bytes and tokens, by part."""
        return self._done


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def _make_part(
    folder: Path,
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    part: Part,
    threads: int,
    force: bool,
    counter: Any,
) -> None:
    """Makes one part, where it runs as on the driver's machine: paths may be relative to its folder."""
    if not all(path.is_absolute() for path in (*shards, prefix, config.tokenizer)):
        os.chdir(folder)
    last_report, n_bytes = 0.0, sum(path.stat().st_size for path in part.of(shards))

    def report(done: int, n_tokens: int) -> None:
        nonlocal last_report
        if done == n_bytes or time.monotonic() - last_report >= TICK_SECONDS:
            last_report = time.monotonic()
            counter.update.remote(part.number, done, n_tokens)

    tokenize.run(
        shards, prefix, config, threads=threads, part=part, renews_part=True, force=force, on_progress=report
    )


def _wait(pending: dict[Any, Part], sizes: dict[Part, int], counter: Any, on_progress: OnTokens) -> None:
    """Waits for all tasks, taking those that are done out of `pending`; the first failure is raised."""
    n_finished_bytes = 0
    told: dict[int, tuple[int, int]] = {}
    while pending:
        done, _ = ray.wait(list(pending), timeout=TICK_SECONDS)
        for ref in done:
            part = pending.pop(ref)
            _raise_failure(ref, part)
            n_finished_bytes += sizes[part]
        with contextlib.suppress(RayError):
            told = ray.get(counter.done.remote(), timeout=TICK_SECONDS)
        if on_progress is not None:
            running = [told.get(part.number, (0, 0))[0] for part in pending.values()]
            on_progress(n_finished_bytes + sum(running), sum(n_tokens for _, n_tokens in told.values()))


def _raise_failure(ref: Any, part: Part) -> None:
    """Raises what a task failed by, as if it had happened here."""
    try:
        ray.get(ref)
    except RayTaskError as err:
        raise err.cause from None
    except RayError as err:
        reason = first_line(err)
        raise PileError(f"the worker of part {part} died, and again when it was retried: {reason}") from err


def _stop(pending: list[Any]) -> None:
    """Asks tasks to stop as Ctrl-C does; what they are at is lost, or gone on with in the next run."""
    for ref in pending:
        ray.cancel(ref)
    if pending:
        ray.wait(pending, num_returns=len(pending), timeout=STOP_SECONDS)
