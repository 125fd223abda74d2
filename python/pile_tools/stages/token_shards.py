"""Cuts a token file into shards named as Pythia's are, puts them together again, and checks them by hashes.

To read them nothing need be put together: `open_order` and `TokenSource` take the shards as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pile_tools import manifest, publish
from pile_tools.errors import ConfigError, FormatError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Request
from pile_tools.publish import Built, Target

#: Bytes of a shard in Pythia's data.
SHARD_BYTES = 5_000_000_000

_CHUNK_BYTES = 8 << 20
_SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5,})-of-(?P<last>\d{5,})\.bin")
_HASH = re.compile(r"[0-9a-fA-F]{64}")

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
    names = [f"{base}-{i:05}-of-{last:05}.bin" for i in range(last + 1)]

    def build(scratch: Path) -> Built:
        digest = hashlib.sha256()
        with path.open("rb") as tokens:
            for name in names:
                with (scratch / name).open("xb") as part:
                    _copy(tokens, min(shard_bytes, size - tokens.tell()), part, digest, on_bytes)
        return Built(names, {"bytes": size}, [{**inputs[0], "sha256": digest.hexdigest()}])

    inputs = [{"role": "tokens", "path": manifest.relative(path, folder), "bytes": size}]
    request = Request("token-shards", {"shard_bytes": shard_bytes}, inputs)
    target = Target.of(folder / f"{base}.shards{MANIFEST_SUFFIX}")
    publish.make(target, request, build, force=force, names=names)
    return [folder / name for name in names]


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
    sizes = [shard.stat().st_size for shard in shards]

    def build(scratch: Path) -> Built:
        checked = []
        with (scratch / output.name).open("xb") as whole:
            for shard, entry in zip(shards, inputs, strict=True):
                digest = hashlib.sha256()
                with shard.open("rb") as tokens:
                    _copy(tokens, entry["bytes"], whole, digest, on_bytes)
                checked.append({**entry, "sha256": digest.hexdigest()})
        return Built([output.name], {"bytes": sum(sizes)}, checked)

    inputs: list[Entry] = [
        {"role": "token-shard", "path": manifest.relative(shard, output.parent), "bytes": size}
        for shard, size in zip(shards, sizes, strict=True)
    ]
    request = Request("unshard", {}, inputs)
    # `NAME.manifest.json` would be a dataset's.
    target = Target.of(output.with_name(output.name + MANIFEST_SUFFIX))
    publish.make(target, request, build, force=force, names=[output.name])
    return shards


def read_hashes(path: Path) -> dict[str, str]:
    """SHA-256 by file name, of a list as `sha256sum` writes it or as Pythia's `shard_hashes.txt` is.

    Raises:
        FormatError: A line is not a name and a hash.
    """
    hashes = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) == 2 and _HASH.fullmatch(words[0]):
            words.reverse()
        if len(words) != 2 or not _HASH.fullmatch(words[1]):
            raise FormatError(f"line {number} is not a name and its SHA-256: {line[:80]!r} ({path})")
        hashes[Path(words[0].removeprefix("*")).name] = words[1].lower()
    if not hashes:
        raise FormatError(f"holds no hashes ({path})")
    return hashes


def _copy(tokens: IO[bytes], n: int, to: IO[bytes], digest: hashlib._Hash, on_bytes: OnBytes) -> None:
    """Copies the next `n` bytes of a token file and adds them to a digest."""
    while n > 0:
        chunk = tokens.read(min(n, _CHUNK_BYTES))
        if not chunk:
            raise FormatError(f"ends at byte {tokens.tell()}, {n} more were there before ({tokens.name})")
        to.write(chunk)
        digest.update(chunk)
        n -= len(chunk)
        on_bytes(len(chunk))
