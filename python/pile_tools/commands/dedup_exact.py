"""`pile-tools dedup exact`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import dedup_documents, dedups, options
from pile_tools.commands.options import config_options
from pile_tools.jobs.dedup import DedupConfig
from pile_tools.read.shards import RecordConfig


@click.command("exact")
@dedups.shards_to_folder
@config_options(DedupConfig)
@dedup_documents.against
@dedups.how
@config_options(RecordConfig)
@options.reports
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    normalize: str,
    prefer: str,
    mark: bool,
    against: Path | None,
    protect: Path | None,
    dry_run: bool,
    report: Path | None,
    memory: int,
    threads: int,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    as_json: bool,
    force: bool,
) -> None:
    """Write SHARDS again with one copy of each text.

    Texts are found by a hash and compared byte by byte before one is removed. OUT/ gets the shards, with the
    records that stay as they are, and clusters.parquet, which lists every copy, kept ones too.

    \b
    Examples:
      pile-tools dedup exact shards/ -o deduped/
      pile-tools dedup exact shards/ -o deduped/ --normalize whitespace --dry-run
      pile-tools dedup exact shards/ -o deduped/ --prefer subset:Wikipedia,Books
    """
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    config = DedupConfig(normalize=normalize, prefer=prefer, mark=mark, records=records)
    dedup_documents.run(
        shards,
        output,
        config,
        dedups.How(protect, dry_run, report, memory, threads, as_json=as_json, force=force),
        against,
    )
