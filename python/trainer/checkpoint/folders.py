"""Step folders of a run: they appear whole, and only folders that pile-train wrote are removed.

A folder is filled in the run's scratch folder (see `pile_tools.scratch_folders`), synced, and renamed. To
remove one, it is first renamed into the scratch folder, so a killed process leaves no half of it; where a
folder cannot be renamed its files are, the manifest last. The caller holds the lock of the scratch folder,
which is on the same file system. No link is followed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from pile_tools import files, manifest, scratch_folders
from pile_tools.errors import OutputExistsError, PileError
from pile_tools.manifest import MANIFEST_FILE

_STEP = re.compile(r"step(0|[1-9][0-9]{0,17})")

#: The folder of a run's checkpoints, in its output folder.
CHECKPOINTS_FOLDER = "checkpoints"


def checkpoints_folder(output: Path) -> Path:
    """The folder of a run's checkpoints: `OUTPUT/checkpoints`."""
    return output / CHECKPOINTS_FOLDER


def resume_folder(output: Path) -> Path:
    """The folder of a run's saved states: `OUTPUT/resume`."""
    return output / "resume"


def is_among(path: Path, output: Path) -> bool:
    """Whether a path is among the checkpoints or states of a run, which the run removes and replaces."""
    real = Path(os.path.realpath(path))
    for owned in (checkpoints_folder(output), resume_folder(output)):
        # By path too: the folders of a run that begins are still to be made.
        if real.is_relative_to(os.path.realpath(owned)) or files.is_in(path, files.folders_in(owned)):
            return True
    return False


def step_folder(parent: Path, step: int) -> Path:
    """The folder of a step: `PARENT/step{N}`."""
    return parent / f"step{step}"


def step_of(name: str) -> int | None:
    """The step in the name of a folder or branch; None for other names."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def steps_in(parent: Path) -> list[int]:
    """The steps that have a folder, ascending; none if `parent` does not exist.

    A link to a folder counts, so that `check_ours` refuses it.
    """
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    return sorted(step for name in names if (step := step_of(name)) is not None)


def begin(scratch: Path, what: str) -> Path:
    """A new empty folder in the scratch folder, to fill before `finish` gives it its name."""
    folder = scratch / f"{what}-{secrets.token_hex(8)}"
    folder.mkdir()
    return folder


def finish(folder: Path, final: Path) -> None:
    """Syncs a folder and gives it its name.

    Raises:
        OutputExistsError: Something has that name.
    """
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
    files.make_folders(final.parent)
    refuse_link(final.parent)
    if os.path.lexists(final):
        raise OutputExistsError(f"is in the way of a folder of this run; move it away ({final})")
    folder.rename(final)
    files.sync_folder(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        files.sync(descriptor, path)
    finally:
        os.close(descriptor)


def refuse_link(path: Path) -> None:
    """Raises PileError if a path of a run is a link: its target is not the run's."""
    if path.is_symlink():
        raise PileError(f"is a link, and a run keeps its files in its own folder; remove the link ({path})")


def check_ours(parent: Path, kind: str, steps: list[int]) -> None:
    """Checks that step folders hold no files but their manifests and those that the manifests list.

    That they are of this run is not checked: callers know it from `run.json` in the run's folder. `kind` is
    that of the manifests: of checkpoints, or of saved training states.

    Raises:
        PileError: A folder is a link, has no manifest of this kind and step, or holds a file of someone else,
            a mounted one, or a folder with the name of a file.
    """
    for step in steps:
        _check_ours(step_folder(parent, step), kind, step)


def _check_ours(folder: Path, kind: str, step: int) -> None:
    refuse_link(folder.parent)
    refuse_link(folder)
    path = folder / MANIFEST_FILE
    if not any(_files(folder)):
        # What `_move_away` leaves if it is killed at its end.
        return
    if not path.is_file() or path.is_symlink():
        raise PileError(f"is in the way and has no manifest of pile-train; move it away ({folder})")
    found = manifest.read(path)
    if found.kind != kind or found.settings.get("step") != step:
        raise PileError(f"is in the way and not the {kind} of step {step}; move it away ({folder})")
    known = {MANIFEST_FILE, *(entry["path"] for entry in found.outputs)}
    for name in known:
        if (folder / name).is_dir():
            raise PileError(
                f"is a folder with the name of a file of this run; move it away ({folder / name})"
            )
    own = files.mount(folder.parent)
    _refuse_mounted(folder, own)
    for name, mode in _files(folder):
        if name not in known or not stat.S_ISREG(mode):
            raise PileError(f"is in the way and not of pile-train; move it away ({folder / name})")
        _refuse_mounted(folder / name, own)


def _refuse_mounted(path: Path, own: tuple[int, int] | None) -> None:
    """Raises PileError for a file or folder on another mount than `own`: it cannot be renamed or removed."""
    if files.mount(path) != own:
        raise PileError(f"is mounted here, so it can be neither renamed nor removed; unmount it ({path})")


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """What is in a folder and the folders below, as names and modes; folders themselves are left out."""
    # No recursion: folders may be nested deeper than Python's stack.
    pending = [folder]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                pending.append(path)
            else:
                yield path.relative_to(folder).as_posix(), mode


def _move_away(folder: Path, removed: Path) -> None:
    """Moves a step folder to a free name in the scratch folder, its manifest last if not all at once."""
    try:
        folder.rename(removed)
        return
    except OSError as err:
        # An overlay renames no folder of its lower layer, such as one of a container's image.
        if err.errno != errno.EXDEV:
            raise
    removed.mkdir()
    names = sorted((name for name, _ in _files(folder)), key=lambda name: (name == MANIFEST_FILE, name))
    for number, name in enumerate(names):
        (folder / name).rename(removed / str(number))
    scratch_folders.remove_tree(folder)


def remove_steps(parent: Path, kind: str, steps: list[int], scratch: Path) -> None:
    """Removes the folders of these steps, and clears the scratch folder, in which none may be unfinished.

    Raises:
        PileError: A folder is not ours; none is removed.
    """
    check_ours(parent, kind, steps)
    for step in steps:
        _move_away(step_folder(parent, step), scratch / f"removed-{secrets.token_hex(8)}")
    if steps:
        files.sync_folder(parent)
    scratch_folders.clear(scratch)
