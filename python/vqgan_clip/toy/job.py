"""The job `train-toy`: trains the toy and writes its folder with a manifest."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from pile_tools import config as configs
from pile_tools import publish
from pile_tools.manifest import MANIFEST_FILE, Manifest, Request
from pile_tools.publish import Built, Target
from vqgan_clip import weights
from vqgan_clip.config import ToyConfig
from vqgan_clip.toy import shapes, shown, stored, train
from vqgan_clip.vqgan import Vqgan

#: Drawings for the figure in the summary.
_N_MEASURED = 256


def run(
    output: Path,
    config: ToyConfig,
    *,
    force: bool = False,
    on_step: train.OnStep = lambda stage, done, n_steps, loss: None,
) -> tuple[Manifest, bool]:
    """Trains the toy into a folder, unless it is complete.

    Returns:
        The manifest, and whether it was trained now.

    Raises:
        OutputExistsError: Other output exists and `force` is off.
        OSError: A file cannot be written.
    """
    names = (stored.VQGAN_FILE, stored.CONFIG_FILE, stored.CLIP_FILE)

    def build(scratch: Path) -> Built:
        # Weights are initialized by torch's global generator, which stays as it was for the caller.
        with torch.random.fork_rng(devices=[]), _one_thread():
            torch.manual_seed(config.seed)
            stored.save_config(train.CONFIG, scratch / stored.CONFIG_FILE)
            stored.save_half(train.train_vqgan(config, on_step), scratch / stored.VQGAN_FILE)
            # As it is stored, rounded: the CLIP learns from the pictures that guidance will show it.
            vqgan, _ = weights.load_weights(scratch / stored.VQGAN_FILE)
            clip = train.train_clip(vqgan, config, on_step)
            stored.save_clip(clip, scratch / stored.CLIP_FILE)
        summary = {
            "n_bytes": sum((scratch / name).stat().st_size for name in names),
            "psnr_db": round(_psnr(vqgan, config.seed), 2),
            "torch": torch.__version__,
        }
        return Built(names, summary, [])

    request = Request("toy", configs.settings(config))
    target = Target.of(output / MANIFEST_FILE)
    return publish.make(target, request, build, force=force, names=names)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: more are slower with tensors this small, and change the sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _psnr(vqgan: Vqgan, seed: int) -> float:
    """Peak signal-to-noise ratio of reconstructed drawings, dB."""
    generator = torch.Generator().manual_seed(seed + 2)
    images, _ = shapes.draw(shapes.sample(_N_MEASURED, generator), generator)
    error = (shown.decoded(vqgan, images) - images).square().mean()
    return -10 * math.log10(float(error))
