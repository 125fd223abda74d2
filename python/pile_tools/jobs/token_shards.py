"""Splits a token file into shards named as Pythia's, joins them again, and reads lists of their checksums.

Shards need not be joined to be read: `open_order` and `TokenSource` read them directly.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pile_tools import _core, checked, manifest, publish
from pile_tools.errors import ConfigError, FormatError
from pile_tools.manifest import MANIFEST_SUFFIX, SHA256_DIGITS, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.texts import read_lines
from pile_tools.terminal import counted
from pile_tools.tokens import datasets

#: Bytes of a shard of Pythia's data.
SHARD_BYTES = 5_000_000_000

#: Maximum shards of a file.
MAX_SHARDS = 100_000

_CHUNK_BYTES = 8 << 20
_SHARD = re.compile(r"(?P<base>.+)-(?P<number>[0-9]{5,})-of-(?P<last>[0-9]{5,})\.bin", re.DOTALL)
_HASH = r"[0-9a-fA-F]{64}"
#: The lines of `sha256sum`, with a backslash if characters of the name are escaped, and of `sha256sum --tag`.
_HASH_FIRST = re.compile(rf"(?P<escaped>\\?)(?P<hash>{_HASH})[ \t]+(?P<name>.+)")
_TAGGED = re.compile(rf"(?P<escaped>\\?)SHA256 \((?P<name>.+)\) = (?P<hash>{_HASH})")
_ESCAPE, _UNESCAPES = re.compile(r"\\[\\nr]"), {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}

#: The lines of Pythia's `shard_hashes.txt`.
#: Matched from the end, where the hash has a fixed length: a search from the start takes quadratic time.
_HASH_LAST = re.compile(rf"[ \t]{_HASH}\Z")

OnBytes = Callable[[int], object]


def find_token_shards(path: Path) -> list[tuple[Path, int]]:
    """The files that make up a token file, each with its size in bytes.

    Args:
        path: The token file, one of its shards, or the folder of the shards.

    Raises:
        FormatError: There are no such files, a shard is missing or has a wrong size, the shards are of
            several files, or the tokens do not end where the `.idx` beside them ends.
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
) -> tuple[Manifest, bool]:
    """Splits a token file into `folder/NAME-000NN-of-000MM.bin`, MM the last number.

    Returns the manifest, which lists the shards, and whether they were made now (True) or before (False).

    Args:
        path: The token file `NAME.bin`, or shards of it, which are split again.
        folder: The folder of the new shards.
        shard_bytes: Bytes of a shard; the last one may be smaller.
        force: Replace existing shards.
        on_bytes: Called with the number of bytes of each chunk when it is copied.

    Raises:
        ConfigError: `shard_bytes` gives no valid number of shards, or a shard would replace an input.
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
    return publish.make(target, request, build, force=force, names=names)


def unshard(
    path: Path, output: Path, *, force: bool = False, on_bytes: OnBytes = lambda n: None
) -> tuple[Manifest, bool]:
    """Joins the shards in a folder into one file; returns its manifest, and whether it was made now.

    Args:
        path: The folder of the shards, or one of them.
        output: The file to write.
        force: Replace an existing file.
        on_bytes: Called with the number of bytes of each chunk when it is copied.

    Raises:
        ConfigError: `output` is one of the shards, or has the name of one beside them.
        FormatError: A shard is missing or damaged, see `find_token_shards`.
        OutputExistsError: `output` exists and `force` is off.
        OSError: A file cannot be read or written.
    """
    shards = find_token_shards(path)
    if not _SHARD.fullmatch(shards[0][0].name):
        raise FormatError(f"no shards NAME-00000-of-000NN.bin here ({path})")
    _refuse_own(output, shards)
    _refuse_shard_name(output, shards)
    entries, tokens = _inputs(shards, output.parent), _Tokens(shards, on_bytes)
    size = sum(n_bytes for _, n_bytes in shards)

    def build(scratch: Path) -> Built:
        with _unreplaced(shards):
            tokens.copy(size, scratch / output.name)
        return Built([output.name], {"bytes": size}, tokens.checked(entries))

    request = Request("token-file", {}, entries)
    # `NAME.manifest.json` is the name of a dataset's manifest.
    target = Target.of(datasets.with_suffix(output, MANIFEST_SUFFIX))
    return publish.make(target, request, build, force=force, names=[output.name])


def read_hashes(path: Path) -> dict[str, str]:
    """The SHA-256 by file, with its folders, in a list of `sha256sum` or like Pythia's `shard_hashes.txt`.

    Raises:
        FormatError: A line is not a name and a hash, a name has two hashes, or there are none.
        PileError: The list is UTF-16 or UTF-32.
        OSError: The list cannot be read.
    """
    hashes: dict[str, str] = {}
    for number, data in enumerate(read_lines(path), start=1):
        # File names may have any bytes except a line feed.
        line = data.decode(errors="surrogateescape").strip(" \t")
        if not line:
            continue
        found = _name_and_hash(line)
        # No file has a NUL byte in its name, and Python refuses to look for one.
        if found is None or "\0" in line:
            raise FormatError(f"line {number:,} is not a name and its SHA-256: {line[:80]!r} ({path})")
        name, sha256 = found
        if hashes.setdefault(name, sha256) != sha256:
            raise FormatError(f"line {number:,} gives another SHA-256 of {name} than a line before ({path})")
    if not hashes:
        raise FormatError(f"holds no hashes ({path})")
    return hashes


def _name_and_hash(line: str) -> tuple[str, str] | None:
    """The name and the hash in a line without spaces around it; None if they are not there."""
    if found := _HASH_FIRST.fullmatch(line) or _TAGGED.fullmatch(line):
        name, sha256 = found["name"], found["hash"]
        if found["escaped"]:
            name = _ESCAPE.sub(lambda match: _UNESCAPES[match[0]], name)
    elif _HASH_LAST.search(line, max(0, len(line) - SHA256_DIGITS - 1)):
        name, sha256 = line[:-SHA256_DIGITS].rstrip(" \t"), line[-SHA256_DIGITS:]
    else:
        return None
    name = name.removeprefix("*")
    return (str(Path(name)), sha256.lower()) if name else None


def _refuse_own(output: Path, files: list[tuple[Path, int]]) -> None:
    """Raises ConfigError if an output is one of the files to read."""
    # The index beside the files tells where the tokens end.
    prefix = datasets.prefix_named(files[0][0])
    index = [] if prefix is None else [datasets.with_suffix(prefix, ".idx")]
    read = [path for path in (*(path for path, _ in files), *index) if path.exists()]
    if output.exists() and any(output.samefile(path) for path in read):
        raise ConfigError(f"the output is one of the inputs; write to another folder ({output})")


def _refuse_shard_name(output: Path, shards: list[tuple[Path, int]]) -> None:
    """Raises ConfigError if an output would pass for a shard in the folder that is read."""
    is_beside = output.parent.is_dir() and output.parent.samefile(shards[0][0].parent)
    if is_beside and _SHARD.fullmatch(output.name):
        raise ConfigError(
            f"has the name of a shard in the folder of the input; give another name or folder ({output})"
        )


@contextlib.contextmanager
def _unreplaced(files: list[tuple[Path, int]]) -> Iterator[None]:
    """Ensures that the files of a token file are not replaced while they are read.

    The dataset, its token shards and its token file have separate manifests, and any may list the files.
    """
    first = files[0][0]
    prefix = datasets.prefix_named(first) or first
    with contextlib.ExitStack() as stack:
        for path in datasets.manifest_paths(prefix):
            stack.enter_context(publish.reading(Target.of(path)))
        yield


def _inputs(files: list[tuple[Path, int]], folder: Path) -> list[Entry]:
    """The files of a token file as inputs of a manifest in `folder`."""
    return [
        {"role": "tokens", "path": manifest.relative(path, folder), "bytes": n_bytes}
        for path, n_bytes in files
    ]


class _Tokens:
    """The concatenated bytes of the files of a token file, read once and hashed by file."""

    def __init__(self, files: list[tuple[Path, int]], on_bytes: OnBytes) -> None:
        self._digests = [hashlib.sha256() for _ in files]
        self._chunks = self._read(files, on_bytes)
        #: Bytes of the last chunk that are not copied yet.
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
        """The entries of the files with the SHA-256 of the bytes that were read.

        Raises FormatError if a file grew.
        """
        # Finishes the last chunk: its file's size is checked, and progress is reported.
        next(self._chunks, None)
        return [
            {**entry, "sha256": digest.hexdigest()}
            for entry, digest in zip(entries, self._digests, strict=True)
        ]

    def _read(self, files: list[tuple[Path, int]], on_bytes: OnBytes) -> Iterator[bytes]:
        for (path, n_bytes), digest in zip(files, self._digests, strict=True):
            with checked.open_regular(path) as file:
                n_remaining = n_bytes
                while n_remaining:
                    chunk = file.read(min(n_remaining, _CHUNK_BYTES))
                    if not chunk:
                        n_read = n_bytes - n_remaining
                        raise FormatError(
                            f"ends at byte {n_read:,}, had {counted(n_bytes, 'byte')} before ({path})"
                        )
                    digest.update(chunk)
                    n_remaining -= len(chunk)
                    yield chunk
                    on_bytes(len(chunk))
                if (n_found := os.fstat(file.fileno()).st_size) != n_bytes:
                    raise FormatError(f"has {counted(n_found, 'byte')}, had {n_bytes:,} before ({path})")
