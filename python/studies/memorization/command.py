"""`pile-study memorization`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from pile_tools.commands import artifacts, options
from pile_tools.commands.options import config_options
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, shell_quote
from studies.memorization import results, study
from studies.memorization.plan import MemorizationConfig, prepare
from studies.memorization.tables import Group, Summary

#: Checkpoints with few rows not seen that the summary names.
SHOWN_FEW = 3


@click.command("memorization")
@click.argument("run", type=artifacts.RUN)
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="OUT", help="Folder of the results."
)
@click.option(
    "--canaries",
    type=artifacts.TEXT,
    metavar="FILE",
    help="canaries.json of the sample the run was trained on.",
)
@config_options(MemorizationConfig)
@options.reports
@options.force
def command(
    run: Path, output: Path, canaries: Path | None, force: bool, as_json: bool, **settings: Any
) -> None:
    """Measure what each checkpoint of RUN memorized of its training rows.

    Prompted with the first 32 tokens of a row, how many of the next 32 does greedy decoding give back?
    The same rows are scored at each checkpoint: those it was trained on next to those it was not yet. A
    row counts as not seen while no batch has held these tokens as a whole, so the control stays one where
    an order has several epochs. Rows of steps that were skipped are left out, and rows whose text is
    shorter, with padding after it. Canaries, random passages planted a known number of times, tell how
    many repeats it takes. An interrupted study resumes at its last checkpoint.

    \b
    Examples:
      pile-study memorization demo/run -o demo/memorization \\
        --canaries demo/shards/canaries.json
      pile-study memorization demo/run -o quick --rows 256 --checkpoints 1,100,500
    """
    # Small models do little work between two waits: threads that spin meanwhile would take most of the time
    # on a machine that others use too. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    plan = prepare(run, MemorizationConfig(**settings), canaries)
    with Bar("scoring", plan.n_sequences, "sequences") as bar:
        made, is_new = study.run(plan, output, force=force, on_progress=bar.update)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    _print_summary(json.loads((output / results.SUMMARY_FILE).read_text(encoding="utf-8")))
    note(f"results in {output}")
    note(f"next: pile-study report {shell_quote(run)} --memorization {shell_quote(output)} -o report.html")


def _print_summary(summary: Summary) -> None:
    note(f"mean score (share memorized), {counted(summary['continuation_tokens'], 'token')} to continue:")
    note(f"{'step':>8}  {'rows seen':>26}  {'not seen':>26}")
    for table in summary["checkpoints"]:
        note(f"{table['step']:>8,}  {_cell(table['seen']):>26}  {_cell(table['unseen']):>26}")
    few = [table for table in summary["checkpoints"] if table["unseen"]["n"] < summary["n_control"]]
    if few:
        counts = [f"{table['unseen']['n']:,} at step {table['step']:,}" for table in few]
        shown = ", ".join(counts[:SHOWN_FEW]) + (", ..." if len(counts) > SHOWN_FEW else "")
        or_padded = ", or they are padded" if summary.get("n_padded") else ""
        note(f"few rows not seen: {shown}; earlier batches hold the others' tokens{or_padded}")
    if n := summary.get("n_padded"):
        n_tokens = summary["prompt_tokens"] + summary["continuation_tokens"]
        note(f"left out {counted(n, 'row')} whose text has fewer tokens than {n_tokens:,}")
    for level in summary["checkpoints"][-1]["canaries"]:
        n = level["repeats"]
        repeats = "never planted" if n == 0 else "planted once" if n == 1 else f"planted {n:,} times"
        note(f"canaries {repeats}: {_cell(level)}, seen {level['mean_seen']:.1f} times on average")
        if level["n_left_out"]:
            note(f"  {level['n_left_out']:,} more seen though never planted: left out")


def _cell(group: Group) -> str:
    if not group["n"]:
        return "-"
    return f"{group['mean_score']:.4f} ({group['share_memorized']:.2%}) of {group['n']:,}"
