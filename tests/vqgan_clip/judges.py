"""Judges of pictures that are not the guide: a classifier trained on its own, and the palette.

The guide's own score is no judge: a tiny CLIP is content with pictures that show nothing of the prompt.

`python -m tests.vqgan_clip.judges` trains the classifier again and writes `judge.safetensors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vqgan_clip.toy import shapes
from vqgan_clip.toy.shapes import COLORS, SHAPES, Scene

FILE = Path(__file__).with_name("judge.safetensors")

#: Its seeds are not those of the toy, and neither is its architecture: ReLU, batch norm and pooling.
SEED, STEPS, BATCH = 54321, 700, 64
_CHANNELS = (3, 24, 48, 64, 64)
_SIZES = (len(SHAPES), len(COLORS), len(COLORS))


class Classifier(nn.Module):
    """Logits of shape, colour and background of pictures: (n, 3, 32, 32) -> (n, 5), (n, 8), (n, 8)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(_CHANNELS)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < 3 else []
        layers += [nn.Flatten(), nn.Linear(_CHANNELS[-1] * 16, 64), nn.ReLU(), nn.Linear(64, sum(_SIZES))]
        self.net = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net(images * 2 - 1).split(_SIZES, 1))


@dataclass(frozen=True)
class Verdict:
    """Shares of pictures in which a judge finds what the prompt names."""

    shape: float
    color: float
    background: float
    palette: float

    @classmethod
    def of(cls, images: Tensor, scenes: list[Scene]) -> Verdict:
        """The verdict on pictures (n, 3, 32, 32) in [0, 1]."""
        expected = facts(scenes)
        found = classified(images)
        shares = [float((found[:, i] == expected[:, i]).float().mean()) for i in range(3)]
        both = (palette(images) == expected[:, 1:]).all(1)
        return cls(*shares, float(both.float().mean()))


def facts(scenes: list[Scene]) -> Tensor:
    """Shape, colour and background of scenes: (n, 3) int64."""
    return torch.tensor([(scene.shape, scene.color, scene.background) for scene in scenes])


@torch.no_grad()
def classified(images: Tensor) -> Tensor:
    """Shape, colour and background that the classifier finds: (n, 3) int64."""
    return torch.stack([logits.argmax(1) for logits in _loaded()(images)], 1)


def palette(images: Tensor) -> Tensor:
    """The most frequent other colour, and the most frequent colour of the border: (n, 2) int64."""
    colors = torch.tensor(list(COLORS.values()))
    nearest = (images[:, None] - colors[None, :, :, None, None]).square().sum(2).argmin(1)
    found = []
    for picture in nearest:
        border = torch.cat([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
        background = int(border.bincount(minlength=8).argmax())
        counts = picture.flatten().bincount(minlength=8)
        counts[background] = -1
        found.append((int(counts.argmax()), background))
    return torch.tensor(found)


def _loaded() -> Classifier:
    classifier = Classifier()
    stored = load_file(FILE)
    # The counts of batches are integers.
    classifier.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in stored.items()})
    return classifier.eval()


def train() -> Classifier:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    classifier = Classifier()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / STEPS)
        scenes = shapes.sample(BATCH, generator, empty=0.0)
        images, _ = shapes.draw(scenes, generator)
        images += (
            0.1
            * torch.rand(BATCH, 1, 1, 1, generator=generator)
            * torch.randn(images.shape, generator=generator)
        )
        expected = facts(scenes)
        logits = classifier(images)
        loss = torch.stack(
            [functional.cross_entropy(found, expected[:, i]) for i, found in enumerate(logits)]
        ).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return classifier


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained = train()
    save_file({n: v.half() if v.is_floating_point() else v for n, v in trained.state_dict().items()}, FILE)
