"""Pipeline stages in two processes: the same run as in one, and states that both continue from."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import trainer
from pile_tools import manifest
from trainer.log import LOG_FILE, read_log, read_validations

pytestmark = pytest.mark.slow

WriteConfig = Callable[..., Path]
Server = Any

COMMON = ("checkpoint_every = 4", "steps = 12")


takes_minutes = pytest.mark.skipif(not os.environ.get("PILE_TOOLS_SLOW"), reason="takes minutes: make slow")


def tables(order: Path, n_stages: int) -> tuple[str, ...]:
    """The last tables of a config; five rows are no multiple of any batch."""
    validation = ("[validation]", f'order = "{order}"', "every = 6", "rows = 5")
    return (*validation, "[deepspeed]", f"pipeline_stages = {n_stages}")


def start(server: Server, config: Path, n_stages: int) -> list[Any]:
    return server.pair(config) if n_stages == 2 else [server.start(config)]


def column(output: Path, name: str) -> NDArray[np.float64]:
    return np.array([line[name] for line in read_log(output / LOG_FILE)])  # type: ignore[literal-required]


def test_a_pipeline_continues_one_process_and_is_continued_by_it(
    server: Server, write_config: WriteConfig, order: Path, tmp_path: Path
) -> None:
    """Steps 0 to 3 in one process, 4 to 7 in two stages, the others in one again; and all in one."""
    output, alone = tmp_path / "run", tmp_path / "alone"
    config = write_config(tmp_path / "alone.toml", alone, *COMMON, tables=tables(order, 1))
    reference = server.start(config)
    for n_stages, until in ((1, 4), (2, 8)):
        config = write_config(tmp_path / "c.toml", output, *COMMON, tables=tables(order, n_stages))
        server.kill_when(start(server, config, n_stages), output / f"resume/step{until}")
        shutil.rmtree(output / f"resume/step{until + 4}", ignore_errors=True)
    config = write_config(tmp_path / "c.toml", output, *COMMON, tables=tables(order, 1))
    results = [server.wait(process) for process in (*start(server, config, 1), reference)]
    assert [result.returncode for result in results] == [0, 0], results
    assert "after step 8: processes 2 -> 1, micro_batch_size 1 -> 8, pipeline_stages 2 -> 1" in (
        results[0].stderr
    )
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(column(output, name), column(alone, name), rtol=1e-5)
    np.testing.assert_allclose(trainer.read_row_losses(output), trainer.read_row_losses(alone), rtol=1e-3)
    found, expected = (read_validations(folder / "validation_log.jsonl") for folder in (output, alone))
    assert [line["step"] for line in found] == [0, 6, 12]
    for one, other in zip(found, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert trainer.list_steps(output) == trainer.list_steps(alone)
    names = [sorted(p.name for p in (folder / "checkpoints/step8").iterdir()) for folder in (output, alone)]
    assert names[0] == names[1]
    stretches = manifest.read(output / "manifest.json").summary["stretches"]
    found_stages = [(one["step"], one["processes"], one["pipeline_stages"]) for one in stretches]
    assert found_stages == [(0, 1, 1), (4, 2, 2), (8, 1, 1)]


@pytest.mark.parametrize(("lr", "fault"), [("1e4", "the gradient is not finite"), ("1e8", "the loss is nan")])
def test_a_pipeline_is_one_run_to_the_end(
    server: Server, write_config: WriteConfig, order: Path, tmp_path: Path, lr: str, fault: str
) -> None:
    """What both stages wrote is whole, and skipped steps change nothing in any stage.

    The first update makes weights so large that no later gradient is finite, or no logit.
    """
    output = tmp_path / "run"
    config = write_config(
        tmp_path / "c.toml", output, "steps = 4", optimizer=f"lr = {lr}", tables=tables(order, 2)
    )
    results = [server.wait(process) for process in start(server, config, 2)]
    assert [result.returncode for result in results] == [0, 0], results
    assert "trained 4 steps" in results[0].stdout
    assert (results[1].stdout, results[1].stderr) == ("", "")
    lines = read_log(output / LOG_FILE)
    assert [line.get("skipped", "") for line in lines] == ["", *([fault] * 3)]
    files = [load_file(output / f"checkpoints/step{step}/model.safetensors") for step in (0, 1, 4)]
    for name, weight in files[2].items():
        assert weight.equal(files[1][name])
        assert not weight.equal(files[0][name])
    moments = {}
    for path in (output / "resume/step4").glob("*.safetensors"):
        moments |= load_file(path)
    assert all(bool(torch.isfinite(value).all()) for value in moments.values())
    assert len(moments) == 3 * len(files[0])


@takes_minutes
@pytest.mark.parametrize(
    ("size", "lines", "rtol"),
    [
        (4, ("micro_batch_size = 2",), 1e-5),
        (2, ('precision = "bf16"', "micro_batch_size = 2"), 1e-3),
        (2, ("activation_checkpointing = true",), 1e-5),
        (2, ("compile = true",), 1e-5),
    ],
)
def test_other_settings_give_the_losses_of_one_process(
    server: Server,
    write_config: WriteConfig,
    order: Path,
    tmp_path: Path,
    size: int,
    lines: tuple[str, ...],
    rtol: float,
) -> None:
    """With four processes, two copies of the model."""
    found = []
    for n_stages, name in ((1, "alone"), (2, "pipeline")):
        output = tmp_path / name
        config = write_config(tmp_path / "c.toml", output, *COMMON, *lines, tables=tables(order, n_stages))
        started = [server.start(config)] if n_stages == 1 else server.pair(config, size=size)
        results = [server.wait(process) for process in started]
        assert {result.returncode for result in results} == {0}, results
        found.append(output)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(column(found[1], name), column(found[0], name), rtol=rtol)
    validations = [[line["loss"] for line in read_validations(o / "validation_log.jsonl")] for o in found]
    np.testing.assert_allclose(validations[1], validations[0], rtol=rtol)


@takes_minutes
def test_a_signal_to_one_stage_saves_and_stops_both(
    server: Server, write_config: WriteConfig, order: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    config = write_config(tmp_path / "c.toml", output, tables=tables(order, 2))
    started = server.pair(config)
    log = output / LOG_FILE
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert Path(f"/proc/{started[1].pid}").exists()
        time.sleep(0.001)
    os.kill(started[1].pid, signal.SIGTERM)
    results = [server.wait(process) for process in started]
    assert [result.returncode for result in results] == [143, 143], results
    n_steps = len(read_log(log))
    assert [path.name for path in (output / "resume").glob("step*")] == [f"step{n_steps}"]
    results = [server.wait(process) for process in server.pair(config)]
    assert [result.returncode for result in results] == [0, 0], results
    assert len(read_log(log)) == 40


@takes_minutes
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc_per_node", "2", "-m"),
        ("deepspeed.launcher.runner", "--num_gpus", "2", "--no_local_rank", "--module"),
    ],
)
def test_launchers_start_a_pipeline(
    write_config: WriteConfig,
    order: Path,
    environment: dict[str, str],
    tmp_path: Path,
    launcher: tuple[str, ...],
) -> None:
    config = write_config(tmp_path / "c.toml", tmp_path / "run", "steps = 2", tables=tables(order, 2))
    command = [sys.executable, "-m", *launcher, "trainer.cli", str(config), "--threads", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "trained 2 steps" in ended.stdout
    assert trainer.list_steps(tmp_path / "run") == [0, 1, 2]


@takes_minutes
def test_a_bad_batch_leaves_weights_and_moments_in_every_stage(environment: dict[str, str]) -> None:
    script = Path(__file__).with_name("bad_batch.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", script]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.splitlines()[-1] == "2 engines"
