"""CLIP models that guide the image: one protocol, and backends for `transformers` and `open_clip`.

"Learning Transferable Visual Models From Natural Language Supervision" (Radford et al. 2021,
arXiv:2103.00020). The toy model of `vqgan_clip.toy` implements the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Clip(Protocol):
    """A model that maps texts and images to vectors of one space. Its parameters take no gradient."""

    @property
    def size(self) -> int:
        """Side of the square images that the model takes, pixels."""
        ...

    @property
    def context(self) -> int:
        """Most tokens of a text, start and end included."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts, of any length: (n, d).

        Raises: ConfigError if a text is empty or has more than `context` tokens; the message names it.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """The vectors of images in [0, 1], of any length: (n, 3, size, size) -> (n, d).

        Differentiable with respect to `images`, which are normalized here.
        """
        ...
