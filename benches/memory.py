"""Peak memory of `pile-tools tokenize`, Python included."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benches import peers, whole
from benches.markdown import table
from benches.measure import CACHE, Measured, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict

TITLE = "Peak memory"
TARGET_MIB = 250.0
CPUS = (1, 2)
POLL_SECONDS = 0.01


def command(threads: int, shards: list[str], tokenizer: str) -> Measured:
    """Measures the command in a child process."""
    program = str(Path(sys.executable).with_name("pile-tools"))
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        arguments = [*shards, "-o", f"{folder}/ours", "--tokenizer", tokenizer, "--threads", str(threads)]
        started = time.perf_counter()
        process = os.posix_spawn(program, [program, "tokenize", *arguments], os.environ)
        watched = _watch(process)
    return {**watched, "wall": time.perf_counter() - started}


def _watch(process: int) -> Measured:
    """Peak memory of a process, or of it and its descendants together at one moment if that is more."""
    peak_kib = 0
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"exit code {os.waitstatus_to_exitcode(status)}")
            cpu = usage.ru_utime + usage.ru_stime
            return {"cpu": cpu, "peak_mib": max(peak_kib, usage.ru_maxrss) / 1024}
        peak_kib = max(peak_kib, _tree_kib(process))
        time.sleep(POLL_SECONDS)


def _tree_kib(process: int) -> int:
    """Resident memory of a process and its descendants; 0 if it has ended."""
    folder = Path("/proc", str(process))
    try:
        status = (folder / "status").read_text()
        children = " ".join(path.read_text() for path in folder.glob("task/*/children")).split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    resident = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
    return int(resident) + sum(_tree_kib(int(child)) for child in children)


def measure(setting: Setting) -> Result:
    rounds = {}
    for cpus in CPUS:
        contenders = {peers.OURS: partial(in_process, command, cpus, threads=cpus, **setting.files)}
        if peers.PEERS["gigatoken"].is_installed:
            contenders["gigatoken"] = partial(
                in_process, whole.gigatoken, cpus, parallel=True, **setting.files
            )
        rounds[str(cpus)] = take_turns(contenders, setting.rounds)
    return {"rounds": rounds}


def section(result: Result) -> str:
    rows = []
    for cpus, contenders in result["rounds"].items():
        for name, rounds in contenders.items():
            peaks = values(rounds, "peak_mib")
            row = [cpus, name, failure(rounds) or f"{max(peaks):,.0f}"]
            rows.append([*row, f"{min(peaks):,.0f} to {max(peaks):,.0f}"] if peaks else row)
    return f"""Peak resident memory, interpreter included, of the command `pile-tools tokenize` and of a
process in which gigatoken reads the same shards, with as many threads as processors. The worst round counts.

{table(["CPUs", "tool", "peak MiB", "spread, MiB"], rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds = result["rounds"][str(max(CPUS))][peers.OURS]
    worst = max(values(rounds, "peak_mib"), default=float("inf"))
    return [
        Verdict(
            job=f"{TITLE}, {max(CPUS)} threads",
            target=f"at most {TARGET_MIB:.0f} MiB",
            found=f"{worst:,.0f} MiB",
            is_met=worst <= TARGET_MIB,
        )
    ]
