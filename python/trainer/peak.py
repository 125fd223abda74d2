"""How many floating-point operations a second this machine can do, measured by a matrix product."""

from __future__ import annotations

import time

import torch

from trainer.ranks import Processes

#: Rows and columns of the matrices: large enough for the full speed, on a CPU small enough for milliseconds.
_N_CPU, _N_CUDA = 512, 8192
_SECONDS, _MAX_PRODUCTS = 0.2, 10

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measured_peak(ranks: Processes, precision: str) -> float:
    """Operations a second of all processes together, by the fastest of some products in one of them.

    On a CPU it is that of the threads that torch uses. A machine that is busy with other work measures less.
    """
    is_cpu = ranks.device.type == "cpu"
    n = _N_CPU if is_cpu else _N_CUDA
    a, b = (torch.ones(n, n, dtype=_DTYPES[precision], device=ranks.device) for _ in range(2))
    fastest, ends = float("inf"), time.monotonic() + _SECONDS
    for number in range(_MAX_PRODUCTS + 1):
        started = time.perf_counter()
        a @ b
        if not is_cpu:
            torch.cuda.synchronize()
        # The first product includes the library's set-up.
        if number:
            fastest = min(fastest, time.perf_counter() - started)
        if number and time.monotonic() > ends:
            break
    return 2.0 * n**3 / fastest * ranks.size
