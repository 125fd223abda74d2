"""The shape of a GPT-NeoX model: everything its weights and its arithmetic depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pile_tools.errors import ConfigError, FormatError

#: Hugging Face's names of activations -> torch's `approximate`. GPT-NeoX trains Pythia with the tanh form.
ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_fast": "tanh", "gelu_pytorch_tanh": "tanh"}

#: Smallest and largest values. The largest sizes are far beyond those of any model: a file that gives more is
#: damaged, and a model of that size would not fit a machine.
LIMITS = {
    "vocab_size": (1, 2**31 - 1),
    "hidden_size": (1, 2**20),
    "n_layers": (1, 1000),
    "n_heads": (1, 2**20),
    "max_positions": (1, 2**31 - 1),
    "rotary_pct": (0, 1),
    "rotary_base": (1e-3, 1e12),
    "layer_norm_eps": (0, 1),
}

#: How matrices start: GPT-NeoX's small_init + wang_init, or normal(0.02) + scaled_normal.
INITS = ("small_wang", "normal_scaled")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A GPT-NeoX model's dimensions and constants.

    Attributes:
        vocab_size: Rows of the embedding and of the output layer.
        hidden_size: Width of the residual stream.
        n_layers: Blocks.
        n_heads: Attention heads of a block.
        max_positions: Longest sequence it is meant for; recorded, not enforced.
        rotary_pct: Share of a head's dimensions that rotary embeddings turn.
        rotary_base: Base of the rotary frequencies.
        layer_norm_eps: Epsilon of the layer norms.
        parallel_residual: x + attention(LN1 x) + mlp(LN2 x) instead of one after the other.
        hidden_act: The MLP's activation by Hugging Face's name, a key of `ACTIVATIONS`.
        init: How the weights start, one of `INITS`.
    """

    vocab_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    max_positions: int
    rotary_pct: float = 0.25
    rotary_base: float = 10000.0
    layer_norm_eps: float = 1e-5
    parallel_residual: bool = True
    hidden_act: str = "gelu"
    init: str = "small_wang"

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            found = getattr(self, name)
            if not low <= found <= high:
                # The upper limit is far beyond any model and would distract from a value that is too small.
                expected = f">= {low}" if found < low else f"in [{low:g}, {high:g}]"
                raise ConfigError(f"{name} must be {expected}, got {found}")
        if self.hidden_size % self.n_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} is not a multiple of n_heads {self.n_heads}")
        if self.rotary_dims % 2:
            raise ConfigError(
                f"rotary_pct {self.rotary_pct} turns {self.rotary_dims} dimensions, not an even number"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
        if self.init not in INITS:
            raise ConfigError(f"init {self.init!r} is not one of {', '.join(INITS)}")

    def refuse_tokenizer(self, n_ids: int, path: Path) -> None:
        """Raises FormatError for a tokenizer of another model, which has more ids than the vocabulary."""
        if n_ids > self.vocab_size:
            found = f"{n_ids:,} ids, the model {self.vocab_size:,}"
            raise FormatError(f"another model's tokenizer: it has {found} ({path})")

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.n_heads

    @property
    def rotary_dims(self) -> int:
        """Dimensions of a head that rotary embeddings turn, its first ones."""
        return int(self.head_dim * self.rotary_pct)

    @property
    def n_parameters(self) -> int:
        """Weights in all, both embedding matrices included."""
        h = self.hidden_size
        # Weights and biases: query_key_value has 3hh + 3h, dense hh + h, the MLP 4hh + 4h and 4hh + h. Each
        # of the two layer norms has 2h.
        block = 12 * h * h + 13 * h
        return 2 * self.vocab_size * h + self.n_layers * block + 2 * h
