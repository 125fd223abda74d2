"""Guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _ClampWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.low, ctx.high = low, high
        ctx.save_for_backward(values)
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        (grad,) = grads
        # A descent step moves against the gradient: it is cut only where it would leave the range further.
        is_outward = grad * (values - values.clamp(ctx.low, ctx.high)) < 0
        return grad.masked_fill(is_outward, 0), None, None


def clamp_with_grad(values: Tensor, low: float, high: float) -> Tensor:
    """`values.clamp(low, high)`, whose gradient is passed where it leads back into the range."""
    clamped: Tensor = _ClampWithGrad.apply(values, low, high)
    return clamped


def spherical_distance(first: Tensor, second: Tensor) -> Tensor:
    """Half the squared angle between vectors: 2 * asin(|a - b| / 2)^2 of the normalized vectors.

    Shapes: (..., d), (..., d) -> (...), broadcast.
    """
    difference = functional.normalize(first, dim=-1) - functional.normalize(second, dim=-1)
    half: Tensor = difference.norm(dim=-1).div(2)
    return half.asin().square().mul(2)
