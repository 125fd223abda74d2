"""Starts a program. Its modules take a while to import, in which Ctrl-C is answered as it is later on."""

import importlib
import sys

#: The exit code of an interrupted program: 128 and the number of SIGINT, as shells have it.
_INTERRUPTED = 130


def start(module: str) -> None:
    """Imports a module and calls its `main`, which ends the process."""
    try:
        program = importlib.import_module(module)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("error: interrupted before it began\n")
        sys.exit(_INTERRUPTED)
    program.main()
