"""`scripts/gpu_check.sh` at the size of a trial, on a CPU: what needs a GPU runs nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not os.environ.get("PILE_TOOLS_SLOW"), reason="takes minutes: make slow")
def test_every_step_succeeds_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    script = ROOT / "scripts/gpu_check.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    ended = subprocess.run([script, "--cpu", tmp_path], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == ["machine", "data", "train", "logits", "study", "ours", "compiled", "peer"]
    assert found["train"]["largest relative difference of a loss trained again"] == 0
    assert min(found[name]["tokens/s"] for name in ("ours", "compiled", "peer")) > 0


def test_a_machine_without_a_gpu_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    script = ROOT / "scripts/gpu_check.sh"
    ended = subprocess.run([script, tmp_path], capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: torch finds no GPU; --cpu tries the script at a tiny size"
