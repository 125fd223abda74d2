"""Decodes large pictures in overlapping tiles, so that memory depends on the tile and not on the picture.

The decoder normalizes and attends over everything it is given, so tiles differ slightly from the whole. Where
two tiles overlap, one fades into the other linearly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pile_tools.errors import ConfigError

#: The share of a tile's side that its neighbours decode too.
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
        height, width = latents.shape[-2:]
        if max(height, width) <= self.tile:
            return self.decode(latents)
        total, picture = latents.new_zeros(height * self.factor, width * self.factor), None
        for rows in tile_slices(height, self.tile):
            for columns in tile_slices(width, self.tile):
                part = checkpoint(self.decode, latents[..., rows, columns], use_reentrant=False)
                weights = self._weights(rows, height, part)[:, None] * self._weights(columns, width, part)
                inside = ..., self._pixels(rows), self._pixels(columns)
                if picture is None:
                    picture = part.new_zeros(*part.shape[:2], *total.shape)
                picture[inside] += part * weights
                total[inside] += weights
        assert picture is not None
        return picture / total

    def _pixels(self, latents: slice) -> slice:
        return slice(latents.start * self.factor, latents.stop * self.factor)

    def _weights(self, part: slice, size: int, like: Tensor) -> Tensor:
        """Weights of a tile's pixels along one axis, falling linearly towards a neighbour, never to zero."""
        n = (part.stop - part.start) * self.factor
        ramp = max(1, self.tile // _OVERLAP) * self.factor
        at = torch.arange(n, device=like.device, dtype=like.dtype) + 0.5
        left = at / ramp if part.start > 0 else torch.ones_like(at)
        right = (n - at) / ramp if part.stop < size else torch.ones_like(at)
        return torch.minimum(left, right).clamp(max=1)


def tile_slices(size: int, tile: int) -> list[slice]:
    """Ranges of at most `tile` that cover 0 to `size`, evenly spread; each shares a quarter with the next."""
    if size <= tile:
        return [slice(0, size)]
    step = tile - max(1, tile // _OVERLAP)
    n_steps = -(-(size - tile) // step)
    return [
        slice(start, start + tile) for start in ((size - tile) * i // n_steps for i in range(n_steps + 1))
    ]
