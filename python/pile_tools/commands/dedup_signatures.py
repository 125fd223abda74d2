"""`pile-tools dedup signatures`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.jobs import signatures
from pile_tools.jobs.signatures import SignaturesConfig
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig
from pile_tools.terminal import counted, note, shell_quote
from pile_tools.tokens.parts import Part


@click.command("signatures")
@options.shards
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="SIGS", help="The folder of the signatures."
)
@config_options(SignaturesConfig)
@click.option(
    "--part",
    metavar="I/N",
    help="Only part I of N of the shards, for a job scheduler, into SIGS.parts/.",
)
@options.memory("Memory for the shingles of one document.")
@options.threads
@config_options(RecordConfig)
@options.reports
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    shingle: str,
    permutations: int,
    normalize: str,
    part: str | None,
    memory: int,
    threads: int,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    as_json: bool,
    force: bool,
) -> None:
    """Store the signatures of SHARDS, so that `dedup near` need not read them first.

    Several machines can share the work: each makes a part, of consecutive shards, and `dedup near` takes all
    of them together. Its output is that of a single run. A killed run resumes at its first unfinished shard.

    \b
    Examples:
      pile-tools dedup signatures shards/ -o sigs/
      pile-tools dedup near shards/ -o deduped/ --signatures sigs/
      pile-tools dedup signatures shards/ -o sigs/ --part 3/16
      pile-tools dedup near shards/ -o deduped/ --signatures sigs.parts/
    """
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    config = SignaturesConfig(
        shingle=shingle, permutations=permutations, normalize=normalize, records=records
    )
    only = None if part is None else Part.parse(part)
    found = artifacts.find_shards(shards)
    started = time.monotonic()
    with Bar("signatures", options.size_of(list(found if only is None else only.of(found)))) as bar:
        made, is_new = signatures.run(
            found,
            output,
            config,
            part=only,
            memory=memory,
            threads=threads,
            force=force,
            on_progress=bar.update,
        )
    folder = output if only is None else signatures.part_folder(output, only)
    if options.is_reported(made, folder, is_new=is_new, as_json=as_json):
        return
    summary = made.summary
    n_bytes = sum(entry["bytes"] for entry in made.outputs)
    note(
        f"{folder}: signatures of {counted(summary['n_documents'], 'document')} from "
        f"{counted(len(summary['shards']), 'shard')}, {n_bytes / 1e6:,.1f} MB, "
        f"in {time.monotonic() - started:.1f} s"
    )
    if n_bad := sum(shard["n_bad_records"] for shard in summary["shards"]):
        note(f"{counted(n_bad, 'bad record')} left out")
    options.print_passed_over(made)
    if only is not None:
        folders = shell_quote(folder.parent)
        note(f"when all parts are finished: pile-tools dedup near SHARDS -o OUT --signatures {folders}")
