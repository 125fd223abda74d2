"""`vqgan-clip generate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from pile_tools.commands import options
from pile_tools.commands.options import config_options
from pile_tools.errors import ConfigError
from vqgan_clip.commands.making import make_given, model_options, picture_output, run_options
from vqgan_clip.config import GuidanceConfig


@click.command("generate")
@click.argument("prompts", default="")
@picture_output
@click.option(
    "--size", metavar="N|WxH", help="Width and height in pixels.  [default: those of the VQGAN's training]"
)
@click.option(
    "--start",
    default="noise",
    show_default=True,
    metavar="noise|codes|gradient|FILE",
    help="Where to begin: noise, random codes, a gradient of colours, or an image.",
)
@model_options
@run_options
@config_options(GuidanceConfig)
@options.reports
@options.force
def command(
    prompts: str,
    output: Path,
    size: str | None,
    start: str,
    **given: Any,
) -> None:
    """Make a picture that CLIP finds to match PROMPTS.

    Prompts are separated by "|". One may end with a weight, "text:0.5"; a weight below 0 keeps away what the
    text names. After a second colon comes the distance at which a prompt stops pulling. The same seed gives
    the same picture on the same machine, with the same versions and threads.

    \b
    Examples:
      vqgan-clip generate "a red circle on a blue background" -o circle.png
      vqgan-clip generate "a star | a yellow background:0.5 | red:-1" \\
        -o star.png --seed 3 --contact-sheet steps.png
      vqgan-clip generate "a lighthouse at night" -o lighthouse.png \\
        --weights vqgan_f16_1024.ckpt --clip clip-vit-b32 --size 256 --steps 300
    """
    width, height = _parsed_size(size)
    make_given(output, given, prompts=prompts, width=width, height=height, start=start)


def _parsed_size(text: str | None) -> tuple[int, int]:
    """Width and height; 0 for the default."""
    if text is None:
        return 0, 0
    found = re.fullmatch(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?", text.strip().lower())
    if not found:
        raise ConfigError(f"--size must be a number or WIDTHxHEIGHT, got {text!r}")
    return int(found[1]), int(found[2] or found[1])
