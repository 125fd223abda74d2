"""A state continues on another number of processes, ZeRO stage, micro-batch or checkpoint interval."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file

import trainer
from pile_tools import manifest
from trainer.log import LOG_FILE, read_log

pytestmark = pytest.mark.slow

WriteConfig = Callable[..., Path]
Server = Any

#: DeepSpeed's settings are a table of their own, which follows the last line.
COMMON = ("checkpoint_every = 4", "steps = 12")


def losses(output: Path) -> NDArray[np.float64]:
    return np.array([line["loss"] for line in read_log(output / LOG_FILE)])


def sharded(zero_stage: int, offload: bool = False) -> str:
    return f"lr = 0.01\n[deepspeed]\nzero_stage = {zero_stage}\noffload_optimizer = {str(offload).lower()}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, server: Server, write_config: WriteConfig) -> Path:
    """The output of one process without ZeRO."""
    folder = tmp_path_factory.mktemp("elastic")
    config = write_config(folder / "config.toml", folder / "run", *COMMON, optimizer=sharded(0))
    result = server.wait(server.start(config))
    assert result.returncode == 0, result.stderr
    return folder / "run"


def start(server: Server, config: Path, n: int) -> list[Any]:
    return [server.start(config)] if n == 1 else server.pair(config)


def test_processes_stage_and_micro_batch_may_change_on_the_way(
    server: Server, write_config: WriteConfig, reference: Path, tmp_path: Path
) -> None:
    """Two processes, ZeRO 1; one process, ZeRO 3 and other checkpoints; two processes, ZeRO 2."""
    output = tmp_path / "run"
    config = write_config(tmp_path / "c.toml", output, *COMMON, optimizer=sharded(1))
    server.kill_when(start(server, config, 2), output / "resume/step4")
    shutil.rmtree(output / "resume/step8", ignore_errors=True)
    lines = ("checkpoint_every = 3", "steps = 12", "micro_batch_size = 2")
    config = write_config(tmp_path / "c.toml", output, *lines, optimizer=sharded(3))
    server.kill_when(start(server, config, 1), output / "resume/step6")
    shutil.rmtree(output / "resume/step9", ignore_errors=True)
    config = write_config(tmp_path / "c.toml", output, *lines, optimizer=sharded(2))
    results = [server.wait(process) for process in start(server, config, 2)]
    assert [result.returncode for result in results] == [0, 0], results
    assert "after step 6: processes 1 -> 2" in results[0].stderr
    np.testing.assert_allclose(losses(output), losses(reference), rtol=1e-5)
    assert trainer.list_steps(output) == [0, 1, 2, 4, 6, 8, 9, 12]
    stretches = manifest.read(output / "manifest.json").summary["stretches"]
    found = [(one["step"], one["processes"], one["zero_stage"], one["checkpoint_every"]) for one in stretches]
    assert found == [(0, 2, 1, 4), (4, 1, 3, 3), (6, 2, 2, 3)]


@pytest.mark.parametrize(
    ("n", "zero_stage", "offload"), [(1, 1, True), (1, 2, False), (2, 0, False), (2, 3, False), (2, 2, True)]
)
def test_losses_do_not_depend_on_processes_and_stage(
    server: Server,
    write_config: WriteConfig,
    reference: Path,
    tmp_path: Path,
    n: int,
    zero_stage: int,
    offload: bool,
) -> None:
    output = tmp_path / "run"
    lines = (*COMMON, "micro_batch_size = 1") if zero_stage == 2 else COMMON
    config = write_config(tmp_path / "c.toml", output, *lines, optimizer=sharded(zero_stage, offload))
    results = [server.wait(process) for process in start(server, config, n)]
    assert [result.returncode for result in results] == [0] * n, results
    np.testing.assert_allclose(losses(output), losses(reference), rtol=1e-5)


def test_a_state_is_safetensors_with_a_manifest_that_names_its_makers(reference: Path) -> None:
    state = reference / "resume/step12"
    summary = manifest.read(state / "manifest.json").summary
    assert (summary["adam_updates"], summary["tokens"], summary["loss_scale"]) == (12, 12 * 8 * 32, None)
    assert {"torch", "deepspeed", "order", "logits", "records"} <= set(summary)
    tensors = {}
    for path in sorted(state.glob("*.safetensors")):
        tensors |= load_file(path)
    published = load_file(reference / "checkpoints/step12/model.safetensors")
    assert {f"{kind}/{name}" for name in published for kind in ("weight", "exp_avg", "exp_avg_sq")} == set(
        tensors
    )
    for name, weight in published.items():
        assert weight.equal(tensors[f"weight/{name}"])
        assert tensors[f"exp_avg_sq/{name}"].min() >= 0


def test_without_a_gpu_fp16_is_refused(server: Server, write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.toml", tmp_path / "run", 'precision = "fp16"')
    result = server.wait(server.start(config))
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        2,
        'error: precision = "fp16" needs a GPU; on a CPU take fp32 or bf16',
    )
    assert not (tmp_path / "run/run.json").exists()
