"""Which states of a run are kept, so that it can be continued or branched from them."""

from __future__ import annotations

from dataclasses import dataclass

from pile_tools.errors import ConfigError
from trainer.config import MAX_COUNT

#: The forms of `--keep-states`.
FORMS = "last, all, or every:N"


@dataclass(frozen=True)
class Retention:
    """Which states are kept beside the last.

    Attributes:
        every: Those of every n-th step; 0 for none, 1 for all that are saved at checkpoints.
    """

    every: int = 0

    @classmethod
    def parse(cls, text: str) -> Retention:
        """A retention as `--keep-states` names it. Raises ConfigError."""
        name, colon, number = text.partition(":")
        if text in ("last", "all"):
            return cls(0 if text == "last" else 1)
        is_number = number.isascii() and number.isdigit() and len(number) < 20
        if name != "every" or not colon or not is_number or not 2 <= int(number) <= MAX_COUNT:
            raise ConfigError(f"keep-states is {text[:40]!r}, expected {FORMS}, with N from 2")
        return cls(int(number))

    def __str__(self) -> str:
        return {0: "last", 1: "all"}.get(self.every, f"every:{self.every}")

    def names(self, step: int) -> bool:
        """Whether the state after `step` updates is saved for this alone, with or without a checkpoint."""
        return self.every > 1 and step > 0 and step % self.every == 0

    def keeps(self, step: int, *, is_regular: bool) -> bool:
        """Whether the state after `step` updates is kept; `is_regular`: it was saved with a checkpoint."""
        return self.names(step) or (self.every == 1 and is_regular)
