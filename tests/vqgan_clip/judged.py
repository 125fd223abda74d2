"""Experiments with the toy whose results are judged: pictures of prompts, edits, negative prompts, masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tests.vqgan_clip.judges import Verdict, classified, palette
from torch import Tensor

import vqgan_clip
from vqgan_clip import masks, pictures
from vqgan_clip.config import GuidanceConfig
from vqgan_clip.models import Models
from vqgan_clip.toy import shapes
from vqgan_clip.toy.shapes import COLOR_NAMES, COLORS, SHAPES, Scene

CONFIG = GuidanceConfig(steps=100, views=8, chunk=8)
#: The pull of edits.
PULL = 0.6
#: Pixels by which the region of an edit exceeds the shape: where the decoder blends both colours.
_MARGIN = 2


def pairs(n: int, *, held_out: bool = False) -> list[Scene]:
    """Scenes for prompts, from a seed that the toy's training does not use; seeds are their numbers."""
    generator = torch.Generator().manual_seed(99)
    found = [s for s in shapes.sample(40 * n, generator, empty=0.0) if shapes.held_out(s) == held_out]
    return found[:n]


def generated(scenes: list[Scene], models: Models, config: GuidanceConfig, start: str = "noise") -> Tensor:
    """A picture for the caption of each scene: (n, 3, 32, 32)."""
    return torch.cat(
        [
            _tensor(vqgan_clip.generate(s.caption, seed=i, start=start, models=models, config=config))
            for i, s in enumerate(scenes)
        ]
    )


def judged(
    n: int, models: Models, config: GuidanceConfig = CONFIG, *, held_out: bool = False, start: str = "noise"
) -> Verdict:
    """The judges' verdict on `n` pairs of prompt and seed."""
    scenes = pairs(n, held_out=held_out)
    return Verdict.of(generated(scenes, models, config, start), scenes)


def repelled(n: int, models: Models) -> tuple[float, float]:
    """Mean share of a colour's pixels without and with a negative prompt that names it.

    The colour is the background of the picture that the same seed gives for `a {shape}` alone.
    """
    before, after = [], []
    for seed in range(n):
        prompt = f"a {SHAPES[seed % len(SHAPES)]}"
        first = _tensor(vqgan_clip.generate(prompt, seed=seed, models=models, config=CONFIG))
        color = int(palette(first)[0, 1])
        negative = f"{prompt} | {COLOR_NAMES[color]} background:-0.5"
        second = _tensor(vqgan_clip.generate(negative, seed=seed, models=models, config=CONFIG))
        before.append(_share(first, color))
        after.append(_share(second, color))
    return sum(before) / n, sum(after) / n


@dataclass(frozen=True)
class Edits:
    """How edits to another colour of the shape went.

    Attributes:
        reached: Share in which the classifier finds the new colour.
        outside: Mean change of pixels outside the shape beyond plain reconstruction, in [0, 1].
        n_other: Pixels outside the mask that changed at all.
    """

    reached: float
    outside: float
    n_other: int


def edited(n: int, models: Models, *, pull: float = 0.0, with_mask: bool = False) -> Edits:
    """Edits `n` drawings: the shape is to have another colour."""
    generator = torch.Generator().manual_seed(7)
    scenes = shapes.sample(n, generator, empty=0.0)
    images, cover = shapes.draw(scenes, generator)
    config = replace(CONFIG, pull=pull)
    results, outside, n_other = [], [], 0
    for i, scene in enumerate(scenes):
        other = next(c for c in range(i, i + 8) if c % 8 not in (scene.color, scene.background)) % 8
        target = replace(scene, color=other)
        image = pictures.to_image(images[i : i + 1])
        region = masks.dilated((cover[i] > 0.5).float()[None, None], _MARGIN)
        mask = masks.to_image(region) if with_mask else None
        plain = vqgan_clip.edit(image, target.caption, models=models, config=replace(config, steps=0))
        result = vqgan_clip.edit(image, target.caption, mask=mask, seed=i, models=models, config=config)
        found, original, unedited = _tensor(result), pictures.to_tensor(image), _tensor(plain)
        is_outside = (region == 0).expand(1, 3, -1, -1)
        n_other += int((found != original)[is_outside].sum()) if with_mask else 0
        outside.append(float((found - unedited)[is_outside].abs().mean()))
        results.append(int(classified(found)[0, 1]) == other)
    return Edits(sum(results) / n, sum(outside) / n, n_other)


def overlap(n: int, models: Models) -> float:
    """Mean intersection over union of masks found by text with the drawn shapes."""
    generator = torch.Generator().manual_seed(8)
    scenes = shapes.sample(n, generator, empty=0.0)
    images, cover = shapes.draw(scenes, generator)
    total = 0.0
    for i, scene in enumerate(scenes):
        text = f"a {COLOR_NAMES[scene.color]} {SHAPES[scene.shape]}"
        found = masks.from_text(models.clips[0], images[i : i + 1], text, generator)[0, 0] > 0
        drawn = cover[i] > 0.5
        total += float((found & drawn).sum() / (found | drawn).sum())
    return total / n


def _tensor(result: vqgan_clip.Result) -> Tensor:
    return pictures.to_tensor(result.image)


def _share(picture: Tensor, color: int) -> float:
    colors = torch.tensor(list(COLORS.values()))
    nearest = (picture[:, None] - colors[None, :, :, None, None]).square().sum(2).argmin(1)
    return float((nearest == color).float().mean())
