"""Reads a `config.json` of GPT-NeoX as transformers 5 understands it, or refuses it by key.

Every key is known or an error: transformers keeps unknown keys, and its model looks some of them up
(`head_dim`, `quantization_config`, `is_causal`, ...). A key that changes nothing is checked all the same
where transformers refuses other values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pile_tools import checked
from pile_tools.errors import ConfigError, FormatError
from trainer.shape import ACTIVATIONS, LIMITS, ModelShape

#: The largest file that is read: those on the Hub have under 10 kB.
MAX_BYTES = 16 << 20
_MAX_INT = (1 << 31) - 1
#: Keys of `rope_parameters` and of `rope_scaling`.
_ROPE_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


@dataclass(frozen=True)
class _Check:
    """Which values a key may have, and that in words."""

    expected: str
    holds: Callable[[Any], bool]


def _whole(low: float, high: float) -> _Check:
    return _Check(
        f"a whole number from {low:.0f} to {high:.0f}", lambda v: type(v) is int and low <= v <= high
    )


def _number(low: float, high: float, *types: type) -> _Check:
    types = types or (int, float)
    words = "a number" if int in types else "a number with a decimal point"
    return _Check(
        f"{words} from {low:g} to {high:g}",
        lambda v: type(v) in types and math.isfinite(v) and low <= v <= high,
    )


def _only(*values: object) -> _Check:
    words = " or ".join(json.dumps(value) for value in values)
    return _Check(words, lambda v: any(type(v) is type(value) and v == value for value in values))


def _of_type(words: str, *types: type) -> _Check:
    return _Check(words, lambda v: type(v) in types)


_ID = _Check("a token id or null", lambda v: v is None or (type(v) is int and -1 <= v <= _MAX_INT))
_IDS = _Check(
    "a token id, a list of them or null",
    lambda v: _ID.holds(v) or (type(v) is list and all(i is not None and _ID.holds(i) for i in v)),
)
_WORDS = _Check("a list of strings or null", lambda v: v is None or _is_list_of_strings(v))
_TEXT = _of_type("a string or null", str, type(None))
_FLAG = _only(True, False)
_SHARE = _number(0, 1)
_DTYPE = _only("float32", "float16", "bfloat16", "float64", None)
_ROPE = _of_type("an object or null", dict, type(None))
_LABELS = _Check("labels by number, or null", lambda v: v is None or _is_labels(v))
_NUMBERS = _Check("numbers by label, or null", lambda v: v is None or _is_numbers(v))
_ANY = _Check("anything", lambda v: True)


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(
        key.isascii() and key.isdigit() and isinstance(label, str) for key, label in value.items()
    )


def _is_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(type(number) is int for number in value.values())


#: Keys that the model's logits depend on.
_MODEL_KEYS = {
    "model_type": _only("gpt_neox"),
    "vocab_size": _whole(*LIMITS["vocab_size"]),
    "hidden_size": _whole(*LIMITS["hidden_size"]),
    "num_hidden_layers": _whole(*LIMITS["n_layers"]),
    "num_attention_heads": _whole(*LIMITS["n_heads"]),
    "max_position_embeddings": _whole(*LIMITS["max_positions"]),
    "intermediate_size": _whole(1, _MAX_INT),
    "hidden_act": _only(*ACTIVATIONS),
    "layer_norm_eps": _number(*LIMITS["layer_norm_eps"], float),
    "use_parallel_residual": _FLAG,
    "tie_word_embeddings": _only(False),
    "attention_bias": _only(True),
    "is_causal": _only(True),
    "head_dim": _Check("a whole number or null", lambda v: v is None or type(v) is int),
    "rotary_pct": _SHARE,
    "partial_rotary_factor": _SHARE,
    "rotary_emb_base": _number(*LIMITS["rotary_base"]),
    "rope_theta": _number(*LIMITS["rotary_base"]),
    "rope_parameters": _ROPE,
    "rope_scaling": _ROPE,
}

#: Keys that leave the logits as they are, with the values that transformers accepts.
_OTHER_KEYS = {
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "classifier_dropout"), _SHARE),
    **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob"), _SHARE),
    **dict.fromkeys(("bos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"), _ID),
    **dict.fromkeys(("_name_or_path", "name_or_path", "_commit_hash", "transformers_version"), _TEXT),
    **dict.fromkeys(("tokenizer_class", "unsloth_version"), _TEXT),
    **dict.fromkeys(("dtype", "torch_dtype"), _DTYPE),
    **dict.fromkeys(("output_hidden_states", "output_attentions"), _only(True, False, None)),
    **dict.fromkeys(("use_cache", "is_decoder", "gradient_checkpointing"), _FLAG),
    "eos_token_id": _IDS,
    "id2label": _LABELS,
    "label2id": _NUMBERS,
    "architectures": _WORDS,
    "initializer_range": _number(0, 1e6, float),
    "return_dict": _only(True),
    "is_encoder_decoder": _only(False),
    "chunk_size_feed_forward": _only(0),
    "problem_type": _only(None),
    "custom_pipelines": _ANY,
}

#: Keys of generation and of tasks in files of transformers 4, which transformers 5 drops or keeps unread.
_DROPPED_KEYS = frozenset(
    (
        *("add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "cross_attention_hidden_size"),
        *("diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size"),
        *("exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id"),
        *("forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size"),
        *("num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "prefix"),
        *("pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate"),
        *("suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss"),
        *("tie_encoder_decoder", "top_k", "top_p", "torchscript", "typical_p", "use_bfloat16"),
    )
)

_REQUIRED = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    "max_position_embeddings",
)

#: What transformers takes where a key is missing.
_INTERMEDIATE_SIZE, _ROTARY_PCT, _ROTARY_BASE = 24576, 0.25, 10000.0


def read_shape(path: Path) -> ModelShape:
    """The shape that a `config.json` describes.

    Raises:
        FormatError: Not such a file, or one whose model ours does not compute as transformers does.
        OSError: It cannot be read.
    """
    return shape_of(read_object(path), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file with one object.

    Raises:
        FormatError: Anything else, or more than `MAX_BYTES` bytes.
        OSError: It cannot be read.
    """
    return dict(checked.parse_json(checked.read_bytes(path, MAX_BYTES), path).values)


def shape_of(config: dict[str, Any], where: str) -> ModelShape:
    """The shape that the values of a `config.json` describe; `where` names it in messages.

    Raises:
        FormatError: An unknown or missing key, a value out of range, keys that contradict each other, or a
            feature that our model lacks.
    """
    _check_values(config, where)
    _check_sizes(config, where)
    rotary_pct, rotary_base = _rotary(config, where)
    try:
        return ModelShape(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            max_positions=config["max_position_embeddings"],
            rotary_pct=rotary_pct,
            rotary_base=rotary_base,
            layer_norm_eps=config.get("layer_norm_eps", 1e-5),
            parallel_residual=config.get("use_parallel_residual", True),
            hidden_act=config.get("hidden_act", "gelu"),
        )
    except ConfigError as err:
        raise FormatError(f"{err} ({where})") from err


def _check_values(config: dict[str, Any], where: str) -> None:
    """Raises FormatError for a key that is missing or unknown, or a value out of range."""
    for name in _REQUIRED:
        if name not in config:
            raise FormatError(f"no key {name!r} ({where})")
    for name, value in config.items():
        check = _MODEL_KEYS.get(name) or _OTHER_KEYS.get(name)
        if check is None and name not in _DROPPED_KEYS:
            raise FormatError(
                f"unknown key {name!r}; remove it if the model is the same without it ({where})"
            )
        if check is not None and not check.holds(value):
            raise FormatError(f"{name} is {_shown(value)}, expected {check.expected} ({where})")


def _check_sizes(config: dict[str, Any], where: str) -> None:
    """Raises FormatError for sizes that contradict each other or that our model cannot have."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if hidden % heads:
        raise FormatError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads} ({where})")
    expected = {"intermediate_size": (_INTERMEDIATE_SIZE, 4 * hidden), "head_dim": (None, hidden // heads)}
    for name, (default, value) in expected.items():
        found = config.get(name, default)
        if found is not None and found != value:
            raise FormatError(f"{name} is {found}, expected {value} by the other sizes ({where})")


def _rotary(config: dict[str, Any], where: str) -> tuple[float, float]:
    """Share and base of the rotary embeddings, by the rule of transformers 5.

    `rope_scaling` replaces `rope_parameters`, and either goes before `rotary_pct` and `rotary_emb_base`.

    Raises:
        FormatError: Some key says another value than that rule gives.
    """
    for name in ("rope_parameters", "rope_scaling"):
        _check_rope(name, config.get(name) or {}, where)
    used = config.get("rope_scaling") or config.get("rope_parameters") or {}
    share = used.get("partial_rotary_factor", config.get("rotary_pct", _ROTARY_PCT))
    base = used.get("rope_theta", config.get("rotary_emb_base", _ROTARY_BASE))
    sources = {"": config, "rope_parameters.": config.get("rope_parameters") or {}}
    for prefix, values in sources.items():
        for key, value in (
            *(("rotary_pct", share), ("partial_rotary_factor", share)),
            *(("rotary_emb_base", base), ("rope_theta", base)),
        ):
            if key in values and values[key] != value:
                raise FormatError(
                    f"{prefix}{key} is {values[key]}, but transformers takes {value} from other keys "
                    f"({where})"
                )
    return float(share), float(base)


def _check_rope(name: str, values: dict[str, Any], where: str) -> None:
    checks = {
        "rope_type": _only("default"),
        "type": _only("default"),
        "rope_theta": _MODEL_KEYS["rope_theta"],
        "partial_rotary_factor": _SHARE,
    }
    for key, value in values.items():
        if key not in checks:
            raise FormatError(f"{name} has the key {key!r}, expected {', '.join(_ROPE_KEYS)} ({where})")
        if not checks[key].holds(value):
            raise FormatError(f"{name}.{key} is {_shown(value)}, expected {checks[key].expected} ({where})")


def _shown(value: object) -> str:
    """The beginning of a value as JSON writes it."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
