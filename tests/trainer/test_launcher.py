from __future__ import annotations

import pytest

from pile_tools.errors import ConfigError
from trainer.launcher import process_count

WHOLE = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


def test_rank_and_size_are_read() -> None:
    assert process_count(WHOLE) == (1, 2)
    assert process_count({}) == (0, 1)
    assert process_count({"MASTER_ADDR": "x", "PATH": ""}) == (0, 1)


@pytest.mark.parametrize("missing", WHOLE)
def test_a_missing_variable_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{missing} is not"):
        process_count({name: value for name, value in WHOLE.items() if name != missing})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", ["", " ", "x", "-1", "1.0", "0x1", "\u0661", "9" * 5000, "65536"])
def test_a_value_out_of_range_is_named(name: str, value: str) -> None:
    if name == "WORLD_SIZE" and value == "65536":
        return
    if name == "MASTER_ADDR" and value.strip():
        return
    with pytest.raises(ConfigError, match=f"{name} is"):
        process_count({**WHOLE, name: value})


def test_contradictions_are_named() -> None:
    with pytest.raises(ConfigError, match="RANK is '2', expected a number from 0 to 1"):
        process_count({**WHOLE, "RANK": "2"})
    with pytest.raises(ConfigError, match="LOCAL_RANK is '1', expected a number from 0 to 0"):
        process_count({**WHOLE, "RANK": "0"})
