"""Training steps by DeepSpeed, over the processes that torchrun started, or over this one alone.

Only this module and `pipeline` import DeepSpeed. On a machine without CUDA it runs on the CPU, over gloo.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pile_tools.errors import ConfigError, PileError
from pile_tools.terminal import note
from trainer import failures, signals
from trainer.config import AdamW, Recipe, Sharding
from trainer.launcher import process_count
from trainer.model.loss import Losses
from trainer.model.neox import GPTNeoX
from trainer.partitions import KINDS, SCALER_VALUES, partitions, set_updates, updates
from trainer.ranks import Processes


@dataclass(frozen=True)
class StepResult:
    """What a step measured.

    Attributes:
        loss: The mean loss over the step's whole batch, in nats, before the update.
        grad_norm: The gradient's norm before clipping.
        row_losses: The mean loss of each row of the batch over its tokens, in nats: (n,) float32 on the CPU,
            the rows of all processes in the order of the step's samples; None if they were not computed.
        fault: Why the weights were left as they were: what was not finite; None if they were updated.
    """

    loss: float
    grad_norm: float
    row_losses: Tensor | None
    fault: str | None = None


@dataclass(frozen=True)
class MicroBatch:
    """The rows that a process computes at once.

    Attributes:
        tokens: (micro_batch_size, seq_length + 1) int64.
        positions: Of each token in its document, of the same shape, int32, where attention stays within
            documents; else None.
    """

    tokens: Tensor
    positions: Tensor | None = None


@contextlib.contextmanager
def processes(seed: int, n_stages: int = 1) -> Iterator[Processes]:
    """Joins the processes of a run, and leaves them at the end.

    Args:
        seed: Of torch's generators.
        n_stages: Pipeline stages of the run.

    Raises:
        PileError: DeepSpeed's communication needs compiling and there is no compiler.
        ConfigError: The launcher's variables are incomplete or contradict each other.
        MachineError: The processes do not find each other, or may open too few files.
    """
    rank, size = process_count()
    failures.check_open_files(size)
    _set_environment()
    _check_meeting_point()
    torch.manual_seed(seed)
    has_cuda = torch.cuda.is_available()
    if not has_cuda:
        _announce_compilation(rank)
    with failures.named(), quiet():
        import deepspeed

        with signals.ending_at_once():
            backend = "nccl" if has_cuda else "gloo"
            deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_cuda else torch.device("cpu")
    try:
        yield Processes(rank, size, device, n_stages)
    finally:
        # A failure to take leave hides the one that led here.
        with contextlib.suppress(RuntimeError):
            torch.distributed.destroy_process_group()


def _set_environment() -> None:
    """What DeepSpeed reads: its device, the compiler's driver `ninja`, and where the processes meet."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    scripts = str(Path(sys.executable).parent)
    if shutil.which("ninja") is None and shutil.which("ninja", path=scripts):
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(_free_port()))


def _check_meeting_point() -> None:
    """Raises MachineError where the launcher's address has no host: torch looks for it for half an hour."""
    address = os.environ["MASTER_ADDR"]
    for is_last in (False, False, False, False, True):
        try:
            socket.getaddrinfo(address, None)
            return
        except (OSError, UnicodeError) as err:
            if is_last:
                raise failures.MachineError(f"MASTER_ADDR {address!r} is not found: {err}") from None
            # Names of new nodes take some seconds to be known.
            time.sleep(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _announce_compilation(rank: int) -> None:
    """Says that the first run compiles, or raises PileError if it could not."""
    from torch.utils import cpp_extension

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    if any(root.rglob("deepspeed_shm_comm*.so")):
        return
    missing = [tool for tool in ("c++", "ninja") if shutil.which(tool) is None]
    if missing:
        raise PileError(f"DeepSpeed compiles its CPU communication once and needs {missing[0]}; install it")
    if rank == 0:
        message = "DeepSpeed compiles its CPU communication operation once; this takes a minute or two ..."
        note(message, err=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps DeepSpeed's and torch's chatter from the user, errors excepted."""
    for name in ("DeepSpeed", "torch.distributed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


class Engine:
    """A model in training.

    Args:
        model: Moved to the process's device; its weights are the same in every process.
        recipe: Sizes, precision and optimizer.
        ranks: The processes that train together.
        sharding: What DeepSpeed divides among them.

    Raises:
        ConfigError: The machine cannot train so.
    """

    def __init__(self, model: GPTNeoX, recipe: Recipe, ranks: Processes, sharding: Sharding) -> None:
        self._ranks, self._stage = ranks, sharding.zero_stage
        self._clipping = recipe.optimizer.gradient_clipping
        check_machine(recipe.precision, ranks.device)
        self._micro_batch_size, self._n_micro = recipe.split(ranks.size, sharding)
        config = _deepspeed_config(recipe, sharding, self._micro_batch_size, self._n_micro)
        self._deepspeed = self._started(model, recipe.optimizer, config)
        self._partitions = partitions(self._deepspeed, self._stage)
        if self._scaler:
            # Whoever trains stops after too many skipped steps.
            self._scaler.raise_error_at_min_scale = False

    def _started(self, model: GPTNeoX, adamw: AdamW, config: dict[str, Any]) -> Any:
        """The DeepSpeed engine of the model."""
        with quiet():
            import deepspeed

            engine, *_ = deepspeed.initialize(
                model=model.to(self._ranks.device), optimizer=optimizer_of(model, adamw), config=config
            )
        return engine

    def _own_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters that this process computes with, by name."""
        found: Iterable[tuple[str, nn.Parameter]] = self._deepspeed.module.named_parameters()
        return found

    def _parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters of the whole model, by name, in the same order in every process."""
        return self._own_parameters()

    def step(self, micro_batches: Iterable[MicroBatch], lr: float) -> StepResult:
        """Updates the weights once, unless loss or gradient is not finite.

        Args:
            micro_batches: This process's, all of the step.
            lr: The learning rate of this update.
        """
        self._set_rate(lr)
        rows = []
        for number, batch in enumerate(micro_batches, 1):
            losses = self._losses(batch)
            rows.append(losses.rows.detach())
            loss = losses.mean
            if number == self._n_micro:
                row_losses = self._of_all_processes(torch.stack(rows))
                mean = float(row_losses.double().mean())
                if not math.isfinite(mean):
                    # The gradient of every process becomes NaN, by which DeepSpeed leaves out the update.
                    loss = loss * math.nan
            self._deepspeed.backward(loss)
            if number == self._n_micro and self._stage == 0:
                norm = self._clip()
            # DeepSpeed updates the weights in the `step` after the last micro-batch.
            self._deepspeed.step()
        if self._stage != 0:
            norm = float(self._deepspeed.get_global_grad_norm())
        return StepResult(mean, norm, row_losses, fault_of(mean, norm))

    def _set_rate(self, lr: float) -> None:
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch]) -> Tensor:
        """The mean loss of each row in nats, of all processes as in a step; the weights are left as they are.

        Args:
            micro_batches: This process's, as many as in all others.

        Shapes: (rows of all processes,) float32, on the CPU.
        """
        self._deepspeed.eval()
        rows = [self._losses(batch).rows for batch in micro_batches]
        self._deepspeed.train()
        return self._of_all_processes(torch.stack(rows))

    def _losses(self, batch: MicroBatch) -> Losses:
        tokens = batch.tokens.to(self._ranks.device)
        positions = None if batch.positions is None else batch.positions[:, :-1].to(self._ranks.device)
        found: Losses = self._deepspeed(tokens[:, :-1], labels=tokens[:, 1:], positions=positions)
        return found

    def _of_all_processes(self, rows: Tensor) -> Tensor:
        """The row losses of a step in the order of its samples: (micro-batches, rows) -> (n,) on the CPU."""
        of_ranks = [torch.empty_like(rows) for _ in range(self._ranks.size)]
        torch.distributed.all_gather(of_ranks, rows)
        # Of a pipeline, only the last stage has losses.
        of_replicas = of_ranks[-self._ranks.n_replicas :]
        # GPT-NeoX deals micro-batches to ranks in turn: see `micro_batches`.
        return torch.stack(of_replicas, dim=1).flatten().cpu()

    def _clip(self) -> float:
        """Clips the gradient, or removes it if it is not finite, and returns its norm: without ZeRO only.

        DeepSpeed's own clipping has no norm to show and updates with NaN.
        """
        parameters = [p for p in self._deepspeed.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if not math.isfinite(norm):
            # AdamW passes over parameters without a gradient.
            for parameter in parameters:
                parameter.grad = None
        elif self._clipping > 0:
            nn.utils.clip_grads_with_norm_(parameters, self._clipping, norm)
        return float(norm)

    def weights(self) -> dict[str, Tensor]:
        """The model's weights as it computes with them, copies on the CPU; empty but in rank 0.

        Every process calls it.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in self._own_parameters():
            with self._whole(parameter):
                if self._ranks.is_main:
                    found[name] = parameter.detach().to("cpu", copy=True)
        return found

    def _whole(self, parameter: nn.Parameter) -> contextlib.AbstractContextManager[None]:
        if self._stage < 3:
            return contextlib.nullcontext()
        import deepspeed

        gathered: contextlib.AbstractContextManager[None] = deepspeed.zero.GatheredParameters([parameter])
        return gathered

    def snapshot(self, owner: Callable[[str], int]) -> dict[str, Tensor]:
        """Copies on the CPU of the fp32 weights and moments that this process is to write, by `KIND/NAME`.

        Every process calls it. One parameter is gathered at a time.

        Args:
            owner: The rank of the process that gets a parameter's values, by the parameter's name.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in self._parameters():
            rank = owner(name)
            for kind in KINDS:
                value = self._partitions.gather(parameter, kind, rank)
                if value is not None:
                    found[f"{kind}/{name}"] = value.cpu()
        return found

    @property
    def adam_updates(self) -> int:
        """The updates that Adam has counted: those that were not skipped."""
        return updates(self._deepspeed, self._stage)

    @property
    def loss_scale(self) -> dict[str, float] | None:
        """The state of fp16's loss scaling; None in fp32 and bf16."""
        scaler = self._scaler
        return {name: float(getattr(scaler, name)) for name in SCALER_VALUES} if scaler else None

    @property
    def _scaler(self) -> Any:
        scaler = getattr(self._deepspeed.optimizer, "loss_scaler", None)
        return scaler if getattr(scaler, "dynamic", False) else None

    def restore(
        self, value: Callable[[str, str], Tensor], adam_updates: int, loss_scale: dict[str, float] | None
    ) -> None:
        """Continues from saved values; every process calls it.

        Args:
            value: The saved value of a kind and a parameter's name, float32 on the CPU.
            adam_updates: As `adam_updates` was.
            loss_scale: As `loss_scale` was.
        """
        for name, parameter in self._own_parameters():
            for kind in KINDS:
                self._partitions.scatter(parameter, kind, value(kind, name))
        set_updates(self._deepspeed, self._stage, adam_updates)
        self._partitions.refresh()
        if self._scaler and loss_scale:
            for name, type_of in SCALER_VALUES.items():
                setattr(self._scaler, name, type_of(loss_scale[name]))

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """The model's logits; every process calls it, with the same tokens.

        Shapes: (n, t) int64 -> (n, t, v) on the CPU.
        """
        found: Tensor = self._deepspeed.module(tokens.to(self._ranks.device))
        return found.cpu()


def fault_of(loss: float, grad_norm: float) -> str | None:
    """Why a step with this loss and gradient changes no weights; None if it does."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return None if math.isfinite(grad_norm) else "the gradient is not finite"


def check_machine(precision: str, device: torch.device) -> None:
    """Raises ConfigError for a precision in which this device does not train."""
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError('precision = "fp16" needs a GPU; on a CPU take fp32 or bf16')


def optimizer_of(model: nn.Module, config: AdamW) -> torch.optim.Optimizer:
    """Torch's AdamW; weight decay for matrices only, as GPT-NeoX has it."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _deepspeed_config(
    recipe: Recipe, sharding: Sharding, micro_batch_size: int, n_micro: int
) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": sharding.zero_stage}
    if sharding.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": n_micro,
        "gradient_clipping": recipe.optimizer.gradient_clipping if sharding.zero_stage else 0.0,
        "bf16": {"enabled": recipe.precision == "bf16"},
        # GPT-NeoX's values. A loss_scale of 0 is found while training.
        "fp16": {
            "enabled": recipe.precision == "fp16",
            "loss_scale": 0,
            "initial_scale_power": 12,
            "loss_scale_window": 1000,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        # Sums in bf16 lose small gradients: with 512 micro-batches the norm is 10 % off.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        # The optimizer is torch's: DeepSpeed's own for CPUs takes minutes to compile.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
