"""The toy: drawings match their captions; its CLIP binds colours; judges find what prompts name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.vqgan_clip import judged
from tests.vqgan_clip.judges import Verdict, palette

from pile_tools import config, files, manifest
from pile_tools.errors import ConfigError, FormatError
from vqgan_clip.config import ToyConfig
from vqgan_clip.guidance import spherical_distance
from vqgan_clip.models import Models, load_models
from vqgan_clip.toy import job, shapes, shown, stored, train
from vqgan_clip.toy.clip import Member
from vqgan_clip.toy.shapes import ANY, Scene
from vqgan_clip.weights import load_weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def test_the_weights_are_those_of_the_manifest() -> None:
    made = manifest.read(stored.FOLDER / manifest.MANIFEST_FILE)
    assert made.settings == config.settings(ToyConfig())
    for entry in made.outputs:
        path = manifest.output_path(made, entry)
        assert (path.stat().st_size, files.sha256(path)) == (entry["bytes"], entry["sha256"])
    assert sum(entry["bytes"] for entry in made.outputs) < 1_300_000


def test_the_number_of_scenes() -> None:
    scenes = shapes.scenes()
    assert len(set(scenes)) == 5 * 8 * 7
    assert 20 < sum(map(shapes.held_out, scenes)) < 36


def test_captions_match_their_scene_and_only_such() -> None:
    random = generator()
    scenes = shapes.sample(300, random)
    captions = [shapes.caption(scene, random) for scene in scenes]
    found = shapes.matches(scenes, captions)
    assert found.diagonal().all()
    for i, scene in enumerate(scenes):
        for j, caption in enumerate(captions):
            words = set(caption.text.replace(",", "").split())
            # The words of other shapes and colours rule a scene out.
            named_colors = words & set(shapes.COLORS)
            shown = {shapes.COLOR_NAMES[scene.background]}
            shown |= {shapes.COLOR_NAMES[scene.color]} if scene.shape != ANY else set()
            if named_colors - shown:
                assert not found[i, j], (scene, caption)


def test_near_misses_do_not_match() -> None:
    random = generator()
    scenes = shapes.sample(100, random)
    for scene in scenes:
        misses = shapes.near_misses(scene, random)
        assert len(misses) == shapes.N_NEAR_MISSES
        assert not shapes.matches([scene], misses).any(), (scene, misses)


def test_the_likeness_of_a_drawing_and_a_caption() -> None:
    scene = Scene(0, 1, 2)

    def likeness(other: Scene, *facts: int, is_empty: bool = False) -> float:
        return float(shapes.likeness([other], [shapes.Caption("", facts, is_empty)]))  # type: ignore[arg-type]

    shape, color, background = shapes.WEIGHTS
    assert likeness(scene, 0, 1, 2, ANY) == pytest.approx(1)
    assert likeness(scene, 3, 1, 2, ANY) == pytest.approx(1 - shape)
    assert likeness(scene, 0, 2, 1, ANY) == pytest.approx(shape)
    # A drawing's vector has parts for what a caption leaves open.
    assert likeness(scene, ANY, 1, ANY, ANY) == pytest.approx(color**0.5)
    assert likeness(scene, ANY, 3, ANY, ANY) == 0
    assert likeness(scene, ANY, ANY, ANY, 2) == pytest.approx(background / (color + background) ** 0.5)
    assert likeness(scene, ANY, ANY, 2, ANY, is_empty=True) == pytest.approx(background)
    assert likeness(Scene(ANY, ANY, 2), ANY, ANY, 2, ANY, is_empty=True) == pytest.approx(1)
    assert likeness(Scene(ANY, ANY, 2), 0, 1, 2, ANY) == pytest.approx(background)


def test_no_drawing_is_more_like_a_caption_than_one_that_matches() -> None:
    random = generator()
    scenes = shapes.sample(300, random)
    captions = [shapes.caption(scene, random) for scene in scenes]
    # A colour anywhere is stated twice, and a drawing shows it once.
    captions = [caption for caption in captions if caption.facts[3] == ANY]
    likeness, found = shapes.likeness(scenes, captions), shapes.matches(scenes, captions)
    assert ((likeness - likeness.amax(0)).abs() < 1e-6).equal(found)


def test_held_out_scenes_take_no_part_in_the_training_of_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every caption that the CLIP is trained with, right or wrong, and every drawing that it is shown."""
    held_out = {scene.caption for scene in shapes.scenes() if shapes.held_out(scene)}
    seen: list[str] = []
    drawn: list[Scene] = []
    tokens, draw, words = Member.tokens, shapes.draw, shapes.words()

    def spied_tokens(self: Member, texts: list[str]) -> tuple[torch.Tensor, list[str]]:
        seen.extend(texts)
        return tokens(self, texts)

    def spied_draw(scenes: list[Scene], *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        drawn.extend(scenes)
        return draw(scenes, *args)

    # One wording, so that captions can be compared as they are.
    monkeypatch.setattr(shapes, "words", lambda: words)
    monkeypatch.setattr(shapes, "FULL", shapes.FULL[:1])
    monkeypatch.setattr(shapes, "SYNONYMS", dict.fromkeys(shapes.SHAPES, ()))
    monkeypatch.setattr(Member, "tokens", spied_tokens)
    monkeypatch.setattr(shapes, "draw", spied_draw)
    quick = ToyConfig(clip_steps=3, adversarial_steps=3)
    with torch.random.fork_rng(devices=[]):
        train.train_clip(load_weights("toy")[0], quick, lambda *step: None)
    full = set(seen) & {scene.caption for scene in shapes.scenes()}
    assert len(full) > 200
    assert not full & held_out
    assert len(set(drawn)) > 100
    assert not any(map(shapes.held_out, drawn))


def test_drawings_have_their_colours() -> None:
    random = generator()
    scenes = shapes.sample(200, random, empty=0.0)
    images, cover = shapes.draw(scenes, random)
    assert images.shape == (200, 3, 32, 32)
    found = palette(images)
    expected = torch.tensor([(scene.color, scene.background) for scene in scenes])
    assert (found == expected).all(1).float().mean() > 0.99
    assert cover.mean((1, 2)).min() > 0.08
    assert cover.mean((1, 2)).max() < 0.5


def test_the_judge_judges_drawings_and_their_reconstructions(models: Models) -> None:
    random = generator(1)
    scenes = shapes.sample(200, random, empty=0.0)
    images, _ = shapes.draw(scenes, random)
    for pictures in (images, shown.decoded(models.vqgan, images)):
        assert min(vars(Verdict.of(pictures, scenes)).values()) > 0.95


def test_the_clip_tells_shape_from_background(models: Models) -> None:
    """Captions with swapped colours are farther from most drawings than their own."""
    random = generator(2)
    scenes = shapes.sample(300, random, empty=0.0)
    images, _ = shapes.draw(scenes, random)
    clip = models.clips[0]
    vectors = clip.encode_images(images)

    def distances(others: list[Scene]) -> torch.Tensor:
        return spherical_distance(vectors, clip.encode_texts([scene.caption for scene in others]))

    right = distances(scenes)
    swapped = [replace(s, color=s.background, background=s.color) for s in scenes]
    assert (right < distances(swapped)).float().mean() > 0.9


@pytest.mark.slow
def test_judges_find_what_prompts_name(models: Models) -> None:
    """A sample of the pairs of the benches, with a margin for its size."""
    verdict = judged.judged(16, models)
    assert verdict.color >= 0.8
    assert verdict.background >= 0.65
    assert verdict.palette >= 0.6
    assert verdict.shape >= 0.6
    random = judged.judged(16, models, replace(judged.CONFIG, steps=0), start="codes")
    assert max(random.color, random.background, random.palette) <= 0.4


@pytest.mark.slow
def test_edits_reach_the_colour_and_keep_the_rest(models: Models) -> None:
    # The benches aim at 0.9 of 40 drawings; chance is 0.125. Eight, on other processors, may have a few less.
    free, masked = (judged.edited(8, models, with_mask=with_mask) for with_mask in (False, True))
    pulled = judged.edited(8, models, pull=judged.PULL)
    assert min(free.reached, masked.reached, pulled.reached) >= 0.6
    assert masked.n_other == 0
    # The benches aim at 0.5 and found 0.49; of ten drawings it was up to 0.68.
    assert pulled.outside <= 0.85 * free.outside


@pytest.mark.slow
def test_a_negative_prompt_lowers_what_it_names(models: Models) -> None:
    before, after = judged.repelled(4, models)
    assert after < before - 0.05


def test_masks_found_by_text_cover_the_shape(models: Models) -> None:
    assert judged.overlap(10, models) >= 0.5


def test_a_stopped_training_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ToyConfig(vqgan_steps=2, clip_steps=2, adversarial_steps=1)
    job.run(tmp_path / "whole", quick)

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    stages: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(train, "train_clip", stop)
        with pytest.raises(KeyboardInterrupt):
            job.run(tmp_path / "again", quick)
    assert not list(tmp_path.glob("again*"))
    job.run(tmp_path / "again", quick, on_step=lambda stage, *step: stages.append(stage))
    members = [f"{stage} ({member})" for member in ("matching", "graded") for stage in ("CLIP", "adversary")]
    assert list(dict.fromkeys(stages)) == ["VQGAN", *members]
    for name in (stored.VQGAN_FILE, stored.CLIP_FILE):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_training_is_repeatable(tmp_path: Path) -> None:
    quick = ToyConfig(vqgan_steps=2, clip_steps=2, adversarial_steps=2)
    for name in ("a", "b"):
        made, is_new = job.run(tmp_path / name, quick)
        assert is_new
        assert made.summary["n_bytes"] > 1_000_000
    for name in (stored.VQGAN_FILE, stored.CONFIG_FILE, stored.CLIP_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert job.run(tmp_path / "a", quick)[1] is False
    load_models(tmp_path / "a" / stored.VQGAN_FILE, [tmp_path / "a" / stored.CLIP_FILE])
    job.run(tmp_path / "c", replace(quick, seed=1))
    assert (tmp_path / "a" / stored.CLIP_FILE).read_bytes() != (
        tmp_path / "c" / stored.CLIP_FILE
    ).read_bytes()


@pytest.mark.parametrize("values", [{"vqgan_steps": 0}, {"clip_steps": -1}, {"seed": -1}, {"seed": 2**63}])
def test_training_settings_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        ToyConfig(**values)


def test_files_that_are_no_toy_clip_are_refused(tmp_path: Path) -> None:
    tensors = load_file(stored.FOLDER / stored.CLIP_FILE)
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((stored.FOLDER / stored.CLIP_FILE).read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(FormatError, match="not a toy CLIP of this version"):
        stored.load_clip(tmp_path / "more.safetensors")
    for name in ("cut", "text"):
        with pytest.raises(FormatError, match="not a safetensors file"):
            stored.load_clip(tmp_path / f"{name}.safetensors")
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            bad = {name: torch.full_like(tensor, torch.nan)}
            save_file({**tensors, **bad}, tmp_path / "nan.safetensors")
            with pytest.raises(FormatError, match=r"has values that are not finite .*nan\.safetensors"):
                stored.load_clip(tmp_path / "nan.safetensors")
