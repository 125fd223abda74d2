"""`pile-tools dedup restore`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.jobs.rewriting import restored
from pile_tools.terminal import echo_text, print_document


@click.command("restore")
@click.argument("folder", type=artifacts.DEDUPLICATED, metavar="OUT")
@click.argument("record", metavar="SHARD:RECORD")
@options.reports
def command(folder: Path, record: str, as_json: bool) -> None:
    """Print a record of the shards from which OUT/ was made, removed or not.

    SHARD and RECORD are those of clusters.parquet; the end of the shard's path is enough. The old shard is
    read up to the record.

    \b
    Examples:
      pile-tools dedup restore deduped/ 04.jsonl.zst:52
    """
    text = restored(folder, record).decode(errors="replace")
    if as_json:
        print_document({"record": text})
        return
    echo_text(text)
