from __future__ import annotations

from pathlib import Path

from trainer.checkpoint import folders


def test_a_folder_appears_when_finished(tmp_path: Path) -> None:
    final = folders.step_folder(tmp_path, 3)
    (folders.begin(final) / "a").write_text("new")
    assert folders.steps_in(tmp_path) == []
    folders.finish(final)
    assert folders.steps_in(tmp_path) == [3]
    assert (final / "a").read_text() == "new"


def test_finishing_replaces(tmp_path: Path) -> None:
    final = folders.step_folder(tmp_path, 3)
    final.mkdir()
    (final / "old").write_text("")
    (folders.begin(final) / "new").write_text("")
    folders.finish(final)
    assert [path.name for path in final.iterdir()] == ["new"]


def test_what_was_left_unfinished_is_removed(tmp_path: Path) -> None:
    (folders.begin(folders.step_folder(tmp_path, 3)) / "a").write_text("")
    folders.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_steps_are_numbers_in_order(tmp_path: Path) -> None:
    for name in ("step10", "step9", "step0", "step01", "step", "other", "step2.tmp"):
        (tmp_path / name).mkdir()
    assert folders.steps_in(tmp_path) == [0, 9, 10]
    assert folders.steps_in(tmp_path / "absent") == []
