"""Reads the configs of published VQGANs, and maps tensor names to those of `vqgan_clip.vqgan`.

taming-transformers keeps an OmegaConf `.yaml` beside a checkpoint. Its `target`s name classes to import; here
they only tell the kinds of model apart. diffusers keeps a `config.json`, and names tensors in its own way.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pile_tools import checked
from pile_tools.checked import Values
from pile_tools.errors import ConfigError, FormatError, first_line
from vqgan_clip.vqgan import VqganConfig

#: The largest published config has 3 kB.
_MAX_CONFIG_BYTES = 1 << 20

#: Class names of taming-transformers, and whether their codes come from logits.
_VQGANS = {"taming.models.vqgan.VQModel": False, "taming.models.vqgan.GumbelVQ": True}
_TRANSFORMER = "taming.models.cond_transformer.Net2NetTransformer"

#: Values of a config that the architecture of `vqgan_clip.vqgan` requires.
_TAMING_FIXED = {
    "double_z": False,
    "in_channels": 3,
    "out_ch": 3,
    "resamp_with_conv": True,
    "give_pre_end": False,
}
_DIFFUSERS_FIXED = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_type": "group",
    "mid_block_add_attention": True,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a checkpoint's tensors map to a VQGAN's.

    Attributes:
        name: `taming` or `diffusers`.
        config: The shape.
        prefix: What the checkpoint puts before each name; tensors without it are of other models.
    """

    name: str
    config: VqganConfig
    prefix: str = ""

    def own_name(self, stored: str) -> str:
        """The name in `Vqgan` of a tensor of the checkpoint."""
        name = stored.removeprefix(self.prefix)
        return _from_diffusers(name, len(self.config.ch_mult) - 1) if self.name == "diffusers" else name

    def is_other(self, stored: str) -> bool:
        """Whether a tensor belongs to what the checkpoint holds besides the VQGAN, such as its losses."""
        return not stored.startswith(self.prefix) or stored.removeprefix(self.prefix).startswith("loss.")


class _Loader(yaml.SafeLoader):
    """Without aliases: a few of them, nested, expand to millions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name): write its values out")
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (LookupError, AttributeError) as err:
            # What PyYAML raises for a text that is not of its tag, as in `!!bool x`.
            raise ValueError(f"a value that is no {node.tag.rpartition(':')[2]}") from err


def read_yaml(path: Path) -> Values:
    """The mapping in a YAML file, checked as `checked.read_json` does: bounded, plain values only.

    Raises: FormatError if it is no such mapping. OSError if the file cannot be read.
    """
    what, data = "a YAML config", checked.read_bytes(path, _MAX_CONFIG_BYTES)
    try:
        as_json = json.dumps(yaml.load(data, _Loader))
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as err:
        raise FormatError(f"not {what}: {first_line(err)} ({path})") from err
    return checked.parse_json(as_json.encode(), path, what)


def taming_layout(path: Path) -> Layout:
    """The layout that taming's `.yaml` describes. Raises FormatError, OSError."""
    model = read_yaml(path).object("model")
    target = model.text("target")
    if target == _TRANSFORMER:
        first_stage = model.object("params").object("first_stage_config")
        return Layout(name="taming", config=_taming_config(first_stage), prefix="first_stage_model.")
    return Layout(name="taming", config=_taming_config(model))


def _taming_config(model: Values) -> VqganConfig:
    is_gumbel = _VQGANS[model.text("target", list(_VQGANS))]
    params = model.object("params")
    shape = params.object("ddconfig")
    _require(shape, _TAMING_FIXED)
    if params.has("remap"):
        raise params.refuse("remap", "null: codes are not renumbered here")
    return _config(
        shape,
        ch=shape.integer("ch"),
        ch_mult=tuple(shape.integers("ch_mult")),
        num_res_blocks=shape.integer("num_res_blocks"),
        attn_resolutions=tuple(shape.integers("attn_resolutions")),
        resolution=shape.integer("resolution"),
        z_channels=shape.integer("z_channels"),
        embed_dim=params.integer("embed_dim"),
        n_embed=params.integer("n_embed"),
        is_gumbel=is_gumbel,
    )


def diffusers_layout(path: Path) -> Layout:
    """The layout that the `config.json` of a diffusers `VQModel` describes. Raises FormatError, OSError."""
    values = checked.read_json(path, "a config of a diffusers VQModel")
    values.text("_class_name", ["VQModel"])
    _require(values, _DIFFUSERS_FIXED)
    channels = values.integers("block_out_channels", at_least=1)
    if not channels or any(n % channels[0] for n in channels):
        raise values.refuse("block_out_channels", "multiples of the first")
    attention = _attention(values, "down_block_types", "DownEncoderBlock2D", len(channels))
    if attention != _attention(values, "up_block_types", "UpDecoderBlock2D", len(channels))[::-1]:
        raise values.refuse("up_block_types", "attention at the resolutions of down_block_types")
    resolution, latent = values.integer("sample_size", at_least=1), values.integer("latent_channels")
    return Layout(
        name="diffusers",
        config=_config(
            values,
            ch=channels[0],
            ch_mult=tuple(n // channels[0] for n in channels),
            num_res_blocks=values.integer("layers_per_block"),
            attn_resolutions=tuple(resolution // 2**i for i, has in enumerate(attention) if has),
            resolution=resolution,
            z_channels=latent,
            embed_dim=values.optional("vq_embed_dim", values.integer) or latent,
            n_embed=values.integer("num_vq_embeddings"),
        ),
    )


def _attention(values: Values, key: str, kind: str, n_levels: int) -> list[bool]:
    """Whether each block has attention."""
    kinds = values.texts(key)
    if len(kinds) != n_levels or not set(kinds) <= {kind, f"Attn{kind}"}:
        raise values.refuse(key, f"{n_levels} of {kind} or Attn{kind}")
    return [found.startswith("Attn") for found in kinds]


def _require(values: Values, fixed: dict[str, Any]) -> None:
    for key, expected in fixed.items():
        if values.has(key) and values.values[key] != expected:
            raise values.refuse(key, json.dumps(expected))


def _config(values: Values, **fields: Any) -> VqganConfig:
    try:
        return VqganConfig(**fields)
    except ConfigError as err:
        raise FormatError(f"{err} ({values.where})") from err


#: diffusers' names in taming's words. Attention has two spellings: today's, and that of files made before
#: huggingface/diffusers#3387, of May 2023.
_DIFFUSERS_WORDS = {
    "resnets": "block",
    "attentions": "attn",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    **{"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
    **{"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"},
}


def _from_diffusers(name: str, last: int) -> str:
    """The name in taming's layout of a tensor of diffusers; `last` numbers the lowest level."""
    name = re.sub(r"mid_block\.resnets\.([01])\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
    name = re.sub(r"(down|up)samplers\.0\.", r"\1sample.", name)
    name = name.replace("down_blocks.", "down.")
    # diffusers numbers the decoder's levels as they run, taming by resolution. A config has at most 8 levels.
    name = re.sub(r"up_blocks\.([0-7])\.", lambda m: f"up.{last - int(m[1])}.", name)
    words = "|".join(map(re.escape, _DIFFUSERS_WORDS))
    return re.sub(rf"(?<=\.)({words})(?=\.)", lambda m: _DIFFUSERS_WORDS[m[1]], name)
