"""Random views of a picture for CLIP: cropped, warped, recoloured, partly erased and noisy.

Optimized through a single fixed view, a picture comes to match the prompt by imperceptible patterns. Random
views make such patterns ineffective ("VQGAN-CLIP", Crowson et al. 2022, arXiv:2204.08583). Crop, flip, affine
map and perspective are one homography per view, so one call of `grid_sample` makes all views. All colour
changes are one affine map of RGB.

All random numbers come from one generator on the CPU, so that a seed gives the same views on any device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vqgan_clip.config import AUGMENTATIONS

#: Range of the side of a crop, as a share of the picture's shorter side.
_CROP = (0.8, 1.0)
#: Affine maps: largest rotation and shear in radians (15 and 5 degrees), and shift as a share of the view.
_ROTATION, _SHEAR, _SHIFT = math.radians(15), math.radians(5), 0.05
#: Maximum inward shift of a corner of the view in each direction, as a share of the view's side.
_PERSPECTIVE = 0.15
#: Largest change of brightness, contrast and saturation, and of hue in radians.
_COLOR, _HUE = 0.1, 0.1
#: Range of the erased share of a view's area, and the largest ratio of the rectangle's sides.
_ERASED, _ERASED_RATIO = (0.02, 0.12), 2.0
#: Largest standard deviation of the noise.
_NOISE = 0.1
#: The chance with which a view gets each of perspective, colour and erasing.
_CHANCE = 0.7

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ViewPlan:
    """The random parameters of `n` views; the noise itself is drawn by `make_views`.

    Attributes:
        homographies: From view to picture coordinates, both from -1 to 1: (n, 3, 3).
        colors: Affine maps of RGB: (n, 3, 4).
        erased: Left, top, right and bottom of the erased rectangle, from -1 to 1: (n, 4).
        noise: Standard deviations of the noise: (n,).
    """

    homographies: Tensor
    colors: Tensor
    erased: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.noise)

    def part(self, start: int, end: int) -> ViewPlan:
        """The plan of the views [start, end)."""
        inside = slice(start, end)
        return ViewPlan(
            self.homographies[inside], self.colors[inside], self.erased[inside], self.noise[inside]
        )


def plan_views(
    n: int,
    augmentations: tuple[str, ...],
    generator: torch.Generator,
    aspect: float = 1.0,
) -> ViewPlan:
    """Draws the random parameters of `n` views of a picture.

    Any choice of augmentations draws the same numbers, so leaving one out does not change the others.

    Args:
        n: Number of views.
        augmentations: Names from `AUGMENTATIONS`.
        generator: On the CPU.
        aspect: Width over height of the picture. Without `crop`, a picture that is not square is squeezed.
    """
    draws = _Draws(n, generator)
    crop, flip, affine, perspective, color, erase, noise = (name in augmentations for name in AUGMENTATIONS)
    maps = _crop(draws, aspect, crop)
    maps = maps @ _flip(draws, flip)
    maps = maps @ _affine(draws, float(affine))
    maps = maps @ _perspective(draws, _PERSPECTIVE * perspective)
    colors = _color(draws, float(color))
    erased = _erased(draws, erase)
    return ViewPlan(maps, colors, erased, draws.between(0, _NOISE * noise))


def make_views(images: Tensor, plan: ViewPlan, size: int, generator: torch.Generator) -> Tensor:
    """The views of one picture, or one view of each of `n` pictures; differentiable.

    Args:
        images: (1, 3, H, W) or (n, 3, H, W), in [0, 1].
        plan: The plan of `n` views.
        size: Side of a view in pixels.
        generator: The source of the noise, on the CPU.

    Shapes: -> (n, 3, size, size). Colour changes and noise may leave [0, 1].
    Cost: one `grid_sample` of n * size * size pixels. One picture is not copied for each of its views.
    """
    device = images.device
    views = _warp(_shrunk(images, size), plan.homographies.to(device), size)
    colors = plan.colors.to(device)
    # One batched matrix product with the pixels of each view as columns.
    views = torch.baddbmm(colors[:, :, 3:], colors[:, :, :3], views.flatten(2)).view_as(views)
    views = views.masked_fill(_is_erased(plan.erased.to(device), size), 0.5)
    noise = torch.randn(views.shape, generator=generator, dtype=views.dtype).to(device)
    return torch.addcmul(views, noise, plan.noise.to(device)[:, None, None, None])


def chunks(plan: ViewPlan, n: int) -> Iterator[ViewPlan]:
    """Plans of up to `n` views each, in order."""
    for start in range(0, len(plan), n):
        yield plan.part(start, start + n)


class _Draws:
    """Draws uniform random numbers; each call draws one for each view."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self._generator = n, generator

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.n, generator=self._generator)

    def chance(self) -> Tensor:
        """1 with probability `_CHANCE`, otherwise 0."""
        return (self.between(0, 1) < _CHANCE).float()


def _identity(n: int) -> Tensor:
    return torch.eye(3).repeat(n, 1, 1)


def _crop(draws: _Draws, aspect: float, is_on: bool) -> Tensor:
    """Maps from a view to a random square within the picture; identities if off."""
    side = draws.between(*_CROP)
    half_width, half_height = side / max(aspect, 1), side * min(aspect, 1)
    maps = _identity(draws.n)
    maps[:, 0, 0], maps[:, 1, 1] = half_width, half_height
    maps[:, 0, 2] = draws.between(-1, 1) * (1 - half_width)
    maps[:, 1, 2] = draws.between(-1, 1) * (1 - half_height)
    return maps if is_on else _identity(draws.n)


def _flip(draws: _Draws, is_on: bool) -> Tensor:
    maps = _identity(draws.n)
    is_flipped = draws.between(0, 1) < 0.5 * is_on
    maps[is_flipped, 0, 0] = -1
    return maps


def _affine(draws: _Draws, strength: float) -> Tensor:
    angle, shear = draws.between(-_ROTATION, _ROTATION), draws.between(-_SHEAR, _SHEAR)
    angle, shear = angle * strength, shear * strength
    maps = _identity(draws.n)
    maps[:, 0, 0], maps[:, 0, 1] = angle.cos(), shear - angle.sin()
    maps[:, 1, 0], maps[:, 1, 1] = angle.sin(), angle.cos()
    # A shift of the whole view is 2 in coordinates from -1 to 1.
    maps[:, 0, 2] = 2 * strength * draws.between(-_SHIFT, _SHIFT)
    maps[:, 1, 2] = 2 * strength * draws.between(-_SHIFT, _SHIFT)
    return maps


def _perspective(draws: _Draws, strength: float) -> Tensor:
    """Homographies that move each corner of a view inwards by random amounts in x and y."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    inwards = torch.stack([draws.between(0, 2 * strength) for _ in range(8)], 1).view(-1, 4, 2)
    moved = corners * (1 - inwards * draws.chance()[:, None, None])
    # h maps (x, y) to (u, v): x h0 + y h1 + h2 - u (x h6 + y h7) = u, and likewise for v, where h8 = 1.
    x, y = corners.expand(draws.n, -1, -1).unbind(-1)
    u, v = moved.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    solution = torch.linalg.solve(torch.cat([rows_u, rows_v], 1), torch.cat([u, v], 1))
    return torch.cat([solution, torch.ones(draws.n, 1)], 1).view(-1, 3, 3)


def _color(draws: _Draws, strength: float) -> Tensor:
    """Brightness, contrast, saturation and hue as one affine map of RGB."""
    strength_of = strength * draws.chance()
    brightness = draws.between(-_COLOR, _COLOR) * strength_of
    contrast = 1 + draws.between(-_COLOR, _COLOR) * strength_of
    saturation = 1 + draws.between(-_COLOR, _COLOR) * strength_of
    hue = draws.between(-_HUE, _HUE) * strength_of
    gray = torch.tensor(_LUMA).expand(3, 3)
    saturate = gray + saturation[:, None, None] * (torch.eye(3) - gray)
    matrix = contrast[:, None, None] * saturate @ _rotation_about_gray(hue)
    offset = brightness + 0.5 * (1 - contrast)
    return torch.cat([matrix, offset[:, None, None].expand(-1, 3, 1)], 2)


def _rotation_about_gray(angle: Tensor) -> Tensor:
    """Rotations of RGB about the axis of gray, by Rodrigues' formula: (n,) radians -> (n, 3, 3)."""
    axis = 1 / math.sqrt(3)
    cross = axis * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    sine, versine = angle.sin()[:, None, None], (1 - angle.cos())[:, None, None]
    return torch.eye(3) + sine * cross + versine * (cross @ cross)


def _erased(draws: _Draws, is_on: bool) -> Tensor:
    area = draws.between(*_ERASED)
    ratio = draws.between(-math.log(_ERASED_RATIO), math.log(_ERASED_RATIO)).exp()
    # Half sides, in coordinates in which a view's side is 2; 0 where nothing is erased.
    chosen = draws.chance() * is_on
    half_width, half_height = (area * ratio).sqrt() * chosen, (area / ratio).sqrt() * chosen
    x = draws.between(-1, 1) * (1 - half_width)
    y = draws.between(-1, 1) * (1 - half_height)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)


def _centers(size: int, like: Tensor) -> Tensor:
    """Coordinates of pixel centres from -1 to 1, of the type of `like`: (size,)."""
    return (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) * (2 / size) - 1


def _is_erased(boxes: Tensor, size: int) -> Tensor:
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    at = _centers(size, boxes)
    columns, rows = (left < at) & (at < right), (top < at) & (at < bottom)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _shrunk(images: Tensor, size: int) -> Tensor:
    """The images, averaged so that the shorter side is at most two views: `grid_sample` reads four pixels."""
    height, width = images.shape[-2:]
    factor = min(height, width) / (2 * size)
    if factor <= 1:
        return images
    return functional.interpolate(images, (round(height / factor), round(width / factor)), mode="area")


def _warp(images: Tensor, homographies: Tensor, size: int) -> Tensor:
    n = len(homographies)
    at = _centers(size, homographies)
    points = torch.stack([at.expand(size, size), at[:, None].expand(size, size), at.new_ones(size, size)], -1)
    mapped = points.view(1, -1, 3) @ homographies.mT
    grid = (mapped[..., :2] / mapped[..., 2:]).view(n, size, size, 2)
    if len(images) > 1:
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    # Stacks the grids of all views into one tall grid: one gradient buffer, not one per view.
    tall = functional.grid_sample(
        images, grid.view(1, n * size, size, 2), padding_mode="border", align_corners=False
    )
    return tall.view(images.shape[1], n, size, size).transpose(0, 1)
