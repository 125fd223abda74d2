"""A miniature Pile from what every machine already has: the first corpus to try everything on.

Documents are taken by turns from each subset so that none drowns the others, exact duplicates left out, and
dealt over Pile-shaped shards by a seeded shuffle. The same machine and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from pile_tools import manifest, publish
from pile_tools.config import settings
from pile_tools.errors import ConfigError, OutputExistsError, PileError
from pile_tools.jobs.sampling import canaries, sources
from pile_tools.jobs.sampling.canaries import Passage
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.publish import Built, Target
from pile_tools.types import OnProgress

CANARIES_FILE = "canaries.json"
ZSTD_LEVEL = 6
#: A million million bytes: no machine has so much text of its own.
MAX_MEGABYTES = 1_000_000
#: No document is longer than this, nor than this share of the sample.
MAX_DOCUMENT_BYTES, MAX_DOCUMENT_SHARE = 100_000, 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """What decides the bytes of a sample, next to the machine it is taken from."""

    megabytes: float = field(default=20.0, metadata={"help": "Text in all, MB; canaries come on top."})
    shards: int = field(default=8, metadata={"help": "Shards to deal the documents to."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice, the shuffle and the canaries."})
    canaries: bool = field(
        default=True, metadata={"help": "Plant random passages 1 to 64 times and list them in canaries.json."}
    )

    def __post_init__(self) -> None:
        if not 0 < self.megabytes <= MAX_MEGABYTES:
            raise ConfigError(
                f"megabytes must be more than 0 and at most {MAX_MEGABYTES:,}, got {self.megabytes:g}"
            )
        if not 1 <= self.shards <= 100:
            raise ConfigError(f"shards must be 1 to 100, got {self.shards}")

    @property
    def text_bytes(self) -> int:
        """Bytes of text to take."""
        return round(self.megabytes * 1e6)

    @property
    def max_document_bytes(self) -> int:
        """Where longer documents are cut."""
        return max(
            sources.MIN_DOCUMENT_BYTES, min(MAX_DOCUMENT_BYTES, int(self.text_bytes * MAX_DOCUMENT_SHARE))
        )


@dataclass(frozen=True)
class Document:
    """A text and the subset it belongs to."""

    subset: str
    text: str


def run(
    config: SampleConfig, folder: Path, *, force: bool = False, on_progress: OnProgress = None
) -> tuple[manifest.Manifest, bool]:
    """Takes the sample into `folder`; returns its manifest and whether anything had to be done.

    `on_progress` gets the bytes of text taken so far.

    Raises:
        OutputExistsError: The folder holds something else, or a sample of other settings and `force` is off.
        PileError: The machine has no text at all.
        OSError: A file cannot be written.
    """
    request = manifest.Request("shards", {**settings(config), "python": platform.python_version()})
    target = Target.of(folder / MANIFEST_FILE)
    _refuse_foreign_files(target)

    def build(partial: Path) -> Built:
        return _fill(partial, config, on_progress)

    return publish.make(target, request, build, force=force, or_else=", another folder keeps both")


def take(
    config: SampleConfig, subsets: list[sources.Source], on_progress: OnProgress = None
) -> Iterator[Document]:
    """Documents from all subsets until there is enough text, each time from the one furthest behind.

    A subset with little text gives all it has and the others make up for it.
    """
    streams = {s.name: iter(s.documents(random.Random(f"{config.seed}/{s.name}"))) for s in subsets}
    weights = {s.name: s.weight for s in subsets}
    taken = dict.fromkeys(streams, 0)
    seen: set[bytes] = set()
    while streams and sum(taken.values()) < config.text_bytes:
        subset = min(streams, key=lambda name: taken[name] / weights[name])
        text = next(streams[subset], None)
        if text is None:
            del streams[subset]
            continue
        text = sources.cut(text, config.max_document_bytes)
        data = text.encode()
        digest = hashlib.sha256(data).digest()
        if len(data) < sources.MIN_DOCUMENT_BYTES or digest in seen:
            continue
        seen.add(digest)
        taken[subset] += len(data)
        yield Document(subset, text)
        if on_progress is not None:
            on_progress(sum(taken.values()))


def _fill(folder: Path, config: SampleConfig, on_progress: OnProgress) -> Built:
    """Writes shards and canaries into an empty folder."""
    documents = list(take(config, sources.all_sources(), on_progress))
    if not documents:
        raise PileError(
            "found no text on this machine: neither Python's library nor /usr/share/man or /usr/share/doc"
        )
    passages = canaries.passages(config.seed) if config.canaries else []
    planted = [Document(canaries.SUBSET, p.text) for p in passages for _ in range(p.repeats)]
    mixed = documents + planted
    random.Random(f"{config.seed}/shuffle").shuffle(mixed)
    roles = {}
    for number in range(config.shards):
        path = folder / f"{number:02d}.jsonl.zst"
        _write_shard(path, mixed[number :: config.shards])
        roles[path.name] = "shard"
    if config.canaries:
        path = folder / CANARIES_FILE
        path.write_text(_canaries_json(passages), encoding="utf-8")
        roles[path.name] = "canaries"
    return Built(list(roles), _summary(config, documents, planted), [], roles)


def _write_shard(path: Path, documents: list[Document]) -> None:
    """Writes documents as JSON lines in one zstd frame."""
    lines = (
        json.dumps({"text": d.text, "meta": {"pile_set_name": d.subset}}, ensure_ascii=False) + "\n"
        for d in documents
    )
    path.write_bytes(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress("".join(lines).encode()))


def _canaries_json(passages: list[Passage]) -> str:
    values = {
        "about": canaries.EXPLANATION,
        "repeats": list(canaries.REPEATS),
        "passages": [asdict(passage) for passage in passages],
    }
    return json.dumps(values, indent=1) + "\n"


def _summary(config: SampleConfig, documents: list[Document], planted: list[Document]) -> dict[str, Any]:
    """Documents and bytes by subset, and whether there was as much text as asked for."""
    subsets: dict[str, dict[str, Any]] = {}
    for document in documents + planted:
        counts = subsets.setdefault(
            document.subset, {"name": document.subset, "n_documents": 0, "n_text_bytes": 0}
        )
        counts["n_documents"] += 1
        counts["n_text_bytes"] += len(document.text.encode())
    n_taken = sum(len(d.text.encode()) for d in documents)
    return {
        "n_documents": len(documents) + len(planted),
        "n_text_bytes": sum(counts["n_text_bytes"] for counts in subsets.values()),
        "is_complete": n_taken >= config.text_bytes,
        "subsets": sorted(subsets.values(), key=lambda counts: (-counts["n_text_bytes"], counts["name"])),
    }


def _refuse_foreign_files(target: Target) -> None:
    """Raises OutputExistsError for a folder with anything in it but a sample."""
    folder = target.folder
    foreign = sorted(
        {path.name for path in folder.iterdir()} - publish.own_files(target) if folder.exists() else ()
    )
    if foreign:
        raise OutputExistsError(
            f"{foreign[0]} is in the way and not of a sample; choose another folder ({folder})"
        )
