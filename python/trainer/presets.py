"""The published sizes of Pythia and GPT-NeoX-20B, as their configurations give them.

Source: GPT-NeoX v1.0 and Pythia's `models/**/*.yml`. All train 1024 sequences of 2048 tokens a step (20B:
1536), 143000 steps (20B: 150000), warmup 0.01, betas 0.9 and 0.95, gradients clipped at 1.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    n_layers: int
    hidden_size: int
    n_heads: int
    lr: float
    init: str = "small_wang"
    vocab_multiple: int = 128
    weight_decay: float = 0.1


PRESETS = {
    "pythia-14m": Preset(6, 128, 4, 1e-3),
    "pythia-31m": Preset(6, 256, 8, 1e-3),
    "pythia-70m": Preset(6, 512, 8, 1e-3),
    "pythia-160m": Preset(12, 768, 12, 6e-4),
    "pythia-410m": Preset(24, 1024, 16, 3e-4),
    "pythia-1b": Preset(16, 2048, 8, 2.5e-4),
    "pythia-1.4b": Preset(24, 2048, 16, 2e-4),
    "pythia-2.8b": Preset(32, 2560, 32, 1.6e-4),
    "pythia-6.9b": Preset(32, 4096, 32, 1.2e-4, "normal_scaled", 256),
    "pythia-12b": Preset(36, 5120, 40, 1.2e-4, "normal_scaled", 512),
    "gpt-neox-20b": Preset(44, 6144, 64, 0.97e-4, vocab_multiple=256, weight_decay=0.01),
}
