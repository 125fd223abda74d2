"""Training steps by DeepSpeed: ZeRO-1 over the processes that torchrun started, or over this one alone.

The only module that imports DeepSpeed. On a machine without CUDA it runs on the CPU, over gloo.
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pile_tools.errors import PileError
from pile_tools.terminal import note
from trainer import failures
from trainer.config import AdamW, Recipe
from trainer.launcher import process_count
from trainer.model.loss import Losses
from trainer.model.neox import GPTNeoX
from trainer.ranks import Processes

#: The folder that DeepSpeed makes in a state's.
TAG = "state"


class StateWriter(Protocol):
    """Writes a file of a training state."""

    def save(self, state_dict: object, path: str) -> None:
        """Writes `state_dict`."""


class StateReader(Protocol):
    """Reads a file of a training state."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """What `StateWriter.save` wrote."""


class TrainingError(PileError):
    """Training cannot go on: the loss or the gradient is not a number."""


@dataclass(frozen=True)
class StepResult:
    """What a step measured.

    Attributes:
        loss: The mean loss over the step's whole batch, in nats.
        grad_norm: The gradient's norm before clipping.
        row_losses: The mean loss of each row of the batch over its tokens, in nats: (n,) float32 on the CPU,
            the rows of all processes in the order of the step's samples.
    """

    loss: float
    grad_norm: float
    row_losses: Tensor


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
def processes(seed: int) -> Iterator[Processes]:
    """Joins the processes of a run, and leaves them at the end.

    Args:
        seed: Of torch's generators.

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
    with failures.named(), _quiet():
        import deepspeed

        deepspeed.init_distributed("nccl" if has_cuda else "gloo", auto_mpi_discovery=False, verbose=False)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_cuda else torch.device("cpu")
    try:
        yield Processes(rank, size, device)
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
def _quiet() -> Iterator[None]:
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
    """

    def __init__(self, model: GPTNeoX, recipe: Recipe, ranks: Processes) -> None:
        self._ranks = ranks
        micro_batch_size, self._n_micro = recipe.split(ranks.size)
        with _quiet():
            import deepspeed

            self._deepspeed, *_ = deepspeed.initialize(
                model=model.to(ranks.device),
                optimizer=_optimizer(model, recipe.optimizer),
                config=_deepspeed_config(recipe, micro_batch_size, self._n_micro),
            )

    @property
    def model(self) -> GPTNeoX:
        """The model with its current weights."""
        module: GPTNeoX = self._deepspeed.module
        return module

    def step(self, micro_batches: Iterable[MicroBatch], lr: float) -> StepResult:
        """Updates the weights once.

        Args:
            micro_batches: This process's, all of the step.
            lr: The learning rate of this update.

        Raises:
            TrainingError: Loss or gradient is not finite; the weights are as they were.
        """
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = lr
        rows = []
        for number, batch in enumerate(micro_batches, 1):
            losses = self._losses(batch)
            self._deepspeed.backward(losses.mean)
            rows.append(losses.rows.detach())
            # DeepSpeed updates the weights in the `step` after the last micro-batch.
            if number == self._n_micro:
                row_losses = self._of_all_processes(torch.stack(rows))
                mean = _finite_mean(row_losses)
            self._deepspeed.step()
        # DeepSpeed has left out an update whose norm is not finite, in fp32 and in bf16.
        grad_norm = float(self._deepspeed.get_global_grad_norm())
        if not math.isfinite(grad_norm):
            raise TrainingError(f"the gradient's norm is {grad_norm}")
        return StepResult(mean, grad_norm, row_losses)

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
        # GPT-NeoX deals micro-batches to ranks in turn: see `micro_batches`.
        return torch.stack(of_ranks, dim=1).flatten().cpu()

    def save(self, folder: Path, files: StateWriter) -> None:
        """Writes weights and optimizer so that `load` continues bit for bit; every process calls it.

        Args:
            folder: An existing folder; the files go into `TAG` in it.
            files: Writes each file.
        """
        self._deepspeed.checkpoint_engine.save = files.save
        with _quiet():
            self._deepspeed.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def load(self, folder: Path, files: StateReader) -> None:
        """Restores what `save` wrote, with as many processes as then.

        Args:
            folder: The state's folder.
            files: Reads each file: DeepSpeed's own reader would run any code in it.
        """
        self._deepspeed.checkpoint_engine.load = files.load
        with _quiet():
            path, _ = self._deepspeed.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise PileError(f"no training state; force starts again ({folder})")


def _finite_mean(row_losses: Tensor) -> float:
    """Their mean in float64. Raises TrainingError where it is not finite, before a bad update is made."""
    mean = float(row_losses.double().mean())
    if not math.isfinite(mean):
        raise TrainingError(f"the loss is {mean}")
    return mean


def _optimizer(model: GPTNeoX, config: AdamW) -> torch.optim.Optimizer:
    """Torch's AdamW; weight decay for matrices only, as GPT-NeoX has it."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _deepspeed_config(recipe: Recipe, micro_batch_size: int, n_micro: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": n_micro,
        "gradient_clipping": recipe.optimizer.gradient_clipping,
        "bf16": {"enabled": recipe.precision == "bf16"},
        # Sums in bf16 lose small gradients: with 512 micro-batches the norm is 10 % off.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {"stage": 1},
        # The optimizer is torch's: DeepSpeed's own for CPUs takes minutes to compile.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
