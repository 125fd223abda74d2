"""Greedy generation: the most likely token, again and again."""

from __future__ import annotations

import torch
from torch import Tensor

from pile_tools.errors import ConfigError
from trainer.model.neox import GPTNeoX


@torch.inference_mode()
def greedy(model: GPTNeoX, prompts: Tensor, n_new: int, *, ban: int | None = None) -> Tensor:
    """The `n_new` most likely tokens after each prompt, chosen one at a time.

    Args:
        model: Its mode (`eval()`) is left as it is; there is no dropout.
        prompts: Equally long, at least one token; moved to the model's device.
        n_new: Tokens to add to each.
        ban: A token that is never chosen, the end-of-document token say.

    Shapes: (n, k) int64 -> (n, n_new) int64 on the model's device.
    Raises: ConfigError for empty prompts or a negative `n_new`.
    Cost: n * (k + n_new) positions; keys and values are cached. Of equal logits the lowest token wins.
    """
    if prompts.ndim != 2 or prompts.shape[1] < 1 or n_new < 0:
        raise ConfigError(
            f"prompts must be (n, k >= 1) and n_new >= 0, got {tuple(prompts.shape)} and {n_new}"
        )
    n, k = prompts.shape
    tokens = prompts.to(device=model.embed_out.weight.device, dtype=torch.int64)
    generated = tokens.new_empty((n, n_new))
    cache = model.new_cache(n, k + n_new)
    for i in range(n_new):
        logits = model(tokens, cache)[:, -1]
        if ban is not None:
            logits[:, ban] = -torch.inf
        tokens = logits.argmax(dim=-1, keepdim=True)
        generated[:, i : i + 1] = tokens
    return generated
