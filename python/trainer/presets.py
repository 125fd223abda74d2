"""The published sizes of Pythia and GPT-NeoX-20B, and how they were trained.

Source: GPT-NeoX v1.0 and Pythia's `models/**/*.yml`. What all of them share is a default of `Preset`. The yml
of Pythia 1B gives the rate 2.5e-4 where its README says 3e-4, and fp16 where its README says bf16; those of
6.9B and 12B name no initialization, which means GPT-NeoX's defaults. The batch of GPT-NeoX-20B is from its
paper.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Ids of the tokenizer that all of them were trained with.
TOKENIZER_SIZE = 50277


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
        seed: Of the first weights.
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

    @property
    def min_lr(self) -> float:
        """Lowest learning rate."""
        return self.lr / 10

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return -(-TOKENIZER_SIZE // self.vocab_multiple) * self.vocab_multiple


PRESETS = {
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
        44, 6144, 64, 0.97e-4, vocab_multiple=256, weight_decay=0.01, batch_size=1536, steps=150_000
    ),
}
