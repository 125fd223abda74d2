"""What a training run is: the TOML file of `pile-train`, and its values with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pile_tools.config import Settings, settings
from pile_tools.errors import ConfigError
from pile_tools.order.order import Order
from pile_tools.terminal import counted
from trainer.presets import PRESETS, Preset, named
from trainer.schedule import DECAY_SHAPES, SCHEDULES, learning_rate
from trainer.shape import ModelShape

_Value = TypeVar("_Value")

PRECISIONS = ("fp32", "bf16", "fp16")

#: Steps with a checkpoint whatever `checkpoint_every` is, as Pythia has them.
EARLY_CHECKPOINTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

#: Fields of `ModelShape` and of `AdamW` that a preset fixes too.
_SHAPE_FIELDS = ("rotary_pct", "rotary_base", "layer_norm_eps", "parallel_residual", "hidden_act", "init")
_OPTIMIZER_FIELDS = (
    *("lr", "min_lr", "warmup", "betas", "eps", "weight_decay", "gradient_clipping", "schedule"),
)

#: Fields of `AdamW` that a stage may have of its own.
_STAGE_FIELDS = ("lr", "min_lr", "warmup", "schedule", "decay", "decay_shape")

#: The rule of the orders that all presets were trained on.
PUBLISHED_RULE = "gpt-neox packed"

#: Share of the steps in which the rate of `wsd` falls, and how, by default.
DECAY, DECAY_SHAPE = 0.1, "linear"

#: Largest values of what is counted: a model or a run beyond them fits no machine.
MAX_WIDTH, MAX_LAYERS, MAX_VOCABULARY, MAX_COUNT = 1 << 20, 1 << 14, (1 << 31) - 1, 1 << 48

#: Largest finite value of what is measured, as a weight in fp32 is.
MAX_MEASURE = 3.4e38


def _within(low: float, high: float, **values: float | None) -> None:
    """Raises ConfigError for a value that is given and not in [`low`, `high`]; NaN is in no range."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} must be from {low} to {high}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Table `[model]`: a published size by name, or dimensions."""

    preset: str | None = field(default=None, metadata={"help": "A published size: pythia-14m, ... Or:"})
    hidden_size: int | None = field(default=None, metadata={"help": "Width of the residual stream."})
    n_layers: int | None = field(default=None, metadata={"help": "Blocks."})
    n_heads: int | None = field(default=None, metadata={"help": "Attention heads of a block."})
    vocab_size: int | None = field(default=None, metadata={"help": "Default: the tokenizer's, padded."})
    rotary_pct: float = field(default=0.25, metadata={"help": "Share of a head that rotary embeddings turn."})
    rotary_base: float = field(default=10000.0, metadata={"help": "Base of the rotary frequencies."})
    layer_norm_eps: float = field(default=1e-5, metadata={"help": "Epsilon of the layer norms."})
    parallel_residual: bool = field(default=True, metadata={"help": "Attention and MLP side by side."})
    hidden_act: str | None = field(
        default=None,
        metadata={"help": "gelu (exact) or gelu_pytorch_tanh. Default: the preset's, else gelu."},
    )
    init: str | None = field(default=None, metadata={"help": "small_wang or normal_scaled."})
    attention_within_documents: bool = field(
        default=False,
        metadata={"help": "No token sees another document of its row; positions count from its start."},
    )

    def __post_init__(self) -> None:
        _within(1, MAX_WIDTH, hidden_size=self.hidden_size, n_heads=self.n_heads)
        _within(1, MAX_LAYERS, n_layers=self.n_layers)
        _within(1, MAX_VOCABULARY, vocab_size=self.vocab_size)
        _within(0, 1, rotary_pct=self.rotary_pct)
        _within(1, MAX_MEASURE, rotary_base=self.rotary_base)
        # In fp32, in which layer norms are computed, less is zero.
        _within(1e-37, 1, layer_norm_eps=self.layer_norm_eps)
        dimensions = (self.hidden_size, self.n_layers, self.n_heads)
        if self.preset is None and None in dimensions:
            raise ConfigError("give preset, or all of hidden_size, n_layers and n_heads")
        if self.preset is not None and dimensions != (None, None, None):
            raise ConfigError("give either preset or hidden_size, n_layers and n_heads")
        if self.preset is not None and self.preset not in PRESETS:
            raise ConfigError(f"no preset {self.preset!r}; there are {named()}")

    @property
    def published(self) -> Preset | None:
        """The preset that is named, if one is."""
        return PRESETS[self.preset] if self.preset else None

    def shape(self, max_positions: int, n_known: int | None) -> ModelShape:
        """The model's shape; `n_known` tokens have a meaning. Raises ConfigError if no size can be known."""
        size = self.published
        return ModelShape(
            hidden_size=size.hidden_size if size else self.hidden_size or 0,
            n_layers=size.n_layers if size else self.n_layers or 0,
            n_heads=size.n_heads if size else self.n_heads or 0,
            vocab_size=self._vocab_size(n_known),
            max_positions=max_positions,
            rotary_pct=self.rotary_pct,
            rotary_base=self.rotary_base,
            layer_norm_eps=self.layer_norm_eps,
            parallel_residual=self.parallel_residual,
            hidden_act=_given(self.hidden_act, size.hidden_act if size else "gelu"),
            init=_given(self.init, size.init if size else "small_wang"),
        )

    def _vocab_size(self, n_known: int | None) -> int:
        """The size given, or `n_known` padded to a multiple of 128 (more for the largest presets)."""
        if self.vocab_size is not None:
            _within(n_known or 1, MAX_VOCABULARY, vocab_size=self.vocab_size)
            return self.vocab_size
        if n_known is None:
            raise ConfigError("the vocabulary's size is not known; give tokenizer, or vocab_size in [model]")
        multiple = self.published.vocab_multiple if self.published else 128
        return -(-n_known // multiple) * multiple


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Table `[optimizer]`: AdamW, its learning rate and its clipping."""

    lr: float | None = field(
        default=None, metadata={"help": "Highest rate. Default: the preset's, else 0.001."}
    )
    min_lr: float | None = field(default=None, metadata={"help": "Rate at the end. Default: lr / 10."})
    warmup: float = field(default=0.01, metadata={"help": "Share of the steps in which the rate rises."})
    betas: tuple[float, ...] = field(default=(0.9, 0.95), metadata={"help": "Of the running averages."})
    eps: float = field(default=1e-8, metadata={"help": "Added to the denominator."})
    weight_decay: float | None = field(default=None, metadata={"help": "Default: the preset's, else 0.1."})
    gradient_clipping: float = field(default=1.0, metadata={"help": "Largest norm of a gradient; 0: none."})
    schedule: str | None = field(
        default=None,
        metadata={"help": f"One of {', '.join(SCHEDULES)}. Default: the preset's, else neox."},
    )
    decay: float | None = field(
        default=None, metadata={"help": "Share of the steps in which the rate of wsd falls. Default: 0.1."}
    )
    decay_shape: str | None = field(
        default=None, metadata={"help": f"Of wsd: {', '.join(DECAY_SHAPES)}. Default: linear."}
    )

    def __post_init__(self) -> None:
        _within(0, MAX_MEASURE, eps=self.eps, weight_decay=self.weight_decay)
        _within(0, MAX_MEASURE, gradient_clipping=self.gradient_clipping)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be two numbers in [0, 1), got {list(self.betas)}")
        _check_rates(self)


def _check_rates(of: OptimizerConfig | StageConfig) -> None:
    """Raises ConfigError for a schedule that there is not, or a decay that it does not have."""
    _within(0, MAX_MEASURE, lr=of.lr, min_lr=of.min_lr)
    _within(0, 1, warmup=of.warmup)
    if of.warmup == 1:
        raise ConfigError(f"warmup must be < 1, got {of.warmup}")
    if of.schedule not in (None, *SCHEDULES):
        raise ConfigError(f"schedule {of.schedule!r} is not one of {', '.join(SCHEDULES)}")
    if of.schedule != "wsd" and (of.decay, of.decay_shape) != (None, None):
        raise ConfigError('decay and decay_shape are of schedule = "wsd" alone')
    if of.decay is not None and not 0 < of.decay <= 1 - of.warmup:
        raise ConfigError(f"decay must be above 0 and at most 1 - warmup, got {of.decay}")
    if of.schedule == "wsd" and of.decay is None and of.warmup > 1 - DECAY:
        raise ConfigError(f"warmup must be at most {1 - DECAY} with the default decay, {DECAY}")
    if of.decay_shape not in (None, *DECAY_SHAPES):
        raise ConfigError(f"decay_shape {of.decay_shape!r} is not one of {', '.join(DECAY_SHAPES)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """A table `[[stages]]`: some of the run's steps, with a learning rate of their own."""

    steps: int = field(metadata={"help": "Steps of the stage."})
    lr: float | None = field(default=None, metadata={"help": "Highest rate. Default: as in [optimizer]."})
    min_lr: float | None = field(default=None, metadata={"help": "Rate at its end. Default: lr / 10."})
    warmup: float = field(default=0.0, metadata={"help": "Share of the stage in which the rate rises."})
    schedule: str | None = field(default=None, metadata={"help": "Default: as in [optimizer]."})
    decay: float | None = field(default=None, metadata={"help": "As in [optimizer]."})
    decay_shape: str | None = field(default=None, metadata={"help": "As in [optimizer]."})

    def __post_init__(self) -> None:
        _within(1, MAX_COUNT, steps=self.steps)
        _check_rates(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Table `[validation]`: rows that are not trained on, whose loss is logged at intervals."""

    order: Path = field(metadata={"help": "An order of other documents; its first rows are taken."})
    every: int = field(default=1000, metadata={"help": "Steps between validations."})
    rows: int = field(default=64, metadata={"help": "Rows."})

    def __post_init__(self) -> None:
        _within(1, MAX_COUNT, every=self.every, rows=self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """Table `[deepspeed]`: what is divided among the processes. It changes only the rounding."""

    zero_stage: int = field(
        default=1,
        metadata={"help": "0: nothing; 1: optimizer; 2: gradients too; 3: weights too."},
    )
    offload_optimizer: bool = field(
        default=False, metadata={"help": "Master weights and moments in the CPU's memory."}
    )
    pipeline_stages: int = field(
        default=1, metadata={"help": "Groups of consecutive blocks, each in other processes."}
    )

    def __post_init__(self) -> None:
        _within(0, 3, zero_stage=self.zero_stage)
        _within(1, MAX_LAYERS, pipeline_stages=self.pipeline_stages)
        if self.offload_optimizer and self.zero_stage == 0:
            raise ConfigError("offload_optimizer needs zero_stage 1, 2 or 3")
        if self.pipeline_stages == 1:
            return
        if self.zero_stage != 1:
            raise ConfigError(f"pipeline_stages needs zero_stage 1, got {self.zero_stage}")
        if self.offload_optimizer:
            raise ConfigError("pipeline_stages needs offload_optimizer = false")

    def replicas(self, n_processes: int) -> int:
        """Copies of the model in `n_processes`. Raises ConfigError if that is no whole number."""
        n_replicas, rest = divmod(n_processes, self.pipeline_stages)
        if rest:
            stages = self.pipeline_stages
            raise ConfigError(
                f"pipeline_stages {stages} needs a multiple of {stages} processes, got {n_processes}"
            )
        return n_replicas


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchConfig:
    """Table `[branch]`: where a run starts instead of from random weights."""

    source: Path = field(metadata={"help": "A run, or a folder with a model's weights."})
    step: int = field(default=0, metadata={"help": "The step to start from, and the order's first."})
    fresh_moments: bool = field(
        default=False, metadata={"help": "Start from weights alone, with the optimizer's averages at zero."}
    )
    rewarm: int = field(
        default=0, metadata={"help": "Steps in which the learning rate rises from zero to the schedule's."}
    )

    def __post_init__(self) -> None:
        _within(0, MAX_COUNT, step=self.step, rewarm=self.rewarm)
        if self.fresh_moments != (self.rewarm > 0):
            # Averages of no gradient make the first updates large, whatever they start from.
            raise ConfigError("fresh_moments and rewarm are given together, rewarm from 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The whole TOML file. Paths are relative to the current directory."""

    order: Path = field(metadata={"help": "The training order's folder."})
    output: Path = field(metadata={"help": "Folder of the run: checkpoints, log, manifest."})
    model: ModelConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    tokenizer: Path | None = field(
        default=None, metadata={"help": "As of pile-tools tokenize; copied to checkpoints."}
    )
    steps: int | None = field(default=None, metadata={"help": "Updates. Default: the order's."})
    batch_size: int | None = field(default=None, metadata={"help": "Sequences a step. Default: the order's."})
    micro_batch_size: int | None = field(
        default=None, metadata={"help": "Sequences at once in a process. Default: as many as fit its memory."}
    )
    seed: int | None = field(
        default=None, metadata={"help": "Seed of the first weights. Default: the preset's, else 1234."}
    )
    checkpoint_every: int | None = field(
        default=None, metadata={"help": "Steps between checkpoints. Default: the preset's, else 100."}
    )
    precision: str = field(
        default="fp32", metadata={"help": "fp32; bf16 or, on a GPU, fp16, with fp32 master weights."}
    )
    validation: ValidationConfig | None = None
    stages: tuple[StageConfig, ...] = ()
    tensorboard: bool = field(default=False, metadata={"help": "Also write the log for TensorBoard."})
    activation_checkpointing: bool = field(
        default=False,
        metadata={"help": "Keep only the inputs of blocks, and compute the rest again: less memory."},
    )
    compile: bool = field(default=False, metadata={"help": "Compile the blocks by torch.compile."})
    deepspeed: Sharding = field(default_factory=Sharding)
    max_skipped_in_a_row: int = field(
        default=10, metadata={"help": "Steps in a row whose loss or gradient may be NaN or infinite."}
    )
    skip_steps: tuple[int, ...] = field(default=(), metadata={"help": "Steps not to train on."})
    branch: BranchConfig | None = field(default=None, metadata={"help": "See `pile-train branch`."})

    def __post_init__(self) -> None:
        _within(1, MAX_COUNT, max_skipped_in_a_row=self.max_skipped_in_a_row)
        for step in self.skip_steps:
            _within(0, MAX_COUNT, skip_steps=step)
        _within(1, MAX_COUNT, steps=self.steps, batch_size=self.batch_size)
        _within(1, MAX_COUNT, micro_batch_size=self.micro_batch_size, checkpoint_every=self.checkpoint_every)
        _within(0, (1 << 63) - 1, seed=self.seed)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.deepspeed.zero_stage == 0 and self.precision != "fp32":
            # Without ZeRO, DeepSpeed adds the gradients of micro-batches in the weights' precision.
            raise ConfigError(f"zero_stage 0 needs precision fp32, got {self.precision}; take zero_stage 1")
        if self.deepspeed.pipeline_stages > 1:
            self._check_pipeline()
        if self.stages and self.steps not in (None, self._stage_steps):
            raise ConfigError(f"the stages have {counted(self._stage_steps, 'step')}, steps = {self.steps}")

    @property
    def _stage_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def given_steps(self) -> int | None:
        """Updates as given, or those of its stages; None if neither says it."""
        return self.steps or self._stage_steps or None

    def _check_pipeline(self) -> None:
        """Raises ConfigError for what pipeline stages were not built or not tested with."""
        if self.model.attention_within_documents:
            raise ConfigError("pipeline_stages needs attention_within_documents = false")
        if self.precision == "fp16":
            raise ConfigError("pipeline_stages needs precision fp32 or bf16, got fp16")

    @property
    def checkpoint_interval(self) -> int:
        """Steps between checkpoints, besides `EARLY_CHECKPOINTS`: as given, the preset's, or 100."""
        published = self.model.published
        return _given(self.checkpoint_every, published.checkpoint_every if published else 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """The optimizer with every value known; see `OptimizerConfig`."""

    lr: float
    min_lr: float
    warmup: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    gradient_clipping: float
    schedule: str
    decay: float | None = None
    decay_shape: str | None = None

    def rate(self, step: int, n_steps: int) -> float:
        """The learning rate of a step, from 0."""
        return learning_rate(
            step,
            n_steps,
            lr=self.lr,
            min_lr=self.min_lr,
            warmup=self.warmup,
            schedule=self.schedule,
            decay=_given(self.decay, DECAY),
            decay_shape=_given(self.decay_shape, DECAY_SHAPE),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Some of the run's steps with every value known; see `StageConfig`."""

    steps: int
    optimizer: AdamW


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchPoint:
    """How a run starts from another; see `BranchConfig`."""

    step: int
    fresh_moments: bool
    rewarm: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What determines the weights of every step, given the order; no path and no machine is in it.

    `micro_batch_size` changes only the rounding.
    """

    steps: int
    batch_size: int
    micro_batch_size: int | None
    seed: int
    precision: str
    shape: ModelShape
    optimizer: AdamW
    stages: tuple[Stage, ...] = ()
    attention_within_documents: bool = False
    branch: BranchPoint | None = None

    @property
    def first_step(self) -> int:
        """The first step of the run: 0, or where it branches off."""
        return self.branch.step if self.branch else 0

    def rate(self, step: int) -> float:
        """The learning rate of a step: the schedule's, lower while a branch warms up again."""
        rate = self._scheduled(step)
        if self.branch is None or not self.branch.rewarm:
            return rate
        return rate * min(1.0, (step - self.branch.step + 1) / self.branch.rewarm)

    def _scheduled(self, step: int) -> float:
        """The rate by the schedule of the run, or of the step's stage."""
        first = 0
        for stage in self.stages:
            if step < first + stage.steps:
                return stage.optimizer.rate(step - first, stage.steps)
            first += stage.steps
        return self.optimizer.rate(step, self.steps)

    def settings(self) -> Settings:
        """The values as one flat table, names joined by dots, without those that change only the rounding."""
        flat: Settings = {}
        for name, value in settings(self).items():
            if name == "micro_batch_size" or (name == "branch" and value is None):
                continue
            group = value if isinstance(value, dict) else {"": value}
            flat |= {f"{name}.{key}".removesuffix("."): inner for key, inner in group.items()}
        return flat

    def split(self, n_processes: int, sharding: Sharding) -> tuple[int, int]:
        """Sequences of a micro-batch and micro-batches of a step, for each copy of the model.

        Args:
            n_processes: Processes of the run. Without pipeline stages each has a copy of the model.
            sharding: What is divided among them.

        Raises:
            ConfigError: The batch is not a whole number of micro-batches for every copy, or of fewer than
                the pipeline has stages.
        """
        n_replicas, n_stages = sharding.replicas(n_processes), sharding.pipeline_stages
        micro = self.micro_batch_size or self._default_micro_batch(n_replicas, n_stages)
        n_micro, rest = divmod(self.batch_size, micro * n_replicas)
        if rest or not n_micro:
            found = f"batch_size {self.batch_size}, micro_batch_size {micro}, processes {n_processes}"
            each = "" if n_stages == 1 else f", pipeline_stages {n_stages}"
            raise ConfigError(f"the batch is not a multiple of micro-batch times processes: {found}{each}")
        if n_micro < n_stages:
            found = f"batch_size {self.batch_size}, micro_batch_size {micro}, processes {n_processes}"
            raise ConfigError(f"pipeline_stages {n_stages} needs {n_stages} micro-batches at least: {found}")
        return micro, n_micro

    def _default_micro_batch(self, n_replicas: int, n_stages: int) -> int:
        """The whole share of a copy of the model; in a pipeline, an equal part of it.

        While the first micro-batch fills a pipeline and the last one leaves it, stages wait. With four
        micro-batches for each stage that is little (Huang et al. 2019, arXiv:1811.06965, section 2.3).
        """
        share = max(1, self.batch_size // n_replicas)
        if n_stages == 1:
            return share
        n_micro = next((n for n in range(min(4 * n_stages, share), share) if share % n == 0), share)
        return share // n_micro

    def is_checkpoint(self, step: int, every: int) -> bool:
        """Whether the weights after `step` updates are published."""
        return step in EARLY_CHECKPOINTS or step % every == 0 or step in (self.first_step, self.steps)


def recipe(config: TrainConfig, order: Order, n_known: int | None) -> Recipe:
    """The config with what order and preset say filled in; `n_known` tokens have a meaning, None: not known.

    Raises:
        ConfigError: Steps or batch size are nowhere given, or the order is too short for them.
    """
    published = config.model.published
    steps = config.given_steps or order.steps
    batch_size = config.batch_size or order.batch_size
    if published is not None:
        steps, batch_size = steps or published.steps, batch_size or published.batch_size
    _check_stages(config, order)
    if steps is None or batch_size is None:
        raise ConfigError(
            f"the order names no steps and batch size; give steps and batch_size ({order.name})"
        )
    if steps * batch_size > len(order.samples):
        found = f"{counted(steps, 'step')} of {batch_size} need {counted(steps * batch_size, 'sample')}"
        raise ConfigError(f"{found}, the order has {len(order.samples)} ({order.name})")
    return completed(config, steps, batch_size, order.seq_length, n_known)


def completed(
    config: TrainConfig, steps: int, batch_size: int, seq_length: int, n_known: int | None
) -> Recipe:
    """The config with these steps, and every default filled in that is not the order's.

    Raises:
        ConfigError: Values that do not fit each other.
    """
    published, branch = config.model.published, config.branch
    optimizer = _adamw(config.optimizer, published)
    if branch is not None and branch.step >= steps:
        raise ConfigError(f"branches off after step {branch.step}, and has {counted(steps, 'step')} in all")
    if branch is not None and (past := [step for step in config.skip_steps if step < branch.step]):
        what = f"skip_steps names step {past[0]}, which was trained on before the branch's first"
        raise ConfigError(f"{what}, {branch.step}; branch from an earlier one")
    shape = config.model.shape(seq_length, n_known)
    if (n_stages := config.deepspeed.pipeline_stages) > shape.n_layers:
        raise ConfigError(
            f"pipeline_stages {n_stages} needs {n_stages} blocks at least, got {shape.n_layers}"
        )
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=_given(config.seed, published.seed if published else 1234),
        precision=config.precision,
        shape=shape,
        optimizer=optimizer,
        stages=tuple(_stage(given, optimizer) for given in config.stages),
        attention_within_documents=config.model.attention_within_documents,
        branch=_branch_point(branch),
    )


def _check_stages(config: TrainConfig, order: Order) -> None:
    """Raises ConfigError unless stages have the steps of those of the order."""
    if order.manifest is None or not order.manifest.checked_settings.has("stages"):
        return
    given = [stage.steps for stage in config.stages]
    of_order = [stage.integer("steps") for stage in order.manifest.checked_settings.objects("stages")]
    if given and given != of_order:
        raise ConfigError(f"stages of {given} steps, those of the order have {of_order} ({order.name})")


def _stage(given: StageConfig, optimizer: AdamW) -> Stage:
    """A stage, its defaults from the optimizer. Raises ConfigError for a lowest rate above the highest."""
    schedule = _given(given.schedule, optimizer.schedule)
    has_decay = schedule == "wsd"
    lr = _given(given.lr, optimizer.lr)
    rates = _rates(lr, given.min_lr)
    decay = _given(given.decay, _given(optimizer.decay, DECAY)) if has_decay else None
    shape = _given(given.decay_shape, _given(optimizer.decay_shape, DECAY_SHAPE)) if has_decay else None
    if decay is not None and decay > 1 - given.warmup:
        raise ConfigError(f"a stage's decay must be at most 1 - warmup, got {decay} and {given.warmup}")
    of_stage = replace(
        optimizer, lr=rates[0], min_lr=rates[1], warmup=given.warmup, schedule=schedule, decay=decay
    )
    return Stage(steps=given.steps, optimizer=replace(of_stage, decay_shape=shape))


def _rates(lr: float, min_lr: float | None) -> tuple[float, float]:
    """The highest and the lowest rate. Raises ConfigError if they are the other way round."""
    lowest = _given(min_lr, lr / 10)
    if lowest > lr:
        raise ConfigError(f"min_lr must be at most lr, {lr}, got {lowest}")
    return lr, lowest


def _branch_point(branch: BranchConfig | None) -> BranchPoint | None:
    if branch is None:
        return None
    return BranchPoint(step=branch.step, fresh_moments=branch.fresh_moments, rewarm=branch.rewarm)


def _given(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value


def _adamw(given: OptimizerConfig, preset: Preset | None) -> AdamW:
    """The optimizer, its defaults from a preset. Raises ConfigError for a lowest rate above the highest."""
    lr, min_lr = _rates(_given(given.lr, preset.lr if preset else 1e-3), given.min_lr)
    schedule = _given(given.schedule, preset.schedule if preset else "neox")
    return AdamW(
        lr=lr,
        min_lr=min_lr,
        warmup=given.warmup,
        betas=(given.betas[0], given.betas[1]),
        eps=given.eps,
        weight_decay=_given(given.weight_decay, preset.weight_decay if preset else 0.1),
        gradient_clipping=given.gradient_clipping,
        schedule=schedule,
        decay=_given(given.decay, DECAY) if schedule == "wsd" else None,
        decay_shape=_given(given.decay_shape, DECAY_SHAPE) if schedule == "wsd" else None,
    )


def differences(recipe: Recipe, preset: Preset, config: TrainConfig, order: Order) -> list[str]:
    """Lists what differs between a run and the published recipe of its preset, one line each.

    What the documents of the order are is not known here.

    Args:
        recipe: The run's.
        preset: The published one.
        config: What the recipe was made from.
        order: The run's order; the seed of rows is not known.
    """
    shape, optimizer, branch = recipe.shape, recipe.optimizer, recipe.branch
    about = order.manifest.settings if order.manifest else {"rule": PUBLISHED_RULE}
    pairs = {
        "steps": (recipe.steps, preset.steps),
        "batch_size": (recipe.batch_size, preset.batch_size),
        "seq_length": (shape.max_positions, preset.seq_length),
        "vocab_size": (shape.vocab_size, preset.vocab_size),
        "seed": (recipe.seed, preset.seed),
        "seed of the order": (_given(order.seed, preset.seed), preset.seed),
        "rule of the order": (about["rule"], PUBLISHED_RULE),
        "datasets of the order": (len(about.get("weights") or (1.0,)), 1),
        "checkpoint_every": (config.checkpoint_interval, preset.checkpoint_every),
    }
    for part, names in ((shape, _SHAPE_FIELDS), (optimizer, _OPTIMIZER_FIELDS)):
        pairs |= {name: (getattr(part, name), getattr(preset, name)) for name in names}
    pairs |= {
        "decay": (optimizer.decay, None),
        "decay_shape": (optimizer.decay_shape, None),
        "stages": (", ".join(map(_described, recipe.stages)) or None, None),
        "attention_within_documents": (recipe.attention_within_documents, False),
        "skip_steps": (", ".join(map(str, config.skip_steps)) or None, None),
        "fresh_moments": (branch is not None and branch.fresh_moments, False),
        "rewarm": (branch.rewarm if branch else 0, 0),
    }
    lines = [
        f"{name}: {found}, published {_given(known, 'none')}"
        for name, (found, known) in pairs.items()
        if found != known
    ]
    if recipe.precision != preset.precision:
        lines.append(f"precision: {recipe.precision}, published {preset.precision} with dynamic loss scaling")
    weights = "same distributions, other random numbers"
    if config.branch is not None:
        weights = f"those of step {config.branch.step} of {config.branch.source}"
    return [*lines, f"first weights: {weights}"]


def _described(stage: Stage) -> str:
    """A stage in a line: its steps, and what its learning rate has of its own."""
    values = {name: getattr(stage.optimizer, name) for name in _STAGE_FIELDS}
    rates = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return f"{counted(stage.steps, 'step')} ({rates})"
