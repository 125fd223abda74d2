"""`pile-study report`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.terminal import note, shell_quote
from studies.report import job


@click.command("report")
@click.argument("run", type=artifacts.RUN)
@click.option(
    "--memorization",
    type=artifacts.STUDY,
    required=True,
    metavar="DIR",
    help="Results of pile-study memorization for this run.",
)
@click.option(
    "--pictures", type=options.PATH, metavar="DIR", help="Pictures of vqgan-clip demo, shown in a section."
)
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="FILE.html", help="The page to write."
)
@options.reports
@options.force
def command(
    run: Path, memorization: Path, pictures: Path | None, output: Path, force: bool, as_json: bool
) -> None:
    """Write one page about RUN: its data, tokens, order, training and what it memorized.

    The page is a single file that needs no network: send it to a colleague or print it. It measures nothing
    itself; all it says comes from the artifacts' own files, listed at its end with their checksums.

    \b
    Examples:
      pile-study report demo/run --memorization demo/memorization \\
        -o demo/report.html
    """
    made, is_new = job.run(run, memorization, output, pictures=pictures, force=force)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    note(f"{output}: {output.stat().st_size / 1e3:,.0f} kB; open it in a browser")
    note(f"next: pile-tools verify {shell_quote(output)} --chain")
