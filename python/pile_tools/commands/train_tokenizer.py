"""`pile-tools train-tokenizer`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.cli import config_options
from pile_tools.commands import options
from pile_tools.progress import Bar
from pile_tools.shards import RecordConfig, find_shards
from pile_tools.stages.train_tokenizer import TrainTokenizerConfig, run


@click.command("train-tokenizer")
@options.shards
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="FILE", help="The tokenizer.json to write."
)
@config_options(TrainTokenizerConfig)
@config_options(RecordConfig)
@options.threads
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    text_field: str,
    on_bad_record: str,
    threads: int,
    force: bool,
    **settings: int,
) -> None:
    """Train a byte-level BPE tokenizer on SHARDS: files, folders or globs as `tokenize` takes them.

    Writes Hugging Face's tokenizer.json, as GPT-NeoX-20B's: NFC, GPT-2's words, <|endoftext|> and <|padding|>
    as ids 0 and 1. The result is the same for any number of threads.

    \b
    Examples:
      pile-tools train-tokenizer shards/ -o tokenizer.json --vocab-size 4096
      pile-tools train-tokenizer 'shards/0*.jsonl.zst' -o tokenizer.json
    """
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record)
    config = TrainTokenizerConfig(records=records, **settings)
    found = find_shards(shards)
    with Bar("training", options.size_of(found)) as bar:
        manifest, is_new = run(found, output, config, threads=threads, force=force, on_progress=bar.update)
    if not is_new:
        click.echo(f"{output} is finished already, nothing to do")
        return
    summary = manifest.summary
    click.echo(f"{output}: {summary['vocab_size']:,} tokens, {summary['n_merges']:,} merges")
    click.echo(
        f"trained on {summary['n_documents']:,} documents, {summary['n_text_bytes'] / 1e6:,.1f} MB of text "
        f"in {len(found)} shards"
    )
    if summary["n_bad_records"]:
        click.echo(f"{summary['n_bad_records']:,} bad records left out")
    if summary["vocab_size"] < config.vocab_size:
        click.echo(
            f"the text has no more pairs to merge: fewer tokens than the {config.vocab_size:,} asked for"
        )
