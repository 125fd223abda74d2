"""Runs `pile-train` in forks of one process that has imported torch and DeepSpeed: that takes longest.

Reads requests as JSON lines from standard input: arguments, environment, working folder, and the file for
standard output and error. Answers each with the child's number, and again when that child has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn


def child(request: dict[str, Any]) -> NoReturn:
    code = 70
    try:
        os.setpgid(0, 0)
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(request["environment"])
        if request["folder"]:
            os.chdir(request["folder"])
        arm(request["kill_below"], request["kill_at"], request["fault"])
        sys.argv = ["pile-train", *request["arguments"]]
        from pile_tools import cli
        from trainer.cli import group

        # As `main` does, but the process ends below, after its calls were counted.
        code = cli.run(group)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if request["kill_below"]:
            n_calls = shim().shim_count()
            arm("", -1)
            Path(request["stdout"]).with_suffix(".calls").write_text(str(n_calls))
        os._exit(code)


def shim() -> Any:
    """The preloaded library of `tests/faults`, which counts calls that change files."""
    found = ctypes.CDLL(os.environ["LD_PRELOAD"])
    found.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    found.shim_count.restype = ctypes.c_long
    return found


def arm(folder: str, at: int, fault: int = 0) -> None:
    """Kills this process before its n-th call that changes files in a folder, from 1; never at -1.

    With an error number, the call fails instead.
    """
    if "LD_PRELOAD" in os.environ:
        shim().shim_arm(folder.encode(), at, fault)


def answer(values: dict[str, Any]) -> None:
    """One line at once: threads answer at the same time."""
    os.write(1, (json.dumps(values) + "\n").encode())


def reap(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    answer({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def main() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401

    logging.disable(logging.NOTSET)
    import trainer.loop  # noqa: F401

    answer({"ready": True})
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        answer({"started": pid})
        threading.Thread(target=reap, args=(pid,), daemon=True).start()


if __name__ == "__main__":
    main()
