"""Where guidance begins: latents of random codes, of noise, of a gradient of colours, or of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vqgan_clip.quantize import quantize
from vqgan_clip.tiles import encode_in_tiles
from vqgan_clip.vqgan import Vqgan

#: Pixels between the random values of the finest and of each coarser octave of noise.
_OCTAVES = (2, 4, 8, 16, 32)


def random_codes(vqgan: Vqgan, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Latents of a picture whose codes are all drawn at random: (1, d, H/f, W/f)."""
    shape = (1, height // vqgan.factor, width // vqgan.factor)
    codes = torch.randint(len(vqgan.codebook), shape, generator=generator)
    return vqgan.entries(codes.to(vqgan.codebook.device))


def noise(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A picture of noise at several scales: (1, 3, H, W) in [0, 1]."""
    layers = []
    for spacing in _OCTAVES:
        grid = torch.rand(1, 3, height // spacing + 2, width // spacing + 2, generator=generator)
        fine = functional.interpolate(grid, scale_factor=float(spacing), mode="bicubic", align_corners=False)
        layers.append(fine[:, :, :height, :width])
    # The mean of the octaves is nearly grey: twice its contrast, around 0.5.
    return (torch.stack(layers).mean(0) * 2 - 0.5).clamp(0, 1)


def gradient(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A picture whose corners have random colours, blended between them: (1, 3, H, W) in [0, 1]."""
    corners = torch.rand(1, 3, 2, 2, generator=generator)
    return functional.interpolate(corners, (height, width), mode="bilinear", align_corners=True)


@torch.no_grad()
def encoded(vqgan: Vqgan, picture: Tensor, tile: int = 0) -> Tensor:
    """Latents of a picture in [0, 1], each at its codebook entry: (1, 3, H, W) -> (1, d, H/f, W/f).

    With `tile`, squares of that many latents a side are encoded one after the other.
    """
    images = picture.to(vqgan.codebook.device) * 2 - 1
    found = encode_in_tiles(vqgan.encode, images, vqgan.factor, tile) if tile else vqgan.encode(images)
    return quantize(found, vqgan.codebook)[0]
