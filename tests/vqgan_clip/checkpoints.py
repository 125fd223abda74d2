"""Checkpoints of VQGANs and CLIPs in the layouts that people have, with random weights of small models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from vqgan_clip.vqgan import Vqgan, VqganConfig

#: The topology of taming's f16 models, with a quarter of their channels and a small codebook.
F16 = VqganConfig(
    ch=32,
    ch_mult=(1, 1, 2, 2, 4),
    num_res_blocks=2,
    attn_resolutions=(16,),
    resolution=256,
    z_channels=24,
    embed_dim=16,
    n_embed=64,
)
#: The topology of its Gumbel model of OpenImages, likewise.
GUMBEL = VqganConfig(
    ch=32,
    ch_mult=(1, 1, 2, 4),
    num_res_blocks=2,
    attn_resolutions=(32,),
    resolution=256,
    z_channels=16,
    embed_dim=16,
    n_embed=64,
    is_gumbel=True,
)
#: Small enough for tests of what does not depend on the topology.
SMALL = VqganConfig(
    ch=8,
    ch_mult=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(8,),
    resolution=16,
    z_channels=4,
    embed_dim=4,
    n_embed=16,
)
SMALL_GUMBEL = replace(SMALL, is_gumbel=True)


def random_vqgan(config: VqganConfig, seed: int = 0) -> Vqgan:
    """A model with random values everywhere, norms and biases too, so that no parameter may be mixed up."""
    generator = torch.Generator().manual_seed(seed)
    model = Vqgan(config).requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        scale = 0.5 if parameter.ndim == 1 else (parameter[0].numel()) ** -0.5
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + offset)
    return model


def taming_config(config: VqganConfig) -> dict[str, Any]:
    """A config as taming's training writes it, with what its losses need."""
    ddconfig = {
        "double_z": False,
        "z_channels": config.z_channels,
        "resolution": config.resolution,
        "in_channels": 3,
        "out_ch": 3,
        "ch": config.ch,
        "ch_mult": list(config.ch_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_resolutions": list(config.attn_resolutions),
        "dropout": 0.0,
    }
    losses = {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": {}}
    params = {
        "embed_dim": config.embed_dim,
        "n_embed": config.n_embed,
        "monitor": "val/rec_loss",
        "ddconfig": ddconfig,
        "lossconfig": losses,
    }
    if config.is_gumbel:
        params |= {"kl_weight": 1e-8, "temperature_scheduler_config": {"target": "taming.lr_scheduler.X"}}
    name = "GumbelVQ" if config.is_gumbel else "VQModel"
    return {
        "model": {"base_learning_rate": 4.5e-06, "target": f"taming.models.vqgan.{name}", "params": params}
    }


def taming_state(model: Vqgan) -> dict[str, Tensor]:
    """The tensors of a taming checkpoint, of the losses too."""
    losses = {
        "loss.perceptual_loss.net.weight": torch.ones(4),
        "loss.discriminator.main.0.bias": torch.ones(2),
    }
    return {**model.state_dict(), **losses}


def write_taming(folder: Path, model: Vqgan, name: str = "last.ckpt", config: str = "model.yaml") -> Path:
    """A checkpoint and its config; returns the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config).write_text(yaml.safe_dump(taming_config(model.config)))
    torch.save({"epoch": 3, "global_step": 7, "state_dict": taming_state(model)}, folder / name)
    return folder / name


def diffusers_state(model: Vqgan) -> dict[str, Tensor]:
    """The tensors under the names of diffusers, whose attention has matrices instead of 1 x 1 convolutions.

    Written independently of `vqgan_clip.weights`, from diffusers' own module names.
    """
    last = len(model.config.ch_mult) - 1
    renamed = {}
    for name, tensor in model.state_dict().items():
        words = name.split(".")
        if words[0] in ("encoder", "decoder"):
            words = _diffusers_words(words, last)
            if "attentions" in words and words[-1] == "weight" and tensor.ndim == 4:
                tensor = tensor[:, :, 0, 0]
        renamed[".".join(words)] = tensor
    return renamed


def _diffusers_words(words: list[str], last: int) -> list[str]:
    side, part, *rest = words
    attention = {"norm": ["group_norm"], "q": ["to_q"], "k": ["to_k"], "v": ["to_v"]}
    attention["proj_out"] = ["to_out", "0"]
    if part in ("down", "up"):
        level = int(rest[0]) if part == "down" else last - int(rest[0])
        head = [side, f"{part}_blocks", str(level)]
        if rest[1] in ("downsample", "upsample"):
            return [*head, f"{rest[1]}rs", "0", *rest[2:]]
        if rest[1] == "attn":
            return [*head, "attentions", rest[2], *attention[rest[3]], *rest[4:]]
        return [*head, "resnets", rest[2], rest[3].replace("nin_shortcut", "conv_shortcut"), *rest[4:]]
    if part == "mid":
        if rest[0] == "attn_1":
            return [side, "mid_block", "attentions", "0", *attention[rest[1]], *rest[2:]]
        return [side, "mid_block", "resnets", str(int(rest[0][-1]) - 1), *rest[1:]]
    return [side, part.replace("norm_out", "conv_norm_out"), *rest]


def diffusers_config(config: VqganConfig) -> dict[str, Any]:
    """The arguments of diffusers' VQModel for a config."""
    attention = [config.resolution // 2**i in config.attn_resolutions for i in range(len(config.ch_mult))]
    return {
        "block_out_channels": [config.ch * multiplier for multiplier in config.ch_mult],
        "down_block_types": [("Attn" if a else "") + "DownEncoderBlock2D" for a in attention],
        "up_block_types": [("Attn" if a else "") + "UpDecoderBlock2D" for a in reversed(attention)],
        "layers_per_block": config.num_res_blocks,
        "latent_channels": config.z_channels,
        "sample_size": config.resolution,
        "num_vq_embeddings": config.n_embed,
        "vq_embed_dim": config.embed_dim,
        "norm_num_groups": 32,
    }


#: Tokens that the small CLIPs take, side and colours of their images.
CONTEXT, SIZE = 12, 32
MEAN, STD = [0.1, 0.2, 0.3], [0.9, 0.8, 0.7]


def byte_symbols() -> list[str]:
    """The symbols of the 256 bytes in CLIP's vocabulary, in the order of its ids."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in plain] + [chr(0x100 + i) for i in range(256 - len(plain))]


def write_tokenizer(folder: Path) -> int:
    """A tokenizer of CLIP with four merges; returns the number of its ids."""
    merges = ["r e", "re d</w>", "b l", "bl u"]
    words = byte_symbols() + [f"{symbol}</w>" for symbol in byte_symbols()]
    words += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def write_clip(folder: Path) -> Path:
    """A small CLIP as transformers saves it; returns the folder."""
    import transformers

    n_ids = write_tokenizer(folder)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": n_ids - 2, "eos_token_id": n_ids - 1, "pad_token_id": n_ids - 1}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": n_ids, "max_position_embeddings": CONTEXT, **tower, **ids},
        vision_config={"image_size": SIZE, "patch_size": 8, **tower},
        projection_dim=8,
    )
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    transformers.CLIPModel(config).eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return folder


def write_open_clip(folder: Path) -> Path:
    """A small CLIP as open_clip keeps it in a folder; returns the folder."""
    import open_clip

    model_config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    torch.manual_seed(1)
    model = open_clip.CLIP(**model_config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def write_diffusers(folder: Path, model: Vqgan, rename: Callable[[str], str] = str, **changes: Any) -> Path:
    """A `VQModel` as diffusers saves it, its tensors renamed and its config changed; returns the folder."""
    folder.mkdir(exist_ok=True)
    config = {"_class_name": "VQModel", **diffusers_config(model.config), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    state = {rename(name): tensor.contiguous() for name, tensor in diffusers_state(model).items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder
