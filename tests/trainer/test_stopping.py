"""Runs that are stopped by signals, skip steps, and keep states."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.trainer.same import contents

from pile_tools import manifest
from pile_tools.errors import ConfigError
from trainer.log import LOG_FILE, read_log
from trainer.retention import Retention
from trainer.signals import StopRequest

WriteConfig = Callable[..., Path]
Server = Any

COMMON = ("checkpoint_every = 15", "steps = 30")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_config: WriteConfig) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    write_config(folder / "config.toml", Path("run"), *COMMON)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, server: Server) -> dict[str, bytes]:
    """The files of a run that nothing disturbed."""
    result = server.wait(server.start("config.toml", folder=folder))
    assert result.returncode == 0, result.stderr
    found = contents(folder / "run")
    shutil.rmtree(folder / "run")
    return found


def stop(server: Server, process: Any, output: Path, number: int) -> Any:
    """Sends a signal after some steps, and waits."""
    log = output / LOG_FILE
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        assert Path(f"/proc/{process.pid}").exists()
        time.sleep(0.001)
    os.kill(process.pid, number)
    return server.wait(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)]
)
def test_a_signal_saves_after_the_step_and_has_its_own_exit_code(
    server: Server, folder: Path, whole: dict[str, bytes], number: signal.Signals, code: int
) -> None:
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    result = stop(server, server.start("config.toml", folder=folder), output, number)
    assert result.returncode == code, result.stderr
    n_steps = len(read_log(output / LOG_FILE))
    assert f"stopped by {number.name} after step {n_steps}" in result.stderr.splitlines()[-1]
    assert [path.name for path in (output / "resume").glob("step*")] == [f"step{n_steps}"]
    assert not (output / "run.json.partial").exists()
    result = server.wait(server.start("config.toml", folder=folder))
    assert result.returncode == 0, result.stderr
    assert f"going on after step {n_steps}" in result.stderr
    assert contents(output) == whole


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "config.toml", tmp_path)
    first, second = server.pair("config.toml", folders=(tmp_path, tmp_path))
    results = [stop(server, second, tmp_path / "run", signal.SIGTERM), server.wait(first)]
    assert [result.returncode for result in results] == [143, 143], results
    n_steps = len(read_log(tmp_path / "run" / LOG_FILE))
    assert (tmp_path / f"run/resume/step{n_steps}/manifest.json").is_file()


def test_only_a_later_second_ctrl_c_ends_at_once() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        request = StopRequest()
        request.install()
        with pytest.raises(SystemExit) as info:
            signal.raise_signal(signal.SIGUSR1)
        assert info.value.code == 138
        with request.noted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert request.number == signal.SIGINT
            time.sleep(1.1)
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_a_step_skipped_by_name_changes_no_weight(
    server: Server, write_config: WriteConfig, tmp_path: Path
) -> None:
    lines = ("checkpoint_every = 2", "steps = 4")
    config = write_config(tmp_path / "c.toml", tmp_path / "run", *lines, "skip_steps = [1, 3]")
    result = server.wait(server.start(config))
    assert result.returncode == 0, result.stderr
    assert "skipped 2 steps" in result.stdout
    weights = [load_file(tmp_path / f"run/checkpoints/step{step}/model.safetensors") for step in (1, 2, 4)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert not all(weights[1][name].equal(weights[2][name]) for name in weights[0])
    found = manifest.read(tmp_path / "run/manifest.json").summary
    assert found["skipped"] == [1, 3]
    state = manifest.read(tmp_path / "run/resume/step4/manifest.json").summary
    assert state["adam_updates"] == 2
    assert read_log(tmp_path / "run" / LOG_FILE)[1].get("skipped") == "by name"
    config = write_config(tmp_path / "c.toml", tmp_path / "run", *lines, "skip_steps = [1, 2]")
    for _ in range(2):
        result = server.wait(server.start(config))
        assert result.returncode == 2
        assert "skip_steps names step 2, which was trained on before the newest state" in result.stderr
        # Of a run that is not finished, too.
        (tmp_path / "run/manifest.json").unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "kept"), [("last", [6]), ("all", [2, 4, 6]), ("every:3", [3, 6])], ids=["last", "all", "every"]
)
def test_states_are_kept_as_asked(
    server: Server, write_config: WriteConfig, tmp_path: Path, which: str, kept: list[int]
) -> None:
    output = tmp_path / "run"
    config = write_config(tmp_path / "c.toml", output, "checkpoint_every = 2", "steps = 6")
    assert server.wait(server.start(config, "--keep-states", which)).returncode == 0
    assert sorted(int(path.name[4:]) for path in (output / "resume").iterdir()) == kept
    outputs = [entry["path"] for entry in manifest.read(output / "manifest.json").outputs]
    states = [f"resume/step{step}/manifest.json" for step in kept]
    assert [path for path in outputs if path.startswith("resume")] == states


@pytest.mark.parametrize(
    "text", ["", "first", "every", "every:", "every:1", "every:-2", "every:2.5", "all:2"]
)
def test_other_words_for_kept_states_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected last, all, or every:N"):
        Retention.parse(text)


@pytest.mark.slow
def test_a_bad_batch_leaves_weights_and_moments_under_every_stage(environment: dict[str, str]) -> None:
    script = Path(__file__).with_name("bad_batch.py")
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "7 engines"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits_for_the_others(
    server: Server, write_config: WriteConfig, tmp_path: Path, number: signal.Signals
) -> None:
    write_config(tmp_path / "config.toml", Path("run"), *COMMON)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = server.start("config.toml", folder=tmp_path, RANK="0", LOCAL_RANK="0", **meeting)
    # It waits once it listens.
    while True:
        assert Path(f"/proc/{process.pid}").exists(), server.wait(process)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(process.pid, number)
    started = time.monotonic()
    assert server.wait(process).returncode == -number
    # The others are waited for ten minutes.
    assert time.monotonic() - started < 300
