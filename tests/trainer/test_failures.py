"""Failures of the machine, raised by the libraries themselves where that can be done here."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer import failures
from trainer.checkpoint import tensor_files
from trainer.failures import MachineError


def test_a_disk_error_of_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent/model.safetensors"
    with pytest.raises(FileNotFoundError) as info, failures.named(path):
        save_file({"a": torch.zeros(3)}, path)
    assert info.value.filename == str(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_while_a_state_is_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)
    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: full)
    with pytest.raises(OSError, match="No space") as info:
        tensor_files.write(tmp_path / "state", {"a": torch.zeros(300)})
    assert (info.value.errno, info.value.filename) == (errno.ENOSPC, str(tmp_path / "state"))


def test_too_little_memory_is_named() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (64 << 30, before[1]))
        with pytest.raises(MachineError, match="not enough memory"), failures.named():
            torch.empty(1 << 45, dtype=torch.float32)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(("limit", "n_processes"), [(16, 1), (64, 1), (100, 200)])
def test_too_few_open_files_are_named_before_the_processes_meet(limit: int, n_processes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failures.check_open_files(1)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        with pytest.raises(MachineError, match=f"allows {limit} open files"):
            failures.check_open_files(n_processes)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("err", "message"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (RuntimeError("[/x/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:1"), "was lost"),
        (RuntimeError("[/x/gloo/y.cc:9] Timed out waiting 1800000ms for recv"), "was lost: Timed out"),
        (RuntimeError("The server socket has failed to bind. EADDRINUSE"), "the port is taken"),
        (RuntimeError("Error building extension 'deepspeed_shm_comm'"), "could not compile"),
        (RuntimeError("Unable to JIT load the x op due to ninja not being installed."), "could not compile"),
    ],
)
def test_messages_of_libraries_are_named(err: Exception, message: str) -> None:
    with pytest.raises(MachineError, match=message), failures.named():
        raise err


def test_a_cause_on_the_disk_is_named() -> None:
    err = RuntimeError("unexpected pos 64 vs 0")
    err.__context__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    with pytest.raises(OSError, match="quota") as info, failures.named(Path("here")):
        raise err
    assert info.value.filename == "here"


@pytest.mark.parametrize("err", [RuntimeError("shapes differ"), KeyError("storage"), ValueError("gloom")])
def test_bugs_stay_bugs(err: Exception) -> None:
    assert failures.translated(err) is None
