"""Builds the index of a token dataset: its sorted suffixes, by which n-grams and texts are found at once.

`PREFIX.index/` holds `ranks`, a `piece-000NN` for each piece and `manifest.json`, which is published last.
A job that was stopped resumes with the finished pieces in `PREFIX.index.partial/`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, manifest, publish
from pile_tools._core import TokenDataset
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import MANIFEST_FILE, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.search import folder_of
from pile_tools.sizes import parse_size
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.types import IndexPlan, OnProgress

DEFAULT_MEMORY = "2GiB"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """What an index depends on, its dataset aside."""

    tokenizer: Path | None = field(
        default=None,
        metadata={
            "help": "Where the dataset's own is not found: a tokenizer.json, its folder, or an id.",
            "metavar": "FILE|FOLDER|ID",
        },
    )
    texts: bool = field(
        default=True, metadata={"help": "Sort so that texts can be found, which needs the tokenizer."}
    )
    memory: str = field(
        default=DEFAULT_MEMORY,
        metadata={"help": "Memory for a piece; larger pieces make faster queries.", "metavar": "SIZE"},
    )

    def __post_init__(self) -> None:
        if self.memory_bytes < 2**10:
            raise ConfigError(f"memory must be at least 1KiB, got {self.memory}")
        if self.tokenizer is not None and not self.texts:
            raise ConfigError("--no-texts needs no tokenizer: give one of the two")

    @property
    def memory_bytes(self) -> int:
        """Memory for a piece, in bytes."""
        return parse_size(self.memory)


def plan(prefix: Path, config: IndexConfig) -> IndexPlan:
    """What building the index takes: `pieces`, `memory_bytes` and `disk_bytes`.

    Raises:
        FormatError: The dataset is damaged.
        OSError: It cannot be read.
    """
    return _core.plan_index(TokenDataset(prefix), config.memory_bytes)


def run(
    prefix: Path, config: IndexConfig, *, force: bool = False, on_progress: OnProgress = None
) -> tuple[Manifest, bool]:
    """Builds the index of the dataset at `prefix`; returns its manifest, and whether it was made now.

    Args:
        on_progress: Called with tokens counted and sorted: twice those of the dataset in the end.

    Raises:
        OutputExistsError: An index of another dataset or other settings lies there and `force` is off.
        ConfigError: The tokenizer is not known or not here.
        PileError: There is not enough disk, or another process builds it.
        FormatError: The dataset is damaged.
        OSError: A file cannot be read or written.
    """
    dataset = TokenDataset(prefix)
    target = Target.of(folder_of(prefix) / MANIFEST_FILE)
    source = datasets.tokenizer_file(prefix, config.tokenizer) if config.texts else None
    request = _request(prefix, dataset, config, source, target.folder)

    def build(folder: Path) -> Built:
        _check_disk(folder, dataset, config)
        tokenizer = source.load() if source else None
        summary = _core.build_index(dataset, tokenizer, folder, config.memory_bytes, on_progress)
        names = ["ranks", *(f"piece-{number:05}" for number in range(summary["n_pieces"]))]
        told = {name: value for name, value in summary.items() if name != "n_kept"}
        return Built(names, told, request.inputs)

    return publish.make(target, request, build, force=force, names=["ranks"], resumes=True)


def _request(
    prefix: Path, dataset: TokenDataset, config: IndexConfig, source: TokenizerFile | None, folder: Path
) -> Request:
    inputs = [
        {
            "role": "dataset",
            "path": manifest.relative(prefix, folder),
            "fingerprint": dataset.fingerprint,
        }
    ]
    if source is not None:
        inputs.append(source.entry(folder))
    return Request("index", {"texts": config.texts, "memory_bytes": config.memory_bytes}, inputs)


def _check_disk(partial: Path, dataset: TokenDataset, config: IndexConfig) -> None:
    """That what is still to be written fits. Raises PileError."""
    needed = _core.plan_index(dataset, config.memory_bytes)["disk_bytes"]
    there = sum(path.stat().st_size for path in partial.glob("piece-*"))
    free = shutil.disk_usage(partial).free
    if needed - there > free:
        raise PileError(
            f"the index needs {(needed - there) / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free; "
            f"free some space and run the same command again ({partial})"
        )
