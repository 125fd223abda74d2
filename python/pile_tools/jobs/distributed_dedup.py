"""Runs the expensive parts of `dedup near` as tasks on a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pile_tools import _core, scratch_folders
from pile_tools.jobs import cluster
from pile_tools.jobs.rewriting import Rewriting
from pile_tools.read.shards import RecordConfig
from pile_tools.types import Deduplication, OnProgress, RewriteSummary, SignaturesSummary, Sketching


@contextlib.contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """A context with workers on the cluster that `cluster.run` uses. The first task opens the connection."""
    with contextlib.ExitStack() as connection:
        yield Workers(threads, connection)


class Workers:
    """Implements `dedup.Workers` on a Ray cluster. `connection` holds the connection until it is closed."""

    def __init__(self, threads: int, connection: contextlib.ExitStack) -> None:
        self._threads, self._connection, self._is_connected = threads, connection, False

    def sketch(
        self,
        shards: Sequence[Path],
        sketchings: Sequence[Sketching],
        records: RecordConfig,
        on_progress: OnProgress,
    ) -> list[SignaturesSummary]:
        """Writes the signatures of each shard, by the `Sketching` at the same index."""
        tasks = [
            cluster.Task(
                str(shard),
                shard.stat().st_size,
                functools.partial(
                    _sketch, shard, dataclasses.replace(sketching, threads=self._threads), records
                ),
                not (shard.is_absolute() and Path(sketching.folder).is_absolute()),
            )
            for shard, sketching in zip(shards, sketchings, strict=True)
        ]
        return self._run(tasks, on_progress)

    def run_tasks(
        self,
        shards: Sequence[Path],
        how: Deduplication,
        records: RecordConfig,
        tasks: Sequence[tuple[str, str]],
    ) -> None:
        """Runs tasks that `_core.find_duplicates` hands out: each is the name of its folder, and its JSON."""
        of_task = dataclasses.replace(how, threads=self._threads)
        work = functools.partial(_run_task, shards, of_task, records)
        # No progress: `find_duplicates` adds the bytes of the second pass when all its tasks have finished.
        is_relative = not all(path.is_absolute() for path in (*shards, Path(how.folder)))
        made = [
            cluster.Task(name, 0, functools.partial(work, name, task), is_relative) for name, task in tasks
        ]
        self._run(made, None)

    def rewrite(self, parts: Sequence[Rewriting], on_progress: OnProgress) -> list[RewriteSummary]:
        """Writes the new shards of each part."""
        tasks = [
            cluster.Task(
                str(part.shards[0]),
                sum(shard.stat().st_size for shard in part.shards),
                functools.partial(_rewrite, part, self._threads),
                not all(path.is_absolute() for path in (*part.shards, part.folder)),
            )
            for part in parts
        ]
        return self._run(tasks, on_progress)

    def _run(self, tasks: Sequence[cluster.Task], on_progress: OnProgress) -> list[Any]:
        if not self._is_connected:
            self._connection.enter_context(cluster.connected())
            self._is_connected = True
        report = None if on_progress is None else lambda n_bytes, _n_tokens: on_progress(n_bytes)
        return cluster.run(tasks, threads=self._threads, on_progress=report)


def _sketch(
    shard: Path, sketching: Sketching, records: RecordConfig, on_progress: Callable[..., None]
) -> SignaturesSummary:
    with scratch_folders.locked(Path(sketching.folder), "computes these signatures"):
        return _core.write_signatures(
            [shard],
            sketching,
            on_progress,
            text_field=records.text_field,
            skip_bad_records=records.skips,
            max_record=records.max_record_bytes,
        )


def _rewrite(part: Rewriting, threads: int, on_progress: Callable[..., None]) -> RewriteSummary:
    with scratch_folders.locked(part.folder, "writes this shard"):
        return part.run(threads, on_progress)


def _run_task(
    shards: Sequence[Path],
    how: Deduplication,
    records: RecordConfig,
    name: str,
    task: str,
    on_progress: Callable[..., None],
) -> None:
    folder = how.folder / "tasks" / name
    folder.parent.mkdir(exist_ok=True)
    with scratch_folders.locked(folder, "runs this task"):
        _core.run_dedup_task(
            shards,
            how,
            task,
            on_progress,
            text_field=records.text_field,
            skip_bad_records=records.skips,
            max_record=records.max_record_bytes,
        )
