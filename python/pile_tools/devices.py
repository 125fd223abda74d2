"""Checks the name of a device of torch before a model is put there. This package does without torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from pile_tools.errors import ConfigError, first_line


def check_device(device: str, zeros: Callable[..., Any]) -> None:
    """Raises ConfigError for a device that this machine or this torch does not have.

    Args:
        device: Such as `cpu` or `cuda:1`.
        zeros: `torch.zeros`.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of names that it no longer takes, and of missing drivers: the error says it.
            warnings.simplefilter("ignore")
            # The device `meta` holds no values.
            zeros((), device=device).item()
    except (RuntimeError, AssertionError, ImportError) as err:
        # torch imports a module for the devices of other packages.
        raise ConfigError(f"no device {device!r} here: {first_line(err)}") from err
