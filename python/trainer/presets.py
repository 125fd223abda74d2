"""The published models of Pythia, PolyPythia and GPT-NeoX-20B, and how they were trained.

`pythia-70m` is trained on the Pile, `pythia-70m-deduped` on the deduplicated Pile. `pythia-70m-seed3` is a
PolyPythia: the seed decides the first weights and the order of the data.

Source: GPT-NeoX v1.0 and Pythia's `models/**/*.yml`. What all of them share is a default of `Preset`. The yml
of Pythia 1B gives the rate 2.5e-4 where its README says 3e-4, and fp16 where its README says bf16. Those of
6.9B and 12B name no initialization, which means GPT-NeoX's defaults. That of 12B deduplicated exchanges
layers and heads. The yml of GPT-NeoX-20B gives 4 sequences, 32 accumulation steps and 8 ranks a copy on 96
GPUs: a batch of 1,536, where its paper says 1,538. It names no early checkpoints, which our runs have anyway.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

#: Ids of the tokenizer that all of them were trained with.
TOKENIZER_SIZE = 50277

#: Models of PolyPythia, and their seeds besides Pythia's own.
_POLYPYTHIA = ("pythia-14m", "pythia-31m", "pythia-70m", "pythia-160m", "pythia-410m")
_SEEDS = range(1, 10)


@dataclass(frozen=True, slots=True)
class Preset:
    """One published size.

    Attributes:
        n_layers: Blocks.
        hidden_size: Width.
        n_heads: Attention heads of a block.
        lr: Highest learning rate.
        init: How the weights start, see `trainer.model.init`.
        vocab_multiple: The vocabulary is padded to a multiple of this: 128 times the model-parallel ranks.
        weight_decay: Of AdamW.
        batch_size: Sequences of a step.
        steps: Updates.
        seq_length: Tokens of a sequence.
        schedule: Formula of the learning rate, see `trainer.schedule`.
        hidden_act: Activation of the fused kernel that trained it, the tanh form. The Hub's configurations of
            Pythia say `gelu`, the exact form, because the converter left out this key.
        warmup: Share of the steps in which the rate rises.
        betas: Of AdamW.
        eps: Of AdamW.
        gradient_clipping: Largest norm of a gradient.
        rotary_pct: Share of a head that rotary embeddings turn.
        rotary_base: Base of the rotary frequencies.
        layer_norm_eps: Epsilon of the layer norms.
        parallel_residual: Attention and MLP side by side.
        seed: Of the first weights and of the order.
        checkpoint_every: Steps between checkpoints, besides steps 0, 1, 2, 4, ..., 512.
        precision: In which it was trained; fp16 with dynamic loss scaling.
        data: What it was trained on.
    """

    n_layers: int
    hidden_size: int
    n_heads: int
    lr: float
    init: str = "small_wang"
    vocab_multiple: int = 128
    weight_decay: float = 0.1
    batch_size: int = 1024
    steps: int = 143_000
    seq_length: int = 2048
    schedule: str = "neox_v1"
    hidden_act: str = "gelu_pytorch_tanh"
    warmup: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    gradient_clipping: float = 1.0
    rotary_pct: float = 0.25
    rotary_base: float = 10000.0
    layer_norm_eps: float = 1e-5
    parallel_residual: bool = True
    seed: int = 1234
    checkpoint_every: int = 1000
    precision: str = "fp16"
    data: str = "the Pile"

    @property
    def min_lr(self) -> float:
        """Lowest learning rate."""
        return self.lr / 10

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return -(-TOKENIZER_SIZE // self.vocab_multiple) * self.vocab_multiple


_SIZES = {
    "pythia-14m": Preset(6, 128, 4, 1e-3),
    "pythia-31m": Preset(6, 256, 8, 1e-3),
    "pythia-70m": Preset(6, 512, 8, 1e-3),
    "pythia-160m": Preset(12, 768, 12, 6e-4),
    "pythia-410m": Preset(24, 1024, 16, 3e-4),
    "pythia-1b": Preset(16, 2048, 8, 2.5e-4),
    "pythia-1.4b": Preset(24, 2048, 16, 2e-4),
    "pythia-2.8b": Preset(32, 2560, 32, 1.6e-4),
    "pythia-6.9b": Preset(32, 4096, 32, 1.2e-4, init="normal_scaled", vocab_multiple=256),
    "pythia-12b": Preset(36, 5120, 40, 1.2e-4, init="normal_scaled", vocab_multiple=512),
    "gpt-neox-20b": Preset(
        *(44, 6144, 64, 0.97e-4),
        vocab_multiple=256,
        weight_decay=0.01,
        batch_size=1536,
        steps=150_000,
        checkpoint_every=500,
    ),
}


def _presets() -> dict[str, Preset]:
    """The sizes, each followed by its variants."""
    found: dict[str, Preset] = {}
    for name, size in _SIZES.items():
        found[name] = size
        if name.startswith("pythia-") and name not in ("pythia-14m", "pythia-31m"):
            found[f"{name}-deduped"] = dataclasses.replace(size, data="the deduplicated Pile")
        if name in _POLYPYTHIA:
            found |= {f"{name}-seed{seed}": dataclasses.replace(size, seed=seed) for seed in _SEEDS}
    return found


#: Every preset by its name.
PRESETS = _presets()


def named() -> str:
    """The names of all presets for a message, those of the seeds as one pattern."""
    names = [name for name in PRESETS if not re.search(r"-seed\d$", name)]
    return f"{', '.join(names)}, and pythia-14m to -410m with -seed1 to -seed9"
