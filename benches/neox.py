"""Builds a `packed` order with GPT-NeoX's own functions and C++ helper, from a checkout.

The functions are extracted from their file because it imports torch, which they do not need.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benches.measure import CACHE

#: The functions that `_build_index_mappings` of megatron/data/gpt2_dataset.py calls, besides the helper.
FUNCTIONS = ("_num_tokens", "_num_epochs", "_build_doc_idx", "_build_shuffle_idx")


def functions(checkout: Path) -> dict[str, Any]:
    """The functions [`FUNCTIONS`] of the checkout, unchanged."""
    path = checkout / "megatron/data/gpt2_dataset.py"
    module = ast.parse(path.read_text())
    module.body = [node for node in module.body if getattr(node, "name", None) in FUNCTIONS]
    names: dict[str, Any] = {"np": np}
    exec(compile(module, str(path), "exec"), names)
    return names


def helpers(checkout: Path) -> ModuleType:
    """The C++ helper, compiled once, with the flags of its Makefile."""
    import pybind11

    source = checkout / "megatron/data/helpers.cpp"
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    folder = CACHE / f"helpers-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    built = folder / f"helpers{suffix}"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        flags = ["-O3", "-Wall", "-shared", "-std=c++11", "-fPIC"]
        includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
        subprocess.run(["c++", *flags, *includes, str(source), "-o", str(built)], check=True)
    loader = importlib.machinery.ExtensionFileLoader("helpers", str(built))
    spec = importlib.util.spec_from_file_location("helpers", built, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def build(checkout: Path, sizes: np.ndarray, stem: Path, seq_length: int, n_samples: int, seed: int) -> None:
    """Writes the three files by the steps of `_build_index_mappings` for `packed`."""
    own, helper = functions(checkout), helpers(checkout)
    documents = np.arange(len(sizes), dtype=np.int32)
    tokens_per_epoch = own["_num_tokens"](documents, sizes)
    num_epochs = own["_num_epochs"](tokens_per_epoch, seq_length, n_samples)
    random = np.random.RandomState(seed=seed)
    doc_idx = own["_build_doc_idx"](documents, num_epochs, random)
    np.save(f"{stem}_doc_idx.npy", doc_idx, allow_pickle=True)
    is_small = 2 * ((num_epochs * tokens_per_epoch - 1) / seq_length + 1) < np.iinfo(np.int32).max
    cut = helper.build_sample_idx_int32 if is_small else helper.build_sample_idx_int64
    sample_idx = cut(sizes, doc_idx, seq_length, num_epochs, tokens_per_epoch)
    np.save(f"{stem}_sample_idx.npy", sample_idx, allow_pickle=True)
    shuffle_idx = own["_build_shuffle_idx"](sample_idx.shape[0] - 1, random)
    np.save(f"{stem}_shuffle_idx.npy", shuffle_idx, allow_pickle=True)
