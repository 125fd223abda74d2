"""Cuts a token file into shards named as Pythia's are, puts them together again, and checks them by hashes.

To read them nothing need be put together: `open_order` and `TokenSource` take the shards as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pile_tools import _core, manifest, publish
from pile_tools.errors import ConfigError, FormatError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Request
from pile_tools.publish import Built, Target
from pile_tools.read.texts import read_lines
from pile_tools.tokens import datasets

#: Bytes of a shard in Pythia's data.
SHARD_BYTES = 5_000_000_000

#: Shards of a file, at most.
MAX_SHARDS = 100_000

_CHUNK_BYTES = 8 << 20
_SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5,})-of-(?P<last>\d{5,})\.bin")
_HASH = r"[0-9a-fA-F]{64}"
#: As `sha256sum` writes it, and as Pythia's `shard_hashes.txt` is.
_HASH_LINES = (
    re.compile(rf"(?P<hash>{_HASH})[ \t]+\*?(?P<name>.+)"),
    re.compile(rf"\*?(?P<name>.+?)[ \t]+(?P<hash>{_HASH})[ \t]*"),
)

OnBytes = Callable[[int], object]


def find_token_shards(path: Path) -> list[tuple[Path, int]]:
    """The files of a token file with the bytes of each, by their folder, name, or one of them.

    Raises:
        FormatError: None are there, one is missing or of a wrong size, they are of several files, or do not
            end where the `.idx` beside them ends.
        OSError: A file cannot be read.
    """
    return [(Path(name), n_bytes) for name, n_bytes in _core.token_files(path)]


def shard(
    path: Path,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    on_bytes: OnBytes = lambda n: None,
) -> list[Path]:
    """Cuts `NAME.bin` into `folder/NAME-000NN-of-000MM.bin` of `shard_bytes`; MM is the last one's number.

    Shards are cut anew in the same way.

    Raises:
        FormatError: The tokens do not end where the `.idx` beside them ends, or a shard is damaged.
        OutputExistsError: A shard exists and `force` is off.
        OSError: A file cannot be read or written.
    """
    if shard_bytes < 1:
        raise ConfigError(f"bytes must be at least 1, got {shard_bytes}")
    files = find_token_shards(path)
    size = sum(n_bytes for _, n_bytes in files)
    last = max(-(-size // shard_bytes) - 1, 0)
    if last >= MAX_SHARDS:
        raise ConfigError(f"{last + 1:,} shards of {shard_bytes:,} bytes; a file has at most {MAX_SHARDS:,}")
    first = files[0][0].name
    named = _SHARD.fullmatch(first)
    base = named["base"] if named else first.removesuffix(".bin")
    names = [f"{base}-{i:05}-of-{last:05}.bin" for i in range(last + 1)]
    for name in names:
        _refuse_own(folder / name, files)
    entries, tokens = _inputs(files, folder), _Tokens(files, on_bytes)

    def build(scratch: Path) -> Built:
        with _unreplaced(files):
            for i, name in enumerate(names):
                tokens.copy(min(shard_bytes, size - i * shard_bytes), scratch / name)
        return Built(names, {"bytes": size}, tokens.checked(entries))

    request = Request("token-shards", {"shard_bytes": shard_bytes}, entries)
    target = Target.of(datasets.with_suffix(folder / base, datasets.SHARDS + MANIFEST_SUFFIX))
    publish.make(target, request, build, force=force, names=names)
    return [folder / name for name in names]


def unshard(
    path: Path, output: Path, *, force: bool = False, on_bytes: OnBytes = lambda n: None
) -> list[tuple[Path, int]]:
    """Puts the shards in a folder together as one file; returns them with their bytes.

    Raises:
        FormatError: A shard is missing or damaged, see `find_token_shards`.
        OutputExistsError: `output` exists and `force` is off.
        OSError: A file cannot be read or written.
    """
    shards = find_token_shards(path)
    if not _SHARD.fullmatch(shards[0][0].name):
        raise FormatError(f"no shards NAME-00000-of-000NN.bin here ({path})")
    _refuse_own(output, shards)
    entries, tokens = _inputs(shards, output.parent), _Tokens(shards, on_bytes)
    size = sum(n_bytes for _, n_bytes in shards)

    def build(scratch: Path) -> Built:
        with _unreplaced(shards):
            tokens.copy(size, scratch / output.name)
        return Built([output.name], {"bytes": size}, tokens.checked(entries))

    request = Request("token-file", {}, entries)
    # `NAME.manifest.json` would be a dataset's.
    target = Target.of(datasets.with_suffix(output, MANIFEST_SUFFIX))
    publish.make(target, request, build, force=force, names=[output.name])
    return shards


def read_hashes(path: Path) -> dict[str, str]:
    """SHA-256 by file name, of a list as `sha256sum` writes it or as Pythia's `shard_hashes.txt` is.

    Raises:
        FormatError: A line is not a name and a hash.
        PileError: The list is UTF-16 or UTF-32.
    """
    hashes = {}
    for number, written in enumerate(read_lines(path), start=1):
        # Names may hold any bytes but a line feed.
        line = written.decode(errors="surrogateescape").strip(" \t")
        if not line:
            continue
        found = next((match for form in _HASH_LINES if (match := form.fullmatch(line))), None)
        if found is None:
            raise FormatError(f"line {number} is not a name and its SHA-256: {line[:80]!r} ({path})")
        hashes[Path(found["name"]).name] = found["hash"].lower()
    if not hashes:
        raise FormatError(f"holds no hashes ({path})")
    return hashes


def _refuse_own(output: Path, files: list[tuple[Path, int]]) -> None:
    """Refuses to write over what is still to be read. Raises ConfigError."""
    if output.exists() and any(output.samefile(path) for path, _ in files):
        raise ConfigError(f"this is one of the files that are read; write to another folder ({output})")


@contextlib.contextmanager
def _unreplaced(files: list[tuple[Path, int]]) -> Iterator[None]:
    """Reads the files of a token file as those of one artifact, whichever of a dataset's wrote them."""
    first = files[0][0]
    prefix = datasets.prefix_named(first) or first
    with contextlib.ExitStack() as stack:
        for path in datasets.manifest_paths(prefix):
            stack.enter_context(publish.reading(Target.of(path)))
        yield


def _inputs(files: list[tuple[Path, int]], folder: Path) -> list[Entry]:
    """The files of a token file as inputs of an artifact in `folder`."""
    return [
        {"role": "tokens", "path": manifest.relative(path, folder), "bytes": n_bytes}
        for path, n_bytes in files
    ]


class _Tokens:
    """The bytes of a token file in one or more files, read once and hashed."""

    def __init__(self, files: list[tuple[Path, int]], on_bytes: OnBytes) -> None:
        self._digests = [hashlib.sha256() for _ in files]
        self._chunks = self._read(files, on_bytes)
        self._rest = memoryview(b"")

    def copy(self, n: int, output: Path) -> None:
        """Writes the next `n` bytes to a new file."""
        with output.open("xb") as file:
            while n > 0:
                chunk = self._rest or memoryview(next(self._chunks))
                file.write(chunk[:n])
                self._rest = chunk[n:]
                n -= min(n, len(chunk))

    def checked(self, entries: list[Entry]) -> list[Entry]:
        """The files as inputs, with the checksums of what was read."""
        return [
            {**entry, "sha256": digest.hexdigest()}
            for entry, digest in zip(entries, self._digests, strict=True)
        ]

    def _read(self, files: list[tuple[Path, int]], on_bytes: OnBytes) -> Iterator[bytes]:
        for (path, n_bytes), digest in zip(files, self._digests, strict=True):
            with path.open("rb") as file:
                left = n_bytes
                while left:
                    chunk = file.read(min(left, _CHUNK_BYTES))
                    if not chunk:
                        what = f"ends at byte {n_bytes - left}, {n_bytes} were there before"
                        raise FormatError(f"{what} ({path})")
                    digest.update(chunk)
                    left -= len(chunk)
                    yield chunk
                    on_bytes(len(chunk))
