"""The networks of a run, loaded by the names that a user gives, with hashes of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pile_tools import files
from pile_tools.devices import check_device
from pile_tools.errors import ConfigError
from vqgan_clip import clips
from vqgan_clip.clips import Clip
from vqgan_clip.config import TOY
from vqgan_clip.toy import stored
from vqgan_clip.vqgan import Vqgan
from vqgan_clip.weights import load_weights


@dataclass(frozen=True)
class Models:
    """A VQGAN and the CLIP models that guide it.

    Attributes:
        vqgan: Decodes latents.
        clips: One or more; their losses are averaged.
        hashes: SHA-256 of the files of each, as the metadata of pictures records them.
    """

    vqgan: Vqgan
    clips: Sequence[Clip]
    hashes: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.vqgan.codebook.device


def load_models(
    weights: str | Path = TOY,
    clip: Sequence[str | Path] = (),
    *,
    sha256: str | None = None,
    device: str = "cpu",
) -> Models:
    """The models of the given names.

    Args:
        weights: `toy`, or a file or folder, see `weights.load_weights`.
        clip: `toy`, the `clip.safetensors` of `train-toy`, or what `clips.load_clip` takes. The toy's if
            none is given for the toy's VQGAN.
        sha256: The SHA-256 that the VQGAN's file must have.
        device: Where they run: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        ConfigError: No CLIP is given, or there is no such device.
        FormatError, VerifyError, OSError: Weights cannot be used.
    """
    if not clip:
        if str(weights) != TOY:
            raise ConfigError(f"the weights {weights} need a CLIP; give its folder or name as clip")
        clip = (TOY,)
    check_device(device, torch.zeros)
    vqgan, provenance = load_weights(weights, sha256=sha256)
    loaded = [_load_clip(str(name)) for name in clip]
    hashes = {"vqgan": provenance.sha256, "clip": [digests for _, digests in loaded]}
    for found, _ in loaded:
        if isinstance(found, torch.nn.Module):
            found.to(device)
    return Models(vqgan.to(device), [found for found, _ in loaded], hashes)


def _load_clip(name: str) -> tuple[Clip, dict[str, str]]:
    if name != TOY and not name.endswith(".safetensors"):
        return clips.load_clip(name)
    path = stored.FOLDER / stored.CLIP_FILE if name == TOY else Path(name)
    return stored.load_clip(path), {path.name: files.sha256(path)}
