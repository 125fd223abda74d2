"""Whatever key of config.json is changed: the logits are those of transformers, or the folder is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import trainer
from pile_tools.errors import FormatError
from trainer.checkpoint import hf
from trainer.checkpoint.config_json import shape_of as read_shape
from trainer.model.neox import GPTNeoX

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

ModelOf = Callable[..., GPTNeoX]

#: For every key in turn: wrong types, values out of range, what other keys contradict.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 3, 64, 96, 0.0, 0.5, 1.0, -0.5, 1e-3, 1e300, 10**30, 100.0),
    *(float("nan"), float("inf"), "", "x", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "float16"),
    *([], [1], ["x"], {}, {"x": 1}, {"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}),
    *({"type": "dynamic", "factor": 2.0}, {"rope_theta": 100.0, "rope_type": "default"}),
]

#: Keys that transformers or its model looks up though its class does not declare them.
MORE_KEYS = (
    *("head_dim", "rope_scaling", "rope_theta", "partial_rotary_factor", "rotary_pct", "rotary_emb_base"),
    *(
        "torch_dtype",
        "is_causal",
        "quantization_config",
        "per_layer_config",
        "layer_types",
        "attn_implementation",
    ),
    *(
        "sliding_window",
        "name",
        "transformers_weights",
        "num_labels",
        "output_attentions",
        "auto_map",
        "model_type",
    ),
)


@pytest.fixture(scope="module")
def folder(model_of: ModelOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights to which each test writes a config.json."""
    folder = tmp_path_factory.mktemp("model")
    model = model_of(hidden_size=32, n_layers=1, n_heads=2)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def plain(model_of: ModelOf) -> dict[str, Any]:
    return hf.model_config(model_of(hidden_size=32, n_layers=1, n_heads=2).shape, "float32", 0)


def ours(folder: Path, config: dict[str, Any]) -> torch.Tensor | None:
    """The logits, or None if the folder is refused in one line."""
    (folder / "config.json").write_text(json.dumps(config))
    try:
        return trainer.load_model(folder)(tokens())
    except FormatError as err:
        message = str(err)
    assert "\n" not in message
    assert str(folder) in message
    return None


def theirs(folder: Path) -> torch.Tensor:
    """The logits of transformers; the weights are loaded by name, which takes a tenth of its own time."""
    config = transformers.GPTNeoXConfig.from_pretrained(folder)
    model = transformers.GPTNeoXForCausalLM._from_config(config).float()
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.replace("embed_out", "lm_head"): tensor for name, tensor in weights.items()})
    logits: torch.Tensor = model.eval()(tokens()).logits
    return logits


def tokens() -> torch.Tensor:
    return torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(1))


def agrees(folder: Path, config: dict[str, Any]) -> bool:
    """Whether both give the same logits or ours refuses; asserts it, and says which."""
    found = ours(folder, config)
    if found is None:
        return False
    torch.testing.assert_close(found, theirs(folder), atol=1e-4, rtol=0, msg=json.dumps(config))
    return True


@torch.no_grad()
def test_one_key_at_a_time(model_of: ModelOf, folder: Path) -> None:
    ours_as_written = plain(model_of)
    declared = json.loads(transformers.GPTNeoXConfig(**ours_as_written).to_json_string(use_diff=False))
    config = {**declared, **ours_as_written}
    n_accepted = 0
    assert agrees(folder, config)
    for name in sorted({*config, *MORE_KEYS}):
        without = {key: value for key, value in config.items() if key != name}
        for changed in [without, *({**without, name: copy.deepcopy(value)} for value in VALUES)]:
            n_accepted += agrees(folder, changed)
    assert n_accepted > 100


@torch.no_grad()
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_rotary_keys_in_every_combination(key: str, model_of: ModelOf, folder: Path) -> None:
    config = plain(model_of)
    for name in ("rope_parameters", "rotary_pct", "rotary_emb_base"):
        del config[name]
    parts: list[dict[str, Any]] = [
        *({}, {"rope_type": "default"}, {"type": "default"}, {"rope_theta": 100.0}),
        *({"rope_theta": 100, "partial_rotary_factor": 1.0}, {"partial_rotary_factor": 0.5}),
    ]
    outside: list[dict[str, Any]] = [
        *({}, {"rotary_pct": 0.5}, {"rotary_pct": 1.0, "rotary_emb_base": 100}),
        *({"rotary_emb_base": 10000}, {"rope_theta": 100.0}, {"partial_rotary_factor": 0.5}),
        *({"rope_parameters": {"rope_theta": 100.0}}, {"rope_parameters": {"partial_rotary_factor": 1}}),
    ]
    n_accepted = sum(
        agrees(folder, copy.deepcopy({**config, **more, key: part})) for part in parts for more in outside
    )
    assert 8 < n_accepted < len(parts) * len(outside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_pct": 1.0}, "rotary_pct is 1.0, but transformers takes 0.5 from other keys"),
        ({"rotary_emb_base": 500}, "rotary_emb_base is 500, but transformers takes 10000.0"),
        ({"rope_scaling": {"rope_theta": 5.0}}, "rotary_emb_base is 10000.0, but transformers takes 5.0"),
        ({"head_dim": 32}, "head_dim is 32, expected 12 by the other sizes"),
        ({"intermediate_size": 100}, "intermediate_size is 100, expected 192"),
        ({"num_attention_heads": 5}, "hidden_size 48 is not a multiple of num_attention_heads 5"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected a whole number from 1 to"),
        ({"hidden_size": True}, "hidden_size is true, expected a whole number"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is NaN, expected a number"),
        ({"hidden_act": "silu"}, 'hidden_act is "silu", expected "gelu"'),
        ({"attention_bias": False}, "attention_bias is false, expected true"),
        ({"hidden_dropout": 2.0}, "hidden_dropout is 2.0, expected a number from 0 to 1"),
        ({"use_parallel_residual": "yes"}, 'use_parallel_residual is "yes", expected true or false'),
        ({"rope_parameters": {"rope_type": "default", "factor": 2}}, "rope_parameters has the key 'factor'"),
        ({"quantization_config": {}}, "unknown key 'quantization_config'"),
    ],
)
def test_the_key_is_named(model_of: ModelOf, changes: dict[str, Any], message: str) -> None:
    config = {**hf.model_config(model_of().shape, "float32", 0), **changes}
    with pytest.raises(FormatError, match=message):
        read_shape(config, "config.json")


def test_configs_of_the_hub_are_read() -> None:
    pythia = {
        **{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0},
        **{"hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048},
        **{"layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox"},
        **{"num_attention_heads": 8, "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25},
        **{"tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.24.0"},
        **{"use_cache": True, "use_parallel_residual": True, "vocab_size": 50304},
    }
    shape = read_shape(pythia, "config.json")
    assert (shape.hidden_act, shape.rotary_pct, shape.rotary_base) == ("gelu", 0.25, 10000.0)
    neox = {**pythia, "attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0, "hidden_act": "gelu_fast"}
    assert read_shape(neox, "config.json").hidden_act == "gelu_fast"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"3", b"[" * 10**6, b" " * (17 << 20)])
def test_what_is_no_config_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"config\.json"):
        trainer.load_model(tmp_path)
