"""Divides the making of a dataset into parts for several jobs or machines, and joins their manifests.

The shards, in order, are divided into n consecutive groups. Part i is the dataset of group i in
`PREFIX.parts/`. Its manifest identifies the whole, so that only parts of one job are joined, and all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pile_tools import manifest, publish
from pile_tools.config import Settings, fingerprint
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.read.shards import has_stream
from pile_tools.tokens import datasets

#: The settings that a part's manifest has in addition to those of the whole.
PART, WHOLE = "part", "part_of"

#: The setting in which parts may differ: it has no effect on a part without bad records.
LENIENCE = "on_bad_record"

#: The setting for the maximum length of a record, recorded only if it is not the default.
LONGEST = "max_record"

Summary: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Part `number` of `n_parts`, counted from 1."""

    number: int
    n_parts: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.n_parts:
            raise ConfigError(f"parts are numbered from 1 to {self.n_parts}, got {self.number}")

    def __str__(self) -> str:
        return f"{self.number}/{self.n_parts}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part written as `3/16`. Raises ConfigError."""
        # More digits are no number of shards, and `int` raises another error for thousands of them.
        if found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text):
            return cls(int(found[1]), int(found[2]))
        raise ConfigError(f"expected i/n, as in 3/16, got {text[:40]!r}")

    def of(self, shards: Sequence[Path]) -> Sequence[Path]:
        """The shards of this part; the parts differ by at most one shard. Raises ConfigError."""
        if has_stream(shards):
            raise ConfigError("standard input and pipes cannot be divided into parts")
        if len(shards) < self.n_parts:
            raise ConfigError(f"{len(shards)} shards cannot be divided into {self.n_parts} parts")
        start, end = (len(shards) * i // self.n_parts for i in (self.number - 1, self.number))
        return shards[start:end]

    def prefix(self, whole: Path) -> Path:
        """The prefix of this part of the dataset at `whole`."""
        return folder(whole) / f"part-{self.number:05}-of-{self.n_parts:05}"

    def settings(self, whole: Request) -> Settings:
        """The settings that this part's manifest has in addition to those of the whole.

        The fingerprint of the whole leaves out the sizes of shards: a repaired shard invalidates only its own
        part.
        """
        named = [{k: v for k, v in e.items() if k != "bytes"} for e in whole.inputs]
        settings = {k: v for k, v in whole.settings.items() if k != LENIENCE}
        return {PART: str(self), WHOLE: fingerprint({"settings": settings, "inputs": named})}


def folder(whole: Path) -> Path:
    """The folder of the parts of the dataset at `whole`."""
    return whole.parent / (whole.name + ".parts")


def finished_parts(whole: Manifest, prefix: Path, n_parts: int) -> list[Manifest]:
    """The manifests of the parts, of `n_parts`, that the finished dataset at `prefix` was joined from."""
    request = Request(whole.kind, whole.settings, _requested(whole.inputs))
    found = []
    for number in range(1, n_parts + 1):
        part = Part(number, n_parts)
        path = datasets.with_suffix(part.prefix(prefix), MANIFEST_SUFFIX)
        if path.exists():
            own, expected = manifest.read(path), part.settings(request)
            found += [own] if {**own.settings, **expected} == own.settings else []
    return found


def remove(prefix: Path, joined: Sequence[Manifest]) -> None:
    """Removes parts of the dataset at `prefix` that were joined, and their folder if it is then empty."""
    for part in joined:
        publish.remove(part)
    with contextlib.suppress(OSError):
        folder(prefix).rmdir()


def whole_of(
    parts: Sequence[Manifest], output: Path, lenience: str | None = None
) -> tuple[Request, list[Entry], list[Manifest]]:
    """The request and the inputs of the whole, as a single run at `output` has them, and the sorted parts.

    `lenience` is what is requested for bad records, by default what a lenient part has.

    Raises:
        PileError: The parts are of different jobs or divisions, or parts are missing or given twice.
    """
    numbered: dict[int, Manifest] = {}
    first = parts[0]
    n_parts = _part_of(first).n_parts
    for found in parts:
        if found.settings[WHOLE] != first.settings[WHOLE]:
            raise PileError(
                f"{found.path} is a part of another job than {first.path}: of other shards or settings"
            )
        part = _part_of(found)
        # `WHOLE` does not contain the number of parts: parts 1/2 and 2/3 agree in it, but lack shards.
        if part.n_parts != n_parts:
            raise PileError(
                f"{found.path} is part {part} and {first.path} is part {first.settings[PART]} of one job; "
                "give parts of the same division"
            )
        if part.number in numbered:
            raise PileError(f"part {part} is given twice; give each part once ({found.path})")
        numbered[part.number] = found
    if n_missing := n_parts - len(numbered):
        # A damaged manifest may name a huge number of parts: only those that are shown are listed.
        missing = (str(Part(i, n_parts)) for i in range(1, n_parts + 1) if i not in numbered)
        some = ", ".join(itertools.islice(missing, 20)) + (", ..." if n_missing > 20 else "")
        raise PileError(f"{n_missing} of {n_parts} parts are missing: {some} ({first.folder})")
    ordered = [numbered[i] for i in range(1, n_parts + 1)]
    inputs = [entry for entry in rebased(first, output.parent) if entry["role"] != "shard"]
    for found in ordered:
        inputs += [entry for entry in rebased(found, output.parent) if entry["role"] == "shard"]
    # The settings of a lenient part, if there is one: a part that skipped nothing is the same with them.
    lenient = next((found for found in ordered if found.settings.get(LENIENCE) == "skip"), first)
    settings = {name: value for name, value in lenient.settings.items() if name not in (PART, WHOLE)}
    if lenience is not None:
        settings[LENIENCE] = lenience
    return Request(first.kind, settings, _requested(inputs)), inputs, ordered


def _part_of(found: Manifest) -> Part:
    """The part that a manifest is of. Raises FormatError."""
    try:
        return Part.parse(found.settings[PART])
    except ConfigError as err:
        raise FormatError(f"{err} ({found.path}, settings, {PART})") from err


def _requested(inputs: Sequence[Entry]) -> list[Entry]:
    """A manifest's inputs as its request has them: without checksums of shards, which were not read then."""
    return [
        {k: v for k, v in entry.items() if k != "sha256"} if entry["role"] == "shard" else entry
        for entry in inputs
    ]


def rebased(found: Manifest, folder: Path) -> list[Entry]:
    """A manifest's inputs with their paths relative to another folder."""
    return [
        {**entry, "path": manifest.relative(manifest.input_path(found, entry), folder)}
        for entry in found.inputs
    ]


def joined(summaries: Sequence[Summary]) -> Summary:
    """The summary of the whole: counts of the parts added, lists concatenated, subsets merged by name."""
    whole: Summary = {}
    for part in summaries:
        before = whole.get("n_documents", 0)
        for name, value in part.items():
            if name == "shards":
                value = [{**shard, "first_document": before + shard["first_document"]} for shard in value]
            if name not in whole:
                whole[name] = value
            elif name == "subsets":
                whole[name] = _subsets(whole[name], value)
            elif name == "passed_over":
                whole[name] = _passed_over(whole[name], value)
            elif isinstance(value, list) or name.startswith("n_"):
                whole[name] = whole[name] + value
    return whole


def _passed_over(whole: Summary, part: Summary) -> Summary:
    """The ignored files of the whole, the first 100 of them listed, as in `read.shards`.

    Each part of one job lists all of them; other datasets that are merged have each their own.
    """
    if whole == part:
        return whole
    return {"n": whole["n"] + part["n"], "first": (whole["first"] + part["first"])[:100]}


def _subsets(whole: list[Summary], part: list[Summary]) -> list[Summary]:
    known = {subset["name"]: dict(subset) for subset in whole}
    for subset in part:
        if old := known.get(subset["name"]):
            # A count that one of them lacks is unknown for the sum.
            counts = {n: old[n] + value for n, value in subset.items() if n in old and n != "name"}
            known[subset["name"]] = {"name": subset["name"], **counts}
        else:
            known[subset["name"]] = subset
    return list(known.values())
