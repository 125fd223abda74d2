"""Vector quantization: latents become entries of the codebook, and gradients pass straight through.

Neural Discrete Representation Learning (van den Oord et al. 2017, arXiv:1711.00937), without the commitment
loss: guidance moves latents, never the codebook.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Most distances computed at once: 64 MiB in float32, a 512 x 512 image with factor 16 and 16,384 entries.
_MAX_DISTANCES = 16 << 20


class _ReplaceGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, source: Tensor) -> Tensor:
        ctx.shape = source.shape
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0].sum_to_size(ctx.shape)


def replace_grad(values: Tensor, source: Tensor) -> Tensor:
    """`values`, whose gradient goes to `source` unchanged.

    Unlike `source + (values - source).detach()`, the result equals `values` exactly. Shapes broadcast as in
    `values + source`, where the result has the shape of `values`.
    """
    replaced: Tensor = _ReplaceGrad.apply(values, source)
    return replaced


def squared_norms(codebook: Tensor) -> Tensor:
    """Squared lengths of the codebook's entries: (n_embed, d) -> (n_embed,)."""
    return codebook.detach().square().sum(dim=1)


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor, norms: Tensor | None = None) -> Tensor:
    """The index of the nearest entry to each vector; the first of equally near ones.

    Args:
        vectors: (n, d).
        codebook: (n_embed, d).
        norms: `squared_norms(codebook)`, which callers that keep the codebook compute once.

    Shapes: -> (n,) int64.
    """
    norms = squared_norms(codebook) if norms is None else norms
    n_rows = max(1, _MAX_DISTANCES // len(codebook))
    # |v - e|^2 without |v|^2, which is the same for all entries.
    return torch.cat(
        [
            torch.addmm(norms, chunk, codebook.mT, alpha=-2).argmin(dim=1)
            for chunk in torch.split(vectors, n_rows)
        ]
    )


def quantize(latents: Tensor, codebook: Tensor, norms: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest codebook entries of latents, and their codes.

    Gradients of the result go to `latents` unchanged (straight-through), none to the codebook.

    Args:
        latents: (n, d, h, w).
        codebook: (n_embed, d).
        norms: `squared_norms(codebook)`, which callers that keep the codebook compute once.

    Shapes: -> (n, d, h, w) and (n, h, w) int64.
    Cost: O(n * h * w * n_embed * d) in one matrix product per chunk of at most 64 MiB.
    """
    n, d, height, width = latents.shape
    vectors = latents.detach().permute(0, 2, 3, 1).reshape(-1, d)
    codes = nearest(vectors, codebook, norms)
    entries = codebook.detach()[codes].view(n, height, width, d).permute(0, 3, 1, 2)
    return replace_grad(entries.contiguous(), latents), codes.view(n, height, width)
