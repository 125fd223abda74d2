"""The loss of a language model from its last hidden states, without the logits of all tokens in memory.

The logits of a chunk of tokens are computed, turned into gradients in the same buffer and overwritten by the
next chunk's. Gradients are made in the forward pass, so that no logits are computed twice: three matrix
products in all, as many as without chunks (Liger Kernel, arXiv:2410.10989, has the same scheme).

Letters in shapes: n rows, t tokens of a row, h hidden, v vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Tokens of a chunk. Measured on one core of an AMD EPYC with 32 MiB of level-3 cache, 50,304 logits a token,
#: in CPU seconds: at width 128, 32 tokens take 1.27 times as long as 256, and 1,024 tokens 1.13 times; at
#: width 512, 1.30 and 0.97 times. More tokens need more memory: 256 take 49 MiB.
CPU_CHUNK = 256
#: Large enough to fill a GPU, at 50,304 logits a token 393 MiB. Not measured.
CUDA_CHUNK = 2048


class Losses(NamedTuple):
    """Losses of a batch, in nats.

    Attributes:
        mean: The mean over all tokens, (). Gradients flow through it alone.
        rows: The mean over the tokens of each row, (n,). Both are float32, or float64 for a model in float64.
    """

    mean: Tensor
    rows: Tensor


def chunked_losses(hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int | None = None) -> Losses:
    """Cross-entropy of the tokens after each, computed in float32.

    Args:
        hidden: (n, t, h).
        weight: The output layer's matrix, (v, h), of the same type.
        labels: (n, t) int64.
        chunk: Tokens whose logits are in memory at once. Default: `CPU_CHUNK` or `CUDA_CHUNK`.
    """
    chunk = chunk or (CUDA_CHUNK if hidden.is_cuda else CPU_CHUNK)
    needs_gradients = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if needs_gradients:
        mean, rows = _Losses.apply(hidden, weight, labels, chunk)
        return Losses(mean, rows)
    per_token, *_ = _losses_and_gradients(hidden.detach(), weight.detach(), labels, chunk, False, False)
    return _summed_up(per_token)


def loss_of_rows(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of each row: (n, t, h), (v, h), (n, t) int64 -> (n,) float32. No gradients flow."""
    with torch.no_grad():
        return chunked_losses(hidden, weight, labels).rows


def _summed_up(per_token: Tensor) -> Losses:
    rows = per_token.mean(dim=1)
    return Losses(rows.mean(), rows)


class _Losses(torch.autograd.Function):
    """Both losses, and the gradients of the mean."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        per_token, *gradients = _losses_and_gradients(hidden, weight, labels, chunk, of_hidden, of_weight)
        ctx.gradients, ctx.dtype, ctx.n_tokens = gradients, hidden.dtype, labels.numel()
        found = _summed_up(per_token)
        ctx.mark_non_differentiable(found.rows)
        return found.mean, found.rows

    @staticmethod
    def backward(ctx: Any, *of_losses: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        scale = of_losses[0] / ctx.n_tokens
        # Cast only after the scaling, which includes that of fp16's losses: small gradients would be zeros.
        # In place, as that of the matrix is as large as the matrix: a second backward pass would scale twice.
        gradients, ctx.gradients = ctx.gradients, None
        of_hidden, of_weight = (
            None if found is None else found.mul_(scale).to(ctx.dtype) for found in gradients
        )
        return of_hidden, of_weight, None, None


def _losses_and_gradients(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int, with_hidden: bool, with_weight: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Each token's loss, (n, t), and the gradients of their sum by `hidden` and `weight`, in float32."""
    flat, targets = hidden.flatten(0, 1), labels.flatten()
    exact = torch.promote_types(hidden.dtype, torch.float32)
    losses = flat.new_empty(len(flat), dtype=exact)
    of_hidden = torch.empty_like(flat, dtype=exact) if with_hidden else None
    # Sums of many chunks in bf16 would lose small gradients.
    of_weight = torch.zeros_like(weight, dtype=exact) if with_weight else None
    buffer = flat.new_empty(min(chunk, len(flat)), len(weight))
    for start in range(0, len(flat), chunk):
        part = slice(start, start + chunk)
        states, target = flat[part], targets[part, None]
        logits = torch.mm(states, weight.T, out=buffer[: len(states)]).to(exact)
        at_target, highest = logits.gather(1, target), logits.amax(dim=1, keepdim=True)
        sums = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
        losses[part] = (sums.log() + highest - at_target)[:, 0]
        if of_hidden is None and of_weight is None:
            continue
        logits.div_(sums).scatter_add_(1, target, -torch.ones_like(sums))
        gradient = logits.to(flat.dtype)
        if of_hidden is not None:
            _set_product(of_hidden[part], gradient, weight)
        if of_weight is not None:
            _add_product(of_weight, gradient.T, states)
    found = None if of_hidden is None else of_hidden.view_as(hidden)
    return losses.view_as(labels), found, of_weight


def _set_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Writes a matrix product to `out`, which may have a more exact type."""
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left.mm(right))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds a matrix product to `total`, which may have a more exact type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left.mm(right)
