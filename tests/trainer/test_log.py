from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pile_tools.errors import FormatError
from trainer.log import (
    LogWriter,
    check_log,
    check_validations,
    now,
    read_log,
    read_validations,
    rewind_log,
    rewind_validations,
)
from trainer.row_losses import RowLossWriter

PER_STEP = 8


def write(path: Path, n: int) -> bytes:
    path.write_bytes(b"")
    with LogWriter(path) as log:
        for step in range(n):
            log.add(step=step, tokens=(step + 1) * PER_STEP, loss=1.5, lr=0.1, grad_norm=2)
    return path.read_bytes()


def line(step: int) -> dict[str, Any]:
    return {"step": step, "tokens": (step + 1) * PER_STEP, "loss": 1.5, "lr": 0.1, "grad_norm": 2}


TIMES = {"time": "2026-03-01T12:00:00.000Z", "tokens_per_second": 12.5}


def test_lines_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / "log", 2)
    assert read_log(tmp_path / "log") == [line(0), line(1)]


@pytest.mark.parametrize("name", ["loss", "lr", "grad_norm", "tokens_per_second"])
@pytest.mark.parametrize("value", ["1e101", "-1e101", "1.7e308", "1e999", "NaN", "1" + "0" * 400, "true"])
def test_a_measure_whose_sums_overflow_is_refused(tmp_path: Path, name: str, value: str) -> None:
    values = {**TIMES, **line(0), name: "VALUE"}
    (tmp_path / "log").write_text(json.dumps(values).replace('"VALUE"', value) + "\n")
    with pytest.raises(FormatError, match=r"log\b"):
        read_log(tmp_path / "log")


def test_validations_that_were_not_finite_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    with LogWriter(path) as log:
        log.add(step=0, tokens=0, loss=2.5, bits_per_byte=1.25)
        log.add(step=4, tokens=32, loss=math.nan, bits_per_byte=math.inf)
    assert (
        path.read_bytes().splitlines()[1] == b'{"step": 4, "tokens": 32, "loss": null, "bits_per_byte": null}'
    )
    check_validations(path, [0, 4])
    first, last = read_validations(path)
    assert (first["loss"], first["bits_per_byte"]) == (2.5, 1.25)
    assert math.isnan(last["loss"])
    assert math.isnan(last["bits_per_byte"])


def test_times_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with LogWriter(tmp_path / "log") as log:
        log.add(**line(0), time=now(), tokens_per_second=12.5)
    (found,) = read_log(tmp_path / "log")
    assert found["tokens_per_second"] == 12.5
    written = datetime.fromisoformat(found["time"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named() -> None:
    path = Path("/dev/full")
    with pytest.raises(OSError, match=r"space left on device.*/dev/full"), LogWriter(path) as log:
        log.add(step=1)
    with pytest.raises(OSError, match=r"space left on device.*/dev/full"), RowLossWriter(path, 2) as rows:
        rows.add(np.zeros(2, np.float32))


def test_rewinding_keeps_the_first_lines_and_drops_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = write(path, 3)
    path.write_bytes(whole + b'{"step": 3')
    rewind_log(path, 3, PER_STEP)
    assert path.read_bytes() == whole
    rewind_log(path, 1, PER_STEP)
    assert read_log(path) == [line(0)]


def test_rewinding_nothing_makes_an_empty_log(tmp_path: Path) -> None:
    rewind_log(tmp_path / "log", 0, PER_STEP)
    assert read_log(tmp_path / "log") == []


def test_a_log_too_short_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "log", 2)
    with pytest.raises(FormatError, match="2 steps logged, expected 3"):
        rewind_log(tmp_path / "log", 3, PER_STEP)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    write(tmp_path / "mine", 1)
    (tmp_path / "log").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"), LogWriter(tmp_path / "log"):
        pass


@pytest.mark.parametrize(
    "read", [read_log, lambda path: check_log(path, 1, 1), lambda path: rewind_log(path, 1, 1)]
)
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a device"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "log"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(FormatError, match=f"expected a file, found a {kind.split()[-1]} .*log"):
        read(path)


@pytest.mark.parametrize(
    ("read", "is_validation"),
    [
        (read_log, False),
        (lambda path: check_log(path, 9, PER_STEP), False),
        (lambda path: rewind_log(path, 9, PER_STEP), False),
        (read_validations, True),
        (lambda path: check_validations(path, [1]), True),
        (lambda path: rewind_validations(path, [1, 2, 3, 4]), True),
    ],
)
def test_a_line_longer_than_any_is_not_read_to_its_end(
    tmp_path: Path, read: Callable[[Path], object], is_validation: bool
) -> None:
    """A sparse file takes no disk, whatever its size."""
    path = tmp_path / "log"
    write(path, 3)
    if is_validation:
        path.write_text('{"step": 0, "tokens": 0, "loss": 1.5}\n' * 3)
    os.truncate(path, path.stat().st_size + (200 << 20))
    with pytest.raises(FormatError, match=r"more than 65,536 bytes.*line 4"):
        read(path)


def test_rewinding_validations_keeps_the_first_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    with LogWriter(path) as log:
        for step in (0, 4, 8):
            log.add(step=step, tokens=step, loss=2.5)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    rewind_validations(path, [0, 4])
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    with pytest.raises(FormatError, match="not those of 3 validations"):
        rewind_validations(path, [0, 4, 8])


def test_every_line_that_is_missing_repeated_moved_or_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = write(path, 4).splitlines(keepends=True)
    check_log(path, 4, PER_STEP)
    for i in range(4):
        others = lines[:i] + lines[i + 1 :]
        for changed in (others, [*lines, lines[i]], [*others, lines[i]], [lines[i], *others]):
            if changed == lines:
                continue
            path.write_bytes(b"".join(changed))
            with pytest.raises(FormatError, match="expected"):
                check_log(path, 4, PER_STEP)
    for end in range(len(b"".join(lines))):
        path.write_bytes(b"".join(lines)[:end])
        with pytest.raises(FormatError):
            check_log(path, 4, PER_STEP)


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b"null",
        *(
            json.dumps({**line(0), name: value}).encode()
            for name in line(0)
            for value in (None, "1", True, [], {}, -1.5j.imag if name == "step" else float("nan"), 10**400)
        ),
        json.dumps({**line(0), "more": 1}).encode(),
        *(
            json.dumps({**line(0), **TIMES, "time": time}).encode()
            for time in (None, 5.0, "", "now", "2026-03-01", "2026-03-01T12:00:00.000Z\n", "x" * 10**6)
        ),
        json.dumps({**line(0), **TIMES, "tokens_per_second": "fast"}).encode(),
        json.dumps({name: value for name, value in line(0).items() if name != "lr"}).encode(),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "log").write_bytes(json.dumps(line(0)).encode() + b"\n" + text + b"\n")
    with pytest.raises(FormatError, match="line 2"):
        read_log(tmp_path / "log")
