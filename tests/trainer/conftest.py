"""Fixtures: a small training order, config files, `pile-train` in a process of its own, small models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape

N_STEPS, BATCH_SIZE, SEQ_LENGTH = 40, 8, 32

Train = Callable[..., "subprocess.CompletedProcess[str]"]
WriteConfig = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="session")
def order(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """The folder of an order of 40 steps."""
    folder = tmp_path_factory.mktemp("order")
    build_order(dataset, folder, OrderConfig(seq_length=SEQ_LENGTH, steps=N_STEPS, batch_size=BATCH_SIZE))
    return folder


@pytest.fixture(scope="session")
def write_config(order: Path, tokenizer: Path) -> WriteConfig:
    """Writes the TOML file of a tiny run; `output` and other lines come from the test."""

    def write(
        path: Path, output: Path, *more: str, optimizer: str = "lr = 0.01", tables: tuple[str, ...] = ()
    ) -> Path:
        lines = [
            f'order = "{order}"',
            f'output = "{output}"',
            f'tokenizer = "{tokenizer}"',
            *more,
            "[model]",
            "hidden_size = 32",
            "n_layers = 2",
            "n_heads = 4",
            "[optimizer]",
            optimizer,
            *tables,
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of `pile-train`: torch is compiled to bytecode once, not by every process."""
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode")), "OMP_NUM_THREADS": "1"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **compiled}


@pytest.fixture(scope="session")
def train_command() -> Callable[..., list[str]]:
    """The command line of `pile-train CONFIG` on one thread."""

    def command(config: Path, *options: str) -> list[str]:
        return [sys.executable, "-m", "trainer.cli", str(config), "--threads", "1", *options]

    return command


class ForkServer:
    """`pile-train` in forks of one process that imported torch and DeepSpeed (see `fork_server.py`)."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._n_started = folder, 0
        self._codes: dict[int, int] = {}
        script = Path(__file__).with_name("fork_server.py")
        shim = _compiled_shim(folder)
        self.has_shim = shim is not None
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "LD_PRELOAD": str(shim)} if shim else environment,
        )
        self._receive("ready")

    def _receive(self, kind: str) -> int:
        """Reads answers up to one of this kind, and returns its value."""
        assert self._process.stdout is not None
        while True:
            answer = json.loads(self._process.stdout.readline())
            if "ended" in answer:
                self._codes[answer["ended"]] = answer["code"]
            if kind in answer:
                return int(answer[kind])

    def start(
        self,
        *arguments: str | Path,
        folder: Path | None = None,
        kill_below: Path | None = None,
        kill_at: int = -1,
        fault: int = 0,
        **environment: str,
    ) -> Started:
        """Starts `pile-train` with these arguments on one thread.

        It is killed before its `kill_at`-th call, from 1, that changes files in `kill_below`; or that call
        fails with the error number `fault`.
        """
        self._n_started += 1
        out, err = (self._folder / f"{self._n_started}.{name}" for name in ("out", "err"))
        request = {
            "arguments": [*map(str, arguments), "--threads", "1"],
            "environment": environment,
            "folder": None if folder is None else str(folder),
            "stdout": str(out),
            "stderr": str(err),
            "kill_below": str(kill_below or ""),
            "kill_at": kill_at,
            "fault": fault,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Started(self._receive("started"), out, err)

    def wait(self, started: Started) -> subprocess.CompletedProcess[str]:
        """Waits for the end of a process and returns what it wrote."""
        while started.pid not in self._codes:
            self._receive("ended")
        out, err = started.out.read_text(), started.err.read_text()
        return subprocess.CompletedProcess([], self._codes[started.pid], out, err)

    def pair(
        self,
        *arguments: str | Path,
        size: int = 2,
        folders: tuple[Path | None, ...] = (None,) * 4,
        kill_below: Path | None = None,
        kill_at: tuple[int, ...] = (-1,) * 4,
    ) -> list[Started]:
        """Starts two processes that train together, or up to four; each is killed as by `start`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            self.start(
                *arguments,
                folder=folders[rank],
                kill_below=kill_below,
                kill_at=kill_at[rank],
                **meeting,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
            for rank in range(size)
        ]

    def kill_when(self, started: list[Any], folder: Path) -> None:
        """Kills processes as soon as a folder is there."""
        while not folder.exists() and all(Path(f"/proc/{process.pid}").exists() for process in started):
            time.sleep(0.001)
        for process in started:
            os.kill(process.pid, signal.SIGKILL)
            self.wait(process)
        assert folder.exists()

    def close(self) -> None:
        """Ends the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass(frozen=True)
class Started:
    """A process of the server, and the files that hold its output and errors."""

    pid: int
    out: Path
    err: Path

    @property
    def n_calls(self) -> int:
        """Its calls that changed files, of one that was not killed."""
        return int(self.out.with_suffix(".calls").read_text())


def _compiled_shim(folder: Path) -> Path | None:
    """The library that counts and kills, where it can be made."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    source, made = Path(__file__).parents[1] / "faults/shim.c", folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-w", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ForkServer]:
    """Starts `pile-train` quickly."""
    found = ForkServer(tmp_path_factory.mktemp("server"), environment)
    yield found
    found.close()


@pytest.fixture(scope="session")
def train(server: ForkServer, train_command: Callable[..., list[str]], environment: dict[str, str]) -> Train:
    """Runs `pile-train CONFIG` to its end, under another module of Python's if one is given."""

    def run(config: Path, *options: str, launcher: tuple[str, ...] = ()) -> Any:
        if not launcher:
            return server.wait(server.start(config, *options))
        python, *program = train_command(config, *options)
        command = [python, "-m", *launcher, *program]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, env=environment
        )

    return run


ShapeOf = Callable[..., ModelShape]
ModelOf = Callable[..., GPTNeoX]


@pytest.fixture(scope="session")
def shape_of() -> ShapeOf:
    """A small shape, with changes."""

    def make(**changes: Any) -> ModelShape:
        values: dict[str, Any] = {"vocab_size": 96, "hidden_size": 48, "n_layers": 3, "n_heads": 4}
        values |= {"max_positions": 64, "rotary_pct": 0.5}
        return ModelShape(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def model_of(shape_of: ShapeOf) -> ModelOf:
    """A small model whose every weight is random, biases and layer norms included."""

    def make(seed: int = 0, **changes: Any) -> GPTNeoX:
        model = GPTNeoX(shape_of(**changes))
        initialize(model, seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += (0.1 if parameter.ndim == 1 else 0.2) * noise
        return model.eval()

    return make
