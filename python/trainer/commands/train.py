"""`pile-train train CONFIG`, or `pile-train CONFIG`: trains a GPT-NeoX model on a training order."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pile_tools import manifest
from pile_tools.commands import artifacts, options
from pile_tools.config import MAX_THREADS, from_toml
from pile_tools.errors import ConfigError
from pile_tools.terminal import counted, note, print_document, shell_quote
from trainer import failures
from trainer import run as runs
from trainer.checkpoint import folders
from trainer.config import TrainConfig
from trainer.launcher import process_count
from trainer.log import LOG_FILE, read_log
from trainer.retention import Retention
from trainer.run import Run, Start
from trainer.signals import StopRequest

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _retention(context: click.Context, option: click.Parameter, value: str | None) -> Retention | None:
    try:
        return None if value is None else Retention.parse(value)
    except ConfigError as err:
        raise click.BadParameter(str(err)) from err


def training_options(command: _Command) -> _Command:
    """Adds the options of commands that train."""
    for option in (
        click.option(
            "--keep-states",
            metavar="WHICH",
            callback=_retention,
            help="States to keep: last, all (of checkpoints), or every:N. Default: as before, or last.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1, max=MAX_THREADS),
            help="Threads of each process. Default: as when the run started, or the cores divided among "
            "them.",
        ),
        options.reports,
        click.option("--force", is_flag=True, help="Start again, and remove an earlier run in the output."),
    ):
        command = option(command)
    return command


@click.command("train", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=artifacts.CONFIG)
@training_options
@click.option(
    "--peak-tflops",
    type=click.FloatRange(1e-6, 1e9),
    help="Peak of all processes, for the share of it that is shown. Default: measured at the start.",
)
def command(
    config: Path,
    force: bool,
    threads: int | None,
    keep_states: Retention | None,
    peak_tflops: float | None,
    as_json: bool,
) -> None:
    """Train the GPT-NeoX model that CONFIG, a TOML file, describes; resume a stopped run.

    \b
    A config; paths are relative to the current directory:
      order = "demo/tokens"               # made by `pile-tools order`
      output = "demo/run"
      tokenizer = "demo/tokenizer.json"   # copied into the checkpoints
      checkpoint_every = 100              # besides steps 0, 1, 2, 4, ..., 512
    \b
      [model]
      hidden_size = 128                   # or: preset = "pythia-14m"
      n_layers = 4
      n_heads = 4
    \b
      [optimizer]
      lr = 0.001

    Optional keys: steps, batch_size (default: the order's), micro_batch_size, seed, precision (fp32, bf16,
    fp16), max_skipped_in_a_row, skip_steps, tensorboard, activation_checkpointing, compile; in [model]
    vocab_size, rotary_pct, rotary_base, layer_norm_eps, parallel_residual, hidden_act, init,
    attention_within_documents; in [optimizer] min_lr, warmup, betas, eps, weight_decay, gradient_clipping,
    schedule (neox, neox_v1, linear, constant, wsd), decay and decay_shape of wsd; in [validation] order,
    every, rows; in each of [[stages]] steps and the keys of its learning rate; in [deepspeed] zero_stage,
    offload_optimizer, pipeline_stages.

    A preset sets size, init, lr, weight_decay, schedule = "neox_v1" and hidden_act = "gelu_pytorch_tanh" as
    published. The run reports what differs, such as fp32 or bf16 instead of fp16 with dynamic loss scaling.

    \b
    On several processes:
      torchrun --nproc_per_node 2 -m trainer.cli CONFIG
      deepspeed --num_gpus 2 --no_local_rank --module trainer.cli CONFIG

    A run that was stopped and resumed leaves the same bytes as an undisturbed one with the same number of
    processes and threads, but for the times in its log.

    SIGTERM, SIGUSR1 and the first Ctrl-C finish the step, save, and end with 143, 138 or 130; a second Ctrl-C
    ends at once. A loss or gradient that is not finite skips the step.

    Exit codes: 0 done, 1 the input or the machine failed, 2 usage, 70 a bug of ours, 130 interrupted.
    """
    stop = StopRequest()
    stop.install()
    peak = None if peak_tflops is None else peak_tflops * 1e12
    found = from_toml(TrainConfig, config)
    runs.refuse_own_files(found.output, [("the config", config)])
    run_training(found, Start(force, threads, keep_states, peak, stop), as_json=as_json)


def run_training(config: TrainConfig, start: Start, *, as_json: bool) -> None:
    """Trains the model of a config and reports it; see `trainer.loop.train` for what it raises."""
    rank, _ = process_count()
    artifacts.refuse_other(config.order, ("order",))
    run = runs.plan(config)
    done = runs.finished(run, force=start.force)
    if done is not None:
        if rank == 0:
            runs.tidy(run.config.output)
            options.is_reported(done, run.config.output, is_new=False, as_json=as_json)
        return
    with failures.named():
        from trainer.loop import train

        outcome = train(run, start)
    if outcome.is_main and as_json:
        made = manifest.read(run.config.output / manifest.MANIFEST_FILE)
        print_document(options.made(made, is_new=True))
    elif outcome.is_main:
        for line in _summary(run, outcome.tokens_per_second):
            note(line)


def _summary(run: Run, tokens_per_second: float) -> list[str]:
    output = run.config.output
    lines = read_log(output / LOG_FILE)
    losses = [line["loss"] for line in lines if "skipped" not in line] or [math.nan]
    skipped = [f"skipped {counted(len(lines) - len(losses), 'step')}"] if len(lines) > len(losses) else []
    n_tokens = len(lines) * run.tokens_per_step
    checkpoints = folders.checkpoints_folder(output)
    return [
        f"trained {counted(len(lines), 'step')}, {counted(n_tokens, 'token')}, "
        f"at {tokens_per_second:,.0f} tokens/s",
        f"loss {losses[0]:.4f} -> {losses[-1]:.4f} ({output / LOG_FILE})",
        *skipped,
        f"{counted(len(folders.steps_in(checkpoints)), 'checkpoint')} in {checkpoints}",
        f"next: pile-study memorization {shell_quote(output)} -o memorization",
    ]
