"""Signals that end a run: SIGTERM, SIGUSR1 and Ctrl-C, each with an exit code of its own.

While a run trains, the first of them is only noted: the step is finished and its state saved. Schedulers
send SIGTERM or SIGUSR1 some time before they kill. At other times, and for a second Ctrl-C, the process ends
at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

#: A shell's exit code for a process that a signal ended is this plus the signal's number.
_CODE_BASE = 128

#: torchrun passes Ctrl-C on to processes that the terminal has sent it to already.
_SAME_SIGNAL_SECONDS = 1.0


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Within it the system ends the process by a signal: a call that waits for minutes runs no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class StopRequest:
    """The signal that asked a run to stop, if one did.

    Attributes:
        number: The signal's number; 0 for none.
    """

    def __init__(self) -> None:
        self.number, self._time, self._is_noted = 0, 0.0, False

    def install(self) -> None:
        """Handles the signals from now on, in the main thread of the process."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within it, signals are noted: whoever trains looks at `number` after each step."""
        self._is_noted = True
        try:
            yield
        finally:
            self._is_noted = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._is_noted and not self.number:
            self.number, self._time = number, now
        elif not self._is_noted or (number == signal.SIGINT and now - self._time > _SAME_SIGNAL_SECONDS):
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(exit_code(number))


def exit_code(number: int) -> int:
    """The exit code of a run that a signal stopped: 143 for SIGTERM, 138 for SIGUSR1, 130 for Ctrl-C."""
    return _CODE_BASE + number
