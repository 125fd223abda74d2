"""The adversary of the toy CLIP: pictures that please it and show what no caption says."""

from __future__ import annotations

import torch
from torch import Tensor

from vqgan_clip import latents
from vqgan_clip.guidance import clamp_with_grad, spherical_distance
from vqgan_clip.quantize import quantize
from vqgan_clip.toy import shapes
from vqgan_clip.toy.clip import CONTEXT, PAD, Member
from vqgan_clip.toy.shown import varied
from vqgan_clip.vqgan import Vqgan

N_CHAINS = 32
_CHAIN_STEPS, _N_MIXED = 100, 16


class Adversary:
    """Chains of pictures that are guided to captions by the CLIP in training, and mixtures of codes.

    Each chain takes one step of Adam per step of training and starts anew after `_CHAIN_STEPS`; its picture
    counts as one that its caption does not match. Where chains reach what drawings look like, the two
    gradients cancel.

    Attributes:
        ids: The words of the captions: (N_CHAINS, 16) int64.
        images: Where the chains are: (N_CHAINS, 3, 32, 32) float32 in [0, 1].
    """

    def __init__(self, vqgan: Vqgan, clip: Member, generator: torch.Generator) -> None:
        self._vqgan, self._generator = vqgan, generator
        codebook = vqgan.codebook
        self._low, self._high = codebook.amin(0)[:, None, None], codebook.amax(0)[:, None, None]
        # Half of the rate of guidance: the CLIP changes below the chains.
        self._rate = 0.3 * float(codebook.std())
        side = shapes.SIZE // vqgan.factor
        self._latents = torch.zeros(N_CHAINS, codebook.shape[1], side, side)
        self._mean, self._square = torch.zeros_like(self._latents), torch.zeros_like(self._latents)
        # Chains of all ages from the beginning.
        self._age = torch.arange(N_CHAINS) * _CHAIN_STEPS // N_CHAINS
        self.ids = torch.full((N_CHAINS, CONTEXT), PAD)
        self.images = torch.zeros(N_CHAINS, 3, shapes.SIZE, shapes.SIZE)
        self._renew(torch.ones(N_CHAINS, dtype=torch.bool), clip)

    def _initial(self, scenes: list[shapes.Scene], captions: list[shapes.Caption]) -> Tensor:
        """Latents where chains begin: noise as for guidance, mixtures of codes, and drawings of the scenes in
        another colour, as for edits, if the captions do not match these.
        """
        n, generator = len(scenes), self._generator
        noise = torch.cat([latents.noise(shapes.SIZE, shapes.SIZE, generator) for _ in range(n)])
        recolored = [shapes.recolored(scene, generator) for scene in scenes]
        drawn, _ = shapes.draw(recolored, generator)
        kind = torch.randint(3, (n,), generator=generator)
        kind = kind.masked_fill((kind == 2) & shapes.matches(recolored, captions).diagonal(), 0)
        kind = kind[:, None, None, None]
        encoded = latents.encoded(self._vqgan, torch.where(kind == 2, drawn, noise))
        return torch.where(kind == 1, self._codes(n, 1.0), encoded)

    def _codes(self, n: int, most_drawn: float) -> Tensor:
        """Latents of random codes; in half of them up to `most_drawn` of the codes are those of a drawing."""
        generator, side = self._generator, self._latents.shape[-1]
        codes = torch.randint(len(self._vqgan.codebook), (n, side, side), generator=generator)
        images, _ = shapes.draw(shapes.sample(n, generator, with_held_out=False), generator)
        _, drawn = quantize(self._vqgan.encode(images * 2 - 1), self._vqgan.codebook)
        share = torch.rand(n, 1, 1, generator=generator) * most_drawn
        is_drawn = torch.rand(codes.shape, generator=generator) < share
        is_drawn &= (torch.arange(n) % 2 == 0)[:, None, None]
        return self._vqgan.entries(torch.where(is_drawn, drawn, codes))

    @torch.no_grad()
    def _renew(self, which: Tensor, clip: Member) -> None:
        n = int(which.sum())
        if not n:
            return
        scenes = shapes.sample(n, self._generator, with_held_out=False)
        captions = [shapes.caption(scene, self._generator) for scene in scenes]
        self._latents[which] = self._initial(scenes, captions)
        self._mean[which], self._square[which] = 0, 0
        self.ids[which] = clip.tokens([caption.text for caption in captions])[0]

    def step(self, clip: Member) -> None:
        """One step of guidance of all chains."""
        clip.requires_grad_(False)
        self._renew(self._age >= _CHAIN_STEPS, clip)
        self._age[self._age >= _CHAIN_STEPS] = 0
        moved = self._latents.clone().requires_grad_()
        entries, _ = quantize(moved, self._vqgan.codebook)
        images = clamp_with_grad((self._vqgan.decode(entries) + 1) / 2, 0, 1)
        vectors = clip.encode_images(varied(images, self._generator))
        loss = spherical_distance(vectors, clip.encode_tokens(self.ids)).sum()
        (grad,) = torch.autograd.grad(loss, moved)
        self._age += 1
        self._mean.mul_(0.9).add_(grad, alpha=0.1)
        self._square.mul_(0.999).addcmul_(grad, grad, value=0.001)
        age = self._age[:, None, None, None]
        mean, square = self._mean / (1 - 0.9**age), self._square / (1 - 0.999**age)
        self._latents.sub_(self._rate * mean / (square.sqrt() + 1e-8))
        torch.maximum(torch.minimum(self._latents, self._high), self._low, out=self._latents)
        self.images = images.detach()
        clip.requires_grad_(True)

    @torch.no_grad()
    def mixed(self) -> Tensor:
        """Pictures of mixed codes, which match no caption: (16, 3, 32, 32)."""
        return ((self._vqgan.decode(self._codes(_N_MIXED, 0.8)) + 1) / 2).clamp(0, 1)
