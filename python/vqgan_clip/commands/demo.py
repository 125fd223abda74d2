"""`vqgan-clip demo`."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import options
from pile_tools.progress import Bar
from pile_tools.terminal import note


@click.command("demo")
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="DIR", help="Folder of the pictures."
)
@options.reports
@options.force
def command(output: Path, force: bool, as_json: bool) -> None:
    """Make four pictures, edit one of them twice, and show all on a page: under a minute on two cores.

    Uses the small models of the package, so that nothing is downloaded.

    \b
    Examples:
      vqgan-clip demo -o demo-images
      vqgan-clip show demo-images/circle.png
    """
    from vqgan_clip import demo

    with Bar("guiding", demo.N_STEPS, "steps") as bar:
        made, is_new = demo.run(output, force=force, on_progress=bar.update)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    for entry in made.summary["pictures"]:
        note(f"{output / entry['path']}: {entry['prompts']}")
    note(f"open {output / demo.PAGE_FILE} in a browser")
