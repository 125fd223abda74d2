"""Finds shards, defines their order, and says how their records are read."""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pile_tools import files, manifest, publish
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, PileError
from pile_tools.files import Identity
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, Entry, Manifest
from pile_tools.publish import Target
from pile_tools.scratch_folders import SUFFIX as SCRATCH_SUFFIX
from pile_tools.sizes import parse_size
from pile_tools.terminal import counted
from pile_tools.types import ReadShard

#: The files of a folder that are shards, by their names in any letter case, as messages list them.
NAMES = ".jsonl, .ndjson, .json and .txt files, plain or compressed (.zst, .zstd, .gz), and .parquet files"

_SHARD = re.compile(r"\.(parquet|(jsonl|ndjson|json|txt)(\.(zst|zstd|gz))?)\Z", re.IGNORECASE | re.ASCII)

#: The path that names standard input.
STANDARD_INPUT = Path("-")

#: Kind of the manifest in a folder of signatures, which may be in a folder of shards.
SIGNATURES = "signatures"

#: Role of the shards of an older corpus, which are read as shards are, but not written again.
OLDER = "older"

#: Maximum ignored files listed in a manifest.
_N_LISTED = 100

#: Maximum bytes of a .json file that is parsed to see whether a command of ours wrote it. The largest are
#: tokenizers, of some tens of megabytes.
_ARTIFACT_BYTES = 64 << 20

#: JSON files that our commands write, with the keys that identify them: records do not have all of them.
_ARTIFACTS = {
    "a manifest": {"kind", "format", "made_by", "request", "outputs"},
    "a tokenizer": {"added_tokens", "model"},
    "a list of canaries": {"about", "repeats", "passages"},
}

#: Files that jobs write beside their shards, by their role in the manifest.
BESIDE_SHARDS = {
    "clusters": "a table of clusters",
    "passages": "a table of passages",
    "matches": "a table of matches",
    "items": "a table of items",
    "clean items": "a list of clean items",
}

#: The only key of a file of saved interventions. Records have such a key too, beside that of their text.
_INTERVENTIONS = {"views"}

#: Largest `max_record`. The `.idx` of a dataset counts a document's tokens in 31 bits, and a token has two
#: bytes or more on average.
_MAX_MAX_RECORD = 1 << 32


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordConfig:
    """Which field of a record is its text, and how bad records are handled."""

    text_field: str = field(
        default="text",
        metadata={"help": "Key, or column of a parquet file, that holds the text.", "metavar": "NAME"},
    )
    on_bad_record: str = field(
        default="error",
        metadata={
            "help": "error: stop at a bad record; skip: pass over it and count it.",
            "metavar": "error|skip",
        },
    )
    max_record: str | int = field(
        default="1GiB",
        metadata={
            "help": "Maximum bytes of a record, a line or a text; a longer one is a bad record. Bounds the "
            "memory of reading, whatever a compressed file holds.",
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
        """The maximum bytes of a record."""
        size = self.max_record
        return size if isinstance(size, int) else parse_size(size, "max-record")

    @property
    def settings(self) -> Settings:
        """The settings as manifests record them; `max_record` only if it is not the default."""
        settings = {"text_field": self.text_field, "on_bad_record": self.on_bad_record}
        if self.max_record_bytes == RecordConfig().max_record_bytes:
            return settings
        return {**settings, "max_record": self.max_record_bytes}


#: Why a file is ignored that is not known to be ours, and may have been meant as a shard.
NO_FILE, NO_NAME = (
    "no regular file; a pipe is read where it is named itself",
    "its name is not that of a shard",
)


class PassedOver(NamedTuple):
    """A file or folder found while looking for shards that is not read, and the reason."""

    path: Path
    reason: str


#: For folders in which a pattern was looked for: how many of its components may have matched their paths.
Matched: TypeAlias = dict[Identity, set[int]]


class Shards(list[Path]):
    """Shards in the order of the dataset.

    Attributes:
        passed_over: The files and folders that were ignored.
        folders: The folders that were walked: those that were named, or matched a pattern, and all below.
        patterns: The inputs that are patterns.
    """

    def __init__(
        self,
        paths: Iterable[Path] = (),
        passed_over: Iterable[PassedOver] = (),
        folders: Iterable[Identity] = (),
        patterns: Mapping[Path, Matched] | None = None,
    ) -> None:
        super().__init__(paths)
        self.passed_over = list(passed_over)
        self.folders = frozenset(folders)
        self.patterns = dict(patterns or {})


def find_shards(inputs: Iterable[str | Path]) -> Shards:
    """The shards at the inputs, each path once, sorted byte-wise by path: the order of the dataset.

    Folders are walked to any depth, links to folders included, each folder once. A file is read once for each
    of its paths, such as links to it. `passed_over` lists what is ignored: files with other names, pipes and
    devices, scratch folders of jobs, and manifests, tokenizers and other files that our commands wrote. Pipes
    named as inputs follow the files, in the order given.

    Args:
        inputs: Files, pipes, folders and globs; or only `-`, standard input.

    Raises:
        PileError: An input does not exist or has no shards, a link is broken, or shards are being replaced.
        OSError: A folder cannot be read.
        ConfigError: Standard input is combined with other inputs.
    """
    paths = [Path(path) for path in inputs]
    if STANDARD_INPUT in paths:
        if len(paths) > 1:
            raise ConfigError("standard input (-) cannot be read together with other shards")
        return Shards(paths)
    streams = dict.fromkeys(path for path in paths if is_stream(path))
    finder = _Finder()
    finder.find([path for path in paths if path not in streams])
    ignored = sorted(finder.ignored.items(), key=lambda item: os.fsencode(item[0]))
    return Shards(
        [*sorted(finder.found, key=os.fsencode), *streams],
        [PassedOver(*found) for found in ignored],
        finder.walked,
        finder.patterns,
    )


def refuse_output_within(shards: Sequence[Path], output: Path) -> None:
    """Raises ConfigError for an output where the next run would read it as one of the shards.

    Args:
        shards: Shards that were found, with the folders and patterns that led to them.
        output: A folder of shards, or a file with the name of one.
    """
    if not isinstance(shards, Shards):
        return
    if files.is_in(output, shards.folders):
        raise ConfigError(
            f"the output is in a folder of the shards, where the next run would read it; "
            f"give another folder ({output})"
        )
    for pattern, matched in shards.patterns.items():
        if _reaches(pattern, matched, Path(os.path.realpath(output))):
            raise ConfigError(
                f"the output matches the pattern {pattern}, so the next run would read it; "
                f"give another folder ({output})"
            )


def _n_plain(parts: Sequence[str]) -> int:
    """The number of components of a pattern before the first one with a wildcard."""
    return next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))


def _reaches(pattern: Path, known: Matched, output: Path) -> bool:
    """Whether a pattern matches the output, a folder above it, or may match a file in it.

    Args:
        pattern: The pattern, as it was given.
        known: The folders in which it was looked for, by any of their paths.
        output: The output's path, without links.
    """
    parts = pattern.parts
    # How many components of the pattern may have matched those of the path so far.
    matched: set[int] = set()
    for path in (*reversed(output.parents), output):
        matched = {n if parts[n] == "**" else n + 1 for n in matched if _fits(path.name, parts[n])}
        if identity := files.identity(path):
            matched |= known.get(identity, set())
        # "**" matches any number of folders, none too.
        for n in range(len(parts)):
            if n in matched and parts[n] == "**":
                matched.add(n + 1)
        if len(parts) in matched:
            return True
    # What is left for the files of the output, which have names such as those of the shards.
    return any(set(parts[n : len(parts) - 1]) <= {"**"} for n in matched)


def _fits(name: str, part: str) -> bool:
    """Whether a name matches a component of a pattern; hidden names match only one that begins with a dot."""
    if not glob.has_magic(part):
        return name == part
    is_hidden = name.startswith(".") and not part.startswith(".")
    return not is_hidden and fnmatchcase(name, part)


def is_shard_name(name: str) -> bool:
    """Whether a file of this name in a folder is read as a shard, unless it is an artifact."""
    return _SHARD.search(name) is not None


def is_stream(path: Path) -> bool:
    """Whether a path is standard input, a pipe or a device, whose bytes can be read only once."""
    # By name, even if a file was redirected there: the name means another file to the next process.
    if path == STANDARD_INPUT or str(path).startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def has_stream(shards: Iterable[Path]) -> bool:
    """Whether a shard can be read only once, so that a job over the shards cannot resume."""
    return any(is_stream(path) for path in shards)


def entries(shards: Iterable[Path], folder: Path) -> list[Entry]:
    """The shards as inputs of a manifest in `folder`; a stream has no size before it is read."""
    return [
        {"role": "shard", "path": "-"}
        if is_stream(path)
        else {"role": "shard", "path": manifest.relative(path, folder), "bytes": path.stat().st_size}
        for path in shards
    ]


def checked_entries(inputs: list[Entry], read: Iterable[ReadShard]) -> list[Entry]:
    """The inputs of a job, with the checksums of the shards taken while they were read.

    Args:
        inputs: The inputs of the request; a stream has no size there.
        read: Path, bytes and SHA-256 of each shard as it was read.

    Raises:
        PileError: The size of a shard changed between the request and the read.
    """
    shards = iter(read)
    checked = []
    for entry in inputs:
        if entry["role"] in ("shard", OLDER):
            shard = next(shards)
            entry = {"bytes": shard["bytes"], **entry}
            if shard["bytes"] != entry["bytes"]:
                sizes = f"{counted(entry['bytes'], 'byte')}, then {shard['bytes']:,}"
                raise PileError(f"{shard['path']} changed while it was read: {sizes}")
            entry = {**entry, "sha256": shard["sha256"]}
        checked.append(entry)
    return checked


def together(*shards: Sequence[Path]) -> Shards:
    """The shards of several inputs, with what was ignored at all of them."""
    ignored = [passed for one in shards if isinstance(one, Shards) for passed in one.passed_over]
    return Shards(itertools.chain(*shards), dict.fromkeys(ignored))


def summary(shards: Sequence[Path], folder: Path) -> Settings:
    """The summary entry `passed_over` of a manifest in `folder`; empty if nothing was ignored."""
    if not isinstance(shards, Shards) or not shards.passed_over:
        return {}
    first = [
        {"path": manifest.relative(path, folder), "reason": reason}
        for path, reason in shards.passed_over[:_N_LISTED]
    ]
    return {"passed_over": {"n": len(shards.passed_over), "first": first}}


class _Finder:
    """Finds the shards at inputs: files, folders and patterns."""

    def __init__(self) -> None:
        self.found: set[Path] = set()
        #: Reasons by file or folder.
        self.ignored: dict[Path, str] = {}
        #: Inputs that are patterns.
        self.patterns: dict[Path, Matched] = {}
        #: Folders that are named or match a pattern, and those below.
        self.walked: set[Identity] = set()
        #: Folders to walk, each with the input that led to it.
        self._folders: list[tuple[Path, Path]] = []
        #: Inputs at which there is a shard, a folder that another input covers, or a file
        #: that a command of ours wrote.
        self._matched: set[Path] = set()

    def find(self, inputs: list[Path]) -> None:
        """Fills `found` and `ignored`.

        Raises: PileError for an input without shards; ConfigError for a pattern with ".." after a wildcard.
        """
        for path in inputs:
            self._add_input(path)
        self._walk()
        # A file that is named is read, although a folder that is walked ignores its name.
        for path in self.found & self.ignored.keys():
            del self.ignored[path]
        for path in inputs:
            # Inputs may match without a shard, such as artifacts, but not all of them.
            if path not in self._matched or not self.found:
                raise PileError(self._no_shards(path))
        for folder in sorted({path.parent for path in self.found}):
            # Some of the shards of an artifact that is being replaced are not all of them. The root folder is
            # no artifact.
            with contextlib.suppress(ConfigError):
                publish.refuse_while_replaced(Target.of(folder / MANIFEST_FILE))

    def _add_input(self, path: Path) -> None:
        if path.is_dir():
            self._folders.append((path, path))
        elif path.is_file():
            self._add_file(path, path, is_named=True)
        elif path.is_symlink():
            _refuse_broken(path)
        elif os.path.lexists(path):
            raise PileError(f"neither a file, a folder nor a pipe ({path})")
        else:
            self._add_matches(path)

    def _no_shards(self, path: Path) -> str:
        problem = "holds no" if path.exists() else "does not exist, and as a pattern it matches no"
        first = list(self.ignored.items())[:3]
        ignored = "".join(f"; ignored: {other}, {reason}" for other, reason in first)
        return f"{path} {problem} shards: {NAMES} are read{ignored}"

    def _add_matches(self, pattern: Path) -> None:
        if ".." in pattern.parts[_n_plain(pattern.parts) :]:
            raise ConfigError(f'a pattern with ".." after a wildcard; name the folder ({pattern})')
        for path in self._matches(pattern):
            if not _is_folder(path):
                self._add_file(path, pattern)
            else:
                self._folders.append((path, pattern))

    def _matches(self, pattern: Path) -> set[Path]:
        """The paths that match a pattern, as `glob` finds them, but errors of reading are raised."""
        matched = self.patterns.setdefault(pattern, {})
        found = {Path(pattern.anchor)}
        # A set for each component: neither a long pattern nor a repeated "**" multiplies the work.
        for number in range(len(Path(pattern.anchor).parts), len(pattern.parts)):
            part, is_last = pattern.parts[number], number == len(pattern.parts) - 1
            matching = {path for folder in found for path in self._matches_of(part, folder, is_last)}
            # What "**" matched may be all of it, or have more folders below.
            for folder in found | matching if part == "**" else found:
                if identity := files.identity(folder):
                    matched.setdefault(identity, set()).add(number)
            found = matching
        return found

    def _matches_of(self, part: str, folder: Path, is_last: bool) -> Iterator[Path]:
        """The paths in a folder that match one component of a pattern, except scratch folders of jobs."""
        if not glob.has_magic(part):
            path = folder / part
            if _is_folder(path) or (is_last and os.path.lexists(path)):
                yield path
        elif part == "**":
            yield from self._folders_in(folder)
        else:
            for path in folder.iterdir():
                if _fits(path.name, part) and (is_last or _is_folder(path)) and not self._is_scratch(path):
                    yield path

    def _folders_in(self, folder: Path) -> Iterator[Path]:
        """A folder and all its subfolders, each once, except hidden ones and scratch folders of jobs."""
        walked = set()
        stack = [folder]
        while stack:
            path = stack.pop()
            identity = path.stat()
            if (identity.st_dev, identity.st_ino) in walked:
                continue
            walked.add((identity.st_dev, identity.st_ino))
            yield path
            for entry in sorted(path.iterdir(), key=os.fsencode, reverse=True):
                if _fits(entry.name, "**") and _is_folder(entry) and not self._is_scratch(entry):
                    stack.append(entry)

    def _is_scratch(self, path: Path) -> bool:
        """Whether a path is a scratch folder of a job, which is then ignored."""
        if not (path.name.endswith(SCRATCH_SUFFIX) and path.is_dir()):
            return False
        self.ignored[path] = "a folder in which a job works"
        return True

    def _walk(self) -> None:
        """Walks the folders, links last: a folder that is also linked is read under its own name."""
        while self._folders:
            folders = sorted(self._folders, key=lambda item: os.fsencode(item[0]))
            self._folders = []
            for is_link in (False, True):
                for folder, source in folders:
                    if folder.is_symlink() == is_link:
                        self._walk_one(folder, source)

    def _walk_one(self, top: Path, source: Path) -> None:
        stack = [top]
        while stack:
            folder = stack.pop()
            found = folder.stat()
            if (found.st_dev, found.st_ino) in self.walked:
                self._matched.add(source)
                if folder.is_symlink():
                    self.ignored[folder] = "a folder that is read under another name"
                continue
            self.walked.add((found.st_dev, found.st_ino))
            for path in sorted(folder.iterdir(), key=os.fsencode):
                if not _is_folder(path):
                    self._add_file(path, source)
                elif self._is_scratch(path):
                    continue
                elif _is_of_signatures(path):
                    self.ignored[path] = "a folder of signatures"
                elif path.is_symlink():
                    self._folders.append((path, source))
                else:
                    stack.append(path)

    def _add_file(self, path: Path, source: Path, *, is_named: bool = False) -> None:
        if not path.is_file():
            self.ignored[path] = NO_FILE
        elif not (is_named or is_shard_name(path.name)):
            self.ignored[path] = NO_NAME
        elif kind := artifact(path):
            self.ignored[path] = f"{kind}, not a shard"
            # A shell that expands `folder/*` names artifacts too: they are no error.
            if is_named:
                self._matched.add(source)
        else:
            self.found.add(path)
            self._matched.add(source)


def _is_of_signatures(folder: Path) -> bool:
    """Whether the manifest of a folder says that it holds signatures, which are no shards."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    try:
        return manifest.read(folder / MANIFEST_FILE).kind == SIGNATURES
    except (PileError, OSError):
        return False


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder or a link to one. Raises PileError for a broken link."""
    if path.is_symlink():
        _refuse_broken(path)
    return path.is_dir()


def _refuse_broken(link: Path) -> None:
    try:
        link.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise PileError(
            f"a broken link, to {link.readlink()}; restore that or remove the link ({link})"
        ) from None
    except OSError as err:
        raise PileError(f"a link that cannot be followed: {err.strerror} ({link})") from err


def artifact(path: Path) -> str | None:
    """The kind of artifact that our commands wrote as this file, or None.

    Its manifest identifies it, or else its content: a shard has an object on each line, these files are one.
    """
    if kind := _kind_by_manifest(path):
        return f"a file of kind {kind} with a manifest"
    if kind := _kind_by_role(path):
        return kind
    if path.suffix.lower() != ".json" or path.stat().st_size > _ARTIFACT_BYTES:
        return None
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    if values.keys() == _INTERVENTIONS:
        return "a file of saved interventions"
    return next((name for name, keys in _ARTIFACTS.items() if keys <= values.keys()), None)


def _kind_by_manifest(path: Path) -> str | None:
    """The kind of artifact in the manifest `NAME.manifest.json` beside a file, or None."""
    beside = path.parent / (path.name + MANIFEST_SUFFIX)
    found = _manifest_that_lists(path, beside)
    return None if found is None else found.kind


def _kind_by_role(path: Path) -> str | None:
    """What a file is by its role in the manifest of its folder, if it is no shard there; else None."""
    if path.suffix.lower() not in (".parquet", ".json"):
        return None
    where = path.parent / MANIFEST_FILE
    return _beside_shards(where, files.version(where)).get(path.name) if where.is_file() else None


@lru_cache(maxsize=16)
def _beside_shards(where: Path, _version: object) -> dict[str, str]:
    """What the files are, by name, that a folder's manifest lists and that are no shards.

    A folder may have as many shards as its manifest has entries: it is read once for all of them.
    """
    try:
        outputs = manifest.read(where).outputs
    except (PileError, OSError):
        return {}
    roles = {entry["path"]: entry.get("role") for entry in outputs}
    return {path: BESIDE_SHARDS[role] for path, role in roles.items() if role in BESIDE_SHARDS}


def _manifest_that_lists(path: Path, where: Path) -> Manifest | None:
    """The manifest at `where`, if there is one that lists the file."""
    if not where.is_file():
        return None
    try:
        found = manifest.read(where)
    except (PileError, OSError):
        return None
    return found if any(entry["path"] == path.name for entry in found.outputs) else None
