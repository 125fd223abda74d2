"""Blocks compiled by `torch.compile`."""

from __future__ import annotations

import torch

from pile_tools.errors import PileError
from trainer.model.neox import GPTNeoX


def compile_blocks(model: GPTNeoX, device: torch.device) -> None:
    """Makes `torch.compile` compile the blocks of a model in training at their first use.

    All of them run the same code on the same shapes, so the first one is compiled for all. Embedding and
    output layer are not compiled: nothing is between their matrices that could be fused.

    Raises:
        PileError: The compiler does not work on this machine.
    """
    _check_compiler(device)
    for layer in model.gpt_neox.layers:
        layer.compile()


def _check_compiler(device: torch.device) -> None:
    """Compiles a function of one line: its error is short, that of a model has a hundred lines."""
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
