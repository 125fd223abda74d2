"""Hugging Face's folder for GPT-NeoX: which names and values mean what we mean.

`rotary_pct` and its like are written in the spelling of transformers 4 and in that of 5, because neither
reads the other's without loss.
"""

from __future__ import annotations

from typing import Any

from pile_tools.errors import FormatError
from trainer.shape import ModelShape

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


def model_config(shape: ModelShape, dtype: str, eod: int | None) -> dict[str, Any]:
    """`config.json` of a model; `dtype` as torch names it without its prefix, `eod` ends documents."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": 4 * shape.hidden_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "max_position_embeddings": shape.max_positions,
        "hidden_act": shape.hidden_act,
        "layer_norm_eps": shape.layer_norm_eps,
        "use_parallel_residual": shape.parallel_residual,
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "rotary_pct": shape.rotary_pct,
        "rotary_emb_base": shape.rotary_base,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.rotary_base,
            "partial_rotary_factor": shape.rotary_pct,
        },
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": eod,
        "eos_token_id": eod,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def model_shape(config: dict[str, Any], where: str) -> ModelShape:
    """The shape that a `config.json` describes, Pythia's own included; `where` names it in messages.

    Raises:
        FormatError: Another architecture, a missing key, or a feature that our model lacks.
    """
    try:
        _check_is_plain(config, where)
        rope = config.get("rope_parameters") or {}
        return ModelShape(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            max_positions=config["max_position_embeddings"],
            rotary_pct=config.get("rotary_pct", rope.get("partial_rotary_factor", 0.25)),
            rotary_base=float(config.get("rotary_emb_base", rope.get("rope_theta", 10000))),
            layer_norm_eps=config["layer_norm_eps"],
            parallel_residual=config.get("use_parallel_residual", True),
            hidden_act=config["hidden_act"],
        )
    except KeyError as err:
        raise FormatError(f"no key {err} ({where})") from err


def _check_is_plain(config: dict[str, Any], where: str) -> None:
    """Raises FormatError for what our model does not do."""
    expected = {
        "model_type": "gpt_neox",
        "intermediate_size": 4 * config["hidden_size"],
        "tie_word_embeddings": False,
        "attention_bias": True,
        "rope_scaling": None,
    }
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise FormatError(f"{name} is {config[name]!r}, expected {value!r} ({where})")
    kind = (config.get("rope_parameters") or {}).get("rope_type", "default")
    if kind != "default":
        raise FormatError(f"rope_type is {kind!r}, expected 'default' ({where})")


def tokenizer_config(eod: str | None, max_positions: int) -> dict[str, Any]:
    """`tokenizer_config.json`, of a class that transformers 4 and 5 know, with the special tokens."""
    specials = {} if eod is None else {"bos_token": eod, "eos_token": eod, "unk_token": eod}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **specials,
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
    }
