"""Which files are the shards, in which order, and what of their records is read."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from pile_tools import manifest
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import Entry
from pile_tools.sizes import parse_size

#: What files in a folder are taken for shards by their names, in any letter case; said in messages.
NAMES = ".jsonl, .ndjson, .json and .txt files, plain or compressed (.zst, .zstd, .gz), and .parquet files"

_SHARD = re.compile(r"\.(parquet|(jsonl|ndjson|json|txt)(\.(zst|zstd|gz))?)\Z", re.IGNORECASE)

#: The place that stands for standard input.
STANDARD_INPUT = Path("-")

#: The end of the name of a folder in which one of our jobs works.
_SCRATCH = ".partial"

#: What was passed over and is listed in a manifest, at most.
_N_LISTED = 100

#: Bytes of the largest .json file that is looked into for an artifact of ours: some tokenizers are large.
_ARTIFACT_BYTES = 64 << 20

#: JSON files that our commands write, by keys that they have.
_ARTIFACTS = {
    "a manifest": {"kind", "format", "made_by", "request", "outputs"},
    "a tokenizer": {"added_tokens", "model"},
    "a list of canaries": {"about", "repeats", "passages"},
    "a saved view": {"views"},
}

#: The longest record whose place a dataset can store.
_MAX_MAX_RECORD = 1 << 32


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordConfig:
    """What of a record is its text, and what becomes of records that are none."""

    text_field: str = field(
        default="text",
        metadata={"help": "Key, or column of a parquet file, that holds the text.", "metavar": "NAME"},
    )
    on_bad_record: str = field(
        default="error",
        metadata={
            "help": "error: stop at it; skip: leave it out, count and list it.",
            "metavar": "error|skip",
        },
    )
    max_record: str | int = field(
        default="1GiB",
        metadata={
            "help": "Longest record, a line or a text; a longer one is a bad record. Bounds the memory of "
            "reading, whatever a compressed file holds.",
            "metavar": "BYTES",
        },
    )

    def __post_init__(self) -> None:
        if self.on_bad_record not in ("error", "skip"):
            raise ConfigError(f"on-bad-record must be error or skip, got {self.on_bad_record}")
        if not 1 <= self.max_record_bytes <= _MAX_MAX_RECORD:
            raise ConfigError(f"max-record must be from 1 byte to 4GiB, got {self.max_record}")

    @property
    def skips(self) -> bool:
        """Whether bad records are left out."""
        return self.on_bad_record == "skip"

    @property
    def max_record_bytes(self) -> int:
        """Bytes of the longest record."""
        given = self.max_record
        return given if isinstance(given, int) else parse_size(given, "max-record")

    @property
    def settings(self) -> Settings:
        """What a manifest says of them: of the longest record nothing where it is the default."""
        known = {"text_field": self.text_field, "on_bad_record": self.on_bad_record}
        if self.max_record_bytes == RecordConfig().max_record_bytes:
            return known
        return {**known, "max_record": self.max_record_bytes}


class PassedOver(NamedTuple):
    """Something at a place of shards that is not read, and why."""

    path: Path
    reason: str


class Shards(list[Path]):
    """Shards in the order of the dataset, and what was passed over on the way to them."""

    def __init__(self, paths: Iterable[Path] = (), passed_over: Iterable[PassedOver] = ()) -> None:
        super().__init__(paths)
        self.passed_over = list(passed_over)


def find_shards(places: Iterable[str | Path]) -> Shards:
    """The shards at some places, each once, sorted byte-wise by path: that order is the dataset's.

    A folder is walked to any depth, links to folders included, each folder once. What is not read there is
    in `passed_over`: names of other kinds, pipes and devices, folders in which a job of ours works, and our own
    manifests, tokenizers and lists of canaries. Pipes that are named themselves come behind the files, in the
    order given.

    Args:
        places: Files, pipes, folders and globs, or just `-`: standard input.

    Raises:
        PileError: A place is not there, there are no shards at it, or a link leads nowhere.
        OSError: A folder cannot be read.
        ConfigError: Standard input and other places.
    """
    paths = [Path(place) for place in places]
    if STANDARD_INPUT in paths:
        if len(paths) > 1:
            raise ConfigError("standard input (-) cannot be read together with other shards")
        return Shards(paths)
    files: set[Path] = set()
    streams: dict[Path, None] = {}
    passed: dict[Path, str] = {}
    for place in paths:
        if is_stream(place):
            streams[place] = None
            continue
        finder = _Finder()
        finder.place(place)
        files |= finder.found
        passed |= finder.passed
    listed = [PassedOver(path, passed[path]) for path in sorted(passed, key=os.fsencode)]
    return Shards([*sorted(files, key=os.fsencode), *streams], listed)


def is_stream(path: Path) -> bool:
    """Whether a path is standard input, a pipe or a device: its bytes can be read once."""
    if path == STANDARD_INPUT or str(path).startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def has_stream(shards: Iterable[Path]) -> bool:
    """Whether some of the shards can be read only once: a job over them cannot be gone on with."""
    return any(is_stream(path) for path in shards)


def entries(shards: Iterable[Path], folder: Path) -> list[Entry]:
    """The shards as inputs in a manifest in `folder`; of standard input and pipes nothing is known beforehand."""
    return [
        {"role": "shard", "path": "-"}
        if is_stream(path)
        else {"role": "shard", "path": manifest.relative(path, folder), "bytes": path.stat().st_size}
        for path in shards
    ]


def summary(shards: Sequence[Path], folder: Path) -> Settings:
    """What the summary of a manifest in `folder` says of the way to the shards."""
    if not isinstance(shards, Shards):
        return {}
    first = [
        {"path": manifest.relative(path, folder), "reason": reason}
        for path, reason in shards.passed_over[:_N_LISTED]
    ]
    return {"passed_over": {"n": len(shards.passed_over), "first": first}}


class _Finder:
    """Finds the shards at one place."""

    def __init__(self) -> None:
        self.found: set[Path] = set()
        self.passed: dict[Path, str] = {}
        self._walked: set[tuple[int, int]] = set()

    def place(self, place: Path) -> None:
        if place.is_dir():
            self._folders([place])
            self._refuse_nothing(place, "holds no")
        elif place.is_file():
            self._file(place, is_named=True)
            self._refuse_nothing(place, "holds no")
        elif os.path.lexists(place) and not place.is_symlink():
            raise PileError(f"neither a file, a folder nor a pipe ({place})")
        else:
            self._pattern(place)
            self._refuse_nothing(place, "is not there, and as a pattern it matches no")

    def _refuse_nothing(self, place: Path, what: str) -> None:
        if self.found:
            return
        passed = "".join(f"; passed over: {path}, {reason}" for path, reason in list(self.passed.items())[:3])
        raise PileError(f"{place} {what} shards: {NAMES} are read{passed}")

    def _pattern(self, pattern: Path) -> None:
        if pattern.is_symlink():
            _refuse_broken(pattern)
        start, parts = Path(), pattern.parts
        if pattern.anchor:
            start, parts = Path(pattern.anchor), parts[1:]
        folders = []
        for path in sorted(set(_matches(start, parts)), key=os.fsencode):
            if not _is_folder(path):
                self._file(path)
            elif path.name.endswith(_SCRATCH):
                self.passed[path] = "a folder in which a job works"
            else:
                folders.append(path)
        self._folders(folders)

    def _folders(self, folders: list[Path]) -> None:
        """Walks folders, those that links lead to last: what a link repeats is read under its own name."""
        waiting = folders
        while waiting:
            links = [path for path in waiting if path.is_symlink()]
            stack = [path for path in waiting if not path.is_symlink()]
            waiting = []
            while stack:
                waiting += self._folder(stack.pop(), stack)
            for link in links:
                stack = [link]
                while stack:
                    waiting += self._folder(stack.pop(), stack)

    def _folder(self, folder: Path, stack: list[Path]) -> list[Path]:
        """Takes the files of a folder, adds the folders below to `stack`, and returns linked ones."""
        identity = folder.stat()
        if (identity.st_dev, identity.st_ino) in self._walked:
            self.passed[folder] = "a folder that is read under another name"
            return []
        self._walked.add((identity.st_dev, identity.st_ino))
        links = []
        for name in sorted(os.listdir(folder), key=os.fsencode):
            path = folder / name
            if not _is_folder(path):
                self._file(path)
            elif name.endswith(_SCRATCH):
                self.passed[path] = "a folder in which a job works"
            elif path.is_symlink():
                links.append(path)
            else:
                stack.append(path)
        return links

    def _file(self, path: Path, *, is_named: bool = False) -> None:
        if not path.is_file():
            self.passed[path] = "no regular file; a pipe is read where it is named itself"
        elif not (is_named or _SHARD.search(path.name)):
            self.passed[path] = "its name is not that of a shard"
        elif artifact := _artifact(path):
            self.passed[path] = f"{artifact}, not a shard"
        else:
            self.found.add(path)


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder or leads to one. Raises PileError where it leads nowhere."""
    if path.is_symlink():
        _refuse_broken(path)
    return path.is_dir()


def _refuse_broken(link: Path) -> None:
    try:
        link.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise PileError(
            f"a broken link, to {os.readlink(link)}; bring that back or remove the link ({link})"
        ) from None
    except OSError as err:
        raise PileError(f"a link that cannot be followed: {err.strerror} ({link})") from err


def _matches(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The paths below a folder that match a pattern; as glob's, but what cannot be read is an error."""
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if not glob.has_magic(first):
        if os.path.lexists(folder / first):
            yield from _matches(folder / first, rest)
        return
    if first == "**":
        for below in _below(folder):
            yield from _matches(below, rest)
        return
    for name in os.listdir(folder):
        is_hidden = name.startswith(".") and not first.startswith(".")
        if fnmatchcase(name, first) and not is_hidden and (not rest or _is_folder(folder / name)):
            yield from _matches(folder / name, rest)


def _below(folder: Path) -> Iterator[Path]:
    """A folder and all folders below it, each once, hidden ones and those of our jobs aside."""
    walked = set()
    stack = [folder]
    while stack:
        path = stack.pop()
        identity = path.stat()
        if (identity.st_dev, identity.st_ino) in walked:
            continue
        walked.add((identity.st_dev, identity.st_ino))
        yield path
        for name in sorted(os.listdir(path), key=os.fsencode, reverse=True):
            if not name.startswith(".") and not name.endswith(_SCRATCH) and _is_folder(path / name):
                stack.append(path / name)


def _artifact(path: Path) -> str | None:
    """What of our own a file is by its content, or None: shards are lines, these files are one object."""
    if path.suffix.lower() != ".json" or path.stat().st_size > _ARTIFACT_BYTES:
        return None
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    return next((name for name, keys in _ARTIFACTS.items() if keys <= values.keys()), None)
