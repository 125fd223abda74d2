"""The VQGAN has taming's names and shapes, and computes what diffusers' `VQModel` computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.vqgan_clip.checkpoints import F16, GUMBEL, SMALL, diffusers_config, diffusers_state, random_vqgan

from pile_tools import ConfigError
from vqgan_clip.quantize import quantize
from vqgan_clip.vqgan import Vqgan, VqganConfig, empty_vqgan

#: taming's ImageNet model of factor 16 with 1,024 entries.
PUBLISHED = replace(F16, ch=128, z_channels=256, embed_dim=256, n_embed=1024)


def images(side: int, n: int = 1) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_the_published_shape_has_the_published_parameters() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_vqgan(PUBLISHED).state_dict().items()}
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 72_141_699
    assert shapes["encoder.down.4.attn.1.q.weight"] == (512, 512, 1, 1)
    assert shapes["encoder.down.2.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert shapes["decoder.up.4.block.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["decoder.up.1.upsample.conv.weight"] == (128, 128, 3, 3)
    assert "decoder.up.0.upsample.conv.weight" not in shapes
    assert "encoder.down.4.downsample.conv.weight" not in shapes
    assert shapes["quantize.embedding.weight"] == (1024, 256)


def test_an_empty_model_takes_no_memory() -> None:
    assert {parameter.device.type for parameter in empty_vqgan(PUBLISHED).parameters()} == {"meta"}


@pytest.mark.parametrize("side", [64, 48])
def test_equals_diffusers(side: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    ours = random_vqgan(F16)
    theirs = diffusers.VQModel(**diffusers_config(F16)).eval().requires_grad_(False)
    theirs.load_state_dict(diffusers_state(ours), strict=True)
    given = images(side, n=2)
    latents = ours.encode(given)
    torch.testing.assert_close(latents, theirs.encode(given).latents, atol=1e-4, rtol=1e-4)
    quantized, codes = quantize(latents, ours.codebook)
    expected, _, (_, _, expected_codes) = theirs.quantize(latents)
    assert torch.equal(codes.flatten(), expected_codes.flatten())
    torch.testing.assert_close(quantized, expected)
    decoded = theirs.decode(quantized, force_not_quantize=True).sample
    torch.testing.assert_close(ours.decode(quantized), decoded, atol=1e-4, rtol=1e-4)


def test_gradients_equal_those_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    ours = random_vqgan(F16)
    theirs = diffusers.VQModel(**diffusers_config(F16)).eval().requires_grad_(False)
    theirs.load_state_dict(diffusers_state(ours), strict=True)
    latents = torch.randn(1, F16.embed_dim, 2, 3, requires_grad=True)
    (found,) = torch.autograd.grad(ours.decode(latents).square().sum(), latents)
    decoded = theirs.decode(latents, force_not_quantize=True).sample
    (expected,) = torch.autograd.grad(decoded.square().sum(), latents)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_sides_follow_the_factor() -> None:
    model = random_vqgan(GUMBEL)
    latents = model.encode(torch.zeros(1, 3, 24, 40))
    assert model.factor == 8
    assert latents.shape == (1, 16, 3, 5)
    assert model.decode(latents).shape == (1, 3, 24, 40)


def test_a_side_between_two_multiples_is_refused() -> None:
    with pytest.raises(ConfigError, match="an image of 21 x 24: sides must be multiples of 8"):
        random_vqgan(GUMBEL).encode(torch.zeros(1, 3, 24, 21))


def test_a_gumbel_model_encodes_to_entries_of_its_largest_logits() -> None:
    model = random_vqgan(GUMBEL)
    given = images(32)
    latents = model.encode(given)
    _, codes = quantize(latents, model.codebook)
    logits = model.quantize.proj(model.quant_conv(model.encoder(given)))
    assert torch.equal(codes, logits.argmax(dim=1))
    assert torch.equal(model.entries(codes), latents)


def test_channels_that_32_does_not_divide_are_normalized_in_fewer_groups() -> None:
    model = Vqgan(replace(SMALL, ch=24))
    assert model.encoder.mid.block_1.norm1.num_groups == 16
    assert model.decoder.norm_out.num_groups == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ch": 0}, "ch must be from 1 to 1,024, got 0"),
        ({"ch": 10**9}, "ch must be from 1 to 1,024, got 1000000000"),
        ({"n_embed": 10**12}, "n_embed must be from 1 to 1,048,576"),
        ({"num_res_blocks": 10**6}, "num_res_blocks must be"),
        ({"ch_mult": ()}, "ch_mult must have 1 to 8 values, got 0"),
        ({"ch_mult": (1,) * 9}, "ch_mult must have 1 to 8 values, got 9"),
        ({"ch_mult": (1, 10**6)}, "ch_mult must be from 1 to 64 each"),
        ({"resolution": 17}, "resolution must be a multiple of 2, got 17"),
        ({"is_gumbel": True, "embed_dim": 8}, "embed_dim = z_channels, got 8 and 4"),
    ],
)
def test_a_config_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


def test_the_largest_config_takes_no_memory_to_check() -> None:
    config = VqganConfig(
        ch=1024,
        ch_mult=(64,) * 8,
        num_res_blocks=16,
        attn_resolutions=(4096,),
        resolution=4096,
        z_channels=4096,
        embed_dim=4096,
        n_embed=1 << 20,
    )
    assert next(empty_vqgan(config).parameters()).is_meta
