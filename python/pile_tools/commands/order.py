"""`pile-tools order`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.cli import config_options
from pile_tools.commands import options
from pile_tools.progress import Bar
from pile_tools.stages.order import OrderConfig, run


@click.command("order")
@click.argument("prefix", type=options.PATH)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="DIR",
    help="Folder of the order; by default the dataset's own.",
)
@config_options(OrderConfig)
@options.force
def command(prefix: Path, output: Path | None, force: bool, **settings: int | None) -> None:
    """Build the order in which a model sees the dataset PREFIX, bit for bit as GPT-NeoX does.

    Writes order.json and GPT-NeoX's three index files, which GPT-NeoX itself then finds and uses. With
    --steps and --batch-size it asks for 1.005 times the samples, as GPT-NeoX does for a data path of its own.

    \b
    Examples:
      pile-tools order tokens/sample --seq-length 2048 --steps 143000 --batch-size 1024 --seed 1234
      pile-tools order tokens/sample -o order-256 --seq-length 256 --samples 10000 --seed 1
    """
    config = OrderConfig(**settings)  # type: ignore[arg-type]  # the options are made from its fields
    with Bar("ordering", None, "samples") as bar:
        manifest, is_new = run(prefix, output, config, force=force, on_progress=bar.update)
    if not is_new:
        click.echo(f"{manifest.path} is finished already, nothing to do")
        return
    summary = manifest.summary
    n_epochs = summary["n_epochs"]
    click.echo(f"{manifest.path}: {summary['n_samples']:,} samples of {config.seq_length + 1:,} tokens")
    click.echo(
        f"{n_epochs} {'epoch' if n_epochs == 1 else 'epochs'} of {summary['n_documents']:,} documents, "
        f"{summary['tokens_per_epoch']:,} tokens each; seed {config.seed}"
    )
    if config.batch_size is not None:
        click.echo(f"{summary['n_samples'] // config.batch_size:,} steps of {config.batch_size:,} samples")
    click.echo(f"look at one: pile-tools batch {manifest.folder} --step 0")
