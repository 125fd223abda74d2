from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trainer.model.init import init_stds, initialize
from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape

ShapeOf = Callable[..., ModelShape]


def test_stds_are_gpt_neoxs(shape_of: ShapeOf) -> None:
    small = shape_of(hidden_size=64, n_layers=6)
    assert init_stds(small) == pytest.approx(((2 / 320) ** 0.5, 2 / 6 / 8))
    assert init_stds(shape_of(init="normal_scaled", n_layers=8)) == pytest.approx((0.02, 0.005))


@pytest.mark.parametrize("init", ["small_wang", "normal_scaled"])
def test_matrices_have_those_stds(shape_of: ShapeOf, init: str) -> None:
    shape = shape_of(hidden_size=128, vocab_size=512, init=init)
    model = GPTNeoX(shape)
    initialize(model, 1)
    std, writer_std = init_stds(shape)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif weight.ndim == 1:
            assert bool((weight == 1).all()), name
        else:
            is_writer = name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
            expected = writer_std if is_writer else std
            assert weight.std().item() == pytest.approx(expected, rel=0.03), name
            assert abs(weight.mean().item()) < 0.05 * expected, name


def test_the_seed_decides(shape_of: ShapeOf) -> None:
    models = [GPTNeoX(shape_of()) for _ in range(3)]
    for model, seed in zip(models, (7, 7, 8), strict=True):
        initialize(model, seed)
    weights = [model.gpt_neox.layers[2].mlp.dense_4h_to_h.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
