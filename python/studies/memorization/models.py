"""Greedy continuations by a checkpoint; the only module of this study that needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

import trainer
from studies.memorization.scores import Scores, compare
from studies.runs import Run

Greedy = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def load_greedy(run: Run, step: int, n_new: int, ban: int | None) -> Greedy:
    """A checkpoint as a function from prompts (n, k) to continuations (n, n_new), computed in fp32.

    Its files must have the checksums in its manifest.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = trainer.load_checkpoint(run.folder, step, dtype=torch.float32, device=device)

    def greedy(prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        tokens = trainer.greedy(model, torch.from_numpy(prompts), n_new, ban=ban)
        continuations: NDArray[np.int64] = tokens.cpu().numpy()
        return continuations

    return greedy


def score(greedy: Greedy, sequences: NDArray[np.int64], n_prompt: int, batch_size: int) -> Iterator[Scores]:
    """The scores of sequences, `batch_size` at a time: the first `n_prompt` tokens prompt for the others."""
    for first in range(0, len(sequences), batch_size):
        batch = sequences[first : first + batch_size]
        yield compare(greedy(np.ascontiguousarray(batch[:, :n_prompt])), batch[:, n_prompt:])
