"""Measures functions in separate processes, each pinned to the processors that a job may use.

Each measurement starts a new process, so caches are cold, and extra threads have no processors to run on.
Contenders take turns (A B A B ...), so that a slow minute of the machine affects all of them. The best round
counts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "bench"

#: A contender that took longer is measured once: noise is small relative to such times.
LONG_SECONDS = 30.0
TIMEOUT_SECONDS = 900.0

#: The output of a measuring process. `failed` is an error message and has no other key beside it.
Measured = dict[str, Any]


class Stopwatch:
    """Measures wall seconds and peak memory of a block, and CPU seconds including finished children."""

    wall = cpu = peak_mib = 0.0

    def __enter__(self) -> Self:
        self.wall, self.cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = _cpu_seconds() - self.cpu
        self.peak_mib = _peak_kib() / 1024

    def measured(self, **more: Any) -> Measured:
        return {"wall": self.wall, "cpu": self.cpu, "peak_mib": self.peak_mib, **more}


def _peak_kib() -> int:
    """Peak memory of this process. `ru_maxrss` would include that of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def in_process(
    function: Callable[..., Measured], n_cpus: int, timeout: float = TIMEOUT_SECONDS, **arguments: Any
) -> Measured:
    """The result of `function`, of a module of this package, in a new process with `n_cpus` processors."""
    task = json.dumps([function.__module__, function.__name__, n_cpus, arguments], default=str)
    command = [sys.executable, "-m", "benches.measure", task]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {timeout:.0f} s"}
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    said = done.stderr.strip().splitlines() or ["nothing said"]
    return {"failed": f"{said[-1][:120]} (exit code {done.returncode})"}


def take_turns(contenders: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """The rounds of all contenders, interleaved."""
    results: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            if number and ("failed" in results[name][0] or results[name][0]["wall"] > LONG_SECONDS):
                continue
            results[name].append(contender())
            print(f"  round {number + 1}, {name}: {_brief(results[name][-1])}", flush=True)
    return results


def _brief(measured: Measured) -> str:
    return measured.get("failed") or f"{measured['wall']:.3f} s, {measured['cpu']:.3f} s of CPU"


def failure(rounds: list[Measured]) -> str | None:
    return next((measured["failed"] for measured in rounds if "failed" in measured), None)


def values(rounds: list[Measured], key: str) -> list[float]:
    return [measured[key] for measured in rounds if key in measured]


def best(rounds: list[Measured], key: str) -> float:
    return min(values(rounds, key), default=float("nan"))


def main() -> None:
    module, function, n_cpus, arguments = json.loads(sys.argv[1])
    # Set before other imports, which may count processors. The first processor serves most interrupts, so the
    # last ones are used.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-n_cpus:])
    print(json.dumps(getattr(import_module(module), function)(**arguments)))


if __name__ == "__main__":
    main()
