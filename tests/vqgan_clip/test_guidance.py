"""The parts of guidance have their closed forms, value and gradient; a run can be stopped and continued."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pile_tools.errors import ConfigError, FormatError
from vqgan_clip.config import OPTIMIZERS, GuidanceConfig
from vqgan_clip.guidance import (
    Guidance,
    Guide,
    Region,
    Target,
    clamp_with_grad,
    prompt_loss,
    spherical_distance,
)
from vqgan_clip.toy.clip import ToyClip
from vqgan_clip.toy.train import CONFIG
from vqgan_clip.vqgan import Vqgan


@pytest.fixture(scope="module")
def vqgan() -> Vqgan:
    """The toy's architecture with random weights."""
    torch.manual_seed(3)
    model = Vqgan(CONFIG).requires_grad_(False)
    model.codebook.normal_()
    return model


@pytest.fixture(scope="module")
def clips() -> list[ToyClip]:
    torch.manual_seed(4)
    return [ToyClip().requires_grad_(False) for _ in range(2)]


def guided(
    vqgan: Vqgan, clips: list[ToyClip], *, region: Region | None = None, **settings: object
) -> Guidance:
    config = replace(GuidanceConfig(views=4, chunk=4, steps=8, rate=0.3, ema=0.0), **settings)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(7)
    codes = torch.randint(256, (1, 8, 8), generator=generator)
    guides = [Guide(clip, [Target(clip.encode_texts(["a red circle"]))]) for clip in clips]
    return Guidance(vqgan, guides, vqgan.entries(codes), config, generator, region=region)


def test_clamping_passes_the_gradient_back_into_the_range() -> None:
    values = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0], requires_grad=True)
    clamped = clamp_with_grad(values, 0, 1)
    assert clamped.tolist() == [0, 0, 0.5, 1, 1]
    # A step goes against the gradient: below the range a positive one leads further out, as above a negative.
    clamped.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [0, -1, 1, 1, 0]


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 150.0, 180.0])
def test_distance_is_half_the_squared_angle(degrees: float) -> None:
    angle = math.radians(degrees)
    first, second = torch.tensor([3.0, 0.0]), torch.tensor([0.2 * math.cos(angle), 0.2 * math.sin(angle)])
    # Near 180 degrees the distance is cut off, where its gradient would be infinite.
    close = 0.01 if degrees == 180 else 1e-5
    assert float(spherical_distance(first, second)) == pytest.approx(angle**2 / 2, abs=close)


def test_opposite_vectors_have_a_finite_gradient() -> None:
    first = torch.randn(64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    spherical_distance(first, -first.detach()).backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_the_loss_of_a_prompt_is_its_weighted_mean_distance() -> None:
    views = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    target = torch.tensor([[1.0, 0.0]])
    mean = (0 + math.pi**2 / 8) / 2
    for weight in (1.0, 0.5, -2.0):
        assert float(prompt_loss(views, Target(target, weight))) == pytest.approx(weight * mean, abs=1e-6)


def test_a_threshold_takes_the_gradient_and_leaves_the_value() -> None:
    target = torch.tensor([[1.0, 0.0]])
    near, far = math.radians(20), math.radians(80)
    start = torch.tensor([[math.cos(near), math.sin(near)], [math.cos(far), math.sin(far)]])
    losses, gradients = [], []
    for stop in (-math.inf, math.radians(50) ** 2 / 2):
        views = start.clone().requires_grad_()
        loss = prompt_loss(views, Target(target, 1.0, stop))
        loss.backward()  # type: ignore[no-untyped-call]
        assert views.grad is not None
        losses.append(loss.item())
        gradients.append(views.grad)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert gradients[0][0].abs().sum() > 0
    assert gradients[1][0].abs().sum() == 0
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_the_threshold_of_a_negative_prompt_is_a_negative_distance() -> None:
    target, angle = torch.tensor([[1.0, 0.0]]), math.radians(60)
    views = torch.tensor([[math.cos(angle), math.sin(angle)]], requires_grad=True)
    # It repels until the distance is 0.4; this view's is 0.55.
    prompt_loss(views, Target(target, -1.0, -0.4)).backward()  # type: ignore[no-untyped-call]
    assert views.grad is not None
    assert views.grad.abs().sum() == 0


def test_steps_lower_the_loss(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    guidance = guided(vqgan, clips[:1], views=8, chunk=8)
    losses = [guidance.step().total for _ in range(30)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_latents_stay_in_the_range_of_the_codebook(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    guidance = guided(vqgan, clips, rate=50.0)
    for _ in range(3):
        guidance.step()
    latents = guidance.state()["latents"]
    low, high = torch.aminmax(vqgan.codebook, dim=0)
    assert (latents >= low[:, None, None]).all()
    assert (latents <= high[:, None, None]).all()
    assert (latents == low[:, None, None]).any()


def test_losses_of_two_models_are_averaged(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    plain = {"augment": "none", "views": 1}
    both = guided(vqgan, clips, **plain).step().total
    single = [guided(vqgan, [clip], **plain).step().total for clip in clips]
    assert single[0] != single[1]
    assert both == pytest.approx(sum(single) / 2, rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_chunks_change_rounding_only(vqgan: Vqgan, clips: list[ToyClip], chunk: int) -> None:
    whole, parts = (guided(vqgan, clips, views=8, chunk=n) for n in (8, chunk))
    assert parts.step().total == pytest.approx(whole.step().total, rel=1e-5)
    torch.testing.assert_close(parts.state()["latents"], whole.state()["latents"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_steps", [0, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_state_continues_bit_identically(
    vqgan: Vqgan, clips: list[ToyClip], optimizer: str, n_steps: int
) -> None:
    settings: dict[str, object] = {"optimizer": optimizer, "ema": 0.5, "pull": 0.3}
    whole = guided(vqgan, clips, **settings)
    for _ in range(n_steps):
        whole.step()
    saved = whole.state()
    expected = [whole.step() for _ in range(3)]
    again = guided(vqgan, clips, **settings)
    again.restore(saved)
    assert [again.step() for _ in range(3)] == expected
    assert torch.equal(again.picture(), whole.picture())
    assert again.n_steps == n_steps + 3


def test_a_state_of_another_optimizer_is_refused(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    first = guided(vqgan, clips, optimizer="adagrad")
    first.step()
    with pytest.raises(FormatError, match=r"optimizer\.exp_avg"):
        guided(vqgan, clips, optimizer="adam").restore(first.state())


def test_a_state_of_more_steps_than_the_run_has_is_refused(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    longer = guided(vqgan, clips)
    for _ in range(3):
        longer.step()
    guided(vqgan, clips, steps=3).restore(longer.state())
    with pytest.raises(FormatError, match="is of step 3, and this run has 2 steps"):
        guided(vqgan, clips, steps=2).restore(longer.state())


def test_outside_the_region_nothing_changes(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    latents = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    latents[..., 2:5, 2:5] = True
    pixels = torch.zeros(1, 1, 32, 32)
    pixels[..., 9:18, 9:18] = 1
    original = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    guidance = guided(vqgan, clips, region=Region(latents, pixels, original))
    before = guidance.state()["latents"]
    for _ in range(4):
        guidance.step()
    picture, moved = guidance.picture(), guidance.state()["latents"] != before
    assert torch.equal(picture.where(pixels == 0, original), original)
    assert not torch.equal(picture, original)
    assert not moved.any(1, keepdim=True)[~latents].any()
    assert moved.any(1, keepdim=True)[latents].all()


def test_the_pull_holds_the_latents_and_fades(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    distances = {}
    for pull in (0.0, 100.0):
        guidance = guided(vqgan, clips, pull=pull)
        before = guidance.state()["latents"]
        pulls = [guidance.step().pull for _ in range(10)]
        distances[pull] = float((guidance.state()["latents"] - before).abs().mean())
        assert (pulls[0], pulls[-1] > 0) == (0, pull > 0)
    assert distances[100.0] < distances[0.0] / 2


def test_the_average_lags(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    averaged = guided(vqgan, clips, ema=0.9)
    plain = guided(vqgan, clips)
    initial = plain.state()["latents"]
    for _ in range(3):
        averaged.step()
        plain.step()
    assert torch.equal(plain.state()["average"], plain.state()["latents"])
    lag = (averaged.state()["average"] - initial).norm() / (averaged.state()["latents"] - initial).norm()
    assert 0.1 < lag < 0.5


def test_a_run_that_finds_nothing_better_has_stalled(vqgan: Vqgan, clips: list[ToyClip]) -> None:
    guidance = guided(vqgan, clips, rate=1e-9, patience=3, augment="none", views=1)
    n_steps = 0
    while not guidance.has_stalled and n_steps < 20:
        guidance.step()
        n_steps += 1
    assert n_steps == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": -1}, "steps must be from 0"),
        ({"views": 0}, "views must be from 1"),
        ({"chunk": 0}, "chunk must be from 1"),
        ({"rate": 0.0}, "rate must be greater than 0"),
        ({"rate": math.nan}, "rate must be greater than 0"),
        ({"pull": -0.1}, "pull must be from 0"),
        ({"ema": 1.0}, "ema must be from 0 to below 1"),
        ({"optimizer": "sgd"}, "no optimizer 'sgd'; choose from adam, adamw"),
        ({"augment": "crop,blur"}, "no augmentation 'blur'; choose from crop"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GuidanceConfig(**values)  # type: ignore[arg-type]
