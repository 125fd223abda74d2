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
