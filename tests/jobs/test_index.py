"""Building an index: finished once, resumed, refused, replaced, verified; a disk that fills up."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pile_tools import ConfigError, FormatError, OutputExistsError, PileError, VerifyError, open_index
from pile_tools.errors import UnknownTokenizerError
from pile_tools.jobs import tokenize, verify
from pile_tools.jobs.index import IndexConfig, run
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards
from pile_tools.scratch_folders import MARKER

Run = Callable[..., Any]


@pytest.fixture
def prefix(shards: Path, tokenizer: Path, tmp_path: Path) -> Path:
    """The prefix of a dataset that no other test shares."""
    tokenize.run(find_shards([shards]), tmp_path / "sample", TokenizeConfig(tokenizer=tokenizer), threads=1)
    return tmp_path / "sample"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_finished_once_and_verified(prefix: Path) -> None:
    made, is_new = run(prefix, IndexConfig())
    assert is_new
    assert not prefix.with_name("sample.index.partial").exists()
    again, is_new = run(prefix, IndexConfig())
    assert not is_new
    assert again.request == made.request
    assert all(check.state == "ok" for check in verify.run(made.folder))
    (made.folder / "segment-00000").write_bytes(b"x")
    with pytest.raises(VerifyError, match="segment-00000"):
        verify.run(made.folder)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_segments_of_a_stopped_job_are_kept_if_they_are_as_they_were(prefix: Path, is_damaged: bool) -> None:
    config = IndexConfig(memory="20K")
    folder, partial = (prefix.with_name(f"sample.index{end}") for end in ("", ".partial"))
    run(prefix, config)
    whole = content(folder)
    assert len(whole) > 5
    shutil.rmtree(folder)

    partial.mkdir()
    (partial / MARKER).touch()
    segments = sorted(name for name in whole if name.startswith("segment-"))[:3]
    files = {}
    for name in segments:
        (partial / name).write_bytes(whole[name])
        files[name] = {"bytes": len(whole[name]), "sha256": hashlib.sha256(whole[name]).hexdigest()}
    header_bytes = int.from_bytes(whole["ranks"][8:16], "little")
    state = {"index": json.loads(whole["ranks"][16 : 16 + header_bytes])["index"]}
    saved = json.dumps({"files": files, "inputs": [], "has_stream": False, "state": state})
    sha256 = hashlib.sha256(saved.encode()).hexdigest()
    (partial / "state.json").write_text(f'{{"sha256": "{sha256}", "saved": {saved}}}')
    if is_damaged:
        (partial / segments[2]).write_bytes(whole[segments[2]][:-1] + b"?")
    numbers = {name: (partial / name).stat().st_ino for name in segments}
    run(prefix, config)
    assert content(folder) == whole
    kept = {name for name, number in numbers.items() if (folder / name).stat().st_ino == number}
    assert is_damaged or kept == set(segments)
    assert not partial.exists()


def test_other_settings_are_refused_without_force(prefix: Path) -> None:
    run(prefix, IndexConfig(memory="20K"))
    n_segments = open_index(prefix).core.n_segments
    with pytest.raises(OutputExistsError, match="memory_bytes"):
        run(prefix, IndexConfig())
    run(prefix, IndexConfig(), force=True)
    folder = prefix.with_name("sample.index")
    assert n_segments > 1
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "ranks", "segment-00000"]
    (folder / "manifest.json").unlink()
    with pytest.raises(OutputExistsError, match="not from pile-tools"):
        run(prefix, IndexConfig())


def test_bad_settings_and_inputs_are_told(prefix: Path, tmp_path: Path) -> None:
    for memory in ("much", "-1", "1", "3X"):
        with pytest.raises(ConfigError, match="memory"):
            IndexConfig(memory=memory)
    with pytest.raises(ConfigError, match="takes no tokenizer"):
        IndexConfig(texts=False, tokenizer=Path("tokenizer.json"))
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "none", IndexConfig())
    prefix.with_name("sample.manifest.json").unlink()
    with pytest.raises(UnknownTokenizerError, match="unknown or does not exist"):
        run(prefix, IndexConfig())
    prefix.with_name("sample.bin").rename(prefix.with_name("sample-00000-of-00001.bin"))
    with pytest.raises(FormatError, match="is missing"):
        run(prefix, IndexConfig(texts=False))


def test_too_little_disk_is_told_before(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(PileError, match="GB are free"):
        run(prefix, IndexConfig())
    assert not prefix.with_name("sample.index").exists()
    assert not prefix.with_name("sample.index.partial").exists()


def test_a_full_disk_is_a_clear_error_and_no_loss(prefix: Path) -> None:
    def index(max_file_bytes: int | None) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if max_file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

        program = "from pile_tools.cli import main; main()"
        command = [sys.executable, "-B", "-c", program, "index", str(prefix), "--memory", "200K"]
        return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)

    folder = prefix.with_name("sample.index")
    assert index(None).returncode == 0
    whole = content(folder)
    assert len(whole["ranks"]) < len(whole["segment-00000"])
    for limit in (len(whole["segment-00000"]) - 1, len(whole["ranks"]) - 1):
        shutil.rmtree(folder)
        full = index(limit)
        assert full.returncode == 1, full.stderr
        *_, last = full.stderr.splitlines()
        assert last.startswith("error: File too large")
        assert "raise the limit of the size of files (ulimit -f)" in last
        assert not (folder / "manifest.json").exists()
        assert index(None).returncode == 0
        assert content(folder) == whole


def test_command_line(prefix: Path, cli: Run) -> None:
    done = cli("index", prefix)
    assert done.returncode == 0, done.stderr
    assert "bytes a token" in done.stdout
    assert "of memory" in done.stderr
    assert "nothing to do" in cli("index", prefix).stdout
    prefix.with_name("sample.manifest.json").rename(prefix.with_name("away"))
    refused = cli("index", prefix, "--force")
    assert (refused.returncode, "--no-texts for an index of tokens" in refused.stderr) == (2, True)
    refused = cli("index", prefix, "--memory", "much")
    assert refused.returncode == 2
    assert "expected a size" in refused.stderr
