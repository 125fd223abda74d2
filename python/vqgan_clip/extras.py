"""Outputs of a run beside its picture; none has the name of another output or of an input."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pile_tools import files, publish
from pile_tools.errors import ConfigError
from pile_tools.scratch_folders import SUFFIX
from vqgan_clip import saved_state
from vqgan_clip.frames import Frames, frame_name, is_frame_name

#: In the folder of frames, the name whose scratch folder is locked while a run writes there.
_ALL_FRAMES = "frames"


@dataclass(frozen=True, kw_only=True, slots=True)
class Extras:
    """Outputs beside the picture, each None if not requested."""

    every: int = 10
    frames: Path | None = None
    video: Path | None = None
    contact_sheet: Path | None = None
    preview: Path | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        if self.video is not None and self.frames is None:
            raise ConfigError("--video needs --frames, the folder of its pictures")

    @property
    def files(self) -> dict[str, Path]:
        """The files among them, by option."""
        named = {
            "--video": self.video,
            "--contact-sheet": self.contact_sheet,
            "--preview": self.preview,
            "--state": self.state,
        }
        return {name: path for name, path in named.items() if path is not None}

    def are_there(self, job: str, n_steps: int) -> bool:
        """Whether all of them are there, of a run that makes `job` and took `n_steps` steps.

        What is missing is made by running again, which refuses what is in the way. A video does not say whose
        it is.
        """
        frames = Frames(job, self.every, self.frames)
        # A run of fewer steps than `every` has no preview.
        preview = self.preview if n_steps >= self.every else None
        made = [path for path in (self.contact_sheet, preview) if path is not None]
        return (
            all(frames.is_there(path) for path in made)
            and (self.state is None or saved_state.is_there(self.state, job))
            and (self.video is None or self.video.exists())
            and all(frames.is_there(path) for path in frames.expected(n_steps))
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other runs from writing them until the block ends. Raises PileError if one does."""
        with contextlib.ExitStack() as held:
            for path in self._locked:
                held.enter_context(publish.holding(path))
            yield

    @property
    def _locked(self) -> list[Path]:
        """What a run locks: its files, and one name for all that are in the folder of frames."""
        return [*self.files.values(), *([] if self.frames is None else [self.frames / _ALL_FRAMES])]

    def tidy(self) -> None:
        """Removes the scratch folders that a killed run left beside them.

        A run that continues from a state, or finds its picture finished, does not make all of them again.
        """
        for path in self._locked:
            publish.tidy(path)
        for scratch in self.frames.glob(f"*{SUFFIX}") if self.frames is not None else ():
            if is_frame_name(scratch.stem):
                publish.tidy(scratch.with_suffix(""))

    def refuse_clashes(
        self, output: Path, inputs: Sequence[Path], would_read: Callable[[Path], bool]
    ) -> None:
        """Raises ConfigError if an output would replace an input or another output, or become an input.

        Also if an input is in the scratch folder of an output, which is cleared.

        `would_read` tells whether a file at a path would be read by the next run. Raises as
        `publish.refuse_name` for a path at which no file is written.
        """
        # By path without links, and by device and inode, as a folder may be mounted twice.
        seen: dict[object, str] = {}
        outputs = {"-o": output, **self.files}
        for name, path in [*outputs.items(), *(("", path) for path in inputs)]:
            real = os.path.realpath(path)
            keys = [real, found] if (found := files.identity(path)) else [real]
            other = next((seen[key] for key in keys if key in seen), None)
            if name in outputs and other is not None:
                raise ConfigError(f"{other} and {name} name one file; give two ({path})")
            if not name and other is not None:
                raise ConfigError(f"is one of the inputs; give {other} another file ({path})")
            is_named = is_frame_name(path.name) or is_frame_name(Path(real).name)
            if self.frames is not None and is_named and _is_in(real, self.frames):
                raise ConfigError(f"has the name of a frame in --frames; give another folder ({path})")
            if name:
                seen |= dict.fromkeys(keys, name)
        for path in outputs.values():
            publish.refuse_name(path)
            publish.refuse_in_scratch(publish.scratch_of(path), inputs)
        for scratch in self.frames.glob(f"*{SUFFIX}") if self.frames is not None else ():
            publish.refuse_in_scratch(scratch, inputs)
        frame = {} if self.frames is None else {"--frames": self.frames / frame_name(0)}
        for name, path in {**outputs, **frame}.items():
            if would_read(path):
                what = "is among the files of the weights or of a CLIP model"
                raise ConfigError(f"{what}; give {name} another folder ({path.parent})")


def _is_in(real: str, folder: Path) -> bool:
    parent = Path(real).parent
    is_same = parent.is_dir() and files.identity(parent) == files.identity(folder)
    return is_same or parent == Path(os.path.realpath(folder))
