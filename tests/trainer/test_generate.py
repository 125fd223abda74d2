from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pile_tools.errors import ConfigError
from trainer.generate import greedy
from trainer.model.neox import GPTNeoX

ModelOf = Callable[..., GPTNeoX]


@torch.no_grad()
def naive(model: GPTNeoX, prompts: Tensor, n_new: int, ban: int | None) -> Tensor:
    """Greedy generation that runs the whole sequence for every token."""
    tokens = prompts
    for _ in range(n_new):
        logits = model(tokens)[:, -1].clone()
        if ban is not None:
            logits[:, ban] = -torch.inf
        tokens = torch.cat((tokens, logits.argmax(-1, keepdim=True)), dim=1)
    return tokens[:, prompts.shape[1] :]


@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.parametrize("is_banned", [False, True])
def test_it_is_the_naive_one(model_of: ModelOf, k: int, is_banned: bool) -> None:
    model = model_of()
    prompts = torch.randint(0, 96, (5, k), generator=torch.Generator().manual_seed(k))
    ban = int(naive(model, prompts, 1, None)[0, 0]) if is_banned else None
    found = greedy(model, prompts, 20, ban=ban)
    assert found.dtype == torch.int64
    assert torch.equal(found, naive(model, prompts, 20, ban))
    assert ban is None or not (found == ban).any()


def test_no_new_tokens_are_none(model_of: ModelOf) -> None:
    assert greedy(model_of(), torch.zeros(2, 3, dtype=torch.int64), 0).shape == (2, 0)


def test_empty_prompts_are_refused(model_of: ModelOf) -> None:
    with pytest.raises(ConfigError, match="prompts must be"):
        greedy(model_of(), torch.zeros(2, 0, dtype=torch.int64), 3)
