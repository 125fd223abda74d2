"""Trains with a batch whose loss is NaN or infinite: every value must be as it was, under each ZeRO stage.

Started in two processes, it does so in two pipeline stages.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from trainer import engine as engines
from trainer.config import AdamW, Recipe, Sharding
from trainer.engine import Engine, MicroBatch, StepResult
from trainer.launcher import process_count
from trainer.model.init import initialize
from trainer.model.loss import Losses
from trainer.model.neox import GPTNeoX
from trainer.pipeline import PipelineEngine
from trainer.ranks import Processes
from trainer.shape import ModelShape

#: ZeRO 3 leaves parameters below 100,000 values in all processes; the embeddings here are above that.
SHAPE = ModelShape(vocab_size=8192, hidden_size=16, n_layers=2, n_heads=2, max_positions=16)
ADAMW = AdamW(
    lr=0.01,
    min_lr=0.001,
    warmup=0.0,
    betas=(0.9, 0.95),
    eps=1e-8,
    weight_decay=0.1,
    gradient_clipping=1.0,
    schedule="neox",
)


def batches(step: int) -> list[MicroBatch]:
    tokens = torch.randint(0, 8192, (4, 17), generator=torch.Generator().manual_seed(step))
    return [MicroBatch(tokens[:2]), MicroBatch(tokens[2:])]


def _step_with_loss_times(factor: float, engine: Engine, step: int) -> StepResult:
    # Where the loss is computed: in a pipeline, by the layers of the last stage.
    where: Any = engine._part if isinstance(engine, PipelineEngine) else engine
    name = "losses" if isinstance(engine, PipelineEngine) else "_losses"
    right = getattr(where, name)

    def wrong(*inputs: Any) -> Losses:
        found = right(*inputs)
        return Losses(found.mean * factor, found.rows * factor)

    setattr(where, name, wrong)
    result = engine.step(batches(step), 0.01)
    setattr(where, name, right)
    return result


def check(ranks: Processes, precision: str, sharding: Sharding) -> None:
    recipe = Recipe(
        steps=9,
        batch_size=4,
        micro_batch_size=2,
        seed=1,
        precision=precision,
        shape=SHAPE,
        optimizer=ADAMW,
    )
    made = []
    for _ in range(2):
        model = GPTNeoX(SHAPE)
        initialize(model, 1)
        kind = PipelineEngine if ranks.n_stages > 1 else Engine
        made.append(kind(model, recipe, ranks, sharding))
    disturbed, calm = made
    for step in range(4):
        before = disturbed.snapshot(lambda name: 0)
        for factor in (float("nan"), float("inf")):
            result = _step_with_loss_times(factor, disturbed, step)
            assert result.fault, result
        after = disturbed.snapshot(lambda name: 0)
        assert all(before[name].equal(after[name]) for name in before)
        assert disturbed.adam_updates == step
        results = [engine.step(batches(step), 0.01) for engine in (disturbed, calm)]
        assert disturbed.evaluate(batches(step)).equal(calm.evaluate(batches(step)))
        tokens = torch.arange(8)[None]
        assert disturbed.logits(tokens).equal(calm.logits(tokens))
        assert (results[0].loss, results[0].grad_norm) == (results[1].loss, results[1].grad_norm)
        assert results[0].fault is None
        updated = disturbed.snapshot(lambda name: 0)
        assert ranks.is_main == bool(updated)
        assert not any(before[name].equal(updated[name]) for name in before if name.endswith(".weight"))


def main() -> None:
    torch.set_num_threads(1)
    ways = [("fp32", Sharding(zero_stage=stage)) for stage in range(4)]
    ways += [("bf16", Sharding(zero_stage=1)), ("bf16", Sharding(zero_stage=2))]
    ways += [("fp32", Sharding(zero_stage=1, offload_optimizer=True))]
    n_stages = process_count()[1]
    if n_stages > 1:
        ways = [(precision, Sharding(pipeline_stages=n_stages)) for precision in ("fp32", "bf16")]
    with engines.processes(1, n_stages) as ranks:
        for precision, sharding in ways:
            check(ranks, precision, sharding)
        ranks.barrier()
    if ranks.is_main:
        print(f"{len(ways)} engines", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
