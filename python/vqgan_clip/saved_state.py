"""States of runs in safetensors files, from which a run continues bit-identically."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump
from torch import Tensor

from pile_tools import checked, files, publish
from pile_tools.errors import FormatError, OutputExistsError, first_line

#: Key of the header, whose value is the digest of what the run makes, and that of the tensors. One key, as
#: safetensors writes several in any order, and the same state is to have the same bytes.
_KEY = "vqgan-clip state of"


def save(path: Path, state: Mapping[str, Tensor], job: str) -> None:
    """Publishes a state; an older one of the same job is replaced.

    Raises:
        OutputExistsError: A file that is no state of this job has this name.
        OSError: The file cannot be written.
    """

    def fill(temporary: Path) -> None:
        # Written by ourselves: safetensors' error for a full disk is none of the system's.
        data = dump(dict(state), {_KEY: f"{job} {_digest(state)}"})
        with files.new_file(temporary) as file:
            file.write(data)

    publish.write_file(
        path,
        fill,
        # Another run may have written since `load`.
        is_ours=lambda head: _is_of(job, head),
        or_else="give the state another name",
    )


def is_there(path: Path, job: str) -> bool:
    """Whether a file is a state of a run that makes `job`; a pipe or device may be."""
    return publish.is_stream(path) or (path.is_file() and _is_of(job, publish.first_bytes(path)))


def _is_of(job: str, head: bytes) -> bool:
    # The metadata are the first entry of the header.
    return f'"{_KEY}":"{job} '.encode() in head


def load(path: Path, job: str) -> dict[str, Tensor] | None:
    """The state of a run that makes `job`; None if there is none.

    Raises:
        FormatError: A damaged file, whose tensors have another checksum, or no state.
        OutputExistsError: The state of a run with other settings or inputs.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return None
    checked.open_regular(path).close()
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            found, _, digest = (header or "").partition(" ")
            # Another file may be larger than memory. A copy: the tensors are views of the mapped file, which
            # another process may cut short.
            names = file.keys() if found == job else ()
            state = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, RuntimeError) as err:
        raise FormatError(f"not a state of vqgan-clip: {first_line(err)} ({path})") from err
    if header is None:
        raise FormatError(f"not a state of vqgan-clip ({path})")
    if found != job:
        raise OutputExistsError(
            f"is the state of a run with other settings or files; give another file ({path})"
        )
    if _digest(state) != digest:
        raise FormatError(f"a damaged state of vqgan-clip; remove it to start again ({path})")
    return state


def _digest(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
