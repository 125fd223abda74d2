"""Starts a program. Its modules take a while to import, in which Ctrl-C is answered as it is later on."""

import importlib
import os
import sys
from typing import NoReturn

#: The exit codes of a failure of the machine, and of an interrupted program: 128 and the number of SIGINT, as
#: shells have it.
_FAILED, _INTERRUPTED = 1, 130

#: The permissions of a file's owner.
_OWNER = 0o700


def start(module: str) -> None:
    """Imports a module and calls its `main`, which ends the process."""
    _check_process()
    try:
        program = importlib.import_module(module)
    except KeyboardInterrupt:
        _end("interrupted before it began", _INTERRUPTED)
    program.main()


def _check_process() -> None:
    """Ends a process that cannot find files by relative paths, or cannot use the files that it makes."""
    try:
        os.getcwd()  # noqa: PTH109 - `pathlib` is imported later
    except OSError:
        # Torch would end the process with a message of its own.
        _end("the current folder was removed; change to another", _FAILED)
    mask = os.umask(0)
    os.umask(mask)
    # The superuser may use all files.
    if mask & _OWNER and os.geteuid():
        _end(f"the umask {mask:03o} denies you the files that you make; set another: umask 022", _FAILED)


def _end(message: str, code: int) -> NoReturn:
    if sys.stderr is not None:
        sys.stderr.write(f"error: {message}\n")
    sys.exit(code)
