"""Cuts a token file into shards named as Pythia's are, puts them together again, and checks them by hashes.

To read them nothing need be put together: `open_order` and `TokenSource` take the shards as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from pile_tools.errors import ConfigError, FormatError, OutputExistsError
from pile_tools.texts import read_lines

#: Bytes of a shard in Pythia's data.
SHARD_BYTES = 5_000_000_000

_CHUNK_BYTES = 64 << 20
_SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5,})-of-(?P<last>\d{5,})\.bin")
_HASH = r"[0-9a-fA-F]{64}"
#: As `sha256sum` writes it, and as Pythia's `shard_hashes.txt` is.
_HASH_LINES = (
    re.compile(rf"(?P<hash>{_HASH})[ \t]+\*?(?P<name>.+)"),
    re.compile(rf"\*?(?P<name>.+?)[ \t]+(?P<hash>{_HASH})[ \t]*"),
)

OnBytes = Callable[[int], object]


def find_token_shards(path: Path) -> list[Path]:
    """The shards of one file, in order, by their folder or one of them.

    Raises:
        FormatError: None are there, one is missing, or they are of several files.
    """
    folder = path if path.is_dir() else path.parent
    named = _SHARD.fullmatch(path.name)
    found = {}
    for file in sorted(folder.glob("*.bin")):
        parts = _SHARD.fullmatch(file.name)
        if parts and (named is None or parts["base"] == named["base"]):
            found[file.name] = parts
    if not found:
        raise FormatError(f"no shards NAME-00000-of-000NN.bin here ({folder})")
    first = next(iter(found.values()))
    expected = [f"{first['base']}-{i:05}-of-{first['last']}.bin" for i in range(int(first["last"]) + 1)]
    missing = [name for name in expected if name not in found]
    if missing:
        raise FormatError(f"{missing[0]} is missing of {len(expected)} shards ({folder})")
    if len(found) != len(expected):
        raise FormatError(f"shards of more than one file; name one of them ({folder})")
    return [folder / name for name in expected]


def shard(
    path: Path,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    on_bytes: OnBytes = lambda n: None,
) -> list[Path]:
    """Cuts `NAME.bin` into `folder/NAME-000NN-of-000MM.bin` of `shard_bytes`; MM is the last one's number.

    Raises:
        OutputExistsError: A shard exists and `force` is off.
        OSError: A file cannot be read or written.
    """
    if shard_bytes < 1:
        raise ConfigError(f"bytes must be at least 1, got {shard_bytes}")
    size = path.stat().st_size
    last = max(-(-size // shard_bytes) - 1, 0)
    base = path.name.removesuffix(".bin")
    outputs = [folder / f"{base}-{i:05}-of-{last:05}.bin" for i in range(last + 1)]
    for output in outputs:
        _refuse(output, force)
    folder.mkdir(parents=True, exist_ok=True)
    for i, output in enumerate(outputs):
        start = i * shard_bytes
        _write([(path, start, min(shard_bytes, size - start))], output, on_bytes)
    return outputs


def unshard(
    path: Path, output: Path, *, force: bool = False, on_bytes: OnBytes = lambda n: None
) -> list[Path]:
    """Puts the shards in a folder together as one file; returns them.

    Raises:
        FormatError: A shard is missing.
        OutputExistsError: `output` exists and `force` is off.
        OSError: A file cannot be read or written.
    """
    shards = find_token_shards(path)
    _refuse(output, force)
    output.parent.mkdir(parents=True, exist_ok=True)
    _write([(shard, 0, shard.stat().st_size) for shard in shards], output, on_bytes)
    return shards


def read_hashes(path: Path) -> dict[str, str]:
    """SHA-256 by file name, of a list as `sha256sum` writes it or as Pythia's `shard_hashes.txt` is.

    Raises:
        FormatError: A line is not a name and a hash.
        PileError: The list is UTF-16 or UTF-32.
    """
    hashes = {}
    for number, written in enumerate(read_lines(path), start=1):
        line = written.decode(errors="backslashreplace").strip(" \t")
        if not line:
            continue
        found = next((match for form in _HASH_LINES if (match := form.fullmatch(line))), None)
        if found is None:
            raise FormatError(f"line {number} is not a name and its SHA-256: {line[:80]!r} ({path})")
        hashes[Path(found["name"]).name] = found["hash"].lower()
    if not hashes:
        raise FormatError(f"holds no hashes ({path})")
    return hashes


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
