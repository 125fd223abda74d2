"""Compares our models and folders with those of transformers in other environments: `make compat`.

    ours.py write FOLDER              writes folders of ours and their logits
    theirs.py FOLDER                  in another environment: reads them, and writes folders of its own
    ours.py read FOLDER VERSION       reads those

Both directions must give logits within 1e-4 in fp32, for every shape.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from pile_tools import Tokenizer
from trainer.checkpoint import card, hf_folder
from trainer.checkpoint.load import load_model
from trainer.model.init import initialize
from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape

TOLERANCE = 1e-4

#: Odd shapes: one block or head, odd vocabularies, all and few dimensions rotated, sequential residual.
SHAPES = {
    "pythia-like": {"hidden_size": 64, "n_layers": 3, "n_heads": 4},
    "one-of-each": {"hidden_size": 8, "n_layers": 1, "n_heads": 1, "vocab_size": 1003},
    "sequential": {"hidden_size": 48, "n_layers": 2, "n_heads": 3, "parallel_residual": False},
    "all-rotated": {"hidden_size": 40, "n_layers": 2, "n_heads": 5, "rotary_pct": 1.0, "rotary_base": 500.0},
    "two-rotated": {
        "hidden_size": 30,
        "n_layers": 2,
        "n_heads": 3,
        "rotary_pct": 0.2,
        "layer_norm_eps": 1e-3,
    },
    "tanh": {"hidden_size": 72, "n_layers": 2, "n_heads": 9, "hidden_act": "gelu_pytorch_tanh"},
}


def shape_of(name: str, n_known: int) -> ModelShape:
    """A shape by its name."""
    values = {"vocab_size": n_known + 7, "max_positions": 64, **SHAPES[name]}
    return ModelShape(**values)


def tokens(vocab_size: int) -> torch.Tensor:
    """Tokens of three sequences, (3, 33) int64."""
    return torch.randint(0, vocab_size, (3, 33), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def write(folder: Path, tokenizer_file: Path) -> None:
    """Writes a folder of every shape, with tokens, their logits, and a text's ids."""
    tokenizer = Tokenizer.from_file(tokenizer_file)
    for name in SHAPES:
        shape = shape_of(name, tokenizer.vocab_size)
        model = GPTNeoX(shape)
        initialize(model, 1)
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        made = folder / "ours" / name
        made.mkdir(parents=True)
        # Shards too, for one of the shapes.
        limit = 20_000 if name == "sequential" else hf_folder.MAX_SHARD_BYTES
        _, dtype = hf_folder.write_weights(made, model.state_dict().items(), limit)
        about = card.text(name, "Written by make compat.", card.shape_rows(shape), {})
        data = tokenizer_file.read_bytes()
        hf_folder.write_about(made, shape, dtype, about, tokenizer, data)
        given = tokens(shape.vocab_size)
        np.savez(folder / f"ours-{name}.npz", tokens=given.numpy(), logits=model(given).numpy())
    text = "Two words,  naïve 日本語\n\n  x_1 = 3"
    eod = tokenizer.eod
    known = {"text": text, "ids": tokenizer.encode(text).tolist(), "eod": eod[0] if eod else None}
    (folder / "text.json").write_text(json.dumps(known))


@torch.no_grad()
def read(folder: Path, version: str) -> None:
    """Compares the logits of our models with those of another environment's folders."""
    paths = sorted((folder / f"theirs-{version}").iterdir())
    assert len(paths) > 3, paths
    for path in paths:
        with np.load(folder / f"theirs-{version}-{path.name}.npz") as known:
            given, expected = torch.from_numpy(known["tokens"]), known["logits"]
        found = load_model(path)(given).numpy()
        worst = float(np.abs(found - expected).max())
        assert worst <= TOLERANCE, (path, worst)
        print(f"  transformers {version} -> ours, {path.name}: logits differ by at most {worst:.1e}")


def main() -> None:
    """The program."""
    torch.set_num_threads(1)
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        write(folder, Path(sys.argv[3]))
    else:
        read(folder, sys.argv[3])


if __name__ == "__main__":
    main()
