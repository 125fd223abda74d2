"""`pile-tools merge`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.jobs.merge import Result, find_datasets, run
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, shell_quote
from pile_tools.tokens import datasets


@click.command("merge")
@click.argument("inputs", nargs=-1, required=True, type=artifacts.FILES_OF_DATASET)
@options.dataset_output
@options.reports
@options.force
def command(inputs: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Join token datasets into one, with the provenance of their documents.

    INPUTS are prefixes of datasets, any of their files, or folders of datasets; they are joined in the order
    given, those of a folder by name, without the output. A dataset given twice is included twice; several of
    its files name it once. Datasets of GPT-NeoX and Megatron-LM are read too. Tokens of different tokenizers
    are refused.

    The parts that `tokenize --part i/n` wrote give the dataset of a single run, byte for byte; missing
    parts are named.

    \b
    Examples:
      pile-tools merge tokens/books tokens/code -o tokens/both
      pile-tools merge tokens/pile.parts -o tokens/pile
    """
    found = find_datasets(inputs, output)
    n_bytes = sum(datasets.token_bytes(prefix) for prefix in found)
    started = time.monotonic()
    with Bar("merging", n_bytes) as bar:
        result = run(found, output, force=force, on_progress=bar.update)
    if options.is_reported(result.manifest, output, is_new=result.is_new, as_json=as_json):
        return
    print_summary(output, result, len(found))
    note(f"{n_bytes / 1e6:,.1f} MB of tokens in {time.monotonic() - started:.1f} s, checksums included")
    if result.is_whole:
        note(f"the parts are no longer needed: rm -r {shell_quote(found[0].parent)}")


def print_summary(output: Path, result: Result, n_inputs: int) -> None:
    """Prints the datasets that were joined, and which of them lack provenance or a document array."""
    summary = result.manifest.summary
    what = "part" if result.is_whole else "dataset"
    note(
        f"{output}: {counted(summary['n_documents'], 'document')}, {counted(summary['n_tokens'], 'token')} "
        f"({summary['dtype']}) from {counted(n_inputs, what)}"
    )
    for part in summary.get("parts", []):
        n_documents, n_tokens = counted(part["n_documents"], "document"), counted(part["n_tokens"], "token")
        note(f"  {part['path']}: {n_documents}, {n_tokens}")
        if part["is_document_array_lost"]:
            note("    GPT-NeoX's merge lost its document array: each sequence is now a document")
        if not part["has_provenance"]:
            note("    has no provenance: the origin of its documents is unknown")
