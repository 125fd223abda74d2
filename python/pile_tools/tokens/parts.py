"""Parts of one dataset, made by several jobs or machines, and what the whole is made of.

The shards are cut into n runs in their order. Part i is a dataset in `PREFIX.parts/`; its manifest names the
whole, so that only parts of one job are joined, and all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pile_tools import manifest
from pile_tools.config import Settings, fingerprint
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import Entry, Manifest, Request
from pile_tools.read.shards import has_stream

#: What a part's manifest says over the whole's.
PART, WHOLE = "part", "part_of"

#: The setting that does not matter where there was no bad record: parts may differ in it.
LENIENCE = "on_bad_record"

#: The setting that says which records are bad for their length, where it is not the default.
LONGEST = "max_record"

Summary: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Part `number` of `n_parts`, from 1."""

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
        if found := re.fullmatch(r"(\d+)/(\d+)", text):
            return cls(int(found[1]), int(found[2]))
        raise ConfigError(f"expected i/n, as in 3/16, got {text!r}")

    def of(self, shards: Sequence[Path]) -> Sequence[Path]:
        """The shards of this part: as many as of any other, or one more. Raises ConfigError."""
        if has_stream(shards):
            raise ConfigError("standard input and pipes cannot be cut into parts")
        if len(shards) < self.n_parts:
            raise ConfigError(f"{len(shards)} shards cannot be cut into {self.n_parts} parts")
        start, end = (len(shards) * i // self.n_parts for i in (self.number - 1, self.number))
        return shards[start:end]

    def prefix(self, whole: Path) -> Path:
        """The prefix of this part of the dataset at `whole`."""
        return folder(whole) / f"part-{self.number:05}-of-{self.n_parts:05}"

    def settings(self, whole: Request) -> Settings:
        """What the part's manifest says over the whole's.

        The whole is named without its shards' sizes: one that is mended makes no other part anew.
        """
        named = [{k: v for k, v in e.items() if k != "bytes"} for e in whole.inputs]
        settings = {k: v for k, v in whole.settings.items() if k != LENIENCE}
        return {PART: str(self), WHOLE: fingerprint({"settings": settings, "inputs": named})}


def folder(whole: Path) -> Path:
    """Where the parts of the dataset at `whole` are."""
    return whole.parent / (whole.name + ".parts")


def whole_of(parts: Sequence[Manifest], output: Path) -> tuple[Request, list[Entry], list[Manifest]]:
    """The request and inputs of the whole that these are the parts of, as one run at `output` has them.

    The parts come back in their order.

    Raises:
        PileError: They are of different jobs, or parts are missing or given twice.
    """
    numbered: dict[int, Manifest] = {}
    first = parts[0]
    for found in parts:
        if found.settings[WHOLE] != first.settings[WHOLE]:
            raise PileError(
                f"{found.path} is a part of another job than {first.path}: of other shards or settings"
            )
        number = Part.parse(found.settings[PART]).number
        if number in numbered:
            raise PileError(f"part {found.settings[PART]} is given twice; give each part once ({found.path})")
        numbered[number] = found
    n_parts = Part.parse(first.settings[PART]).n_parts
    missing = [Part(i, n_parts) for i in range(1, n_parts + 1) if i not in numbered]
    if missing:
        some = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        raise PileError(f"{len(missing)} of {n_parts} parts are missing: {some} ({first.folder})")
    ordered = [numbered[i] for i in range(1, n_parts + 1)]
    inputs = [entry for entry in rebased(first, output.parent) if entry["role"] != "shard"]
    for found in ordered:
        inputs += [entry for entry in rebased(found, output.parent) if entry["role"] == "shard"]
    # The most lenient part's settings: where nothing was skipped, it would have been made alike with them.
    lenient = next((found for found in ordered if found.settings.get(LENIENCE) == "skip"), first)
    settings = {name: value for name, value in lenient.settings.items() if name not in (PART, WHOLE)}
    asked = [
        {k: v for k, v in entry.items() if k != "sha256"} if entry["role"] == "shard" else entry
        for entry in inputs
    ]
    return Request(first.kind, settings, asked), inputs, ordered


def rebased(found: Manifest, folder: Path) -> list[Entry]:
    """A manifest's inputs with their paths relative to another folder."""
    return [
        {**entry, "path": manifest.relative(manifest.input_path(found, entry), folder)}
        for entry in found.inputs
    ]


def joined(summaries: Sequence[Summary]) -> Summary:
    """The summary of a whole from those of its parts: counts added up, lists joined, subsets by name."""
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
    """What was passed over on the way to all shards: the parts of one dataset have seen the same."""
    if whole == part:
        return whole
    return {"n": whole["n"] + part["n"], "first": (whole["first"] + part["first"])[:100]}


def _subsets(whole: list[Summary], part: list[Summary]) -> list[Summary]:
    known = {subset["name"]: dict(subset) for subset in whole}
    for subset in part:
        if old := known.get(subset["name"]):
            # What is not known of both is not known of their sum.
            counts = {n: old[n] + value for n, value in subset.items() if n in old and n != "name"}
            known[subset["name"]] = {"name": subset["name"], **counts}
        else:
            known[subset["name"]] = subset
    return list(known.values())
