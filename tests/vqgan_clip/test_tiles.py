"""Tiles cover a picture, join without seams, and keep the gradient and the memory of one tile."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tests.vqgan_clip.checkpoints import SMALL, random_vqgan
from torch import Tensor
from torch.nn import functional

from pile_tools import ConfigError
from vqgan_clip.memory import kept_by_autograd
from vqgan_clip.tiles import TiledDecoder, encode_in_tiles, tile_slices


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def enlarged(latents: Tensor) -> Tensor:
    """A decoder without context: what it makes of a latent does not depend on the tile."""
    return functional.interpolate(latents, scale_factor=4.0) ** 2


@pytest.mark.parametrize("tile", [4, 5, 7, 16])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 9, 15, 16, 17, 64, 101])
def test_slices_cover_everything_and_overlap(size: int, tile: int) -> None:
    slices = tile_slices(size, tile)
    assert (slices[0].start, slices[-1].stop) == (0, size)
    assert all(part.stop - part.start == min(tile, size) for part in slices)
    overlaps = [a.stop - b.start for a, b in pairwise(slices)]
    assert all(max(1, tile // 4) <= overlap < tile for overlap in overlaps)
    # No tile could be left out.
    assert len(slices) == 1 or size > tile + (len(slices) - 2) * (tile - max(1, tile // 4))


@pytest.mark.parametrize("tile", [4, 5, 8])
def test_a_decoder_without_context_is_decoded_exactly(tile: int) -> None:
    latents = normal(2, 3, 17, 9).requires_grad_()
    found, expected = TiledDecoder(enlarged, 4, tile)(latents), enlarged(latents)
    torch.testing.assert_close(found, expected)
    weights = normal(*expected.shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), latents)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), latents)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("tile", [4, 5, 8])
def test_an_encoder_without_context_is_encoded_exactly(tile: int) -> None:
    images = normal(2, 3, 4 * 17, 4 * 9)
    found = encode_in_tiles(lambda part: functional.avg_pool2d(part, 4), images, 4, tile)
    torch.testing.assert_close(found, functional.avg_pool2d(images, 4))


def test_images_of_one_tile_are_encoded_whole() -> None:
    model, images = random_vqgan(SMALL), normal(1, 3, 16, 12)
    assert torch.equal(encode_in_tiles(model.encode, images, 2, 8), model.encode(images))


def test_no_larger_part_than_a_tile_is_encoded() -> None:
    shapes = []

    def encode(part: Tensor) -> Tensor:
        shapes.append(part.shape)
        return functional.avg_pool2d(part, 2)

    encode_in_tiles(encode, normal(1, 3, 40, 24), 2, 8)
    assert set(shapes) == {(1, 3, 16, 16)}
    assert len(shapes) == 3 * 2


def test_latents_of_one_tile_are_decoded_whole() -> None:
    model, latents = random_vqgan(SMALL), normal(1, 4, 8, 6)
    assert torch.equal(TiledDecoder(model.decode, 2, 8)(latents), model.decode(latents))


def test_tiles_differ_from_the_whole_less_than_their_borders_would() -> None:
    model, latents = random_vqgan(SMALL), normal(1, 4, 40, 40)
    whole, tiled = model.decode(latents), TiledDecoder(model.decode, 2, 20)(latents)
    abutting = torch.cat(
        [
            torch.cat([model.decode(latents[..., i : i + 20, j : j + 20]) for j in (0, 20)], dim=-1)
            for i in (0, 20)
        ],
        dim=-2,
    )
    inside = slice(36, 44)
    assert (tiled - whole)[..., inside].abs().mean() < 0.5 * (abutting - whole)[..., inside].abs().mean()


def test_tiles_join_without_a_jump() -> None:
    # Over a decoder that returns a constant for each tile, neighbouring pixels differ by at most one part of
    # the ramp.
    calls = iter(range(100))

    def constant(latents: Tensor) -> Tensor:
        height, width = latents.shape[-2:]
        return torch.full((1, 1, 8 * height, 8 * width), float(next(calls) % 2))

    with torch.no_grad():
        picture = TiledDecoder(constant, 8, 8)(torch.zeros(1, 1, 8, 14))
    assert picture.min() == 0
    assert picture.max() == 1
    assert picture.diff(dim=-1).abs().max() <= 1 / 16


def test_a_larger_picture_keeps_no_more_activations() -> None:
    model = random_vqgan(SMALL)
    decoder = TiledDecoder(model.decode, 2, 8)
    parameters = list(model.parameters())

    def kept(side: int, decode: object) -> int:
        latents = normal(1, 4, side, side).requires_grad_()
        return kept_by_autograd(lambda: decode(latents), parameters).total  # type: ignore[operator]

    # Of the tiles, their weighted sum is kept: a few numbers per pixel.
    n_pixels = (2 * 64) ** 2
    assert kept(64, decoder) < 60 * n_pixels < kept(64, model.decode) / 10


def test_a_tile_is_decoded_again_bit_for_bit() -> None:
    model, latents = random_vqgan(SMALL), normal(1, 4, 12, 12).requires_grad_()
    decoder = TiledDecoder(model.decode, 2, 8)
    found = [torch.autograd.grad(decoder(latents).square().sum(), latents)[0] for _ in range(2)]
    assert torch.equal(found[0], found[1])


def test_a_tile_without_overlap_is_refused() -> None:
    with pytest.raises(ConfigError, match="tile must be at least 4 latents, got 3"):
        TiledDecoder(enlarged, 4, 3)
