from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import trainer
from pile_tools import _core, manifest
from pile_tools.errors import FormatError
from pile_tools.manifest import Request
from trainer import row_losses
from trainer.row_losses import ROW_LOSSES_FILE, RowLossWriter, check, rewind

BATCH = 4


def written(folder: Path, n_steps: int) -> Path:
    path = folder / ROW_LOSSES_FILE
    rewind(path, 0, BATCH)
    with RowLossWriter(path, BATCH) as file:
        for step in range(n_steps):
            file.add(np.arange(BATCH, dtype=np.float32) + step / 8)
    return path


def test_a_full_disk_is_named_with_the_file() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        row_losses.fill(Path("/dev/full"), 1, 4)


def test_rows_are_read_back_by_step(tmp_path: Path) -> None:
    written(tmp_path, 3)
    manifest.write(tmp_path / "run.json", Request("run", {"batch_size": BATCH, "steps": 3}), [], {})
    found = trainer.read_row_losses(tmp_path)
    assert (found.shape, found.dtype) == ((3, BATCH), np.float16)
    np.testing.assert_array_equal(found[2], np.arange(BATCH) + 0.25)
    assert _core.is_mapped(tmp_path / ROW_LOSSES_FILE)


def test_losses_of_more_steps_than_the_run_has_are_refused(tmp_path: Path) -> None:
    written(tmp_path, 3)
    manifest.write(tmp_path / "run.json", Request("run", {"batch_size": BATCH, "steps": 2}), [], {})
    with pytest.raises(FormatError, match=r"losses of 3 steps, expected at most 2 \(.*row_losses\.f16\)"):
        trainer.read_row_losses(tmp_path)


def test_an_unwritten_step_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, 2)
    os.truncate(path, path.stat().st_size - 1)
    manifest.write(tmp_path / "run.json", Request("run", {"batch_size": BATCH, "steps": 3}), [], {})
    assert len(trainer.read_row_losses(tmp_path)) == 1
    os.truncate(path, 1)
    assert trainer.read_row_losses(tmp_path).shape == (0, BATCH)


def test_losses_that_no_float16_holds_are_not_numbers(tmp_path: Path) -> None:
    path = tmp_path / ROW_LOSSES_FILE
    path.touch()
    with RowLossWriter(path, 2) as file:
        file.add(np.array([1e6, np.nan], np.float32))
        file.add(None)
    found = np.fromfile(path, np.float16).reshape(2, 2)
    assert np.isposinf(found[0, 0])
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1]).all()


def test_a_loss_is_right_to_half_a_thousandth() -> None:
    losses = np.random.default_rng(0).uniform(0.5, 12, 10_000)
    assert np.abs(losses.astype(np.float16) / losses - 1).max() < 0.0005


@pytest.mark.parametrize("n_left", [0, 4])
def test_a_file_that_becomes_shorter_while_it_is_mapped_is_found(tmp_path: Path, n_left: int) -> None:
    """What is missing of its page reads as zeros: commands look before they print."""
    path = written(tmp_path, 3)
    manifest.write(tmp_path / "run.json", Request("run", {"batch_size": BATCH, "steps": 3}), [], {})
    found = trainer.read_row_losses(tmp_path)
    _core.check_mapped()
    os.truncate(path, n_left)
    with pytest.raises(FormatError, match=r"became shorter while it was read.*row_losses\.f16"):
        _core.check_mapped()
    # Once more after it was mapped, for a command that has closed it before it prints.
    del found
    with pytest.raises(FormatError, match="became shorter"):
        _core.check_mapped()
    _core.check_mapped()


def test_rewinding_truncates_and_never_extends(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    whole = path.read_bytes()
    rewind(path, 3, BATCH)
    assert path.read_bytes() == whole
    rewind(path, 1, BATCH)
    assert path.read_bytes() == whole[: BATCH * 2]
    check(path, 1, BATCH)
    with pytest.raises(FormatError, match="8 bytes of losses, expected 16; force starts again"):
        rewind(path, 2, BATCH)
    with pytest.raises(FormatError, match="8 bytes of losses, expected 16 "):
        check(path, 2, BATCH)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_rewound(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ROW_LOSSES_FILE
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "mine").write_bytes(b"mine")
        path.symlink_to("mine")
    with pytest.raises((FormatError, OSError)):
        rewind(path, 0, BATCH)
    assert kind != "link" or (tmp_path / "mine").read_bytes() == b"mine"
