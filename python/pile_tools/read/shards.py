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
from pile_tools.manifest import MANIFEST_SUFFIX, Entry
from pile_tools.sizes import parse_size
from pile_tools.types import BuiltShard, LabelledShard

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
    in `passed_over`: names of other kinds, pipes and devices, folders in which a job of ours works, and our
    own manifests, tokenizers and lists of canaries. Pipes that are named themselves come behind the files, in
    the order given.

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
    streams = dict.fromkeys(path for path in paths if is_stream(path))
    finder = _Finder()
    finder.find([path for path in paths if path not in streams])
    passed = sorted(finder.passed.items(), key=lambda item: os.fsencode(item[0]))
    return Shards(
        [*sorted(finder.found, key=os.fsencode), *streams], [PassedOver(*found) for found in passed]
    )


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
    """The shards as inputs in a manifest in `folder`; of a stream nothing is known beforehand."""
    return [
        {"role": "shard", "path": "-"}
        if is_stream(path)
        else {"role": "shard", "path": manifest.relative(path, folder), "bytes": path.stat().st_size}
        for path in shards
    ]


def checked_entries(inputs: list[Entry], read: Iterable[BuiltShard | LabelledShard]) -> list[Entry]:
    """A job's inputs, those with the role `shard` with the checksums taken while they were read.

    Args:
        inputs: As the request has them; a stream has no size there.
        read: For each shard its path, bytes and SHA-256, as they were read.

    Raises:
        PileError: A shard had another size when it was read.
    """
    shards = iter(read)
    checked = []
    for entry in inputs:
        if entry["role"] == "shard":
            shard = next(shards)
            entry = {"bytes": shard["bytes"], **entry}
            if shard["bytes"] != entry["bytes"]:
                sizes = f"{entry['bytes']} bytes, then {shard['bytes']}"
                raise PileError(f"{shard['path']} changed while it was read: {sizes}")
            entry = {**entry, "sha256": shard["sha256"]}
        checked.append(entry)
    return checked


def summary(shards: Sequence[Path], folder: Path) -> Settings:
    """What the summary of a manifest in `folder` says of what was passed over, if anything was."""
    if not isinstance(shards, Shards) or not shards.passed_over:
        return {}
    first = [
        {"path": manifest.relative(path, folder), "reason": reason}
        for path, reason in shards.passed_over[:_N_LISTED]
    ]
    return {"passed_over": {"n": len(shards.passed_over), "first": first}}


class _Finder:
    """Finds the shards at some places."""

    def __init__(self) -> None:
        self.found: set[Path] = set()
        self.passed: dict[Path, str] = {}
        #: Folders to walk, each with the place that it was found at.
        self._folders: list[tuple[Path, Path]] = []
        #: Places that hold shards, or what is of no use but known.
        self._held: set[Path] = set()
        self._walked: set[tuple[int, int]] = set()

    def find(self, places: list[Path]) -> None:
        """Fills `found` and `passed`. Raises PileError at a place without shards."""
        for place in places:
            self._place(place)
        self._walk()
        for place in places:
            if place not in self._held or not self.found:
                raise PileError(self._nothing_at(place))

    def _place(self, place: Path) -> None:
        if place.is_dir():
            self._folders.append((place, place))
        elif place.is_file():
            self._file(place, place, is_named=True)
        elif place.is_symlink():
            _refuse_broken(place)
        elif os.path.lexists(place):
            raise PileError(f"neither a file, a folder nor a pipe ({place})")
        else:
            self._pattern(place)

    def _nothing_at(self, place: Path) -> str:
        what = "holds no" if place.exists() else "is not there, and as a pattern it matches no"
        passed = "".join(f"; passed over: {path}, {reason}" for path, reason in list(self.passed.items())[:3])
        return f"{place} {what} shards: {NAMES} are read{passed}"

    def _pattern(self, pattern: Path) -> None:
        start, parts = Path(), pattern.parts
        if pattern.anchor:
            start, parts = Path(pattern.anchor), parts[1:]
        for path in set(_matches(start, parts)):
            if not _is_folder(path):
                self._file(path, pattern)
            elif path.name.endswith(_SCRATCH):
                self.passed[path] = "a folder in which a job works"
            else:
                self._folders.append((path, pattern))

    def _walk(self) -> None:
        """Walks the folders; linked ones last, so that what a link repeats is read under its own name."""
        while self._folders:
            waiting = sorted(self._folders, key=lambda item: os.fsencode(item[0]))
            self._folders = []
            for is_link in (False, True):
                for folder, place in waiting:
                    if folder.is_symlink() == is_link:
                        self._walk_one(folder, place)

    def _walk_one(self, top: Path, place: Path) -> None:
        stack = [top]
        while stack:
            folder = stack.pop()
            found = folder.stat()
            if (found.st_dev, found.st_ino) in self._walked:
                self._held.add(place)
                if folder.is_symlink():
                    self.passed[folder] = "a folder that is read under another name"
                continue
            self._walked.add((found.st_dev, found.st_ino))
            for path in sorted(folder.iterdir(), key=os.fsencode):
                if not _is_folder(path):
                    self._file(path, place)
                elif path.name.endswith(_SCRATCH):
                    self.passed[path] = "a folder in which a job works"
                elif path.is_symlink():
                    self._folders.append((path, place))
                else:
                    stack.append(path)

    def _file(self, path: Path, place: Path, *, is_named: bool = False) -> None:
        if not path.is_file():
            self.passed[path] = "no regular file; a pipe is read where it is named itself"
        elif not (is_named or _SHARD.search(path.name)):
            self.passed[path] = "its name is not that of a shard"
        elif artifact := _artifact(path):
            self.passed[path] = f"{artifact}, not a shard"
            if is_named:  # as one of the names that a shell made of `folder/*`
                self._held.add(place)
        else:
            self.found.add(path)
            self._held.add(place)


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
            f"a broken link, to {link.readlink()}; bring that back or remove the link ({link})"
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
    for path in folder.iterdir():
        is_hidden = path.name.startswith(".") and not first.startswith(".")
        if fnmatchcase(path.name, first) and not is_hidden and (not rest or _is_folder(path)):
            yield from _matches(path, rest)


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
        for below in sorted(path.iterdir(), key=os.fsencode, reverse=True):
            if not below.name.startswith(".") and not below.name.endswith(_SCRATCH) and _is_folder(below):
                stack.append(below)


def _artifact(path: Path) -> str | None:
    """What of our own a file is, or None: by a manifest of its own, or by content, as shards are lines and
    these files are one object.
    """
    if kind := _kind_by_manifest(path):
        return f"a file of kind {kind} with a manifest"
    if path.suffix.lower() != ".json" or path.stat().st_size > _ARTIFACT_BYTES:
        return None
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    return next((name for name, keys in _ARTIFACTS.items() if keys <= values.keys()), None)


def _kind_by_manifest(path: Path) -> str | None:
    """The kind of artifact that a manifest beside a file, named after it, says it is."""
    beside = path.parent / (path.name + MANIFEST_SUFFIX)
    if not beside.is_file():
        return None
    try:
        found = manifest.read(beside)
    except (PileError, OSError):
        return None
    return found.kind if any(entry["path"] == path.name for entry in found.outputs) else None
