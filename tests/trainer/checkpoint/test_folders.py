from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Bind

from pile_tools import manifest, scratch_folders
from pile_tools.errors import ConfigError, OutputExistsError, PileError
from pile_tools.manifest import Request
from trainer import run as runs
from trainer.checkpoint import folders


def make(scratch: Path, parent: Path, step: int, kind: str = "checkpoint") -> Path:
    """A step folder with a manifest."""
    folder = folders.begin(scratch, kind)
    (folder / "state").mkdir()
    for name in ("a", "state/b"):
        (folder / name).write_text(name)
    outputs = [manifest.file_entry(folder / name, folder) for name in ("a", "state/b")]
    manifest.write(folder / "manifest.json", Request(kind, {"step": step}), outputs, {})
    final = folders.step_folder(parent, step)
    folders.finish(folder, final)
    return final


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_a_folder_appears_when_finished(scratch: Path, parent: Path) -> None:
    folder = folders.begin(scratch, "checkpoint")
    (folder / "a").write_text("new")
    assert folders.steps_in(parent) == []
    folders.finish(folder, folders.step_folder(parent, 3))
    assert folders.steps_in(parent) == [3]
    assert (parent / "step3/a").read_text() == "new"
    assert list(scratch.iterdir()) == []


def test_nothing_is_replaced(scratch: Path, parent: Path) -> None:
    (parent / "step3").mkdir(parents=True)
    folder = folders.begin(scratch, "checkpoint")
    with pytest.raises(OutputExistsError, match="step3"):
        folders.finish(folder, folders.step_folder(parent, 3))


def test_steps_are_numbers_in_order(tmp_path: Path) -> None:
    for name in ("step10", "step9", "step0", "step01", "step", "other", "step2.tmp", "step" + "9" * 40):
        (tmp_path / name).mkdir()
    assert folders.steps_in(tmp_path) == [0, 9, 10]
    assert folders.steps_in(tmp_path / "absent") == []


def test_own_steps_are_removed(scratch: Path, parent: Path) -> None:
    for step in (1, 2, 3):
        make(scratch, parent, step)
    folders.remove_steps(parent, "checkpoint", [2, 3], scratch)
    assert folders.steps_in(parent) == [1]
    assert list(scratch.iterdir()) == []


def add_file(folder: Path) -> None:
    (folder / "thesis.txt").write_text("mine")


def add_nested(folder: Path) -> None:
    (folder / "state/thesis.txt").write_text("mine")


def link_in_place_of_a_file(folder: Path) -> None:
    shutil.move(folder / "a", folder.parent.parent / "mine")
    (folder / "a").symlink_to("../../mine")


def link_in_place_of_the_folder(folder: Path) -> None:
    shutil.move(folder, folder.parent.parent / "mine")
    folder.symlink_to("../mine")


def link_in_place_of_the_parent(folder: Path) -> None:
    shutil.move(folder.parent, folder.parent.parent / "mine")
    folder.parent.symlink_to("mine")


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def link_in_place_of_the_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder.parent.parent / "mine")
    (folder / "manifest.json").symlink_to("../../mine")


def another_step(folder: Path) -> None:
    shutil.copy(folder.parent / "step1/manifest.json", folder / "manifest.json")


def a_file(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


FOREIGN = [add_file, add_nested, link_in_place_of_a_file, link_in_place_of_the_folder, no_manifest]
FOREIGN += [link_in_place_of_the_parent, link_in_place_of_the_manifest, another_step, a_file]


@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
def test_what_is_not_provably_ours_stays(scratch: Path, parent: Path, change: Callable[[Path], None]) -> None:
    for step in (1, 2, 3):
        make(scratch, parent, step)
    change(parent / "step3")
    before = sorted(path.relative_to(parent.parent) for path in parent.parent.rglob("*"))
    with pytest.raises(PileError):
        folders.remove_steps(parent, "checkpoint", [2, 3], scratch)
    assert sorted(path.relative_to(parent.parent) for path in parent.parent.rglob("*")) == before


@pytest.mark.parametrize("n_calls", [1, 2, 3, 4, 5, 100])
def test_steps_that_an_overlay_does_not_rename_are_removed_after_a_kill_too(
    scratch: Path, parent: Path, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    """An overlay renames files of its lower layer, by copying them, but not folders."""
    for step in (1, 2, 3):
        make(scratch, parent, step)
    rename, rmdir, left = Path.rename, Path.rmdir, n_calls

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    def rename_file(path: Path, target: Path) -> Path:
        if path.is_dir():
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))
        count()
        return rename(path, target)

    def count_rmdir(path: Path) -> None:
        count()
        rmdir(path)

    monkeypatch.setattr(Path, "rename", rename_file)
    monkeypatch.setattr(Path, "rmdir", count_rmdir)
    with contextlib.suppress(KeyboardInterrupt):
        folders.remove_steps(parent, "checkpoint", [2, 3], scratch)
    left = 1000
    scratch_folders.clear(scratch)
    folders.remove_steps(
        parent, "checkpoint", [step for step in folders.steps_in(parent) if step > 1], scratch
    )
    assert folders.steps_in(parent) == [1]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", [".", "a", "state", "manifest.json"])
def test_a_mounted_step_and_a_mounted_file_in_one_stay(
    bind: Bind, scratch: Path, parent: Path, tmp_path: Path, name: str
) -> None:
    for step in (1, 2, 3):
        make(scratch, parent, step)
    mounted = parent / "step3" / name
    other = tmp_path / "other"
    if mounted.is_dir():
        shutil.copytree(mounted, other)
    else:
        shutil.copy(mounted, other)
    bind(other, mounted)
    with pytest.raises(PileError, match="is mounted here"):
        folders.remove_steps(parent, "checkpoint", [2, 3], scratch)
    assert folders.steps_in(parent) == [1, 2, 3]


@pytest.mark.parametrize("name", ["checkpoints", "resume", "run.json.partial"])
def test_a_folder_of_a_run_on_another_mount_is_refused(bind: Bind, tmp_path: Path, name: str) -> None:
    output, other = tmp_path / "run", tmp_path / "other"
    (output / name).mkdir(parents=True)
    other.mkdir()
    bind(other, output / name)
    with pytest.raises(ConfigError, match="is a mounted folder"), runs.writing(output):
        pytest.fail("a step would not be renamed")
    assert [path.name for path in output.iterdir()] == [name]


def test_what_a_run_owns_is_known_through_a_mount(bind: Bind, tmp_path: Path) -> None:
    step, mounted = tmp_path / "run" / "checkpoints" / "step1", tmp_path / "mounted"
    step.mkdir(parents=True)
    mounted.mkdir()
    assert not folders.is_among(mounted / "x", tmp_path / "run")
    bind(step, mounted)
    assert folders.is_among(mounted / "x", tmp_path / "run")


def test_one_process_writes_in_a_folder(tmp_path: Path) -> None:
    with (
        runs.writing(tmp_path / "run"),
        pytest.raises(PileError, match="another process trains in this folder"),
        runs.writing(tmp_path / "run"),
    ):
        pass
    assert list((tmp_path / "run").iterdir()) == []
    with runs.writing(tmp_path / "run") as scratch:
        folders.begin(scratch, "state")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_of_several_processes_ends_with_the_last(tmp_path: Path) -> None:
    output = tmp_path / "run"
    refused = pytest.raises(PileError, match="another process trains in this folder")
    with contextlib.ExitStack() as other:
        with runs.writing(output, 2):
            other.enter_context(runs.writing_too(output))
            with refused, runs.writing(output):
                pytest.fail("two processes hold it")
        # Rank 0 has ended; the folder stays for the lock of the other.
        assert [path.name for path in (output / "run.json.partial").iterdir()] == ["pile-tools.lock"]
        with refused, runs.writing(output):
            pytest.fail("the other holds it")
    with runs.writing(output, 2), runs.writing_too(output):
        pass
    assert list(output.iterdir()) == []


def test_a_lock_of_another_start_is_not_joined(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with (
        runs.writing(output),
        pytest.raises(PileError, match="another process trains in this folder"),
        runs.writing_too(output),
    ):
        pytest.fail("it is not shared")
    assert list(output.iterdir()) == []


def test_a_lock_that_was_removed_is_not_joined(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with runs.writing(output, 2):
        (output / "run.json.partial/pile-tools.lock").unlink()
        with pytest.raises(FileNotFoundError, match="lock"), runs.writing_too(output):
            pytest.fail("it is gone")


def test_a_folder_deeper_than_the_stack_stays(scratch: Path, parent: Path) -> None:
    make(scratch, parent, 3)
    deep = parent.joinpath("step3", *["deep"] * 400)
    deep.mkdir(parents=True)
    (deep / "thesis.txt").write_text("mine")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        with pytest.raises(PileError, match="not of pile-train"):
            folders.remove_steps(parent, "checkpoint", [3], scratch)
    finally:
        sys.setrecursionlimit(limit)
    assert (deep / "thesis.txt").exists()
