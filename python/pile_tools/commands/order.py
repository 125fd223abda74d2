"""`pile-tools order`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.errors import ConfigError
from pile_tools.jobs.order import Blend, OrderConfig, run
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, shell_quote


@click.command("order")
@click.argument("prefixes", nargs=-1, required=True, type=artifacts.DATASET, metavar="PREFIX...")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="DIR",
    help="Folder of the order; by default the dataset's folder.",
)
@config_options(OrderConfig)
@click.option(
    "--weights",
    metavar="W,W...",
    help="Weights of several datasets; by default from their numbers of documents.",
)
@click.option(
    "--alpha",
    type=float,
    default=0.3,
    show_default=True,
    help="Exponent of the numbers of documents in the default weights.",
)
@click.option("--labels", type=artifacts.DATASET, metavar="PREFIX", help="The parallel dataset of labels.")
@options.reports
@options.force
def command(
    prefixes: tuple[Path, ...],
    output: Path | None,
    weights: str | None,
    alpha: float,
    labels: Path | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Build the order in which a model sees the dataset PREFIX, bit for bit as GPT-NeoX does.

    Writes order.json and GPT-NeoX's three index files, which GPT-NeoX then finds and uses. With --steps and
    --batch-size, 1.005 times the samples are built, as GPT-NeoX does for separate data paths; with --split,
    exactly the samples of the run, as GPT-NeoX does then. Only the .idx of PREFIX is read: the tokens may be
    shards, or absent. Several PREFIXes are blended. --packing megatron is Megatron-LM's order.

    \b
    Examples:
      pile-tools order tokens/sample --seq-length 2048 --steps 143000 \\
        --batch-size 1024 --seed 1234
      pile-tools order tokens/sample -o order-256 --seq-length 256 \\
        --samples 10000 --seed 1
      pile-tools order tokens/sample -o valid --split 969,30,1 --part valid \\
        --seq-length 256 --samples 500
      pile-tools order tokens/code tokens/books -o blend --weights 2,1 \\
        --seq-length 256 --samples 10000

    From Python an order can also be read in steps of another size, and with interventions: words replaced or
    sequences inserted at given steps. They can be saved as an order and trained on:

    \b
      from pile_tools.order import interventions

    \b
      order = pile_tools.open_order("order-256")
      order.rebatch(batch_size=512)
      swapped = interventions.replace_tokens(
          order, {" he": " she"}, steps=(9000, 10000)
      )
      interventions.save_interventions(swapped, Path("swapped"))
    """
    config = OrderConfig(**settings)
    source: Path | Blend = prefixes[0]
    if len(prefixes) > 1:
        source = Blend(prefixes, None if weights is None else _numbers(weights), alpha)
    elif weights is not None:
        raise ConfigError("--weights is for several datasets; one is given")
    with Bar("ordering", None, "samples") as bar:
        manifest, is_new = run(source, output, config, labels=labels, force=force, on_progress=bar.update)
    if options.is_reported(manifest, manifest.path, is_new=is_new, as_json=as_json):
        return
    summary = manifest.summary
    note(f"{manifest.path}: {counted(summary['n_samples'], 'sample')} of {config.seq_length + 1:,} tokens")
    n_epochs = summary["n_epochs"]
    epochs = "" if n_epochs is None else f"{counted(n_epochs, 'epoch')} of "
    separate = ", the last shuffled separately" if summary.get("has_separate_epoch") else ""
    note(
        f"{epochs}{counted(summary['n_documents'], 'document')}, "
        f"{counted(summary['tokens_per_epoch'], 'token')}{' each' if epochs else ''}{separate}; "
        f"seed {config.seed}"
    )
    if replaced := summary.get("replaced_by_gpt_neox"):
        used = "this order too" if config.compat else "this order has the true ones"
        note(f"GPT-NeoX cannot read samples {replaced} and reads others instead; {used}")
    if config.batch_size is not None:
        n_steps = config.steps or summary["n_samples"] // config.batch_size
        n_more = summary["n_samples"] - n_steps * config.batch_size
        more = f"; {counted(n_more, 'more sample')}, which the run does not see" if n_more else ""
        note(f"{counted(n_steps, 'step')} of {counted(config.batch_size, 'sample')}{more}")
    note(f"next: pile-tools batch {shell_quote(manifest.folder)} --step 0")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise ConfigError(f"--weights: expected numbers such as 2,1, got {text!r}") from err
