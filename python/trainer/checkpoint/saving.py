"""Saves in the background: training waits for a copy in memory, not for the disk.

Every process writes its own files in a thread of its own, then a note with their checksums. The thread of
rank 0 waits for the notes of all, and gives checkpoint and state their names. No thread takes part in a
collective operation, as those of the training step run at the same time.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pile_tools import files
from pile_tools.manifest import Entry
from trainer.failures import MachineError
from trainer.ranks import Processes

_POLL_SECONDS = 0.02

#: Seconds that rank 0 waits for the others' files when a run fails: theirs are as large as its own.
_PATIENCE_SECONDS = 60.0


class Abandoned(Exception):
    """A save was given up: another process will not finish its part."""


class Save:
    """One save: what `Saver` runs in its thread, in two parts.

    Args:
        folder: The unfinished folder that all processes write into; None if only rank 0 writes, in
            `publish`.
        ranks: The processes.
        write: Writes this process's files and returns their entries.
        publish: Completes the save from the entries of all processes, in rank 0.
    """

    def __init__(
        self,
        folder: Path | None,
        ranks: Processes,
        write: Callable[[], list[Entry]],
        publish: Callable[[list[Entry]], object],
    ) -> None:
        self._folder, self._ranks = folder, ranks
        self._write, self._publish = write, publish
        self._entries: list[Entry] = []

    def write(self) -> None:
        """Writes this process's files."""
        self._entries = self._write()
        if self._folder is not None and self._ranks.size > 1:
            files.write_atomically(self._note(self._ranks.rank), json.dumps(self._entries))

    def publish(self, is_abandoned: Callable[[], bool]) -> None:
        """Waits for the files of all processes and completes the save, in rank 0."""
        if not self._ranks.is_main:
            return
        entries = self._entries
        if self._folder is not None and self._ranks.size > 1:
            entries = []
            for rank in range(self._ranks.size):
                while not self._note(rank).exists():
                    if is_abandoned():
                        raise Abandoned
                    time.sleep(_POLL_SECONDS)
                entries += json.loads(self._note(rank).read_bytes())
            for rank in range(self._ranks.size):
                self._note(rank).unlink()
        self._publish(entries)

    def _note(self, rank: int) -> Path:
        assert self._folder is not None
        return self._folder / f"written-by-{rank}.json"


class Saver:
    """Runs one save at a time in a thread; a context manager, which at its end waits for the last one."""

    def __init__(self, ranks: Processes) -> None:
        self._ranks = ranks
        self._thread: threading.Thread | None = None
        self._is_written, self._is_abandoned = threading.Event(), threading.Event()
        self._failure: BaseException | None = None

    def start(self, save: Save) -> None:
        """Starts a save. `wait` has waited for the one before."""
        assert self._thread is None
        self._is_written.clear()
        self._thread = threading.Thread(target=self._run, args=(save,), name="save", daemon=True)
        self._thread.start()

    def _run(self, save: Save) -> None:
        try:
            save.write()
            self._is_written.set()
            save.publish(self._is_abandoned.is_set)
        except Abandoned:
            pass
        except BaseException as err:
            self._failure = err
        finally:
            self._is_written.set()

    def wait(self) -> None:
        """Waits until the last save is complete; every process calls it.

        Raises:
            PileError, OSError: It failed in the only process.
            SystemExit: It failed in one of several processes; rank 0 has printed the message.
        """
        # First the files of all processes: rank 0 would wait without end for those of one that failed.
        try:
            self._ranks.agree(self._finish_writing)
        except BaseException:
            self._is_abandoned.set()
            raise
        self._ranks.agree(self._finish)

    def _finish_writing(self) -> None:
        if self._thread is not None:
            self._is_written.wait()
            self._raise()

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C ends the process at once; the next start removes what is unfinished.
        if self._thread is None or isinstance(error, KeyboardInterrupt):
            return
        if isinstance(error, MachineError):
            # Other processes may be lost.
            self._is_abandoned.set()
        self._thread.join(_PATIENCE_SECONDS)
        self._is_abandoned.set()
        self._thread.join()
