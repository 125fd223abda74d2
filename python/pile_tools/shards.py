"""Which files are the shards, and in which order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from pile_tools.errors import PileError

#: Names by which files in a folder are taken for shards.
SUFFIXES = (".jsonl", ".jsonl.zst")


def find_shards(places: Iterable[str | Path]) -> list[Path]:
    """The shards at some places, each once, sorted byte-wise by path: that order is the dataset's.

    Args:
        places: Files, folders (all shards below them) and globs.

    Raises:
        PileError: A place is not there, or there are no shards at it.
    """
    found = {path for place in places for path in _shards_at(Path(place))}
    return sorted(found, key=os.fsencode)


def _shards_at(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if place.is_dir():
        below = [path for path in place.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES)]
        return below or _none_at(place, "holds no")
    matched = [Path(path) for path in glob.glob(str(place), recursive=True) if Path(path).is_file()]
    return matched or _none_at(place, "is not there, and as a pattern it matches no")


def _none_at(place: Path, what: str) -> list[Path]:
    raise PileError(f"{place} {what} shards; .jsonl and .jsonl.zst files are read")
