"""`pile-train branch SOURCE --step N -o OUTPUT`: a run that starts from another run, or from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools.commands import artifacts, options
from pile_tools.manifest import RUN_FILE
from trainer.branching import config_of_branch, threads_of_source
from trainer.commands.train import run_training, training_options
from trainer.config import BranchConfig
from trainer.retention import Retention
from trainer.run import Start
from trainer.schedule import SCHEDULES
from trainer.signals import StopRequest


@click.command("branch", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=options.PATH)
@click.option("--step", type=click.IntRange(min=0), help="The step to start from. Default, of a model: 0.")
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder of the new run.")
@click.option("--order", type=artifacts.ORDER, help="Other data. Default: the order of the run.")
@click.option("--tokenizer", type=options.PATH, help="Of the data. Default: that of the run or model.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="The last step, as in a config. Default: as before."
)
@click.option("--lr", type=float, help="Highest learning rate. Default: that of the run.")
@click.option("--min-lr", type=float, help="Lowest learning rate. Default: as before, or a tenth of --lr.")
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Default: that of the run.")
@click.option("--precision", help="fp32, bf16 or fp16. Default: that of the run.")
@click.option("--checkpoint-every", type=click.IntRange(min=1), help="Default: as before.")
@click.option("--micro-batch-size", type=click.IntRange(min=1), help="Sequences at once in a process.")
@click.option(
    "--skip-step",
    "skip_steps",
    type=click.IntRange(min=0),
    multiple=True,
    help="A step not to train on, besides those that the run skips by name. May be repeated.",
)
@click.option("--fresh-moments", is_flag=True, help="Start from weights alone; needs --rewarm.")
@click.option(
    "--rewarm",
    type=click.IntRange(min=1),
    help="Steps in which the rate rises from zero to the schedule's, after --fresh-moments.",
)
@training_options
def command(
    source: Path,
    output: Path,
    step: int | None,
    fresh_moments: bool,
    rewarm: int | None,
    force: bool,
    threads: int | None,
    keep_states: Retention | None,
    as_json: bool,
    lr: float | None,
    min_lr: float | None,
    schedule: str | None,
    skip_steps: tuple[int, ...],
    **changes: Any,
) -> None:
    """Start a run from a kept step of another run, or from a model, and train it.

    SOURCE is a run, or a folder with a GPT-NeoX model of Hugging Face's. Without options, the branch trains
    as the run would have: it is the control of one with other data or settings. Steps that the run skips by
    name are skipped, those of --skip-step too. The same command resumes it.

    Of a run with stages, --steps, --lr, --min-lr or --schedule replace them by one schedule.

    A run is continued from a state, which --keep-states of `pile-train train` keeps: weights and optimizer
    are as they were. A published model has no state of the optimizer, so --fresh-moments starts with Adam's
    averages at zero, and --rewarm raises the rate again; give the control both too. A model needs --order
    and --lr.

    \b
    Examples:
      pile-train branch demo/run --step 300 -o demo/control
      pile-train branch demo/run --step 300 -o demo/changed \\
        --order demo/changed-order
      pile-train branch demo/run --step 500 -o demo/longer \\
        --order demo/long --steps 800
      pile-train branch pythia-160m -o continued --order new --lr 1e-4 \\
        --fresh-moments --rewarm 100

    Exit codes: those of `pile-train train`.
    """
    stop = StopRequest()
    stop.install()
    # The default of a model would be the untrained weights of a run.
    if step is None and (not fresh_moments or (source / RUN_FILE).is_file()):
        raise click.UsageError("Missing option '--step': the step of the run to start from")
    branch = BranchConfig(source=source, step=step or 0, fresh_moments=fresh_moments, rewarm=rewarm or 0)
    optimizer = {"lr": lr, "min_lr": min_lr, "schedule": schedule}
    if skip_steps:
        changes["skip_steps"] = list(skip_steps)
    config = config_of_branch(branch, output, _given(changes), _given(optimizer))
    start = Start(force, threads, keep_states, stop=stop, source_threads=threads_of_source(branch))
    run_training(config, start, as_json=as_json)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The values that were given, as a TOML file has them."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if value is not None
    }
