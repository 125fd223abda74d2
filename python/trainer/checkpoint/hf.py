"""Hugging Face's folder for GPT-NeoX, as we write it: which names and values mean what we mean.

`rotary_pct` and its like are written in the spelling of transformers 4 and in that of 5, because neither
reads the other's without loss.
"""

from __future__ import annotations

from typing import Any

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


def tokenizer_config(eod: str | None, max_positions: int) -> dict[str, Any]:
    """`tokenizer_config.json`, of a class that transformers 4 and 5 know, with the special tokens."""
    specials = {} if eod is None else {"bos_token": eod, "eos_token": eod, "unk_token": eod}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **specials,
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
    }
