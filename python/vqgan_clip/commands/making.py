"""What `generate`, `edit` and `rerun` share: their options, and the run of a recipe with its progress."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pile_tools import publish
from pile_tools.commands import options
from pile_tools.config import MAX_THREADS, checked_threads
from pile_tools.errors import ConfigError, FormatError
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, print_document
from vqgan_clip.config import GuidanceConfig

if TYPE_CHECKING:
    from PIL import Image

    from vqgan_clip.extras import Extras
    from vqgan_clip.guidance import Guidance, StepLosses
    from vqgan_clip.metadata import Record
    from vqgan_clip.models import Models
    from vqgan_clip.recipe import Recipe
    from vqgan_clip.synthesis import Result

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: The time of a run is predicted from that between the ends of these steps: the first step allocates memory.
_MEASURED = 2, 5


def picture_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """The callback of options that name a picture: another name fails now, not after the steps."""
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(f"{option.opts[-1]} writes a picture, FILE.png ({path})")
    return path


picture_output = click.option(
    "-o",
    "--output",
    type=options.PATH,
    callback=picture_file,
    required=True,
    metavar="FILE.png",
    help="The picture.",
)


def model_options(command: _Command) -> _Command:
    """Adds the options that name networks."""
    for option in (
        click.option(
            "--sha256",
            metavar="HEX",
            help="SHA-256 that the file of the VQGAN must have; others are refused.",
        ),
        click.option(
            "--clip",
            multiple=True,
            metavar="NAME",
            help="toy, a folder or name for transformers, open_clip:MODEL:WEIGHTS; repeat for more.",
        ),
        click.option(
            "--weights",
            default="toy",
            show_default=True,
            metavar="toy|PATH",
            help="VQGAN: a .ckpt or .safetensors beside its .yaml, or a folder.",
        ),
    ):
        command = option(command)
    return command


def run_options(command: _Command) -> _Command:
    """Adds the options of a run: seed, threads, and outputs beside the picture."""
    for option in (
        click.option(
            "--every",
            type=click.IntRange(1),
            default=10,
            show_default=True,
            help="Steps between those shown.",
        ),
        click.option(
            "--state",
            type=options.PATH,
            metavar="FILE",
            help="Save the state here; if it exists, continue from it.",
        ),
        click.option(
            "--preview",
            type=options.PATH,
            callback=picture_file,
            metavar="FILE.png",
            help="Replace this file as it goes.",
        ),
        click.option(
            "--contact-sheet",
            type=options.PATH,
            callback=picture_file,
            metavar="FILE.png",
            help="Write a sheet of the steps.",
        ),
        click.option(
            "--video", type=options.PATH, metavar="FILE.mp4", help="Make a video of --frames, by ffmpeg."
        ),
        click.option("--frames", type=options.PATH, metavar="DIR", help="Write the steps as PNG files."),
        click.option(
            "--threads",
            type=click.IntRange(1, MAX_THREADS),
            default=checked_threads(None),
            show_default="all cores",
            help="Threads; another number may change a picture.",
        ),
        click.option(
            "--device", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1 or mps."
        ),
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of everything random."
        ),
        click.option(
            "--image-prompt",
            "image_prompts",
            multiple=True,
            metavar="FILE[:WEIGHT]",
            help="An image that the picture is to resemble; give it again for more.",
        ),
    ):
        command = option(command)
    return command


def make_given(output: Path, given: dict[str, Any], **own: Any) -> None:
    """Makes the picture that the values of a command's options describe.

    Args:
        output: The picture.
        given: The values of `model_options`, `run_options`, the options of guidance, `reports` and `force`.
        own: Fields of the recipe for which only this command has options.
    """
    if not own["prompts"].strip() and not given["image_prompts"]:
        raise ConfigError('no prompt; give PROMPTS as one argument, "a red circle", or --image-prompt FILE')
    # Imported here, so that help needs no torch.
    from vqgan_clip.extras import Extras
    from vqgan_clip.recipe import Recipe

    guidance, extras = _taken(GuidanceConfig, given), _taken(Extras, given)
    how = {name: given.pop(name) for name in ("sha256", "force", "as_json")}
    recipe = Recipe(**own, **given, guidance=GuidanceConfig(**guidance))
    make_picture(recipe, output, Extras(**extras), **how)


def _taken(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of the fields of a dataclass out of `given`."""
    return {field.name: given.pop(field.name) for field in dataclasses.fields(kind)}


def make_picture(
    recipe: Recipe, output: Path, extras: Extras, *, sha256: str | None, force: bool, as_json: bool
) -> None:
    """Carries a recipe out, writes its picture and extras, and prints what was done."""
    from vqgan_clip import frames, metadata
    from vqgan_clip.metadata import Record
    from vqgan_clip.models import load_models
    from vqgan_clip.recipe import hashes_of

    if extras.video is not None:
        frames.require_ffmpeg()
    extras.refuse_clashes(output, recipe.input_files, recipe.would_read)
    extras.tidy()
    models = load_models(recipe.weights, recipe.clip, sha256=sha256, device=recipe.device)
    hashes = hashes_of(recipe, models)
    stored, job = recipe.moved(Path(), output.parent), recipe.job(hashes)
    if (
        not force
        and metadata.is_finished(output, stored, hashes)
        and extras.are_there(job, metadata.read(output)[1].n_steps)
    ):
        # A killed run may have left its scratch folder beside the picture.
        publish.tidy(output)
        if as_json:
            _print_document(output, *metadata.read(output), loss=None, is_new=False)
        else:
            note(f"{output} is finished already, nothing to do")
        return
    state_memory(recipe, models)
    losses: list[StepLosses] = []

    def make() -> tuple[Image.Image, Record]:
        """The picture, after the extras: a run whose picture is there is finished."""
        with extras.held():
            result = _run(recipe, models, extras, job, force=force)
        losses.extend(result.losses)
        digest = metadata.pixels_digest(result.image)
        return result.image, Record(stored, hashes, metadata.versions(), result.n_steps, digest)

    image, record = metadata.write(output, make, inputs=recipe.input_files, force=force)
    loss = losses[-1].total if losses else None
    if as_json:
        _print_document(output, image, record, loss=loss, is_new=True)
        return
    shown = f", loss {loss:.4f}" if loss is not None else ""
    note(f"{output}: {image.width} x {image.height} pixels, {counted(record.n_steps, 'step')}{shown}")
    if record.n_steps < recipe.guidance.steps:
        note(f"stopped early: no lower loss for {counted(recipe.guidance.patience, 'step')}")


def _run(recipe: Recipe, models: Models, extras: Extras, job: str, *, force: bool) -> Result:
    """Carries a recipe out and writes its extras, which say that they are of `job`."""
    from vqgan_clip import frames, saved_state
    from vqgan_clip.guidance import StateError
    from vqgan_clip.recipe import carry_out

    keep = extras.contact_sheet is not None
    collected = frames.Frames(job, extras.every, extras.frames, extras.preview, keep, force)
    collected.prepare()
    state = saved_state.load(extras.state, job) if extras.state is not None else None
    with Bar("guiding", recipe.guidance.steps, "steps") as bar:
        progress = _Progress(recipe.guidance.steps, extras.every, bar)

        def on_step(guidance: Guidance, losses: StepLosses) -> None:
            progress.update(guidance.n_steps, losses)
            collected.add(guidance)
            if extras.state is not None and guidance.n_steps % extras.every == 0:
                saved_state.save(extras.state, {**guidance.state(), **collected.state()}, job)

        try:
            state = None if state is None else collected.restore(state, models.vqgan.factor)
            result = carry_out(recipe, models, state=state, on_step=on_step)
        except StateError as err:
            raise FormatError(f"{err}; remove it to start again ({extras.state})") from err
    if extras.state is not None:
        saved_state.save(extras.state, {**result.state, **collected.state()}, job)
    if extras.contact_sheet is not None:
        collected.write_sheet(extras.contact_sheet, (result.n_steps, result.image))
    if extras.video is not None:
        frames.write_video(extras.video, collected.paths(result.n_steps), rate=15, force=force)
    return result


def _print_document(
    output: Path, image: Image.Image, record: Record, *, loss: float | None, is_new: bool
) -> None:
    about = {"kind": "picture", "path": str(output), "is_new": is_new}
    size = {"width": image.width, "height": image.height}
    print_document({**about, **size, "n_steps": record.n_steps, "loss": loss, "pixels": record.pixels})


def state_memory(recipe: Recipe, models: Models) -> None:
    """Says how much memory the run needs. Raises PileError if it does not fit."""
    from vqgan_clip import memory, pictures
    from vqgan_clip.prompts import parse_prompt, parse_prompts

    side, guidance = models.vqgan.config.resolution, recipe.guidance
    width, height = recipe.width or side, recipe.height or side
    if recipe.image is not None:
        # As it is padded.
        factor = models.vqgan.factor
        width, height = (-(-n // factor) * factor for n in pictures.read_image(Path(recipe.image)).size)
    n_texts = len(parse_prompts(recipe.prompts)) if recipe.prompts else 0
    sizes = [pictures.read_image(Path(parse_prompt(text).text)).size for text in recipe.image_prompts]
    found = memory.estimate(
        models.vqgan,
        models.clips,
        height,
        width,
        tile=guidance.tile or None,
        n_vectors=n_texts + guidance.views * len(sizes),
        n_prompt_pixels=max((width * height for width, height in sizes), default=0),
    )
    chunk = min(guidance.chunk, guidance.views)
    memory.require_memory(found, chunk, memory.free_bytes(models.vqgan.codebook.device))
    note(f"about {memory.shown(found.peak(chunk))} of memory at the peak", err=True)


class _Progress:
    """Shows a bar, the losses every n steps, and after some steps how long the run takes."""

    def __init__(self, n_steps: int, every: int, bar: Bar) -> None:
        self._n_steps, self._every, self._bar = n_steps, every, bar
        self._n_timed, self._start = 0, 0.0

    def update(self, n_done: int, losses: StepLosses) -> None:
        """Shows that a step is done."""
        self._n_timed += 1
        first, last = _MEASURED
        if self._n_timed == first:
            self._start = time.monotonic()
        if self._n_timed == last and n_done < self._n_steps:
            seconds = (time.monotonic() - self._start) / (last - first)
            left = seconds * (self._n_steps - n_done)
            note(f"{seconds:.3g} s per step, {left:,.0f} s for {self._n_steps - n_done:,} more", err=True)
        if n_done % self._every == 0:
            parts = ", ".join(f"{loss:.3f}" for loss in losses.prompts)
            pull = f", pull {losses.pull:.3f}" if losses.pull else ""
            note(f"step {n_done:>5,}  loss {losses.total:.4f}  prompts {parts}{pull}", err=True)
        self._bar.update(n_done)
