"""`pile-tools tokenize`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pile_tools.cli import config_options
from pile_tools.commands import options
from pile_tools.manifest import Manifest
from pile_tools.progress import Bar
from pile_tools.shards import find_shards
from pile_tools.stages.tokenize import TokenizeConfig, run


@click.command("tokenize")
@options.shards
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    required=True,
    metavar="PREFIX",
    help="Writes PREFIX.bin, PREFIX.idx, ...",
)
@config_options(TokenizeConfig)
@click.option("--no-eod", is_flag=True, help="End documents with no token.")
@options.threads
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    tokenizer: Path,
    eod: str | None,
    no_eod: bool,
    threads: int,
    force: bool,
) -> None:
    """Tokenize SHARDS (files, folders or globs) into GPT-NeoX's memory-mapped format.

    Shards are .jsonl or .jsonl.zst files with one {"text": ..., "meta": {"pile_set_name": ...}} a line. They
    are taken sorted byte-wise by path: that order is the dataset's. Beside PREFIX.bin and PREFIX.idx lie the
    provenance of each document and the manifest. An interrupted run goes on where it stopped.

    \b
    Examples:
      pile-tools tokenize shards/ -o tokens/sample --tokenizer tokenizer.json
      pile-tools tokenize 'pile/*.jsonl.zst' -o tokens/pile --tokenizer EleutherAI/pythia-70m --threads 8
    """
    if eod is not None and no_eod:
        raise click.UsageError("--eod and --no-eod exclude each other")
    config = TokenizeConfig(tokenizer=tokenizer, eod=eod, append_eod=not no_eod)
    found = find_shards(shards)
    started = time.monotonic()
    with Bar("tokenizing", options.size_of(found)) as bar:
        result = run(found, output, config, threads=threads, force=force, on_progress=bar.update)
    if not result.is_new:
        click.echo(f"{output} is finished already, nothing to do")
        return
    if result.n_resumed_shards:
        click.echo(f"went on after {result.n_resumed_shards} shards that an interrupted run had finished")
    _print_summary(output, result.manifest, time.monotonic() - started)


def _print_summary(output: Path, manifest: Manifest, seconds: float) -> None:
    summary = manifest.summary
    n_text_bytes = sum(subset["n_text_bytes"] for subset in summary["subsets"])
    n_empty = sum(shard["n_empty"] for shard in summary["shards"])
    click.echo(
        f"{output}: {summary['n_documents']:,} documents, {summary['n_tokens']:,} tokens "
        f"({summary['dtype']}) from {len(summary['shards'])} shards"
    )
    eod = (
        "no token after each document" if summary["eod"] is None else f"{summary['eod']} after each document"
    )
    click.echo(f"{eod}; {n_empty:,} empty texts left out")
    click.echo(
        f"{n_text_bytes / 1e6:,.1f} MB of text in {seconds:.1f} s: {n_text_bytes / 1e6 / seconds:,.1f} MB/s, "
        f"{n_text_bytes / summary['n_tokens']:.2f} bytes a token"
    )
    width = max(len(subset["name"] or "unknown") for subset in summary["subsets"])
    for subset in sorted(summary["subsets"], key=lambda subset: -subset["n_tokens"]):
        share = subset["n_tokens"] / summary["n_tokens"]
        click.echo(
            f"  {subset['name'] or 'unknown':<{width}}  {subset['n_documents']:>10,} documents "
            f"{subset['n_tokens']:>14,} tokens  {share:6.1%}"
        )
