"""The whole way through the real commands: text, tokenizer, dataset, order, model, scan, report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from pile_tools import VerifyError
from pile_tools.jobs import verify

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CONFIG = """
order = "tokens"
output = "run"
tokenizer = "tokenizer.json"
checkpoint_every = 8

[model]
hidden_size = 32
n_layers = 2
n_heads = 2
"""


@pytest.mark.slow
def test_every_command_follows_from_the_one_before(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(CONFIG)

    def done(*arguments: str, module: str = "pile_tools.cli") -> str:
        result = cli(*arguments, module=module, cwd=tmp_path)
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
        return result.stdout

    def all_commands() -> list[str]:
        return [
            done("sample", "shards", "--megabytes", "0.5", "--canaries"),
            done("train-tokenizer", "shards", "-o", "tokenizer.json", "--vocab-size", "600"),
            done("tokenize", "shards", "-o", "tokens/sample", "--tokenizer", "tokenizer.json"),
            done("order", "tokens/sample", "--seq-length", "96", "--steps", "20", "--batch-size", "8"),
            done("train.toml", "--threads", "2", module="trainer.cli"),
            done(
                *("memorization", "run", "-o", "memorization", "--rows", "32"),
                *("--canaries", "shards/canaries.json"),
                module="studies.cli",
            ),
            done(
                *("report", "run", "--memorization", "memorization", "-o", "report.html"),
                module="studies.cli",
            ),
        ]

    all_commands()
    assert done("verify", "report.html", "--chain").splitlines()[-1].endswith("; nothing absent")
    _check_that_damage_is_found(tmp_path)
    log = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(20))
    assert log[-1]["loss"] < log[0]["loss"]
    steps = sorted(
        int(path.name.removeprefix("step")) for path in (tmp_path / "run" / "checkpoints").iterdir()
    )
    assert steps == [0, 1, 2, 4, 8, 16, 20]
    page = (tmp_path / "report.html").read_text()
    assert "Canaries" in page
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert all("nothing to do" in said for said in all_commands())
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def _check_that_damage_is_found(root: Path) -> None:
    """Flips a bit of every file of the chain, one at a time: from the report and the run, each is found."""
    for name in ("report.html", "run"):
        files = {check.path for check in verify.run(root / name, chain=True)}
        below = {path for path in files if path is not None}
        if name == "report.html":
            unread = {path for path in root.rglob("*") if path.is_file()} - below
            # The state to resume from is the trainer's own, and no part of what the run made.
            assert {path.name for path in unread if "resume" not in path.parts} <= {"train.toml", "lock"}
        for path in below:
            with path.open("r+b") as file:
                _flip(file, path.stat().st_size // 2)
                with pytest.raises(VerifyError):
                    verify.run(root / name, chain=True)
                _flip(file, path.stat().st_size // 2)


def _flip(file: IO[bytes], at: int) -> None:
    file.seek(at)
    (byte,) = file.read(1)
    file.seek(at)
    file.write(bytes([byte ^ 1]))
    file.flush()
