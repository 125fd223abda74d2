"""Masks of edits: from a file, or from a text by CLIP; and the latents that they leave free."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pile_tools.errors import ConfigError
from vqgan_clip import pictures
from vqgan_clip.clips import Clip
from vqgan_clip.guidance import spherical_distance

#: Random coverings of a picture that CLIP scores, and how many at once.
_N_COVERINGS, _CHUNK = 256, 64
#: Cells of a covering per side.
_CELLS = 5
_BINS = 64


def from_image(mask: Image.Image, size: tuple[int, int]) -> Tensor:
    """The mask of an image: 1 where it is lighter than middle gray, (1, 1, H, W) float32.

    Raises: ConfigError if its size is not `size` (width and height), or nothing in it is white.
    """
    if mask.size != size:
        raise ConfigError(
            f"the mask is {mask.width} x {mask.height}, the image {size[0]} x {size[1]}; they must be equal"
        )
    found = (pictures.to_tensor(mask.convert("L")) > 0.5).float()
    if not found.any():
        raise ConfigError("the mask has no white: nothing would be edited")
    return found


def to_image(mask: Tensor) -> Image.Image:
    """A mask as an image of mode L: white where it is 1."""
    return pictures.to_image(mask.expand(1, 3, -1, -1)).convert("L")


def dilated(mask: Tensor, n_pixels: int) -> Tensor:
    """A mask that has grown by a number of pixels in all eight directions."""
    if not 0 <= n_pixels <= 4096:
        raise ConfigError(f"dilate must be from 0 to 4,096 pixels, got {n_pixels}")
    return functional.max_pool2d(mask, 2 * n_pixels + 1, stride=1, padding=n_pixels) if n_pixels else mask


def padded(mask: Tensor, factor: int) -> Tensor:
    """A mask for a picture of `pictures.padded`; what was added may not change."""
    height, width = mask.shape[-2:]
    return functional.pad(mask, (0, -width % factor, 0, -height % factor))


def of_latents(mask: Tensor, factor: int) -> Tensor:
    """Which latents have a pixel in a mask: (1, 1, H, W) -> (1, 1, H/f, W/f) bool."""
    return functional.max_pool2d(mask, factor) > 0


@torch.no_grad()
def from_text(clip: Clip, picture: Tensor, text: str, generator: torch.Generator) -> Tensor:
    """The mask of what a text names in a picture: (1, 3, H, W) -> (1, 1, H, W), 0 or 1.

    CLIP scores the picture under random coverings, which fill the covered part with the mean colour. A
    pixel's saliency is how the score depends on whether it is shown (after RISE, Petsiuk et al. 2018,
    arXiv:1806.07421). Otsu's threshold makes it a mask.

    Raises: ConfigError as `encode_texts` does.
    """
    saliency = _saliency(clip, picture, text, generator)
    return (saliency > _otsu(saliency)).float()


def _saliency(clip: Clip, picture: Tensor, text: str, generator: torch.Generator) -> Tensor:
    """By how much the score rises when a pixel is shown: the slope of a regression, (1, 1, H, W).

    Computed at the size of CLIP's images, so that memory does not depend on the picture.
    """
    size = (clip.size, clip.size)
    small = functional.interpolate(picture, size, mode="bilinear", antialias=True)
    target, fill = clip.encode_texts([text]), small.mean((2, 3), keepdim=True)
    shown, scores = [], []
    for _ in range(_N_COVERINGS // _CHUNK):
        some = _coverings(_CHUNK, *size, generator).to(picture.device)
        scores.append(-spherical_distance(clip.encode_images(fill + some * (small - fill)), target))
        shown.append(some)
    covering, score = torch.cat(shown), torch.cat(scores)
    covering, score = covering - covering.mean(0), score - score.mean()
    variance = covering.square().mean(0).clamp(min=1e-4)
    slope = (score[:, None, None, None] * covering).mean(0, keepdim=True) / variance
    return functional.interpolate(slope, picture.shape[-2:], mode="bilinear")


def _coverings(n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """How much of each pixel is shown: random cells, blurred and shifted, (n, 1, height, width)."""
    cells = (torch.rand(n, 1, _CELLS + 1, _CELLS + 1, generator=generator) < 0.5).float()
    cell_height, cell_width = -(-height // _CELLS), -(-width // _CELLS)
    size = ((_CELLS + 1) * cell_height, (_CELLS + 1) * cell_width)
    large = functional.interpolate(cells, size, mode="bilinear", align_corners=False)
    tops = torch.randint(cell_height, (n,), generator=generator).tolist()
    lefts = torch.randint(cell_width, (n,), generator=generator).tolist()
    cut = [
        one[:, top : top + height, left : left + width]
        for one, top, left in zip(large, tops, lefts, strict=True)
    ]
    return torch.stack(cut)


def _otsu(values: Tensor) -> float:
    """The threshold that divides values into two classes of least variance (Otsu 1979)."""
    low, high = float(values.min()), float(values.max())
    counts = torch.histc(values, _BINS, low, high).double()
    centers = low + (torch.arange(_BINS).double() + 0.5) * (high - low) / _BINS
    below = counts.cumsum(0)
    above = counts.sum() - below
    sums = (counts * centers).cumsum(0)
    means = sums / below.clamp(min=1), (sums[-1] - sums) / above.clamp(min=1)
    between = below * above * (means[0] - means[1]).square()
    return low + (int(between.argmax()) + 1) * (high - low) / _BINS
