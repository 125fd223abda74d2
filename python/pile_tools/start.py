"""Starts a program. Ctrl-C during its slow imports, or their failure, ends it with one line, no traceback."""

import importlib
import os
import sys

#: The exit codes of a failure, and of an interrupted program: 128 and the number of SIGINT, as in shells.
_FAILED, _INTERRUPTED = 1, 130

#: The mode bits of a file's owner.
_OWNER = 0o700


def start(module: str) -> None:
    """Imports a module and calls its `main`, which ends the process."""
    _check_process()
    try:
        program = importlib.import_module(module)
    except KeyboardInterrupt:
        sys.exit(_failed("interrupted during its start", _INTERRUPTED))
    except (ImportError, MemoryError, OSError) as err:
        # A package is missing, or a limit of memory or open files is too low.
        sys.exit(_failed(f"the program cannot be loaded: {err}", _FAILED))
    program.main()


def _check_process() -> None:
    """Ends a process that cannot find files by relative paths, or cannot use the files that it makes."""
    try:
        os.getcwd()  # noqa: PTH109 - imports come later
    except OSError:
        # Relative paths would fail later, and torch would end the process with a message of its own.
        sys.exit(_failed("the current folder was removed; change to another", _FAILED))
    # The core and manifests name files in UTF-8.
    if sys.getfilesystemencoding().lower() != "utf-8":
        message = f"names of files are read as {sys.getfilesystemencoding()}, not UTF-8; set PYTHONUTF8=1"
        sys.exit(_failed(message, _FAILED))
    mask = os.umask(0)
    os.umask(mask)
    # Permissions do not hold for root.
    if mask & _OWNER and os.geteuid():
        message = f"the umask {mask:03o} denies you access to the files that you create; first run: umask 022"
        sys.exit(_failed(message, _FAILED))


def _failed(message: str, code: int) -> int:
    """Writes the message and returns the exit code."""
    if sys.stderr is not None:
        sys.stderr.write(f"error: {message}\n")
    return code
