"""The settings of a run of the benches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The measurements of a job, as JSON values.
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    shards: list[Path]
    tokenizer: Path
    rounds: int
    #: Whether this is a trial of the benches themselves, on small inputs.
    is_quick: bool
    #: Documents of the run with many.
    documents: int
    #: A checkout of GPT-NeoX, whose code builds orders to compare with.
    gpt_neox: Path | None = None
    #: A folder of documents with planted duplicates, and the similarities of all pairs.
    planted: Path | None = None
    #: A checkout of allenai/duplodocus, built.
    duplodocus: Path | None = None
    #: A checkout of google-research/deduplicate-text-datasets, built.
    deduplicate_text: Path | None = None
    #: A checkout of nerdyrodent/VQGAN-CLIP.
    vqgan_clip: Path | None = None

    @property
    def files(self) -> dict[str, Any]:
        """The arguments of jobs that name the files to read."""
        return {"shards": self.shards, "tokenizer": self.tokenizer}
