"""The values of the logs for TensorBoard, in `OUTPUT/tensorboard/`: a view of them, and no part of the run.

Nothing reads these files again, no manifest lists them, and none is removed. The package `tensorboard` is
needed only for runs that ask for them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pile_tools.errors import ConfigError
from trainer.checkpoint.folders import refuse_link

TENSORBOARD_FOLDER = "tensorboard"


def require() -> None:
    """Raises ConfigError if the package is not installed; it is not imported."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard = true needs the package tensorboard, which is not installed; "
            "install it with `pip install tensorboard`, or leave the key out"
        )


class Board:
    """Writes scalars for TensorBoard.

    Args:
        output: The run's folder.
        first_step: The step from which this process continues: what was written of later ones is hidden.
    """

    def __init__(self, output: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = output / TENSORBOARD_FOLDER
        refuse_link(folder)
        self._writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def add(self, step: int, values: Mapping[str, float], *, group: str) -> None:
        """Adds the values of a step as `group/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def flush(self) -> None:
        """Writes what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Ends writing."""
        self._writer.close()
