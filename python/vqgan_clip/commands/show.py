"""`vqgan-clip show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pile_tools import config as configs
from pile_tools.commands import options
from pile_tools.terminal import counted, echo, note, print_document


@click.command("show")
@click.argument("picture", type=options.PATH, metavar="FILE.png")
@options.reports
def command(picture: Path, as_json: bool) -> None:
    """Print how a picture of vqgan-clip was made: prompts, seed, settings, and hashes of what was read.

    \b
    Examples:
      vqgan-clip show circle.png
      vqgan-clip show circle.png --json
    """
    from vqgan_clip import metadata

    image, record = metadata.read(picture)
    is_unchanged = metadata.pixels_digest(image) == record.pixels
    recipe = configs.settings(record.recipe)
    if as_json:
        about: dict[str, Any] = {"recipe": recipe, "hashes": record.hashes, "made_by": record.versions}
        size = {"width": image.width, "height": image.height}
        print_document({**about, **size, "n_steps": record.n_steps, "is_unchanged": is_unchanged})
        return
    echo(f"{picture}: {image.width} x {image.height} pixels, {counted(record.n_steps, 'step')}")
    for name, value in {**recipe, **recipe.pop("guidance")}.items():
        if value not in (None, [], "") and name != "guidance":
            echo(f"{name.replace('_', ' ')}: {value if isinstance(value, str) else json.dumps(value)}")
    for name, value in record.versions.items():
        echo(f"{name.replace('_', '-')} {value}")
    for name, value in _flat(record.hashes):
        echo(f"sha256 {str(value)[:16]}...  {name}")
    if not is_unchanged:
        note("the pixels were changed after the picture was made")


def _flat(hashes: Any, name: str = "") -> list[tuple[str, Any]]:
    """The hashes with their names joined."""
    if isinstance(hashes, dict):
        return [found for key, value in hashes.items() for found in _flat(value, f"{name} {key}".strip())]
    if isinstance(hashes, list):
        return [found for value in hashes for found in _flat(value, name)]
    return [(name, hashes)]
