"""Whether a run's data are the bytes that their manifests name, found before the first step.

The arrays of the order are read at every start: a shuffle index that is mostly zeros trains without a word.
Token files, whole or in shards, are read once a run; size, time of change and inode of those that were found
right are recorded in the run's folder, so that hundreds of gigabytes are not read at every start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pile_tools import checked, files, manifest
from pile_tools.errors import FormatError, VerifyError
from pile_tools.jobs.token_shards import find_token_shards
from pile_tools.manifest import Entry, Manifest
from pile_tools.order.order import Order
from pile_tools.terminal import counted
from pile_tools.tokens import datasets

#: Called with the number of bytes read so far.
OnBytes = Callable[[int], object]

_CHUNK_BYTES = 1 << 22

#: The files that have the bytes of an array or of tokens, in order, and what a manifest says of the bytes.
_Listed = tuple[tuple[Path, ...], Entry]


class DataCheck:
    """The files of an order and its datasets.

    Args:
        order: The order.
        notes: Where verified token files are recorded.
        scratch: Where the notes are written before they are renamed, see `files.write_atomically`.

    Attributes:
        unverified: Datasets that no manifest of ours lists, which nothing can be compared with.

    Raises:
        FormatError: A manifest is damaged, or a token file is not here and not all of its shards.
        VerifyError: A manifest was changed after it was written.
    """

    def __init__(self, order: Order, notes: Path, *, scratch: Path | None = None) -> None:
        self._notes, self._scratch = notes, scratch
        self._known = _read_notes(notes)
        records = list(_records(order.manifest)) if order.manifest else []
        self.unverified: list[Path] = [] if records else [order.path]
        self._arrays: list[_Listed] = [listed for record in records for listed in _listed(record)]
        self._tokens: list[_Listed] = []
        for prefix in _datasets(records):
            found = datasets.manifest_of(prefix)
            if found is None:
                self.unverified.append(prefix)
            else:
                self._tokens += _listed(_intact(found))
        self._new = [
            (paths, entry)
            for paths, entry in self._tokens
            if not all(self._is_known(path, entry) for path in paths)
        ]

    @property
    def n_bytes(self) -> int:
        """Bytes that `run` reads."""
        return sum(entry["bytes"] for _, entry in [*self._arrays, *self._new])

    def run(self, on_bytes: OnBytes = lambda n_bytes: None) -> None:
        """Compares the files with their manifests.

        Raises:
            VerifyError: A file is missing or has other bytes.
            OSError: A file cannot be read.
        """
        done = 0
        for paths, entry in [*self._arrays, *self._new]:
            stamps = _verify(paths, entry, lambda n, before=done: on_bytes(before + n))  # type: ignore[misc]
            done += entry["bytes"]
            for path, before in zip(paths, stamps, strict=True):
                if (paths, entry) in self._new and before == _stamp(path):
                    self._known[os.path.realpath(path)] = [*before, entry["sha256"]]
        if self._new:
            self._notes.parent.mkdir(exist_ok=True)
            notes = json.dumps(self._known, indent=1) + "\n"
            files.write_atomically(self._notes, notes, scratch=self._scratch)

    def _is_known(self, path: Path, entry: Entry) -> bool:
        with suppress(OSError):
            return self._known.get(os.path.realpath(path)) == [*_stamp(path), entry["sha256"]]
        return False


def _stamp(path: Path) -> list[int]:
    """What changes when a file is written or replaced: size, time of change, inode."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read_notes(path: Path) -> dict[str, Any]:
    """The recorded checks; none if the file is damaged, which only costs another reading."""
    with suppress(OSError, FormatError):
        if not path.is_symlink():
            return dict(checked.read_json(path).values)
    return {}


def _records(record: Manifest) -> Iterator[Manifest]:
    """An order's manifest, then the manifest of each order that it is an intervention on."""
    seen: set[str] = set()
    while (real := os.path.realpath(record.path)) not in seen:
        seen.add(real)
        yield _intact(record)
        base = record.input("order")
        if base is None:
            return
        path = manifest.input_path(record, base)
        if "sha256" in base and files.sha256(path) != base["sha256"]:
            raise VerifyError(f"not the order that the intervention was made on ({path})")
        record = manifest.read(path)
    raise FormatError(f"an order that is an intervention on itself ({record.path})")


def _intact(found: Manifest) -> Manifest:
    """A manifest whose own checksum is right: it says which steps there are, and what the right bytes are."""
    if not manifest.is_intact(found.path):
        raise VerifyError(f"was changed after it was written ({found.path})")
    return found


def _datasets(records: list[Manifest]) -> list[Path]:
    """The prefixes of all datasets, each once."""
    paths = [manifest.input_path(r, entry) for r in records for entry in r.inputs if "fingerprint" in entry]
    return list(dict.fromkeys(paths))


def _listed(found: Manifest) -> list[_Listed]:
    return [(_files_of(manifest.output_path(found, entry)), entry) for entry in found.outputs]


def _files_of(path: Path) -> tuple[Path, ...]:
    """The files with the bytes of a listed one: itself, or the shards that are read in its place."""
    if path.suffix != ".bin" or os.path.lexists(path):
        return (path,)
    return tuple(found for found, _ in find_token_shards(path.parent / path.name.removesuffix(".bin")))


def _verify(paths: tuple[Path, ...], entry: Entry, on_bytes: OnBytes) -> list[list[int]]:
    """Compares the bytes of files with their manifest's entry; returns the stamps from before the reading.

    Raises:
        VerifyError: A file is missing, or together they have another size or checksum.
        OSError: A file cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    where = f"{paths[0]}" if len(paths) == 1 else f"{paths[0]} and {counted(len(paths) - 1, 'more shard')}"
    try:
        stamps = [_stamp(path) for path in paths]
        n_bytes = sum(size for size, *_ in stamps)
        if n_bytes != entry["bytes"]:
            raise VerifyError(f"{counted(n_bytes, 'byte')}, its manifest says {entry['bytes']:,} ({where})")
        for path in paths:
            with checked.open_regular(path) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    done += len(chunk)
                    on_bytes(done)
    except FileNotFoundError as err:
        raise VerifyError(f"missing of the run's data ({err.filename})") from None
    if digest.hexdigest() != entry["sha256"]:
        raise VerifyError(f"not the bytes that its manifest names: damaged or replaced ({where})")
    return stamps
