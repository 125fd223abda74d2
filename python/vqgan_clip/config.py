"""Settings of guidance and of the toy's training; importing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from pile_tools.errors import ConfigError

#: The name of the small VQGAN and CLIP of this package.
TOY = "toy"

#: Suffixes of the file with the architecture of a taming VQGAN.
CONFIG_SUFFIXES = (".yaml", ".yml")

OPTIMIZERS = ("adam", "adamw", "adagrad", "adamax", "nadam", "radam", "rmsprop")

#: The augmentations, in the order in which they are applied.
AUGMENTATIONS = ("crop", "flip", "affine", "perspective", "color", "erase", "noise")
DEFAULT_AUGMENTATIONS = ("crop", "affine", "perspective", "color", "erase", "noise")


#: Largest rate, pull, weight or threshold: what is larger overflows in fp32 sooner or later.
MAX_MEASURE = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceConfig:
    """How the latents are moved. Raises ConfigError for values out of range."""

    steps: int = field(default=100, metadata={"help": "Steps of the optimizer."})
    views: int = field(default=16, metadata={"help": "Random views of the picture per step."})
    chunk: int = field(default=16, metadata={"help": "Views in memory at once."})
    augment: str = field(
        default="auto",
        metadata={
            "help": f"What varies in views, of {', '.join(AUGMENTATIONS)}, or none. auto: all but flip; for "
            "the toy, those of its training.",
            "metavar": "LIST",
        },
    )
    optimizer: str = field(
        default="adam",
        metadata={"help": f"One of {', '.join(OPTIMIZERS)}.", "metavar": "NAME"},
    )
    rate: float = field(
        default=0.6,
        metadata={"help": "Learning rate, in standard deviations of the codebook."},
    )
    pull: float = field(
        default=0.0,
        metadata={"help": "Strength of the pull towards the initial picture; halves in 100 steps."},
    )
    ema: float = field(
        default=0.8, metadata={"help": "Show the latents' moving average with this decay; 0 is off."}
    )
    tile: int = field(
        default=0, metadata={"help": "Decode tiles of this many latents a side, for less memory; 0 is off."}
    )
    patience: int = field(
        default=0, metadata={"help": "Stop when the loss has not decreased for this many steps; 0 is off."}
    )

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("views", 1), ("chunk", 1), ("patience", 0), ("tile", 0)):
            if not low <= (value := getattr(self, name)) <= 1_000_000:
                raise ConfigError(f"{name} must be from {low} to 1,000,000, got {value}")
        if not 0 < self.rate <= MAX_MEASURE:
            raise ConfigError(f"rate must be greater than 0 and at most {MAX_MEASURE:,.0f}, got {self.rate}")
        if not 0 <= self.pull <= MAX_MEASURE:
            raise ConfigError(f"pull must be from 0 to {MAX_MEASURE:,.0f}, got {self.pull}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be from 0 to below 1, got {self.ema}")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"no optimizer {self.optimizer!r}; choose from {', '.join(OPTIMIZERS)}")
        parse_augmentations(self.augment)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyConfig:
    """Steps of the stages, and the seed of everything random."""

    vqgan_steps: int = field(default=1500, metadata={"help": "Steps of the VQGAN's training."})
    clip_steps: int = field(default=500, metadata={"help": "Steps of each CLIP's training on drawings."})
    adversarial_steps: int = field(
        default=700, metadata={"help": "Steps of each CLIP's training against its own guidance."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of drawings, captions and weights."})

    def __post_init__(self) -> None:
        for name in ("vqgan_steps", "clip_steps", "adversarial_steps"):
            if not 1 <= (value := getattr(self, name)) <= 1_000_000:
                raise ConfigError(f"{name} must be from 1 to 1,000,000, got {value}")
        # The stages use this seed and the next ones.
        if not 0 <= self.seed < 2**63 - 8:
            raise ConfigError(f"seed must be from 0 to 2^63 - 9, got {self.seed}")

    @property
    def n_steps(self) -> int:
        """Steps of all stages."""
        # The members of `toy.clip.ToyClip`.
        n_clips = 2
        return self.vqgan_steps + n_clips * (self.clip_steps + self.adversarial_steps)


def parse_augmentations(text: str) -> tuple[str, ...]:
    """Augmentations of a list such as `crop,noise`; none of `none`; of `auto`, all but `flip`.

    Raises: ConfigError for other names.
    """
    if text == "auto":
        return DEFAULT_AUGMENTATIONS
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(f"no augmentation {name!r}; choose from {', '.join(AUGMENTATIONS)}, or none")
    return tuple(name for name in AUGMENTATIONS if name in names)
