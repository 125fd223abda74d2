"""Masks of edits: from a file, or from a text by CLIP; and the latents that they leave free."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pile_tools.errors import ConfigError, PileError
from vqgan_clip import pictures
from vqgan_clip.clips import Clip
from vqgan_clip.guidance import Guide, spherical_distance

#: Random coverings of a picture that CLIP scores, and how many at once.
_N_COVERINGS, _CHUNK = 256, 64
#: Pairs of a covering and a vector whose distances are computed at once.
_PAIRS = 1 << 14
#: Cells of a covering per side.
_CELLS = 5
_BINS = 64
#: Added to the relative relevance of latents: bounds the ratio of their pulls.
_LEAST_RELEVANCE = 0.05


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

    Raises: ConfigError as `encode_texts` does, PileError if vectors are not finite.
    """
    (found,) = _saliencies(clip, picture, [clip.encode_texts([text])], generator)
    return (found > _otsu(found)).float()


@torch.no_grad()
def pull_weights(guides: Sequence[Guide], picture: Tensor, factor: int, generator: torch.Generator) -> Tensor:
    """How strongly each latent of an edit is pulled: (1, 3, H, W) -> (1, 1, H/f, W/f), of mean 1.

    Weak where the distances to the prompts depend on the picture, which is where it is to change. A pull of
    equal weights would keep what the prompts are to replace as strongly as what they do not mention.
    """
    relevance = torch.zeros(())
    for guide in guides:
        found = _saliencies(guide.clip, picture, [target.vectors for target in guide.targets], generator)
        for target, saliency in zip(guide.targets, found, strict=True):
            relevance = relevance + (target.weight * saliency).square()
    local = functional.avg_pool2d(relevance, factor)
    weights = 1 / (local / local.mean().clamp(min=1e-12) + _LEAST_RELEVANCE)
    return weights / weights.mean()


def _saliencies(
    clip: Clip, picture: Tensor, targets: Sequence[Tensor], generator: torch.Generator
) -> list[Tensor]:
    """By how much the score of each target rises when a pixel is shown: the slope of a regression.

    Computed at the size of CLIP's images, so that memory does not depend on the picture. Raises PileError for
    vectors that are not finite.

    Shapes: targets (k, d) -> (1, 1, H, W) each.
    """
    size = (clip.size, clip.size)
    small = functional.interpolate(picture, size, mode="bilinear", antialias=True)
    fill = small.mean((2, 3), keepdim=True)
    shown, vectors = [], []
    for _ in range(_N_COVERINGS // _CHUNK):
        some = _coverings(_CHUNK, *size, generator).to(picture.device)
        vectors.append(clip.encode_images(fill + some * (small - fill)))
        shown.append(some)
    covering, seen = torch.cat(shown), torch.cat(vectors)
    covering = covering - covering.mean(0)
    variance = covering.square().mean(0).clamp(min=1e-4)
    slopes = []
    for target in targets:
        # A part of the coverings at a time: an image prompt has as many vectors as a step has views.
        parts = torch.split(seen[:, None], max(1, _PAIRS // len(target)))
        score = -torch.cat([spherical_distance(part, target[None]).mean(1) for part in parts])
        if not bool(score.isfinite().all()):
            raise PileError("a CLIP gives no numbers for this picture")
        score = score - score.mean()
        slope = (score[:, None, None, None] * covering).mean(0, keepdim=True) / variance
        slopes.append(functional.interpolate(slope, picture.shape[-2:], mode="bilinear"))
    return slopes


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
