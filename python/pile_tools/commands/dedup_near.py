"""`pile-tools dedup near`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import dedup_documents, dedups, options
from pile_tools.commands.options import config_options
from pile_tools.jobs.dedup import DedupConfig, NearConfig
from pile_tools.read.shards import RecordConfig


@click.command("near")
@dedups.shards_to_folder
@config_options(NearConfig)
@config_options(DedupConfig)
@dedup_documents.against
@click.option(
    "--unverified",
    is_flag=True,
    help="Do not read OLD's shards: estimate similarities from OLD/signatures/.",
)
@click.option(
    "--keep-signatures",
    is_flag=True,
    help="Store the signatures of the new shards in OUT/signatures/, for --against OUT.",
)
@click.option(
    "--signatures",
    type=options.PATH,
    multiple=True,
    metavar="SIGS",
    help="Use the signatures that `dedup signatures` wrote of SHARDS; repeat it for more folders.",
)
@click.option(
    "--distributed",
    is_flag=True,
    help="Compare as tasks on Ray, by default with one thread each; --memory is for each, too.",
)
@dedups.how
@config_options(RecordConfig)
@options.reports
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    threshold: str,
    shingle: str,
    verify: str,
    permutations: int,
    max_cluster: int,
    large_clusters: bool,
    normalize: str,
    prefer: str,
    mark: bool,
    against: Path | None,
    unverified: bool,
    keep_signatures: bool,
    signatures: tuple[Path, ...],
    distributed: bool,
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
    """Write SHARDS again without copies and near duplicates of documents that stay.

    Candidates are found by MinHash signatures, and each pair is verified by the true similarity of its sets
    of shingles. A document is removed only if its own similarity to one that stays reaches the threshold: in
    a chain A ~ B ~ C the removal of B does not remove C. A text of fewer words than a shingle is only
    deduplicated exactly. OUT/ gets the shards, with the records that stay as they are, and clusters.parquet,
    which lists every member of every cluster, kept ones too.

    \b
    Examples:
      pile-tools dedup near shards/ -o deduped/ --report deduped.html
      pile-tools dedup near shards/ -o deduped/ --threshold 0.8 --dry-run
      pile-tools dedup near shards/ -o deduped/ --protect shards/canaries.json
      pile-tools dedup near shards/ -o marked/ --mark
      pile-tools dedup near 2026/ -o new/ --against deduped/
      pile-tools dedup near shards/ -o deduped/ --signatures sigs.parts/
      RAY_ADDRESS=head:6379 pile-tools dedup near shards/ -o deduped/ --distributed
    """
    near = NearConfig(
        threshold=threshold,
        shingle=shingle,
        verify=verify,
        permutations=permutations,
        max_cluster=max_cluster,
        large_clusters=large_clusters,
    )
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    config = DedupConfig(normalize=normalize, prefer=prefer, mark=mark, near=near, records=records)
    dedup_documents.run(
        shards,
        output,
        config,
        dedups.How(protect, dry_run, report, memory, threads, as_json=as_json, force=force),
        against,
        dedup_documents.Signatures(
            signatures, keeps=keep_signatures, unverified=unverified, are_distributed=distributed
        ),
    )
