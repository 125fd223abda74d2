"""A disk that fills up: one clear error, what was there stays, and a second run completes the job."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path


def tokenize(
    shards: Path, prefix: Path, tokenizer: Path, max_file_bytes: int | None
) -> subprocess.CompletedProcess[str]:
    """The command in a process that can write files of so many bytes at most."""

    def limit() -> None:
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    program = "from pile_tools.cli import main; main()"
    arguments = ["tokenize", str(shards), "-o", str(prefix), "--tokenizer", str(tokenizer), "--threads", "1"]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_is_a_clear_error_and_no_loss(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    whole = tokenize(shards, tmp_path / "whole", tokenizer, None)
    assert whole.returncode == 0, whole.stderr
    n_bytes = (tmp_path / "whole.bin").stat().st_size
    full = tokenize(shards, tmp_path / "out" / "d", tokenizer, n_bytes // 2)
    assert full.returncode == 1, full.stderr
    assert full.stderr.startswith("error: File too large")
    assert len(full.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d.partial"]
    again = tokenize(shards, tmp_path / "out" / "d", tokenizer, None)
    assert again.returncode == 0, again.stderr
    assert "went on after" in again.stdout
    assert (tmp_path / "out" / "d.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
