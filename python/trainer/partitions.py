"""Master weights and Adam's moments of whole parameters, however DeepSpeed divides them among processes.

Only `engine` reads and writes them here; saved states have the names in `KINDS` and `SCALER_VALUES`. Each
ZeRO stage stores them differently:

    0       every process has the parameters themselves, and torch's AdamW has a state for each
    1, 2    the parameters of a group are flattened, and each process has a range of them
    3       each process has an equal share of every parameter, padded at the end
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pile_tools.errors import PileError

#: What a parameter has in fp32: its master weight, and Adam's running averages of gradient and square.
WEIGHT, FIRST_MOMENT, SECOND_MOMENT = "weight", "exp_avg", "exp_avg_sq"
KINDS = (WEIGHT, FIRST_MOMENT, SECOND_MOMENT)

#: What a loss scaler changes while it trains, with the types of these values.
SCALER_VALUES: dict[str, type[float] | type[int]] = {
    "cur_scale": float,
    "cur_iter": int,
    "last_overflow_iter": int,
    "cur_hysteresis": int,
}


class Partitions(Protocol):
    """The fp32 values of a model in training, by parameter; every process makes the same calls."""

    def gather(self, parameter: nn.Parameter, kind: str, owner: int) -> Tensor | None:
        """The whole value in the process `owner`, a copy in its device's memory; None in the others.

        Shapes: that of the parameter, float32.
        """

    def scatter(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        """Replaces this process's share by that of a whole value, float32 on the CPU."""

    def refresh(self) -> None:
        """Makes the weights that the model computes with those of the master weights."""


def partitions(engine: Any, stage: int) -> Partitions:
    """Access to the values of a DeepSpeed engine, whose AdamW then has moments for every parameter.

    Torch creates them at the first update. Created here, as zeros and with no update counted, they are the
    same, and can be read and replaced before it.
    """
    optimizer = engine.optimizer
    if stage == 0:
        return _Whole(optimizer)
    if stage == 3:
        return _Shared(optimizer)
    return _Flattened(optimizer)


def updates(engine: Any, stage: int) -> int:
    """The updates that Adam has counted, by which it corrects its averages. They are the same for all."""
    counts = {int(state["step"]) for state in _states(engine, stage)}
    if len(counts) != 1:
        raise PileError(f"Adam's counts of updates differ: {sorted(counts)}")
    return counts.pop()


def set_updates(engine: Any, stage: int, count: int) -> None:
    """Replaces the updates that Adam has counted."""
    for state in _states(engine, stage):
        state["step"].fill_(count)


def _states(engine: Any, stage: int) -> Iterator[dict[str, Tensor]]:
    optimizer = engine.optimizer if stage == 0 else engine.optimizer.optimizer
    yield from optimizer.state.values()


def _create_moments(optimizer: torch.optim.Optimizer, tensors: list[Tensor]) -> None:
    for tensor in tensors:
        # The fused AdamW counts on the device of the weights.
        state = {"step": torch.zeros((), dtype=torch.float32, device=tensor.device)}
        for name in (FIRST_MOMENT, SECOND_MOMENT):
            state[name] = torch.zeros_like(tensor, memory_format=torch.preserve_format).detach()
        optimizer.state[tensor] = state


class _Whole:
    """Without ZeRO: every process has everything."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        _create_moments(optimizer, [p for group in optimizer.param_groups for p in group["params"]])

    def _value(self, parameter: nn.Parameter, kind: str) -> Tensor:
        found: Tensor = parameter.detach() if kind == WEIGHT else self._optimizer.state[parameter][kind]
        return found

    def gather(self, parameter: nn.Parameter, kind: str, owner: int) -> Tensor | None:
        return self._value(parameter, kind).clone() if torch.distributed.get_rank() == owner else None

    def scatter(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        self._value(parameter, kind).copy_(value)

    def refresh(self) -> None:
        pass


class _Flattened:
    """ZeRO 1 and 2, and DeepSpeed's optimizer for bf16: `_hp_mapping` is this process's range."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        is_bf16 = hasattr(optimizer, "fp32_groups_flat_partition")
        flat = optimizer.fp32_groups_flat_partition if is_bf16 else optimizer.single_partition_of_fp32_groups
        _create_moments(optimizer.optimizer, flat)
        optimizer._lazy_init_hp_params_optimizer_state()

    def _range(self, parameter: nn.Parameter, kind: str) -> tuple[Tensor, int] | None:
        """This process's values, flat, and the index of the first in the whole; None if it has none."""
        # A parameter of another pipeline stage has no mapping.
        mapping = getattr(parameter, "_hp_mapping", None)
        if mapping is None:
            return None
        fragment: Tensor = mapping.get_hp_fragment(None if kind == WEIGHT else kind)
        return fragment.detach(), mapping.lp_fragment_address.start

    def gather(self, parameter: nn.Parameter, kind: str, owner: int) -> Tensor | None:
        found = self._range(parameter, kind)
        whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
        if found is not None:
            values, start = found
            whole[start : start + values.numel()] = values
        # As integers: the sum with the zeros of the other processes would turn -0.0 into 0.0.
        torch.distributed.reduce(whole.view(torch.int32), owner)
        return whole.view(parameter.shape) if torch.distributed.get_rank() == owner else None

    def scatter(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        found = self._range(parameter, kind)
        if found is not None:
            values, start = found
            values.copy_(value.flatten()[start : start + values.numel()])

    def refresh(self) -> None:
        self._optimizer.update_lp_params()


class _Shared:
    """ZeRO 3: equal shares of each parameter."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        _create_moments(optimizer.optimizer, optimizer.fp32_partitioned_groups_flat)

    def gather(self, parameter: nn.Parameter, kind: str, owner: int) -> Tensor | None:
        whole = self._optimizer.get_full_hp_param(parameter, None if kind == WEIGHT else kind)
        # It may be a view of a padded buffer.
        return whole.detach().clone() if torch.distributed.get_rank() == owner else None

    def scatter(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        key = None if kind == WEIGHT else kind
        share = self._optimizer.get_local_fp32_param(parameter, key)
        start = torch.distributed.get_rank() * share.numel()
        mine = value.flatten()[start : start + share.numel()]
        padded = torch.zeros(share.numel(), dtype=torch.float32)
        padded[: mine.numel()] = mine
        self._optimizer.set_local_hp_param(padded.to(share.device), parameter, key)

    def refresh(self) -> None:
        optimizer = self._optimizer
        # As DeepSpeed ends an update: its shares first, then the small parameters, which all processes have.
        optimizer._partition_all_parameters()
        for number in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(number)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
