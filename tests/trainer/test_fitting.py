"""Micro-batches that fit memory, where the config does not say how large they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import fitting
from trainer.config import AdamW, ModelConfig, Recipe, Sharding
from trainer.cost import USABLE_SHARE, Setup, activations, fitting_rows, loss_bytes, stage_memory
from trainer.presets import TOKENIZER_SIZE
from trainer.run import Stretch

SHAPE = ModelConfig(preset="pythia-1b").shape(2048, TOKENIZER_SIZE)
SETUP = Setup(shape=SHAPE, batch_size=1024, precision="bf16", n_gpus=8, memory=80e9)
RECIPE = Recipe(
    steps=10,
    batch_size=1024,
    micro_batch_size=None,
    seed=1,
    precision="bf16",
    shape=SHAPE,
    optimizer=AdamW(
        **{"lr": 1e-3, "min_lr": 1e-4, "warmup": 0.01, "betas": (0.9, 0.95), "eps": 1e-8},
        **{"weight_decay": 0.1, "gradient_clipping": 1.0, "schedule": "neox"},
    ),
)


def chosen(memory: float, n: int = 8, recipe: Recipe = RECIPE, **more: Any) -> tuple[int, str | None]:
    values = {"recompute": False, "is_offloaded": False, "before": None, "sharding": Sharding()} | more
    sharding = values.pop("sharding")
    return fitting.micro_batch(recipe, sharding, n, int(memory), **values)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("memory", [20e9, 40e9, 80e9, 141e9])
def test_the_largest_part_that_fits_is_taken(memory: float, recompute: bool) -> None:
    setup = replace(SETUP, memory=memory)
    rows = fitting_rows(setup, 1, recompute=recompute)
    states = stage_memory(setup, 1).states + loss_bytes(setup)

    def fits(n: int) -> bool:
        return states + n * activations(setup, recompute=recompute) <= memory * USABLE_SHARE

    # All parts of 128 rows are powers of two.
    assert rows > 0
    assert 128 % rows == 0
    assert fits(rows)
    assert rows == 128 or not fits(2 * rows)
    assert fitting_rows(setup, 1, recompute=recompute, at_most=1) == 1
    assert chosen(memory, recompute=recompute)[0] == rows


@pytest.mark.parametrize(("batch_size", "expected"), [(720, 30), (1 << 48, 32), ((1 << 48) - 59, 1)])
def test_micro_batches_divide_batches_of_any_size(batch_size: int, expected: int) -> None:
    # Of the last, a prime, 10^12 sequences fit: counting down to a divisor would have no end.
    setup = replace(SETUP, batch_size=batch_size, n_gpus=1, memory=1e22)
    assert fitting_rows(setup, 1, recompute=False, at_most=35) == expected
    assert batch_size % fitting_rows(setup, 1, recompute=False) == 0


def test_what_fits_needs_no_words_and_what_is_cut_has_one_line() -> None:
    assert chosen(1e13) == (128, None)
    rows, line = chosen(80e9)
    assert line == f"micro_batch_size {rows}: by estimate, not more fit the 80 GB of a process"
    assert chosen(1e9) == (
        1,
        "micro_batch_size 1: by estimate, not even that fits the 1 GB of a process; "
        "activation_checkpointing, another zero_stage, or more processes need less",
    )


def test_a_number_in_the_config_is_taken_whatever_fits() -> None:
    assert chosen(1e9, recipe=replace(RECIPE, micro_batch_size=64)) == (64, None)


def test_a_pipeline_divides_states_and_keeps_its_micro_batches() -> None:
    two = Sharding(pipeline_stages=2)
    assert chosen(1e13, 8, sharding=two) == (32, None)
    whole, halves = (replace(SETUP, pipeline_stages=n) for n in (1, 2))
    assert halves.n_replicas == 4
    assert stage_memory(halves, 0).weights < 0.6 * stage_memory(whole, 0).weights
    assert chosen(24e9, 8, sharding=two)[0] < 32


def test_offloaded_states_leave_memory() -> None:
    large = replace(RECIPE, shape=ModelConfig(preset="pythia-6.9b").shape(2048, TOKENIZER_SIZE))
    assert chosen(80e9, 1, large)[1] is not None
    assert "not even that" in str(chosen(80e9, 1, large)[1])
    assert chosen(80e9, 1, large, is_offloaded=True)[0] > 1


def test_a_run_continues_with_the_micro_batches_that_it_had() -> None:
    before = Stretch(
        step=4,
        processes=8,
        threads=1,
        micro_batch_size=2,
        zero_stage=1,
        offload_optimizer=False,
        checkpoint_every=10,
        keep_states="last",
        pipeline_stages=1,
    )
    assert chosen(1e13, before=before) == (2, None)
    for changed in ({"processes": 4}, {"zero_stage": 2}, {"pipeline_stages": 2}):
        assert chosen(1e13, before=replace(before, **changed)) == (128, None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 8),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"LOCAL_SIZE": "2"}, 2),
        ({"LOCAL_WORLD_SIZE": "0"}, 8),
        ({"LOCAL_WORLD_SIZE": "9" * 5000}, 8),
        ({"LOCAL_WORLD_SIZE": "four"}, 8),
    ],
)
def test_processes_of_a_machine_share_its_memory(environment: dict[str, str], expected: int) -> None:
    assert fitting._n_local(8, environment) == expected


def test_a_control_groups_limit_counts(tmp_path: Path) -> None:
    machine = fitting._machine_memory(tmp_path / "absent")
    assert machine > 1 << 28
    limit = tmp_path / "memory.max"
    for text, expected in (("max\n", machine), ("1000000\n", 1_000_000), (f"{2 * machine}\n", machine)):
        limit.write_text(text)
        assert fitting._machine_memory(limit) == expected
    assert (
        fitting.process_memory(torch.device("cpu"), 1) >= fitting.process_memory(torch.device("cpu"), 2) * 2
    )
