"""`pile-tools label`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.commands.origins import shown_subset
from pile_tools.jobs.label import LabelConfig, run
from pile_tools.manifest import Manifest
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig
from pile_tools.terminal import cell_columns, counted, note, padded
from pile_tools.tokens import datasets


@click.command("label")
@click.argument("prefix", type=artifacts.DATASET)
@options.shards
@config_options(LabelConfig)
@config_options(RecordConfig)
@options.threads
@options.reports
@options.force
def command(
    prefix: Path,
    shards: tuple[Path, ...],
    tokenizer: Path,
    eod: str | None,
    add_special_tokens: bool,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Find the origin of the documents of the dataset at PREFIX by comparing tokens.

    For datasets that GPT-NeoX or Megatron-LM wrote: SHARDS (files, folders or globs) are tokenized, and each
    document is matched with their records, in any order. Shard, record and subset are written to
    PREFIX.provenance; the origin of documents without a match stays unknown. The dataset is not changed.

    \b
    Examples:
      pile-tools label pile_text_document pile/ --tokenizer 20B_tokenizer.json
    """
    found = artifacts.find_shards(shards)
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    started = time.monotonic()
    # A missing file is named by the job.
    n_bytes = options.size_of([path for path in found if path.exists()])
    # The job hashes the tokens of the dataset too.
    total = None if n_bytes is None else n_bytes + datasets.token_bytes(prefix)
    with Bar("labelling", total) as bar:
        manifest, is_new = run(
            prefix,
            found,
            LabelConfig(tokenizer=tokenizer, eod=eod, add_special_tokens=add_special_tokens, records=records),
            threads=threads,
            force=force,
            on_progress=bar.update,
        )
    if options.is_reported(manifest, manifest.path, is_new=is_new, as_json=as_json):
        return
    _print_summary(prefix, manifest, time.monotonic() - started)


def _print_summary(prefix: Path, manifest: Manifest, seconds: float) -> None:
    summary = manifest.summary
    n, n_found = summary["n_documents"], summary["n_found"]
    note(
        f"{prefix}: {n_found:,} of {counted(n, 'document')} found "
        f"in {counted(len(summary['shards']), 'shard')}, in {seconds:.1f} s"
    )
    eod = manifest.settings["eod"]
    note(f"documents end with {eod if summary['has_eod'] else 'no end-of-document token'}")
    if summary["n_by_order"]:
        note(f"{summary['n_by_order']:,} with the same text as others matched in order")
    if summary["n_ambiguous"]:
        note(
            f"{summary['n_ambiguous']:,} ambiguous, labelled with the first of several records with their "
            "text, whose number differs from that of the documents"
        )
    if n > n_found:
        note(f"{n - n_found:,} not found: the origin is unknown")
    note(f"{summary['n_other_texts']:,} of {counted(summary['n_texts'], 'text')} not in the dataset")
    if summary["n_bad_records"]:
        note(f"{counted(summary['n_bad_records'], 'bad record')} left out")
    options.print_passed_over(manifest)
    rows = [
        ("no subset named" if s["name"] is None else shown_subset(s["name"]), s["n_documents"], s["n_tokens"])
        for s in summary["subsets"]
    ]
    rows.sort(key=lambda row: -row[2])
    if n > n_found:
        rows.append(("not found", n - n_found, summary["n_tokens"] - sum(row[2] for row in rows)))
    n_columns = cell_columns((row[0] for row in rows), 56)
    for name, n_documents, n_tokens in rows:
        share = n_tokens / max(summary["n_tokens"], 1)
        note(
            f"  {padded(name, n_columns)}  {counted(n_documents, 'document'):>20} "
            f"{counted(n_tokens, 'token'):>21}  {share:6.1%}"
        )
