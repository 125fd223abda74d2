"""Failures of the machine as torch, DeepSpeed and safetensors report them, named as what they are.

These libraries raise RuntimeError for a full disk, too little memory and a lost process alike. Their messages
are the only thing that tells them from a bug of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from pile_tools.errors import PileError


class MachineError(PileError):
    """The machine failed: memory, the network, or another process of the run."""


_OS_ERROR = re.compile(r"os error (\d+)")

_MEMORY = re.compile(
    r"can't allocate memory|out of memory|cannot allocate memory|std::bad_alloc|alloc_cpu|"
    r"Unable to allocate|CUDA_ERROR_OUT_OF_MEMORY|unable to mmap|failed to allocate",
    re.IGNORECASE,
)

_ADDRESS_IN_USE = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)

_PEER = re.compile(
    r"connection (closed|reset|refused|was likely closed|timed out)|broken pipe|/gloo/|\bnccl|"
    r"timed out (waiting|after)|wait timeout|heartbeat|hostname|no route to host|network is unreachable",
    re.IGNORECASE,
)

_COMPILER = re.compile(
    r"error (building extension|compiling objects)|ninja is required|ninja not being installed", re.IGNORECASE
)

#: Open files that a process needs beside one for each other process: with too few, torch waits without end.
#: Of two processes that have met, each has 11 open, of four 13. The others are for data and checkpoints.
_MIN_OPEN_FILES = 64

#: Torch's exceptions for a lost process or the network, by name: this module does not import torch.
_DISTRIBUTED_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")


@contextlib.contextmanager
def named(path: Path | None = None) -> Iterator[None]:
    """Raises failures of the machine under their own names.

    Args:
        path: What is being read or written, for the message.

    Raises:
        OSError: The disk failed; `filename` is `path`.
        MachineError: Memory, a lost process, the network, or the compiler.
    """
    try:
        yield
    except OSError as err:
        if err.filename is None and path is not None:
            err.filename = os.fspath(path)
        raise
    except Exception as err:
        failure = translated(err, path)
        if failure is None:
            raise
        raise failure from err


def check_open_files(n_processes: int) -> None:
    """Raises MachineError if the system lets this process open too few files and connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _MIN_OPEN_FILES + n_processes
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise MachineError(f"the system allows {limit} open files (ulimit -n), expected {needed} at least")


def translated(err: BaseException, path: Path | None = None) -> PileError | OSError | None:
    """The failure of the machine that caused an exception, or None if it has another cause."""
    if isinstance(err, PileError):
        return None
    for cause in _causes(err):
        if isinstance(cause, OSError) and cause.errno is not None:
            return _os_error(cause.errno, path or cause.filename)
    text, kind = str(err), type(err).__name__
    if (found := _OS_ERROR.search(text)) is not None:
        return _os_error(int(found[1]), path)
    if isinstance(err, MemoryError) or kind == "OutOfMemoryError" or _is(err, _MEMORY):
        advice = "a smaller micro_batch_size or model, or more processes, needs less"
        return MachineError(f"not enough memory: {_first_line(text) or kind}; {advice}")
    if _is(err, _ADDRESS_IN_USE):
        return MachineError(f"the port is taken: {_first_line(text)}; give torchrun another --master_port")
    if kind in _DISTRIBUTED_ERRORS or _is(err, _PEER):
        advice = "see its own message above, and run the same command again to continue"
        what = _first_line(text).split(". ")[0]
        return MachineError(f"another process of the run was lost: {what}; {advice}")
    if _is(err, _COMPILER):
        return MachineError(f"DeepSpeed could not compile its CPU communication: {_first_line(text)}")
    return None


def _is(err: BaseException, pattern: re.Pattern[str]) -> bool:
    # ImportError: the extension that was to be compiled cannot be loaded.
    return isinstance(err, (RuntimeError, ImportError)) and pattern.search(str(err)) is not None


def _causes(err: BaseException) -> Iterator[BaseException]:
    """An exception and its causes. Torch raises some errors while it handles others, without `from`."""
    found: BaseException | None = err
    while found is not None:
        yield found
        found = found.__cause__ or (found.__context__ if isinstance(found, RuntimeError) else None)


def _os_error(number: int, path: Path | str | bytes | None) -> OSError:
    number = number if number in errno.errorcode else errno.EIO
    return OSError(number, os.strerror(number), None if path is None else os.fsdecode(path))


def _first_line(text: str) -> str:
    """The first line, without the C++ source that torch puts before it."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    line = re.sub(r"^\[[^\]]*\.(cpp|cc|cu|h|hpp):\d+\]\s*", "", line)
    line = re.sub(r"^\[enforce fail at [^\]]*\]\s*(\. )?", "", line)
    return line[:200].rstrip(" .")
