from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pile_tools.errors import ConfigError
from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, "n_layers must be >= 1, got 0"),
        ({"n_heads": 5}, "hidden_size 48 is not a multiple of n_heads 5"),
        ({"rotary_pct": 0.25}, "turns 3 dimensions"),
        ({"rotary_pct": 1.5}, "rotary_pct must be in"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not one of"),
        ({"rotary_base": 0.0}, "rotary_base must be"),
        ({"rotary_base": float("nan")}, "rotary_base must be"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps must be"),
        ({"n_layers": 10**9}, "n_layers must be in"),
        ({"init": "zeros"}, "init 'zeros' is not one of"),
    ],
)
def test_an_impossible_shape_is_named(
    shape_of: Callable[..., ModelShape], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        shape_of(**changes)


def test_the_parameters_are_counted(shape_of: Callable[..., ModelShape]) -> None:
    shape = shape_of()
    assert shape.n_parameters == sum(p.numel() for p in GPTNeoX(shape).parameters())
