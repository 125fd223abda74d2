"""Pickles that would keep an unpickler busy or take its memory are refused, and what torch saves passes."""

from __future__ import annotations

import collections
import io
import pickle
import struct
from typing import Any

import pytest
import torch

from pile_tools.errors import FormatError
from pile_tools.pickles import MAX_DEPTH, Global, check_pickle


def tensor_names(named: Global) -> bool:
    return named[0] in ("torch", "torch._utils", "collections", "omegaconf")


def checked(data: bytes) -> set[Global]:
    return check_pickle(io.BytesIO(data), "x.pkl", tensor_names, lambda named: named[0] == "omegaconf")


def put(number: int) -> bytes:
    return b"r" + struct.pack("<I", number)


def get(number: int) -> bytes:
    return b"j" + struct.pack("<I", number)


def doubled(first: bytes, join: bytes, n_times: int = 45) -> bytes:
    """A value of two of a value of two ..., 2 to the `n_times` values in all."""
    steps = [get(i) + get(i) + join + put(i + 1) for i in range(n_times)]
    return first + put(0) + b"".join(steps)


HOSTILE = {
    "a key of a dictionary that is hashed for ever": b"\x80\x02}" + doubled(b"N", b"\x86") + b"Ns.",
    "a list of lists": b"\x80\x02]"
    + put(0)
    + b"".join(b"]" + put(i + 1) + b"(" + get(i) + get(i) + b"e" for i in range(45))
    + b".",
    "an argument of a call": b"\x80\x02ccollections\nOrderedDict\n" + doubled(b"N", b"\x86") + b"\x85R.",
    "the name of a storage": b"\x80\x02" + doubled(b"N", b"\x86") + b"Q.",
    "a state": b"\x80\x02ccollections\nOrderedDict\n)R" + doubled(b"N", b"\x86") + b"b.",
    "lists that grow after they are repeated": b"\x80\x02"
    + b"".join(b"]" + put(i) for i in range(45))
    + b"".join(get(i) + b"(" + get(i + 1) + get(i + 1) + b"e" for i in range(44))
    + b".",
    "a depth at which the interpreter crashes": b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.",
    "memory by the type of a storage": b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.",
    "a call of a value": b"\x80\x02N)R.",
    "a value that is not there": b"\x80\x02\x86.",
    "a value on the other side of a mark": b"\x80\x02N(\x85.",
    "no mark": b"\x80\x02Nt.",
    "nothing in the memo": b"\x80\x02h\x05.",
    "nothing to fill": b"\x80\x02Na.",
    "a plain value to fill": b"\x80\x02N]a.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"x\.pkl"):
        checked(HOSTILE[name])
    # It leaves nothing behind that the next pickle would be judged by.
    assert checked(pickle.dumps([1, [None]], protocol=2)) == set()
    test_a_depth_of_settings_passes()


def settings() -> Any:
    """Values as checkpoints have them: shared tuples and lists, and tensors that share one storage."""
    betas, weight = (0.9, 0.999), torch.ones(4, 4)
    groups = [{"betas": betas, "params": list(range(100))} for _ in range(50)]
    view = weight[1:]
    return collections.OrderedDict(groups=groups, again=groups, weight=weight, tied=weight, view=view)


@pytest.mark.parametrize("value", [settings(), {}, [], 3, None, torch.nn.Parameter(torch.ones(2))])
def test_what_torch_saves_passes(value: Any) -> None:
    for zipped in (True, False):
        saved = io.BytesIO()
        torch.save(value, saved, _use_new_zipfile_serialization=zipped)
        if zipped:
            data = torch._C.PyTorchFileReader(io.BytesIO(saved.getvalue())).get_record("data.pkl")
            assert checked(data) <= {
                *(("collections", "OrderedDict"), ("torch", "FloatStorage")),
                *(("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")),
            }


def test_a_depth_of_settings_passes() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert checked(pickle.dumps(value, protocol=2)) == set()
    with pytest.raises(FormatError, match=rf"nested deeper than {MAX_DEPTH} "):
        checked(pickle.dumps([value], protocol=2))


def test_objects_that_are_not_loaded_may_refer_to_each_other() -> None:
    # As the nodes of OmegaConf know the node that holds them.
    data = b"\x80\x02comegaconf\nDictConfig\n)\x81" + put(0) + b"}X\x07\x00\x00\x00_parent" + get(0) + b"sb."
    assert checked(data) == {("omegaconf", "DictConfig")}
