"""The layers of pipeline stages: one after the other they are the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.model.neox import GPTNeoX
from trainer.model.pipeline_stage import PipelineStage, stage_blocks
from trainer.presets import PRESETS
from trainer.shape import ModelShape

ModelOf = Callable[..., GPTNeoX]


@given(
    n_layers=st.integers(1, 60),
    n_stages=st.integers(1, 60),
    vocab_size=st.sampled_from([1, 4096, 50304, 1 << 20]),
    hidden_size=st.sampled_from([8, 512, 6144]),
)
def test_every_stage_has_blocks_and_every_block_a_stage(
    n_layers: int, n_stages: int, vocab_size: int, hidden_size: int
) -> None:
    shape = ModelShape(
        vocab_size=vocab_size, hidden_size=hidden_size, n_layers=n_layers, n_heads=1, max_positions=64
    )
    if n_stages > n_layers:
        return
    found = stage_blocks(shape, n_stages)
    assert len(found) == n_stages
    assert all(found)
    assert [block for blocks in found for block in blocks] == list(range(n_layers))


@pytest.mark.parametrize(
    ("preset", "n_stages", "lengths"),
    [
        # The output layer computes as much as a tenth of a block or, in the smallest, as many blocks.
        ("gpt-neox-20b", 4, [11, 11, 11, 11]),
        ("pythia-12b", 2, [18, 18]),
        ("pythia-1b", 2, [9, 7]),
        ("pythia-14m", 2, [5, 1]),
    ],
)
def test_stages_compute_about_as_much(preset: str, n_stages: int, lengths: list[int]) -> None:
    size = PRESETS[preset]
    shape = ModelShape(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        n_layers=size.n_layers,
        n_heads=size.n_heads,
        max_positions=2048,
    )
    assert [len(blocks) for blocks in stage_blocks(shape, n_stages)] == lengths


@pytest.mark.parametrize("recomputes", [False, True])
def test_stages_one_after_the_other_are_the_model(model_of: ModelOf, recomputes: bool) -> None:
    model = model_of()
    model.gpt_neox.recomputes_blocks = recomputes
    stages = [PipelineStage(model, number, 3) for number in range(3)]
    names = [name for stage in stages for name, _ in stage.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    tokens = torch.randint(0, 96, (2, 11), generator=torch.Generator().manual_seed(3))
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    x = inputs
    for stage in stages:
        x = stage(x)
    assert stages[-1].logits(x).equal(model(inputs))
    found, expected = stages[-1].losses(x, labels), model(inputs, labels=labels)
    assert found.rows.equal(expected.rows)
    found.mean.backward()
    gradients = {name: p.grad for stage in stages for name, p in stage.named_parameters()}
    model.zero_grad(set_to_none=True)
    expected.mean.backward()
    for name, parameter in model.named_parameters():
        gradient = gradients[name]
        assert gradient is not None
        assert gradient.equal(parameter.grad), name
