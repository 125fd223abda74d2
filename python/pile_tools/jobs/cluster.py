"""Tasks on a Ray cluster.

Tasks must write to storage that all machines share, lock what they write, and skip what is finished: Ray
retries a task whose worker or machine dies, and a run whose driver died is started again with the same tasks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pile_tools.errors import PileError, PileWarning, first_line
from pile_tools.types import OnTokens

#: Seconds between two progress reports of a task, and between two polls of the driver.
REPORT_SECONDS = 0.5

#: Seconds to wait for cancelled tasks to stop.
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Task:
    """A part of a job.

    Attributes:
        name: Its output or input, for the message "the worker of NAME died".
        n_bytes: Compressed bytes that it reads, for progress; 0 if the job counts them elsewhere.
        work: Called by a worker with `report(n_bytes, n_tokens=0)`, which takes the compressed bytes read and
            the tokens made so far. It must pickle.
        is_relative: Whether it uses relative paths, which are those of the driver: a worker then needs the
            driver's working directory.
    """

    name: str
    n_bytes: int
    work: Callable[[Callable[..., None]], Any]
    is_relative: bool = False


def run(tasks: Sequence[Task], *, threads: int, on_progress: OnTokens = None) -> list[Any]:
    """Runs tasks and returns their results, in order.

    Runs on the cluster that Ray is connected to, else on that of RAY_ADDRESS, else on a running cluster on
    this machine, else on a local cluster that is stopped at the end. All machines need this package, and the
    files that the tasks read and write under the same paths.

    Args:
        tasks: The tasks.
        threads: CPUs that each task requests from Ray. Ray waits indefinitely for a machine with this many;
            a warning says so if there is none at the start.
        on_progress: Called with the compressed bytes read and the tokens made by all tasks.

    Raises:
        PileError: No cluster is reached or started, or the worker of a task died in every attempt.
        Exception: The first exception that the work of a task raised.
    """
    with connected():
        _warn_of_small_machines(threads)
        counter = _Counter.remote()  # type: ignore[attr-defined]
        options = _run_task.options(num_cpus=threads)
        pending = {
            options.remote(Path.cwd(), number, task, counter): number for number, task in enumerate(tasks)
        }
        try:
            return _wait(pending, tasks, counter, on_progress)
        finally:
            _stop(list(pending))


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """A context with a connection to a cluster, which is closed if it was opened here."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's handler would end the process with the signal's number as exit code, or by an abort. Without it,
    # the processes of a cluster that is started here end with this one.
    on_sigterm = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as err:
        # Ray's failures to start have no common type; details are in the logs of its processes.
        ray.shutdown()
        reason = first_line(err)
        raise PileError(f"no Ray cluster could be reached or started: {reason}") from err
    except SystemExit:
        # By Ray's handler, while Ray started.
        signal.signal(signal.SIGTERM, on_sigterm)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        ray.shutdown()


def _warn_of_small_machines(n_cpus: int) -> None:
    """Warns if no machine has the CPUs that a task requests; the tasks then wait until one joins."""
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if largest < n_cpus:
        warnings.warn(
            f"tasks of {n_cpus} threads wait for a machine with as many CPUs; "
            f"the largest of the cluster has {largest:g}",
            PileWarning,
            stacklevel=2,
        )


@ray.remote(num_cpus=0, max_restarts=-1)
class _Counter:
    """The progress of each task: compressed bytes read and tokens made."""

    def __init__(self) -> None:
        self._progress: dict[int, tuple[int, int]] = {}

    def update(self, number: int, n_bytes: int, n_tokens: int) -> None:
        """Records the progress of a task."""
        self._progress[number] = n_bytes, n_tokens

    def progress(self) -> dict[int, tuple[int, int]]:
        """Bytes and tokens, by the number of the task."""
        return self._progress


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def _run_task(folder: Path, number: int, task: Task, counter: Any) -> Any:
    """Runs a task. `folder` is the driver's working directory, to which paths may be relative."""
    if task.is_relative:
        os.chdir(folder)
    last_report = 0.0

    def report(done: int, n_tokens: int = 0) -> None:
        nonlocal last_report
        if done == task.n_bytes > 0 or time.monotonic() - last_report >= REPORT_SECONDS:
            last_report = time.monotonic()
            counter.update.remote(number, done, n_tokens)

    return task.work(report)


def _wait(pending: dict[Any, int], tasks: Sequence[Task], counter: Any, on_progress: OnTokens) -> list[Any]:
    """Waits for all tasks and removes finished ones from `pending`. Raises the first failure."""
    n_finished_bytes = 0
    results: list[Any] = [None] * len(tasks)
    progress: dict[int, tuple[int, int]] = {}
    while pending:
        done, _ = ray.wait(list(pending), timeout=REPORT_SECONDS)
        for ref in done:
            number = pending.pop(ref)
            results[number] = _result(ref, tasks[number])
            n_finished_bytes += tasks[number].n_bytes
        with contextlib.suppress(RayError):
            progress = ray.get(counter.progress.remote(), timeout=REPORT_SECONDS)
        if on_progress is not None:
            running = [progress.get(number, (0, 0))[0] for number in pending.values()]
            on_progress(n_finished_bytes + sum(running), sum(n_tokens for _, n_tokens in progress.values()))
    return results


def _result(ref: Any, task: Task) -> Any:
    """The result of a finished task. Raises its error, if it failed."""
    try:
        return ray.get(ref)
    except RayTaskError as err:
        raise err.cause from None
    except RayError as err:
        reason = first_line(err)
        raise PileError(f"the worker of {task.name} died in every attempt: {reason}") from err


def _stop(pending: list[Any]) -> None:
    """Interrupts tasks, as Ctrl-C does, and waits for them. The next run runs them again."""
    for ref in pending:
        ray.cancel(ref)
    if pending:
        ray.wait(pending, num_returns=len(pending), timeout=STOP_SECONDS)
