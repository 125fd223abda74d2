"""What the launcher, torchrun say, tells a process about itself; without one it is alone."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pile_tools.errors import ConfigError

#: Variables that a launcher sets together.
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

#: Of these, the ones that say that a launcher was at work.
_TELLING = ("RANK", "WORLD_SIZE", "LOCAL_RANK")

_MAX_PROCESSES = 1 << 20


def process_count(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's rank and the number of processes, from the launcher's variables; (0, 1) without.

    Raises:
        ConfigError: Variables are missing, are no numbers or contradict each other.
    """
    given = [name for name in _TELLING if name in environment]
    if not given:
        return 0, 1
    missing = [name for name in _LAUNCHER if name not in environment]
    if missing:
        raise ConfigError(f"{given[0]} is set but {missing[0]} is not; {_ADVICE}")
    size = _number(environment, "WORLD_SIZE", 1, _MAX_PROCESSES)
    rank = _number(environment, "RANK", 0, size - 1)
    _number(environment, "LOCAL_RANK", 0, rank)
    _number(environment, "MASTER_PORT", 1, 65535)
    if not environment["MASTER_ADDR"].strip():
        raise ConfigError(f"MASTER_ADDR is empty; {_ADVICE}")
    return rank, size


_ADVICE = "start all processes with torchrun, or unset the variables " + ", ".join(_LAUNCHER)


def _number(environment: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = environment[name].strip()
    # Longer numbers are out of range, and int() refuses the longest of them.
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    if value is None or not low <= value <= high:
        raise ConfigError(f"{name} is {text[:40]!r}, expected a number from {low} to {high}; {_ADVICE}")
    return value
