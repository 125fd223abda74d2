"""Blocks compiled by `torch.compile`."""

from __future__ import annotations

import torch

from pile_tools.errors import PileError
from trainer.model.neox import GPTNeoX


def compile_blocks(model: GPTNeoX, device: torch.device) -> None:
    """Lets `torch.compile` compile a model's blocks at their first use, once for all of them.

    Embedding and output layer are left: nothing is between their matrices that could be fused.

    Raises:
        PileError: The compiler does not work on this machine.
    """
    _check_compiler(device)
    for layer in model.gpt_neox.layers:
        layer.compile()


def _check_compiler(device: torch.device) -> None:
    """Compiles a sum: of a missing compiler, a model in training would say so in a hundred lines."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as err:
        reason = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)
        what = "a C compiler and triton" if device.type == "cuda" else "a C++ compiler"
        raise PileError(
            f"torch.compile does not work here: {reason[:200]}; install {what}, or set compile = false"
        ) from err


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).sin()
