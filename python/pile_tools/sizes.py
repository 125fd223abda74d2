"""Parses sizes such as `512MiB`."""

from __future__ import annotations

import re

from pile_tools.errors import ConfigError


def parse_size(given: str, name: str = "memory") -> int:
    """The bytes of a size such as `512MiB`, `2GB` or `2G` (2GB). Raises ConfigError, naming the setting."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", given.strip(), re.ASCII | re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"{name} {given!r}: expected a size such as 512MiB or 2GB")
    if len(match[1]) > 18:
        raise ConfigError(f"{name} {given[:40]!r}: larger than any machine's memory")
    base = 1024 if match[3] else 1000
    n_bytes = int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))
    return max(1, min(n_bytes, 2**63 - 1))
