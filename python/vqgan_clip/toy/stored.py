"""The toy's files: a folder with the VQGAN in taming's layout, the CLIP, and a manifest."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pile_tools import checked, files
from pile_tools.errors import FormatError, first_line
from vqgan_clip.toy.clip import ToyClip
from vqgan_clip.vqgan import VqganConfig

#: The weights in this package.
FOLDER = Path(__file__).parent / "weights"
VQGAN_FILE, CONFIG_FILE, CLIP_FILE = "vqgan.safetensors", "vqgan.yaml", "clip.safetensors"


def save_half(module: nn.Module, path: Path) -> None:
    """Writes a module's tensors in float16, which halves the package. The file appears atomically."""
    tensors = {name: value.half().contiguous() for name, value in module.state_dict().items()}
    files.write_atomically(path, save(tensors))


def save_clip(clip: ToyClip, path: Path) -> None:
    """Writes a CLIP's tensors in a quarter of their size. The file appears atomically.

    A matrix or a kernel has 8 bits per number, and the largest of each row, or output channel, in float16 as
    `NAME.largest`; the rest is float16.
    """
    tensors = {}
    for name, value in clip.state_dict().items():
        if value.ndim > 1:
            largest = value.flatten(1).abs().amax(1).half()
            tensors[f"{name}.largest"] = largest
            tensors[name] = (value / _unit(largest, value)).round().clamp(-127, 127).to(torch.int8)
        else:
            tensors[name] = value.half()
    files.write_atomically(path, save({name: value.contiguous() for name, value in tensors.items()}))


def _unit(largest: Tensor, value: Tensor) -> Tensor:
    """The difference of neighbouring 8-bit numbers, for each row of a tensor."""
    unit = largest.float().clamp(min=1e-6) / 127
    return unit.view(-1, *[1] * (value.ndim - 1))


def save_config(config: VqganConfig, path: Path) -> None:
    """Writes a config as taming-transformers does."""
    side, levels = config.resolution, ", ".join(map(str, config.ch_mult))
    path.write_text(
        "model:\n"
        "  target: taming.models.vqgan.VQModel\n"
        "  params:\n"
        f"    embed_dim: {config.embed_dim}\n"
        f"    n_embed: {config.n_embed}\n"
        "    ddconfig:\n"
        "      double_z: false\n"
        f"      z_channels: {config.z_channels}\n"
        f"      resolution: {side}\n"
        "      in_channels: 3\n"
        "      out_ch: 3\n"
        f"      ch: {config.ch}\n"
        f"      ch_mult: [{levels}]\n"
        f"      num_res_blocks: {config.num_res_blocks}\n"
        f"      attn_resolutions: [{', '.join(map(str, config.attn_resolutions))}]\n"
        "      dropout: 0.0\n",
        encoding="utf-8",
    )


def load_clip(path: Path) -> ToyClip:
    """The CLIP of a file, in float32; its parameters take no gradient.

    Raises:
        FormatError: The file is damaged, or has the tensors of another model.
        OSError: The file cannot be read.
    """
    data = checked.read_bytes(path)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError) as err:
        raise FormatError(f"not a safetensors file: {first_line(err)} ({path})") from err
    with torch.device("meta"):
        clip = ToyClip()
    expected = clip.state_dict()
    layout = {}
    for name, value in expected.items():
        layout[name] = (value.shape, torch.int8 if value.ndim > 1 else torch.float16)
        if value.ndim > 1:
            layout[f"{name}.largest"] = (value.shape[:1], torch.float16)
    if {name: (value.shape, value.dtype) for name, value in tensors.items()} != layout:
        raise FormatError(f"not a toy CLIP of this version of pile-tools: other tensors ({path})")
    values = {name: tensors[name].float() for name in expected}
    for name in expected:
        if (largest := tensors.get(f"{name}.largest")) is not None:
            values[name] *= _unit(largest, values[name])
    if bad := [name for name, value in values.items() if not bool(value.isfinite().all())]:
        raise FormatError(f"{bad[0]} has values that are not finite ({path})")
    clip.load_state_dict(values, assign=True)
    return clip.requires_grad_(False).eval()
