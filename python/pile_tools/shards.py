"""Which files are the shards, in which order, and what of their records is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import manifest
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import Entry

#: Names by which files in a folder are taken for shards.
SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet", ".txt", ".txt.zst", ".txt.gz")

#: The place that stands for standard input.
STANDARD_INPUT = Path("-")


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

    def __post_init__(self) -> None:
        if self.on_bad_record not in ("error", "skip"):
            raise ConfigError(f"on-bad-record must be error or skip, got {self.on_bad_record}")

    @property
    def skips(self) -> bool:
        """Whether bad records are left out."""
        return self.on_bad_record == "skip"


def find_shards(places: Iterable[str | Path]) -> list[Path]:
    """The shards at some places, each once, sorted byte-wise by path: that order is the dataset's.

    Args:
        places: Files, folders (all shards below them) and globs, or just `-`: standard input.

    Raises:
        PileError: A place is not there, or there are no shards at it.
        ConfigError: Standard input and other places.
    """
    paths = [Path(place) for place in places]
    if STANDARD_INPUT in paths:
        if len(paths) > 1:
            raise ConfigError("standard input (-) cannot be read together with other shards")
        return paths
    found = {path for place in paths for path in _shards_at(place)}
    return sorted(found, key=os.fsencode)


def entries(shards: Iterable[Path], folder: Path) -> list[Entry]:
    """The shards as inputs in a manifest in `folder`; of standard input nothing is known beforehand."""
    return [
        {"role": "shard", "path": "-"}
        if path == STANDARD_INPUT
        else {"role": "shard", "path": manifest.relative(path, folder), "bytes": path.stat().st_size}
        for path in shards
    ]


def _shards_at(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if place.is_dir():
        below = [path for path in place.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES)]
        return below or _none_at(place, "holds no")
    matched = [Path(path) for path in glob.glob(str(place), recursive=True) if Path(path).is_file()]
    return matched or _none_at(place, "is not there, and as a pattern it matches no")


def _none_at(place: Path, what: str) -> list[Path]:
    raise PileError(f"{place} {what} shards; {', '.join(SUFFIXES[:-1])} and {SUFFIXES[-1]} files are read")
