"""How weights start, as GPT-NeoX starts them.

`small_wang`: normal with std sqrt(2 / (5 h)) (Nguyen and Salazar 2019, arXiv:1910.05895), and 2 / (L sqrt(h))
for the two matrices of a block that write into the residual stream (Wang's GPT-J init). `normal_scaled`: std
0.02, and 0.02 / sqrt(2 L) for those two. Biases start at 0, layer norms at 1 and 0.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape

_RESIDUAL_WRITERS = ("attention.dense", "mlp.dense_4h_to_h")


def init_stds(shape: ModelShape) -> tuple[float, float]:
    """Initial standard deviations: of most matrices, and of matrices that write to the residual stream."""
    if shape.init == "small_wang":
        return math.sqrt(2 / (5 * shape.hidden_size)), 2 / (shape.n_layers * math.sqrt(shape.hidden_size))
    return 0.02, 0.02 / math.sqrt(2 * shape.n_layers)


@torch.no_grad()
def initialize(model: GPTNeoX, seed: int) -> None:
    """Fills a model's weights, a pure function of shape and seed (on one kind of device)."""
    std, writer_std = init_stds(model.shape)
    generator = torch.Generator(device=model.embed_out.weight.device).manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            chosen = writer_std if name.endswith(_RESIDUAL_WRITERS) else std
            module.weight.normal_(0.0, chosen, generator=generator)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
