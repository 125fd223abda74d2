"""Runs command lines in forked processes, each killed or failed at one of its system calls.

Started under the preloaded shim with everything imported, so that a run costs a fork and not a start of
Python: the modules of the data tools, or with the word `networks` torch and those that use it too, of which
a fork takes longer. Reads a JSON object a line: `argv`, `folder` (the working folder, whose changes are
counted), `at` and `fault`, `printed` (the file for what the run prints). Answers with `code` (a signal is
negative) and `calls`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

from pile_tools import cli
from trainer import cli as trainer_cli
from vqgan_clip import cli as vqgan_clip_cli

#: The commands of another group begin with its name; all others are those of pile-tools.
GROUPS = {"pile-train": trainer_cli.group, "vqgan-clip": vqgan_clip_cli.group}

#: Packages whose modules commands import when they run, and what these import inside functions. Torch takes
#: seconds; its optimizers import `torch._dynamo`, for another second, at their first step.
DATA = {"pile_tools": ("numpy.ma", "pyarrow.parquet", "pyarrow.compute", "zstandard")}
NETWORKS = {
    "trainer": ("torch._dynamo",),
    "vqgan_clip": ("PIL.JpegImagePlugin", "PIL.ImageFont"),
}


def run(request: dict[str, object], counts: Path) -> None:
    """The forked process: never returns."""
    folder = str(request["folder"])
    os.chdir(folder)
    output = os.open(str(request["printed"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    argv: list[str] = list(request["argv"])  # type: ignore[call-overload]
    group = GROUPS.get(argv[0])
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    shim.shim_count.restype = ctypes.c_long
    shim.shim_arm(folder.encode(), request["at"], request["fault"])
    code = 99
    try:
        code = cli.run(cli.group, argv) if group is None else cli.run(group, argv[1:])
        sys.stdout.flush()
    finally:
        n_calls = shim.shim_count()
        shim.shim_arm(b"", -1, 0)
        counts.write_text(str(n_calls))
        os._exit(code)


def main() -> None:
    """Serves until standard input ends."""
    counts, has_networks = Path(sys.argv[1]), sys.argv[2:] == ["networks"]
    for group in (cli.group, *GROUPS.values()):
        for name in group.list_commands(None):  # type: ignore[arg-type]
            group.get_command(None, name)  # type: ignore[arg-type]
    for package, others in (DATA | (NETWORKS if has_networks else {})).items():
        modules = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        for module in [found.name for found in modules] + list(others):
            if not module.endswith("__main__"):
                importlib.import_module(module)
    # The collector of a fork would copy the pages of all these modules.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        counts.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            run(request, counts)
        _, status = os.waitpid(process, 0)
        calls = int(counts.read_text()) if counts.exists() else None
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "calls": calls}), flush=True)


main()
