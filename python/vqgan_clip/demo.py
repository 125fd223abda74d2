"""The demo: four pictures, two edits of the first, and a page that shows them with their steps."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from pile_tools import publish
from pile_tools.manifest import MANIFEST_FILE, Manifest, Request
from pile_tools.present.markup import markup
from pile_tools.present.pages import document
from pile_tools.publish import PAGE_MARK, Built, Target
from vqgan_clip import metadata, pictures
from vqgan_clip.config import GuidanceConfig
from vqgan_clip.models import load_models
from vqgan_clip.recipe import Recipe, carry_out, hashes_of

PAGE_FILE = "index.html"
_STEPS, _EVERY = 100, 20
_GUIDANCE = GuidanceConfig(steps=_STEPS, views=8, chunk=8)

_STYLE = """
.pictures { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(16rem, 45%), 1fr)); }
.pictures figure { margin: 0; }
.pictures img, .steps img { width: 100%; image-rendering: pixelated; display: block; border-radius: 4px; }
.steps { display: grid; grid-template-columns: repeat(6, 1fr); gap: .3rem; margin-top: .3rem; }
@media print {
  .pictures { grid-template-columns: repeat(3, 1fr); gap: .6rem; }
  footer { margin-top: .6rem; }
  .pictures figure { break-inside: avoid; }
}
"""


@dataclass(frozen=True)
class _Shown:
    """A picture of the demo."""

    name: str
    about: str
    recipe: Recipe
    steps: list[Image.Image] = field(default_factory=list)


def _recipe(**values: Any) -> Recipe:
    return Recipe(**{"seed": 1, "guidance": _GUIDANCE, **values})


_PICTURES = (
    _Shown("circle.png", "one prompt", _recipe(prompts="a red circle on a yellow background", seed=3)),
    _Shown("star.png", "one prompt", _recipe(prompts="a white star on a blue background", seed=3)),
    _Shown(
        "cross.png", "two prompts with weights", _recipe(prompts="a green cross | a black background:0.5")
    ),
    _Shown(
        "square.png", "a prompt that repels", _recipe(prompts="a square on a white background | blue:-0.5")
    ),
    _Shown(
        "edit.png",
        "an edit of circle.png, pulled towards it",
        _recipe(
            prompts="a blue circle on a yellow background",
            image="circle.png",
            guidance=replace(_GUIDANCE, pull=0.5),
        ),
    ),
    _Shown(
        "edit-mask.png",
        "an edit of circle.png inside a mask found by the text “a red circle”",
        _recipe(
            prompts="a green circle on a yellow background",
            image="circle.png",
            mask_text="a red circle",
            dilate=1,
        ),
    ),
)


def run(
    output: Path,
    *,
    force: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[Manifest, bool]:
    """Makes the pictures and their page in a folder, unless it is complete.

    Returns:
        The manifest, and whether it was made now.

    Raises:
        OutputExistsError: Other output exists and `force` is off.
        OSError: A file cannot be written.
    """
    names = [*(shown.name for shown in _PICTURES), PAGE_FILE]

    def build(scratch: Path) -> Built:
        models = load_models()
        n_done = 0
        for shown in _PICTURES:
            shown.steps.clear()

            def on_step(guidance: Any, losses: Any, shown: _Shown = shown) -> None:
                nonlocal n_done
                n_done += 1
                on_progress(n_done)
                if guidance.n_steps % _EVERY == 0 or guidance.n_steps == 1:
                    shown.steps.append(pictures.to_image(guidance.picture()))

            recipe = shown.recipe.moved(scratch, Path())
            result = carry_out(recipe, models, on_step=on_step)
            digest = metadata.pixels_digest(result.image)
            record = metadata.Record(
                shown.recipe, hashes_of(recipe, models), metadata.versions(), result.n_steps, digest
            )
            (scratch / shown.name).write_bytes(metadata.png_bytes(result.image, record))
        (scratch / PAGE_FILE).write_text(_page(scratch), encoding="utf-8")
        listed = [
            {"path": shown.name, "prompts": shown.recipe.prompts, "about": shown.about} for shown in _PICTURES
        ]
        return Built(names, {"pictures": listed}, [])

    request = Request("pictures", {"steps": _STEPS, "views": _GUIDANCE.views, "weights": "toy"})
    return publish.make(Target.of(output / MANIFEST_FILE), request, build, force=force, names=names)


#: Steps of all pictures.
N_STEPS = _STEPS * len(_PICTURES)


def _page(folder: Path) -> str:
    """The page, with its pictures inside it."""
    figures = "\n".join(_figure(folder, shown) for shown in _PICTURES)
    body = (
        "<header><h1>Pictures by VQGAN-CLIP</h1><p>Made by the small models of pile-tools, which know "
        "drawings of five shapes in eight colours. Under each picture: its steps 1, 20, 40, 60, 80 and 100."
        f'</p></header><div class="pictures">{figures}</div>'
        f"<footer>Made by pile-tools {markup(version('pile-tools'))}. vqgan-clip show FILE.png prints the "
        "settings of a picture, vqgan-clip rerun FILE.png makes it again.</footer>"
    )
    return document("Pictures by VQGAN-CLIP", body, _STYLE, mark=PAGE_MARK)


def _figure(folder: Path, shown: _Shown) -> str:
    steps = "".join(f'<img src="{_uri(pictures.png_bytes(image))}" alt="">' for image in shown.steps)
    picture = _uri((folder / shown.name).read_bytes())
    prompts = markup(shown.recipe.prompts)
    return (
        f'<figure><img src="{picture}" alt="{prompts}"><div class="steps">{steps}</div>'
        f"<figcaption><b>{prompts}</b><br>{markup(shown.about)} ({markup(shown.name)})</figcaption></figure>"
    )


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
