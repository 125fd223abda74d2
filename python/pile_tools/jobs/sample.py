"""Makes a miniature Pile from text installed on the machine, as a first corpus to try the tools on.

Documents are taken from the subsets in proportion to their weights, without exact duplicates, and shuffled
with a seed into Pile-shaped shards. The same machine and settings give the same bytes.
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
from pile_tools.checked import MAX_SEED
from pile_tools.config import settings
from pile_tools.errors import ConfigError, OutputExistsError, PileError
from pile_tools.jobs.sampling import canaries, sources
from pile_tools.jobs.sampling.canaries import Passage
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.publish import Built, Target
from pile_tools.types import OnProgress

CANARIES_FILE = "canaries.json"
ZSTD_LEVEL = 6
#: A terabyte of text, far more than a machine has.
MAX_MEGABYTES = 1_000_000
#: Maximum bytes of a document, and maximum share of the sample.
MAX_DOCUMENT_BYTES, MAX_DOCUMENT_SHARE = 100_000, 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """The settings that, with the text on the machine, determine the bytes of a sample."""

    megabytes: float = field(default=20.0, metadata={"help": "Total text in MB, without canaries."})
    shards: int = field(default=8, metadata={"help": "Number of shards."})
    seed: int = field(default=0, metadata={"help": "Seed of the selection, the shuffle and the canaries."})
    canaries: bool = field(
        default=True, metadata={"help": "Plant random passages 1 to 64 times and list them in canaries.json."}
    )

    def __post_init__(self) -> None:
        if not 0 < self.megabytes <= MAX_MEGABYTES:
            raise ConfigError(
                f"megabytes must be more than 0 and at most {MAX_MEGABYTES:,}, got {self.megabytes:g}"
            )
        # Names of shards have two digits.
        if not 1 <= self.shards <= 100:
            raise ConfigError(f"shards must be 1 to 100, got {self.shards}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed must be 0 to {MAX_SEED}, got {self.seed}")

    @property
    def text_bytes(self) -> int:
        """Bytes of text to take."""
        return max(round(self.megabytes * 1e6), 1)

    @property
    def max_document_bytes(self) -> int:
        """Maximum bytes of a document; longer ones are truncated."""
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
    """Writes a sample into `folder`; returns its manifest, and whether it was made now.

    Args:
        config: The settings of the sample.
        folder: The folder to write.
        force: Replace a sample of other settings.
        on_progress: Called with the bytes of text taken.

    Raises:
        OutputExistsError: The folder holds other files, or a sample of other settings and `force` is off.
        PileError: The machine has no text.
        OSError: A file cannot be written.
    """
    request = manifest.Request("shards", {**settings(config), "python": platform.python_version()})
    target = Target.of(folder / MANIFEST_FILE)
    or_else = ", another folder keeps both"
    if manifest.finished(target.manifest, request, force=force, or_else=or_else) is None:
        _refuse_foreign_files(target, set(_names(config)) if force else set())

    def build(partial: Path) -> Built:
        return _fill(partial, config, on_progress)

    return publish.make(target, request, build, force=force, or_else=or_else)


def take(
    config: SampleConfig, subsets: list[sources.Source], on_progress: OnProgress = None
) -> Iterator[Document]:
    """Documents of the subsets until they have `config.text_bytes`, without exact duplicates.

    Each document is of the subset with the least text in proportion to its weight. If a subset runs out of
    text, the others provide the rest.
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
        text = sources.truncated(text, config.max_document_bytes)
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
            "no text found on this machine: neither Python's library nor /usr/share/man nor /usr/share/doc"
        )
    passages = canaries.passages(config.seed) if config.canaries else []
    planted = [Document(canaries.SUBSET, p.text) for p in passages for _ in range(p.repeats)]
    mixed = documents + planted
    random.Random(f"{config.seed}/shuffle").shuffle(mixed)
    roles = {}
    for number, name in enumerate(_shard_names(config)):
        _write_shard(folder / name, mixed[number :: config.shards])
        roles[name] = "shard"
    if config.canaries:
        (folder / CANARIES_FILE).write_text(_canaries_json(passages), encoding="utf-8")
        roles[CANARIES_FILE] = "canaries"
    return Built(list(roles), _summary(config, documents, planted), [], roles)


def _shard_names(config: SampleConfig) -> list[str]:
    return [f"{number:02d}.jsonl.zst" for number in range(config.shards)]


def _names(config: SampleConfig) -> list[str]:
    """The names of all files of a sample."""
    return [*_shard_names(config), *([CANARIES_FILE] if config.canaries else []), MANIFEST_FILE]


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
    """Documents and bytes by subset, and whether the sample has all of `config.text_bytes`."""
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


def _refuse_foreign_files(target: Target, replaced: set[str]) -> None:
    """Raises OutputExistsError for a folder with files that do not belong to a sample.

    A later command reads the whole folder. `replaced` are names that the new sample takes.
    """
    folder = target.folder
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(found - publish.own_files(target) - replaced)
    if foreign:
        raise OutputExistsError(
            f"the folder holds {foreign[0]}, which is not part of a sample; choose another folder ({folder})"
        )
