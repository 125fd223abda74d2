"""Reads the tensors of a file of `torch.save`, without running the code that its pickle names.

A checkpoint of taming-transformers is one of PyTorch Lightning: its pickle names Lightning's classes. Here,
each becomes a class that does nothing; every other name that tensors do not need is refused before anything
is built.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pile_tools import files
from pile_tools.errors import FormatError, first_line
from pile_tools.pickles import Global, Inert
from pile_tools.torch_files import check_pickles

#: Packages whose classes appear in checkpoints beside the tensors.
_INERT_PACKAGES = ("pytorch_lightning", "lightning", "omegaconf")

#: What a pickle of tensors and of a scheduler's counts names.
_TENSOR_GLOBALS = frozenset(
    {
        *(("collections", "OrderedDict"), ("collections", "Counter"), ("torch", "Size"), ("torch", "device")),
        *(("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")),
        *(("torch", f"{kind}Storage") for kind in ("Float", "Half", "BFloat16", "Double")),
        *(("torch", f"{kind}Storage") for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long")),
    }
)

#: What torch raises for a file that is not what `torch.save` writes.
_UNPICKLING_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, OverflowError, NotImplementedError, RecursionError),
)


def check_weights(path: Path) -> None:
    """Raises FormatError for a file of `torch.save` that names anything but tensors, before it is loaded."""
    check_pickles(path, torch._C.PyTorchFileReader, _TENSOR_GLOBALS.__contains__)


def pickled_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name in a file of `torch.save`, directly or below `state_dict`.

    Raises:
        FormatError: Not such a file, a name that could run code, or a file that changed meanwhile.
        OSError: The file cannot be read.
    """
    before = files.version(path)
    try:
        inert = _inert_names(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Inert, name) for name in inert]):
            warnings.simplefilter("ignore")
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _UNPICKLING_ERRORS as err:
        raise FormatError(f"not a readable file of torch.save: {first_line(err)} ({path})") from err
    if files.version(path) != before:
        raise FormatError(f"changed while it was read; run the command again ({path})")
    return _named_tensors(loaded, path)


def _is_inert(named: Global) -> bool:
    return named[0].split(".")[0] in _INERT_PACKAGES


def _inert_names(path: Path) -> list[str]:
    """The names in the pickle to load as classes that do nothing. Raises FormatError for foreign ones."""
    names = check_pickles(
        path,
        torch._C.PyTorchFileReader,
        lambda named: named in _TENSOR_GLOBALS or _is_inert(named),
        _is_inert,
    )
    return [".".join(named) for named in names if _is_inert(named)]


def _named_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise FormatError(f"expected tensors by name, found {type(loaded).__name__} ({path})")
    named = {name: value for name, value in loaded.items() if isinstance(name, str)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}
