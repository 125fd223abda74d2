"""Captioned drawings: one of five shapes in one of eight colours on a background of another.

A caption states some facts about a drawing: shape, colour, background. It matches every drawing for which
these hold, so a batch has more than one match per caption.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SIZE = 32

#: RGB values in [0, 1].
COLORS = {
    "red": (0.88, 0.12, 0.12),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.12, 0.25, 0.88),
    "yellow": (0.96, 0.88, 0.15),
    "purple": (0.55, 0.15, 0.65),
    "orange": (0.97, 0.55, 0.10),
    "white": (0.96, 0.96, 0.96),
    "black": (0.06, 0.06, 0.06),
}
COLOR_NAMES = tuple(COLORS)
SHAPES = ("circle", "square", "triangle", "star", "cross")

#: Other words for the shapes.
SYNONYMS = {"circle": ("ball", "disc"), "square": ("box",), "triangle": (), "star": (), "cross": ("plus",)}

#: How much of the likeness of a drawing and a caption each fact is: shape, colour, background.
WEIGHTS = (0.34, 0.36, 0.30)

#: Captions of `near_misses`.
N_NEAR_MISSES = 3

#: Index of a fact that a caption does not state, or of the shape and colour of an empty drawing. It indexes
#: the last colour, which then neither texts nor drawings show.
ANY = -1

FULL = (
    "a {color} {shape} on a {background} background",
    "a {color} {shape} on a {background} background",
    "a {color} {shape} on {background}",
    "{color} {shape} on {background}",
    "{color} {shape}, {background} background",
    "a {background} background with a {color} {shape}",
    "a {color} {shape} in front of a {background} sky",
    "a {color} {shape} and a {background} background",
)
PARTIAL = (
    "a {color} {shape}",
    "{color} {shape}",
    "a {shape}",
    "the {color} {shape}",
    "something {color}",
    "a {background} background",
    "{background} background",
    "{background} sky",
    "a {shape} on a {background} background",
    "{anywhere}",
)
EMPTY = ("nothing but {background}", "a plain {background} background", "{background} sky", "{anywhere}")


@dataclass(frozen=True)
class Scene:
    """What a drawing shows, by index in `SHAPES` and `COLOR_NAMES`; an empty one has no shape and colour."""

    shape: int
    color: int
    background: int

    @property
    def caption(self) -> str:
        """The plainest full caption: `a red circle on a blue background`."""
        return _fill(FULL[0] if self.shape != ANY else EMPTY[1], self)


def scenes() -> list[Scene]:
    """All 280 scenes with a shape."""
    colors = range(len(COLORS))
    return [Scene(s, c, b) for s in range(len(SHAPES)) for c in colors for b in colors if b != c]


def held_out(scene: Scene) -> bool:
    """Whether the toy CLIP is trained without this scene: one scene in ten.

    It sees neither its drawings nor full captions of it, right or wrong. The VQGAN, which sees no captions,
    is trained on drawings of all scenes.
    """
    return scene.shape != ANY and (scene.shape * 3 + scene.color * 7 + scene.background * 11) % 10 == 0


def _fill(template: str, scene: Scene, shape_word: str = "", anywhere: int = ANY) -> str:
    return template.format(
        shape=shape_word or (SHAPES[scene.shape] if scene.shape != ANY else ""),
        color=COLOR_NAMES[scene.color],
        background=COLOR_NAMES[scene.background],
        anywhere=COLOR_NAMES[anywhere],
    )


@dataclass(frozen=True)
class Caption:
    """A text and the facts it states: shape, colour, background and a colour anywhere, each or `ANY`.

    `is_empty` says that it states that there is no shape.
    """

    text: str
    facts: tuple[int, int, int, int]
    is_empty: bool = False


def caption(scene: Scene, generator: torch.Generator) -> Caption:
    """A random caption that matches a scene: two in three name all of it."""
    if scene.shape == ANY:
        template = EMPTY[_below(len(EMPTY), generator)]
    else:
        templates = FULL if _below(3, generator) else PARTIAL
        template = templates[_below(len(templates), generator)]
    words = (
        (SHAPES[scene.shape], SHAPES[scene.shape], *SYNONYMS[SHAPES[scene.shape]])
        if scene.shape != ANY
        else ("",)
    )
    anywhere = scene.background if scene.shape == ANY or _below(2, generator) else scene.color
    text = _fill(template, scene, words[_below(len(words), generator)], anywhere)
    stated = [name in template for name in ("{shape}", "{color}", "{background}", "{anywhere}")]
    values = (scene.shape, scene.color, scene.background, anywhere)
    facts = tuple(value if is_stated else ANY for value, is_stated in zip(values, stated, strict=True))
    is_empty = template in EMPTY[:2]
    return Caption(text, facts, is_empty)  # type: ignore[arg-type]


def near_misses(scene: Scene, generator: torch.Generator) -> list[Caption]:
    """Three full captions that are almost right: swapped colours, another shape, another colour of the shape.

    For an empty drawing, three of random scenes with its background. None is of a scene that is held out.
    """
    return [full_caption(other, generator) for other in wrong(scene, generator)]


def full_caption(scene: Scene, generator: torch.Generator) -> Caption:
    """A random caption that states shape, colour and background of a scene that is not empty."""
    text = _fill(FULL[_below(len(FULL), generator)], scene)
    return Caption(text, (scene.shape, scene.color, scene.background, ANY))


def wrong(scene: Scene, generator: torch.Generator) -> list[Scene]:
    """The scenes of `near_misses`."""
    if scene.shape == ANY:
        possible = [s for s in scenes() if s.background == scene.background and not held_out(s)]
        return [possible[_below(len(possible), generator)] for _ in range(N_NEAR_MISSES)]
    shape = (scene.shape + 1 + _below(len(SHAPES) - 1, generator)) % len(SHAPES)
    found = [
        Scene(scene.shape, scene.background, scene.color),
        Scene(shape, scene.color, scene.background),
        recolored(scene, generator),
    ]
    return [recolored(scene, generator) if held_out(other) else other for other in found]


def recolored(scene: Scene, generator: torch.Generator) -> Scene:
    """The scene with another colour of its shape, not held out; an empty scene stays.

    Of seven colours at most one is the background and one is held out.
    """
    others = (replace(scene, color=color) for color in range(len(COLORS)) if color != scene.color)
    possible = [s for s in others if s.color != s.background and not held_out(s)]
    return scene if scene.shape == ANY else possible[_below(len(possible), generator)]


def matches(scenes_drawn: list[Scene], captions: list[Caption]) -> Tensor:
    """Whether each caption holds for each scene: (n_scenes, n_captions) bool."""
    drawn = torch.tensor([(s.shape, s.color, s.background) for s in scenes_drawn])[:, None]
    facts = torch.tensor([c.facts for c in captions])[None]
    is_empty = torch.tensor([c.is_empty for c in captions])[None]
    holds = ((facts[..., :3] == ANY) | (facts[..., :3] == drawn)).all(-1)
    anywhere = facts[..., 3]
    holds &= (anywhere == ANY) | (anywhere == drawn[..., 1]) | (anywhere == drawn[..., 2])
    return holds & (~is_empty | (drawn[..., 0] == ANY))


def likeness(scenes_drawn: list[Scene], captions: list[Caption]) -> Tensor:
    """The cosines that the vectors of drawings and captions should have: (n_scenes, n_captions) float32.

    As if a vector had a part of its own for each fact, of a length whose square is the weight of the fact: a
    drawing has all parts, a caption those that it states, and equal facts have equal parts, others orthogonal
    ones. A colour anywhere is stated as the shape's and as the background's.
    """
    weights = torch.tensor(WEIGHTS)
    drawn = torch.tensor([(s.shape, s.color, s.background) for s in scenes_drawn])[:, None]
    facts = torch.tensor([c.facts for c in captions])[None]
    is_empty = torch.tensor([c.is_empty for c in captions])[None, :, None]
    shape, colors, anywhere = facts[..., :1], facts[..., 1:3], facts[..., 3:]
    stated = torch.cat([shape, torch.where(anywhere == ANY, colors, anywhere)], -1)
    is_stated = (stated != ANY) | is_empty
    is_equal = is_stated & (stated == drawn)
    return (is_equal * weights).sum(-1) / (is_stated * weights).sum(-1).sqrt()


def draw(scenes_drawn: list[Scene], generator: torch.Generator, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Drawings and the shares of each pixel that the shape covers.

    Position, size, rotation, colours and noise vary.

    Shapes: (n, 3, size, size) float32 in [0, 1], (n, size, size) float32 in [0, 1].
    """
    n = len(scenes_drawn)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

    radius, angle = uniform(0.58, 0.8), uniform(-0.3, 0.3)
    grid = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = grid[None, None, :] - uniform(-0.15, 0.15), grid[None, :, None] - uniform(-0.15, 0.15)
    x, y = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    x, y = x / radius, y / radius
    distances = torch.stack([_circle(x, y), _square(x, y), _triangle(x, y), _star(x, y), _cross(x, y)])
    kinds = torch.tensor([scene.shape for scene in scenes_drawn])
    distance = distances[kinds.clamp(min=0), torch.arange(n)] * radius * size / 2
    cover = (0.5 - distance).clamp(0, 1) * (kinds != ANY)[:, None, None]
    palette = torch.tensor(list(COLORS.values()))
    jitter = 0.06 * (2 * torch.rand(2, n, 3, generator=generator) - 1)
    front = palette[[scene.color for scene in scenes_drawn]] + jitter[0]
    back = palette[[scene.background for scene in scenes_drawn]] + jitter[1]
    images = back[:, :, None, None] * (1 - cover[:, None]) + front[:, :, None, None] * cover[:, None]
    images = images + 0.01 * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1), cover


def draw_alike(first: list[Scene], second: list[Scene], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Drawings of two lists of scenes with the same random numbers: they differ in the scenes alone."""
    state = generator.get_state()
    images, _ = draw(first, generator)
    generator.set_state(state)
    return images, draw(second, generator)[0]


def sample(
    n: int, generator: torch.Generator, *, empty: float = 0.08, with_held_out: bool = True
) -> list[Scene]:
    """Random scenes, a share of them empty."""
    found: list[Scene] = []
    while len(found) < n:
        color, background = _below(8, generator), _below(8, generator)
        scene = Scene(_below(len(SHAPES), generator), color, background)
        if torch.rand((), generator=generator) < empty:
            found.append(Scene(ANY, ANY, background))
        elif color != background and (with_held_out or not held_out(scene)):
            found.append(scene)
    return found


def words() -> list[str]:
    """The words of all captions, sorted."""
    texts = " ".join((*FULL, *PARTIAL, *EMPTY))
    names = {*COLORS, *SHAPES, *(word for others in SYNONYMS.values() for word in others)}
    return sorted({*re.findall(r"(?<!\{)\b[a-z]+\b(?!\})", texts), *names})


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt() - 0.92


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.82


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    """Equilateral, pointing up; the centre is halfway between its centroid and the middle of its height."""
    y = y - 0.15
    return torch.maximum(y, (math.sqrt(3) * x.abs() - y) / 2) - 0.58


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points: the plane is folded onto half a point, whose edge is a line."""
    outer, inner, fold = 1.15, 0.48, math.pi / 5
    angle = (torch.remainder(torch.atan2(x, -y) + fold, 2 * fold) - fold).abs()
    length = (x * x + y * y).sqrt()
    px, py = length * angle.cos() - outer, length * angle.sin()
    ex, ey = inner * math.cos(fold) - outer, inner * math.sin(fold)
    return (px * ey - py * ex) / math.hypot(ex, ey)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 1.0, y - 0.34), torch.maximum(x - 0.34, y - 1.0))
