"""The pictures of `vqgan-clip demo`, as a report shows them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pile_tools import checked, manifest
from pile_tools.errors import FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE, Manifest

#: Most bytes of a picture: it becomes part of the page.
_MAX_BYTES = 4 << 20
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        uri: Its PNG file as a data URI.
        prompts: What it was made from.
        about: How, in words.
    """

    uri: str
    prompts: str
    about: str


def open_pictures(folder: Path) -> Manifest:
    """The manifest of a folder of pictures. Raises PileError if it is none, OSError."""
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise PileError(f"no pictures of vqgan-clip demo: {MANIFEST_FILE} is missing ({folder})")
    found = manifest.read(path)
    if found.kind != "pictures":
        raise FormatError(f"a manifest of kind {found.kind}, expected pictures ({path})")
    return found


def read_pictures(found: Manifest | None) -> list[Picture]:
    """The pictures that a manifest lists; none without one.

    Raises:
        FormatError: A file is not what the manifest says.
        OSError: A file cannot be read.
    """
    if found is None:
        return []
    outputs = {entry["path"]: entry for entry in found.outputs}
    pictures = []
    for shown in found.summary["pictures"]:
        entry = outputs.get(shown["path"])
        if entry is None:
            raise FormatError(f"no output {shown['path']!r} ({found.path})")
        path = manifest.output_path(found, entry)
        data = checked.read_bytes(path, _MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != entry["sha256"] or not data.startswith(_PNG):
            raise FormatError(f"not the PNG file that its manifest lists ({path})")
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        pictures.append(Picture(uri, shown["prompts"], shown["about"]))
    return pictures
