"""Edits change what they may: pixels outside a mask stay bit-identical; masks come from files and texts."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import vqgan_clip
from pile_tools.errors import ConfigError, PileError
from vqgan_clip import masks, pictures
from vqgan_clip.config import GuidanceConfig
from vqgan_clip.guidance import Guide, Target
from vqgan_clip.models import Models, load_models
from vqgan_clip.toy import shapes

QUICK = GuidanceConfig(steps=4, views=2, chunk=2)
PROMPT = "a green circle on a blue background"


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def drawn(scene: shapes.Scene, seed: int = 0) -> tuple[Image.Image, torch.Tensor]:
    images, cover = shapes.draw([scene], torch.Generator().manual_seed(seed))
    return pictures.to_image(images), cover[0] > 0.5


RED_ON_BLUE = shapes.Scene(0, shapes.COLOR_NAMES.index("red"), shapes.COLOR_NAMES.index("blue"))


@pytest.mark.parametrize("size", [(32, 32), (37, 30)])
def test_outside_the_mask_pixels_are_bit_identical(models: Models, size: tuple[int, int]) -> None:
    image = drawn(RED_ON_BLUE)[0].resize(size)
    mask = Image.new("L", size, 0)
    mask.paste(255, (10, 10, 22, 21))
    found = vqgan_clip.edit(image, PROMPT, mask=mask, models=models, config=QUICK)
    before, after, inside = (np.asarray(i) for i in (image, found.image, mask))
    assert np.array_equal(before[inside == 0], after[inside == 0])
    assert (before[inside > 0] != after[inside > 0]).mean() > 0.5
    assert found.mask is not None
    assert np.array_equal(np.asarray(found.mask), inside)


def test_a_dilated_mask_is_larger_by_as_many_pixels(models: Models) -> None:
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (10, 10, 20, 20))
    found = vqgan_clip.edit(drawn(RED_ON_BLUE)[0], PROMPT, mask=mask, dilate=3, models=models, config=QUICK)
    assert found.mask is not None
    assert found.mask.getbbox() == (7, 7, 23, 23)


def test_only_a_mask_is_dilated(models: Models) -> None:
    with pytest.raises(ConfigError, match="dilate is for a mask, and none is given"):
        vqgan_clip.edit(drawn(RED_ON_BLUE)[0], PROMPT, dilate=3, models=models, config=QUICK)


def test_a_clip_that_gives_no_numbers_is_named(models: Models) -> None:
    clip = copy.deepcopy(models.clips[0])
    assert isinstance(clip, torch.nn.Module)
    for parameter in clip.parameters():
        parameter.fill_(1e30)
    broken = replace(models, clips=[clip])
    image = drawn(RED_ON_BLUE)[0]
    with pytest.raises(PileError, match="gives no numbers"):
        vqgan_clip.edit(image, PROMPT, mask_text="a circle", models=broken, config=QUICK)
    with pytest.raises(PileError, match="not a number at step 1; a network gives no numbers"):
        vqgan_clip.edit(image, PROMPT, models=broken, config=QUICK)


def test_saliencies_by_many_vectors_are_those_of_all_at_once(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = pictures.to_tensor(drawn(RED_ON_BLUE)[0])
    vectors = models.clips[0].encode_images(picture).repeat(7, 1) + torch.randn(7, 1) / 10
    found = []
    for pairs in (1 << 14, 50, 1):
        monkeypatch.setattr(masks, "_PAIRS", pairs)
        found += masks._saliencies(models.clips[0], picture, [vectors], torch.Generator().manual_seed(0))
    assert all(torch.allclose(found[0], other, atol=1e-6) for other in found[1:])


def test_the_latents_of_a_mask_are_those_with_a_pixel_in_it() -> None:
    mask = torch.zeros(1, 1, 12, 8)
    mask[..., 3, 4] = 1
    mask[..., 8, 0] = 1
    found = masks.of_latents(mask, 4)[0, 0]
    assert found.nonzero().tolist() == [[0, 1], [2, 0]]


def test_the_pull_keeps_the_picture(models: Models) -> None:
    image = drawn(RED_ON_BLUE)[0]
    changes = []
    for pull in (0.0, 50.0):
        config = GuidanceConfig(steps=10, views=2, chunk=2, pull=pull)
        found = vqgan_clip.edit(image, PROMPT, models=models, config=config)
        start = vqgan_clip.edit(image, PROMPT, models=models, config=GuidanceConfig(steps=0))
        difference = pictures.to_tensor(found.image) - pictures.to_tensor(start.image)
        changes.append(float(difference.abs().mean()))
    assert changes[1] < changes[0] / 2


def test_the_pull_is_weak_where_the_prompt_asks_for_a_change(models: Models) -> None:
    clip, random = models.clips[0], torch.Generator().manual_seed(0)
    target = Target(clip.encode_texts([PROMPT]))
    for seed in range(4):
        image, is_shape = drawn(RED_ON_BLUE, seed)
        weights = masks.pull_weights([Guide(clip, [target])], pictures.to_tensor(image), 4, random)
        assert weights.shape == (1, 1, 8, 8)
        assert float(weights.mean()) == pytest.approx(1)
        share = functional.avg_pool2d(is_shape.float()[None, None], 4)
        assert weights[share > 0.9].mean() < 0.5 * weights[share == 0].mean()


def test_masks_that_cannot_be_used_are_refused(models: Models, tmp_path: Path) -> None:
    image = drawn(RED_ON_BLUE)[0]
    for mask, message in (
        (Image.new("L", (16, 32), 255), "the mask is 16 x 32, the image 32 x 32"),
        (Image.new("L", (32, 32), 0), "the mask has no white"),
    ):
        with pytest.raises(ConfigError, match=message):
            vqgan_clip.edit(image, PROMPT, mask=mask, models=models, config=QUICK)
    with pytest.raises(ConfigError, match="a mask or the text of one, not both"):
        vqgan_clip.edit(
            image, PROMPT, mask=Image.new("L", (32, 32), 255), mask_text="a", models=models, config=QUICK
        )
    with pytest.raises(ConfigError, match="dilate must be from 0"):
        vqgan_clip.edit(
            image, PROMPT, mask=Image.new("L", (32, 32), 255), dilate=-1, models=models, config=QUICK
        )


def test_a_continued_edit_is_the_uninterrupted_one(models: Models) -> None:
    image = drawn(RED_ON_BLUE)[0]

    def run(steps: int, state: dict[str, torch.Tensor] | None = None) -> vqgan_clip.Result:
        config = GuidanceConfig(steps=steps, views=2, chunk=2, pull=0.5)
        return vqgan_clip.edit(
            image, PROMPT, mask_text="a red circle", models=models, config=config, state=state
        )

    assert run(6, run(3).state).image.tobytes() == run(6).image.tobytes()
