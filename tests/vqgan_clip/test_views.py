"""Views are what their plan says: straight without augmentations, else within bounds; seeds decide all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqgan_clip.config import AUGMENTATIONS, DEFAULT_AUGMENTATIONS, parse_augmentations
from vqgan_clip.views import chunks, make_views, plan_views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(1, 3, height, width, generator=generator(5))


def test_without_augmentations_a_view_is_the_picture() -> None:
    views = make_views(picture(), plan_views(3, (), generator()), 32, generator())
    assert views.shape == (3, 3, 32, 32)
    torch.testing.assert_close(views, picture().expand(3, -1, -1, -1), rtol=0, atol=1e-5)


def test_a_flipped_view_is_the_mirror_image() -> None:
    views = make_views(picture(), plan_views(40, ("flip",), generator()), 32, generator())
    is_flipped = [bool(torch.allclose(view, picture()[0].flip(-1), atol=1e-5)) for view in views]
    is_plain = [bool(torch.allclose(view, picture()[0], atol=1e-5)) for view in views]
    assert all(a != b for a, b in zip(is_flipped, is_plain, strict=True))
    assert 10 < sum(is_flipped) < 30


@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.5])
def test_crops_are_squares_within_the_picture(aspect: float) -> None:
    plan = plan_views(200, ("crop",), generator(), aspect)
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    mapped = corners @ plan.homographies.mT
    assert (mapped[..., :2].abs() <= 1 + 1e-6).all()
    sides = (mapped[:, 1, :2] - mapped[:, 0, :2]) * torch.tensor([aspect, 1.0])
    torch.testing.assert_close(sides[:, 0], sides[:, 1])
    shares = sides[:, 0] / 2 / min(aspect, 1)
    assert 0.8 <= shares.min() < 0.83
    assert 0.97 < shares.max() <= 1


def test_perspective_moves_the_corners_inwards() -> None:
    plan = plan_views(100, ("perspective",), generator())
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    mapped = corners @ plan.homographies.mT
    points = mapped[..., :2] / mapped[..., 2:]
    assert (points.abs() <= 1 + 1e-5).all()
    assert (points * corners[:, :2] >= 0.7 - 1e-5).all()
    assert points.std(0).min() > 0.01


def test_colours_of_gray_stay_gray() -> None:
    gray = torch.full((1, 3, 8, 8), 0.5)
    views = make_views(gray, plan_views(50, ("color",), generator()), 8, generator())
    assert (views.amax(1) - views.amin(1)).max() < 1e-5
    assert views.amin() >= 0.4
    assert views.amax() <= 0.6
    assert views.std() > 0.01


def test_erased_rectangles_are_gray_and_have_the_area() -> None:
    white = torch.ones(1, 3, 64, 64)
    views = make_views(white, plan_views(100, ("erase",), generator()), 64, generator())
    is_erased = views[:, 0] == 0.5
    assert ((views == 1) | (views == 0.5)).all()
    areas = is_erased.float().mean((1, 2))
    assert areas.max() < 0.14
    assert 50 < (areas > 0.01).sum() < 90


def test_noise_has_the_deviation_of_its_plan() -> None:
    plan = plan_views(20, ("noise",), generator())
    noise = make_views(picture(64, 64), plan, 64, generator(1)) - picture(64, 64)
    torch.testing.assert_close(noise.std((1, 2, 3)), plan.noise, rtol=0.05, atol=1e-4)
    assert plan.noise.max() <= 0.1


def test_one_picture_gives_the_views_of_its_copies() -> None:
    plan = plan_views(4, DEFAULT_AUGMENTATIONS, generator())
    single = make_views(picture(), plan, 32, generator(1))
    copies = make_views(picture().repeat(4, 1, 1, 1), plan, 32, generator(1))
    torch.testing.assert_close(single, copies)


def test_chunks_are_the_views_of_the_whole() -> None:
    plan = plan_views(10, DEFAULT_AUGMENTATIONS, generator())
    parts = list(chunks(plan, 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    whole, noise = make_views(picture(), plan, 32, generator(1)), generator(1)
    torch.testing.assert_close(torch.cat([make_views(picture(), part, 32, noise) for part in parts]), whole)


@pytest.mark.parametrize("left_out", DEFAULT_AUGMENTATIONS)
def test_leaving_an_augmentation_out_leaves_the_others(left_out: str) -> None:
    rest = tuple(name for name in DEFAULT_AUGMENTATIONS if name != left_out)
    every, some = (plan_views(8, names, generator()) for names in (DEFAULT_AUGMENTATIONS, rest))
    fields = {"color": "colors", "erase": "erased", "noise": "noise"}
    changed = fields.get(left_out, "homographies")
    for name in ("homographies", "colors", "erased", "noise"):
        assert torch.equal(getattr(every, name), getattr(some, name)) == (name != changed)


def test_seeds_decide_views() -> None:
    first, same, other = (plan_views(4, DEFAULT_AUGMENTATIONS, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.homographies, same.homographies)
    assert not torch.equal(first.homographies, other.homographies)


def test_gradients_are_those_of_finite_differences() -> None:
    plan = plan_views(3, ("crop", "affine", "perspective", "color", "erase"), generator())
    small = torch.rand(1, 3, 6, 6, generator=generator(2), dtype=torch.float64)
    doubled = type(plan)(*(getattr(plan, name).double() for name in plan.__dataclass_fields__))

    def views(values: Tensor) -> Tensor:
        return make_views(values, doubled, 5, generator())

    assert torch.autograd.gradcheck(views, (small.requires_grad_(),))


def test_large_pictures_are_averaged_first() -> None:
    stripes = (torch.arange(512) % 2).float().expand(1, 3, 512, 512)
    views = make_views(stripes, plan_views(4, ("crop", "affine"), generator()), 32, generator())
    assert (views - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(("text", "names"), [("none", ()), ("noise, crop", ("crop", "noise"))])
def test_lists_of_augmentations(text: str, names: tuple[str, ...]) -> None:
    assert parse_augmentations(text) == names
    assert parse_augmentations(",".join(AUGMENTATIONS)) == AUGMENTATIONS
