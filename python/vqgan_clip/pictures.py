"""Pictures: read from files within bounds, and converted between Pillow's images and tensors."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from pile_tools import checked
from pile_tools.errors import FormatError

#: Most pixels of an image file; a small file can hold many more.
MAX_PIXELS = 1 << 26

#: Formats that are read. Pillow runs the program of a PostScript file, and others in libraries of the system.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")


def read_image(path: Path, mode: str = "RGB") -> Image.Image:
    """An image file as Pillow's image: upright, transparent parts white.

    Raises:
        FormatError: Not an image of `FORMATS`, a damaged one, or one of more than `MAX_PIXELS`.
        OSError: The file cannot be read.
    """
    # As a whole: the tables of a sparse file can be larger than any memory.
    with io.BytesIO(checked.read_bytes(path)) as file:
        try:
            with warnings.catch_warnings():
                # Pillow warns of images that are large; here they are errors.
                warnings.simplefilter("ignore")
                image = Image.open(file, formats=FORMATS)
                if image.width * image.height > MAX_PIXELS:
                    raise FormatError(
                        f"an image of {image.width:,} x {image.height:,} pixels; "
                        f"at most {MAX_PIXELS:,} are read ({path})"
                    )
                image.load()
                return _converted(ImageOps.exif_transpose(image), mode)
        except UnidentifiedImageError:
            raise FormatError(f"not an image of {', '.join(FORMATS)} ({path})") from None
        except FormatError:
            raise
        except Exception as err:
            # Pillow's readers raise errors of many types for damaged files.
            raise FormatError(f"a damaged image: {err} ({path})") from err


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """An image in a mode, its transparent parts white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    # Of the colours of CIELAB, Pillow makes no others.
    return (image.convert("RGB") if image.mode == "LAB" else image).convert(mode)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as (1, 3, H, W), or one of mode L as (1, 1, H, W), float32 in [0, 1]."""
    values = torch.from_numpy(np.array(image, dtype=np.float32) / 255)
    return values.view(image.height, image.width, -1).permute(2, 0, 1)[None].contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """An RGB image of a picture: (1, 3, H, W) in [0, 1]. Pixels of `to_tensor` are unchanged."""
    values = (picture[0].detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """An image of the given size: scaled to cover it, then cut at the longer sides."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def padded(picture: Tensor, factor: int) -> Tensor:
    """A picture whose sides are multiples of `factor`: its last column and row are repeated."""
    height, width = picture.shape[-2:]
    return functional.pad(picture, (0, -width % factor, 0, -height % factor), mode="replicate")


def png_bytes(image: Image.Image, texts: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """An image as the bytes of a PNG file, with `texts` by keyword before the pixels."""
    info, stream = PngInfo(), io.BytesIO()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text)
    image.save(stream, format="PNG", pnginfo=info)
    return stream.getvalue()
