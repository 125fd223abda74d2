"""`pile-tools contamination`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pile_tools import publish, timeline
from pile_tools._core import TokenDataset
from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.commands.orders import is_order, opened_order
from pile_tools.contamination import starts_with_item
from pile_tools.errors import ConfigError
from pile_tools.harness.task import HarnessTask, LoadedTask, check_before, load
from pile_tools.jobs import contamination
from pile_tools.jobs.contamination import ContaminationConfig, Run
from pile_tools.jobs.count_ngrams import dataset_at
from pile_tools.jobs.rewriting import CLEAN_FILE, MATCHES_FILE, refuse_within
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.progress import Bar
from pile_tools.read.shards import RecordConfig
from pile_tools.terminal import columns, counted, fit, note
from pile_tools.timeline.checkpoints import intervals
from pile_tools.tokens import datasets

#: Columns of the start and of the end of a template: some tasks begin each prompt with examples.
_TEMPLATE_COLUMNS = 30

#: Contaminated items printed.
_N_PRINTED = 5


@click.command("contamination")
@click.argument(
    "inputs",
    nargs=-1,
    required=True,
    type=artifacts.ITEMS_AND_CORPUS,
    metavar="[ITEMS] SHARDS|PREFIX|ORDER...",
)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    required=True,
    metavar="OUT",
    help=f"The folder of {MATCHES_FILE}, items.parquet and {CLEAN_FILE}.",
)
@click.option(
    "--task",
    metavar="NAME",
    help="Instead of ITEMS: the documents of a task of lm-evaluation-harness, which is installed here.",
)
@click.option(
    "--task-folder",
    type=options.PATH,
    metavar="DIR",
    help="A folder with tasks of your own in YAML, beside the harness's.",
)
@config_options(ContaminationConfig)
@config_options(RecordConfig)
@options.checkpoints
@options.batch_size_if_unnamed
@options.row_length
@options.dataset_tokenizer
@options.report("verdicts, and the surest matches beside their items")
@options.threads
@options.reports
@options.force
def command(
    inputs: tuple[Path, ...],
    output: Path,
    task: str | None,
    task_folder: Path | None,
    ngram: int,
    threshold: str,
    max_gap: int,
    name: str | None,
    purify: str | None,
    text_field: str,
    on_bad_record: str,
    max_record: str,
    checkpoints: str | None,
    batch_size: int | None,
    row_length: int | None,
    tokenizer: Path | None,
    report: Path | None,
    threads: int,
    as_json: bool,
    force: bool,
) -> None:
    """Find the documents, and the training steps, that contain the ITEMS of a benchmark.

    ITEMS are JSON lines with a passage, a question or both, and any of id, answer and choices; --task takes
    them from lm-evaluation-harness instead. They are compared as words: lines, case, punctuation and Unicode
    forms do not matter. N-grams count by their rarity in the corpus, so common phrases are no match. The
    corpus is shards (files, folders or globs), the prefix of a token dataset, or an order's folder, for which
    each match also gets the steps that showed it.

    \b
    Examples:
      pile-tools contamination arc.jsonl shards/ -o arc/ --report arc.html
      pile-tools contamination arc.jsonl tokens/sample -o arc/ --threshold 0.6
      pile-tools contamination arc.jsonl tokens/ -o arc/ --checkpoints run/
      pile-tools contamination --task arc_easy shards/ -o arc/
      pile-tools contamination arc.jsonl shards/ -o pure/ --purify documents
    """
    started = time.monotonic()
    records = RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record)
    config = ContaminationConfig(
        ngram=ngram, threshold=threshold, max_gap=max_gap, name=name, purify=purify, records=records
    )
    how = _How(checkpoints, batch_size, row_length, tokenizer, threads, force)
    if task_folder is not None:
        publish.refuse_in_scratch(publish.Target.of(output / MANIFEST_FILE).scratch, [task_folder])
    items, corpus = _items_and_corpus(inputs, task, task_folder, config)
    made, is_new = _find(items, corpus, output, config, how)
    if report is not None:
        # Imported only where a page is written.
        from pile_tools.present import contamination_page

        title = f"Contamination: {made.settings['task']}"
        read = inputs if task_folder is None else (*inputs, task_folder)
        publish.write_page(report, contamination_page.page(made, title), read)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    _print(made, output, time.monotonic() - started)
    if report is not None:
        note(f"report: {report}")


@dataclass(frozen=True)
class _How:
    """The options that are not part of `ContaminationConfig`."""

    checkpoints: str | None
    batch_size: int | None
    row_length: int | None
    tokenizer: Path | None
    threads: int
    force: bool


def _items_and_corpus(
    inputs: tuple[Path, ...], task: str | None, folder: Path | None, config: ContaminationConfig
) -> tuple[Path | HarnessTask, tuple[Path, ...]]:
    """File or task of the items, and the corpus. Raises ConfigError; PileError for other artifacts."""
    items: Path | HarnessTask
    if task is None:
        if folder is not None:
            raise ConfigError("--task-folder is where the task of --task is looked up; give --task")
        items, corpus = inputs[0], inputs[1:]
        if not corpus:
            raise ConfigError("give the items, and the corpus in which to find them; or give --task NAME")
        artifacts.refuse_other(items, ["items"])
    else:
        items, corpus = HarnessTask(task, folder), inputs
        if config.name is not None:
            raise ConfigError("--name is for a file of items; a task has the name that --task gives")
        if starts_with_item(inputs[0], config.records.text_field):
            raise ConfigError(f"--task gives the items; give no file of items as well ({inputs[0]})")
    # Folders were checked as values of the argument, which takes text only as files.
    for path in filter(Path.is_file, corpus):
        artifacts.refuse_other(path, artifacts.CORPUS_KINDS)
    if isinstance(items, HarnessTask):
        check_before(items)
    return items, corpus


def _loaded(items: Path | HarnessTask) -> Path | LoadedTask:
    """The file of the items, or the loaded task. Called once the corpus is known to exist."""
    if isinstance(items, Path):
        return items
    note(f"loading task {items.name}: the harness downloads its data if they are not here yet", err=True)
    return load(items)


def _find(
    items: Path | HarnessTask,
    inputs: tuple[Path, ...],
    output: Path,
    config: ContaminationConfig,
    how: _How,
) -> tuple[Manifest, bool]:
    def run(bar: Bar) -> Run:
        return Run(how.threads, how.force, bar.update)

    has_steps = how.checkpoints is not None or how.row_length is not None or is_order(inputs[0])
    prefix = None if has_steps else dataset_at(inputs[0])
    if config.purify is not None and (has_steps or prefix is not None):
        raise ConfigError("--purify writes shards of text: give the shards of which the tokens were made")
    if has_steps:
        if len(inputs) > 1:
            raise ConfigError("give one order")
        artifacts.refuse_other(inputs[0], ["order"])
        options.refuse_given("an order", *options.OF_RECORDS)
        # `Path.is_dir` raises an error for a list that is longer than the longest file name.
        if how.checkpoints is not None and os.path.isdir(how.checkpoints):  # noqa: PTH112
            refuse_within(Path(how.checkpoints), output, "checkpoints")
        order = opened_order(inputs[0], how.row_length, how.batch_size, has_compat=False)
        n_steps, _ = timeline.extent(order, how.batch_size)
        loaded = _loaded(items)
        with Bar("searching", None, "tokens") as bar:
            return contamination.find_in_order(
                loaded,
                order,
                output,
                config,
                run(bar),
                intervals(how.checkpoints, n_steps),
                tokenizer=order.tokenizer_file(how.tokenizer),
                batch_size=how.batch_size,
            )
    options.refuse_batch_size()
    if prefix is None:
        shards = artifacts.find_shards(inputs)
        n_bytes = options.size_of(shards)
        n_passes = 1 if config.purify is None else 2
        loaded = _loaded(items)
        with Bar("searching", n_bytes and n_passes * n_bytes) as bar:
            return contamination.find_in_shards(loaded, shards, output, config, run(bar))
    if len(inputs) > 1:
        raise ConfigError("give one dataset; `pile-tools merge` joins several")
    options.refuse_given("a dataset", *options.OF_RECORDS)
    dataset = TokenDataset(prefix)
    loaded = _loaded(items)
    with Bar("searching", dataset.n_tokens, "tokens") as bar:
        tokenizer = datasets.tokenizer_file(dataset, how.tokenizer)
        return contamination.find_in_dataset(loaded, prefix, output, config, run(bar), tokenizer=tokenizer)


#: The lines of the summary: a key, and its meaning.
_LINES = {
    "n_verbatim": "verbatim",
    "n_normalized": "all words in order",
    "n_partial": "partial",
    "n_too_common": "too common to tell",
    "n_too_short": "too short to tell",
    "n_clean": "clean",
}


def _print(made: Manifest, output: Path, elapsed: float) -> None:
    summary = made.summary
    note(f"{'items':>9}  {'share':>7}")
    for key, meaning in _LINES.items():
        note(f"{summary[key]:>9,}  {summary[key] / summary['n_items']:>7.2%}  {meaning}")
    if summary["worst"]:
        _print_worst(summary["worst"][:_N_PRINTED])
    note()
    note(f"{counted(summary['n_with_answer'], 'item')} with the answer near the question")
    if "n_seen_items" in summary:
        note(f"{counted(summary['n_seen_items'], 'item')} seen in the run, with all steps in {MATCHES_FILE}")
    note(
        f"{counted(summary['n_documents'], 'document')} searched for "
        f"{counted(summary['n_grams'], 'n-gram')}, of which {summary['n_found_grams']:,} occur"
    )
    if "n_purified" in summary:
        cut = summary["n_cut_bytes"]
        how = "left out" if cut is None else f"with {counted(cut, 'byte')} cut"
        note(f"{counted(summary['n_purified'], 'contaminated document')} {how}")
    if summary.get("n_bad_records"):
        where = "left where they are, not searched" if "n_purified" in summary else "not searched"
        note(f"{counted(summary['n_bad_records'], 'bad record')} {where}")
    if "harness" in summary:
        _print_task(summary)
    note(f"{output}: {counted(summary['n_matches'], 'match')}, in {elapsed:.1f} s")
    options.print_passed_over(made)


def _print_task(summary: dict[str, Any]) -> None:
    start, end = (text.strip() for text in summary["harness"]["template"])
    if start or end:
        words = " and ".join(
            f"'{fit(text, _TEMPLATE_COLUMNS)}' {where}"
            for text, where in ((start, "before"), (end, "after"))
            if text
        )
        note(f"left out of each question: {words}")
    if not summary["n_clean"]:
        note(f"the harness takes an empty list for all documents: do not give it {CLEAN_FILE}")


def _print_worst(worst: list[dict[str, Any]]) -> None:
    is_order = "first_step" in worst[0]
    note()
    note(f"{'documents':>9}  {'score':>7}  " + (f"{'first step':>10}  " if is_order else "") + "item")
    for one in worst:
        step = one.get("first_step")
        shown = f"{'-' if step is None else f'{step:,}':>10}  " if is_order else ""
        start = f"{one['n_documents']:>9,}  {one['score']:>7.4f}  {shown}"
        note(start + fit(f"{one['item']}: {one['item_text']}", columns() - len(start)))
