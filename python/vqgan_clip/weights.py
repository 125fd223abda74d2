"""Loads the weights of a VQGAN that a user names: the toy's, a file, or a folder.

    toy               the small model of this package
    FILE              taming's .ckpt, or its tensors as .safetensors; its config is a .yaml beside it
    FOLDER            of taming, one such file and its config; or of diffusers, a config.json and weights

No code in a file is run. Shapes are compared before memory is taken, so that a config decides nothing alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pile_tools import checked, files
from pile_tools.errors import ConfigError, FormatError, VerifyError, first_line
from vqgan_clip.config import CONFIG_SUFFIXES, TOY
from vqgan_clip.layouts import Layout, diffusers_layout, taming_layout
from vqgan_clip.pickles import pickled_tensors
from vqgan_clip.vqgan import Vqgan, empty_vqgan

_TOY_FOLDER = Path(__file__).parent / "toy" / "weights"
#: The checkpoint and config of `TOY`, in taming's layout.
TOY_FILE = _TOY_FOLDER / "vqgan.safetensors"

#: Checkpoints of taming's layout; a folder's first kind is read.
_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth")
_DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where weights came from.

    Attributes:
        source: `toy`, or the path as the user gave it.
        layout: Whose layout they have, such as `taming`.
        sha256: SHA-256 of each file that was read, by its name.
    """

    source: str
    layout: str
    sha256: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    weights: Path
    config: Path
    is_diffusers: bool = False


def load_weights(given: str | Path, *, sha256: str | None = None) -> tuple[Vqgan, Provenance]:
    """The VQGAN of `toy`, a file or a folder, in float32 on the CPU, and where it came from.

    Its parameters take no gradient.

    Args:
        given: See the module.
        sha256: The SHA-256 that the file of weights must have, compared before the file is parsed.

    Raises:
        ConfigError: `sha256` is no SHA-256.
        FormatError: A damaged file, code in it, or another architecture.
        VerifyError: The file has another SHA-256.
        OSError: A file is missing or cannot be read.
    """
    expected = None if sha256 is None else _digits(sha256)
    found = _found(TOY_FILE if given == TOY else Path(given))
    versions = [files.version(path) for path in (found.weights, found.config)]
    hashes = {path.name: files.sha256(path) for path in (found.weights, found.config)}
    if expected not in (None, actual := hashes[found.weights.name]):
        raise VerifyError(f"SHA-256 is {actual}, expected {expected} ({found.weights})")
    layout = diffusers_layout(found.config) if found.is_diffusers else taming_layout(found.config)
    model = _loaded(found.weights, layout)
    if [files.version(path) for path in (found.weights, found.config)] != versions:
        raise FormatError(f"changed while it was read; run the command again ({found.weights})")
    return model, Provenance(source=str(given), layout=layout.name, sha256=hashes)


def _digits(sha256: str) -> str:
    digits = sha256.strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ConfigError(f"sha256 must have 64 hexadecimal digits, got {sha256[:80]!r}")
    return digits


def _found(path: Path) -> _Found:
    """The files to read. Raises FormatError, OSError."""
    if not path.is_dir():
        checked.open_regular(path).close()
        if path.suffix not in _SUFFIXES:
            expected = ", ".join(_SUFFIXES)
            raise FormatError(f"expected a folder or a file of weights ({expected}) ({path})")
        return _Found(weights=path, config=_yaml_of(path))
    if (path / "config.json").exists():
        weights = next((path / name for name in _DIFFUSERS_FILES if (path / name).exists()), None)
        if weights is None:
            raise FormatError(f"no {' or '.join(_DIFFUSERS_FILES)} beside config.json ({path})")
        return _Found(weights=weights, config=path / "config.json", is_diffusers=True)
    for suffix in _SUFFIXES:
        if len(candidates := sorted(path.glob(f"*{suffix}"))) > 1:
            names = ", ".join(file.name for file in candidates[:3])
            raise FormatError(f"several files of weights, give one of them: {names} ({path})")
        if candidates:
            return _Found(weights=candidates[0], config=_yaml_of(candidates[0]))
    raise FormatError(
        f"no VQGAN here: expected a .safetensors or .ckpt of taming-transformers and its .yaml, or the "
        f"config.json of a diffusers VQModel ({path})"
    )


def _yaml_of(weights: Path) -> Path:
    """The config of a checkpoint: of the same name, or the only one in its folder."""
    own = weights.with_suffix(".yaml")
    if own.exists():
        return own
    candidates = sorted(path for suffix in CONFIG_SUFFIXES for path in weights.parent.glob(f"*{suffix}"))
    if len(candidates) != 1:
        raise FormatError(
            f"expected the config {own.name} or one .yaml beside it, found {len(candidates)} ({weights})"
        )
    return candidates[0]


def _loaded(path: Path, layout: Layout) -> Vqgan:
    """The model with the tensors of a file. Raises FormatError."""
    model = empty_vqgan(layout.config)
    expected = model.state_dict()
    found: dict[str, Tensor] = {}
    for stored, tensor in _tensors(path, layout, expected):
        name = layout.own_name(stored)
        found[name] = _checked(stored, tensor, expected[name], path)
    if missing := [name for name in expected if name not in found]:
        raise FormatError(f"no tensor {missing[0]}: another architecture, or a damaged file ({path})")
    model.load_state_dict(found, strict=True, assign=True)
    # In whose deviations rate and pull are measured. That of a single number is no number.
    if not 0 < float(model.codebook.detach().std()) < math.inf:
        raise FormatError(f"the values of the codebook have no deviation: no trained VQGAN ({path})")
    return model.requires_grad_(False).eval()


def _tensors(path: Path, layout: Layout, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the VQGAN in a file, of the names and shapes that are expected."""
    if path.suffix != ".safetensors":
        for name, tensor in pickled_tensors(path).items():
            if not layout.is_other(name):
                _check_shape(name, tensor.shape, layout, expected, path)
                yield name, tensor
        return
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if not layout.is_other(name):
                    # Before memory is taken for it: a sparse file can hold more than any memory.
                    _check_shape(name, file.get_slice(name).get_shape(), layout, expected, path)
                    # A copy: the library maps the file, which may be cut short later.
                    yield name, file.get_tensor(name).clone()
    except (SafetensorError, RuntimeError) as err:
        raise FormatError(f"not a safetensors file: {first_line(err)} ({path})") from err


def _check_shape(
    stored: str, shape: Sequence[int], layout: Layout, expected: dict[str, Tensor], path: Path
) -> None:
    """Raises FormatError unless the model has a tensor of this name and shape."""
    name, found = layout.own_name(stored), tuple(shape)
    if name not in expected:
        raise FormatError(f"{stored} is no tensor of a VQGAN of this config: another architecture ({path})")
    of_model = tuple(expected[name].shape)
    # diffusers has matrices where taming has 1 x 1 convolutions.
    is_matrix = len(found) == 2 and of_model == (*found, 1, 1)
    if found != of_model and not is_matrix:
        raise FormatError(f"{stored} has shape {found}, expected {of_model}: another architecture ({path})")


def _checked(name: str, tensor: Tensor, expected: Tensor, path: Path) -> Tensor:
    """A tensor of the right size in float32, in the model's shape. Raises FormatError."""
    if tensor.dtype not in _DTYPES:
        raise FormatError(f"{name} has dtype {tensor.dtype}, expected floating point ({path})")
    # A view may repeat its storage: a few bytes would become terabytes when they are copied.
    is_whole = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not is_whole or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise FormatError(f"{name} does not hold all its values ({path})")
    values = tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not bool(values.isfinite().all()):
        raise FormatError(f"{name} has values that are not finite ({path})")
    return values.view(expected.shape)
