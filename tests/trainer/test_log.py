from __future__ import annotations

from pathlib import Path

import pytest

from pile_tools.errors import FormatError
from trainer.log import LogWriter, read_log, rewind_log


def write(path: Path, n: int) -> None:
    with LogWriter(path) as log:
        for step in range(n):
            log.add(step=step, loss=1.5)


def test_lines_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / "log", 2)
    assert read_log(tmp_path / "log") == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 1.5}]


def test_rewinding_keeps_the_first_lines_and_drops_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 3')
    rewind_log(path, 3)
    assert path.read_bytes() == whole
    rewind_log(path, 1)
    assert read_log(path) == [{"step": 0, "loss": 1.5}]


def test_rewinding_nothing_makes_an_empty_log(tmp_path: Path) -> None:
    rewind_log(tmp_path / "log", 0)
    assert read_log(tmp_path / "log") == []


def test_a_log_too_short_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "log", 2)
    with pytest.raises(FormatError, match="2 steps logged, expected 3"):
        rewind_log(tmp_path / "log", 3)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 0}\n{"st\n')
    with pytest.raises(FormatError, match="line 2"):
        read_log(tmp_path / "log")
