from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.checkpoint import hf
from trainer.model.neox import GPTNeoX

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ModelOf = Callable[..., GPTNeoX]


def random_tokens(n: int = 3, t: int = 40, vocab_size: int = 96) -> Tensor:
    return torch.randint(0, vocab_size, (n, t), generator=torch.Generator().manual_seed(3))


def reference_logits(model: GPTNeoX, tokens: Tensor) -> Tensor:
    """The logits of transformers' model with the same weights, its plainest attention."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(**hf.model_config(model.shape, "float32", None))
    reference = transformers.GPTNeoXForCausalLM._from_config(config, attn_implementation="eager")
    renamed = {name.replace("embed_out", "lm_head"): w for name, w in model.state_dict().items()}
    reference.load_state_dict(renamed)
    logits: Tensor = reference.eval()(tokens).logits
    return logits


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parallel_residual": False},
        {"rotary_pct": 0.0, "hidden_act": "gelu_fast"},
        {"rotary_pct": 1.0, "rotary_base": 500.0, "layer_norm_eps": 1e-3, "hidden_act": "gelu_pytorch_tanh"},
    ],
)
@torch.no_grad()
def test_logits_are_those_of_transformers(model_of: ModelOf, changes: dict[str, Any]) -> None:
    model, tokens = model_of(**changes), random_tokens()
    ours, theirs = model(tokens), reference_logits(model, tokens)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cuts", [[40], [1] * 40, [5, 1, 20, 14]])
@torch.no_grad()
def test_a_cache_changes_no_logits(model_of: ModelOf, cuts: list[int]) -> None:
    model, tokens = model_of(), random_tokens()
    cache = model.new_cache(3, 40)
    parts = [model(part, cache) for part in tokens.split(cuts, dim=1)]
    assert cache.length == 40
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_later_tokens_change_no_earlier_logits(model_of: ModelOf) -> None:
    model, tokens = model_of(), random_tokens()
    other = tokens.clone()
    other[:, 20:] = 0
    torch.testing.assert_close(model(tokens)[:, :20], model(other)[:, :20])


@pytest.mark.parametrize(
    "changes",
    [
        # Sizes that divide nothing: vocabulary, width and head are no multiples of 8.
        {"vocab_size": 97, "hidden_size": 35, "n_heads": 5, "n_layers": 1, "rotary_pct": 0.9},
        {"vocab_size": 131, "hidden_size": 66, "n_heads": 3, "n_layers": 2, "rotary_pct": 0.19},
    ],
)
@pytest.mark.parametrize("t", [1, 2, 37])
@torch.no_grad()
def test_odd_shapes_have_the_logits_of_transformers(
    model_of: ModelOf, changes: dict[str, Any], t: int
) -> None:
    model, tokens = model_of(**changes), random_tokens(2, t)
    torch.testing.assert_close(model(tokens), reference_logits(model, tokens), atol=1e-4, rtol=0)


@torch.no_grad()
def test_weights_that_transformers_initialized_have_its_logits(model_of: ModelOf) -> None:
    transformers = pytest.importorskip("transformers")
    model, tokens = model_of(), random_tokens()
    config = transformers.GPTNeoXConfig(**hf.model_config(model.shape, "float32", None))
    theirs = transformers.GPTNeoXForCausalLM._from_config(config, attn_implementation="sdpa").eval()
    for parameter in theirs.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    renamed = {name.replace("lm_head", "embed_out"): w for name, w in theirs.state_dict().items()}
    model.load_state_dict(renamed)
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


def positions_of(lengths: list[list[int]]) -> Tensor:
    """The position of each token in its document, from the lengths of each row's documents."""
    return torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])


@pytest.mark.parametrize("rotary_pct", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_documents_of_a_row_are_as_in_passes_of_their_own(
    model_of: ModelOf, rotary_pct: float, dtype: torch.dtype
) -> None:
    model, tokens = model_of(rotary_pct=rotary_pct).to(dtype), random_tokens()
    lengths = [[40], [1, 7, 1, 31], [20, 20]]
    together = model(tokens, positions=positions_of(lengths), labels=tokens)
    losses = []
    for row, parts in zip(tokens, lengths, strict=True):
        texts = row[None].split(parts, dim=1)
        alone = [model(text, labels=text).rows * text.shape[1] for text in texts]
        losses.append(torch.cat(alone).sum() / 40)
    torch.testing.assert_close(together.rows, torch.stack(losses))
    # In the row of a single document, no token is hidden.
    torch.testing.assert_close(together.rows[0], model(tokens[:1], labels=tokens[:1]).rows[0])
    assert (together.rows - model(tokens, labels=tokens).rows)[1:].abs().min() > 1e-3


def test_gradients_within_documents_are_those_of_passes_of_their_own(model_of: ModelOf) -> None:
    model, tokens = model_of(), random_tokens(1)
    lengths = [3, 25, 12]
    labels = tokens.roll(-1)
    together = model(tokens, labels=labels, positions=positions_of([lengths])).mean
    parts = zip(tokens.split(lengths, dim=1), labels.split(lengths, dim=1), lengths, strict=True)
    alone = sum(model(text, labels=label).mean * n / 40 for text, label, n in parts)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(together, parameters)
    torch.testing.assert_close(ours, torch.autograd.grad(alone, parameters), atol=1e-5, rtol=1e-4)


def test_recomputed_blocks_have_the_same_losses_and_gradients_to_the_bit(model_of: ModelOf) -> None:
    model, tokens = model_of(), random_tokens()
    found = []
    for recomputes in (False, True):
        model.gpt_neox.recomputes_blocks = recomputes
        losses = model(tokens, labels=tokens, positions=positions_of([[40], [10, 30], [39, 1]]))
        found.append((losses.rows, *torch.autograd.grad(losses.mean, list(model.parameters()))))
    assert all(torch.equal(kept, again) for kept, again in zip(*found, strict=True))


def test_recomputed_blocks_keep_less_for_the_backward_pass(model_of: ModelOf) -> None:
    model, tokens = model_of(n_layers=6), random_tokens()
    n_bytes = []
    for recomputes in (False, True):
        model.gpt_neox.recomputes_blocks = recomputes
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = model.gpt_neox(tokens)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        n_bytes.append(sum(size for address, size in kept.items() if address not in weights))
        del hidden
    assert n_bytes[1] < n_bytes[0] / 5
