"""What TensorBoard reads; skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pile_tools.config import from_toml
from pile_tools.errors import ConfigError, PileError
from trainer import run as runs
from trainer.config import TrainConfig
from trainer.tensorboard import TENSORBOARD_FOLDER, Board

has_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard"
)


@pytest.fixture(autouse=True)
def _old_warnings() -> Iterator[None]:
    """TensorBoard's own modules warn of what they use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Any = EventAccumulator(str(folder / TENSORBOARD_FOLDER))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@has_tensorboard
def test_tensorboard_reads_what_is_written_and_not_what_is_trained_again(tmp_path: Path) -> None:
    for first, values in ((0, [5.0, 4.0, 3.5]), (2, [3.0, 2.5])):
        board = Board(tmp_path, first)
        for step, value in enumerate(values, first):
            board.add(step, {"loss": value, "lr": 0.5}, group="train")
        board.flush()
        board.close()
    found = read(tmp_path)
    assert found["train/loss"] == [(0, 5.0), (1, 4.0), (2, 3.0), (3, 2.5)]
    assert [step for step, _ in found["train/lr"]] == [0, 1, 2, 3]


@has_tensorboard
def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / TENSORBOARD_FOLDER).symlink_to("mine")
    with pytest.raises(PileError, match="is a link"):
        Board(tmp_path, 0)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_missing_package_is_one_message_before_anything_is_written(
    tmp_path: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = from_toml(
        TrainConfig, write_config(tmp_path / "config.toml", tmp_path / "run", "tensorboard = true")
    )
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "tensorboard" else real(name, *more)
    )
    with pytest.raises(ConfigError, match=r"needs the package tensorboard.*pip install"):
        runs.plan(config)
    assert not (tmp_path / "run").exists()
