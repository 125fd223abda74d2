"""Pictures from prompts, and edits of pictures: the Python interface.

import vqgan_clip
result = vqgan_clip.generate("a red circle on a blue background", seed=1)
result.image.save("circle.png")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pile_tools.errors import ConfigError
from vqgan_clip import latents, masks, pictures
from vqgan_clip.clips import Clip
from vqgan_clip.config import GuidanceConfig, parse_augmentations
from vqgan_clip.guidance import Guidance, Guide, Region, StepLosses, Target
from vqgan_clip.models import Models, load_models
from vqgan_clip.prompts import Prompt, parse_prompts
from vqgan_clip.tiles import TiledDecoder
from vqgan_clip.views import chunks, make_views, plan_views

#: Called after each step.
OnStep = Callable[[Guidance, StepLosses], None]
Prompts = str | Sequence[Prompt]
ImageLike = Image.Image | str | Path

MAX_SEED = 2**63 - 1
_MAX_SIDE = 1 << 14


@dataclass(frozen=True)
class Result:
    """What a run made.

    Attributes:
        image: The picture.
        losses: Of each step, in order; of a resumed run, of the new steps.
        n_steps: Steps in all.
        mask: The mask of an edit, of mode L; None without one.
        state: From which `generate` and `edit` continue.
    """

    image: Image.Image
    losses: list[StepLosses]
    n_steps: int
    mask: Image.Image | None
    state: dict[str, Tensor]


def generate(
    prompts: Prompts,
    *,
    width: int | None = None,
    height: int | None = None,
    seed: int = 0,
    start: str | ImageLike = "noise",
    image_prompts: Sequence[Prompt] = (),
    models: Models | None = None,
    config: GuidanceConfig | None = None,
    state: Mapping[str, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """A picture that CLIP finds to match the prompts.

    Args:
        prompts: `a red circle | blue sky:0.5`, or parsed.
        width: Pixels, by default those that the VQGAN was trained on.
        height: Likewise.
        seed: Of everything random.
        start: `noise`, `codes`, `gradient`, or an image, which is scaled to cover the size.
        image_prompts: Prompts whose text is the path of an image.
        models: By default the toy's.
        config: How to guide.
        state: Of a run of the same arguments, which continues.
        on_step: Called after each step.

    Raises:
        ConfigError: A value is out of range.
        FormatError, OSError: An image cannot be read.
    """
    models = models or load_models()
    config = _for_models(config or GuidanceConfig(), models)
    # First, as it refuses a tile that is too small to encode the start in.
    decode = _decoder(models, config)
    side = models.vqgan.config.resolution
    width, height = side if width is None else width, side if height is None else height
    _check_size(width, height, models.vqgan.factor)
    generator = _generator(seed)
    initial = _start(models, start, width, height, generator, config.tile)
    guides = _guides(models, prompts, image_prompts, config, generator)
    guidance = Guidance(models.vqgan, guides, initial, config, generator, decode=decode)
    losses = _run(guidance, config, state, on_step)
    return Result(pictures.to_image(guidance.picture()), losses, guidance.n_steps, None, guidance.state())


def edit(
    image: ImageLike,
    prompts: Prompts,
    *,
    mask: ImageLike | None = None,
    mask_text: str | None = None,
    dilate: int = 0,
    seed: int = 0,
    image_prompts: Sequence[Prompt] = (),
    models: Models | None = None,
    config: GuidanceConfig | None = None,
    state: Mapping[str, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """An image, changed until CLIP finds that it matches the prompts; its size stays.

    Pixels outside the mask are those of the image, bit for bit.

    Args:
        image: What is edited.
        prompts: What it is to show.
        mask: An image of the same size, white where the image may change.
        mask_text: What the mask covers, found by CLIP; not with `mask`.
        dilate: Pixels by which the mask grows.
        seed, image_prompts, models, config, state, on_step: As of `generate`.

    Raises:
        ConfigError: A value is out of range, the mask is empty, of another size, given twice, or dilated
            and not given.
        FormatError, OSError: An image cannot be read.
    """
    models = models or load_models()
    config = _for_models(config or GuidanceConfig(), models)
    # First, as it refuses a tile that is too small to encode the start in.
    decode = _decoder(models, config)
    if mask is not None and mask_text is not None:
        raise ConfigError("give a mask or the text of one, not both")
    if dilate and mask is None and mask_text is None:
        raise ConfigError("dilate is for a mask, and none is given")
    generator = _generator(seed)
    given = _opened(image)
    picture = pictures.to_tensor(given).to(models.device)
    editable: Tensor | None = None
    if mask is not None:
        editable = masks.from_image(_opened(mask, "L"), given.size)
    elif mask_text is not None:
        editable = masks.from_text(models.clips[0], picture, mask_text, generator)
    if editable is not None:
        editable = masks.dilated(editable.to(models.device), dilate)
    whole = pictures.padded(picture, models.vqgan.factor)
    region = None if editable is None else _region(editable, whole, models.vqgan.factor)
    guides = _guides(models, prompts, image_prompts, config, generator)
    weights = masks.pull_weights(guides, whole, models.vqgan.factor, generator) if config.pull else None
    initial = latents.encoded(models.vqgan, whole, config.tile)
    guidance = Guidance(
        models.vqgan,
        guides,
        initial,
        config,
        generator,
        region=region,
        pull_weights=weights,
        decode=decode,
    )
    losses = _run(guidance, config, state, on_step)
    edited = guidance.picture()[..., : given.height, : given.width]
    shown = None if editable is None else masks.to_image(editable)
    return Result(pictures.to_image(edited), losses, guidance.n_steps, shown, guidance.state())


def _run(
    guidance: Guidance, config: GuidanceConfig, state: Mapping[str, Tensor] | None, on_step: OnStep | None
) -> list[StepLosses]:
    if state is not None:
        guidance.restore(state)
    losses: list[StepLosses] = []
    while guidance.n_steps < config.steps and not guidance.has_stalled:
        losses.append(guidance.step())
        if on_step is not None:
            on_step(guidance, losses[-1])
    return losses


def _for_models(config: GuidanceConfig, models: Models) -> GuidanceConfig:
    """The config with `auto` augmentations replaced by those that the first CLIP names, if it names any."""
    known = getattr(models.clips[0], "augmentations", None)
    return replace(config, augment=",".join(known)) if known and config.augment == "auto" else config


def _decoder(models: Models, config: GuidanceConfig) -> Callable[[Tensor], Tensor]:
    decode = models.vqgan.decode
    return TiledDecoder(decode, models.vqgan.factor, config.tile) if config.tile else decode


def _check_size(width: int, height: int, factor: int) -> None:
    for name, value in (("width", width), ("height", height)):
        if not factor <= value <= _MAX_SIDE or value % factor:
            raise ConfigError(
                f"{name} must be a multiple of {factor} from {factor} to {_MAX_SIDE:,}, got {value}"
            )
    if width * height > pictures.MAX_PIXELS:
        raise ConfigError(f"{width} x {height} is more than {pictures.MAX_PIXELS:,} pixels")


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed must be from 0 to {MAX_SEED}, got {seed}")
    return torch.Generator().manual_seed(seed)


def _opened(image: ImageLike, mode: str = "RGB") -> Image.Image:
    return image.convert(mode) if isinstance(image, Image.Image) else pictures.read_image(Path(image), mode)


def _start(
    models: Models, start: str | ImageLike, width: int, height: int, generator: torch.Generator, tile: int
) -> Tensor:
    if start == "codes":
        return latents.random_codes(models.vqgan, height, width, generator)
    if start == "noise":
        picture = latents.noise(height, width, generator)
    elif start == "gradient":
        picture = latents.gradient(height, width, generator)
    else:
        picture = pictures.to_tensor(pictures.fitted(_opened(start), width, height))
    return latents.encoded(models.vqgan, picture, tile)


def _guides(
    models: Models,
    prompts: Prompts,
    image_prompts: Sequence[Prompt],
    config: GuidanceConfig,
    generator: torch.Generator,
) -> list[Guide]:
    texts = parse_prompts(prompts) if isinstance(prompts, str) else tuple(prompts)
    if not texts and not image_prompts:
        raise ConfigError("no prompt; give a text or an image")
    guides = []
    for clip in models.clips:
        encoded = clip.encode_texts([prompt.text for prompt in texts]) if texts else ()
        vectors = [vector[None] for vector in encoded]
        for prompt in image_prompts:
            # One at a time, as a small file can hold a large image.
            image = pictures.to_tensor(pictures.read_image(Path(prompt.text))).to(models.device)
            vectors.append(_view_vectors(clip, image, config, generator))
        targets = [
            Target(vector, prompt.weight, prompt.stop)
            for vector, prompt in zip(vectors, (*texts, *image_prompts), strict=True)
        ]
        guides.append(Guide(clip, targets))
    return guides


@torch.no_grad()
def _view_vectors(clip: Clip, image: Tensor, config: GuidanceConfig, generator: torch.Generator) -> Tensor:
    """Vectors of random views of an image, with which the views of the picture are compared."""
    height, width = image.shape[-2:]
    plan = plan_views(config.views, parse_augmentations(config.augment), generator, width / height)
    parts = chunks(plan, config.chunk)
    return torch.cat([clip.encode_images(make_views(image, p, clip.size, generator)) for p in parts])


def _region(editable: Tensor, picture: Tensor, factor: int) -> Region:
    pixels = masks.padded(editable, factor)
    return Region(masks.of_latents(pixels, factor), pixels, picture)
