"""A disk that fills up: one clear error, what was there stays, and a second run completes the job."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SUFFIXES = (".bin", ".idx", ".provenance", ".manifest.json")


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
        [sys.executable, "-B", "-c", program, *arguments],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_full_disk_is_a_clear_error_and_no_loss(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    whole = tokenize(shards, tmp_path / "whole", tokenizer, None)
    assert whole.returncode == 0, whole.stderr
    n_bytes = (tmp_path / "whole.bin").stat().st_size
    full = tokenize(shards, tmp_path / "out" / "d", tokenizer, n_bytes // 2)
    assert full.returncode == 1, full.stderr
    assert full.stderr.startswith("error: File too large")
    assert "raise the limit of the size of files (ulimit -f) and run the same command again" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d.partial"]
    again = tokenize(shards, tmp_path / "out" / "d", tokenizer, None)
    assert again.returncode == 0, again.stderr
    assert "resumed after" in again.stdout
    assert (tmp_path / "out" / "d.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()


@pytest.mark.parametrize(
    ("n_words", "fails_at"),
    [
        (30, "d.bin"),
        (1, "byte_start"),
        (1, "d.idx"),
        (0, "state.json"),
        (0, "d.manifest.json"),
    ],
)
def test_every_file_may_be_the_one_that_does_not_fit(
    tokenizer: Path, tmp_path: Path, n_words: int, fails_at: str
) -> None:
    """The limit is one byte short of the file in question, and no file that is written before is larger."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in range(2):
        records = [{"text": "a " * n_words or "a"} for _ in range(2000 if n_words else 1)]
        (shards / f"{shard}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "whole").mkdir()
    whole = tokenize(shards, tmp_path / "whole" / "d", tokenizer, None)
    assert whole.returncode == 0, whole.stderr
    final = sizes(tmp_path / "whole")
    n_documents = (final["d.idx"] - 42) // 20
    limit = {
        "byte_start": 8 * n_documents - 1,
        "state.json": 100,
    }.get(fails_at, final.get(fails_at, 0) - 1)
    out = tmp_path / "out"
    full = tokenize(shards, out / "d", tokenizer, limit)
    assert full.returncode == 1, full.stderr
    assert full.stderr.startswith("error: File too large (")
    assert f"/{fails_at}" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert not (out / "d.idx").exists(), "half a dataset can be opened"
    again = tokenize(shards, out / "d", tokenizer, None)
    assert again.returncode == 0, again.stderr
    for suffix in SUFFIXES:
        found, expected = (folder / f"d{suffix}" for folder in (out, tmp_path / "whole"))
        assert found.read_bytes() == expected.read_bytes(), suffix
    assert sorted(sizes(out)) == sorted(final)
