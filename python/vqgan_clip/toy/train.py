"""Trains the toy: a VQGAN on drawings, a CLIP on their captions, then the CLIP against its own guidance.

A tiny CLIP that has seen only drawings is fooled by guidance: the distance to the prompt falls while the
picture does not show it. The last stage therefore adds pictures that match no caption: decoded mixtures of
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

from vqgan_clip.config import ToyConfig
from vqgan_clip.quantize import quantize
from vqgan_clip.toy import shapes
from vqgan_clip.toy.adversary import Adversary
from vqgan_clip.toy.clip import Member, ToyClip
from vqgan_clip.toy.graded import Graded
from vqgan_clip.toy.matching import Matching
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
#: Drawings per step with a CLIP, before and beside the adversary.
_N_DRAWINGS, _N_BESIDE = 64, 40
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
            # The last quarter is for the decoder to learn the codes as they stay.
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
    """A CLIP of captioned drawings, as they are and as the VQGAN decodes them.

    Seeds torch's global generator, which draws the initial weights.
    """
    return ToyClip(
        [
            _train_member(Matching(), vqgan, config, _named("matching", on_step)),
            _train_member(Graded(), vqgan, config, _named("graded", on_step)),
        ]
    )


def _named(member: str, on_step: OnStep) -> OnStep:
    return lambda stage, *step: on_step(f"{stage} ({member})", *step)


def _train_member(losses: Matching | Graded, vqgan: Vqgan, config: ToyConfig, on_step: OnStep) -> Member:
    """One member; its weights are averaged over the steps with the adversary."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    torch.manual_seed(config.seed + 1)
    clip = Member()
    parameters = [*clip.parameters(), *losses.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.02)
    for step in range(config.clip_steps):
        _set_rate(optimizer, 2e-3, step, config.clip_steps)
        loss = losses.of_drawings(clip, vqgan, _N_DRAWINGS, generator)
        _descend(loss, optimizer, parameters)
        on_step("CLIP", step + 1, config.clip_steps, loss.item())
    adversary = Adversary(vqgan, clip, generator)
    average = copy.deepcopy(clip)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.5, 0.98), weight_decay=0.02)
    for step in range(config.adversarial_steps):
        _set_rate(optimizer, 1e-3, step, config.adversarial_steps, floor=0.2)
        adversary.step(clip)
        loss = losses.of_drawings(clip, vqgan, _N_BESIDE, generator)
        for part in losses.of_adversary(clip, vqgan, adversary, generator):
            loss = loss + part
        _descend(loss, optimizer, parameters)
        with torch.no_grad():
            for old, new in zip(average.parameters(), clip.parameters(), strict=True):
                old.lerp_(new, 1 - _CLIP_DECAY)
        on_step("adversary", step + 1, config.adversarial_steps, loss.item())
    return average.requires_grad_(False)


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _set_rate(
    optimizer: torch.optim.Optimizer, rate: float, step: int, n_steps: int, floor: float = 0.02
) -> None:
    """A short linear warm-up, then a cosine down to `floor` times the rate."""
    cosine = floor + (1 - floor) * (1 + math.cos(math.pi * step / n_steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / 50) * cosine
