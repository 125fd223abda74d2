"""Quantization equals a brute-force search, in chunks too, and gradients pass straight through."""

from __future__ import annotations

import pytest
import torch

from vqgan_clip import quantize as module
from vqgan_clip.quantize import nearest, quantize, replace_grad, squared_norms


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equals_brute_force() -> None:
    latents, codebook = normal(2, 8, 5, 7), normal(50, 8, seed=1)
    quantized, codes = quantize(latents, codebook)
    for image in range(2):
        for row in range(5):
            for column in range(7):
                distances = (codebook.double() - latents[image, :, row, column].double()).square().sum(dim=1)
                assert codes[image, row, column] == distances.argmin()
                assert torch.equal(quantized[image, :, row, column], codebook[distances.argmin()])


@pytest.mark.parametrize("limit", [1, 50, 51, 249, 10**6])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    vectors, codebook = normal(70, 8), normal(50, 8, seed=1)
    expected = torch.cdist(vectors, codebook).argmin(dim=1)
    monkeypatch.setattr(module, "_MAX_DISTANCES", limit)
    assert torch.equal(nearest(vectors, codebook), expected)
    assert torch.equal(nearest(vectors, codebook, squared_norms(codebook)), expected)


def test_entries_are_fixed_points() -> None:
    codebook = normal(16384, 32, seed=2)
    codes = torch.randperm(16384, generator=torch.Generator().manual_seed(3))[:256]
    entries = codebook[codes].T.reshape(1, 32, 16, 16)
    quantized, found = quantize(entries, codebook)
    assert torch.equal(found.flatten(), codes)
    assert torch.equal(quantized, entries)


def test_the_first_of_equal_entries_is_taken() -> None:
    codebook = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert nearest(torch.tensor([[0.0, 0.9]]), codebook).tolist() == [1]


def test_gradients_pass_straight_through() -> None:
    latents, codebook = normal(1, 4, 3, 3).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    quantized, codes = quantize(latents, codebook)
    gradient = normal(1, 4, 3, 3, seed=4)
    quantized.backward(gradient)
    assert torch.equal(latents.grad, gradient)
    assert codebook.grad is None
    assert not codes.requires_grad


def test_replace_grad_returns_the_values_exactly() -> None:
    # `source + (values - source)` would lose the small value.
    values, source = torch.tensor([1e-8]), torch.tensor([1e8], requires_grad=True)
    assert replace_grad(values, source).item() == values.item()


def test_replace_grad_sums_over_a_broadcast_source() -> None:
    source = torch.zeros(1, 3, requires_grad=True)
    replace_grad(torch.ones(5, 3), source).sum().backward()
    assert source.grad.tolist() == [[5.0, 5.0, 5.0]]


def test_a_model_trains_through_the_quantizer() -> None:
    # Latents reach the entry that the loss asks for, though the gradient of argmin is zero.
    codebook = torch.tensor([[-1.0], [0.0], [1.0]])
    latents = torch.full((1, 1, 1, 1), -0.9, requires_grad=True)
    optimizer = torch.optim.SGD([latents], lr=0.1)
    for _ in range(20):
        quantized, codes = quantize(latents, codebook)
        optimizer.zero_grad()
        (quantized - 1).square().sum().backward()
        optimizer.step()
    assert codes.item() == 2
