"""Guidance: optimizes latents of a VQGAN so that CLIP finds the decoded picture similar to the prompts.

"VQGAN-CLIP: Open Domain Image Generation and Editing with Natural Language Guidance" (Crowson et al. 2022,
arXiv:2204.08583). Neither network is trained. One step:

    latents -> nearest codes -> decoded picture -> random views -> CLIP -> distances to the prompts
            <------------------------- gradient -------------------------
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pile_tools.errors import FormatError, PileError
from pile_tools.terminal import counted
from vqgan_clip.clips import Clip
from vqgan_clip.config import GuidanceConfig, parse_augmentations
from vqgan_clip.quantize import quantize, replace_grad, squared_norms
from vqgan_clip.views import chunks, make_views, plan_views
from vqgan_clip.vqgan import Vqgan

_OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}

#: Half-life of the pull towards the initial picture, in steps.
_PULL_HALVES_IN = 100
#: Decay of the moving average of the loss, over about ten steps. Losses are noisy because views are random.
_SMOOTHING = 0.9
#: Minimum decrease of the averaged loss that counts as an improvement.
_IMPROVEMENT = 1e-3


class StateError(FormatError):
    """A state that the guidance of this picture cannot have had."""


@dataclass(frozen=True)
class Target:
    """What views are compared with.

    Attributes:
        vectors: CLIP's vectors of one prompt: (k, d).
        weight: Factor of its loss; a negative weight repels.
        stop: Signed distance below which a view has no gradient, see `prompt_loss`.
    """

    vectors: Tensor
    weight: float = 1.0
    stop: float = -math.inf


@dataclass(frozen=True)
class Guide:
    """A CLIP model and the prompts in its space."""

    clip: Clip
    targets: Sequence[Target]


@dataclass(frozen=True)
class Region:
    """The part of a picture that is edited.

    Attributes:
        latents: Which latents may change: (1, 1, h, w) bool.
        pixels: Which pixels may: (1, 1, H, W), 0 or 1.
        picture: The unedited picture: (1, 3, H, W) in [0, 1].
    """

    latents: Tensor
    pixels: Tensor
    picture: Tensor


@dataclass(frozen=True)
class StepLosses:
    """Losses of a step.

    Attributes:
        total: What is minimized.
        prompts: Weighted distance to each prompt, a mean over the CLIP models.
        pull: Loss of the distance to the initial latents.
    """

    total: float
    prompts: tuple[float, ...]
    pull: float


class _ClampWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.low, ctx.high = low, high
        ctx.save_for_backward(values)
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        (grad,) = grads
        # A descent step moves against the gradient, so only gradients that lead further out become zero.
        is_outward = grad * (values - values.clamp(ctx.low, ctx.high)) < 0
        return grad.masked_fill(is_outward, 0), None, None


def clamp_with_grad(values: Tensor, low: float, high: float) -> Tensor:
    """`values.clamp(low, high)`; the gradient is zero only where it leads further out of the range."""
    clamped: Tensor = _ClampWithGrad.apply(values, low, high)
    return clamped


def spherical_distance(first: Tensor, second: Tensor) -> Tensor:
    """Half the squared angle between vectors: 2 asin(d / 2)^2, d apart on the sphere.

    Shapes: (..., d), (..., d) -> (...), broadcast.
    """
    difference = functional.normalize(first, dim=-1) - functional.normalize(second, dim=-1)
    # For opposite vectors, rounding may exceed 1, where `asin` is NaN; at 1 its gradient is infinite.
    half: Tensor = difference.norm(dim=-1).div(2).clamp(max=1 - 1e-6)
    return half.asin().square().mul(2)


def prompt_loss(vectors: Tensor, target: Target) -> Tensor:
    """The weighted mean distance of views to a prompt, negative for a negative weight.

    `stop` changes the gradient, not the value: a view whose signed distance is below it has no gradient.

    Shapes: (n, d) -> ().
    """
    distances = spherical_distance(vectors[:, None], target.vectors[None]) * math.copysign(1, target.weight)
    if target.stop > -math.inf:
        distances = replace_grad(distances.detach(), distances.clamp(min=target.stop))
    return abs(target.weight) * distances.mean()


class Guidance:
    """The state of a guided picture.

    Args:
        vqgan: The VQGAN. Its weights, and those of the CLIP models, must not require gradients.
        guides: CLIP models, each with the same prompts; their losses are averaged.
        latents: The initial latents: (1, d, h, w).
        config: The settings.
        generator: The source of all random numbers, on the CPU.
        region: The part that may change; None for the whole picture.
        pull_weights: Weights of the pull, of mean 1: (1, 1, h, w); None for equal ones.
        decode: From latents to pictures in [-1, 1]; by default the VQGAN's.
    """

    def __init__(
        self,
        vqgan: Vqgan,
        guides: Sequence[Guide],
        latents: Tensor,
        config: GuidanceConfig,
        generator: torch.Generator,
        *,
        region: Region | None = None,
        pull_weights: Tensor | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._vqgan, self._guides, self._config = vqgan, guides, config
        self._generator, self._region = generator, region
        self._pull_weights = torch.ones(()) if pull_weights is None else pull_weights
        self._decode = decode or vqgan.decode
        self._augmentations = parse_augmentations(config.augment)
        self._codebook = vqgan.codebook.detach()
        self._norms = squared_norms(self._codebook)
        self._low, self._high = (bound[:, None, None] for bound in torch.aminmax(self._codebook, dim=0))
        self._deviation = float(self._codebook.std())
        self._initial = latents.detach().clone()
        self._latents = latents.detach().clone().requires_grad_()
        self._average = self._initial.clone()
        self._optimizer = _OPTIMIZERS[config.optimizer]([self._latents], lr=config.rate * self._deviation)
        self._smoothed, self._best, self._best_step = math.nan, math.inf, 0
        self.n_steps = 0

    def step(self) -> StepLosses:
        """Takes one step of the optimizer, and returns the losses of the latents before it."""
        picture = self._picture(self._latents)
        # Accumulates the gradients of all views, so only one chunk of views is in memory at a time.
        seen = picture.detach().requires_grad_()
        by_prompt = self._view_losses(seen)
        self._optimizer.zero_grad()
        picture.backward(seen.grad)  # type: ignore[no-untyped-call]
        pull = self._pull()
        if pull.requires_grad:
            pull.backward()  # type: ignore[no-untyped-call]
        losses = StepLosses(sum(by_prompt) + pull.item(), tuple(by_prompt), pull.item())
        self._move()
        self._remember(losses.total)
        return losses

    def _view_losses(self, picture: Tensor) -> list[float]:
        """The loss of each prompt; their gradients are added to the picture's."""
        height, width = picture.shape[-2:]
        totals = [0.0] * len(self._guides[0].targets)
        for guide in self._guides:
            plan = plan_views(self._config.views, self._augmentations, self._generator, width / height)
            for part in chunks(plan, self._config.chunk):
                views = make_views(picture, part, guide.clip.size, self._generator)
                vectors = guide.clip.encode_images(views)
                share = len(part) / len(plan) / len(self._guides)
                losses = share * torch.stack([prompt_loss(vectors, target) for target in guide.targets])
                losses.sum().backward()  # type: ignore[no-untyped-call]
                totals = [total + loss for total, loss in zip(totals, losses.tolist(), strict=True)]
        return totals

    def _pull(self) -> Tensor:
        """The weighted mean squared distance to the initial latents, in variances of the codebook."""
        if not self._config.pull:
            return torch.zeros(())
        strength = float(self._config.pull * 0.5 ** (self.n_steps / _PULL_HALVES_IN))
        squares = (self._latents - self._initial).square() * self._pull_weights.to(self._latents.device)
        return squares.mean().mul(strength / self._deviation**2)

    @torch.no_grad()
    def _move(self) -> None:
        self._optimizer.step()
        # Keeps latents within reach: far outside the codebook's range many steps change no code.
        torch.maximum(torch.minimum(self._latents, self._high), self._low, out=self._latents)
        if self._region is not None:
            self._latents.copy_(torch.where(self._region.latents, self._latents, self._initial))
        self._average.lerp_(self._latents, 1 - self._config.ema)

    def _remember(self, loss: float) -> None:
        self.n_steps += 1
        if not math.isfinite(loss):
            # The first loss is that of the start, which no rate has changed.
            why = "take a lower rate" if self.n_steps > 1 else "a network gives no numbers"
            raise PileError(f"the loss is not a number at step {self.n_steps}; {why}")
        is_first = math.isnan(self._smoothed)
        self._smoothed = loss if is_first else _SMOOTHING * self._smoothed + (1 - _SMOOTHING) * loss
        if self._smoothed < self._best - _IMPROVEMENT:
            self._best, self._best_step = self._smoothed, self.n_steps

    @property
    def has_stalled(self) -> bool:
        """Whether the averaged loss has not improved for `patience` steps; false if `patience` is 0."""
        return 0 < self._config.patience <= self.n_steps - self._best_step

    @torch.no_grad()
    def picture(self) -> Tensor:
        """The picture of the latents' moving average, which without `ema` is the latents: (1, 3, H, W)."""
        return self._picture(self._average)

    def _picture(self, latents: Tensor) -> Tensor:
        entries, _ = quantize(latents, self._codebook, self._norms)
        picture = clamp_with_grad((self._decode(entries) + 1) / 2, 0, 1)
        if self._region is None:
            return picture
        # The decoder also changes pixels of frozen latents near editable ones; the mask undoes this.
        return torch.where(self._region.pixels > 0, picture, self._region.picture)

    def state(self) -> dict[str, Tensor]:
        """The state as tensors. After `restore`, the next steps are bit-identical."""
        moments = self._optimizer.state_dict()["state"].get(0, {})
        numbers = [self._smoothed, self._best, float(self._best_step), float(self.n_steps)]
        return {
            "latents": self._latents.detach().clone(),
            "initial": self._initial.clone(),
            "average": self._average.clone(),
            "generator": self._generator.get_state(),
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            **{f"optimizer.{name}": torch.as_tensor(value).clone() for name, value in moments.items()},
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a `state`.

        Raises:
            StateError: Its tensors have other names, shapes or types, or values that no run has, or it is of
                more steps than this run has.
        """
        _check_fits(state, self.state())
        numbers = state["numbers"]
        # Before the first step the optimizer has no tensors.
        if float(numbers[-1]) > 0:
            _check_fits(state, self._optimizer_tensors())
        for name, value in state.items():
            # Before the first step the average of the loss is no number, and the lowest one is infinite.
            if name != "numbers" and value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise StateError(f"the saved state has values that are not numbers: {name}")
        smoothed, best, *counts = numbers.tolist()
        if not all(0 <= n < 2**53 for n in counts):
            raise StateError("the saved state has values that no run has: numbers")
        if counts[-1] > self._config.steps:
            steps = counted(self._config.steps, "step")
            raise StateError(f"the saved state is of step {int(counts[-1])}, and this run has {steps}")
        try:
            self._generator.set_state(state["generator"].cpu())
        except RuntimeError as err:
            raise StateError("the saved state has values that no run has: generator") from err
        # Into tensors that are on their device: a file is read on the CPU, where the generator stays.
        with torch.no_grad():
            self._latents.copy_(state["latents"])
            self._initial.copy_(state["initial"])
            self._average.copy_(state["average"])
        self._smoothed, self._best = smoothed, best
        self._best_step, self.n_steps = map(int, counts)
        prefix = "optimizer."
        moments = {n.removeprefix(prefix): v.clone() for n, v in state.items() if n.startswith(prefix)}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": groups})

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """The tensors of an optimizer of this kind after a step, as `state` names them."""
        latents = torch.zeros_like(self._latents, requires_grad=True)
        latents.grad = torch.zeros_like(latents)
        optimizer = _OPTIMIZERS[self._config.optimizer]([latents])
        optimizer.step()
        return {f"optimizer.{k}": torch.as_tensor(v) for k, v in optimizer.state_dict()["state"][0].items()}


def _check_fits(state: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    """Raises StateError unless a state has tensors with the names, shapes and types of `known`."""
    for name, value in known.items():
        if name not in state or state[name].shape != value.shape or state[name].dtype != value.dtype:
            raise StateError(f"the saved state does not fit this picture and optimizer: {name}")
