"""The losses of the second member of the toy CLIP: how much of a caption a picture shows.

The cosine of a picture and a caption is to be `shapes.likeness`: each fact that becomes right raises it,
whatever else is wrong. The first member's score is almost flat where a picture does not match; guided by that
one alone, pictures seldom get the right shape.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vqgan_clip import latents
from vqgan_clip.toy import shapes
from vqgan_clip.toy.adversary import Adversary
from vqgan_clip.toy.clip import Member
from vqgan_clip.toy.shown import between, decoded_latents, drawings, varied, with_unknown_words
from vqgan_clip.vqgan import Vqgan

#: Paths per step from another colour, another shape, noise and random codes.
_N_PATHS = (8, 6, 5, 5)
#: The weights of the choice of a shape and of the chains.
_SHAPES, _CHAINS = 0.2, 0.5
#: What multiplies cosines before a softmax.
_SHARPNESS = 10


class Graded(nn.Module):
    """Squared errors of cosines."""

    def of_drawings(self, clip: Member, vqgan: Vqgan, n: int, generator: torch.Generator) -> Tensor:
        """The loss of all pairs of `n` drawings and their captions.

        A drawing's own caption, those of the others and its near misses count a third each: random captions
        seldom are almost right, and teach neither which of two colours is the background nor the shape.
        """
        scenes = shapes.sample(n, generator, with_held_out=False)
        captions = [shapes.caption(scene, generator) for scene in scenes]
        images = drawings(vqgan, scenes, generator)
        vectors = functional.normalize(clip.encode_images(varied(images, generator)), dim=1)
        errors = _errors(clip, vectors, scenes, captions, generator)
        is_own = torch.eye(n, dtype=torch.bool)
        misses = [caption for scene in scenes for caption in shapes.near_misses(scene, generator)]
        of_misses = _errors(clip, vectors, scenes, misses, generator).view(n, n, shapes.N_NEAR_MISSES)
        return (
            errors[is_own].mean()
            + errors[~is_own].mean()
            + of_misses[is_own].mean()
            + _SHAPES * _of_shapes(clip, vectors, scenes, generator)
        )

    def of_adversary(
        self, clip: Member, vqgan: Vqgan, adversary: Adversary, generator: torch.Generator
    ) -> list[Tensor]:
        """The loss of taking chains for their captions, and of wrong cosines on paths."""
        vectors = clip.encode_images(varied(adversary.images, generator))
        cosines = functional.cosine_similarity(vectors, clip.encode_tokens(adversary.ids))
        return [_CHAINS * cosines.clamp(min=0).mean() + _of_paths(clip, vqgan, generator)]


def _errors(
    clip: Member,
    vectors: Tensor,
    scenes: list[shapes.Scene],
    captions: list[shapes.Caption],
    generator: torch.Generator,
) -> Tensor:
    """Squared errors of the cosines of drawings, whose unit vectors are given, and captions."""
    texts = clip.encode_tokens(with_unknown_words(clip, captions, generator))
    cosines = vectors @ functional.normalize(texts, dim=1).mT
    return (cosines - shapes.likeness(scenes, captions)).square()


def _of_shapes(
    clip: Member, vectors: Tensor, scenes: list[shapes.Scene], generator: torch.Generator
) -> Tensor:
    """The loss of choosing the right one of five captions, one of each shape, for half of the drawings."""
    chosen = [n for n, scene in enumerate(scenes) if scene.shape != shapes.ANY][::2]
    others = [replace(scenes[n], shape=shape) for n in chosen for shape in range(len(shapes.SHAPES))]
    others = [shapes.recolored(s, generator) if shapes.held_out(s) else s for s in others]
    texts = clip.encode_tokens(clip.tokens([shapes.full_caption(s, generator).text for s in others])[0])
    texts = functional.normalize(texts, dim=1).view(len(chosen), len(shapes.SHAPES), -1)
    cosines = (texts @ vectors[chosen][..., None])[..., 0]
    return functional.cross_entropy(_SHARPNESS * cosines, torch.tensor([scenes[n].shape for n in chosen]))


def _of_paths(clip: Member, vqgan: Vqgan, generator: torch.Generator) -> Tensor:
    """The squared errors of the cosines of a drawing's caption and pictures on the way to that drawing.

    Ways begin at the drawing in another colour or shape, at noise, and at random codes. The cosine rises
    with the share of the way, or guidance stops at the wrong drawing: the right one has a higher score, but
    on the way there the score falls.
    """
    n_recolored, n_reshaped, n_noise, n_codes = _N_PATHS
    n_wrong, n = n_recolored + n_reshaped, sum(_N_PATHS)
    scenes = shapes.sample(n, generator, empty=0.0, with_held_out=False)
    captions = [shapes.full_caption(scene, generator) for scene in scenes]
    wrong = [shapes.recolored(scene, generator) for scene in scenes[:n_recolored]]
    wrong += [shapes.wrong(scene, generator)[1] for scene in scenes[n_recolored:]]
    first, last = shapes.draw_alike(wrong, scenes, generator)
    for image in first[n_wrong : n_wrong + n_noise]:
        image.copy_(latents.noise(shapes.SIZE, shapes.SIZE, generator)[0])
    share = torch.rand(n, 1, 1, 1, generator=generator)
    with torch.no_grad():
        begin, end = vqgan.encode(torch.cat([first, last]) * 2 - 1).chunk(2)
        codes = torch.randint(len(vqgan.codebook), (n_codes, *begin.shape[2:]), generator=generator)
        begin = torch.cat([begin[: n - n_codes], vqgan.entries(codes)])
        order = torch.rand(begin[:, :1].shape, generator=generator)
        images = decoded_latents(vqgan, between(begin, end, share, order))
    at_begin = shapes.likeness(wrong, captions).diagonal().clone()
    at_begin[n_wrong:] = 0
    texts = clip.encode_tokens(clip.tokens([caption.text for caption in captions])[0])
    cosines = functional.cosine_similarity(clip.encode_images(varied(images, generator)), texts)
    return (cosines - torch.lerp(at_begin, torch.ones(n), share.flatten())).square().mean()
