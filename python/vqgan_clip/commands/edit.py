"""`vqgan-clip edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools.commands import options
from pile_tools.commands.options import config_options
from vqgan_clip.commands.making import make_given, model_options, picture_output, run_options
from vqgan_clip.config import GuidanceConfig


@click.command("edit")
@click.argument("image", type=options.PATH)
@click.argument("prompts", default="")
@picture_output
@click.option(
    "--mask", type=options.PATH, metavar="FILE", help="Image of the same size, white where to edit."
)
@click.option("--mask-text", metavar="TEXT", help="Edit what this names; CLIP finds it.")
@click.option(
    "--dilate",
    type=click.IntRange(0, 4096),
    default=0,
    show_default=True,
    help="Pixels by which the mask grows.",
)
@model_options
@run_options
@config_options(GuidanceConfig)
@options.reports
@options.force
def command(
    image: Path,
    prompts: str,
    output: Path,
    mask: Path | None,
    mask_text: str | None,
    dilate: int,
    **given: Any,
) -> None:
    """Change IMAGE until CLIP finds that it matches PROMPTS, which describe the whole result.

    Outside a mask every pixel stays as it is. Without one, --pull 0.5 keeps what the prompts leave open.

    \b
    Examples:
      vqgan-clip edit circle.png "a green circle on a blue background" \\
        -o green.png --pull 0.5
      vqgan-clip edit circle.png "a green circle on a blue background" \\
        -o green.png --mask-text "a red circle" --dilate 2
    """
    make_given(
        output,
        given,
        prompts=prompts,
        image=str(image),
        mask=None if mask is None else str(mask),
        mask_text=mask_text,
        dilate=dilate,
    )
