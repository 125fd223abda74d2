"""`pile-tools dedup`: one subcommand for each kind of copy, and `restore`."""

from __future__ import annotations

import click

from pile_tools.commands.groups import lazy_group

SECTIONS = {
    "Commands": {
        "exact": "pile_tools.commands.dedup_exact",
        "near": "pile_tools.commands.dedup_near",
        "passages": "pile_tools.commands.dedup_passages",
        "signatures": "pile_tools.commands.dedup_signatures",
        "restore": "pile_tools.commands.dedup_restore",
    }
}


@click.group("dedup", cls=lazy_group(SECTIONS))
def command() -> None:
    """Write shards again without copies of documents or passages, with a list of what went and why.

    \b
    Examples:
      pile-tools dedup near shards/ -o deduped/ --report deduped.html
      pile-tools dedup exact shards/ -o deduped/ --normalize whitespace
      pile-tools dedup passages deduped/ -o cut/
      pile-tools dedup signatures shards/ -o sigs/ --part 1/4
      pile-tools dedup restore deduped/ 04.jsonl.zst:52
    """
