"""`vqgan-clip rerun`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from pile_tools.commands import options
from pile_tools.errors import ConfigError, FormatError, VerifyError
from pile_tools.progress import Bar
from pile_tools.terminal import note, print_document
from vqgan_clip.commands.making import model_options, picture_file, state_memory


@click.command("rerun")
@click.argument("picture", type=options.PATH, metavar="FILE.png")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    callback=picture_file,
    metavar="FILE.png",
    help="Write the new picture here.",
)
@model_options
@options.reports
@options.force
def command(
    picture: Path,
    output: Path | None,
    weights: str,
    clip: tuple[str, ...],
    sha256: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a picture of vqgan-clip again and compare the pixels; they differ: exit code 1.

    Weights and images are found by the paths that FILE.png names, relative to its folder, and must have the
    hashes that it records. --weights and --clip name weights that were moved.

    \b
    Examples:
      vqgan-clip rerun circle.png
      vqgan-clip rerun circle.png -o again.png
    """
    from dataclasses import replace

    from vqgan_clip import metadata
    from vqgan_clip.extras import Extras
    from vqgan_clip.models import load_models
    from vqgan_clip.recipe import carry_out, hashes_of

    old, record = metadata.read(picture)
    recipe = record.recipe.moved(picture.parent, Path())
    context = click.get_current_context()
    moved_weights = context.get_parameter_source("weights") is not click.core.ParameterSource.DEFAULT
    if moved_weights:
        recipe = replace(recipe, weights=weights)
    if clip:
        recipe = replace(recipe, clip=clip)
    if output is not None:
        Extras().refuse_clashes(output, [*recipe.input_files, picture], recipe.would_read)
    with contextlib.nullcontext() if moved_weights or clip else _naming_recipe(picture):
        models = load_models(recipe.weights, recipe.clip, sha256=sha256, device=recipe.device)
    hashes = hashes_of(recipe, models)
    if hashes != record.hashes:
        # A picture of another version may record other names.
        names = {**hashes, **record.hashes}
        changed = [
            name
            for name in names
            if name not in hashes or name not in record.hashes or hashes[name] != record.hashes[name]
        ]
        raise VerifyError(f"other files than those that the picture was made from: {changed[0]} ({picture})")
    # A run that stopped early stops at the same step.
    with _naming_recipe(picture):
        state_memory(recipe, models)
    with _naming_recipe(picture), Bar("guiding", record.n_steps, "steps") as bar:
        result = carry_out(recipe, models, on_step=lambda guidance, losses: bar.update(guidance.n_steps))
    digest = metadata.pixels_digest(result.image)
    if output is not None:
        stored = recipe.moved(Path(), output.parent)
        made = metadata.Record(stored, hashes, metadata.versions(), result.n_steps, digest)
        inputs = [*recipe.input_files, picture]
        metadata.write(output, lambda: (result.image, made), inputs=inputs, force=force)
    is_equal = digest == metadata.pixels_digest(old)
    if as_json:
        print_document({"kind": "rerun", "path": str(picture), "is_equal": is_equal, "pixels": digest})
    if is_equal:
        if not as_json:
            note(f"{picture}: made again with equal pixels")
        return
    now = metadata.versions()
    versions = [f"{name} {record.versions.get(name)}, now {now[name]}" for name in now]
    is_same = all(record.versions.get(name) == now[name] for name in now)
    reason = "the machine differs, or the pixels were changed" if is_same else "; ".join(versions)
    raise VerifyError(f"made again with other pixels: {reason} ({picture})")


@contextlib.contextmanager
def _naming_recipe(picture: Path) -> Iterator[None]:
    """Raises FormatError for a ConfigError: the settings are the picture's, not the user's."""
    try:
        yield
    except ConfigError as err:
        raise FormatError(f"its recipe cannot be carried out: {err} ({picture})") from err
