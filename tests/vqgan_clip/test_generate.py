"""Pictures: one seed, one picture; continued bit-identically; from every start; bad input refused."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqgan_clip
from pile_tools.errors import ConfigError, FormatError, PileWarning
from vqgan_clip import pictures
from vqgan_clip.config import GuidanceConfig
from vqgan_clip.models import Models, load_models

QUICK = GuidanceConfig(steps=3, views=2, chunk=2)
PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def pixels(result: vqgan_clip.Result) -> bytes:
    return result.image.tobytes()


def test_one_seed_is_one_picture(models: Models) -> None:
    first, same, other = (
        vqgan_clip.generate(PROMPT, seed=seed, models=models, config=QUICK) for seed in (1, 1, 2)
    )
    assert first.image.size == (32, 32)
    assert len(first.losses) == first.n_steps == 3
    assert (pixels(first), first.losses) == (pixels(same), same.losses)
    assert pixels(first) != pixels(other)


def test_the_global_generator_changes_nothing(models: Models) -> None:
    torch.manual_seed(5)
    first = vqgan_clip.generate(PROMPT, models=models, config=QUICK)
    torch.manual_seed(6)
    before = torch.random.get_rng_state()
    assert pixels(vqgan_clip.generate(PROMPT, models=models, config=QUICK)) == pixels(first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_continued_run_is_the_uninterrupted_one(models: Models) -> None:
    config = replace(QUICK, steps=6, ema=0.5, pull=0.1)
    whole = vqgan_clip.generate(PROMPT, models=models, config=config)
    half = vqgan_clip.generate(PROMPT, models=models, config=replace(config, steps=3))
    rest = vqgan_clip.generate(PROMPT, models=models, config=config, state=half.state)
    assert pixels(rest) == pixels(whole)
    assert [*half.losses, *rest.losses] == whole.losses


@pytest.mark.parametrize("start", ["noise", "codes", "gradient"])
def test_starts_follow_the_seed(models: Models, start: str) -> None:
    config = replace(QUICK, steps=0)
    first, same, other = (
        vqgan_clip.generate(PROMPT, start=start, seed=seed, models=models, config=config)
        for seed in (1, 1, 2)
    )
    assert pixels(first) == pixels(same)
    assert pixels(first) != pixels(other)
    assert first.losses == []


def test_an_image_as_start_is_its_reconstruction(models: Models, tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), (225, 30, 30)).save(tmp_path / "red.png")
    found = vqgan_clip.generate(
        PROMPT, start=tmp_path / "red.png", models=models, config=replace(QUICK, steps=0)
    )
    mean = pictures.to_tensor(found.image).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor([225, 30, 30]) / 255, atol=0.06, rtol=0)


def test_sizes_other_than_the_training_size(models: Models) -> None:
    found = vqgan_clip.generate(PROMPT, width=48, height=24, models=models, config=QUICK)
    assert found.image.size == (48, 24)


def test_an_image_prompt_is_a_prompt(models: Models, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "green").save(tmp_path / "green.png")
    prompt = vqgan_clip.Prompt(str(tmp_path / "green.png"), 0.5)
    both = vqgan_clip.generate(PROMPT, image_prompts=[prompt], models=models, config=QUICK)
    assert len(both.losses[0].prompts) == 2
    alone = vqgan_clip.generate((), image_prompts=[prompt], models=models, config=QUICK)
    assert alone.losses[0].prompts == (alone.losses[0].total,)


def test_a_negative_weight_negates_the_loss(models: Models) -> None:
    plus, minus = (
        vqgan_clip.generate(f"red:{weight}", models=models, config=replace(QUICK, steps=1)).losses[0].total
        for weight in (1, -1)
    )
    assert plus == pytest.approx(-minus)


def test_words_that_the_toy_does_not_know_are_named(models: Models) -> None:
    with pytest.warns(PileWarning, match="does not know lighthouse, dawn; it knows the colours red"):
        vqgan_clip.generate("a red lighthouse | dawn", models=models, config=QUICK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": ""}, "an empty prompt"),
        ({"prompts": "!!"}, "a prompt without words"),
        ({"prompts": "red " * 17}, "a prompt of 17 words, the toy CLIP takes 16"),
        ({"prompts": ()}, "no prompt"),
        ({"width": 0}, "width must be a multiple of 4"),
        ({"width": 33}, "width must be a multiple of 4"),
        ({"height": 0x8000}, "height must be a multiple of 4 from 4 to 16,384"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**63}, "seed must be from 0"),
    ],
)
def test_arguments_out_of_range_are_refused(
    models: Models, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        vqgan_clip.generate(**{"prompts": PROMPT, "models": models, "config": QUICK, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"", "not an image"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(40), "image"),
        ("a.txt", b"text", "not an image"),
    ],
)
def test_files_that_are_no_images_are_refused(
    models: Models, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FormatError, match=rf"{message}.*{name}"):
        vqgan_clip.generate(PROMPT, start=tmp_path / name, models=models, config=QUICK)


def test_truncated_and_huge_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (300, 300), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"a damaged image: .*b\.png"):
        pictures.read_image(tmp_path / "b.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 89_999)
    with pytest.raises(FormatError, match=r"300 x 300 pixels; at most 89,999 are read"):
        pictures.read_image(tmp_path / "a.png")


def test_a_postscript_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript, whatever the name of the file."""
    mark = tmp_path / "mark"
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    size = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_text(size)
    with pytest.raises(FormatError, match=r"not an image of PNG, .*a\.png"):
        pictures.read_image(tmp_path / "a.png")
    assert not mark.exists()


@pytest.mark.parametrize("name", pictures.FORMATS)
def test_each_format_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "picture"
    Image.new("RGB", (8, 4), "red").save(path, format=name)
    red, green, blue = pictures.read_image(path).getpixel((3, 2))  # type: ignore[misc]
    assert (pictures.read_image(path).size, red > 250, green < 5, blue < 5) == ((8, 4), True, True, True)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_of_all_modes_are_read(tmp_path: Path, mode: str) -> None:
    modes = ("1", "L", "LA", "I", "F", "I;16", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB")
    for number, (stored, suffix) in enumerate(itertools.product(modes, ("tif", "png"))):
        path = tmp_path / f"{number}.{suffix}"
        try:
            Image.new(stored, (4, 2)).save(path)
        except (OSError, KeyError):
            continue
        found = pictures.read_image(path, mode)
        assert (found.mode, found.size) == (mode, (4, 2)), stored


def test_an_image_larger_than_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 4), "red").save(path, format="TIFF")
    os.truncate(path, 1 << 40)
    with pytest.raises(FormatError, match="more than 268,435,456 bytes"):
        pictures.read_image(path)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert pictures.read_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_pixels_survive_being_tensors() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    image = Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
    assert pictures.to_image(pictures.to_tensor(image)).tobytes() == image.tobytes()
