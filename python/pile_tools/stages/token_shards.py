"""Cuts a token file into shards named as Pythia's are, puts them together again, and checks them by hashes.

To read them nothing need be put together: `open_order` and `TokenSource` take the shards as they are.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from pile_tools import _core
from pile_tools.errors import ConfigError, FormatError, OutputExistsError

#: Bytes of a shard in Pythia's data.
SHARD_BYTES = 5_000_000_000

#: Shards of a file, at most.
MAX_SHARDS = 100_000

_CHUNK_BYTES = 64 << 20
_SHARD = re.compile(r"(?P<base>.+)-[0-9]{5,}-of-[0-9]{5,}\.bin")
#: A line of `sha256sum`, or of Pythia's list.
_SUM = re.compile(
    r"(?P<hash>[0-9a-fA-F]{64})\s+\*?(?P<name>.+?)\s*|(?P<named>.+?)\s+(?P<of_name>[0-9a-fA-F]{64})\s*"
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
    outputs = [folder / f"{base}-{i:05}-of-{last:05}.bin" for i in range(last + 1)]
    for output in outputs:
        _refuse_own(output, files)
        _refuse(output, force)
    folder.mkdir(parents=True, exist_ok=True)
    for i, output in enumerate(outputs):
        start = i * shard_bytes
        _write(_parts(files, start, min(start + shard_bytes, size)), output, on_bytes)
    return outputs


def _parts(files: list[tuple[Path, int]], start: int, end: int) -> list[tuple[Path, int, int]]:
    """The runs of files (path, first byte, bytes) that hold bytes `start` to `end` of all together."""
    parts, first = [], 0
    for path, n_bytes in files:
        low, high = max(start, first), min(end, first + n_bytes)
        if low < high:
            parts.append((path, low - first, high - low))
        first += n_bytes
    return parts


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
    _refuse(output, force)
    output.parent.mkdir(parents=True, exist_ok=True)
    _write([(shard, 0, n_bytes) for shard, n_bytes in shards], output, on_bytes)
    return shards


def sha256(files: list[tuple[Path, int]]) -> str:
    """SHA-256 in hexadecimal of files one after the other, as of the one file that they were cut from."""
    digest = hashlib.sha256()
    for path, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_hashes(path: Path) -> dict[str, str]:
    """SHA-256 by file name, of a list as `sha256sum` writes it or as Pythia's `shard_hashes.txt` is.

    Raises:
        FormatError: A line is not a name and a hash.
    """
    hashes = {}
    # Names may hold any bytes but a line feed.
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        found = _SUM.fullmatch(line.strip("\r"))
        if found is None:
            raise FormatError(f"line {number} is not a name and its SHA-256: {line[:80]!r} ({path})")
        hashes[Path(found["name"] or found["named"]).name] = (found["hash"] or found["of_name"]).lower()
    if not hashes:
        raise FormatError(f"holds no hashes ({path})")
    return hashes


def _refuse_own(output: Path, files: list[tuple[Path, int]]) -> None:
    """Refuses to write over what is still to be read. Raises ConfigError."""
    if output.exists() and any(output.samefile(path) for path, _ in files):
        raise ConfigError(f"this is one of the files that are read; write to another folder ({output})")


def _refuse(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise OutputExistsError(f"exists; --force replaces it ({output})")


def _write(parts: list[tuple[Path, int, int]], output: Path, on_bytes: OnBytes) -> None:
    """Copies runs of files (path, first byte, bytes) into one, by rename; in the kernel where it can."""
    temporary = output.with_name(output.name + ".tmp")
    try:
        with temporary.open("wb") as to:
            for path, start, n in parts:
                _copy(path, start, n, to.fileno(), on_bytes)
            to.flush()
            os.fsync(to.fileno())
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(path: Path, start: int, n: int, to: int, on_bytes: OnBytes) -> None:
    with path.open("rb") as file:
        end = start + n
        while start < end:
            copied = os.sendfile(to, file.fileno(), start, min(end - start, _CHUNK_BYTES))
            if copied == 0:
                raise FormatError(f"ends at byte {start}, {end} were there before ({path})")
            start += copied
            on_bytes(copied)
