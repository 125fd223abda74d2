"""The layers of a pipeline stage: consecutive blocks, embedding and output layer at the ends of the model.

Letters in shapes: n sequences, t tokens, h hidden.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from trainer.model.loss import Losses
from trainer.model.neox import GPTNeoX, OutputLayer, row_context, through_blocks
from trainer.shape import ModelShape


def stage_blocks(shape: ModelShape, n_stages: int) -> list[range]:
    """The blocks of each pipeline stage, such that all stages compute about as much.

    The output layer of the last stage counts as the blocks that compute as much. The embedding is a lookup.

    Args:
        shape: The model's, of `n_stages` blocks at least.
        n_stages: Pipeline stages.
    """
    hidden = shape.hidden_size
    # Multiplications of a token in a block: one for each weight of the matrices, 12 h^2, and h for each
    # position in the scores of attention and again in the weighted sum.
    of_block = 12 * hidden**2 + 2 * hidden * shape.max_positions
    share = (shape.n_layers + shape.vocab_size * hidden / of_block) / n_stages
    ends = [0]
    for stage in range(1, n_stages):
        last = shape.n_layers - (n_stages - stage)
        ends.append(min(max(round(stage * share), ends[-1] + 1), last))
    ends.append(shape.n_layers)
    return [range(first, end) for first, end in itertools.pairwise(ends)]


class PipelineStage(nn.Module):
    """The layers of a pipeline stage. They are those of the model itself, and their weights have its names.

    Args:
        model: The whole model.
        stage: The stage, from 0.
        n_stages: Pipeline stages.
    """

    def __init__(self, model: GPTNeoX, stage: int, n_stages: int) -> None:
        super().__init__()
        stack = model.gpt_neox
        self._shape, self._recomputes_blocks = model.shape, stack.recomputes_blocks
        blocks = {str(number): stack.layers[number] for number in stage_blocks(model.shape, n_stages)[stage]}
        parts: dict[str, nn.Module] = {"layers": nn.ModuleDict(blocks)}
        self._is_first, self._is_last = stage == 0, stage == n_stages - 1
        if self._is_first:
            parts["embed_in"] = stack.embed_in
        if self._is_last:
            parts["final_layer_norm"] = stack.final_layer_norm
        self.gpt_neox = nn.ModuleDict(parts)
        self.embed_out: OutputLayer | None = model.embed_out if self._is_last else None

    def forward(self, x: Tensor) -> Tensor:
        """What the next stage continues from, or the output layer: (n, t, h).

        Args:
            x: What the stage before returned, (n, t, h); in the first stage tokens, (n, t) int64.
        """
        if self._is_first:
            x = self.gpt_neox["embed_in"](x)
        blocks = self.gpt_neox["layers"].children()
        x = through_blocks(blocks, x, row_context(self._shape, x), recomputes_blocks=self._recomputes_blocks)
        return self.gpt_neox["final_layer_norm"](x) if self._is_last else x

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits from what `forward` returned in the last stage: (n, t, h) -> (n, t, v)."""
        assert self.embed_out is not None
        logits: Tensor = self.embed_out(hidden)
        return logits

    def losses(self, hidden: Tensor, labels: Tensor) -> Losses:
        """The losses of labels, (n, t) int64, from what `forward` returned in the last stage, (n, t, h)."""
        assert self.embed_out is not None
        losses: Losses = self.embed_out(hidden, labels)
        return losses
