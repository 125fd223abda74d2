"""Tokenizes the parts of a dataset as tasks on a Ray cluster, one part per shard.

Parts are those of a tokenize job for shards i of n, beside the dataset on storage that all machines share. A
finished part is never made again: Ray retries a task whose worker or machine dies, and a run whose driver
died continues with the missing parts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pile_tools import scratch_folders
from pile_tools.errors import PileError, PileWarning, first_line
from pile_tools.jobs import tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.manifest import MANIFEST_SUFFIX
from pile_tools.publish import Target
from pile_tools.tokens import datasets
from pile_tools.tokens.parts import Part
from pile_tools.types import OnTokens

#: Seconds between two progress reports of a task, and between two polls of the driver.
REPORT_SECONDS = 0.5

#: Seconds to wait for cancelled tasks to stop.
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
        PileError: Another process makes this dataset, no cluster is reached or started, or the worker of a
            part died in every attempt. Otherwise the first error of a task, as `tokenize.run` raises it.
    """
    parts = [Part(number, len(shards)) for number in range(1, len(shards) + 1)]
    sizes = {part: sum(path.stat().st_size for path in part.of(shards)) for part in parts}
    # Each task locks its part alone: the lock of the whole keeps out a second run of the same dataset. It
    # ends with this function; `merge` takes it again.
    scratch = Target.of(datasets.with_suffix(prefix, MANIFEST_SUFFIX)).scratch
    with scratch_folders.locked(scratch, "is making this output"), _cluster():
        _warn_of_small_machines(threads)
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


def _warn_of_small_machines(n_cpus: int) -> None:
    """Warns if no machine has the CPUs of a task: the tasks then wait until the cluster gets one."""
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if largest < n_cpus:
        warnings.warn(
            f"tasks of {n_cpus} threads wait for a machine with as many CPUs; "
            f"the largest of the cluster has {largest:g}",
            PileWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """A context with a connection to a cluster, which is closed if it was opened here."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as err:
        # Ray's failures to start have no common type; details are in the logs of its processes.
        ray.shutdown()
        reason = first_line(err)
        raise PileError(f"no Ray cluster could be reached or started: {reason}") from err
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote(num_cpus=0, max_restarts=-1)
class _Counter:
    """The progress of each part's task: compressed bytes read and tokens made."""

    def __init__(self) -> None:
        self._progress: dict[int, tuple[int, int]] = {}

    def update(self, part: int, n_bytes: int, n_tokens: int) -> None:
        """Records the progress of a part's task."""
        self._progress[part] = n_bytes, n_tokens

    def progress(self) -> dict[int, tuple[int, int]]:
        """Bytes and tokens, by the number of the part."""
        return self._progress


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
    """Makes one part. `folder` is the driver's working directory, to which paths may be relative."""
    if not all(path.is_absolute() for path in (*shards, prefix, config.tokenizer)):
        os.chdir(folder)
    last_report, n_bytes = 0.0, sum(path.stat().st_size for path in part.of(shards))

    def report(done: int, n_tokens: int) -> None:
        nonlocal last_report
        if done == n_bytes or time.monotonic() - last_report >= REPORT_SECONDS:
            last_report = time.monotonic()
            counter.update.remote(part.number, done, n_tokens)

    # `renews_part`: a part that is damaged, or whose shard has another size now, is made again without force.
    tokenize.run(
        shards, prefix, config, threads=threads, part=part, renews_part=True, force=force, on_progress=report
    )


def _wait(pending: dict[Any, Part], sizes: dict[Part, int], counter: Any, on_progress: OnTokens) -> None:
    """Waits for all tasks and removes finished ones from `pending`. Raises the first failure."""
    n_finished_bytes = 0
    progress: dict[int, tuple[int, int]] = {}
    while pending:
        done, _ = ray.wait(list(pending), timeout=REPORT_SECONDS)
        for ref in done:
            part = pending.pop(ref)
            _raise_failure(ref, part)
            n_finished_bytes += sizes[part]
        with contextlib.suppress(RayError):
            progress = ray.get(counter.progress.remote(), timeout=REPORT_SECONDS)
        if on_progress is not None:
            running = [progress.get(part.number, (0, 0))[0] for part in pending.values()]
            on_progress(n_finished_bytes + sum(running), sum(n_tokens for _, n_tokens in progress.values()))


def _raise_failure(ref: Any, part: Part) -> None:
    """Raises the error of a task, if it failed."""
    try:
        ray.get(ref)
    except RayTaskError as err:
        raise err.cause from None
    except RayError as err:
        reason = first_line(err)
        raise PileError(f"the worker of part {part} died in every attempt: {reason}") from err


def _stop(pending: list[Any]) -> None:
    """Interrupts tasks, as Ctrl-C does. The next run resumes their parts."""
    for ref in pending:
        ray.cancel(ref)
    if pending:
        ray.wait(pending, num_returns=len(pending), timeout=STOP_SECONDS)
