"""`pile-tools shard`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.jobs.token_shards import SHARD_BYTES, find_token_shards, shard
from pile_tools.order.order import PYTHIA_ROW_LENGTH
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, shell_quote

#: Bytes of one of Pythia's rows. A file of other rows, or of documents, does not open as an order by default.
PYTHIA_ROW_BYTES = 2 * PYTHIA_ROW_LENGTH


@click.command("shard")
@click.argument("file", type=artifacts.TOKEN_FILE)
@click.option("-o", "--output", type=options.PATH, metavar="DIR", required=True, help="Folder of the shards.")
@click.option(
    "--bytes",
    "shard_bytes",
    type=click.IntRange(min=1),
    default=SHARD_BYTES,
    show_default=True,
    help="Bytes of a shard.",
)
@options.reports
@options.force
def command(file: Path, output: Path, shard_bytes: int, force: bool, as_json: bool) -> None:
    """Split the token file FILE into shards named as Pythia's, NAME-000NN-of-000MM.bin.

    \b
    Examples:
      pile-tools shard tokens/sample.bin -o shards
      pile-tools shard tokens/sample.bin -o shards --bytes 1000000
    """
    files = find_token_shards(file)
    size = sum(n_bytes for _, n_bytes in files)
    done = 0
    with Bar("splitting", size, "bytes") as bar:

        def on_bytes(n: int) -> None:
            nonlocal done
            done += n
            bar.update(done)

        manifest, is_new = shard(file, output, shard_bytes=shard_bytes, force=force, on_bytes=on_bytes)
    if options.is_reported(manifest, output, is_new=is_new, as_json=as_json):
        return
    names = [entry["path"] for entry in manifest.outputs]
    named = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    note(f"{output}: {counted(len(names), 'shard')}, {counted(size, 'byte')} in all: {named}")
    if size % PYTHIA_ROW_BYTES == 0:
        note(f"next: pile-tools batch {shell_quote(output)} --step 0")
