"""What a run will cost: memory of each GPU, computation, time and disk, by formulas.

P parameters, h width, L blocks, V vocabulary, s tokens of a sequence, N GPUs, w bytes of a weight: 2 in bf16
and fp16, 4 in fp32.

States of a GPU, by stage of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054):

    weights     w P; from stage 3 divided by N, and 2 w max(V h, 12 h h) more of the weights in use
    gradients   4 P, as they are added in fp32; from stage 2 divided by N
    optimizer   12 P: weights in fp32 and Adam's two moments; from stage 1 divided by N. fp32 at stage 0: 8 P

With S pipeline stages, P is (P - 2 V h) / S + V h, of a stage with one of the two large matrices, and N is
the number of GPUs of a stage. The first stage keeps the activations of S micro-batches, of L / S blocks each.

Activations of a sequence, which its backward pass needs:

    blocks      18 w s h L: the input, the outputs of both layer norms, queries and keys, attention's output
                and the same in another layout (7 times h), queries, keys and values before they are rotated
                (3 h), and the MLP (8 h). There is no dropout, and fused attention keeps no scores
                (cf. Korthikanti et al. 2022, arXiv:2205.05198).
    recomputed  w s h (L + 18): the input of each block, and one block
    output      2 (w + 2) s h: the last layer norm's output and its gradient in fp32

The loss, once for each GPU, as the logits of one chunk of c tokens are in memory at a time (`model.loss`):

    logits      8 c V, in fp32 4 c V: logits, the same in fp32, and their gradients
    gradient    4 V h: of the output layer in fp32

Operations of a token, forward and backward, without what is computed again:

    6 (P - V h)   each weight multiplies and adds once forward and twice backward; the embedding is a lookup
    12 L h s      attention to s tokens, counted as PaLM does (arXiv:2204.02311, appendix B)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from pile_tools.errors import ConfigError
from trainer.shape import ModelShape

#: Share of a GPU's memory that states and activations may fill: the rest is CUDA's, the communication's and
#: what is lost between tensors.
USABLE_SHARE = 0.9

#: Tokens whose logits a GPU has in memory, as `trainer.model.loss` has it, which imports torch.
LOSS_CHUNK = 2048

#: Elements of width h that a block keeps for its backward pass; `tests/trainer/test_cost.py` measures them.
BLOCK_ACTIVATIONS = 18

STAGES = (0, 1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is trained, and what memory it has.

    Attributes:
        shape: The model's; `max_positions` is the sequence length.
        batch_size: Sequences of a step.
        precision: `fp32`, `bf16` or `fp16`.
        n_gpus: GPUs, each a process.
        memory: Bytes of a GPU.
        pipeline_stages: Groups of blocks, each on other GPUs.
        offload_optimizer: Whether other memory holds master weights and moments.
    """

    shape: ModelShape
    batch_size: int
    precision: str
    n_gpus: int
    memory: float
    pipeline_stages: int = 1
    offload_optimizer: bool = False

    def __post_init__(self) -> None:
        if self.n_gpus % self.pipeline_stages:
            raise ConfigError(
                f"{self.n_gpus} GPUs are not a multiple of {self.pipeline_stages} pipeline stages"
            )
        if self.batch_size % self.n_replicas:
            what = f"{self.n_gpus} GPUs" if self.pipeline_stages == 1 else f"{self.n_replicas} copies"
            raise ConfigError(
                f"a batch of {self.batch_size} sequences cannot be divided among {what}; "
                f"their number must divide it"
            )

    @property
    def n_replicas(self) -> int:
        """Copies of the model."""
        return self.n_gpus // self.pipeline_stages

    @property
    def share(self) -> int:
        """Sequences of a step for each copy of the model."""
        return self.batch_size // self.n_replicas

    @property
    def stage_parameters(self) -> int:
        """Weights of the largest pipeline stage; without a pipeline, of the model."""
        if self.pipeline_stages == 1:
            return self.shape.n_parameters
        of_matrix = self.shape.vocab_size * self.shape.hidden_size
        return (self.shape.n_parameters - 2 * of_matrix) // self.pipeline_stages + of_matrix

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight in computation and in a checkpoint."""
        return 4 if self.precision == "fp32" else 2


@dataclass(frozen=True, kw_only=True)
class Job(Setup):
    """A whole run.

    Attributes:
        steps: Updates.
        n_checkpoints: Folders that are published.
        tflops: Peak of a GPU in 10^12 operations a second.
        utilization: Share of the peak that training reaches.
    """

    steps: int
    n_checkpoints: int
    tflops: float
    utilization: float

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a step trains on."""
        return self.batch_size * self.shape.max_positions


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a GPU at a stage of ZeRO, and what fits beside them.

    Attributes:
        stage: 0 to 3.
        weights: Of the model.
        gradients: Of all weights.
        optimizer: AdamW's.
        rows: Largest micro-batch that fits and divides the GPU's share of the batch; 0 if none does.
        rows_recomputed: The same with activation checkpointing.
    """

    stage: int
    weights: int
    gradients: int
    optimizer: int
    rows: int
    rows_recomputed: int

    @property
    def states(self) -> int:
        """Bytes without activations."""
        return self.weights + self.gradients + self.optimizer


def stage_memory(setup: Setup, stage: int) -> StageMemory:
    """The memory of a GPU at a stage of ZeRO."""
    plain, recomputed = (fitting_rows(setup, stage, recompute=flag) for flag in (False, True))
    return StageMemory(stage, *_states(setup, stage), plain, recomputed)


def fitting_rows(setup: Setup, stage: int, *, recompute: bool, at_most: int | None = None) -> int:
    """The largest micro-batch that fits beside the states; 0 if none does.

    Args:
        setup: The model and its memory.
        stage: Of ZeRO.
        recompute: With activation checkpointing.
        at_most: The largest micro-batch that is of use; all divide a GPU's share of the batch.
    """
    free = setup.memory * USABLE_SHARE - sum(_states(setup, stage)) - loss_bytes(setup)
    n_fitting = int(max(0.0, free) // activations(setup, recompute=recompute))
    largest = min(n_fitting, setup.share if at_most is None else at_most)
    return max((rows for rows in _divisors(setup.share) if rows <= largest), default=0)


@functools.cache
def _divisors(n: int) -> list[int]:
    """The divisors of a share of a batch. A second for the largest batch: counting down would have no end."""
    small = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return [*small, *(n // k for k in small)]


def _states(job: Setup, stage: int) -> tuple[int, int, int]:
    n_parameters, n_gpus, width = job.stage_parameters, job.n_replicas, job.weight_bytes
    moments_alone = stage == 0 and job.precision == "fp32"
    optimizer = (8 if moments_alone else 12) * n_parameters
    if job.offload_optimizer:
        optimizer = 0
    weights, gradients = width * n_parameters, 4 * n_parameters
    if stage >= 1:
        optimizer = -(-optimizer // n_gpus)
    if stage >= 2:
        gradients = -(-gradients // n_gpus)
    if stage >= 3:
        hidden = job.shape.hidden_size
        in_use = 2 * width * max(job.shape.vocab_size * hidden, 12 * hidden**2)
        weights = min(weights, -(-weights // n_gpus) + in_use)
    return weights, gradients, optimizer


def activations(job: Setup, *, recompute: bool) -> int:
    """Bytes of the activations of one sequence."""
    shape, width = job.shape, job.weight_bytes
    n_kept = shape.n_layers + BLOCK_ACTIVATIONS if recompute else BLOCK_ACTIVATIONS * shape.n_layers
    return shape.max_positions * shape.hidden_size * (width * n_kept + 2 * (width + 2))


def loss_bytes(job: Setup) -> int:
    """Bytes in which the loss and its gradients are computed, whatever the micro-batch."""
    per_logit = 4 if job.precision == "fp32" else 8
    return job.shape.vocab_size * (per_logit * LOSS_CHUNK + 4 * job.shape.hidden_size)


def flops_per_token(shape: ModelShape) -> int:
    """Operations of a token forward and backward; see the module."""
    n_multiplied = shape.n_parameters - shape.vocab_size * shape.hidden_size
    return 6 * n_multiplied + 12 * shape.n_layers * shape.hidden_size * shape.max_positions


def days(job: Job) -> float:
    """Days of all steps, without validation and saving."""
    n_flops = flops_per_token(job.shape) * job.tokens_per_step * job.steps
    return n_flops / (job.n_gpus * job.tflops * 1e12 * job.utilization) / 86_400


def checkpoint_bytes(job: Job) -> int:
    """Bytes of the weights of one checkpoint."""
    return job.weight_bytes * job.shape.n_parameters


def state_bytes(job: Job) -> int:
    """Bytes of one state to resume from: weights in fp32 and two moments."""
    return 12 * job.shape.n_parameters
