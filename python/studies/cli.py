"""`pile-study`: questions asked of a finished run."""

from __future__ import annotations

import sys

import click

from pile_tools.cli import run
from pile_tools.commands.groups import lazy_group

SECTIONS = {
    "Commands": {
        "memorization": "studies.memorization.command",
        "report": "studies.report.command",
    }
}


@click.group(cls=lazy_group(SECTIONS), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pile-tools")
def group() -> None:
    """Studies of a run of pile-train: each token a model saw is known, and when it saw it.

    \b
    Examples:
      pile-study memorization demo/run -o demo/memorization \\
        --canaries demo/shards/canaries.json
      pile-study report demo/run --memorization demo/memorization \\
        -o demo/report.html

    Exit codes: 0 done, 1 the input or the machine failed, 2 usage, 70 a bug of ours, 130 interrupted.
    """


def main() -> None:
    """The console script."""
    sys.exit(run(group))
