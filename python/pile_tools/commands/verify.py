"""`pile-tools verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pile_tools.commands import artifacts, options
from pile_tools.errors import ConfigError, VerifyError
from pile_tools.jobs.verify import Check, Totals, run, run_hashes
from pile_tools.terminal import counted, note, print_document, style


@click.command("verify")
@click.argument("path", type=options.PATH)
@click.option(
    "--hashes",
    type=artifacts.TEXT,
    metavar="FILE",
    help="Check the files in PATH by this list of names and SHA-256.",
)
@click.option("--chain", is_flag=True, help="Also check its inputs and theirs, back to the shards.")
@options.reports
def command(path: Path, hashes: Path | None, chain: bool, as_json: bool) -> None:
    """Check that the artifact at PATH matches its manifest: every byte of its files, and its inputs.

    PATH is the prefix of a dataset, the folder of an order or a run, a checkpoint, a study, or any manifest.
    Inputs are checked if they are still here. The last line counts the artifacts and files that were checked,
    the inputs that are absent, and the files without a known checksum.

    \b
    Examples:
      pile-tools verify tokens/sample
      pile-tools verify run/checkpoints/step512
      pile-tools verify report.html --chain
      pile-tools verify pythia_deduped_pile_idxmaps --hashes shard_hashes.txt
    """

    if hashes is not None and chain:
        raise ConfigError("--hashes checks files by a list, which names no inputs: leave out --chain")
    checks: list[Check] = []

    def show(check: Check) -> None:
        checks.append(check)
        color = {"ok": "green", "WRONG": "red"}.get(check.state, "yellow")
        note(style(f"{check.state:<6}", fg=color), f" {check.what}")

    try:
        if hashes is None:
            run(path, chain=chain, on_check=show)
        else:
            run_hashes(path, hashes, on_check=show)
    except VerifyError:
        if as_json:
            print_document(_document(path, checks))
        raise
    if as_json:
        print_document(_document(path, checks))
        return
    if hashes is not None:
        note(f"{path} is what {hashes} says: {counted(len(checks), 'file')}")
        return
    totals = Totals.of(checks)
    counts = f"{counted(totals.n_artifacts, 'artifact')}, {counted(totals.n_files, 'file')}"
    absent = f"{counted(totals.n_absent, 'input')} absent" if totals.n_absent else "nothing absent"
    unsure = f", {totals.n_unsure:,} unverified" if totals.n_unsure else ""
    right = "is what its manifest says" if totals.n_artifacts else "has no manifest, but is well-formed"
    note(f"{path} {right}: {counts}; {absent}{unsure}")


def _document(path: Path, checks: list[Check]) -> dict[str, Any]:
    is_right = not any(check.state == "WRONG" for check in checks)
    found = [{"state": check.state, "what": check.what} for check in checks]
    return {"path": str(path), "is_right": is_right, **asdict(Totals.of(checks)), "checks": found}
