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

#: Lines per stage with its loss.
_N_NOTES = 5


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
    were made by this command with its defaults. Its stages are the VQGAN, and for each of two CLIPs, which
    guide as one, captions and then its own guidance (adversary). A run that was stopped starts again.

    \b
    Examples:
      vqgan-clip train-toy -o toy
      vqgan-clip generate "a star" -o star.png --weights toy/vqgan.safetensors \\
        --clip toy/clip.safetensors
    """
    from vqgan_clip.toy import job

    config = ToyConfig(**settings)
    n_done = 0
    with Bar("training", config.n_steps, "steps") as bar:

        def on_step(stage: str, done: int, n_steps: int, loss: float) -> None:
            nonlocal n_done
            n_done += 1
            bar.update(n_done)
            if done % max(n_steps // _N_NOTES, 1) == 0:
                note(f"{stage:<20} step {done:>5,} of {n_steps:,}  loss {loss:.4f}", err=True)

        made, is_new = job.run(output, config, force=force, on_step=on_step)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    summary = made.summary
    note(f"{output}: {summary['n_bytes'] / 1e6:,.2f} MB, reconstruction {summary['psnr_db']:.1f} dB")
