"""A PNG says how it was made: every setting survives, its paths follow the file, and damage is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pile_tools import config as configs
from pile_tools.errors import FormatError, OutputExistsError
from vqgan_clip import metadata
from vqgan_clip.config import GuidanceConfig
from vqgan_clip.metadata import Record
from vqgan_clip.prompts import parse_prompt
from vqgan_clip.recipe import Recipe

HASHES = {"vqgan": {"a": "00"}, "clip": [{"b": "11"}], "images": []}

#: A value for each field that is not its default.
RECIPE = Recipe(
    prompts=r"naïve 日本語 \| x:0.5:-0.25 | \b",
    image_prompts=("a b.png:2",),
    width=64,
    height=32,
    seed=2**63 - 1,
    start="start.png",
    image="image.png",
    mask="mask.png",
    mask_text="a star",
    dilate=3,
    weights="weights",
    clip=("toy", "folder"),
    threads=2,
    device="cuda:1",
    guidance=GuidanceConfig(
        steps=7,
        views=3,
        chunk=2,
        augment="noise,crop",
        optimizer="radam",
        rate=0.1,
        pull=0.5,
        ema=0.9,
        tile=8,
        patience=4,
    ),
)


def record(recipe: Recipe = RECIPE, image: Image.Image | None = None) -> Record:
    image = image or Image.new("RGB", (8, 8), "red")
    return Record(recipe, HASHES, {"pile_tools": "0", "torch": "1"}, 7, metadata.pixels_digest(image))


def test_every_setting_survives(tmp_path: Path) -> None:
    default = Recipe(prompts="a")
    for one, other in ((RECIPE, default), (RECIPE.guidance, default.guidance)):
        for field in fields(one):
            assert getattr(one, field.name) != getattr(other, field.name), field.name
    image = Image.new("RGB", (8, 8), "red")
    metadata.write(tmp_path / "a.png", lambda: (image, record()), inputs=[], force=False)
    found, parsed = metadata.read(tmp_path / "a.png")
    assert parsed == record()
    assert found.tobytes() == image.tobytes()


def test_paths_follow_the_folder_of_the_picture(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "folder").mkdir()
    moved = RECIPE.moved(tmp_path, tmp_path / "deep" / "er")
    assert moved.image_prompts == ("../../a b.png:2",)
    assert (moved.start, moved.image, moved.mask) == tuple(
        f"../../{name}.png" for name in ("start", "image", "mask")
    )
    assert (moved.weights, moved.clip) == ("../../weights", ("toy", "../../folder"))
    assert moved.moved(tmp_path / "deep" / "er", tmp_path) == RECIPE


@pytest.mark.parametrize("text", ["x|y.png", "a.png:0.123456789", "a.png:1:-1e-07", " in a folder/a.png:2"])
def test_image_prompts_are_recorded_as_they_were(tmp_path: Path, text: str) -> None:
    recipe = Recipe(image_prompts=(f"deep/{text}",))
    prompt = parse_prompt(f"deep/{text}")
    moved = recipe.moved(tmp_path, tmp_path / "deep")
    (found,) = map(parse_prompt, moved.image_prompts)
    assert found.text.removeprefix("./") == prompt.text.removeprefix("deep/")
    assert (found.weight, found.stop) == (prompt.weight, prompt.stop)
    assert moved.moved(tmp_path / "deep", tmp_path) == recipe


def test_names_that_are_no_path_stay(tmp_path: Path) -> None:
    recipe = Recipe(prompts="a", weights="toy", clip=("open_clip:ViT-B-32",))
    assert recipe.moved(tmp_path, tmp_path / "deep") == recipe


def test_another_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.new("RGB", (8, 8), "red")
    assert not metadata.is_finished(path, RECIPE, HASHES)
    metadata.write(path, lambda: (image, record()), inputs=[], force=False)
    assert metadata.is_finished(path, RECIPE, HASHES)
    with pytest.raises(OutputExistsError, match="other settings"):
        metadata.is_finished(path, Recipe(prompts="b"), HASHES)
    with pytest.raises(OutputExistsError, match="other settings"):
        metadata.is_finished(path, RECIPE, {**HASHES, "images": ["22"]})
    path.write_bytes(metadata.png_bytes(Image.new("RGB", (8, 8), "blue"), record()))
    with pytest.raises(OutputExistsError, match="changed since it was made"):
        metadata.is_finished(path, RECIPE, HASHES)
    image.save(path)
    with pytest.raises(OutputExistsError, match="not of vqgan-clip"):
        metadata.is_finished(path, RECIPE, HASHES)


def chunk(path: Path, text: str) -> None:
    info = PngInfo()
    info.add_itxt(metadata.KEY, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, expected 1"),
        ({"recipe": {"prompts": "a", "colour": 1}}, "unknown key 'colour'"),
        ({"recipe": {"prompts": ""}}, "an empty prompt"),
        ({"recipe": {"prompts": "a", "guidance": {"steps": -1}}}, "steps must be from 0"),
        ({"recipe": {"prompts": "a", "seed": "1"}}, "expected int"),
        ({"n_steps": -1}, "n_steps"),
        ({"pixels": "zz"}, "pixels"),
        ({"hashes": []}, "hashes"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    values = {
        "format": 1,
        "recipe": configs.settings(RECIPE),
        "hashes": HASHES,
        "made_by": {},
        "n_steps": 7,
        "pixels": "0" * 64,
    }
    chunk(tmp_path / "a.png", json.dumps(values))
    assert metadata.read(tmp_path / "a.png")[1].recipe == RECIPE
    chunk(tmp_path / "a.png", json.dumps(values | change))
    with pytest.raises(FormatError, match=message) as caught:
        metadata.read(tmp_path / "a.png")
    assert "a.png" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"format": 1' + "0" * 5000 + "}"])
def test_text_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    chunk(tmp_path / "a.png", text)
    with pytest.raises(FormatError, match=r"a\.png"):
        metadata.read(tmp_path / "a.png")


def test_files_without_settings_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    for name, message in (
        ("plain.png", "no settings of vqgan-clip"),
        ("a.jpg", "not a PNG"),
        ("cut.png", "PNG"),
    ):
        with pytest.raises(FormatError, match=message):
            metadata.read(tmp_path / name)
