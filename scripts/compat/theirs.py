"""Reads our folders with the transformers of this environment, and writes folders for `ours.py read`.

Nothing of ours is imported: what is in a folder must be enough.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers

TOLERANCE = 1e-4

#: Shapes of the models that are written, as `GPTNeoXConfig` names them.
SHAPES = {
    "default": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "narrow": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 333},
    "sequential": {
        **{"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3},
        "use_parallel_residual": False,
    },
    "tanh": {
        **{"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "vocab_size": 1001},
        "hidden_act": "gelu_new",
    },
    "shards": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6},
}


@torch.no_grad()
def read(folder: Path) -> None:
    """Compares logits, special tokens and ids with what our side wrote."""
    known = json.loads((folder / "text.json").read_text())
    for path in sorted((folder / "ours").iterdir()):
        with np.load(folder / f"ours-{path.name}.npz") as file:
            tokens, expected = torch.from_numpy(file["tokens"]), file["logits"]
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, torch_dtype=torch.float32
        )
        assert type(model).__name__ == "GPTNeoXForCausalLM", type(model)
        assert not info["missing_keys"], info
        assert not info["unexpected_keys"], info
        worst = float(np.abs(model.eval()(tokens).logits.numpy() - expected).max())
        assert worst <= TOLERANCE, (path, worst)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        assert tokenizer.eos_token == tokenizer.bos_token == known["eod"], tokenizer
        assert tokenizer(known["text"])["input_ids"] == known["ids"], path
        assert tokenizer.decode(known["ids"]) == known["text"], path
        print(
            f"  ours -> transformers {transformers.__version__}, {path.name}: "
            f"logits differ by at most {worst:.1e}"
        )


@torch.no_grad()
def write(folder: Path) -> None:
    """Writes models with random weights, tokens and their logits."""
    version = transformers.__version__.split(".")[0]
    for name, values in SHAPES.items():
        sizes = {"vocab_size": 512, "max_position_embeddings": 64, **values}
        config = transformers.GPTNeoXConfig(intermediate_size=4 * values["hidden_size"], **sizes)
        torch.manual_seed(3)
        model = transformers.GPTNeoXForCausalLM(config).eval()
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
        made = folder / f"theirs-{version}" / name
        limit = {"max_shard_size": "200KB"} if name == "shards" else {}
        model.save_pretrained(made, **limit)
        tokens = torch.randint(0, config.vocab_size, (2, 29))
        logits = model(tokens).logits.numpy()
        np.savez(folder / f"theirs-{version}-{name}.npz", tokens=tokens.numpy(), logits=logits)


def main() -> None:
    """The program."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    read(folder)
    write(folder)


if __name__ == "__main__":
    main()
