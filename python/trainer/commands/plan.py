"""`pile-train plan`: what a run will cost, before it starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from pile_tools.commands import options
from pile_tools.config import from_toml
from pile_tools.errors import ConfigError
from pile_tools.terminal import counted, echo, print_document
from trainer import cost
from trainer import run as runs
from trainer.config import EARLY_CHECKPOINTS, ModelConfig, TrainConfig, completed
from trainer.presets import PRESETS, TOKENIZER_SIZE, Preset, named

#: Peak of an A100 in bf16 without sparsity, in 10^12 operations a second.
_A100_TFLOPS = 312.0


@click.command("plan", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", metavar="PRESET|CONFIG")
@click.option("--gpus", type=click.IntRange(1, 1 << 20), required=True, help="GPUs, each a process.")
@click.option(
    "--memory",
    type=click.FloatRange(0.001, 1e6),
    required=True,
    metavar="GB",
    help="Memory of a GPU in GB of 10^9 bytes.",
)
@click.option(
    "--gpu-tflops",
    type=click.FloatRange(0.001, 1e9),
    default=_A100_TFLOPS,
    show_default="312, an A100 in bf16",
    help="Peak of a GPU, 10^12 operations a second.",
)
@click.option(
    "--utilization",
    type=click.FloatRange(0.001, 1),
    default=0.4,
    show_default=True,
    help="Share of the peak that training reaches.",
)
@click.option(
    "--seq-length",
    type=click.IntRange(1, 1 << 24),
    help="Tokens of a sequence, if neither the order of CONFIG nor a preset says it.",
)
@options.reports
def command(
    model: str,
    gpus: int,
    memory: float,
    gpu_tflops: float,
    utilization: float,
    seq_length: int | None,
    as_json: bool,
) -> None:
    """Print the parameters, memory, computation, days and disk of a run, by the formulas of docs/training.md.

    PRESET is trained in bf16 with its published steps and batch. CONFIG is a TOML file of pile-train; its
    order may be missing if the config or its preset names steps and batch.

    \b
    Examples:
      pile-train plan pythia-70m --gpus 8 --memory 80
      pile-train plan gpt-neox-20b --gpus 96 --memory 40 --gpu-tflops 312
      pile-train plan train.toml --gpus 1 --memory 24 --gpu-tflops 71
    """
    values = _preset_values(model) if model in PRESETS else _config_values(Path(model), seq_length)
    job = cost.Job(**values, n_gpus=gpus, memory=memory * 1e9, tflops=gpu_tflops, utilization=utilization)
    if as_json:
        print_document(_document(job, model))
        return
    for line in _lines(job, model):
        echo(line)


def _preset_values(name: str) -> dict[str, Any]:
    preset = PRESETS[name]
    return {
        "shape": ModelConfig(preset=name).shape(preset.seq_length, TOKENIZER_SIZE),
        "steps": preset.steps,
        "batch_size": preset.batch_size,
        "precision": "bf16",
        "n_checkpoints": _n_checkpoints(preset.steps, preset.checkpoint_every),
    }


def _config_values(path: Path, seq_length: int | None) -> dict[str, Any]:
    if path.suffix != ".toml" and not path.exists():
        raise ConfigError(f"no preset and no file {str(path)!r}; presets are {named()}")
    config = from_toml(TrainConfig, path)
    published = config.model.published
    if config.order.exists():
        found = runs.plan(config).recipe
    else:
        found = completed(
            config,
            _known("steps", config.given_steps, published, path),
            _known("batch_size", config.batch_size, published, path),
            _known("seq_length", seq_length, published, path),
            # Without the order's datasets, the tokens that have a meaning are not known.
            TOKENIZER_SIZE if config.model.vocab_size is None else None,
        )
    return {
        "shape": found.shape,
        "steps": found.steps,
        "batch_size": found.batch_size,
        "precision": found.precision,
        "pipeline_stages": config.deepspeed.pipeline_stages,
        "offload_optimizer": config.deepspeed.offload_optimizer,
        "n_checkpoints": _n_checkpoints(found.steps, config.checkpoint_interval),
    }


def _known(name: str, given: int | None, published: Preset | None, path: Path) -> int:
    """A value of a config whose order is missing. Raises ConfigError if nothing names it."""
    if given is not None:
        return given
    if published is None:
        advice = "; give --seq-length" if name == "seq_length" else ""
        raise ConfigError(
            f"{name} is not known: the order is missing, and no preset is named{advice} ({path})"
        )
    value: int = getattr(published, name)
    return value


def _n_checkpoints(steps: int, every: int) -> int:
    regular = steps // every + (1 if steps % every else 0)
    return regular + sum(1 for step in EARLY_CHECKPOINTS if step < steps and (step == 0 or step % every))


def _document(job: cost.Job, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "n_parameters": job.shape.n_parameters,
        "precision": job.precision,
        "steps": job.steps,
        "batch_size": job.batch_size,
        "seq_length": job.shape.max_positions,
        "tokens": job.tokens_per_step * job.steps,
        "n_gpus": job.n_gpus,
        "pipeline_stages": job.pipeline_stages,
        "memory": round(job.memory),
        "activations_of_a_row": cost.activations(job, recompute=False),
        "activations_of_a_row_recomputed": cost.activations(job, recompute=True),
        "loss_bytes": cost.loss_bytes(job),
        "stages": [
            {
                "stage": found.stage,
                "weights": found.weights,
                "gradients": found.gradients,
                "optimizer": found.optimizer,
                "rows": found.rows,
                "rows_recomputed": found.rows_recomputed,
            }
            for found in _memories(job)
        ],
        # As a float: many readers of JSON take no integers beyond 64 bits.
        "flops": 1.0 * cost.flops_per_token(job.shape) * job.tokens_per_step * job.steps,
        "days": cost.days(job),
        "gpu_days": cost.days(job) * job.n_gpus,
        "n_checkpoints": job.n_checkpoints,
        "checkpoint_bytes": cost.checkpoint_bytes(job),
        "state_bytes": cost.state_bytes(job),
        "disk_bytes": _disk(job),
    }


def _memories(job: cost.Job) -> list[cost.StageMemory]:
    """Memory at each stage of ZeRO; a pipeline has stage 1 alone, and stage 0 cannot offload."""
    stages: tuple[int, ...] = cost.STAGES[1:] if job.offload_optimizer else cost.STAGES
    if job.pipeline_stages > 1:
        stages = (1,)
    return [cost.stage_memory(job, stage) for stage in stages]


def _disk(job: cost.Job) -> int:
    """Bytes of all checkpoints, and of two states: the last one, and the next while it is saved."""
    return job.n_checkpoints * cost.checkpoint_bytes(job) + 2 * cost.state_bytes(job)


def _lines(job: cost.Job, model: str) -> list[str]:
    """The plan as lines of at most 80 columns."""
    n_tokens = job.tokens_per_step * job.steps
    plain, recomputed = (_gb(cost.activations(job, recompute=flag)) for flag in (False, True))
    pipeline = f" in {job.pipeline_stages} pipeline stages" if job.pipeline_stages > 1 else ""
    per_token, total = cost.flops_per_token(job.shape), cost.flops_per_token(job.shape) * n_tokens
    return [
        f"{model}: {counted(job.shape.n_parameters, 'parameter')}, in {job.precision}",
        f"{counted(job.steps, 'step')} of {job.batch_size:,} sequences of {job.shape.max_positions:,} "
        f"tokens: {n_tokens:.3g} tokens",
        "",
        f"memory of a GPU in GB, of {job.memory / 1e9:,.4g}, on {counted(job.n_gpus, 'GPU')}{pipeline}:",
        f"activations of a sequence: {plain}, {recomputed} with activation checkpointing",
        f"loss: {_gb(cost.loss_bytes(job))}, for any number of sequences",
        "ZeRO   weights  gradients  optimizer     states  sequences at once  recomputed",
        *(_row(stage) for stage in _memories(job)),
        "",
        f"computation: {per_token:.3g} FLOPs a token, {total:.3g} in all",
        f"time: {_days(cost.days(job))} at {job.utilization:.0%} of {job.tflops:,.4g} TFLOPS a GPU, "
        f"{_days(cost.days(job) * job.n_gpus, 'GPU-')}",
        f"disk: {_gb(_disk(job))} GB, of which {counted(job.n_checkpoints, 'checkpoint')} of "
        f"{_gb(cost.checkpoint_bytes(job))} and two states of {_gb(cost.state_bytes(job))}",
    ]


def _row(found: cost.StageMemory) -> str:
    sizes = (found.weights, found.gradients, found.optimizer, found.states)
    weights, gradients, optimizer, states = map(_gb, sizes)
    rows = [f"{n:,}" if n else "none fits" for n in (found.rows, found.rows_recomputed)]
    return (
        f"{found.stage:<4}{weights:>10}{gradients:>11}{optimizer:>11}{states:>11}{rows[0]:>19}{rows[1]:>12}"
    )


def _gb(n_bytes: float) -> str:
    """Bytes in GB, three digits at least but for 0."""
    if not n_bytes:
        return "0"
    gb = n_bytes / 1e9
    return f"{gb:,.0f}" if gb >= 100 else f"{gb:.{2 - math.floor(math.log10(gb)) if gb < 1 else 2}f}"


def _days(n_days: float, what: str = "") -> str:
    for name, per_day in (("day", 1), ("hour", 24), ("minute", 1440), ("second", 86_400)):
        if (n := n_days * per_day) >= 1 or name == "second":
            return f"{f'{n:,.0f}' if n >= 100 else f'{n:.3g}'} {what}{name}s"
    raise AssertionError("seconds are the smallest unit")
