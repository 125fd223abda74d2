"""How many sequences a process takes at once, where the config does not say it: as many as fit its memory.

The memory is the device's whole one, not what is free at the moment: the number changes the rounding of the
losses, and the same command on the same machine leaves the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from trainer.config import Recipe, Sharding
from trainer.cost import Setup, fitting_rows
from trainer.run import Stretch

#: Share of a machine's memory that its processes may fill together, where they compute on the CPU: the system
#: and the page cache with the data have the rest.
CPU_SHARE = 0.5

#: Set by torchrun and by DeepSpeed's launcher: the processes of this machine.
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")


def process_memory(device: torch.device, n_processes: int) -> int:
    """Bytes of memory that this process may take on its device.

    Args:
        device: Where it computes.
        n_processes: Of the run; they share a machine unless the launcher says otherwise.
    """
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return int(total)
    return int(_machine_memory() * CPU_SHARE) // _n_local(n_processes, os.environ)


def _n_local(n_processes: int, environment: Mapping[str, str]) -> int:
    for name in _LOCAL_SIZES:
        text = environment.get(name, "")
        if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= n_processes:
            return int(text)
    return n_processes


def _machine_memory(group: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of the machine, or of the control group (version 2) of this process, if it has fewer."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(group.read_text()))
    except (OSError, ValueError):
        # No such group, or `max`: no limit.
        return total


def micro_batch(
    recipe: Recipe,
    sharding: Sharding,
    n_processes: int,
    memory: int,
    *,
    recompute: bool,
    is_offloaded: bool,
    before: Stretch | None,
) -> tuple[int, str | None]:
    """Sequences at once, and what to say of them, if something is.

    Without a number in the config they are as before with as many processes and the same sharding, else the
    largest part of a copy's share that fits by the formulas of `cost`.

    Args:
        recipe: The run's.
        sharding: What is divided among the processes.
        n_processes: Processes.
        memory: Bytes that the least of them may take.
        recompute: With activation checkpointing.
        is_offloaded: Whether other memory has the optimizer's states.
        before: How the run was trained before, if it was.
    """
    size, _ = recipe.split(n_processes, sharding)
    if recipe.micro_batch_size is not None:
        return size, None
    if before is not None and _is_as_before(before, sharding, n_processes):
        return before.micro_batch_size, None
    setup = Setup(
        shape=recipe.shape,
        batch_size=recipe.batch_size,
        precision=recipe.precision,
        n_gpus=n_processes,
        memory=memory,
        pipeline_stages=sharding.pipeline_stages,
        offload_optimizer=is_offloaded,
    )
    fitting = fitting_rows(setup, sharding.zero_stage, recompute=recompute, at_most=size)
    if fitting == size:
        return size, None
    of = f"the {memory / 1e9:,.3g} GB of a process"
    if fitting:
        return fitting, f"micro_batch_size {fitting}: by estimate, not more fit {of}"
    less = "activation_checkpointing, another zero_stage, or more processes need less"
    return 1, f"micro_batch_size 1: by estimate, not even that fits {of}; {less}"


def _is_as_before(before: Stretch, sharding: Sharding, n_processes: int) -> bool:
    found = (before.processes, before.zero_stage, before.offload_optimizer, before.pipeline_stages)
    return found == (
        n_processes,
        sharding.zero_stage,
        sharding.offload_optimizer,
        sharding.pipeline_stages,
    )
