"""`pile-tools stages`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.errors import ConfigError
from pile_tools.jobs.stages import Stage, run
from pile_tools.terminal import counted, note, shell_quote


@click.command("stages")
@click.argument("orders", nargs=-1, required=True, metavar="ORDER[:STEPS]...")
@click.option("-o", "--output", type=options.PATH, required=True, metavar="DIR", help="Folder of the order.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples of a step; by default that of the orders."
)
@options.reports
@options.force
def command(
    orders: tuple[str, ...], output: Path, batch_size: int | None, force: bool, as_json: bool
) -> None:
    """Join orders into that of a run of several stages: pretraining, then annealing on other data.

    The run sees the first STEPS steps of the first ORDER, then those of the second, and so on; without STEPS,
    as many as the order was built for. The result is an order like any other: pile-train trains on it, and
    `when`, `trace`, `mixture` and `batch` know all of its stages. Blends can be stages; interventions cannot,
    but they can be made on the result.

    \b
    Examples:
      pile-tools stages pretraining:140000 annealing:3000 -o staged
      pile-tools stages tokens code -o staged --batch-size 512
    """
    stages = [_stage(text) for text in orders]
    made, is_new = run(stages, output, batch_size=batch_size, force=force)
    if options.is_reported(made, made.path, is_new=is_new, as_json=as_json):
        return
    first = 0
    for text, stage in zip(orders, made.checked_settings.objects("stages"), strict=True):
        end = first + stage.integer("steps")
        note(f"steps {first:,} to {end - 1:,}: {_stage(text).order}")
        first = end
    size = counted(made.checked_settings.integer("batch_size"), "sample")
    note(f"{made.path}: {counted(first, 'step')} of {size}")
    note(f"next: pile-tools mixture {shell_quote(made.folder)}")


def _stage(text: str) -> Stage:
    """The order and the steps that an argument names."""
    found = re.fullmatch(r"(.+):(\d{1,15})", text, re.ASCII | re.DOTALL)
    path, steps = (found[1], int(found[2])) if found else (text, None)
    if steps == 0:
        raise ConfigError(f"a stage has at least one step, got {text!r}")
    artifacts.refuse_other(Path(path), ("order",))
    return Stage(Path(path), steps)
