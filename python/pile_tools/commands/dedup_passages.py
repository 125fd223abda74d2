"""`pile-tools dedup passages`."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from pile_tools.commands import dedups, options
from pile_tools.commands.options import config_options
from pile_tools.jobs import dedup_passages, rewriting
from pile_tools.jobs.dedup_passages import PassagesConfig
from pile_tools.manifest import Manifest
from pile_tools.read.shards import RecordConfig
from pile_tools.terminal import counted, fit, note

#: On disk are the anchors of all text, and the text around repeated ones.
_COSTS = dedups.Costs(disk=3.0, bytes_per_second=5e6)
#: Besides, the byte offsets of all tokens; the text is tokenized twice.
_COSTS_OF_TOKENS = dedups.Costs(disk=6.0, bytes_per_second=3e6)

#: Longest passages on the page, whose documents are read again.
_N_SHOWN = 10


@click.command("passages")
@dedups.shards_to_folder
@config_options(PassagesConfig)
@dedups.how
@config_options(RecordConfig)
@options.reports
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    length: int | None,
    min_tokens: int | None,
    tokenizer: Path | None,
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
    """Write SHARDS again without passages that occur earlier.

    A byte is cut if it lies in a window of --length bytes, or of --min-tokens tokens, that also begins
    earlier: in a document before, or before in the same one. Windows do not cross documents, and no character
    is split. A document that is repeated whole stays with an empty text: run near or exact first, which
    removes such documents. OUT/ gets the shards, and passages.parquet, which lists every passage with its
    earlier copy.

    \b
    Examples:
      pile-tools dedup passages deduped/ -o cut/ --report cut.html
      pile-tools dedup passages deduped/ -o cut/ --length 500 --dry-run
      pile-tools dedup passages deduped/ -o cut/ --min-tokens 50 --tokenizer gpt2
      pile-tools dedup passages shards/ -o cut/ --protect shards/canaries.json
    """
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    config = PassagesConfig(length=length, min_tokens=min_tokens, tokenizer=tokenizer, records=records)
    job = functools.partial(dedup_passages.run, config=config)
    how = dedups.How(protect, dry_run, report, memory, threads, as_json=as_json, force=force)
    dedups.run(
        shards,
        output,
        job,
        how,
        costs=_COSTS if tokenizer is None else _COSTS_OF_TOKENS,
        page=_page,
        show=_show,
    )


def _page(made: Manifest, title: str) -> str:
    # Imported only where a page is written.
    from pile_tools.present import passages_page

    shown = []
    for found in dedup_passages.longest_passages(made, _N_SHOWN):
        text = rewriting.text_of(made, found.name).encode()[found.start : found.end]
        # A table of someone else may name bytes within a character.
        passage = text.decode(errors="replace")
        shown.append(passages_page.ShownPassage(found.name, found.start, found.copy, passage))
    return passages_page.page(made, title, dedup_passages.window_of(made), shown)


def _show(made: Manifest) -> None:
    summary = made.summary
    note(f"{'MB cut':>12}  {'MB of text':>12}  {'share':>7}  subset")
    for subset in [*summary["subsets"], {**summary, "name": "in all"}]:
        share = subset["n_repeated_bytes"] / max(subset["n_text_bytes"], 1)
        name = "no subset" if subset["name"] is None else fit(subset["name"], 40)
        mb, of = subset["n_repeated_bytes"] / 1e6, subset["n_text_bytes"] / 1e6
        note(f"{mb:>12,.1f}  {of:>12,.1f}  {share:>7.2%}  {name}")
    for subset in summary["subsets"]:
        if subset["n_repeated_bytes"] > dedups.MUCH * subset["n_text_bytes"]:
            name = subset["name"] or "no subset"
            note(f"warning: more than half of {name} is cut; look at its passages first", err=True)
    what = counted(summary["n_passages"], "passage")
    done = "found, none cut" if made.settings["dry_run"] else "cut"
    note(f"{what} of at least {dedup_passages.window_of(made)} {done}")
