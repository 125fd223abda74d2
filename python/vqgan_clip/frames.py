"""The steps of a run as pictures: PNG files, a video by ffmpeg, a sheet of small pictures."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pile_tools import files, publish
from pile_tools.errors import ConfigError, OutputExistsError, PileError
from vqgan_clip import pictures
from vqgan_clip.guidance import Guidance, StateError

#: Frames are numbered in their names, so that names sort by step.
_NAME, _FRAME = "step-{:06d}.png", re.compile(r"step-[0-9]{6,}\.png")
#: Keyword of the text in a PNG file of ours that says which run it shows.
_KEY = "vqgan-clip frame"
#: Shorter sides of the pictures of a sheet are scaled up to at least this, pixels; and pictures of a sheet.
_SHEET_SIDE, _MOST_ON_SHEET = 128, 24
#: Maximum frames in memory. Beyond it every second one is forgotten, which leaves enough for a sheet.
_MOST_KEPT = 2 * _MOST_ON_SHEET
#: Prefix of the names of kept frames in a state.
_IN_STATE = "frame."
_MARGIN, _LABEL_HEIGHT = 6, 14
#: Shorter sides of a video are at least this: players blur small ones.
_VIDEO_SIDE = 256
#: No picture is enlarged to a longer side than this: one of a single row of pixels would take any memory.
_LONGEST_SIDE = 4096


def frame_name(step: int) -> str:
    """The name of the frame of a step."""
    return _NAME.format(step)


def is_frame_name(name: str) -> bool:
    """Whether a file in the folder of frames has the name of one."""
    return _FRAME.fullmatch(name) is not None


@dataclass
class Frames:
    """Collects the picture every n steps; an `on_step` of `generate`.

    Files that show the same run are replaced, so that a stopped run can be made again; others only if `force`
    is on, and those that show no run never.

    Attributes:
        job: The run that the pictures show, from `Recipe.job`.
        every: Steps between frames.
        folder: Where to write them as PNG files; None for nowhere.
        preview: A file that is replaced by each frame; None for none.
        keep: Whether frames stay in memory, for a sheet.
        force: Replace files that exist.
        kept: The frames in memory, with their steps: evenly spaced ones of all steps so far.
    """

    job: str
    every: int
    folder: Path | None = None
    preview: Path | None = None
    keep: bool = False
    force: bool = False
    kept: list[tuple[int, Image.Image]] = field(default_factory=list)

    def prepare(self) -> None:
        """Makes the folder, and removes the frames of another run if `force` is on.

        Raises:
            OutputExistsError: There are frames of another run, or files that are no frames of ours.
            ConfigError: The preview is a pipe or device.
            OSError: The folder cannot be made.
        """
        if self.preview is not None and publish.is_stream(self.preview):
            raise ConfigError(f"--preview replaces a file, and this is a pipe or device ({self.preview})")
        preview = None if self.force else self.preview
        if preview is not None and preview.exists() and not self._is_ours(publish.first_bytes(preview)):
            raise OutputExistsError(f"exists; --force replaces it ({preview})")
        if self.folder is None:
            return
        old = self._old_frames(self.folder)
        if old and not self.force:
            raise OutputExistsError(f"has frames of another run; --force removes them ({self.folder})")
        for path in old:
            path.unlink()
        files.make_folders(self.folder)

    def _old_frames(self, folder: Path) -> list[Path]:
        """The frames of other runs. Raises OutputExistsError for a file, link or folder that is no frame."""
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        named = [path for path in there if is_frame_name(path.name)]
        for path in named:
            if (
                path.is_symlink()
                or not files.is_regular(path)
                or _KEY.encode() not in publish.first_bytes(path)
            ):
                raise OutputExistsError(f"is in the way of the frames and is none; move it away ({path})")
        return [path for path in named if not self._is_ours(publish.first_bytes(path))]

    def _is_ours(self, head: bytes) -> bool:
        return _KEY.encode() in head and self.job.encode() in head

    def is_there(self, path: Path) -> bool:
        """Whether a file shows this run; a pipe or device may."""
        return publish.is_stream(path) or (path.is_file() and self._is_ours(publish.first_bytes(path)))

    def expected(self, n_steps: int) -> list[Path]:
        """The frames of a run of `n_steps` steps, none without a folder."""
        if self.folder is None:
            return []
        return [self.folder / frame_name(step) for step in range(self.every, n_steps + 1, self.every)]

    def add(self, guidance: Guidance) -> None:
        """Takes the picture now, if it is one of the steps."""
        if guidance.n_steps % self.every or (self.folder, self.preview, self.keep) == (None, None, False):
            return
        image = pictures.to_image(guidance.picture())
        if self.keep:
            self.kept.append((guidance.n_steps, image))
            # By the number of steps alone: a run that continues keeps the frames of one that was not stopped.
            spacing = self.every
            while guidance.n_steps // spacing > _MOST_KEPT:
                spacing *= 2
            self.kept = [frame for frame in self.kept if frame[0] % spacing == 0]
        if self.folder is not None:
            self._write(self.folder / frame_name(guidance.n_steps), image, force=False)
        if self.preview is not None:
            self._write(self.preview, image, force=self.force)

    def state(self) -> dict[str, Tensor]:
        """The kept frames as tensors of a saved state, (height, width, 3) uint8 by step."""
        return {f"{_IN_STATE}{step}": torch.from_numpy(np.array(image)) for step, image in self.kept}

    def restore(self, state: Mapping[str, Tensor], factor: int) -> dict[str, Tensor]:
        """Takes the kept frames out of a saved state, and returns the rest of it.

        Args:
            state: The state.
            factor: Pixels of a side of a latent.

        Raises:
            StateError: One is no picture, or of another size than the picture of the state's latents.
        """
        # Whether the latents are those of this run is checked where they are restored.
        latents = state.get("latents", torch.zeros(0))
        size = tuple(side * factor for side in latents.shape[-2:])
        for name, pixels in state.items():
            if not name.startswith(_IN_STATE):
                continue
            step = name.removeprefix(_IN_STATE)
            is_picture = pixels.dtype == torch.uint8 and pixels.dim() == 3 and pixels.shape[2] == 3
            has_size = pixels.numel() > 0 and tuple(pixels.shape[:2]) == size
            if not is_picture or not has_size or not (step.isdecimal() and len(step) < 10):
                raise StateError(f"the saved state has a frame that is no picture: {name[:40]!r}")
            if self.keep:
                self.kept.append((int(step), Image.fromarray(pixels.numpy())))
        # The file has the tensors in an order of its own.
        self.kept.sort(key=lambda frame: frame[0])
        return {name: tensor for name, tensor in state.items() if not name.startswith(_IN_STATE)}

    def write_sheet(self, path: Path, last: tuple[int, Image.Image]) -> None:
        """Publishes a sheet of the kept frames and the last picture. Raises OutputExistsError, OSError."""
        shown = [f for f in self.kept if f[0] != last[0]] + [last]
        self._write(path, sheet([(f"step {number}", image) for number, image in shown]), force=self.force)

    def _write(self, path: Path, image: Image.Image, *, force: bool) -> None:
        publish.write_file(
            path,
            lambda temporary: temporary.write_bytes(pictures.png_bytes(image, {_KEY: self.job})),
            force=force,
            is_ours=self._is_ours,
            or_else="--force replaces it",
        )

    def paths(self, n_steps: int) -> list[Path]:
        """The frames in the folder that show a run of `n_steps` steps, by step."""
        there = self.folder.iterdir() if self.folder is not None else ()
        steps = {int(path.stem.removeprefix("step-")): path for path in there if is_frame_name(path.name)}
        # There may be more: of the same run with other steps between frames, or of a longer one.
        return [steps[step] for step in sorted(steps) if step % self.every == 0 and step <= n_steps]


def _scale(size: tuple[int, int], side: int) -> int:
    """The factor that enlarges a picture until its shorter side has `side` pixels, if the longer one may."""
    return max(1, min(math.ceil(side / min(size)), _LONGEST_SIDE // max(size)))


def sheet(labelled: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """A grid of pictures of one size, about square; of more than 24, evenly spaced ones."""
    n = len(labelled)
    n_shown = min(n, _MOST_ON_SHEET)
    chosen = [labelled[(i * (n - 1)) // max(n_shown - 1, 1)] for i in range(n_shown)]
    scale = _scale(chosen[0][1].size, _SHEET_SIDE)
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


def write_video(path: Path, frames: Sequence[Path], rate: int, *, force: bool) -> None:
    """Publishes frames as an H.264 video.

    Args:
        path: The video; its suffix decides the container.
        frames: The PNG files, in their order.
        rate: Frames per second.
        force: Replace an existing file.

    Raises:
        PileError: There is no ffmpeg, it fails, or there are no frames.
        OutputExistsError: Another file exists.
    """
    ffmpeg = require_ffmpeg()
    if not frames:
        raise PileError(f"no frames, as the run had fewer steps than --every; no video ({path})")
    with Image.open(frames[0], formats=["PNG"]) as first:
        scale = _scale(first.size, _VIDEO_SIDE)
    # Sides must be even for yuv420p, the only format that all players know.
    scaled = f"scale=iw*{scale}:ih*{scale}:flags=neighbor,pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"

    def encode(temporary: Path) -> None:
        # ffmpeg chooses the container by the suffix, which the temporary file of a pipe lacks.
        encoded = temporary.with_name(path.name)
        # Images through a pipe: the names' numbers may have gaps, and globs are not compiled in everywhere.
        command = [ffmpeg, "-loglevel", "error", "-y", "-f", "image2pipe", "-framerate", str(rate)]
        command += ["-c:v", "png", "-i", "-", "-vf", scaled, "-c:v", "libx264", "-crf", "17", str(encoded)]
        data = b"".join(frame.read_bytes() for frame in frames)
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise PileError(f"ffmpeg failed: {reason[0]}; the frames are in {frames[0].parent} ({path})")
        encoded.replace(temporary)

    publish.write_file(path, encode, force=force, or_else="--force replaces it")
