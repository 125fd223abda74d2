from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pile_tools.errors import ConfigError
from trainer.generate import Sampling, generate, greedy
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


PROMPTS = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8], [1, 2, 3], [40] * 12, [9, 8]]
SAMPLINGS = {
    "greedy": Sampling(),
    "hot": Sampling(temperature=1.5, seed=3),
    "top-k": Sampling(temperature=1.0, top_k=5, seed=1),
    "top-p": Sampling(temperature=0.7, top_p=0.9, seed=2),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_prompts_of_different_lengths_are_continued_as_one_by_one(model_of: ModelOf, name: str) -> None:
    model, sampling = model_of(), SAMPLINGS[name]
    together = generate(model, PROMPTS, 15, sampling=sampling)
    alone = [generate(model, [prompt], 15, sampling=sampling, first=i)[0] for i, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert {len(tokens) for tokens in together} == {15}
    # The seed of a prompt depends on its index.
    assert (together[2] == together[5]) == (name == "greedy")


def test_greedy_generation_is_the_greedy_of_the_library(model_of: ModelOf) -> None:
    model = model_of()
    prompts = torch.randint(0, 96, (4, 6), generator=torch.Generator().manual_seed(0))
    assert generate(model, prompts.tolist(), 9) == greedy(model, prompts, 9).tolist()
    cold = Sampling(temperature=1e-320)
    assert generate(model, prompts.tolist(), 9, sampling=cold) == greedy(model, prompts, 9).tolist()
    assert generate(model, prompts.tolist(), 9, sampling=Sampling(temperature=3.0, top_k=1)) == (
        greedy(model, prompts, 9).tolist()
    )


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), [0.5, 0.25, 0.125, 0.125]),
        (
            Sampling(temperature=0.5),
            [0.25 / 0.34375, 0.0625 / 0.34375, 0.015625 / 0.34375, 0.015625 / 0.34375],
        ),
        (Sampling(temperature=1.0, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=1.0, top_p=0.6), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=1.0, top_p=0.5), [1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_k=2, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
    ],
)
def test_tokens_have_their_probabilities(
    model_of: ModelOf, monkeypatch: pytest.MonkeyPatch, sampling: Sampling, expected: list[float]
) -> None:
    """Of 20,000 draws: four standard deviations of the rarest are 0.01."""
    logits = torch.full((96,), -torch.inf)
    logits[:4] = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()

    class Constant(GPTNeoX):
        def forward(self, tokens: Tensor, cache: object = None) -> Tensor:
            return logits.expand(*tokens.shape, 96)

    model = Constant(model_of().shape)
    found = torch.tensor(generate(model, [[0]] * 100, 200, sampling=sampling)).flatten()
    shares = torch.bincount(found, minlength=4)[:4] / len(found)
    assert shares.tolist() == pytest.approx(expected, abs=0.015)
    assert found.max() < 4


def test_a_continuation_stops_and_banned_tokens_do_not_occur(model_of: ModelOf) -> None:
    model = model_of()
    free = generate(model, PROMPTS, 15, sampling=SAMPLINGS["hot"])
    stop = free[1][4]
    stopped = generate(model, PROMPTS, 15, sampling=SAMPLINGS["hot"], stop=stop)
    for found, whole in zip(stopped, free, strict=True):
        assert found == (whole[: whole.index(stop) + 1] if stop in whole else whole)
    banned = generate(model, PROMPTS, 30, sampling=SAMPLINGS["hot"], ban=range(10, 96))
    assert max(token for tokens in banned for token in tokens) < 10


def test_tokens_are_reported_as_they_come(model_of: ModelOf) -> None:
    seen: list[list[int]] = [[] for _ in PROMPTS]
    found = generate(model_of(), PROMPTS, 5, on_token=lambda prompt, token: seen[prompt].append(token))
    assert seen == found


@pytest.mark.parametrize(
    ("prompts", "n_new", "message"),
    [
        ([[1], []], 3, "prompts must have tokens"),
        ([[1]], -1, "n_new -1"),
        ([[96]], 1, "outside the vocabulary"),
    ],
)
def test_bad_prompts_are_refused(
    model_of: ModelOf, prompts: list[list[int]], n_new: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(model_of(), prompts, n_new)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"top_k": -1}, "top_k must be >= 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": float("nan")}, "top_p must be above 0"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)  # type: ignore[arg-type]


def test_nothing_is_generated_of_no_prompts(model_of: ModelOf) -> None:
    assert generate(model_of(), [], 3) == []
    assert generate(model_of(), [[1]], 0) == [[]]
