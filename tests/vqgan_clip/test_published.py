"""Weights of the layouts that people have guide pictures together, and the pictures record their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from tests.vqgan_clip.checkpoints import (
    F16,
    GUMBEL,
    random_vqgan,
    write_clip,
    write_diffusers,
    write_open_clip,
    write_taming,
)

import vqgan_clip
from pile_tools import ConfigError
from vqgan_clip import GuidanceConfig, load_models

QUICK = GuidanceConfig(steps=2, views=4, chunk=3)


def taming(folder: Path) -> Path:
    return write_taming(folder, random_vqgan(F16))


def gumbel(folder: Path) -> Path:
    write_taming(folder, random_vqgan(GUMBEL))
    return folder


def diffusers(folder: Path) -> Path:
    return write_diffusers(folder, random_vqgan(F16))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("open_clip")
    return write_open_clip(tmp_path_factory.mktemp("open_clip"))


@pytest.mark.parametrize("write", [taming, gumbel, diffusers])
def test_published_layouts_make_pictures(
    write: object,
    clip_folder: Path,
    open_clip_folder: Path,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "vqgan")  # type: ignore[operator]
    models = load_models(path, [str(clip_folder), f"open_clip:local-dir:{open_clip_folder}"])
    made = [vqgan_clip.generate("red sky | blue:-0.5", width=64, height=32, models=models, config=QUICK)]
    made.append(vqgan_clip.generate("red sky | blue:-0.5", width=64, height=32, models=models, config=QUICK))
    assert made[0].image.size == (64, 32)
    assert made[0].image.tobytes() == made[1].image.tobytes()
    assert made[0].losses == made[1].losses
    assert len(made[0].losses[0].prompts) == 2
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / "vqgan").iterdir()}
    assert set(models.hashes["vqgan"].values()) == digests
    assert len(models.hashes["clip"]) == 2


def test_two_layouts_of_one_model_make_one_picture(clip_folder: Path, tmp_path: Path) -> None:
    made = [
        vqgan_clip.generate(
            "red", width=32, height=32, models=load_models(path, [str(clip_folder)]), config=QUICK
        ).image
        for path in (taming(tmp_path / "a"), diffusers(tmp_path / "b"))
    ]
    assert made[0].tobytes() == made[1].tobytes()


def test_tiles_make_nearly_the_same_picture(clip_folder: Path, tmp_path: Path) -> None:
    models = load_models(taming(tmp_path / "vqgan"), [str(clip_folder)])
    config = GuidanceConfig(steps=0)
    whole = vqgan_clip.generate("red", width=192, height=64, models=models, config=config).image
    config = GuidanceConfig(steps=0, tile=8)
    tiled = vqgan_clip.generate("red", width=192, height=64, models=models, config=config).image
    difference = torch.tensor(list(whole.tobytes())) - torch.tensor(list(tiled.tobytes()))
    assert 0 < difference.float().abs().mean() < 40


def test_too_many_tokens_for_one_of_two_models_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    models = load_models(taming(tmp_path / "vqgan"), ["toy", str(clip_folder)])
    with pytest.raises(ConfigError, match=r"a prompt of 16 tokens, but this CLIP takes 12"):
        vqgan_clip.generate("red " * 14, width=32, height=32, models=models, config=QUICK)
