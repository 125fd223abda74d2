"""`pile-tools trace`."""

from __future__ import annotations

import click

from pile_tools import timeline
from pile_tools.commands import options
from pile_tools.commands.opening import opened_order
from pile_tools.commands.places import source_of
from pile_tools.errors import ConfigError
from pile_tools.terminal import echo, echo_json
from pile_tools.timeline.checkpoints import intervals


@click.command("trace")
@click.argument("order")
@click.argument("document", type=int)
@click.option(
    "--checkpoints",
    metavar="N|LIST|DIR",
    help="Every N steps, a list such as 0,100,200, or a run's folder.  [default: Pythia's 154]",
)
@click.option("--json", "as_json", is_flag=True, help="Print each part as a line of JSON.")
@options.batch_size
@options.row_length
@options.compat
def command(
    order: str,
    document: int,
    checkpoints: str | None,
    as_json: bool,
    batch_size: int | None,
    row_length: int | None,
    compat: str | None,
) -> None:
    """Print every step of ORDER that sees any part of DOCUMENT, in which epoch, and which of its tokens.

    GPT-NeoX shuffles the documents of all epochs together: the epoch is the number of the document's copy.

    \b
    Examples:
      pile-tools trace tokens/ 633
      pile-tools trace tokens/ 633 --json
    """
    opened = opened_order(order, row_length, batch_size, compat)
    if document < 0:
        raise click.UsageError(f"documents are numbered from 0, got {document}")
    if not opened.knows_documents:
        raise ConfigError(f"the order is of rows, whose documents are not known ({order})")
    views = timeline.trace(opened, document, batch_size=batch_size)
    n_steps, _ = timeline.extent(opened, batch_size)
    dataset = opened.dataset
    if as_json:
        for row in views:
            echo_json(dict(zip(views.dtype.names or (), row.tolist(), strict=True)))
        return
    echo(f"document {document:,}: {len(dataset[document]):,} tokens, {source_of(dataset, document)}")
    if not len(views):
        echo("no sample of the order holds any of it")
        return
    cut = intervals(checkpoints, n_steps)
    echo()
    echo(f"{'step':>9}  {'row':>6}  {'epoch':>5}  {'tokens of document':>18}  {'from in row':>11}  between")
    for view in views:
        step = int(view["step"])
        label = cut.labels()[int(cut.of(view["step"]))] if step < n_steps else "behind the run's last step"
        tokens = f"{view['token']:,} to {view['token'] + view['length'] - 1:,}"
        echo(
            f"{step:>9,}  {view['row']:>6,}  {view['epoch'] + 1:>5}  {tokens:>18}  "
            f"{view['offset']:>11,}  {label}"
        )
