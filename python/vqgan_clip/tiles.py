"""Decodes large pictures in overlapping tiles, so that memory depends on the tile and not on the picture.

The decoder normalizes and attends over everything it is given, so tiles differ slightly from the whole. Each
fades towards its neighbours, linearly over a quarter of its side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pile_tools.errors import ConfigError

#: Neighbouring tiles overlap by at least 1 / `_OVERLAP` of their side.
_OVERLAP = 4


@dataclass(frozen=True)
class TiledDecoder:
    """Decodes latents in square tiles.

    During the backward pass each tile is decoded again: its activations are kept no longer than it takes.

    Attributes:
        decode: From latents (n, d, h, w) to pictures (n, c, h*f, w*f).
        factor: `f`, pixels per latent.
        tile: Side of a tile, latents; at least 4.

    Raises: ConfigError if `tile` is less than 4.
    """

    decode: Callable[[Tensor], Tensor]
    factor: int
    tile: int

    def __post_init__(self) -> None:
        if self.tile < _OVERLAP:
            raise ConfigError(f"tile must be at least {_OVERLAP} latents, got {self.tile}")

    def __call__(self, latents: Tensor) -> Tensor:
        """The picture of latents: (n, d, h, w) -> (n, c, h*f, w*f). Latents of one tile are decoded whole."""
        if max(latents.shape[-2:]) <= self.tile:
            return self.decode(latents)
        return _assembled(self._again, latents, self.tile, 1, self.factor)

    def _again(self, latents: Tensor) -> Tensor:
        """What `decode` returns; the backward pass computes it again."""
        decoded: Tensor = checkpoint(self.decode, latents, use_reentrant=False)
        return decoded


def encode_in_tiles(encode: Callable[[Tensor], Tensor], images: Tensor, factor: int, tile: int) -> Tensor:
    """The latents of images, encoded in square tiles.

    Args:
        encode: From images (n, 3, H, W) to latents (n, d, H/f, W/f).
        images: Their sides are multiples of `factor`.
        factor: `f`, pixels per latent.
        tile: Side of a tile, latents.

    Shapes: (n, 3, H, W) -> (n, d, H/f, W/f). Images of one tile are encoded whole.
    """
    if max(images.shape[-2:]) <= tile * factor:
        return encode(images)
    return _assembled(encode, images, tile, factor, 1)


def _assembled(
    compute: Callable[[Tensor], Tensor], whole: Tensor, tile: int, n_in: int, n_out: int
) -> Tensor:
    """What `compute` makes of overlapping tiles, joined; a latent has `n_in` values in and `n_out` out."""
    height, width = (side // n_in for side in whole.shape[-2:])
    joined, total = None, whole.new_zeros(height * n_out, width * n_out)
    for rows in tile_slices(height, tile):
        for columns in tile_slices(width, tile):
            part = compute(whole[..., _scaled(rows, n_in), _scaled(columns, n_in)])
            across = _weights(columns, width, n_out, part)
            weights = _weights(rows, height, n_out, part)[:, None] * across
            if joined is None:
                joined = part.new_zeros(*part.shape[:2], *total.shape)
            inside = ..., _scaled(rows, n_out), _scaled(columns, n_out)
            joined[inside] += part * weights
            total[inside] += weights
    assert joined is not None
    return joined / total


def _scaled(latents: slice, n: int) -> slice:
    return slice(latents.start * n, latents.stop * n)


def _weights(part: slice, size: int, n_out: int, like: Tensor) -> Tensor:
    """Weights of a tile along one axis, falling linearly towards a neighbour, never to zero."""
    n_latents = part.stop - part.start
    ramp = max(1, n_latents // _OVERLAP) * n_out
    at = torch.arange(n_latents * n_out, device=like.device, dtype=like.dtype) + 0.5
    left = at / ramp if part.start > 0 else torch.ones_like(at)
    right = (len(at) - at) / ramp if part.stop < size else torch.ones_like(at)
    return torch.minimum(left, right).clamp(max=1)


def tile_slices(size: int, tile: int) -> list[slice]:
    """Ranges of at most `tile` that cover 0 to `size`, evenly spread.

    Each shares at least `tile // _OVERLAP` with the next: starts are rounded down, so that two are at most
    `step` apart, which is a whole number.
    """
    if size <= tile:
        return [slice(0, size)]
    step = tile - max(1, tile // _OVERLAP)
    n_steps = -(-(size - tile) // step)
    return [
        slice(start, start + tile) for start in ((size - tile) * i // n_steps for i in range(n_steps + 1))
    ]
