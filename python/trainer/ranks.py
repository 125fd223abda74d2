"""The processes that train together, and how they agree.

A failure of one process is a failure of all. `Processes.agree` runs a function in each of them; if it fails
in any, all stop with the same exit code and one message, printed by rank 0. Without it the others would wait
in the next collective operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from pile_tools.errors import ConfigError, PileError
from pile_tools.terminal import echo, with_options

_Result = TypeVar("_Result")

#: Exit codes of the command line, by the kind of failure.
_EXIT_FAILURE, _EXIT_USAGE = 1, 2


@dataclass(frozen=True)
class Processes:
    """The processes that train together, and which of them this is.

    Attributes:
        rank: This one, from 0.
        size: How many there are.
        device: Where this one computes.
        n_stages: Pipeline stages; each copy of the model is in as many processes.
    """

    rank: int
    size: int
    device: torch.device
    n_stages: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    @property
    def n_replicas(self) -> int:
        """Copies of the model, among which a step's batch is divided."""
        return self.size // self.n_stages

    @property
    def replica(self) -> int:
        """The copy of the model that this process has, or has a stage of; from 0.

        Ranks of one pipeline stage are consecutive, as DeepSpeed's `PipeDataParallelTopology` has them.
        """
        return self.rank % self.n_replicas

    @property
    def stage(self) -> int:
        """The pipeline stage of this process, from 0."""
        return self.rank // self.n_replicas

    def barrier(self) -> None:
        """Waits until all processes are here."""
        torch.distributed.barrier()

    def gather(self, text: str) -> list[str]:
        """The texts of all processes, by rank; every process calls it."""
        if self.size == 1:
            return [text]
        # A message may name a file whose name is not UTF-8. The last byte is for `frombuffer`, which refuses
        # an empty buffer.
        encoded = bytearray(text.encode(errors="surrogatepass") + b"\0")
        data = torch.frombuffer(encoded, dtype=torch.uint8).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        torch.distributed.all_gather(sizes, torch.tensor([len(encoded)], device=self.device))
        lengths = [int(size) - 1 for size in sizes]
        # `all_gather` takes tensors of one shape.
        padded = torch.zeros(max(lengths) + 1, dtype=torch.uint8, device=self.device)
        padded[: len(encoded)] = data
        texts = [torch.zeros_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(texts, padded)
        return [
            bytes(found.cpu().numpy())[:length].decode(errors="surrogatepass")
            for found, length in zip(texts, lengths, strict=True)
        ]

    def from_main(self, text: str) -> str:
        """The text of rank 0; every process calls it."""
        return self.gather(text if self.is_main else "")[0]

    def highest(self, number: int) -> int:
        """The highest number of any process; every process calls it."""
        if self.size == 1:
            return number
        found = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def agree(self, act: Callable[[], _Result]) -> _Result:
        """The result of `act`, if it succeeds in every process; every process calls it.

        Raises:
            PileError, OSError: It failed in the only process.
            SystemExit: It failed in one of several processes; rank 0 has printed the message.
        """
        if self.size == 1:
            return act()
        code, message, result = 0, "", None
        try:
            result = act()
        except (PileError, OSError) as err:
            code = _EXIT_USAGE if isinstance(err, ConfigError) else _EXIT_FAILURE
            message = _one_line(err)
        self._stop_on_failure(f"{code}{message}")
        return result  # type: ignore[return-value]

    def main_does(self, act: Callable[[], object]) -> None:
        """Runs `act` in rank 0 and waits for it; if it fails, all processes stop as by `agree`."""
        self.agree(lambda: act() if self.is_main else None)

    def _stop_on_failure(self, outcome: str) -> None:
        failed = [found for found in self.gather(outcome) if not found.startswith("0")]
        if not failed:
            return
        if self.is_main:
            echo(f"error: {with_options(failed[0][1:])}", err=True)
        # The launcher stops all others as soon as one process ends: the message comes first.
        self.barrier()
        raise SystemExit(int(failed[0][0]))


def _one_line(err: PileError | OSError) -> str:
    if isinstance(err, PileError):
        return str(err)
    where = f" ({os.fsdecode(err.filename)})" if isinstance(err.filename, (str, bytes)) else ""
    return f"{err.strerror or err}{where}"
