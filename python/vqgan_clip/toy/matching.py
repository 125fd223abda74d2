"""The losses of the first member of the toy CLIP: whether pictures and captions match."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vqgan_clip.toy import shapes
from vqgan_clip.toy.adversary import N_CHAINS, Adversary
from vqgan_clip.toy.clip import Member, ToyClip
from vqgan_clip.toy.shown import between, decoded_latents, drawings, varied, with_unknown_words
from vqgan_clip.views import ViewPlan, make_views, plan_views
from vqgan_clip.vqgan import Vqgan

#: Paths per step, the share of those between shapes, not colours, and by how much the cosine rises on one.
_N_PATHS, _SHAPE_PATHS, _RISE = 16, 0.25, 0.6


class Matching(nn.Module):
    """The sigmoid loss of pairs of pictures and captions (Zhai et al. 2023, arXiv:2303.15343)."""

    def __init__(self) -> None:
        super().__init__()
        #: Logit of a pair of vectors: exp(scale) * cosine + bias, at first 10 * cosine - 5.
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def of_drawings(self, clip: Member, vqgan: Vqgan, n: int, generator: torch.Generator) -> Tensor:
        """The loss of all pairs of `n` drawings and their captions.

        Matching pairs, other pairs and near misses count a third each. A caption may match more than one
        drawing; each caption counts the same, or those that state little and match much would outweigh the
        full ones.
        """
        scenes = shapes.sample(n, generator, with_held_out=False)
        captions = [shapes.caption(scene, generator) for scene in scenes]
        images = drawings(vqgan, scenes, generator)
        ids = with_unknown_words(clip, captions, generator)
        vectors = clip.encode_images(varied(images, generator))
        logits = self._logits(vectors, clip.encode_tokens(ids))
        is_match = shapes.matches(scenes, captions)
        matching = (functional.softplus(-logits) * is_match).sum(0).div(is_match.sum(0)).mean()
        return (
            matching
            + functional.softplus(logits[~is_match]).mean()
            + self._of_near_misses(clip, vectors, scenes, generator)
        )

    def of_adversary(
        self, clip: Member, vqgan: Vqgan, adversary: Adversary, generator: torch.Generator
    ) -> list[Tensor]:
        """The losses of taking chains for their captions and mixtures for any, and of slopes on paths."""
        texts = clip.encode_tokens(adversary.ids)
        images = varied(torch.cat([adversary.images, adversary.mixed()]), generator)
        logits = self._logits(clip.encode_images(images), texts)
        chains = functional.softplus(logits[:N_CHAINS].diagonal()).mean()
        mixtures = functional.softplus(logits[N_CHAINS:]).mean()
        return [chains + mixtures, _of_paths(clip, vqgan, generator)]

    def _of_near_misses(
        self, clip: Member, vectors: Tensor, scenes: list[shapes.Scene], generator: torch.Generator
    ) -> Tensor:
        """The loss of taking drawings for captions that are almost right.

        Such captions are rare among random ones, but without them the CLIP learns neither which of two
        colours is the background nor the shape.
        """
        misses = [caption for scene in scenes for caption in shapes.near_misses(scene, generator)]
        texts = clip.encode_tokens(with_unknown_words(clip, misses, generator))
        logits = self._logits(vectors, texts).view(len(scenes), len(scenes), shapes.N_NEAR_MISSES)
        return functional.softplus(logits[range(len(scenes)), range(len(scenes))]).mean()

    def _logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Logits that vectors of images and texts match: (n, 64), (m, 64) -> (n, m)."""
        cosines = functional.normalize(images, dim=1) @ functional.normalize(texts, dim=1).mT
        return self.scale.exp() * cosines + self.bias


def _of_paths(clip: Member, vqgan: Vqgan, generator: torch.Generator) -> Tensor:
    """The loss of pairs of pictures on the way from a wrong drawing to the right one.

    The later one should be nearer to the caption; over the whole way the cosine should rise by `_RISE`.
    Without this loss guidance stops at the wrong drawing: the right one has a higher score, but on the way
    the score falls.
    """
    n = _N_PATHS
    scenes = shapes.sample(n, generator, empty=0.0, with_held_out=False)
    is_shape = torch.rand(n, generator=generator) < _SHAPE_PATHS
    wrong = [
        shapes.wrong(scene, generator)[1] if other else shapes.recolored(scene, generator)
        for scene, other in zip(scenes, is_shape.tolist(), strict=True)
    ]
    first, last = shapes.draw_alike(wrong, scenes, generator)
    share = torch.rand(n, 1, 1, 1, generator=generator)
    later = share + (1 - share) * torch.rand(n, 1, 1, 1, generator=generator)
    images = _between(vqgan, first, last, (share, later), generator)
    plan = plan_views(n, ToyClip.augmentations, generator)
    plan = ViewPlan(*(torch.cat([value, value]) for value in vars(plan).values()))
    vectors = clip.encode_images(make_views(images, plan, shapes.SIZE, generator))
    texts = clip.encode_tokens(clip.tokens([shapes.full_caption(s, generator).text for s in scenes])[0])
    before, after = functional.cosine_similarity(vectors.view(2, n, -1), texts, dim=-1)
    missing = _RISE * (later - share).flatten() - (after - before)
    # Ten times, so that the loss of a cosine that rises by 0.3 too much is almost nothing.
    return functional.softplus(10 * missing).mean()


@torch.no_grad()
def _between(
    vqgan: Vqgan, first: Tensor, last: Tensor, shares: tuple[Tensor, Tensor], generator: torch.Generator
) -> Tensor:
    """Two pictures on each way between drawings: half blend latents, half have some latents of each."""
    begin, end = vqgan.encode(torch.cat([first, last]) * 2 - 1).chunk(2)
    order = torch.rand(begin[:, :1].shape, generator=generator)
    return decoded_latents(vqgan, torch.cat([between(begin, end, share, order) for share in shares]))
