"""The toy CLIP: two CLIPs as one, trained by different losses; what fools one seldom fools the other."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pile_tools.errors import ConfigError, PileWarning
from vqgan_clip.toy import shapes
from vqgan_clip.vqgan import embedding

#: Ids of what fills the end of a text, and of words that no caption has.
PAD, UNKNOWN = 0, 1

#: Most words of a text.
CONTEXT = 16
_DIMENSIONS = 64
_TEXT_WIDTH = 64
_CHANNELS = (24, 48, 80, 96)
#: What the cosines of the members count, see `matching` and `graded`. With half each, shapes and colours are
#: a little better, but more edits stop before they reach their colour.
_WEIGHTS = (0.75, 0.25)


class Member(nn.Module):
    """One CLIP of the toy: a convolutional image tower, and a two-layer text transformer over words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = {word: number for number, word in enumerate(shapes.words(), UNKNOWN + 1)}
        layers: list[nn.Module] = [nn.Conv2d(3, _CHANNELS[0], 3, padding=1), nn.SiLU()]
        for n_in, n_out in pairwise(_CHANNELS):
            layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), nn.GroupNorm(8, n_out), nn.SiLU()]
        # The 4 x 4 positions are not averaged: where a colour is tells shape from background.
        layers += [nn.Flatten(), nn.Linear(_CHANNELS[-1] * 16, _DIMENSIONS)]
        self.image_tower = nn.Sequential(*layers)
        self.word_vectors = embedding(len(self.words) + 2, _TEXT_WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, _TEXT_WIDTH))
        layer = nn.TransformerEncoderLayer(
            _TEXT_WIDTH, 4, 2 * _TEXT_WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.text_tower = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.text_output = nn.Linear(_TEXT_WIDTH, _DIMENSIONS)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Ids of the words of texts, and the words that are unknown: (n, 16) int64.

        Raises: ConfigError if a text has no word or more than 16.
        """
        ids = torch.full((len(texts), CONTEXT), PAD)
        unknown: list[str] = []
        for row, text in zip(ids, texts, strict=True):
            found = re.findall(r"\w+", text.lower())
            if not found:
                raise ConfigError(f"a prompt without words: {text!r}")
            if len(found) > CONTEXT:
                raise ConfigError(
                    f"a prompt of {len(found):,} words, the toy CLIP takes {CONTEXT}: {text[:40]!r}..."
                )
            unknown += [word for word in found if word not in self.words]
            row[: len(found)] = torch.tensor([self.words.get(word, UNKNOWN) for word in found])
        return ids, list(dict.fromkeys(unknown))

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """The vectors of texts given by ids of words: (n, 16) int64 -> (n, 64)."""
        is_pad = ids == PAD
        hidden = self.text_tower(self.word_vectors(ids) + self.positions, src_key_padding_mask=is_pad)
        n_words = (~is_pad).sum(1, keepdim=True)
        mean = hidden.masked_fill(is_pad[..., None], 0).sum(1) / n_words
        vectors: Tensor = self.text_output(mean)
        return vectors

    def encode_images(self, images: Tensor) -> Tensor:
        """The vectors of images in [0, 1]: (n, 3, 32, 32) -> (n, 64)."""
        vectors: Tensor = self.image_tower(images * 2 - 1)
        return vectors


class ToyClip(nn.Module):
    """Maps images of 32 x 32 pixels and texts of up to 16 words to vectors; see `vqgan_clip.clips.Clip`.

    A vector consists of one vector of each member, of fixed lengths: a cosine is a weighted mean of theirs.
    """

    #: What varied in the views of its training, and so what varies when it guides.
    augmentations = ("affine", "noise")

    def __init__(self, members: Sequence[Member] = ()) -> None:
        super().__init__()
        self.members = nn.ModuleList(members or [Member() for _ in _WEIGHTS])

    @property
    def size(self) -> int:
        """Side of the square images that the model takes, pixels."""
        return shapes.SIZE

    @property
    def context(self) -> int:
        """Most words of a text."""
        return CONTEXT

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts: (n, 128). Words that no caption has count little; a warning lists them.

        Raises: ConfigError if a text has no word or more than 16.
        """
        members = self._members()
        ids, unknown = members[0].tokens(texts)
        if unknown:
            warnings.warn(
                f"the toy CLIP does not know {', '.join(unknown)}; it knows the colours "
                f"{', '.join(shapes.COLORS)} and the shapes {', '.join(shapes.SHAPES)}",
                PileWarning,
                stacklevel=2,
            )
        ids = ids.to(members[0].positions.device)
        return _joined([member.encode_tokens(ids) for member in members])

    def encode_images(self, images: Tensor) -> Tensor:
        """The vectors of images in [0, 1]: (n, 3, 32, 32) -> (n, 128)."""
        return _joined([member.encode_images(images) for member in self._members()])

    def _members(self) -> list[Member]:
        return cast(list[Member], list(self.members))


def _joined(vectors: list[Tensor]) -> Tensor:
    parts = zip(vectors, _WEIGHTS, strict=True)
    return torch.cat([math.sqrt(weight) * functional.normalize(part, dim=1) for part, weight in parts], 1)
