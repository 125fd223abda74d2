"""Generation: continues prompts token by token, greedily or by sampling.

Prompts of different lengths are one batch without padding: all positions advance together, and a longer
prompt gives its own next token where a shorter one has ended and is continued. So every token is computed
from the tokens before it alone, at its own position, and keys and values are cached for all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pile_tools.errors import ConfigError
from trainer.model.neox import GPTNeoX

#: Chooses a token of each row: logits (n, v) and which rows continue (n,) bool -> (n,) int64.
_Choose = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: Divides the logits; 0 chooses the most likely token.
        top_k: Chooses among this number of the most likely tokens, those as likely as the last one included;
            0: among all.
        top_p: Chooses among the fewest tokens that have this probability together, those of equal
            probability with the last one included (Holtzman et al. 2020, arXiv:1904.09751).
        seed: Of the random numbers; each prompt has its own, which depend on its index alone.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be a number from 0, got {self.temperature}")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be >= 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}")


GREEDY = Sampling()


@torch.inference_mode()
def generate(
    model: GPTNeoX,
    prompts: Sequence[Sequence[int]],
    n_new: int,
    *,
    sampling: Sampling = GREEDY,
    ban: Collection[int] | range = (),
    stop: int | None = None,
    first: int = 0,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Up to `n_new` tokens after each prompt; prompts may have different lengths.

    Args:
        model: Its mode (`eval()`) is left as it is; there is no dropout.
        prompts: Token ids, at least one each.
        n_new: Tokens to add to each.
        sampling: How tokens are chosen.
        ban: Tokens that are never chosen, such as ids without a meaning.
        stop: A token that ends a continuation, as its last one.
        first: Index of the first prompt: batches of many prompts draw the numbers that one batch would.
        on_token: Called with the index of a prompt in `prompts` and each token chosen for it.

    Returns:
        The new tokens of each prompt.

    Raises:
        ConfigError: An empty prompt, an id outside the vocabulary, or a negative `n_new`.

    Cost: positions up to the longest prompt and `n_new` more, in a batch of all prompts.
    """
    if n_new < 0 or not all(prompts):
        raise ConfigError(f"prompts must have tokens and n_new be >= 0, got n_new {n_new}")
    if any(not 0 <= token < model.shape.vocab_size for prompt in prompts for token in prompt):
        raise ConfigError(f"a prompt has an id outside the vocabulary of {model.shape.vocab_size}")
    found: list[list[int]] = [[] for _ in prompts]
    if not prompts or n_new == 0:
        return found
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    choose = _chooser(sampling, len(prompts), first, list(ban))
    is_open = [True] * len(prompts)
    for position, tokens in _positions(model, padded, lengths, n_new, choose):
        for i, token in enumerate(tokens.tolist()):
            if is_open[i] and position >= len(prompts[i]):
                found[i].append(token)
                is_open[i] = len(found[i]) < n_new and token != stop
                if on_token is not None:
                    on_token(i, token)
        if not any(is_open):
            break
    return found


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
    device = model.embed_out.weight.device
    choose = _chooser(GREEDY, n, 0, [] if ban is None else [ban])
    chosen = [tokens for _, tokens in _positions(model, prompts, torch.full((n,), k), n_new, choose)]
    empty = torch.empty((n, 0), dtype=torch.int64, device=device)
    return torch.stack(chosen, dim=1) if chosen else empty


def _positions(
    model: GPTNeoX, prompts: Tensor, lengths: Tensor, n_new: int, choose: _Choose
) -> Iterator[tuple[int, Tensor]]:
    """The tokens of all rows at each position after the shortest prompt: positions and (n,) int64.

    Args:
        model: The model.
        prompts: (n, k) int64, whatever after the end of a shorter one.
        lengths: Tokens of each prompt: (n,) int64.
        n_new: Tokens after the longest prompt.
        choose: Chooses the tokens after the prompts.
    """
    device = model.embed_out.weight.device
    prompts, lengths = prompts.to(device=device, dtype=torch.int64), lengths.to(device)
    start, end = int(lengths.min()), int(lengths.max()) + n_new
    cache = model.new_cache(len(prompts), end)
    tokens = prompts[:, :start]
    for position in range(start, end):
        logits = model(tokens, cache)[:, -1]
        continues = lengths <= position
        chosen = choose(logits, continues)
        if position < prompts.shape[1]:
            chosen = torch.where(continues, chosen, prompts[:, position])
        yield position, chosen
        tokens = chosen[:, None]


def _chooser(sampling: Sampling, n: int, first: int, ban: list[int]) -> _Choose:
    """How `n` prompts choose their tokens; the first of them has the index `first`."""
    generators = [torch.Generator().manual_seed(_seed(sampling.seed, first + i)) for i in range(n)]
    banned = torch.tensor(ban, dtype=torch.int64)

    def choose(logits: Tensor, continues: Tensor) -> Tensor:
        if len(banned):
            logits = logits.index_fill(1, banned.to(logits.device), -torch.inf)
        if sampling.temperature == 0:
            return logits.argmax(dim=-1)
        # On the CPU, where the generators are: the same seed gives the same tokens on every device.
        probabilities = _probabilities(logits.cpu(), sampling)
        rows = [i for i, is_continued in enumerate(continues.tolist()) if is_continued]
        chosen = torch.zeros(len(logits), dtype=torch.int64)
        for i in rows:
            # The largest of p / Exp(1) is each token with its probability p.
            noise = torch.empty_like(probabilities[i]).exponential_(generator=generators[i])
            chosen[i] = (probabilities[i] / noise).argmax()
        return chosen.to(logits.device)

    return choose


def _seed(seed: int, index: int) -> int:
    """A seed of its own for each prompt, of 63 bits: it fits signed and unsigned 64-bit seeds alike."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]) >> 1


def _probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities of the tokens that may be chosen, in proportion; others have 0: (n, v) -> (n, v)."""
    # Differences to the largest logit, in float64: no temperature above 0 makes them overflow or undefined.
    logits = logits.double()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered = probabilities.sort(dim=-1, descending=True).values
        before = ordered.cumsum(dim=-1) - ordered
        least = ordered.masked_fill(before >= sampling.top_p, torch.inf).amin(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    return probabilities
