"""`pile-tools tokenize`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.commands.origins import subset_labels
from pile_tools.jobs.tokenize import TokenizeConfig, finished, run
from pile_tools.manifest import MANIFEST_SUFFIX, Manifest
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig, has_stream
from pile_tools.terminal import cell_columns, counted, note, padded, shell_quote
from pile_tools.tokens import datasets, parts
from pile_tools.tokens.parts import Part


@click.command("tokenize")
@options.shards
@options.dataset_output
@config_options(TokenizeConfig)
@config_options(RecordConfig)
@click.option("--no-eod", is_flag=True, help="Do not end documents with an end-of-document token.")
@click.option(
    "--part",
    metavar="I/N",
    help="Make only part I of N, for a job scheduler; `merge` joins the parts.",
)
@click.option(
    "--distributed",
    is_flag=True,
    help="Tokenize the shards as tasks on Ray, by default with one thread each.",
)
@options.threads
@options.reports
@options.force
def command(
    shards: tuple[Path, ...],
    output: Path,
    tokenizer: Path,
    eod: str | None,
    add_special_tokens: bool,
    no_eod: bool,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    part: str | None,
    distributed: bool,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Tokenize SHARDS (files, folders or globs) into GPT-NeoX's memory-mapped format.

    Shards are .jsonl, .ndjson and .json files with {"text": ..., "meta": {"pile_set_name": ...}} or a string
    on each line; .txt files, each one document; all of these also compressed (.zst, .zstd, .gz); and .parquet
    files with a column of texts. Other files in a folder are ignored and reported. Shards are read in
    byte-wise order of their paths, which is the order of the dataset. The provenance of each document and the
    manifest are written beside PREFIX.bin and PREFIX.idx. An interrupted run resumes at its first unfinished
    shard. SHARDS may be - for .jsonl from standard input, or pipes as of <(...); a run over those starts from
    the beginning.

    \b
    Examples:
      pile-tools tokenize shards/ -o tokens/sample --tokenizer tokenizer.json
      pile-tools tokenize 'pile/*.jsonl.zst' -o tokens/pile \\
        --tokenizer EleutherAI/pythia-70m --threads 8
      pile-tools tokenize web/*.parquet -o tokens/web --tokenizer tokenizer.json \\
        --text-field content
      lzop -dc a.jsonl.lzo | pile-tools tokenize - -o tokens/a \\
        --tokenizer tokenizer.json
      pile-tools tokenize pile/ -o tokens/pile --tokenizer 20B_tokenizer.json \\
        --part 3/16
      pile-tools tokenize pile/ -o tokens/pile --tokenizer 20B_tokenizer.json \\
        --distributed
    """
    if eod is not None and no_eod:
        raise click.UsageError("--eod and --no-eod exclude each other")
    if part is not None and distributed:
        raise click.UsageError("--part and --distributed exclude each other")
    if has_stream(shards) and (part is not None or distributed):
        raise click.UsageError("standard input and pipes cannot be divided into parts")
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    config = TokenizeConfig(
        tokenizer=tokenizer,
        eod=eod,
        add_special_tokens=add_special_tokens,
        append_eod=not no_eod,
        records=records,
    )
    found = artifacts.find_shards(shards)
    if distributed:
        _run_distributed(found, output, config, options.threads_of_tasks(threads), force, as_json)
        return
    only = None if part is None else Part.parse(part)
    started = time.monotonic()
    with Bar("tokenizing", options.size_of(list(found if only is None else only.of(found)))) as bar:
        result = run(found, output, config, threads=threads, part=only, force=force, on_progress=bar.update)
    made = output if only is None else only.prefix(output)
    if only is not None and datasets.prefix_of(result.manifest) != made and not as_json:
        note(f"{output} is finished already: part {only} of it is not needed")
        return
    if options.is_reported(result.manifest, made, is_new=result.is_new, as_json=as_json):
        return
    if result.n_resumed_shards:
        note(
            f"resumed after {counted(result.n_resumed_shards, 'shard')} that an interrupted run had finished"
        )
    # The time of an interrupted run is unknown, so there is no rate for the whole.
    seconds = None if result.n_resumed_shards else time.monotonic() - started
    _print_summary(made, result.manifest, seconds)
    if only is not None:
        folder = shell_quote(made.parent)
        note(f"when all parts are finished: pile-tools merge {folder} -o {shell_quote(output)}")


def _run_distributed(
    shards: list[Path], output: Path, config: TokenizeConfig, threads: int, force: bool, as_json: bool
) -> None:
    done = finished(shards, output, config, force=force)
    if done is not None:
        # Parts of a run that was stopped after it had joined them.
        parts.remove(output, parts.finished_parts(done, output, len(shards)))
        options.is_reported(done, output, is_new=False, as_json=as_json)
        return
    # Imported here because ray is an optional dependency.
    from pile_tools.jobs import distributed_tokenize, merge

    started = time.monotonic()
    with Bar("tokenizing", options.size_of(shards)) as bar:
        made = distributed_tokenize.make_parts(
            shards, output, config, threads=threads, force=force, on_progress=bar.update
        )
    n_bytes = options.size_of([datasets.with_suffix(part, ".bin") for part in made])
    with Bar("merging", n_bytes) as bar:
        lenience = config.records.on_bad_record
        result = merge.run(made, output, lenience=lenience, force=force, on_progress=bar.update)
    parts.remove(output, parts.finished_parts(result.manifest, output, len(shards)))
    if options.is_reported(result.manifest, output, is_new=True, as_json=as_json):
        return
    _print_summary(output, result.manifest, time.monotonic() - started)


def _print_left_out(output: Path, shards: list[dict[str, Any]]) -> None:
    """Prints what was replaced or left out of the records, if anything was."""
    if n := sum(shard["n_lone_surrogates"] for shard in shards):
        note(f"{counted(n, 'lone surrogate')} in the JSON became U+FFFD")
    bad = [shard for shard in shards if shard["bad_records"]["n"]]
    if bad:
        n = sum(shard["bad_records"]["n"] for shard in bad)
        note(f"{counted(n, 'bad record')} left out, listed in {output}{MANIFEST_SUFFIX}:")
    for shard in bad[:5]:
        first = shard["bad_records"]["first"][0]
        note(
            f"  {shard['path']}: {shard['bad_records']['n']:,}, the first at record {first['record']:,}, "
            f"byte {first['byte']:,}: {first['reason']}"
        )
    if len(bad) > 5:
        note(f"  and more in {counted(len(bad) - 5, 'other shard')}")


def _print_summary(output: Path, manifest: Manifest, seconds: float | None) -> None:
    summary = manifest.summary
    n_text_bytes = sum(subset.get("n_text_bytes", 0) for subset in summary["subsets"])
    n_empty = sum(shard["n_empty"] for shard in summary["shards"])
    note(
        f"{output}: {counted(summary['n_documents'], 'document')}, {counted(summary['n_tokens'], 'token')} "
        f"({summary['dtype']}) from {counted(len(summary['shards']), 'shard')}"
    )
    eod = (
        "no token after each document"
        if summary.get("eod") is None
        else f"{summary['eod']} after each document"
    )
    note(f"{eod}; {counted(n_empty, 'empty text')} left out")
    _print_left_out(output, summary["shards"])
    options.print_passed_over(manifest)
    if not summary["n_tokens"]:
        return
    megabytes, millions = n_text_bytes / 1e6, summary["n_tokens"] / 1e6
    speed = ""
    if seconds is not None:
        rates = f"{megabytes / seconds:,.1f} MB/s, {millions / seconds:,.1f} M tokens/s"
        speed = f" in {seconds:.1f} s: {rates}"
    note(f"{megabytes:,.1f} MB of text{speed}; {megabytes / millions:.2f} bytes a token")
    subsets = sorted(summary["subsets"], key=lambda subset: -subset["n_tokens"])
    names = subset_labels([subset["name"] for subset in subsets])
    # The other columns and the spaces between them take 54; two remain at the right.
    n_columns = cell_columns(names, 56)
    for name, subset in zip(names, subsets, strict=True):
        share = subset["n_tokens"] / summary["n_tokens"]
        note(
            f"  {padded(name, n_columns)}  "
            f"{counted(subset['n_documents'], 'document'):>20} "
            f"{counted(subset['n_tokens'], 'token'):>21}  {share:6.1%}"
        )
