"""`pile-train verify RUN`: damaged files, and steps with equal weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pile_tools.cli import run as run_cli
from trainer.checkpoint.publish import publish
from trainer.cli import group
from trainer.config import ModelConfig, TrainConfig
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.run import plan, writing


@pytest.fixture
def publish_step(order: Path, tokenizer: Path, tmp_path: Path) -> Callable[[int, int], Path]:
    """Publishes weights of a seed under a step of an unfinished run, and returns the run's folder."""
    model = ModelConfig(hidden_size=32, n_layers=1, n_heads=2)
    run = plan(TrainConfig(order=order, output=tmp_path / "run", tokenizer=tokenizer, model=model))

    def publish_one(step: int, seed: int) -> Path:
        weights = GPTNeoX(run.recipe.shape)
        initialize(weights, seed)
        with torch.no_grad(), writing(run.config.output) as scratch:
            publish(run, weights, step, scratch)
        return run.config.output

    return publish_one


def test_steps_of_their_own_are_right(
    publish_step: Callable[[int, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (0, 1, 2):
        output = publish_step(step, step)
    assert run_cli(group, ["verify", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["is_right"], found["n_artifacts"]) == (True, 3)
    assert run_cli(group, ["verify", str(output)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{output} is as it was written: ")


def test_equal_weights_are_named(
    publish_step: Callable[[int, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for step, seed in ((0, 5), (1, 6), (2, 5)):
        output = publish_step(step, seed)
    assert run_cli(group, ["verify", str(output), "--json"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["is_right"] is False
    assert {"state": "WRONG", "what": "steps 0 and 2 have equal weights"} in found["checks"]
    assert "1 group of steps with equal weights" in printed.err


def test_a_damaged_checkpoint_is_named(
    publish_step: Callable[[int, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    output = publish_step(1, 1)
    path = output / "checkpoints" / "step1" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert run_cli(group, ["verify", str(output)]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_what_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(group, ["verify", str(tmp_path)]) == 1
    assert "no manifest" in capsys.readouterr().err
