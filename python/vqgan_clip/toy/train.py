"""Trains the toy: a VQGAN on drawings, a CLIP on their captions, then the CLIP against its own guidance.

A tiny CLIP that has seen only drawings is fooled by guidance: the distance to the prompt falls while the
picture does not show it. The third stage therefore adds pictures that match no caption: decoded mixtures of
codes, and chains of guided pictures that follow the CLIP as it learns, as samples follow an energy-based
model ("Your Classifier is Secretly an Energy Based Model", Grathwohl et al. 2020, arXiv:1912.03263).

The VQGAN is trained by its reconstruction and codebook losses alone: at 32 x 32 pixels of flat colours it
needs neither a discriminator nor a perceptual loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vqgan_clip import latents
from vqgan_clip.config import ToyConfig
from vqgan_clip.guidance import clamp_with_grad, spherical_distance
from vqgan_clip.quantize import quantize
from vqgan_clip.toy import shapes
from vqgan_clip.toy.clip import PAD, UNKNOWN, ToyClip
from vqgan_clip.views import ViewPlan, make_views, plan_views
from vqgan_clip.vqgan import Vqgan, VqganConfig

CONFIG = VqganConfig(
    ch=24,
    ch_mult=(1, 1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
    resolution=shapes.SIZE,
    z_channels=16,
    embed_dim=16,
    n_embed=256,
)

#: Called after each step with the stage's name, finished steps, steps in all and the loss.
OnStep = Callable[[str, int, int, float], None]

_BATCH = 32
_COMMITMENT = 0.25
_RESTART_CODES_EVERY = 25
#: Share of drawings that the CLIP sees after the VQGAN's reconstruction: guidance shows it nothing else.
_DECODED = 0.6
_N_CHAINS, _CHAIN_STEPS, _N_MIXED = 32, 100, 16
#: Paths per step, the share of those between shapes, not colours, and by how much the cosine rises on one.
_N_PATHS, _SHAPE_PATHS, _RISE = 16, 0.25, 0.6
_CLIP_DECAY = 0.995


def train_vqgan(config: ToyConfig, on_step: OnStep) -> Vqgan:
    """A VQGAN of 32 x 32 drawings. Seeds torch's global generator, which draws the initial weights."""
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    model = Vqgan(CONFIG)
    with torch.no_grad():
        model.codebook.normal_(0, 1, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    usage = torch.zeros(CONFIG.n_embed)
    for step in range(config.vqgan_steps):
        _set_rate(optimizer, 2e-3, step, config.vqgan_steps)
        scenes = shapes.sample(_BATCH, generator)
        images = shapes.draw(scenes, generator)[0] * 2 - 1
        encoded = model.encode(images)
        entries, codes = quantize(encoded, model.codebook)
        chosen = model.entries(codes)
        error = model.decode(entries) - images
        loss = error.abs().mean() + error.square().mean()
        loss = loss + functional.mse_loss(chosen, encoded.detach())
        loss = loss + _COMMITMENT * functional.mse_loss(encoded, chosen.detach())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        usage += torch.bincount(codes.flatten(), minlength=CONFIG.n_embed)
        if (step + 1) % _RESTART_CODES_EVERY == 0:
            if step < config.vqgan_steps * 3 // 4:
                _restart_codes(model, usage, encoded.detach(), generator)
            usage.zero_()
        on_step("VQGAN", step + 1, config.vqgan_steps, loss.item())
    return model.requires_grad_(False)


@torch.no_grad()
def _restart_codes(model: Vqgan, usage: Tensor, encoded: Tensor, generator: torch.Generator) -> None:
    """Moves the entries that no latent has chosen to random latents."""
    dead = (usage == 0).nonzero()[:, 0]
    vectors = encoded.movedim(1, -1).flatten(0, 2)
    model.codebook[dead] = vectors[torch.randint(len(vectors), (len(dead),), generator=generator)]


def train_clip(vqgan: Vqgan, config: ToyConfig, on_step: OnStep) -> ToyClip:
    """A CLIP of captioned drawings, as they are and as the VQGAN decodes them; its weights are averaged.

    Seeds torch's global generator, which draws the initial weights.
    """
    generator = torch.Generator().manual_seed(config.seed + 1)
    torch.manual_seed(config.seed + 1)
    clip = ToyClip()
    optimizer = torch.optim.AdamW(clip.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.02)
    for step in range(config.clip_steps):
        _set_rate(optimizer, 2e-3, step, config.clip_steps)
        loss = _matching_loss(clip, vqgan, 64, generator)
        _descend(loss, optimizer, clip)
        on_step("CLIP", step + 1, config.clip_steps, loss.item())
    adversary = Adversary(vqgan, clip, generator)
    average = copy.deepcopy(clip)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-3, betas=(0.5, 0.98), weight_decay=0.02)
    for step in range(config.adversarial_steps):
        _set_rate(optimizer, 1e-3, step, config.adversarial_steps, floor=0.2)
        adversary.step(clip)
        loss = _matching_loss(clip, vqgan, 40, generator) + adversary.loss(clip)
        loss = loss + _path_loss(clip, vqgan, _N_PATHS, generator)
        _descend(loss, optimizer, clip)
        with torch.no_grad():
            for old, new in zip(average.parameters(), clip.parameters(), strict=True):
                old.lerp_(new, 1 - _CLIP_DECAY)
        on_step("adversary", step + 1, config.adversarial_steps, loss.item())
    return average.requires_grad_(False)


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _set_rate(
    optimizer: torch.optim.Optimizer, rate: float, step: int, n_steps: int, floor: float = 0.02
) -> None:
    """A short linear warm-up, then a cosine down to `floor` times the rate."""
    cosine = floor + (1 - floor) * (1 + math.cos(math.pi * step / n_steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / 50) * cosine


def _matching_loss(clip: ToyClip, vqgan: Vqgan, n: int, generator: torch.Generator) -> Tensor:
    """The sigmoid loss of all pairs of `n` drawings and their captions (Zhai et al. 2023, arXiv:2303.15343).

    Matching pairs, other pairs and near misses count a third each. A caption may match more than one drawing;
    each caption counts the same, or those that state little and match much would outweigh the full ones.
    """
    scenes = shapes.sample(n, generator, with_held_out=False)
    captions = [shapes.caption(scene, generator) for scene in scenes]
    images, _ = shapes.draw(scenes, generator)
    images[: round(_DECODED * n)] = decoded(vqgan, images[: round(_DECODED * n)])
    ids = _with_unknown_words(clip, captions, generator)
    vectors = clip.encode_images(varied(images, generator))
    logits = clip.logits(vectors, clip.encode_tokens(ids))
    is_match = shapes.matches(scenes, captions)
    matching = (functional.softplus(-logits) * is_match).sum(0).div(is_match.sum(0)).mean()
    return (
        matching
        + functional.softplus(logits[~is_match]).mean()
        + _near_miss_loss(clip, vectors, scenes, generator)
    )


def _near_miss_loss(
    clip: ToyClip, vectors: Tensor, scenes: list[shapes.Scene], generator: torch.Generator
) -> Tensor:
    """The loss of taking drawings for captions that are almost right.

    Such captions are rare among random ones, but without them the CLIP learns neither which of two colours is
    the background nor the shape.
    """
    misses = [caption for scene in scenes for caption in shapes.near_misses(scene, generator)]
    texts = clip.encode_tokens(_with_unknown_words(clip, misses, generator))
    logits = clip.logits(vectors, texts).view(len(scenes), len(scenes), shapes.N_NEAR_MISSES)
    return functional.softplus(logits[range(len(scenes)), range(len(scenes))]).mean()


def _path_loss(clip: ToyClip, vqgan: Vqgan, n: int, generator: torch.Generator) -> Tensor:
    """The loss of pairs of pictures on the way from a wrong drawing to the right one.

    The later one should be nearer to the caption; over the whole way the cosine should rise by `_RISE`.
    Without this loss guidance stops at the wrong drawing: the right one has a higher score, but on the way
    the score falls.
    """
    scenes = shapes.sample(n, generator, empty=0.0, with_held_out=False)
    is_shape = torch.rand(n, generator=generator) < _SHAPE_PATHS
    wrong = [
        shapes.wrong(scene, generator)[1] if other else shapes.recolored(scene, generator)
        for scene, other in zip(scenes, is_shape.tolist(), strict=True)
    ]
    # Drawn with the same random numbers, the two differ in the colour or the shape alone.
    state = generator.get_state()
    first, _ = shapes.draw(wrong, generator)
    generator.set_state(state)
    last, _ = shapes.draw(scenes, generator)
    share = torch.rand(n, 1, 1, 1, generator=generator)
    later = share + (1 - share) * torch.rand(n, 1, 1, 1, generator=generator)
    images = torch.cat(_between(vqgan, first, last, (share, later), generator))
    plan = plan_views(n, ToyClip.augmentations, generator)
    plan = ViewPlan(*(torch.cat([value, value]) for value in vars(plan).values()))
    vectors = clip.encode_images(make_views(images, plan, shapes.SIZE, generator))
    texts = clip.encode_tokens(clip.tokens([shapes.full_caption(s, generator).text for s in scenes])[0])
    before, after = functional.cosine_similarity(vectors.view(2, n, -1), texts, dim=-1)
    missing = _RISE * (later - share).flatten() - (after - before)
    return functional.softplus(10 * missing).mean()


@torch.no_grad()
def _between(
    vqgan: Vqgan, first: Tensor, last: Tensor, shares: tuple[Tensor, Tensor], generator: torch.Generator
) -> list[Tensor]:
    """Decoded pictures between images: half have blended latents, half some latents of each image."""
    encoded = vqgan.encode(torch.cat([first, last]) * 2 - 1)
    begin, end = encoded.chunk(2)
    order = torch.rand(begin[:, :1].shape, generator=generator)
    is_blend = (torch.arange(len(first)) % 2 == 0)[:, None, None, None]
    mixed = [
        torch.where(is_blend, torch.lerp(begin, end, share), torch.where(order < share, end, begin))
        for share in shares
    ]
    pictures = vqgan.decode(quantize(torch.cat(mixed), vqgan.codebook)[0])
    return list(((pictures + 1) / 2).clamp(0, 1).chunk(2))


def _with_unknown_words(clip: ToyClip, captions: list[shapes.Caption], generator: torch.Generator) -> Tensor:
    """Ids of captions; in some, words that state no fact become unknown words."""
    ids, _ = clip.tokens([caption.text for caption in captions])
    fillers = [clip.words[word] for word in ("a", "the", "of", "and", "with", "in", "on", "but")]
    chance = torch.rand(ids.shape, generator=generator) < 0.15
    return torch.where(torch.isin(ids, torch.tensor(fillers)) & chance, UNKNOWN, ids)


@torch.no_grad()
def decoded(vqgan: Vqgan, images: Tensor) -> Tensor:
    """Images in [0, 1] as the VQGAN encodes, quantizes and decodes them."""
    entries, _ = quantize(vqgan.encode(images * 2 - 1), vqgan.codebook)
    return ((vqgan.decode(entries) + 1) / 2).clamp(0, 1)


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """One view of each image, as guidance shows them to the CLIP."""
    plan = plan_views(len(images), ToyClip.augmentations, generator)
    return make_views(images, plan, shapes.SIZE, generator)


class Adversary:
    """Chains of pictures that are guided to captions by the CLIP in training, and mixtures of codes.

    Each chain takes one step of Adam per step of training and starts anew after `_CHAIN_STEPS`; its picture
    counts as one that its caption does not match. Where chains reach what drawings look like, the two
    gradients cancel.
    """

    def __init__(self, vqgan: Vqgan, clip: ToyClip, generator: torch.Generator) -> None:
        self._vqgan, self._generator = vqgan, generator
        codebook = vqgan.codebook
        self._low, self._high = codebook.amin(0)[:, None, None], codebook.amax(0)[:, None, None]
        self._rate = 0.3 * float(codebook.std())
        side = shapes.SIZE // vqgan.factor
        self._latents = torch.zeros(_N_CHAINS, CONFIG.embed_dim, side, side)
        self._mean, self._square = torch.zeros_like(self._latents), torch.zeros_like(self._latents)
        # Chains of all ages from the beginning.
        self._age = torch.arange(_N_CHAINS) * _CHAIN_STEPS // _N_CHAINS
        self._ids = torch.full((_N_CHAINS, clip.context), PAD)
        self._images = torch.zeros(_N_CHAINS, 3, shapes.SIZE, shapes.SIZE)
        self._renew(torch.ones(_N_CHAINS, dtype=torch.bool), clip)

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
        codes = torch.randint(CONFIG.n_embed, (n, side, side), generator=generator)
        images, _ = shapes.draw(shapes.sample(n, generator, with_held_out=False), generator)
        _, drawn = quantize(self._vqgan.encode(images * 2 - 1), self._vqgan.codebook)
        share = torch.rand(n, 1, 1, generator=generator) * most_drawn
        is_drawn = torch.rand(codes.shape, generator=generator) < share
        is_drawn &= (torch.arange(n) % 2 == 0)[:, None, None]
        return self._vqgan.entries(torch.where(is_drawn, drawn, codes))

    @torch.no_grad()
    def _renew(self, which: Tensor, clip: ToyClip) -> None:
        n = int(which.sum())
        if not n:
            return
        scenes = shapes.sample(n, self._generator, with_held_out=False)
        captions = [shapes.caption(scene, self._generator) for scene in scenes]
        self._latents[which] = self._initial(scenes, captions)
        self._mean[which], self._square[which] = 0, 0
        self._ids[which] = clip.tokens([caption.text for caption in captions])[0]

    def step(self, clip: ToyClip) -> None:
        """One step of guidance of all chains."""
        clip.requires_grad_(False)
        self._renew(self._age >= _CHAIN_STEPS, clip)
        self._age[self._age >= _CHAIN_STEPS] = 0
        moved = self._latents.clone().requires_grad_()
        entries, _ = quantize(moved, self._vqgan.codebook)
        images = clamp_with_grad((self._vqgan.decode(entries) + 1) / 2, 0, 1)
        vectors = clip.encode_images(varied(images, self._generator))
        loss = spherical_distance(vectors, clip.encode_tokens(self._ids)).sum()
        (grad,) = torch.autograd.grad(loss, moved)
        self._age += 1
        self._mean.mul_(0.9).add_(grad, alpha=0.1)
        self._square.mul_(0.999).addcmul_(grad, grad, value=0.001)
        age = self._age[:, None, None, None]
        mean, square = self._mean / (1 - 0.9**age), self._square / (1 - 0.999**age)
        self._latents.sub_(self._rate * mean / (square.sqrt() + 1e-8))
        torch.maximum(torch.minimum(self._latents, self._high), self._low, out=self._latents)
        self._images = images.detach()
        clip.requires_grad_(True)

    def loss(self, clip: ToyClip) -> Tensor:
        """The loss of taking chains for their captions, and mixtures for any of them."""
        texts = clip.encode_tokens(self._ids)
        with torch.no_grad():
            mixed = ((self._vqgan.decode(self._codes(_N_MIXED, 0.8)) + 1) / 2).clamp(0, 1)
        images = varied(torch.cat([self._images, mixed]), self._generator)
        logits = clip.logits(clip.encode_images(images), texts)
        chains = functional.softplus(logits[:_N_CHAINS].diagonal()).mean()
        return chains + functional.softplus(logits[_N_CHAINS:]).mean()
