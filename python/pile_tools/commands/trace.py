"""`pile-tools trace`."""

from __future__ import annotations

import click

from pile_tools import timeline
from pile_tools.commands import artifacts, options
from pile_tools.commands.orders import opened_order
from pile_tools.commands.origins import source_of
from pile_tools.errors import ConfigError
from pile_tools.tables import records
from pile_tools.terminal import counted, echo, print_document
from pile_tools.timeline.checkpoints import intervals


@click.command("trace")
@click.argument("order", type=artifacts.ORDER_OR_ADDRESS)
@click.argument("document", type=int)
@options.checkpoints
@options.reports
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
    """Print every step of ORDER that sees a part of DOCUMENT, with the epoch and the tokens seen.

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
        raise ConfigError(f"the documents of the order's rows are unknown ({order})")
    seen = timeline.trace(opened, document, batch_size=batch_size)
    n_steps, _ = timeline.extent(opened, batch_size)
    between = intervals(checkpoints, n_steps)
    dataset = opened.dataset
    n_tokens = len(dataset[document])
    if as_json:
        about = {"document": document, "n_tokens": n_tokens, "origin": dataset.origin(document)}
        print_document(about | {"n_steps": n_steps, "parts": records(seen)})
        return
    echo(f"document {document:,}: {counted(n_tokens, 'token')}, {source_of(dataset, document)}")
    if not len(seen):
        echo("no sample of the order holds a part of it")
        return
    echo()
    echo(f"{'step':>9}  {'row':>6}  {'epoch':>5}  {'tokens':>17}  {'offset':>6}  between")
    labels = between.labels()
    for part in seen:
        step = int(part["step"])
        label = labels[int(between.of(part["step"]))] if step < n_steps else "after the run's last step"
        tokens = f"{part['token']:,} to {part['token'] + part['length'] - 1:,}"
        echo(
            f"{step:>9,}  {part['row']:>6,}  {part['epoch'] + 1:>5}  {tokens:>17}  "
            f"{part['offset']:>6,}  {label}"
        )
