"""`pile-tools index`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools._core import TokenDataset
from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.errors import ConfigError, UnknownTokenizerError
from pile_tools.jobs.index import IndexConfig, run
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, shell_quote
from pile_tools.types import IndexPlan


@click.command("index")
@click.argument("prefix", type=artifacts.DATASET)
@config_options(IndexConfig)
@options.reports
@options.force
def command(prefix: Path, force: bool, as_json: bool, **settings: Any) -> None:
    """Build the index of the dataset at PREFIX: with it, `search`, `trace-text` and `when` find texts without
    a scan.

    Writes PREFIX.index/: 4 bytes for each token, and slightly more if documents do not end with an
    end-of-document token. The dataset is sorted in segments that fit in --memory; an interrupted run resumes
    with the finished segments. A query searches every segment, so fewer are faster: a segment of 2^31 tokens,
    the largest, takes 17 GB.

    \b
    Examples:
      pile-tools index tokens/sample
      pile-tools index tokens/sample --memory 16GiB
      pile-tools index tokens/foreign --tokenizer tokenizer.json
      pile-tools index tokens/foreign --no-texts
    """
    config = IndexConfig(**settings)
    n_tokens = TokenDataset(prefix).n_tokens
    with Bar("indexing", 2 * n_tokens, "tokens") as bar:
        try:
            manifest, is_new = run(prefix, config, force=force, on_plan=_print_plan, on_progress=bar.update)
        except UnknownTokenizerError as err:
            advice = "give --tokenizer FILE, or --no-texts for an index of tokens alone"
            raise ConfigError(f"{err}; {advice}") from err
    if options.is_reported(manifest, manifest.path, is_new=is_new, as_json=as_json):
        return
    summary = manifest.summary
    n_bytes = sum(entry["bytes"] for entry in manifest.outputs)
    per_token = n_bytes / max(1, summary["n_tokens"])
    note(
        f"{manifest.folder}: {counted(summary['n_tokens'], 'token')} of "
        f"{counted(summary['n_documents'], 'document')}, {_size(n_bytes)}, {per_token:.2f} bytes a token"
    )
    query = "TEXT" if summary["has_bytes"] else "--ids IDS"
    note(f"next: pile-tools search {shell_quote(prefix)} {query}")


def _print_plan(plan: IndexPlan) -> None:
    n_tokens = sum(segment["n_tokens"] for segment in plan["segments"])
    note(
        f"{counted(n_tokens, 'token')} in {counted(len(plan['segments']), 'segment')}: "
        f"{_size(plan['memory_bytes'])} of memory, {_size(plan['disk_bytes'])} on disk",
        err=True,
    )


def _size(n_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:,.1f} {unit}"
    return f"{n_bytes / 1e3:,.1f} kB"
