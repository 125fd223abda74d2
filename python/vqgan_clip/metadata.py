"""What a PNG file says about how it was made, in a text chunk, so that it can be made again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from pile_tools import checked, publish
from pile_tools import config as configs
from pile_tools.checked import Values
from pile_tools.errors import FormatError, OutputExistsError, first_line
from vqgan_clip import pictures
from vqgan_clip.recipe import Recipe

#: Keyword of the chunk, and the version of its JSON.
KEY = "vqgan-clip"
FORMAT = 1

#: Most bytes of a PNG that is read: noise of `MAX_PIXELS` has fewer.
_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Record:
    """The contents of the chunk.

    Attributes:
        recipe: What made the picture; its paths are relative to the PNG's folder.
        hashes: SHA-256 of the networks and of the images read.
        versions: Of pile-tools and torch.
        n_steps: Steps that were made.
        pixels: SHA-256 of size and pixels.
    """

    recipe: Recipe
    hashes: dict[str, Any]
    versions: dict[str, Any]
    n_steps: int
    pixels: str


def versions() -> dict[str, str]:
    """The versions that pixels may depend on."""
    import torch

    return {"pile_tools": version("pile-tools"), "torch": torch.__version__}


def pixels_digest(image: Image.Image) -> str:
    """SHA-256 of an image's size and RGB pixels."""
    size = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(size + image.convert("RGB").tobytes()).hexdigest()


def write(
    path: Path, make: Callable[[], tuple[Image.Image, Record]], *, inputs: Sequence[Path], force: bool
) -> tuple[Image.Image, Record]:
    """Publishes a picture with its record.

    Args:
        path: The PNG file, locked against other processes from the beginning.
        make: Makes the picture.
        inputs: Files that it reads.
        force: Replace another file.

    Returns:
        What `make` returned.

    Raises:
        ConfigError: The file is one of the inputs.
        OutputExistsError: Another file exists and `force` is off.
        PileError: Another process writes it.
        OSError: The file cannot be written.
    """
    made = []

    def fill(temporary: Path) -> None:
        made.append(make())
        temporary.write_bytes(png_bytes(*made[0]))

    or_else = "--force replaces it, another output keeps both"
    publish.write_file(path, fill, force=force, or_else=or_else, inputs=inputs)
    return made[0]


def png_bytes(image: Image.Image, record: Record) -> bytes:
    """A picture with its record as the bytes of a PNG file."""
    values = json.dumps(_values(record), ensure_ascii=False)
    return pictures.png_bytes(image, {KEY: values, "Description": record.recipe.prompts})


def read(path: Path) -> tuple[Image.Image, Record]:
    """A picture of ours and its record.

    Raises:
        FormatError: Not a PNG, or without a valid record.
        OSError: The file cannot be read.
    """
    data = checked.read_bytes(path, _MAX_BYTES)
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.width * image.height > pictures.MAX_PIXELS:
            raise FormatError(f"more than {pictures.MAX_PIXELS:,} pixels ({path})")
        image.load()
        text = getattr(image, "text", {}).get(KEY)
    except UnidentifiedImageError:
        raise FormatError(f"not a PNG file ({path})") from None
    except FormatError:
        raise
    except Exception as err:
        # Pillow raises errors of many types for damaged files.
        raise FormatError(f"a damaged PNG file: {first_line(err)} ({path})") from err
    if text is None:
        raise FormatError(f"no settings of vqgan-clip in this PNG file ({path})")
    return image.convert("RGB"), _parsed(str(text), path)


def is_finished(path: Path, recipe: Recipe, hashes: dict[str, Any]) -> bool:
    """Whether a file is the picture of a recipe, made from files of these hashes.

    Versions are not compared: a picture of another version of torch is finished too.

    Raises: OutputExistsError if it is another file, or its pixels were changed since.
    """
    # A pipe or device is written to, and holds nothing.
    if not path.exists() or publish.is_stream(path):
        return False
    try:
        image, found = read(path)
    except FormatError as err:
        raise OutputExistsError(
            f"exists and is not of vqgan-clip; --force replaces it, another output keeps both ({path})"
        ) from err
    if (found.recipe, found.hashes) != (recipe, hashes):
        raise OutputExistsError(
            f"made before with other settings; --force replaces it, another output keeps both ({path})"
        )
    # Refused before the picture is made again, as `write` would refuse to replace it.
    if pixels_digest(image) != found.pixels:
        raise OutputExistsError(
            f"changed since it was made; --force replaces it, another output keeps both ({path})"
        )
    return True


def _values(record: Record) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "recipe": configs.settings(record.recipe),
        "hashes": record.hashes,
        "made_by": record.versions,
        "n_steps": record.n_steps,
        "pixels": record.pixels,
    }


def _parsed(text: str, path: Path) -> Record:
    values: Values = checked.parse_json(text.encode(), path, what="settings of vqgan-clip")
    values.require_keys(("format", "recipe", "hashes", "made_by", "n_steps", "pixels"))
    if (number := values.integer("format")) != FORMAT:
        raise FormatError(f"settings of vqgan-clip in format {number}, expected {FORMAT} ({path})")
    # Keys that are null are those of options that were not given.
    given = {key: value for key, value in values.object("recipe").values.items() if value is not None}
    try:
        recipe = configs.from_values(Recipe, given, str(path))
    except ValueError as err:
        raise FormatError(str(err)) from err
    return Record(
        recipe,
        dict(values.object("hashes").values),
        dict(values.object("made_by").values),
        values.integer("n_steps"),
        values.hexadecimal("pixels", 64),
    )
