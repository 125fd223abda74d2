"""`pile-tools sample`: makes a small corpus from text on this machine, to try the other commands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools.commands import options
from pile_tools.commands.options import config_options
from pile_tools.jobs import sample
from pile_tools.jobs.sample import SampleConfig
from pile_tools.manifest import Manifest
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, shell_quote


@click.command("sample")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False, readable=False))
@config_options(SampleConfig)
@options.reports
@options.force
def command(out: Path, force: bool, as_json: bool, **settings: Any) -> None:
    """Make a miniature Pile in OUT from text that is installed on this machine.

    Reads the standard library of the running Python, its tests and help topics and, if installed, English
    manual pages and the documents of packages. Shuffles them into Pile-shaped shards OUT/00.jsonl.zst and so
    on. Needs no network; the same machine and options give the same bytes.

    \b
    Examples:
      pile-tools sample demo/shards
      pile-tools sample demo/shards --megabytes 3 --shards 4
      pile-tools sample demo/plain --no-canaries --seed 1
    """
    config = SampleConfig(**settings)
    with Bar("Collecting text", config.text_bytes) as bar:
        found, is_new = sample.run(config, out, force=force, on_progress=bar.update)
    if options.is_reported(found, out, is_new=is_new, as_json=as_json):
        return
    _print_summary(config, found, out)


def _counts(found: Manifest) -> str:
    n_documents = counted(found.summary["n_documents"], "document")
    return f"{n_documents}, {found.summary['n_text_bytes'] / 1e6:,.1f} MB of text"


def _print_summary(config: SampleConfig, found: Manifest, out: Path) -> None:
    for subset in found.summary["subsets"]:
        megabytes = subset["n_text_bytes"] / 1e6
        note(f"  {subset['name']:<16}{counted(subset['n_documents'], 'document'):>17} {megabytes:>8,.2f} MB")
    note(f"{_counts(found)} in {counted(config.shards, 'shard')}, in {out}")
    if not found.summary["is_complete"]:
        note(f"This machine has less text than the requested {config.megabytes:g} MB; this is all of it.")
    if config.canaries:
        note(f"The planted passages are in {out / sample.CANARIES_FILE}")
    tokenizer = out.parent / "tokenizer.json"
    note(f"next: pile-tools train-tokenizer {shell_quote(out)} -o {shell_quote(tokenizer)} --vocab-size 4096")
