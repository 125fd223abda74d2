"""`pile-tools train-tokenizer`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.jobs.train_tokenizer import SPECIAL_TOKENS, TrainTokenizerConfig, run
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig
from pile_tools.terminal import counted, note


class Bars:
    """A progress bar for the bytes whose words are counted, then one for the merges; a context manager.

    The size of standard input is unknown, so that it has only the first bar.
    """

    def __init__(self, n_bytes: int | None, n_merges: int) -> None:
        self._n_bytes, self._n_merges = n_bytes, n_merges
        self._stack = ExitStack()
        self._merging: Bar | None = None

    def __enter__(self) -> Self:
        self._counting = self._stack.enter_context(Bar("counting words", self._n_bytes))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update(self, done: int) -> None:
        """Shows `done` units: the bytes counted, then all bytes plus the merges made."""
        n_merged = 0 if self._n_bytes is None else done - self._n_bytes
        if self._merging is None and n_merged <= 0:
            self._counting.update(done)
            return
        if self._merging is None:
            self._stack.close()
            self._merging = self._stack.enter_context(Bar("merging", self._n_merges, "merges"))
        self._merging.update(n_merged)


@click.command("train-tokenizer")
@options.shards
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="FILE", help="The tokenizer.json to write."
)
@config_options(TrainTokenizerConfig)
@config_options(RecordConfig)
@click.option(
    "--special-token",
    "special_tokens",
    multiple=True,
    default=SPECIAL_TOKENS,
    show_default=True,
    metavar="TOKEN",
    help="A token whose id precedes all others, the first 0; give the option once for each token.",
)
@options.threads
@options.reports
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    threads: int,
    force: bool,
    as_json: bool,
    vocab_size: int,
    min_frequency: int,
    special_tokens: tuple[str, ...],
) -> None:
    """Train a byte-level BPE tokenizer on SHARDS: files, folders or globs as `tokenize` takes them.

    Writes a tokenizer.json of Hugging Face's format, like that of GPT-NeoX-20B: NFC, GPT-2's pretokenizer,
    and special tokens first. The merges are those of Hugging Face's trainer, for any number of threads.

    \b
    Examples:
      pile-tools train-tokenizer shards/ -o tokenizer.json --vocab-size 4096
      pile-tools train-tokenizer 'shards/0*.jsonl.zst' -o tokenizer.json
      pile-tools train-tokenizer shards/ -o tokenizer.json --special-token '<s>' \\
        --special-token '</s>'
    """
    config = TrainTokenizerConfig(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=special_tokens,
        records=RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record),
    )
    found = artifacts.find_shards(shards)
    with Bars(options.size_of(found), config.n_merges) as bars:
        manifest, is_new = run(found, output, config, threads=threads, force=force, on_progress=bars.update)
    if options.is_reported(manifest, output, is_new=is_new, as_json=as_json):
        return
    summary = manifest.summary
    note(f"{output}: {counted(summary['vocab_size'], 'token')}, {counted(summary['n_merges'], 'merge')}")
    note(
        f"trained on {counted(summary['n_documents'], 'document')}, "
        f"{summary['n_text_bytes'] / 1e6:,.1f} MB of text in {counted(len(found), 'shard')}"
    )
    if summary["n_bad_records"]:
        note(f"{counted(summary['n_bad_records'], 'bad record')} left out")
    options.print_passed_over(manifest)
    if summary["vocab_size"] < config.vocab_size:
        note(f"the text has no more pairs to merge: fewer tokens than the requested {config.vocab_size:,}")
