"""Folders that appear whole: written under another name, synced, renamed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_STEP = re.compile(r"step(0|[1-9][0-9]*)")
_TEMPORARY = ".tmp"


def step_folder(parent: Path, step: int) -> Path:
    """The folder of a step: `PARENT/step{N}`."""
    return parent / f"step{step}"


def steps_in(parent: Path) -> list[int]:
    """The steps that have a folder, in order; none where there is no `parent`."""
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    return sorted(int(match[1]) for name in names if (match := _STEP.fullmatch(name)))


def unfinished(final: Path) -> Path:
    """What a folder is called while it is being filled."""
    return final.with_name(final.name + _TEMPORARY)


def begin(final: Path) -> Path:
    """A new empty folder to fill before `finish` gives it its name."""
    temporary = unfinished(final)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def finish(final: Path) -> None:
    """Syncs the folder that `begin` made and gives it its name; one that had it before is removed."""
    temporary = unfinished(final)
    for path in [*temporary.rglob("*"), temporary]:
        _sync(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(parent: Path) -> None:
    """Removes folders that `begin` made and nothing finished."""
    for path in parent.glob(f"step*{_TEMPORARY}"):
        shutil.rmtree(path)


def remove_steps(parent: Path, steps: list[int]) -> None:
    """Removes the folders of these steps."""
    for step in steps:
        shutil.rmtree(step_folder(parent, step))
