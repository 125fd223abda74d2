"""`vqgan-clip`: images from a prompt, and edits of an image."""

from __future__ import annotations

import sys

import click

from pile_tools.cli import run
from pile_tools.commands.groups import lazy_group

SECTIONS = {
    "Make pictures": {
        "generate": "vqgan_clip.commands.generate",
        "edit": "vqgan_clip.commands.edit",
        "demo": "vqgan_clip.commands.demo",
    },
    "Look at pictures": {
        "show": "vqgan_clip.commands.show",
        "rerun": "vqgan_clip.commands.rerun",
    },
    "Train the small models": {
        "train-toy": "vqgan_clip.commands.train_toy",
    },
}


@click.group(cls=lazy_group(SECTIONS), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pile-tools")
def group() -> None:
    """Images from a prompt, and edits of an image, with no training: VQGAN-CLIP.

    The small models of the package know five drawn shapes in eight colours; weights that you have know more.

    \b
    Examples:
      vqgan-clip generate "a red circle on a blue background" -o circle.png
      vqgan-clip edit circle.png "a green circle on a blue background" \\
        --mask-text "a red circle" -o green.png
      vqgan-clip rerun circle.png
      vqgan-clip demo -o demo-images

    Exit codes: 0 done, 1 the input or the machine failed, 2 usage, 70 a bug of ours, 130 interrupted.
    """


def main() -> None:
    """The console script."""
    sys.exit(run(group))


if __name__ == "__main__":
    main()
