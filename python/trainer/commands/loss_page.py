"""`pile-train loss-page RUN ... -o losses.html`: a page that compares the losses of runs."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.errors import ConfigError
from pile_tools.present import pages
from pile_tools.terminal import counted, note, print_document
from trainer.loss_page import loss_page, open_logged


@click.command("loss-page", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", nargs=-1, required=True, type=artifacts.RUN, metavar="RUN...")
@click.option("-o", "--output", type=options.PATH, required=True, metavar="FILE.html", help="The page.")
@options.reports
def command(runs: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Draw the losses of runs, folders of pile-train, finished or not, on a page that needs no other file.

    Training loss of up to eight runs, how far they are from the first one, validation loss and bits per
    byte, gradient norm, learning rate and speed; the settings in which they differ. A page of ours at FILE is
    replaced, so that the command can be repeated while runs train.

    \b
    Examples:
      pile-train loss-page demo/run -o losses.html
      pile-train loss-page control/ changed/ -o compared.html
    """
    if output.suffix != ".html":
        raise ConfigError(f"-o writes a page, FILE.html ({output})")
    found = open_logged(runs)
    pages.write(output, loss_page(found), [run.run.record.path for run in found])
    if as_json:
        listed = [{"run": str(run.run.folder), "n_steps": len(run.log)} for run in found]
        print_document({"file": str(output), "runs": listed})
        return
    note(f"{output}: {counted(len(found), 'run')}")
