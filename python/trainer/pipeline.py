"""Training steps by DeepSpeed's pipeline: each process has some blocks of the model.

The stages of the pipeline compute different micro-batches at the same time, forward and backward in turn
(Narayanan et al. 2019, arXiv:1806.03377; DeepSpeed's `TrainSchedule`). With several copies of the model, the
processes of a stage share its gradients and its optimizer, as all processes do without a pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import AdamW
from trainer.engine import Engine, MicroBatch, StepResult, fault_of, optimizer_of, quiet
from trainer.model.neox import GPTNeoX
from trainer.model.pipeline_stage import PipelineStage


class PipelineEngine(Engine):
    """A model in training, divided into the pipeline stages of `ranks`: ZeRO 1, in fp32 or bf16."""

    def _started(self, model: GPTNeoX, adamw: AdamW, config: dict[str, Any]) -> Any:
        ranks = self._ranks
        self._rows: list[Tensor] = []
        self._hidden_size = model.shape.hidden_size
        self._vocab_size = model.shape.vocab_size
        self._stage_of = {
            name: stage
            for stage in range(ranks.n_stages)
            for name, _ in PipelineStage(model, stage, ranks.n_stages).named_parameters()
        }
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._part = PipelineStage(model, ranks.stage, ranks.n_stages).to(ranks.device)
        with quiet():
            import deepspeed

            # DeepSpeed takes as many layers of each stage: here one, so that the stages are ours.
            layers: list[nn.Module] = [nn.Identity() for _ in range(ranks.n_stages)]
            layers[ranks.stage] = self._part
            module = deepspeed.pipe.PipelineModule(
                layers, num_stages=ranks.n_stages, loss_fn=self._mean_loss, partition_method="uniform"
            )
            engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=optimizer_of(self._part, adamw),
                config=_pipeline_config(config),
            )
        self._own = dict(self._part.named_parameters())
        return engine

    def _own_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        return self._own.items()

    def _parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        for name, shape in self._shapes.items():
            if name in self._own:
                yield name, self._own[name]
            else:
                # Its values are in the processes of another stage: only the shape counts, without memory.
                absent = torch.empty((), device=self._ranks.device).expand(shape)
                yield name, nn.Parameter(absent, requires_grad=False)

    def _mean_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a micro-batch; notes its row losses. DeepSpeed calls it in the last stage."""
        losses = self._part.losses(hidden, labels)
        self._rows.append(losses.rows.detach())
        # The gradient becomes NaN, by which DeepSpeed leaves out the update in every process.
        return losses.mean * torch.where(torch.isfinite(losses.mean.detach()), 1.0, math.nan)

    def step(self, micro_batches: Iterable[MicroBatch], lr: float) -> StepResult:
        """Updates the weights once, as `Engine.step` does; stages but the first and last take no batches."""
        self._set_rate(lr)
        self._rows = []
        self._deepspeed.train_batch((b.tokens[:, :-1], b.tokens[:, 1:]) for b in micro_batches)
        rows = self._row_losses(self._n_micro, self._micro_batch_size)
        mean, norm = float(rows.double().mean()), float(self._deepspeed.get_global_grad_norm())
        return StepResult(mean, norm, rows, fault_of(mean, norm))

    def _row_losses(self, n_micro: int, n_rows: int) -> Tensor:
        """The noted row losses of all copies of the model; every process calls it."""
        none = torch.zeros(n_micro, n_rows, device=self._ranks.device)
        return self._of_all_processes(torch.stack(self._rows) if self._rows else none)

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch]) -> Tensor:
        """The mean loss of each row in nats, as `Engine.evaluate` has it."""
        self._rows = []
        n_micro = n_rows = 0
        for batch in micro_batches:
            hidden = self._through_stages(batch.tokens[:, :-1])
            if hidden is not None:
                self._rows.append(self._part.losses(hidden, batch.tokens[:, 1:].to(self._ranks.device)).rows)
            n_micro, n_rows = n_micro + 1, len(batch.tokens)
        return self._row_losses(n_micro, n_rows)

    def _through_stages(self, tokens: Tensor) -> Tensor | None:
        """The last hidden states, in the last stage; every process of a copy calls it, with the same tokens.

        Shapes: (n, t) int64 -> (n, t, h).
        """
        ranks = self._ranks
        x = tokens.to(ranks.device)
        if ranks.stage > 0:
            dtype = next(self._part.parameters()).dtype
            x = torch.empty(*tokens.shape, self._hidden_size, dtype=dtype, device=ranks.device)
            torch.distributed.recv(x, ranks.rank - ranks.n_replicas)
        x = self._part.forward(x)
        if ranks.stage == ranks.n_stages - 1:
            return x
        torch.distributed.send(x.contiguous(), ranks.rank + ranks.n_replicas)
        return None

    def weights(self) -> dict[str, Tensor]:
        """The model's weights as it computes with them, copies on the CPU; empty but in rank 0.

        Every process calls it. The first copy of the model sends them.
        """
        ranks = self._ranks
        found: dict[str, Tensor] = {}
        dtype = next(self._part.parameters()).dtype
        for name, shape in self._shapes.items():
            own, holder = self._own.get(name), self._stage_of[name] * ranks.n_replicas
            if ranks.is_main and own is None:
                received = torch.empty(shape, dtype=dtype, device=ranks.device)
                torch.distributed.recv(received, holder)
                found[name] = received.cpu()
            elif ranks.is_main and own is not None:
                found[name] = own.detach().to("cpu", copy=True)
            elif own is not None and ranks.rank == holder:
                torch.distributed.send(own.detach().contiguous(), 0)
        return found

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """The model's logits in float32, as `Engine.logits` has them."""
        hidden = self._through_stages(tokens)
        shape = (*tokens.shape, self._vocab_size)
        found = torch.empty(shape, device=self._ranks.device) if hidden is None else self._part.logits(hidden)
        found = found.float().contiguous()
        torch.distributed.broadcast(found, self._ranks.size - 1)
        return found.cpu()


def _pipeline_config(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of DeepSpeed with what its pipeline needs."""
    # Otherwise bf16 loses gradients of the output layer: DeepSpeed zeroes those of a micro-batch before it
    # adds them up, when the gradient of the last hidden states is there, as if no weight came after them.
    bf16 = config["bf16"] | {"immediate_grad_update": True}
    # With a number, `train_batch` prints the loss after as many steps.
    return config | {"bf16": bf16, "steps_per_print": None}
