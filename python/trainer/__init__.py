"""Trains GPT-NeoX models under DeepSpeed, and reads their checkpoints.

>>> import trainer
>>> trainer.list_steps("demo/run")  # doctest: +SKIP
[0, 1, 2, 4, 8, 16, 32, 64, 100, 128, 200]
>>> model = trainer.load_checkpoint("demo/run", 200)  # doctest: +SKIP
>>> trainer.greedy(model, prompts, n_new=32)  # doctest: +SKIP

Torch is imported when one of these names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.checkpoint.load import checkpoint_folder, list_steps, load_checkpoint, load_model
    from trainer.generate import greedy
    from trainer.log import read_log
    from trainer.model.neox import GPTNeoX
    from trainer.row_losses import read_row_losses
    from trainer.shape import ModelShape

_MODULES = {
    "GPTNeoX": "trainer.model.neox",
    "ModelShape": "trainer.shape",
    "checkpoint_folder": "trainer.checkpoint.load",
    "greedy": "trainer.generate",
    "list_steps": "trainer.checkpoint.load",
    "load_checkpoint": "trainer.checkpoint.load",
    "load_model": "trainer.checkpoint.load",
    "read_log": "trainer.log",
    "read_row_losses": "trainer.row_losses",
}

__all__ = [
    "GPTNeoX",
    "ModelShape",
    "checkpoint_folder",
    "greedy",
    "list_steps",
    "load_checkpoint",
    "load_model",
    "read_log",
    "read_row_losses",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
