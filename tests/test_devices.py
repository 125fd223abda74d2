"""Every name of a device that torch knows can be used or is refused."""

from __future__ import annotations

import re
import warnings

import pytest
import torch

from pile_tools.devices import check_device
from pile_tools.errors import ConfigError


def test_every_device_of_torch_is_there_or_is_refused() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.device("none")
    listed = re.search(r"one of ([\w, ]+) device type", str(found.value))
    assert listed is not None
    names = listed[1].split(", ")
    assert {"cpu", "cuda", "hpu", "meta", "mkldnn", "privateuseone"} <= set(names)
    refused = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in names:
            try:
                check_device(name, torch.zeros)
            except ConfigError:
                refused.add(name)
    assert refused >= {"hpu", "meta", "mkldnn", "privateuseone"}
    assert "cpu" not in refused
