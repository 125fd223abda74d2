"""The steps of a run as pictures: PNG files, a video by ffmpeg, a sheet of small pictures."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

from pile_tools import files, publish
from pile_tools.errors import OutputExistsError, PileError
from vqgan_clip import pictures
from vqgan_clip.guidance import Guidance

#: Frames are numbered in their names, so that names sort by step.
_NAME = "step-{:06d}.png"
#: Sides of the pictures of a sheet are scaled up to at least this, pixels; and pictures of a sheet.
_SHEET_SIDE, _MOST_ON_SHEET = 128, 24
_MARGIN, _LABEL_HEIGHT = 6, 14
#: Shorter sides of a video are at least this: players blur small ones.
_VIDEO_SIDE = 256


@dataclass
class Frames:
    """Collects the picture every n steps; an `on_step` of `generate`.

    Attributes:
        every: Steps between frames.
        folder: Where to write them as PNG files; None for nowhere.
        preview: A file that is replaced by each frame; None for none.
        keep: Whether frames stay in memory, for a sheet.
        force: Replace files that exist.
    """

    every: int
    folder: Path | None = None
    preview: Path | None = None
    keep: bool = False
    force: bool = False
    kept: list[tuple[int, Image.Image]] = field(default_factory=list)

    def prepare(self) -> None:
        """Makes the folder. Raises OutputExistsError for files that would be replaced, OSError."""
        if self.preview is not None and self.preview.exists() and not self.force:
            raise OutputExistsError(f"exists; --force replaces it ({self.preview})")
        if self.folder is None:
            return
        old = sorted(self.folder.glob("step-*.png")) if self.folder.is_dir() else []
        if old and not self.force:
            raise OutputExistsError(f"has frames of another run; --force removes them ({self.folder})")
        for path in old:
            path.unlink()
        files.make_folders(self.folder)

    def add(self, guidance: Guidance) -> None:
        """Takes the picture now, if it is one of the steps."""
        if guidance.n_steps % self.every or (self.folder, self.preview, self.keep) == (None, None, False):
            return
        image = pictures.to_image(guidance.picture())
        if self.keep:
            self.kept.append((guidance.n_steps, image))
        if self.folder is not None:
            path = self.folder / _NAME.format(guidance.n_steps)
            files.write_atomically(path, pictures.png_bytes(image))
        if self.preview is not None:
            publish.write_file(
                self.preview, lambda path: path.write_bytes(pictures.png_bytes(image)), force=True
            )


def write_sheet(path: Path, labelled: Sequence[tuple[str, Image.Image]], *, force: bool) -> None:
    """Publishes a sheet of pictures with a line of text under each. Raises OutputExistsError, OSError."""
    image = sheet(labelled)
    publish.write_file(
        path,
        lambda temporary: temporary.write_bytes(pictures.png_bytes(image)),
        force=force,
        or_else="--force replaces it",
    )


def sheet(labelled: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """A grid of pictures of one size, about square; of more than 24, evenly spaced ones."""
    n = len(labelled)
    n_shown = min(n, _MOST_ON_SHEET)
    chosen = [labelled[(i * (n - 1)) // max(n_shown - 1, 1)] for i in range(n_shown)]
    scale = max(1, math.ceil(_SHEET_SIDE / min(chosen[0][1].size)))
    width, height = (side * scale for side in chosen[0][1].size)
    n_columns = math.ceil(math.sqrt(n_shown))
    n_rows = math.ceil(n_shown / n_columns)
    cell = width + _MARGIN, height + _MARGIN + _LABEL_HEIGHT
    canvas = Image.new("RGB", (n_columns * cell[0] + _MARGIN, n_rows * cell[1] + _MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (label, image) in enumerate(chosen):
        left, top = (i % n_columns) * cell[0] + _MARGIN, (i // n_columns) * cell[1] + _MARGIN
        canvas.paste(image.resize((width, height), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + height + 1), label, fill="black")
    return canvas


def require_ffmpeg() -> str:
    """The path of ffmpeg. Raises PileError, before a long run, if there is none."""
    found = shutil.which("ffmpeg")
    if found is None:
        raise PileError("a video needs ffmpeg, which is not installed; the frames alone do not need it")
    return found


def write_video(path: Path, folder: Path, rate: int, *, force: bool) -> None:
    """Publishes the frames of a folder as an H.264 video, in numeric order.

    Args:
        path: The video; its suffix decides the container.
        folder: With the frames of `Frames`.
        rate: Frames per second.
        force: Replace an existing file.

    Raises:
        PileError: There is no ffmpeg, it fails, or there are no frames.
        OutputExistsError: Another file exists.
    """
    ffmpeg = require_ffmpeg()
    frames = sorted(folder.glob("step-*.png"))
    if not frames:
        raise PileError(f"no frames ({folder})")
    with Image.open(frames[0]) as first:
        scale = max(1, math.ceil(_VIDEO_SIDE / min(first.size)))
    # Sides must be even for yuv420p, the only format that all players know.
    scaled = f"scale=iw*{scale}:ih*{scale}:flags=neighbor,pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"

    def encode(temporary: Path) -> None:
        # Images through a pipe: the names' numbers may have gaps, and globs are not compiled in everywhere.
        command = [ffmpeg, "-loglevel", "error", "-y", "-f", "image2pipe", "-framerate", str(rate)]
        command += ["-c:v", "png", "-i", "-", "-vf", scaled, "-c:v", "libx264", "-crf", "17", str(temporary)]
        data = b"".join(frame.read_bytes() for frame in frames)
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise PileError(f"ffmpeg failed: {reason[0]}; the frames are in {folder} ({path})")

    publish.write_file(path, encode, force=force, or_else="--force replaces it")
