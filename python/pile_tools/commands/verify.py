"""`pile-tools verify`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import options
from pile_tools.jobs.verify import Check, Totals, run, run_hashes
from pile_tools.terminal import echo, style


@click.command("verify")
@click.argument("path", type=options.PATH)
@click.option(
    "--hashes",
    type=options.PATH,
    metavar="FILE",
    help="Check the files in PATH by this list of names and SHA-256.",
)
@click.option("--chain", is_flag=True, help="Also check its inputs and theirs, back to the shards.")
def command(path: Path, hashes: Path | None, chain: bool) -> None:
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

    def show(check: Check) -> None:
        color = {"ok": "green", "WRONG": "red"}.get(check.state, "yellow")
        echo(style(f"{check.state:<6}", fg=color), f" {check.what}")

    if hashes is not None:
        checks = run_hashes(path, hashes, on_check=show)
        echo(f"{path} is what {hashes} says: {len(checks)} files")
        return
    checks = run(path, chain=chain, on_check=show)
    totals = Totals.of(checks)
    counts = f"{_counted(totals.n_artifacts, 'artifact')}, {_counted(totals.n_files, 'file')}"
    absent = f"{_counted(totals.n_absent, 'input')} absent" if totals.n_absent else "nothing absent"
    unsure = f", {totals.n_unsure} unverified" if totals.n_unsure else ""
    right = "is what its manifest says" if totals.n_artifacts else "has no manifest, but is well-formed"
    echo(f"{path} {right}: {counts}; {absent}{unsure}")


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
