"""What a run of the benches is about: its input, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What a job measured, ready for JSON.
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    shards: list[Path]
    tokenizer: Path
    rounds: int
    #: A trial of the benches themselves, on little input.
    is_quick: bool
    #: A checkout of GPT-NeoX, whose own code builds orders to compare with.
    gpt_neox: Path | None = None

    @property
    def files(self) -> dict[str, Any]:
        """The arguments that say which files to read."""
        return {"shards": self.shards, "tokenizer": self.tokenizer}
