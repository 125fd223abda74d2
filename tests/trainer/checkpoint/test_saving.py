"""Saves in the background: who waits for whom, and where failures appear."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pile_tools.manifest import Entry
from trainer.checkpoint.saving import Save, Saver
from trainer.failures import MachineError
from trainer.ranks import Processes

ALONE = Processes(0, 1, torch.device("cpu"))
ENTRY: Entry = {"path": "a", "bytes": 1, "sha256": "0" * 64}


def left_by(error: BaseException, saver: Saver, save: Save) -> None:
    """Starts a save, then ends the saver's run by an error."""
    with saver:
        saver.start(save)
        raise error


class Gate:
    """A save whose writing waits until the gate is opened."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.opened, self._failure = threading.Event(), failure
        self.published: list[Entry] = []
        self.save = Save(None, ALONE, self._write, self.published.extend)

    def _write(self) -> list[Entry]:
        assert self.opened.wait(60)
        if self._failure is not None:
            raise self._failure
        return [ENTRY]


def test_a_save_starts_without_waiting_and_the_next_waits_for_it() -> None:
    gate = Gate()
    with Saver(ALONE) as saver:
        saver.start(gate.save)
        assert gate.published == []
        threading.Timer(0.05, gate.opened.set).start()
        saver.wait()
        assert gate.published == [ENTRY]
        saver.wait()


def test_a_failure_is_raised_once_where_it_is_waited_for() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state-00000.safetensors")
    gate = Gate(full)
    with Saver(ALONE) as saver:
        saver.start(gate.save)
        gate.opened.set()
        with pytest.raises(OSError, match="No space"):
            saver.wait()
        assert gate.published == []


def test_a_failed_run_waits_for_its_save() -> None:
    gate = Gate()
    threading.Timer(0.05, gate.opened.set).start()
    with pytest.raises(ValueError, match="bad"):
        left_by(ValueError("bad"), Saver(ALONE), gate.save)
    assert gate.published == [ENTRY]


def test_an_interrupted_run_does_not_wait() -> None:
    gate = Gate()
    with pytest.raises(KeyboardInterrupt):
        left_by(KeyboardInterrupt(), Saver(ALONE), gate.save)
    assert gate.published == []
    gate.opened.set()


def save_of(rank: int, folder: Path, published: list[Entry]) -> Save:
    ranks = Processes(rank, 2, torch.device("cpu"))
    return Save(folder, ranks, lambda: [{**ENTRY, "path": f"of-{rank}"}], published.extend)


def test_rank_0_publishes_when_the_files_of_all_are_written(tmp_path: Path) -> None:
    published: list[Entry] = []
    first, second = (save_of(rank, tmp_path, published) for rank in (0, 1))
    first.write()
    thread = threading.Thread(target=first.publish, args=(lambda: False,))
    thread.start()
    time.sleep(0.1)
    assert published == []
    second.write()
    second.publish(lambda: False)
    thread.join(60)
    assert [entry["path"] for entry in published] == ["of-0", "of-1"]
    assert list(tmp_path.iterdir()) == []


def test_rank_0_does_not_wait_for_a_process_that_failed_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(ranks: Processes, act: Callable[[], object]) -> object:
        act()
        raise SystemExit(1)

    def save() -> None:
        with Saver(Processes(0, 2, torch.device("cpu"))) as saver:
            saver.start(save_of(0, tmp_path, published))
            saver.wait()

    monkeypatch.setattr(Processes, "agree", fail)
    published: list[Entry] = []
    started = time.monotonic()
    with pytest.raises(SystemExit):
        save()
    assert time.monotonic() - started < 30
    assert published == []


def test_rank_0_gives_up_when_another_process_is_lost(tmp_path: Path) -> None:
    published: list[Entry] = []
    saver = Saver(Processes(0, 2, torch.device("cpu")))
    with pytest.raises(MachineError):
        left_by(MachineError("another process was lost"), saver, save_of(0, tmp_path, published))
    assert published == []
