"""Validation: loss and bits per byte of rows that are not trained on, by the weights after some updates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pile_tools import Tokenizer, _core
from pile_tools.errors import FormatError, PileError
from pile_tools.order.order import Order
from trainer.config import ValidationConfig
from trainer.engine import Engine, MicroBatch
from trainer.log import ValidationLine
from trainer.ranks import Processes
from trainer.run import Run


class Validation:
    """The rows that a run validates on.

    Args:
        run: The run.
        config: Its table `[validation]`.
        order: The order of that.
    """

    def __init__(self, run: Run, config: ValidationConfig, order: Order) -> None:
        self._run, self._order, self._n_rows = run, order, config.rows

    def run(self, engine: Engine, ranks: Processes, n_updates: int) -> ValidationLine:
        """The line of the log after `n_updates` updates; every process calls it.

        Raises:
            FormatError: A token is outside the model's vocabulary, or the dataset was truncated.
        """
        losses = engine.evaluate(self._micro_batches(ranks))[: self._n_rows].double()
        line: ValidationLine = {
            "step": n_updates,
            "tokens": n_updates * self._run.tokens_per_step,
            "loss": float(losses.mean()),
        }
        if self._n_bytes:
            nats = float(losses.sum()) * self._order.seq_length
            line["bits_per_byte"] = nats / math.log(2) / self._n_bytes
        return line

    def _micro_batches(self, ranks: Processes) -> Iterator[MicroBatch]:
        """This process's rows; the last one is repeated where they do not fill all micro-batches."""
        size, _ = self._run.recipe.split(ranks.size, self._run.config.deepspeed)
        for first in range(0, self._n_rows, size * ranks.n_replicas):
            indices = np.minimum(np.arange(first, first + size) + ranks.replica * size, self._n_rows - 1)
            yield MicroBatch(self._rows(indices), self._positions(indices))

    def _positions(self, indices: NDArray[np.int64]) -> Tensor | None:
        if not self._run.recipe.attention_within_documents:
            return None
        rows = [self._order.positions(index, 1) for index in indices.tolist()]
        return torch.from_numpy(np.concatenate(rows))

    def _rows(self, indices: NDArray[np.int64]) -> Tensor:
        tokens = torch.from_numpy(self._order.samples.take(indices).astype("int64"))
        # A map of a dataset that was cut short reads as zeros.
        _core.check_mapped()
        n_known = self._run.recipe.shape.vocab_size
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < n_known:
            what = f"a token of the validation order is outside the model's vocabulary of {n_known}"
            raise FormatError(f"{what} ({self._order.name})")
        return tokens

    @cached_property
    def _n_bytes(self) -> int:
        """Bytes of the text of all tokens that are predicted; 0 if no tokenizer is known."""
        tokenizer = self._run.tokenizer
        if tokenizer is None:
            try:
                tokenizer = self._order.tokenizer()
            except (PileError, OSError):
                return 0
        ids = self._rows(np.arange(self._n_rows))[:, 1:].numpy()
        known, counts = np.unique(ids, return_counts=True)
        return int(sum(n_bytes_of(tokenizer, id) * n for id, n in zip(known.tolist(), counts, strict=True)))


def n_bytes_of(tokenizer: Tokenizer, id: int) -> int:
    """The bytes of text of a token; 0 for a special token such as the end of a document."""
    text = tokenizer.decode([id], skip_special_tokens=True, skip_unknown=True)
    if "\ufffd" in text:
        # A part of a character. In the vocabulary's spelling, a token has one character for each byte.
        return len(tokenizer.id_to_token(id) or "")
    return len(text.encode())
