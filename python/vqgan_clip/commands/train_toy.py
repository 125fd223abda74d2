"""`vqgan-clip train-toy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools.commands import options
from pile_tools.commands.options import config_options
from pile_tools.progress import Bar
from pile_tools.terminal import note
from vqgan_clip.config import ToyConfig


@click.command("train-toy")
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="DIR", help="Folder of the weights."
)
@config_options(ToyConfig)
@options.reports
@options.force
def command(output: Path, force: bool, as_json: bool, **settings: Any) -> None:
    """Train the small VQGAN and CLIP of this package: on drawn shapes with captions, in minutes.

    Writes vqgan.safetensors with its vqgan.yaml, clip.safetensors and a manifest. The package's own weights
    were made by this command with its defaults.

    \b
    Examples:
      vqgan-clip train-toy -o toy
      vqgan-clip generate "a star" -o star.png --weights toy/vqgan.safetensors \\
        --clip toy/clip.safetensors
    """
    from vqgan_clip.toy import job

    config = ToyConfig(**settings)
    with Bar("training", config.n_steps, "steps") as bar:
        made, is_new = job.run(output, config, force=force, on_progress=bar.update)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    summary = made.summary
    note(f"{output}: {summary['n_bytes'] / 1e6:,.2f} MB, reconstruction {summary['psnr_db']:.1f} dB")
