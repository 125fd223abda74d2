from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.model.loss import chunked_losses, loss_of_rows
from trainer.model.neox import GPTNeoX

ModelOf = Callable[..., GPTNeoX]

N, T, H, V = 3, 7, 6, 11


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(N, T, H, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, V, (N, T), generator=generator)


def plain_rows(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Each row's mean, with the logits of all tokens in float32."""
    logits = functional.linear(hidden, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view_as(labels).mean(dim=1)


#: One token, sizes that divide the tokens and others, all of them, more than all.
CHUNKS = [1, 4, 7, 20, 21, 50]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_losses_and_gradients_are_the_plain_ones(chunk: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, labels = inputs(dtype)
    found = chunked_losses(hidden, weight, labels, chunk)
    rows = plain_rows(hidden, weight, labels)
    assert found.rows.dtype == rows.dtype
    torch.testing.assert_close(found.rows, rows.detach(), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.mean, rows.mean(), atol=tolerance, rtol=tolerance)
    # A factor, as accumulation and loss scaling have one.
    ours = torch.autograd.grad(3 * found.mean, (hidden, weight))
    theirs = torch.autograd.grad(3 * rows.mean(), (hidden, weight))
    for gradient, expected in zip(ours, theirs, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_gradients_are_those_of_differences(chunk: int) -> None:
    hidden, weight, labels = inputs(torch.float64)

    def mean(hidden: Tensor, weight: Tensor) -> Tensor:
        return chunked_losses(hidden, weight, labels, chunk).mean

    def difference(parameter: Tensor, step: Tensor) -> float:
        with torch.no_grad():
            parameter += step
            beyond = mean(hidden, weight)
            parameter -= 2 * step
            before = mean(hidden, weight)
            parameter += step
        return (beyond - before).item()

    for parameter in (hidden, weight):
        (gradient,) = torch.autograd.grad(mean(hidden, weight), parameter)
        for index in range(parameter.numel()):
            step = torch.zeros_like(parameter)
            step.flatten()[index] = 1e-6
            expected = difference(parameter, step) / 2e-6
            assert gradient.flatten()[index].item() == pytest.approx(expected, abs=1e-8)


def test_one_of_both_may_need_no_gradient() -> None:
    hidden, weight, labels = inputs()
    expected = torch.autograd.grad(plain_rows(hidden, weight, labels).mean(), (hidden, weight))
    of_hidden = torch.autograd.grad(chunked_losses(hidden, weight.detach(), labels, 4).mean, hidden)[0]
    of_weight = torch.autograd.grad(chunked_losses(hidden.detach(), weight, labels, 4).mean, weight)[0]
    torch.testing.assert_close((of_hidden, of_weight), expected)


def test_rows_have_no_gradient_and_equal_those_in_training() -> None:
    hidden, weight, labels = inputs()
    rows = loss_of_rows(hidden, weight, labels)
    assert not rows.requires_grad
    trained = chunked_losses(hidden, weight, labels)
    assert not trained.rows.requires_grad
    assert torch.equal(rows, trained.rows)


def test_improbable_tokens_have_finite_losses() -> None:
    """Their probability is 0 in float32; the loss is not."""
    hidden, weight = torch.tensor([[[1.0]]]), torch.tensor([[500.0], [-500.0]])
    assert loss_of_rows(hidden, weight, torch.tensor([[1]])).tolist() == [1000.0]
    assert loss_of_rows(hidden, weight, torch.tensor([[0]])).tolist() == [0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    hidden, weight, labels = inputs()
    hidden.data[1, 2, 3] = value
    found = chunked_losses(hidden, weight, labels, 4)
    assert torch.isfinite(found.rows).tolist() == [True, False, True]
    assert not torch.isfinite(found.mean)


def test_a_models_losses_are_those_of_its_logits(model_of: ModelOf) -> None:
    model = model_of()
    tokens = torch.randint(0, 96, (3, 41), generator=torch.Generator().manual_seed(3))
    logits = model(tokens[:, :-1])
    each = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    plain = each.view(3, 40).mean(dim=1)
    found = model(tokens[:, :-1], labels=tokens[:, 1:])
    torch.testing.assert_close(found.rows, plain.detach())
    parameters = list(model.parameters())
    ours = torch.autograd.grad(found.mean, parameters)
    torch.testing.assert_close(ours, torch.autograd.grad(plain.mean(), parameters), atol=1e-5, rtol=1e-4)
