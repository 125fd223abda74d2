"""Recipes: all that decides a picture's pixels, and the run of one."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pile_tools import config as configs
from pile_tools import files, manifest
from pile_tools.checked import is_utf8
from pile_tools.errors import ConfigError
from vqgan_clip.config import CONFIG_SUFFIXES, TOY, GuidanceConfig
from vqgan_clip.prompts import MAX_PROMPTS, parse_prompt, parse_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from vqgan_clip.models import Models
    from vqgan_clip.synthesis import OnStep, Result

#: Starts that are no file.
STARTS = ("noise", "codes", "gradient")

#: Maximum CLIP models, which are all in memory: the text of a PNG can name any number.
_MAX_CLIPS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The arguments of `generate` or, with an image, of `edit`.

    Attributes:
        prompts: As `parse_prompts` reads them; empty with image prompts alone.
        image_prompts: Paths with weights, as `parse_prompt` reads them.
        width: Pixels; 0 for the side that the VQGAN was trained on.
        height: Likewise.
        seed: Of everything random.
        start: `noise`, `codes`, `gradient`, or a path.
        image: The image to edit; None generates.
        mask: Image of the mask.
        mask_text: What the mask covers.
        dilate: Pixels by which the mask grows.
        weights: As `load_weights` takes them.
        clip: As `load_models` takes them.
        threads: Sums of floating-point numbers depend on it.
        device: Likewise.
        guidance: How the latents are moved.
    """

    prompts: str = ""
    image_prompts: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    seed: int = 0
    start: str = "noise"
    image: str | None = None
    mask: str | None = None
    mask_text: str | None = None
    dilate: int = 0
    weights: str = "toy"
    clip: tuple[str, ...] = ()
    threads: int = 1
    device: str = "cpu"
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)

    def __post_init__(self) -> None:
        if self.prompts or not self.image_prompts:
            parse_prompts(self.prompts)
        for text in self.image_prompts:
            parse_prompt(text)
        if len(self.clip) > _MAX_CLIPS:
            raise ConfigError(f"{len(self.clip):,} CLIP models; at most {_MAX_CLIPS} can be given")
        if (n_images := len(self.image_prompts)) > MAX_PROMPTS:
            raise ConfigError(f"{n_images:,} image prompts; at most {MAX_PROMPTS} can be given")
        configs.checked_threads(self.threads)
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        for text in (self.prompts, self.mask_text or ""):
            if not is_utf8(text):
                raise ConfigError(f"a prompt is not UTF-8, so a picture cannot record it: {text!r}")
        for path in (*self.input_images, self.weights, *self.clip):
            if "\0" in path:
                raise ConfigError(f"no path has a zero byte: {path!r}")
            if not is_utf8(path):
                raise ConfigError(f"the name is not UTF-8, so a picture cannot record it: {path!r}")

    @property
    def input_images(self) -> list[str]:
        """Paths of the images that are read."""
        paths = [parse_prompt(text).text for text in self.image_prompts]
        start = None if self.start in STARTS else self.start
        return [path for path in (self.image, self.mask, start, *paths) if path]

    @property
    def input_files(self) -> list[Path]:
        """Paths of all files that are read."""
        networks = (path for name in (self.weights, *self.clip) for path in _network_files(name))
        return [*map(Path, self.input_images), *networks]

    def would_read(self, path: Path) -> bool:
        """Whether a file that is made at `path` would be one of a network's files for the next run."""
        for name in (self.weights, *self.clip):
            if (given := _network_path(name)) is None:
                continue
            folder = given if given.is_dir() else given.parent
            is_there = given.exists() and path.parent.is_dir() and path.parent.samefile(folder)
            is_config = path.suffix in CONFIG_SUFFIXES
            if is_there and (given.is_dir() or is_config or path.name.startswith(given.stem + ".")):
                return True
        return False

    def job(self, hashes: Mapping[str, Any]) -> str:
        """A digest of all but the number of steps: a saved state continues a run of the same job.

        The hashes are those of `hashes_of`: of two images of one name, latents are not those of the other.
        """
        settings = configs.settings(replace(self, guidance=replace(self.guidance, steps=0)))
        return configs.fingerprint({**settings, "hashes": hashes})

    def moved(self, old: Path, new: Path) -> Recipe:
        """The recipe with its paths, which are relative to one folder, relative to another."""

        def path(text: str) -> str:
            return manifest.relative(manifest.resolved(old, text), new)

        def name(text: str) -> str:
            # open_clip takes a folder or a file after its own words.
            words, colon, last = text.rpartition(":") if text.startswith("open_clip:") else ("", "", text)
            return f"{words}{colon}{path(last)}" if manifest.resolved(old, last).exists() else text

        def image_prompt(text: str) -> str:
            prompt = parse_prompt(text)
            moved = path(prompt.text)
            # Spaces around a prompt are not part of it.
            return str(replace(prompt, text=moved if moved == moved.strip() else f"./{moved}"))

        return replace(
            self,
            image_prompts=tuple(map(image_prompt, self.image_prompts)),
            start=self.start if self.start in STARTS else path(self.start),
            image=path(self.image) if self.image else None,
            mask=path(self.mask) if self.mask else None,
            weights=self.weights if self.weights == TOY else name(self.weights),
            clip=tuple(text if text == TOY else name(text) for text in self.clip),
        )


def _network_files(name: str) -> Iterator[Path]:
    """The files that the name of weights or of a CLIP model may read; none for a name that is no path."""
    path = _network_path(name)
    if path is None:
        return
    if path.is_dir():
        yield from (found for found in path.iterdir() if found.is_file())
    elif path.is_file():
        # A checkpoint is read with the configuration beside it, which has its name but for the suffix, or is
        # the only one there.
        yield from path.parent.glob(f"{glob.escape(path.stem)}.*")
        yield from (found for suffix in CONFIG_SUFFIXES for found in path.parent.glob(f"*{suffix}"))


def _network_path(name: str) -> Path | None:
    """The path that the name of a network may be; None for the one that comes with the program."""
    if name == TOY:
        return None
    return Path(name.rpartition(":")[2] if name.startswith("open_clip:") else name)


def hashes_of(recipe: Recipe, models: Models) -> dict[str, Any]:
    """SHA-256 of the networks' files and of the images read, by name; raises OSError."""
    return {**models.hashes, "images": [files.sha256(Path(path)) for path in recipe.input_images]}


def carry_out(
    recipe: Recipe,
    models: Models,
    *,
    state: Mapping[str, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Runs a recipe; its errors are those of `generate` and `edit`."""
    import torch

    from vqgan_clip import synthesis

    torch.set_num_threads(recipe.threads)
    prompts = parse_prompts(recipe.prompts) if recipe.prompts else ()
    common: dict[str, Any] = {
        "seed": recipe.seed,
        "image_prompts": [parse_prompt(text) for text in recipe.image_prompts],
        "models": models,
        "config": recipe.guidance,
        "state": state,
        "on_step": on_step,
    }
    if recipe.image is None:
        width, height = recipe.width or None, recipe.height or None
        return synthesis.generate(prompts, start=recipe.start, width=width, height=height, **common)
    return synthesis.edit(
        recipe.image,
        prompts,
        mask=recipe.mask,
        mask_text=recipe.mask_text,
        dilate=recipe.dilate,
        **common,
    )
