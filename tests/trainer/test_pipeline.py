"""Pipeline stages in two processes: the same run as in one, and states that both continue from."""

from __future__ import annotations

import shutil
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


def test_a_pipeline_is_one_run_to_the_end(
    server: Server, write_config: WriteConfig, order: Path, tmp_path: Path
) -> None:
    """What both stages wrote is whole; steps with an infinite gradient change nothing in any stage."""
    output = tmp_path / "run"
    # The first update makes weights so large that no later gradient is finite.
    config = write_config(
        tmp_path / "c.toml", output, "steps = 4", optimizer="lr = 1e4", tables=tables(order, 2)
    )
    results = [server.wait(process) for process in start(server, config, 2)]
    assert [result.returncode for result in results] == [0, 0], results
    assert "trained 4 steps" in results[0].stdout
    assert (results[1].stdout, results[1].stderr) == ("", "")
    lines = read_log(output / LOG_FILE)
    assert [line.get("skipped", "") for line in lines] == ["", *(["the gradient is not finite"] * 3)]
    files = [load_file(output / f"checkpoints/step{step}/model.safetensors") for step in (0, 1, 4)]
    for name, weight in files[2].items():
        assert weight.equal(files[1][name])
        assert not weight.equal(files[0][name])
    moments = {}
    for path in (output / "resume/step4").glob("*.safetensors"):
        moments |= load_file(path)
    assert all(bool(torch.isfinite(value).all()) for value in moments.values())
    assert len(moments) == 3 * len(files[0])
