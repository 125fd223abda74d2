"""`pile-train verify RUN`: damaged files, and steps with equal weights."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pile_tools.cli import run as run_cli
from pile_tools.manifest import MANIFEST_FILE
from trainer.checkpoint import weights
from trainer.checkpoint.publish import publish
from trainer.cli import group
from trainer.config import ModelConfig, TrainConfig
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.run import plan, writing
from trainer.run_check import check_run


@pytest.fixture
def publish_step(order: Path, tokenizer: Path, tmp_path: Path) -> Callable[[int, int], Path]:
    """Publishes weights of a seed under a step of an unfinished run, and returns the run's folder."""
    shape = ModelConfig(hidden_size=32, n_layers=1, n_heads=2)
    run = plan(TrainConfig(order=order, output=tmp_path / "run", tokenizer=tokenizer, model=shape))

    def publish_one(step: int, seed: int) -> Path:
        model = GPTNeoX(run.recipe.shape)
        initialize(model, seed)
        with torch.no_grad(), writing(run.config.output) as scratch:
            publish(run, model.state_dict(), step, scratch)
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
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{output} is what its manifests say: ")


def test_equal_weights_are_named(
    publish_step: Callable[[int, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for step, seed in ((0, 5), (1, 6), (2, 5)):
        output = publish_step(step, seed)
    assert run_cli(group, ["verify", str(output), "--json"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["is_right"] is False
    wrong = [check["what"] for check in found["checks"] if check["state"] == "WRONG"]
    path = output / "checkpoints/step2/model.safetensors"
    assert wrong == [f"step 2 has the weights of step 0 ({path})"]
    assert "step 2 has the weights of step 0" in printed.err


def test_a_part_of_another_step_is_named(
    publish_step: Callable[[int, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (0, 1):
        output = publish_step(step, step)
    first, second = (output / f"checkpoints/step{step}/model.safetensors" for step in (0, 1))
    mixed = load_file(second) | {"embed_out.weight": load_file(first)["embed_out.weight"]}
    save_file(mixed, second, metadata={"format": "pt"})
    assert run_cli(group, ["verify", str(output)]) == 1
    assert "step 1 has 1 of 6 matrices of step 0" in capsys.readouterr().err


def test_steps_without_an_update_between_them_may_be_equal(
    publish_step: Callable[[int, int], Path],
) -> None:
    """The first step of GPT-NeoX's older schedule has the rate 0."""
    for step, seed in ((0, 5), (1, 5), (2, 6)):
        output = publish_step(step, seed)
    line = {"tokens": 256, "loss": 5.0, "lr": 0.0, "grad_norm": 1.0}
    lines = [{**line, "step": 0}, {**line, "step": 1, "tokens": 512, "lr": 0.1}]
    (output / "train_log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    checks = check_run(output)
    assert all(check.state == "ok" for check in checks)
    assert "step 1 has the weights of step 0: no step between them changed any" in [c.what for c in checks]


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


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_a_manifest_that_is_no_file_is_named(
    publish_step: Callable[[int, int], Path], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = publish_step(0, 0) / MANIFEST_FILE
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    assert run_cli(group, ["verify", str(path.parent)]) == 1
    captured = capsys.readouterr()
    assert f"({path})" in captured.err
    assert "is what its manifests say" not in captured.out


def test_a_checkpoint_that_is_cut_while_it_is_mapped_is_named(
    publish_step: Callable[[int, int], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = publish_step(1, 1)

    @contextlib.contextmanager
    def cut_when_open(path: Path, **more: Any) -> Iterator[Any]:
        with safe_open(path, **more) as file:
            # Within the last page, whose lost bytes read as zeros.
            os.truncate(path, path.stat().st_size - 1)
            yield file

    monkeypatch.setattr(weights, "safe_open", cut_when_open)
    assert run_cli(group, ["verify", str(output)]) == 1
    assert "changed while it was read" in capsys.readouterr().err


def test_what_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(group, ["verify", str(tmp_path)]) == 1
    assert "no manifest" in capsys.readouterr().err
