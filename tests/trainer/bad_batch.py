"""Trains with a batch whose loss is NaN or infinite: every value must be as it was, under each ZeRO stage."""

from __future__ import annotations

import os

import torch

from trainer import engine as engines
from trainer.config import AdamW, Recipe, Sharding
from trainer.engine import Engine, MicroBatch, StepResult
from trainer.model.init import initialize
from trainer.model.loss import Losses
from trainer.model.neox import GPTNeoX
from trainer.ranks import Processes
from trainer.shape import ModelShape

#: ZeRO 3 leaves parameters below 100,000 values in all processes; the embeddings here are above that.
SHAPE = ModelShape(vocab_size=8192, hidden_size=16, n_layers=1, n_heads=2, max_positions=16)
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
    right = engine._losses

    def wrong(batch: MicroBatch) -> Losses:
        found = right(batch)
        return Losses(found.mean * factor, found.rows * factor)

    engine._losses = wrong  # type: ignore[method-assign]
    result = engine.step(batches(step), 0.01)
    engine._losses = right  # type: ignore[method-assign]
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
        made.append(Engine(model, recipe, ranks, sharding))
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
        assert not all(before[name].equal(disturbed.snapshot(lambda name: 0)[name]) for name in before)


def main() -> None:
    torch.set_num_threads(1)
    ways = [("fp32", Sharding(zero_stage=stage)) for stage in range(4)]
    ways += [("bf16", Sharding(zero_stage=1)), ("bf16", Sharding(zero_stage=2))]
    ways += [("fp32", Sharding(zero_stage=1, offload_optimizer=True))]
    with engines.processes(1) as ranks:
        for precision, sharding in ways:
            check(ranks, precision, sharding)
    print(f"{len(ways)} engines", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
