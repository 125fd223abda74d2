"""Pictures and captions as the members of the toy CLIP see them in training."""

from __future__ import annotations

import torch
from torch import Tensor

from vqgan_clip.quantize import quantize
from vqgan_clip.toy import shapes
from vqgan_clip.toy.clip import UNKNOWN, Member, ToyClip
from vqgan_clip.views import make_views, plan_views
from vqgan_clip.vqgan import Vqgan

#: Share of drawings that are shown after the VQGAN's reconstruction: guidance shows nothing else.
_DECODED = 0.6


@torch.no_grad()
def decoded(vqgan: Vqgan, images: Tensor) -> Tensor:
    """Images in [0, 1] as the VQGAN encodes, quantizes and decodes them."""
    return decoded_latents(vqgan, vqgan.encode(images * 2 - 1))


def drawings(vqgan: Vqgan, scenes: list[shapes.Scene], generator: torch.Generator) -> Tensor:
    """A drawing of each scene, most of them as the VQGAN decodes them: (n, 3, 32, 32) float32 in [0, 1]."""
    n_decoded = round(_DECODED * len(scenes))
    images, _ = shapes.draw(scenes, generator)
    images[:n_decoded] = decoded(vqgan, images[:n_decoded])
    return images


@torch.no_grad()
def decoded_latents(vqgan: Vqgan, latents: Tensor) -> Tensor:
    """The pictures that the VQGAN decodes from latents, quantized: (n, 3, 32, 32) float32 in [0, 1]."""
    return ((vqgan.decode(quantize(latents, vqgan.codebook)[0]) + 1) / 2).clamp(0, 1)


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """One view of each image, as guidance shows them to the CLIP."""
    plan = plan_views(len(images), ToyClip.augmentations, generator)
    return make_views(images, plan, shapes.SIZE, generator)


def with_unknown_words(clip: Member, captions: list[shapes.Caption], generator: torch.Generator) -> Tensor:
    """Ids of captions; in some, words that state no fact become unknown words."""
    ids, _ = clip.tokens([caption.text for caption in captions])
    fillers = [clip.words[word] for word in ("a", "the", "of", "and", "with", "in", "on", "but")]
    chance = torch.rand(ids.shape, generator=generator) < 0.15
    return torch.where(torch.isin(ids, torch.tensor(fillers)) & chance, UNKNOWN, ids)


def between(begin: Tensor, end: Tensor, share: Tensor, order: Tensor) -> Tensor:
    """Latents on the way between two: half blend both, half are the first ones of an order from the end.

    Shapes: (n, d, h, w) twice, (n, 1, 1, 1), (n, 1, h, w) -> (n, d, h, w), all float32.
    """
    is_blend = (torch.arange(len(begin)) % 2 == 0)[:, None, None, None]
    return torch.where(is_blend, torch.lerp(begin, end, share), torch.where(order < share, end, begin))
