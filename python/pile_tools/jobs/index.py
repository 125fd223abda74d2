"""Builds the index of a token dataset: a suffix array of its tokens, in segments that fit in memory.

`PREFIX.index/` holds `ranks`, a file `segment-000NN` for each segment, and `manifest.json`, written last.
An interrupted job resumes with the finished segments in `PREFIX.index.partial/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, publish
from pile_tools._core import TokenDataset
from pile_tools.config import Settings
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
    """The settings of an index, apart from its dataset."""

    tokenizer: Path | None = field(
        default=None,
        metadata={
            "help": "Tokenizer, if the dataset's is not found: a tokenizer.json, its folder, or an id.",
            "metavar": "FILE|FOLDER|ID",
        },
    )
    texts: bool = field(
        default=True, metadata={"help": "Index texts too, which needs the tokenizer; or only tokens."}
    )
    memory: str = field(
        default=DEFAULT_MEMORY,
        metadata={
            "help": "Memory for a segment; fewer, larger ones are faster to search.",
            "metavar": "SIZE",
        },
    )

    def __post_init__(self) -> None:
        if self.memory_bytes < 2**10:
            raise ConfigError(f"memory must be at least 1KiB, got {self.memory}")
        if self.tokenizer is not None and not self.texts:
            raise ConfigError("an index without texts takes no tokenizer")

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory for a segment."""
        return parse_size(self.memory)


def run(
    prefix: Path,
    config: IndexConfig,
    *,
    force: bool = False,
    on_plan: Callable[[IndexPlan], object] = lambda plan: None,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Builds the index of the dataset at `prefix`; returns its manifest, and whether it was made now.

    Args:
        prefix: Path of the dataset without its suffixes.
        config: The settings of the index.
        force: Replace an index of another dataset or with other settings.
        on_plan: Called before the work with the resources that the index needs: `segments`,
            `memory_bytes` and `disk_bytes`.
        on_progress: Called with the tokens counted plus the tokens sorted: at the end, twice those of the
            dataset.

    Raises:
        OutputExistsError: There is an index of another dataset or with other settings, and `force` is off.
        ConfigError: The tokenizer is unknown or not here.
        PileError: The disk is too full, or another process is building the index.
        FormatError: The dataset is damaged.
        OSError: A file cannot be read or written.
    """
    dataset = TokenDataset(prefix)
    target = Target.of(folder_of(prefix) / MANIFEST_FILE)
    source = datasets.tokenizer_file(dataset, config.tokenizer) if config.texts else None
    request = _request(dataset, config, source, target.folder)

    def build(folder: Path) -> Built:
        plan = _core.plan_index(dataset, config.memory_bytes)
        _check_disk(folder, plan)
        on_plan(plan)
        tokenizer = source.load() if source else None
        memory = config.memory_bytes
        built = _core.build_index(dataset, tokenizer, folder, memory, on_progress, discard=force)
        names = ["ranks", *(f"segment-{number:05}" for number in range(built["n_segments"]))]
        # The segments reused from an interrupted run are not a property of the index.
        summary: Settings = {name: value for name, value in built.items() if name != "n_reused"}
        return Built(names, summary, request.inputs)

    return publish.make(target, request, build, force=force, names=["ranks"], resumes=[publish.STATE])


def _request(
    dataset: TokenDataset, config: IndexConfig, source: TokenizerFile | None, folder: Path
) -> Request:
    inputs = [datasets.entry(dataset, folder)]
    if source is not None:
        inputs.append(source.entry(folder))
    return Request("index", {"texts": config.texts, "memory_bytes": config.memory_bytes}, inputs)


def _check_disk(partial: Path, plan: IndexPlan) -> None:
    """Raises PileError if the segments still to be written do not fit on the disk."""
    needed = plan["disk_bytes"] - sum(path.stat().st_size for path in partial.glob("segment-*"))
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise PileError(
            f"the index needs {needed / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free; "
            f"free some space and run the same command again ({partial})"
        )
