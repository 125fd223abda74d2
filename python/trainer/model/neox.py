"""GPT-NeoX in PyTorch: the architecture of Pythia and GPT-NeoX-20B.

Modules are named as Hugging Face's files name their tensors, so a state dict is what `model.safetensors`
holds (`gpt_neox.layers.0.attention.query_key_value.weight`, ..., `embed_out.weight`). No dropout: Pythia has
none.

Letters in shapes: n sequences, t new tokens, p earlier tokens, h hidden, a heads, d head width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.model.loss import Losses, chunked_losses
from trainer.shape import ACTIVATIONS, ModelShape


class Cache:
    """Keys and values of the tokens a model has seen: a forward pass then computes the new tokens only.

    Args:
        shape: The model's.
        n_sequences: Sequences of the batch.
        n_positions: Capacity, in tokens of each sequence.
        like: A tensor of the model, for its device and dtype.
    """

    def __init__(self, shape: ModelShape, n_sequences: int, n_positions: int, like: Tensor) -> None:
        size = (shape.n_layers, n_sequences, shape.n_heads, n_positions, shape.head_dim)
        self._keys, self._values = like.new_empty(size), like.new_empty(size)
        #: Tokens seen so far. `Stack` adds the new ones after its last layer: all layers see the same length.
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, these new ones last: two (n, a, t, d) -> two (n, a, p + t, d)."""
        end = self.length + keys.shape[2]
        self._keys[layer, :, :, self.length : end] = keys
        self._values[layer, :, :, self.length : end] = values
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]


def rotary_tables(shape: ModelShape, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions, computed in float32: (..., t) -> two (..., t, rotary_dims)."""
    numbers = torch.arange(0, shape.rotary_dims, 2, dtype=torch.float32, device=like.device)
    frequencies = 1.0 / shape.rotary_base ** (numbers / shape.rotary_dims)
    angles = positions.to(torch.float32)[..., None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Vectors with their first r dimensions rotated by position: (n, a, t, d) -> the same.

    Dimensions i and i + r / 2 are a pair, as in GPT-NeoX, where the paper pairs neighbours.
    """
    turned, unturned = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, unturned), dim=-1)


class Context(NamedTuple):
    """What the attention of all layers shares.

    Attributes:
        cos, sin: The rotary tables, two (t, r) or (n, 1, t, r).
        mask: Which tokens each token sees, (t, p + t) or (n, 1, t, t) bool; None: all before it.
        cache: Keys and values of earlier tokens.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    cache: Cache | None


class Attention(nn.Module):
    """Causal self-attention; the rows of `query_key_value` are q, k, v of head 0, then of head 1, ..."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self._n_heads, self._head_dim, self._layer = shape.n_heads, shape.head_dim, layer
        self.query_key_value = nn.Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """What each token gathers from itself and those before it: (n, t, h) -> (n, t, h)."""
        n, t, h = x.shape
        heads = self.query_key_value(x).view(n, t, self._n_heads, 3 * self._head_dim).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        cos, sin, mask, cache = context
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if cache is not None:
            key, value = cache.extend(self._layer, key, value)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None
        )
        out: Tensor = self.dense(mixed.transpose(1, 2).reshape(n, t, h))
        return out


def _causal_mask(t: int, p: int, device: torch.device) -> Tensor:
    """Which of p + t tokens each of the last t may see: (t, p + t) bool."""
    return torch.ones(t, p + t, dtype=torch.bool, device=device).tril(p)


def _document_mask(positions: Tensor) -> Tensor:
    """Which tokens of a row each may see within documents: positions (n, t) -> (n, 1, t, t) bool."""
    indices = torch.arange(positions.shape[1], device=positions.device)
    starts = indices - positions
    is_before = indices <= indices[:, None]
    return (is_before & (indices >= starts[..., None]))[:, None]


class MLP(nn.Module):
    """Two layers with a GELU between, four times as wide as the residual stream."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(shape.hidden_size, 4 * shape.hidden_size)
        self.dense_4h_to_h = nn.Linear(4 * shape.hidden_size, shape.hidden_size)
        self._approximate = ACTIVATIONS[shape.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, h) -> (n, t, h)."""
        out: Tensor = self.dense_4h_to_h(
            functional.gelu(self.dense_h_to_4h(x), approximate=self._approximate)
        )
        return out


class Block(nn.Module):
    """Attention and MLP, side by side or one after the other."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self._is_parallel = shape.parallel_residual
        self.input_layernorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.attention = Attention(shape, layer)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(n, t, h) -> (n, t, h)."""
        attended = self.attention(self.input_layernorm(x), context) + x
        seen_by_mlp = x if self._is_parallel else attended
        out: Tensor = attended + self.mlp(self.post_attention_layernorm(seen_by_mlp))
        return out


def through_blocks(
    blocks: Iterable[nn.Module], x: Tensor, context: Context, *, recomputes_blocks: bool
) -> Tensor:
    """The residual stream after blocks: (n, t, h) -> (n, t, h); `recomputes_blocks` as of `Stack`."""
    for block in blocks:
        if recomputes_blocks and torch.is_grad_enabled():
            x = checkpoint(block, x, context, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x, context)
    return x


def row_context(shape: ModelShape, x: Tensor, start: int = 0, cache: Cache | None = None) -> Context:
    """What attention shares where a row is one text: x (n, t, h) are its tokens from the index `start` on."""
    t = x.shape[1]
    tables = rotary_tables(shape, torch.arange(start, start + t, device=x.device), x)
    return Context(*tables, _causal_mask(t, start, x.device) if start else None, cache)


class Stack(nn.Module):
    """All but the output layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        # Without values, which `initialize` or a checkpoint sets. On the device `meta`, `nn.Embedding` would
        # draw them by a function that takes torch a second to import.
        empty = torch.empty(shape.vocab_size, shape.hidden_size)
        self.embed_in = nn.Embedding(shape.vocab_size, shape.hidden_size, _weight=empty)
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.n_layers))
        self.final_layer_norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self._shape = shape

        #: Whether each block keeps only its input for the backward pass and computes the rest again.
        self.recomputes_blocks = False

    def forward(self, tokens: Tensor, cache: Cache | None = None, positions: Tensor | None = None) -> Tensor:
        """(n, t) int64 -> (n, t, h); `positions` as of `GPTNeoX`, without a cache."""
        x = self.embed_in(tokens)
        context = self._context(x, cache, positions)
        x = through_blocks(self.layers, x, context, recomputes_blocks=self.recomputes_blocks)
        if cache is not None:
            cache.length += tokens.shape[1]
        out: Tensor = self.final_layer_norm(x)
        return out

    def _context(self, x: Tensor, cache: Cache | None, positions: Tensor | None) -> Context:
        if positions is not None:
            tables = rotary_tables(self._shape, positions[:, None], x)
            return Context(*tables, _document_mask(positions), cache)
        return row_context(self._shape, x, cache.length if cache is not None else 0, cache)


class OutputLayer(nn.Linear):
    """The last layer: logits, or losses without the logits of all tokens in memory."""

    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, labels: Tensor) -> Losses: ...
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor | Losses:
        """(n, t, h) -> (n, t, v); with labels, (n, t) int64, their losses."""
        if labels is None:
            return functional.linear(x, self.weight)
        return chunked_losses(x, self.weight, labels)


class GPTNeoX(nn.Module):
    """A GPT-NeoX language model.

    Args:
        shape: Its dimensions. The weights are undefined until `initialize` or a checkpoint sets them.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.gpt_neox = Stack(shape)
        self.embed_out = OutputLayer(shape.hidden_size, shape.vocab_size, bias=False)

    def new_cache(self, n_sequences: int, n_positions: int) -> Cache:
        """An empty cache for `n_positions` tokens of each sequence."""
        return Cache(self.shape, n_sequences, n_positions, self.embed_out.weight)

    @overload
    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor: ...
    @overload
    def forward(self, tokens: Tensor, *, labels: Tensor, positions: Tensor | None = None) -> Losses: ...
    def forward(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        *,
        labels: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor | Losses:
        """The logits of the token after each, or the losses of given ones.

        Args:
            tokens: (n, t) int64. With a cache, they continue the cached ones and are added to them.
            cache: Of earlier tokens.
            labels: The tokens after each, (n, t) int64.
            positions: Of each token in its document, (n, t) int32 or int64. Attention then stays within
                documents, and rotary positions count from their starts. Default: a row is one text.

        Returns:
            The logits, (n, t, v) in the weights' dtype; with labels, their losses.
        """
        hidden = self.gpt_neox(tokens, cache, positions)
        if labels is None:
            logits: Tensor = self.embed_out(hidden)
            return logits
        losses: Losses = self.embed_out(hidden, labels)
        return losses
