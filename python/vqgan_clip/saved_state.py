"""States of runs in safetensors files, from which a run continues bit-identically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pile_tools import checked, publish
from pile_tools.errors import FormatError, OutputExistsError, first_line

#: Key of the header, whose value is the digest of what the run makes.
_KEY = "vqgan-clip state of"


def save(path: Path, state: Mapping[str, Tensor], job: str) -> None:
    """Publishes a state; an older one is replaced.

    Raises:
        OutputExistsError: A file that is no state has this name.
        OSError: The file cannot be written.
    """
    publish.write_file(
        path,
        lambda temporary: save_file(dict(state), temporary, {_KEY: job}),
        # The metadata are the first entry of the header.
        is_ours=lambda head: _KEY.encode() in head,
        or_else="give the state another name",
    )


def load(path: Path, job: str) -> dict[str, Tensor] | None:
    """The state of a run that makes `job`; None if there is none.

    Raises:
        FormatError: A damaged file, or no state.
        OutputExistsError: The state of a run with other settings.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return None
    checked.open_regular(path).close()
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get(_KEY)
            # Another file may be larger than memory. A copy: the tensors are views of the mapped file, which
            # another process may cut short.
            names = file.keys() if found == job else ()
            state = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, RuntimeError) as err:
        raise FormatError(f"not a state of vqgan-clip: {first_line(err)} ({path})") from err
    if found is None:
        raise FormatError(f"not a state of vqgan-clip ({path})")
    if found != job:
        raise OutputExistsError(f"is the state of a run with other settings; give another file ({path})")
    return state
