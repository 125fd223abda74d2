"""`pile-tools unshard`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.jobs.token_shards import find_token_shards, unshard
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note


@click.command("unshard")
@click.argument("path", type=artifacts.TOKEN_FILE)
@click.option("-o", "--output", type=options.PATH, metavar="FILE.bin", required=True, help="File to write.")
@options.reports
@options.force
def command(path: Path, output: Path, force: bool, as_json: bool) -> None:
    """Join the shards in the folder PATH into one file.

    For other tools: pile-tools reads shards directly.

    \b
    Examples:
      pile-tools unshard pythia_deduped_pile_idxmaps \\
        -o pile_0.87_deduped_text_document.bin
    """
    size = sum(n_bytes for _, n_bytes in find_token_shards(path))
    done = 0
    with Bar("copying", size, "bytes") as bar:

        def on_bytes(n: int) -> None:
            nonlocal done
            done += n
            bar.update(done)

        manifest, is_new = unshard(path, output, force=force, on_bytes=on_bytes)
    if not options.is_reported(manifest, output, is_new=is_new, as_json=as_json):
        note(f"{output}: {counted(size, 'byte')} from {counted(len(manifest.inputs), 'shard')}")
