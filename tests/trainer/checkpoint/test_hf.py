from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pile_tools.errors import FormatError
from trainer.checkpoint import hf
from trainer.checkpoint.config_json import shape_of as shape_of_config
from trainer.shape import ModelShape

ShapeOf = Callable[..., ModelShape]


def test_a_config_is_read_back(shape_of: ShapeOf) -> None:
    shape = shape_of(parallel_residual=False, rotary_base=500.0, hidden_act="gelu_pytorch_tanh")
    assert shape_of_config(hf.model_config(shape, "float32", 0), "here") == shape


def test_either_spelling_of_rotary_is_enough(shape_of: ShapeOf) -> None:
    shape = shape_of(rotary_pct=1.0, rotary_base=500.0)
    config = hf.model_config(shape, "float32", 0)
    new = {name: value for name, value in config.items() if not name.startswith("rotary")}
    old = {name: value for name, value in config.items() if name != "rope_parameters"}
    assert shape_of_config(new, "here") == shape_of_config(old, "here") == shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, 'model_type is "llama", expected "gpt_neox"'),
        ({"intermediate_size": 7}, "intermediate_size is 7"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true"),
        ({"rope_parameters": {"rope_type": "yarn"}}, 'rope_type is "yarn"'),
    ],
)
def test_what_we_cannot_run_is_refused(shape_of: ShapeOf, changes: dict[str, Any], message: str) -> None:
    config = hf.model_config(shape_of(), "float32", 0) | changes
    with pytest.raises(FormatError, match=message):
        shape_of_config(config, "here")


def test_a_missing_key_is_named(shape_of: ShapeOf) -> None:
    config = hf.model_config(shape_of(), "float32", 0)
    del config["num_attention_heads"]
    with pytest.raises(FormatError, match="no key 'num_attention_heads'"):
        shape_of_config(config, "here")
