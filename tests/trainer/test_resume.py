"""Going on with a stopped run: what is damaged, foreign or in use is refused, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.trainer.same import contents

from pile_tools import files
from pile_tools.config import fingerprint
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from trainer.log import LOG_FILE
from trainer.row_losses import ROW_LOSSES_FILE

pytestmark = pytest.mark.slow

WriteConfig = Callable[..., Path]
Server = Any

REGULAR = ("checkpoint_every = 2", "steps = 6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_config: WriteConfig, order: Path) -> Path:
    """The working folder of all runs here; their output is `run`, relative to it."""
    folder = tmp_path_factory.mktemp("resume")
    validation = ("[validation]", f'order = "{order}"', "every = 2", "rows = 3")
    write_config(folder / "config.toml", Path("run"), *REGULAR, tables=validation)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, server: Server) -> dict[str, bytes]:
    """The files of two processes that nothing disturbed."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    for process in server.pair("config.toml", folders=(folder, folder)):
        result = server.wait(process)
        assert result.returncode == 0, result.stderr
    found = contents(folder / "run")
    shutil.rmtree(folder / "run")
    return found


@pytest.fixture(scope="module")
def half(folder: Path, server: Server, whole: dict[str, bytes]) -> Path:
    """The output of two processes that were killed after a save."""
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    server.kill_when(server.pair("config.toml", folders=(folder, folder)), output / "resume/step2")
    return output.rename(folder / "half")


def go_on(server: Server, folder: Path, change: Callable[[Path], object], half: Path) -> list[Any]:
    """What both processes say of a stopped run that was changed."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.copytree(half, folder / "run", symlinks=True)
    change(folder / "run")
    return [server.wait(process) for process in server.pair("config.toml", folders=(folder, folder))]


def test_two_killed_processes_go_on_to_the_same_bytes(
    server: Server, folder: Path, half: Path, whole: dict[str, bytes]
) -> None:
    results = go_on(server, folder, lambda output: None, half)
    assert [result.returncode for result in results] == [0, 0], results
    assert contents(folder / "run") == whole


def test_a_start_waits_for_the_end_of_every_process(
    server: Server, folder: Path, whole: dict[str, bytes]
) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    main, other = server.pair("config.toml", folders=(folder, folder))
    while not (folder / "run/resume/step2").exists():
        time.sleep(0.001)
    os.kill(other.pid, signal.SIGSTOP)
    os.kill(main.pid, signal.SIGKILL)
    server.wait(main)
    try:
        results = [server.wait(process) for process in server.pair("config.toml", folders=(folder, folder))]
        assert [result.returncode for result in results] == [1, 1], results
        assert "another process trains in this folder" in results[0].stderr
    finally:
        os.kill(other.pid, signal.SIGKILL)
        server.wait(other)
    results = [server.wait(process) for process in server.pair("config.toml", folders=(folder, folder))]
    assert [result.returncode for result in results] == [0, 0], results
    assert contents(folder / "run") == whole


def test_a_run_that_was_killed_before_its_last_removal_keeps_no_older_state(
    server: Server, folder: Path, half: Path, whole: dict[str, bytes]
) -> None:
    def finish_but_for_the_manifest(output: Path) -> None:
        processes = server.pair("config.toml", folders=(folder, folder))
        assert [server.wait(process).returncode for process in processes] == [0, 0]
        (output / "manifest.json").unlink()
        shutil.copytree(half / "resume/step2", output / "resume/step2")

    results = go_on(server, folder, finish_but_for_the_manifest, half)
    assert [result.returncode for result in results] == [0, 0], results
    assert contents(folder / "run") == whole


def newest(output: Path) -> Path:
    return max((output / "resume").glob("step*"), key=lambda path: int(path.name[4:]))


#: Files of a state that different processes write.
FIRST, SECOND = "state-00000.safetensors", "state-00001.safetensors"


def flip(path: Path, at: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 64
    path.write_bytes(data)


def flip_line(path: Path) -> None:
    path.write_text(re.sub('"loss": [0-9.]+', '"loss": 1.5', path.read_text()))


def with_code(output: Path) -> None:
    """A state whose checksums are right and with a file that is a pickle, which calls os.system."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch CODE-RAN",)

    state = newest(output)
    path = state / FIRST
    with path.open("wb") as file:
        torch.save({"module": Runs()}, file)
    manifest = json.loads((state / "manifest.json").read_text())
    manifest.pop("checksum", None)
    for entry in manifest["outputs"]:
        if entry["path"].endswith(path.name):
            entry |= {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
    (state / "manifest.json").write_text(json.dumps(manifest))


def with_other_weights(output: Path) -> None:
    """A state whose files are well formed, with right checksums, and whose weights are not the saved ones."""
    state = newest(output)
    manifest = json.loads((state / "manifest.json").read_text())
    manifest.pop("checksum", None)
    for entry in manifest["outputs"]:
        path = state / entry["path"]
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        values = np.frombuffer(data, dtype="<f4", offset=start)
        values[:] = np.random.default_rng(0).normal(size=len(values))
        path.write_bytes(data)
        entry["sha256"] = files.sha256(path)
    (state / "manifest.json").write_text(json.dumps(manifest))


def other_loss(output: Path) -> None:
    """A log that is well formed, with another loss in a step before the save."""
    path = output / LOG_FILE
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([re.sub('"loss": [0-9.]+', '"loss": 1.5', first), *others]))


def link_checkpoints(output: Path) -> None:
    victim = output.parent / "victim"
    shutil.rmtree(victim, ignore_errors=True)
    shutil.move(output / "checkpoints", victim)
    (victim / "step5").mkdir()
    (victim / "step5/thesis.txt").write_text("mine")
    (output / "checkpoints").symlink_to("../victim")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file of rank 0": (lambda o: flip(newest(o) / FIRST), f"damaged.*{FIRST}"),
    "a file of rank 1": (lambda o: flip(newest(o) / SECOND), f"damaged.*{SECOND}"),
    "header": (lambda o: flip(newest(o) / FIRST, 20), f"not the tensors of this model.*{FIRST}"),
    "cut": (lambda o: os.truncate(newest(o) / SECOND, 9), f"9 bytes.*{SECOND}"),
    "no file": (lambda o: (newest(o) / SECOND).unlink(), "missing of the training state"),
    "no manifest": (lambda o: (newest(o) / "manifest.json").unlink(), "no manifest of pile-train"),
    "another file": (lambda o: (newest(o) / "state-00099.safetensors").touch(), "state-00099"),
    "other weights": (with_other_weights, "other logits than the saved one"),
    "code": (with_code, f"bytes, expected .* of this model.*{FIRST}"),
    "a line of the log": (
        lambda o: (o / LOG_FILE).write_bytes((o / LOG_FILE).read_bytes().partition(b"\n")[2]),
        "expected",
    ),
    "a loss in the log": (other_loss, "not the lines that were logged.*train_log"),
    "losses of rows": (lambda o: flip(o / ROW_LOSSES_FILE, 0), "not the losses before the state.*row_losses"),
    "fewer losses of rows": (lambda o: os.truncate(o / ROW_LOSSES_FILE, 9), "9 bytes of losses, expected 32"),
    "a line of validation": (lambda o: flip_line(o / "validation_log.jsonl"), "validation_log"),
    "a checkpoint": (lambda o: shutil.rmtree(o / "checkpoints/step1"), "no checkpoint of step 1"),
    "a link": (link_checkpoints, "is a link|not a link"),
    "run.json": (lambda o: (o / "run.json").write_text("{}"), "run.json"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_one_line_and_nothing_else(
    server: Server, folder: Path, half: Path, change: Callable[[Path], object], message: str
) -> None:
    results = go_on(server, folder, change, half)
    assert [result.returncode for result in results] == [1, 1], results
    errors = "".join(result.stderr for result in results)
    assert errors.count("error: ") == 1, errors
    assert re.search(message, errors), errors
    assert not (folder / "CODE-RAN").exists()
    assert not (folder / "run/manifest.json").exists()
    if (folder / "run/checkpoints").is_symlink():
        assert (folder / "victim/step5/thesis.txt").read_text() == "mine"


def test_a_second_run_in_the_folder_is_refused(
    server: Server, folder: Path, half: Path, whole: dict[str, bytes]
) -> None:
    """Alone or as two processes, in every process, while the first goes on undisturbed."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    first = server.pair("config.toml", folders=(folder, folder))
    while not (folder / "run/checkpoints/step0").exists():
        time.sleep(0.001)
    for process in first:
        os.kill(process.pid, signal.SIGSTOP)
    others = [server.wait(process) for process in server.pair("config.toml", folders=(folder, folder))]
    others.append(server.wait(server.start("config.toml", folder=folder)))
    for process in first:
        os.kill(process.pid, signal.SIGCONT)
    assert [other.returncode for other in others] == [1, 1, 1]
    said = [other.stderr for other in others]
    assert said[1] == ""
    for text in (said[0], said[2]):
        assert text == (
            "error: another process trains in this folder; wait for it or stop it (run/run.json.partial)\n"
        )
    assert [server.wait(process).returncode for process in first] == [0, 0]
    assert contents(folder / "run") == whole


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of maps is Linux's")
def test_a_dataset_that_is_cut_short_under_way_ends_the_run(
    server: Server, tmp_path: Path, dataset: Path, tokenizer: Path
) -> None:
    """Its missing tokens read as zeros, which must get into no checkpoint."""
    for suffix in (".bin", ".idx"):
        shutil.copy(f"{dataset}{suffix}", tmp_path / f"d{suffix}")
    build_order(tmp_path / "d", tmp_path / "order", OrderConfig(seq_length=32, steps=60, batch_size=4))
    lines = ['order = "order"', 'output = "run"', f'tokenizer = "{tokenizer}"', "checkpoint_every = 60"]
    lines += ["[model]", "hidden_size = 32", "n_layers = 2", "n_heads = 4", "[optimizer]", "lr = 0.01"]
    (tmp_path / "config.toml").write_text("\n".join(lines))
    assert server.wait(server.start("config.toml", folder=tmp_path)).returncode == 0
    whole = contents(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    tokens = (tmp_path / "d.bin").read_bytes()
    started = server.start("config.toml", folder=tmp_path)
    while not (tmp_path / "run/checkpoints/step0").exists():
        time.sleep(0.001)
    os.kill(started.pid, signal.SIGSTOP)
    os.truncate(tmp_path / "d.bin", len(tokens) - 600)
    os.kill(started.pid, signal.SIGCONT)
    result = server.wait(started)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "error: became shorter while it was read; run the command again once it is whole (d.bin)"
    )
    assert not (tmp_path / "run/manifest.json").exists()
    (tmp_path / "d.bin").write_bytes(tokens)
    result = server.wait(server.start("config.toml", folder=tmp_path))
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "run") == whole


def test_nodes_without_a_shared_folder_are_refused(server: Server, folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.copy(folder / "config.toml", tmp_path)
    pair = server.pair("config.toml", folders=(folder, tmp_path))
    results = [server.wait(process) for process in pair]
    assert [result.returncode for result in results] == [1, 1]
    assert "process 1 does not see what process 0 writes in the output" in results[0].stderr
    assert results[1].stderr == ""
    assert not (folder / "run/run.json").exists()


def test_a_lost_process_is_named(server: Server, folder: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    first, second = server.pair("config.toml", folders=(folder, folder))
    while not (folder / "run/checkpoints/step0").exists():
        time.sleep(0.001)
    os.kill(second.pid, signal.SIGKILL)
    result = server.wait(first)
    assert result.returncode == 1
    assert "another process of the run was lost" in result.stderr.splitlines()[-1]
    server.wait(second)


def test_a_damaged_order_is_not_trained_on(
    server: Server, folder: Path, order: Path, write_config: WriteConfig, tmp_path: Path
) -> None:
    copied = tmp_path / "order"
    shutil.copytree(order, copied)
    record = (copied / "order.json").read_text()
    found = json.loads(record)
    for entry in found["inputs"]:
        entry["path"] = os.path.relpath(order / entry["path"], copied)
    (path,) = copied.glob("*shuffle_idx.npy")
    config = write_config(tmp_path / "config.toml", tmp_path / "run", *REGULAR)
    config.write_text(config.read_text().replace(str(order), str(copied)))
    array = np.load(path)
    array[len(array) // 10 :] = 0
    np.save(path, array)
    del found["checksum"]
    found["checksum"] = fingerprint(found)
    (copied / "order.json").write_text(json.dumps(found) + "\n")
    result = server.wait(server.start(config))
    assert result.returncode == 1
    assert "shuffle_idx.npy" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run/checkpoints").exists()


#: Kills of the program, sampled evenly over its calls; more of them by `make faults`.
N_KILLS = 30 if os.environ.get("PILE_TOOLS_FAULTS") == "complete" else 5


def test_a_kill_at_any_call_is_made_good_by_the_same_command(
    server: Server, write_config: WriteConfig, tmp_path: Path
) -> None:
    if not server.has_shim:
        pytest.skip("kills are injected by a preloaded library, which needs Linux and a C compiler")
    write_config(tmp_path / "config.toml", Path("run"), "checkpoint_every = 1", "steps = 2")
    output = tmp_path / "run"

    def run(kill_at: int) -> tuple[int, Any]:
        started = server.start("config.toml", folder=tmp_path, kill_below=output, kill_at=kill_at)
        return server.wait(started).returncode, started

    code, started = run(-1)
    assert code == 0
    undisturbed, n_calls = contents(output), started.n_calls
    assert n_calls > 100
    for kill_at in np.linspace(1, n_calls, N_KILLS).astype(int).tolist():
        shutil.rmtree(output)
        assert run(kill_at)[0] == -signal.SIGKILL
        code, started = run(-1)
        assert code == 0, (kill_at, started.err.read_text())
        assert contents(output) == undisturbed, kill_at


def test_a_full_disk_is_one_message_and_the_last_state_stays(
    server: Server, write_config: WriteConfig, tmp_path: Path
) -> None:
    if not server.has_shim:
        pytest.skip("errors are injected by a preloaded library, which needs Linux and a C compiler")
    write_config(tmp_path / "config.toml", Path("run"), "checkpoint_every = 1", "steps = 2")
    output = tmp_path / "run"

    def run(at: int) -> tuple[Any, Any]:
        started = server.start(
            "config.toml", folder=tmp_path, kill_below=output, kill_at=at, fault=errno.ENOSPC
        )
        return server.wait(started), started

    result, started = run(-1)
    assert result.returncode == 0
    undisturbed, n_calls = contents(output), started.n_calls
    for at in np.linspace(1, n_calls, N_KILLS).astype(int).tolist():
        shutil.rmtree(output)
        result, _ = run(at)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        # A removal that fails is made good later, without a word.
        assert (result.returncode, len(errors)) in ((1, 1), (0, 0)), (at, result.stderr)
        assert all("No space left on device" in line for line in errors), (at, errors)
        result, _ = run(-1)
        assert result.returncode == 0, (at, result.stderr)
        assert contents(output) == undisturbed, at


def test_a_full_disk_names_the_file(
    server: Server,
    write_config: WriteConfig,
    order: Path,
    small_disk: Callable[[Path, int], None],
    tmp_path: Path,
) -> None:
    validation = ("[validation]", f'order = "{order}"', "every = 2", "rows = 3")
    small, large = tmp_path / "small", tmp_path / "large"
    for folder in (small, large):
        (folder / "run").mkdir(parents=True)
        write_config(folder / "config.toml", Path("run"), *REGULAR, tables=validation)
    named = set()
    for n_kib in (8, 12, 16, 24, 500):
        small_disk(small / "run", n_kib)
        result = server.wait(server.start("config.toml", folder=small))
        assert result.returncode == 1, (n_kib, result.stderr)
        last = result.stderr.splitlines()[-1]
        found = re.fullmatch(r"error: No space left on device \((run/\S+)\); free some space .*", last)
        assert found is not None, (n_kib, last)
        named.add(Path(found[1]).name)
    # Both files that grow by each step, and those that are made whole.
    assert named >= {"validation_log.jsonl", "model.safetensors"}, named
    small_disk(small / "run", 10_000)
    for folder in (small, large):
        assert server.wait(server.start("config.toml", folder=folder)).returncode == 0
    assert contents(small / "run") == contents(large / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_kill_of_one_process_during_a_save_ends_both_and_is_made_good(
    server: Server, folder: Path, whole: dict[str, bytes], rank: int
) -> None:
    if not server.has_shim:
        pytest.skip("kills are injected by a preloaded library, which needs Linux and a C compiler")
    shutil.rmtree(folder / "run", ignore_errors=True)
    # The calls of a state's files: rank 1 makes no others.
    below = folder / "run/run.json.partial/state-"
    folders, kill_at = (folder, folder), (5, -1) if rank == 0 else (-1, 5)
    pair = server.pair("config.toml", folders=folders, kill_below=below, kill_at=kill_at)
    results = [server.wait(process) for process in pair]
    assert results[rank].returncode == -signal.SIGKILL, results
    assert results[1 - rank].returncode == 1, results
    assert "another process of the run was lost" in results[1 - rank].stderr.splitlines()[-1]
    results = [server.wait(process) for process in server.pair("config.toml", folders=folders)]
    assert [result.returncode for result in results] == [0, 0], results
    assert contents(folder / "run") == whole
