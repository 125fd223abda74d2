"""Writes checkpoints in the layouts of GPT-NeoX, split over model-parallel ranks, from a known model."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.model.neox import GPTNeoX

#: Names of a block's tensors since 2024 and with TransformerEngine, where they differ from the older ones.
NEW = {"mlp.dense_h_to_4h": "mlp.linear1", "mlp.dense_4h_to_h": "mlp.linear2"}
ENGINE = {
    "mlp.dense_h_to_4h.": "mlp.fc1_",
    "mlp.dense_4h_to_h.": "mlp.fc2_",
    "attention.query_key_value": "attention.qkv",
    "attention.dense": "attention.proj",
    "post_attention_layernorm.": "mlp.layer_norm_",
}


def configuration(model: GPTNeoX) -> str:
    """The YAML of a model."""
    shape = model.shape
    return f"""{{
  "num-layers": {shape.n_layers}, "hidden-size": {shape.hidden_size},
  "num-attention-heads": {shape.n_heads}, "max-position-embeddings": {shape.max_positions},
  "pos-emb": "rotary", "rotary-pct": {shape.rotary_pct}, "no-weight-tying": true,
  "gpt-j-residual": {str(shape.parallel_residual).lower()}, "bias-gelu-fusion": true, "norm": "layernorm",
}}"""


def layers(model: GPTNeoX, renamed: dict[str, str]) -> dict[int, dict[str, Tensor]]:
    """The tensors of a model by GPT-NeoX's layer numbers and names."""
    found: dict[int, dict[str, Tensor]] = {}
    last = model.shape.n_layers
    for name, tensor in model.state_dict().items():
        if name.startswith("gpt_neox.layers."):
            _, _, number, inner = name.split(".", 3)
            for old, new in renamed.items():
                inner = inner.replace(old, new)
            found.setdefault(int(number) + 2, {})[inner] = tensor
        elif "embed_in" in name:
            found.setdefault(0, {})["word_embeddings.weight"] = tensor
        elif "final_layer_norm" in name:
            found.setdefault(last + 3, {})[f"norm.{name.rsplit('.', 1)[1]}"] = tensor
        else:
            found.setdefault(last + 4, {})["final_linear.weight"] = tensor
    return found


def split(name: str, tensor: Tensor, n_ranks: int, *, is_parallel: bool) -> list[Tensor]:
    """The parts of a tensor that GPT-NeoX's ranks hold, of a model with parallel or sequential residuals."""
    is_row_parallel = any(
        key in name for key in ("attention.dense", "attention.proj", "4h_to_h", "linear2", "fc2")
    )
    is_bias_of_rows = is_row_parallel and tensor.ndim == 1
    if "norm" in name or (is_bias_of_rows and not is_parallel):
        return [tensor.clone() for _ in range(n_ranks)]
    if is_bias_of_rows:
        # Ranks add their biases; these parts do so exactly.
        return [tensor / n_ranks for _ in range(n_ranks)]
    return [part.clone() for part in tensor.chunk(n_ranks, dim=1 if is_row_parallel else 0)]


Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write_checkpoint() -> Write:
    """Writes a run's folder with `latest`, `configs` and one step."""

    def write(
        folder: Path,
        model: GPTNeoX,
        n_ranks: int = 1,
        names: dict[str, str] | None = None,
        *,
        is_pipeline: bool = True,
    ) -> Path:
        step = folder / "global_step3"
        step.mkdir(parents=True)
        (folder / "latest").write_text("global_step3")
        (folder / "configs").mkdir()
        (folder / "configs" / "model.yml").write_text(configuration(model))
        by_layer = layers(model, names or {})
        for rank in range(n_ranks):
            is_parallel = model.shape.parallel_residual
            parts = {
                number: OrderedDict(
                    (name, split(name, t, n_ranks, is_parallel=is_parallel)[rank])
                    for name, t in tensors.items()
                )
                for number, tensors in by_layer.items()
            }
            for number in parts:
                if 2 <= number < model.shape.n_layers + 2:
                    parts[number]["attention.rotary_emb.inv_freq"] = torch.ones(4)
            if is_pipeline:
                for number, tensors in parts.items():
                    torch.save(tensors, step / f"layer_{number:02}-model_{rank:02}-model_states.pt")
            module = {
                f"sequential.{i}.{name}": t for i, tensors in parts.items() for name, t in tensors.items()
            }
            torch.save(
                state(None if is_pipeline else OrderedDict(module)),
                step / f"mp_rank_{rank:02}_model_states.pt",
            )
        return folder

    return write


def state(module: Any) -> dict[str, Any]:
    """What DeepSpeed and GPT-NeoX save beside the weights."""
    return {
        "module": module,
        "optimizer": None,
        "lr_scheduler": {"num_iters": 3},
        "param_shapes": [OrderedDict(x=torch.Size([2, 3]))],
        "global_steps": 3,
        "ds_config": {"train_batch_size": 4, "fp16": {"enabled": True}},
        "iteration": 3,
        "args": {"num_layers": 2, "tokenizer_type": "HFTokenizer"},
        "random_rng_state": random.Random(0).getstate(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.Generator().get_state(),
        "rng_tracker_states": {"model-parallel-rng": torch.zeros(4, dtype=torch.uint8)},
    }
