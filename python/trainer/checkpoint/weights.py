"""Reads the weights of a Hugging Face folder: one file or shards, safetensors or `torch.save`'s.

    model.safetensors | model.safetensors.index.json + shards
    pytorch_model.bin | pytorch_model.bin.index.json + shards

The first of these that is there is read, as transformers does. An index names the file of each tensor; the
names come from whoever made the folder, so they must be files of that folder. The pickles of `.bin` files are
never run: their globals are listed first, then torch's restricted unpickler builds the tensors.
"""

from __future__ import annotations

import errno
import functools
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pile_tools import files
from pile_tools.errors import FormatError
from pile_tools.pickles import Global, Inert
from pile_tools.torch_files import check_pickles
from trainer.checkpoint.config_json import read_object

SAFETENSORS_FILE, PICKLE_FILE = "model.safetensors", "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"

#: What a pickle of plain tensors names.
TENSOR_GLOBALS = frozenset(
    {
        *(("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2")),
        ("torch._utils", "_rebuild_parameter"),
        *(("torch", f"{kind}Storage") for kind in ("Float", "Half", "BFloat16", "Double")),
        # Buffers of older files: masks and positions.
        *(("torch", f"{kind}Storage") for kind in ("Bool", "Byte", "Int", "Long")),
    }
)

#: Whether a tensor is to be read, by its name in the file and its shape.
IsNeeded = Callable[[str, Sequence[int]], bool]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

#: transformers 5 calls the output layer so in memory, and older conversions in their files.
_OTHER_NAMES = {"lm_head.weight": "embed_out.weight"}

#: What torch's restricted unpickler raises for a file that is not what `torch.save` writes.
_UNPICKLING_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, OverflowError),
)


def read_weights(folder: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `each_weight` yields, all in memory, in the order of `expected`."""
    found = dict(each_weight(folder, expected))
    return {name: found[name] for name in expected}


def each_weight(folder: Path, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder that a model has, shapes checked; others, buffers of old files, are ignored.

    They come in the order of the files, so that a caller who keeps none needs the memory of one tensor, or of
    one file if it is of `torch.save`.

    Args:
        folder: The folder.
        expected: Tensors of the right shapes by name; their values do not matter.

    Raises:
        FormatError: A damaged or foreign file, a tensor that is missing, doubled or of another shape or type.
        OSError: There are no weights, or a file cannot be read.
    """
    found: set[str] = set()
    where = folder
    for path, listed in _files(folder):
        where = path if listed is None else folder
        names: set[str] = set()
        is_needed = functools.partial(_is_needed, expected=expected, names=names, path=path)
        for stored, tensor in _tensors(path, is_needed):
            name = _own_name(stored)
            if name in found or (listed is not None and stored not in listed):
                raise FormatError(f"{stored} is also in another place by index or file ({path})")
            check_tensor(name, tensor, expected[name], path)
            found.add(name)
            yield name, tensor
        missing = sorted((listed or set()) - names)
        if missing:
            raise FormatError(f"no tensor {missing[0]}, which the index says is here ({path})")
    for name in expected:
        if name not in found:
            raise FormatError(f"no tensor {name} ({where})")


def _own_name(stored: str) -> str:
    return _OTHER_NAMES.get(stored, stored)


def _is_needed(
    stored: str, shape: Sequence[int], *, expected: dict[str, Tensor], names: set[str], path: Path
) -> bool:
    """Whether the model has a tensor, whose name is noted. Raises FormatError if its shape is another."""
    names.add(stored)
    name = _own_name(stored)
    if name in expected:
        check_shape(name, shape, expected[name], path)
    return name in expected


def weight_files(folder: Path) -> list[Path]:
    """The files that `each_weight` reads, the index included. Raises FormatError, OSError."""
    found = [path for path, _ in _files(folder)]
    indexes = [folder / (name + INDEX_SUFFIX) for name in (SAFETENSORS_FILE, PICKLE_FILE)]
    is_whole = found[0].name in (SAFETENSORS_FILE, PICKLE_FILE)
    return found if is_whole else [next(path for path in indexes if _is_there(path)), *found]


def _files(folder: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The files to read, and the tensors that the index lists for each: None without an index."""
    for name in (SAFETENSORS_FILE, PICKLE_FILE):
        if _is_there(folder / name):
            yield folder / name, None
            return
        index = folder / (name + INDEX_SUFFIX)
        if _is_there(index):
            yield from sorted(_read_index(index, Path(name).suffix).items())
            return
    expected = f"{SAFETENSORS_FILE} or {PICKLE_FILE}, whole or in shards with an index"
    raise FileNotFoundError(errno.ENOENT, f"no weights here, expected {expected}", str(folder))


def _is_there(path: Path) -> bool:
    """Whether something has this name, a broken link included."""
    return path.exists() or path.is_symlink()


def _read_index(index: Path, suffix: str) -> dict[Path, set[str]]:
    """The tensors of each shard by an index file. Raises FormatError."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"expected weight_map, a file name for each tensor ({index})")
    listed: dict[Path, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not _is_plain_name(name, suffix):
            raise FormatError(
                f"{tensor!r} is in {name!r}, expected a file *{suffix} of this folder ({index})"
            )
        listed.setdefault(index.parent / name, set()).add(tensor)
    for path in listed:
        _check_is_inside(path)
    return listed


def _is_plain_name(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not set(name) & {"/", "\\", "\0"} and Path(name).name == name


def _check_is_inside(path: Path) -> None:
    """Raises FormatError for a link that leads out of the folder, the Hub cache's own links excepted."""
    folder = Path(os.path.realpath(path.parent))
    roots = [folder]
    if folder.parent.name == "snapshots":
        roots.append(folder.parent.parent / "blobs")
    if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots):
        raise FormatError(f"a link that leads out of the folder ({path})")


def _tensors(path: Path, is_needed: IsNeeded) -> Iterable[tuple[str, Tensor]]:
    """Names and tensors of one file, those that are needed. Raises FormatError."""
    if path.exists() and not path.is_file():
        raise FormatError(f"not a regular file ({path})")
    if path.suffix == ".safetensors":
        return read_safetensors(path, is_needed)
    return ((name, tensor) for name, tensor in _unpickled(path).items() if is_needed(name, tensor.shape))


def read_safetensors(
    path: Path, is_needed: IsNeeded = lambda name, shape: True
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a safetensors file.

    Args:
        path: The file.
        is_needed: Told name and shape of each tensor before memory is taken for its values: a sparse file
            can hold more than any memory. The values of others are not read.

    Raises:
        FormatError: Another format, or a file that changes while it is read.
        OSError: The file cannot be read.
    """
    # Opened first for the system's own error: the library's does not name the file.
    path.open("rb").close()
    before = files.version(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if is_needed(name, file.get_slice(name).get_shape()):
                    # The library maps the file. A copy keeps its values if the file is cut or rewritten.
                    yield name, file.get_tensor(name).clone()
    except (SafetensorError, RuntimeError) as err:
        # torch raises RuntimeError if the file becomes shorter before it is mapped.
        first = str(err).splitlines()[0]
        raise FormatError(f"not a safetensors file: {first} ({path})") from err
    if files.version(path) != before:
        raise FormatError(f"changed while it was read; run the command again ({path})")


def read_pickled(path: Path, allowed: frozenset[Global], inert: frozenset[Global] = frozenset()) -> Any:
    """The value of a file of `torch.save`, which names no global outside `allowed`: no code of it runs.

    Args:
        path: The file.
        allowed: Globals that it may name.
        inert: More of them, which become objects that do nothing. The types of numpy among the others would
            take as much memory as their arguments say.

    Raises:
        FormatError: Another format, or a global outside `allowed`.
        OSError: The file cannot be read.
    """
    reader = torch._C.PyTorchFileReader
    names = check_pickles(path, reader, (allowed | inert).__contains__, inert.__contains__)
    classes: list[Any] = [(Inert, ".".join(name)) for name in names & inert]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(classes):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNPICKLING_ERRORS as err:
        first = (str(err).splitlines() or [type(err).__name__])[0]
        raise FormatError(f"not a file of torch.save: {first} ({path})") from err


def _unpickled(path: Path) -> dict[str, Tensor]:
    values = read_pickled(path, TENSOR_GLOBALS)
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in values.items()
    ):
        raise FormatError(f"expected tensors by name ({path})")
    return values


def check_shape(name: str, shape: Sequence[int], expected: Tensor, path: Path) -> None:
    """Raises FormatError unless a shape is that of the model's tensor."""
    if tuple(shape) != tuple(expected.shape):
        shapes = f"{tuple(shape)}, expected {tuple(expected.shape)}"
        raise FormatError(f"{name} has shape {shapes} ({path})")


def check_tensor(name: str, tensor: Tensor, expected: Tensor, path: Path) -> None:
    """Raises FormatError unless a tensor can be the one that the model has."""
    check_shape(name, tensor.shape, expected, path)
    check_values(name, tensor, path)


def check_values(name: str, tensor: Tensor, path: Path) -> None:
    """Raises FormatError unless a tensor has the values of weights, all in memory."""
    if tensor.dtype not in _DTYPES:
        raise FormatError(f"{name} has dtype {tensor.dtype}, expected floating point ({path})")
    # A view may repeat its storage: a few bytes would become terabytes when they are converted.
    is_whole = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not is_whole or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise FormatError(f"{name} does not hold all its values ({path})")
    if tensor.is_neg():
        # A view that torch negates when it computes. Its bytes, which are published, have the other sign.
        raise FormatError(f"{name} is the negative view of other values ({path})")
