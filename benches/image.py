"""A step of VQGAN-CLIP without its networks, against nerdyrodent/VQGAN-CLIP; peak memory by views at once."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benches import peers
from benches.image_peer import definitions
from benches.markdown import seconds, spread, table
from benches.measure import Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, speed_up

TITLE = "VQGAN-CLIP"
PEER = "nerdyrodent/VQGAN-CLIP"
TARGET = 3.0
CPUS = (1, 2)
#: The peer's defaults: 256 x 256 pixels, the codebook of taming's f16-16384, and ViT-B/32's views.
SIDE, N_TOKENS, N_EMBED, N_DIMENSIONS, VIEW, N_VIEWS = 256, 16, 16384, 256, 224, 32
#: Steps per round, after one that is not measured.
N_STEPS = 5

#: Views at once, of 16.
CHUNKS = (1, 4, 16)
#: Side of the picture whose memory is measured.
MEMORY_SIDE = 256

#: Latents and the codebook -> quantized latents. A picture -> its views.
Quantize = Callable[[Any, Any], Any]
View = Callable[[Any], Any]


def ours(cpus: int, n_steps: int) -> Measured:
    """Measures our quantizer and views, forward and backward."""
    import torch

    from vqgan_clip.config import DEFAULT_AUGMENTATIONS
    from vqgan_clip.quantize import quantize, squared_norms
    from vqgan_clip.views import make_views, plan_views

    generator = torch.Generator().manual_seed(1)
    norms: list[Any] = []

    def quantized(latents: Any, codebook: Any) -> Any:
        # Once per run, as in `Guidance`.
        norms[:] = norms or [squared_norms(codebook)]
        return quantize(latents, codebook, norms[0])[0]

    def views(picture: Any) -> Any:
        plan = plan_views(N_VIEWS, DEFAULT_AUGMENTATIONS, generator)
        return make_views(picture, plan, VIEW, generator)

    return _measured(cpus, n_steps, quantized, views)


def theirs(cpus: int, n_steps: int, checkout: str) -> Measured:
    """Measures the peer's quantizer and its default cutouts."""
    warnings.simplefilter("ignore")
    import torch

    own = definitions(Path(checkout))
    torch.manual_seed(1)
    make_cutouts = own["MakeCutouts"](VIEW, N_VIEWS)

    def quantized(latents: Any, codebook: Any) -> Any:
        return own["vector_quantize"](latents.movedim(1, 3), codebook).movedim(3, 1)

    return _measured(cpus, n_steps, quantized, make_cutouts)


def _measured(cpus: int, n_steps: int, quantized: Quantize, views: View) -> Measured:
    """Steps of given latents and a given picture; the gradients of both networks are given too."""
    import torch

    torch.set_num_threads(cpus)
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn(N_EMBED, N_DIMENSIONS, generator=generator)
    shape = (1, N_DIMENSIONS, N_TOKENS, N_TOKENS)
    latents = torch.randn(shape, generator=generator).requires_grad_()
    picture = torch.rand(1, 3, SIDE, SIDE, generator=generator).requires_grad_()
    latent_gradient = torch.randn(shape, generator=generator)
    view_gradient = torch.randn(N_VIEWS, 3, VIEW, VIEW, generator=generator)

    def step() -> Any:
        entries = quantized(latents, codebook)
        entries.backward(latent_gradient)
        views(picture).backward(view_gradient)
        return entries

    entries = step().detach()
    is_straight = torch.equal(latents.grad, latent_gradient)
    nearest = codebook[torch.cdist(latents.detach()[0].flatten(1).T, codebook).argmin(1)].T.view(shape)
    n_differing = int((entries - nearest).abs().amax(1).gt(1e-5).sum()) + (not is_straight)
    with Stopwatch() as clock:
        for _ in range(n_steps):
            step()
    parts = {}
    for name, part in (
        ("quantize", lambda: quantized(latents, codebook).backward(latent_gradient)),
        ("views", lambda: views(picture).backward(view_gradient)),
    ):
        with Stopwatch() as part_clock:
            for _ in range(n_steps):
                part()
        parts[name] = part_clock.cpu / n_steps
    digest = hashlib.sha256(nearest.numpy().tobytes()).hexdigest()
    return clock.measured(n_differing=n_differing, n_steps=n_steps, digest=digest, **parts)


def memory(side: int, chunk: int, is_small: bool) -> Measured:
    """Measures one step with networks of published shapes and random values: f16-1024 and ViT-B/32."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from vqgan_clip.clips import OPENAI_COLORS, Normalized, TransformersClip
    from vqgan_clip.config import GuidanceConfig
    from vqgan_clip.guidance import Guidance, Guide, Target
    from vqgan_clip.memory import estimate
    from vqgan_clip.vqgan import Vqgan, VqganConfig

    torch.set_num_threads(1)
    config = VqganConfig(
        ch=32 if is_small else 128,
        ch_mult=(1, 1, 2, 2, 4),
        num_res_blocks=2,
        attn_resolutions=(16,),
        resolution=256,
        z_channels=256,
        embed_dim=256,
        n_embed=1024,
    )
    vqgan = Vqgan(config).requires_grad_(False).eval()
    model = CLIPModel(CLIPConfig()).eval()
    clip = TransformersClip(model, None, Normalized(*OPENAI_COLORS)).requires_grad_(False)
    stated = estimate(vqgan, [clip], side, side).beside_parameters(chunk)
    guide = Guide(clip, [Target(torch.ones(1, model.config.projection_dim))])
    latents = torch.randn(1, 256, side // vqgan.factor, side // vqgan.factor) * vqgan.codebook.std()
    settings = GuidanceConfig(views=max(CHUNKS), chunk=chunk)
    guidance = Guidance(vqgan, [guide], latents, settings, torch.Generator().manual_seed(0))
    # The peak starts again from what the networks and libraries take.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_kib()
    with Stopwatch() as clock:
        guidance.step()
    taken = clock.peak_mib - before / 1024
    return clock.measured(taken_mib=taken, stated_mib=stated / 2**20, n_differing=0)


def _resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def measure(setting: Setting) -> Result:
    n_steps = 1 if setting.is_quick else N_STEPS
    rounds = {}
    for cpus in CPUS:
        contenders = {peers.OURS: partial(in_process, ours, cpus, cpus=cpus, n_steps=n_steps)}
        if setting.vqgan_clip is not None:
            checkout = {"checkout": setting.vqgan_clip}
            contenders[PEER] = partial(in_process, theirs, cpus, cpus=cpus, n_steps=n_steps, **checkout)
        rounds[str(cpus)] = take_turns(contenders, setting.rounds)
    side = 64 if setting.is_quick else MEMORY_SIDE
    memories = {
        str(chunk): [in_process(memory, 1, side=side, chunk=chunk, is_small=setting.is_quick)]
        for chunk in CHUNKS
    }
    return {"rounds": rounds, "memory": memories, "side": side}


def section(result: Result) -> str:
    rows = []
    for cpus, contenders in result["rounds"].items():
        for name, rounds in contenders.items():
            if why := failure(rounds):
                rows.append([cpus, name, why])
                continue
            n_steps = rounds[0]["n_steps"]
            walls = [value / n_steps for value in values(rounds, "wall")]
            parts = [seconds(best(rounds, key)) for key in ("quantize", "views")]
            cpu = seconds(best(rounds, "cpu") / n_steps)
            rows.append([cpus, name, seconds(min(walls)), spread(walls), cpu, *parts])
    header = ["threads", "program", "s per step", "spread, s", "CPU s", "CPU s, quantizing", "CPU s, views"]
    memories = []
    for chunk, rounds in result["memory"].items():
        if why := failure(rounds):
            memories.append([chunk, why])
            continue
        cells = [f"{best(rounds, key):,.0f}" for key in ("taken_mib", "stated_mib", "peak_mib")]
        memories.append([chunk, *cells, seconds(best(rounds, "wall"))])
    columns = ["views at once", "the step took, MiB", "stated before, MiB", "process, MiB", "s per step"]
    return f"""A step without its networks, forward and backward: {N_TOKENS**2} latents are quantized by
{N_EMBED:,} entries of {N_DIMENSIONS} numbers, and {N_VIEWS} views of {VIEW} x {VIEW} pixels are taken of a
picture of {SIDE} x {SIDE}, with each program's default augmentations. Latents, picture and the gradients that
the networks would return are the same for both; the quantized latents are compared with those of
`torch.cdist`. The views are random, and not comparable: ours crop, and the peer's pool the whole picture.

{table(header, rows)}

Peak memory of one step with networks of published shapes and random values, the VQGAN f16-1024 and ViT-B/32:
a picture of {result["side"]} x {result["side"]}, {max(CHUNKS)} views, some of them in memory at once.

{table(columns, memories)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [
        speed_up(f"{TITLE}, {cpus} threads, a step without its networks", TARGET, contenders, [PEER])
        for cpus, contenders in result["rounds"].items()
    ]
