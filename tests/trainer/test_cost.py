"""The formulas of `pile-train plan` are what the model does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pile_tools.errors import ConfigError
from trainer import cost
from trainer.commands import plan
from trainer.config import EARLY_CHECKPOINTS, ModelConfig
from trainer.model import loss
from trainer.model.neox import GPTNeoX
from trainer.presets import TOKENIZER_SIZE
from trainer.shape import ModelShape

JOB = cost.Job(
    shape=ModelConfig(preset="pythia-12b").shape(2048, TOKENIZER_SIZE),
    steps=143_000,
    batch_size=1024,
    precision="bf16",
    n_checkpoints=154,
    n_gpus=256,
    memory=40e9,
    tflops=312.0,
    utilization=0.4,
)


def kept_bytes(run: Callable[[], object], model: GPTNeoX) -> int:
    """The bytes that autograd keeps for the backward pass of a computation, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_keeps_what_the_formula_says(shape_of: Callable[..., ModelShape], dtype: torch.dtype) -> None:
    shape = shape_of(hidden_size=128, n_layers=4, n_heads=4)
    model = GPTNeoX(shape).to(dtype)
    tokens = torch.zeros(2, 256, dtype=torch.int64)
    found = kept_bytes(lambda: model.gpt_neox(tokens, None), model)
    elements = found / (tokens.numel() * shape.hidden_size * shape.n_layers * dtype.itemsize)
    # The final layer norm and the tokens are kept too.
    assert elements == pytest.approx(cost.BLOCK_ACTIVATIONS, rel=0.05)


def test_the_loss_has_the_logits_of_one_chunk() -> None:
    assert cost.LOSS_CHUNK == loss.CUDA_CHUNK
    assert cost.loss_bytes(JOB) == 50688 * (8 * 2048 + 4 * 5120)


def test_operations_are_those_that_torch_counts(shape_of: Callable[..., ModelShape]) -> None:
    shape = shape_of(hidden_size=64, n_layers=3, n_heads=4, max_positions=32)
    model = GPTNeoX(shape)
    tokens = torch.zeros(2, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    # Layer norms and biases, which torch leaves out, have few parameters.
    found = counter.get_total_flops() / tokens.numel()
    assert cost.flops_per_token(shape) == pytest.approx(found, rel=0.05)


def test_states_are_divided_by_stage() -> None:
    n, stages = JOB.shape.n_parameters, [cost.stage_memory(JOB, stage) for stage in cost.STAGES]
    assert (stages[0].weights, stages[0].gradients, stages[0].optimizer) == (2 * n, 4 * n, 12 * n)
    assert stages[0].states == 18 * n
    assert stages[1].optimizer == -(-12 * n // 256)
    assert (stages[1].weights, stages[1].gradients) == (2 * n, 4 * n)
    assert stages[2].gradients == -(-4 * n // 256)
    assert stages[2].weights == 2 * n > 10 * stages[3].weights
    assert [stage.rows_recomputed > 0 for stage in stages] == [False, False, True, True]
    alone = dataclasses.replace(JOB, n_gpus=1, precision="fp32")
    assert cost.stage_memory(alone, 0).optimizer == 8 * n
    assert {cost.stage_memory(alone, stage).weights for stage in cost.STAGES} == {4 * n}


def test_rows_fit_and_divide_the_batch() -> None:
    job = dataclasses.replace(JOB, n_gpus=64, memory=80e9)
    for stage in cost.STAGES:
        found = cost.stage_memory(job, stage)
        for rows, recompute in ((found.rows, False), (found.rows_recomputed, True)):
            if rows:
                assert (1024 // 64) % rows == 0
                used = found.states + cost.loss_bytes(job) + rows * cost.activations(job, recompute=recompute)
                assert used <= 80e9 * cost.USABLE_SHARE
    assert cost.activations(job, recompute=True) < cost.activations(job, recompute=False)


def test_the_batch_is_divided_among_the_gpus() -> None:
    with pytest.raises(ConfigError, match="1024 sequences cannot be divided among 7 GPUs"):
        dataclasses.replace(JOB, n_gpus=7)


def test_time_is_operations_by_speed() -> None:
    seconds = cost.flops_per_token(JOB.shape) * 1024 * 2048 * 143_000 / (256 * 312e12 * 0.4)
    assert cost.days(JOB) == pytest.approx(seconds / 86_400)
    assert cost.days(dataclasses.replace(JOB, utilization=0.2)) == pytest.approx(2 * cost.days(JOB))


@pytest.mark.parametrize(("steps", "every"), [(143_000, 1000), (40, 15), (512, 100), (1, 1), (7, 2)])
def test_checkpoints_are_counted(steps: int, every: int) -> None:
    listed = {s for s in range(steps + 1) if s in EARLY_CHECKPOINTS or s % every == 0 or s == steps}
    assert plan._n_checkpoints(steps, every) == len(listed)


@pytest.mark.parametrize("n_bytes", [1, 999, 141e6, 845e6, 1.27e9, 99.9e9, 213e9, 3933e9])
def test_sizes_have_three_digits(n_bytes: float) -> None:
    assert float(plan._gb(n_bytes).replace(",", "")) == pytest.approx(n_bytes / 1e9, rel=0.01)
