from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from pile_tools import manifest
from pile_tools.config import from_toml
from pile_tools.errors import ConfigError
from pile_tools.jobs import merge
from pile_tools.jobs.order import Blend, OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.stages import Stage as Stages
from pile_tools.jobs.stages import run as join_stages
from pile_tools.manifest import Request
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions
from pile_tools.order.open import open_order
from pile_tools.order.order import Order
from trainer.config import (
    AdamW,
    BranchConfig,
    BranchPoint,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    Sharding,
    Stage,
    StageConfig,
    TrainConfig,
    ValidationConfig,
    differences,
    recipe,
)
from trainer.presets import PRESETS, Preset
from trainer.run import plan
from trainer.schedule import learning_rate
from trainer.shape import ModelShape

MODEL = ModelConfig(hidden_size=32, n_layers=2, n_heads=4)


def read(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return from_toml(TrainConfig, path)


BASE = 'order = "o"\noutput = "r"\n'
TABLE = "[model]\nhidden_size = 32\nn_layers = 2\nn_heads = 4\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE, "missing key 'model'"),
        (BASE + TABLE + "width = 3\n", "unknown key 'width'"),
        (BASE + "[model]\nn_layers = 2\n", "give preset, or all of"),
        (BASE + TABLE + 'preset = "pythia-14m"\n', "give either preset or"),
        (BASE + '[model]\npreset = "pythia-15m"\n', "no preset 'pythia-15m'"),
        (BASE + "steps = 0\n" + TABLE, "steps must be from 1 to"),
        (BASE + 'precision = "fp8"\n' + TABLE, "precision 'fp8'"),
        (BASE + TABLE + "[optimizer]\nlr = -1.0\n", "lr must be from 0 to .*, got -1.0"),
        (BASE + TABLE + "[optimizer]\nlr = nan\n", "expected a finite number, got nan .*lr"),
        (BASE + TABLE + "[optimizer]\nwarmup = 1.0\n", "warmup must be < 1"),
        (BASE + TABLE + "[optimizer]\nbetas = [0.9]\n", "betas must be two numbers"),
        (
            BASE + TABLE + '[optimizer]\nschedule = "cosine"\n',
            "schedule 'cosine' is not one of neox, neox_v1, linear, constant, wsd",
        ),
        (BASE + TABLE + "[deepspeed]\npipeline_stages = 0\n", "pipeline_stages must be from 1 to 16384"),
        *(
            (
                BASE + TABLE + f"[deepspeed]\npipeline_stages = 2\nzero_stage = {stage}\n",
                f"pipeline_stages needs zero_stage 1, got {stage}",
            )
            for stage in (0, 2, 3)
        ),
        (
            BASE + TABLE + "[deepspeed]\npipeline_stages = 2\noffload_optimizer = true\n",
            "pipeline_stages needs offload_optimizer = false",
        ),
        (
            BASE + TABLE + "attention_within_documents = true\n[deepspeed]\npipeline_stages = 2\n",
            "pipeline_stages needs attention_within_documents = false",
        ),
        (
            BASE + 'precision = "fp16"\n' + TABLE + "[deepspeed]\npipeline_stages = 2\n",
            "pipeline_stages needs precision fp32 or bf16, got fp16",
        ),
        (BASE + TABLE + "[optimizer]\ndecay = 0.2\n", 'decay and decay_shape are of schedule = "wsd" alone'),
        (
            BASE + TABLE + '[optimizer]\nschedule = "wsd"\nwarmup = 0.5\ndecay = 0.6\n',
            "decay must be above 0 and at most 1 - warmup, got 0.6",
        ),
        (
            BASE + TABLE + '[optimizer]\nschedule = "wsd"\ndecay = 0.0\n',
            "decay must be above 0 and at most 1 - warmup, got 0.0",
        ),
        (
            BASE + TABLE + '[optimizer]\nschedule = "wsd"\nwarmup = 0.95\n',
            "warmup must be at most 0.9 with the default decay, 0.1",
        ),
        (
            BASE + TABLE + '[optimizer]\nschedule = "wsd"\ndecay_shape = "root"\n',
            "decay_shape 'root' is not one of linear, sqrt, cosine, exponential",
        ),
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        read(tmp_path, text)


#: Values of TOML that are out of range or of another type for most keys.
STRANGE = [
    *("nan", "inf", "-inf", "-1", "-1.0", "1e308", "1e-320", "9223372036854775808"),
    *("1" + "0" * 400, '""', '"x\\u0000y"', "true", "[]", "{}", "[nan, nan]", "1979-05-27"),
]
KEYS = {
    "": [field.name for field in dataclasses.fields(TrainConfig) if field.name not in ("model", "optimizer")],
    "model": [field.name for field in dataclasses.fields(ModelConfig)],
    "optimizer": [field.name for field in dataclasses.fields(OptimizerConfig)],
}


@pytest.mark.parametrize(("table", "key"), [(table, key) for table, keys in KEYS.items() for key in keys])
def test_every_key_has_a_range_and_a_type(tmp_path: Path, table: str, key: str) -> None:
    n_refused = 0
    for value in STRANGE:
        tables: dict[str, dict[str, str]] = {
            "": {"order": '"o"', "output": '"r"'},
            "model": {"hidden_size": "32", "n_layers": "2", "n_heads": "4"},
            "optimizer": {"lr": "0.01"},
        }
        tables[table][key] = value
        text = "".join(
            (f"[{name}]\n" if name else "") + "".join(f"{k} = {v}\n" for k, v in values.items())
            for name, values in tables.items()
        )
        try:
            read(tmp_path, text).model.shape(32, 400)
        except ConfigError:
            n_refused += 1
    assert n_refused >= 8


@pytest.mark.parametrize("value", ["1" + "0" * 5000, "[" * 3000, '"\\ud800"', "{a = " * 2000])
def test_what_the_parser_cannot_read_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="not a TOML file"):
        read(tmp_path, BASE + f"steps = {value}\n" + TABLE)


@pytest.mark.parametrize("key", ["lr", "min_lr", "warmup", "eps", "weight_decay", "gradient_clipping"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1e-9"])
def test_no_number_of_the_optimizer_is_endless_or_negative(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be from 0 to|finite number.*{key}"):
        read(tmp_path, BASE + TABLE + f"[optimizer]\n{key} = {value}\n")


@pytest.mark.parametrize(("lr", "min_lr"), [(None, 2e-3), (1e-4, 1e-3), (0.0, 1e-9), (1.0, 3e38)])
def test_the_lowest_rate_is_not_above_the_highest(order: Path, lr: float | None, min_lr: float) -> None:
    optimizer = OptimizerConfig(lr=lr, min_lr=min_lr)
    config = TrainConfig(order=order, output=Path("r"), model=MODEL, optimizer=optimizer)
    with pytest.raises(ConfigError, match="min_lr must be at most lr"):
        recipe(config, open_order(order), 400)


@pytest.mark.parametrize("key", ["hidden_act", "init"])
@pytest.mark.parametrize("size", [{"hidden_size": 32, "n_layers": 2, "n_heads": 4}, {"preset": "pythia-14m"}])
def test_an_empty_name_is_not_the_default(key: str, size: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{key} '' is not one of"):
        ModelConfig(**size, **{key: ""}).shape(32, 400)


def test_the_order_gives_steps_and_batch_size(order: Path) -> None:
    config = TrainConfig(order=order, output=Path("r"), model=MODEL)
    found = recipe(config, open_order(order), 400)
    assert (found.steps, found.batch_size) == (40, 8)
    assert (found.optimizer.lr, found.optimizer.min_lr, found.optimizer.weight_decay) == (1e-3, 1e-4, 0.1)


def test_an_order_too_short_is_refused(order: Path) -> None:
    config = TrainConfig(order=order, output=Path("r"), model=MODEL, steps=10**6)
    with pytest.raises(ConfigError, match="1,000,000 steps of 8 need 8,000,000 samples"):
        recipe(config, open_order(order), 400)


def test_the_vocabulary_is_padded() -> None:
    assert MODEL.shape(32, 400).vocab_size == 512
    assert ModelConfig(preset="pythia-70m").shape(2048, 50277).vocab_size == 50304
    assert ModelConfig(preset="pythia-6.9b").shape(2048, 50277).vocab_size == 50432
    assert ModelConfig(preset="pythia-12b").shape(2048, 50277).vocab_size == 50688


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused() -> None:
    config = ModelConfig(hidden_size=32, n_layers=2, n_heads=4, vocab_size=300)
    with pytest.raises(ConfigError, match=r"vocab_size must be from 400 to .*, got 300"):
        config.shape(32, 400)


def test_an_unknown_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="size is not known"):
        MODEL.shape(32, None)


def test_micro_batches_fill_the_batch(order: Path) -> None:
    opened = open_order(order)
    whole = recipe(TrainConfig(order=order, output=Path("r"), model=MODEL), opened, 400)
    plain = Sharding()
    assert whole.split(1, plain) == (8, 1)
    assert whole.split(4, plain) == (2, 1)
    parts = recipe(TrainConfig(order=order, output=Path("r"), model=MODEL, micro_batch_size=2), opened, 400)
    assert parts.split(2, plain) == (2, 2)
    for n_ranks in (3, 16):
        with pytest.raises(ConfigError, match=f"processes {n_ranks}"):
            whole.split(n_ranks, plain)


def test_micro_batches_fill_a_pipeline(order: Path) -> None:
    opened, two = open_order(order), Sharding(pipeline_stages=2)

    def split(n: int, batch_size: int, micro_batch_size: int | None = None) -> tuple[int, int]:
        given = {"batch_size": batch_size, "micro_batch_size": micro_batch_size, "steps": 1}
        config = TrainConfig(order=order, output=Path("r"), model=MODEL, deepspeed=two, **given)  # type: ignore[arg-type]
        return recipe(config, opened, 400).split(n, two)

    assert split(2, 8) == (1, 8)
    assert split(2, 96) == (12, 8)
    assert split(2, 10) == (1, 10)
    assert split(6, 96) == (4, 8)
    assert split(2, 96, 48) == (48, 2)
    for values, message in (
        ((3, 8), "pipeline_stages 2 needs a multiple of 2 processes, got 3"),
        ((4, 8, 4), "pipeline_stages 2 needs 2 micro-batches at least: batch_size 8, micro_batch_size 4"),
        ((4, 9), "not a multiple of micro-batch times processes: .*, pipeline_stages 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            split(*values)


def test_a_pipeline_has_no_more_stages_than_blocks(order: Path) -> None:
    config = TrainConfig(order=order, output=Path("r"), model=MODEL, deepspeed=Sharding(pipeline_stages=3))
    with pytest.raises(ConfigError, match="pipeline_stages 3 needs 3 blocks at least, got 2"):
        recipe(config, open_order(order), 400)


def test_checkpoints_are_pythias_and_regular_and_the_last(order: Path) -> None:
    found = recipe(TrainConfig(order=order, output=Path("r"), model=MODEL), open_order(order), 400)
    assert [s for s in range(41) if found.is_checkpoint(s, 15)] == [0, 1, 2, 4, 8, 15, 16, 30, 32, 40]


def test_a_preset_gives_rate_and_decay(order: Path) -> None:
    config = TrainConfig(order=order, output=Path("r"), model=ModelConfig(preset="gpt-neox-20b"))
    found = recipe(config, open_order(order), 400).optimizer
    assert (found.lr, found.weight_decay) == (0.97e-4, 0.01)
    given = TrainConfig(
        order=order,
        output=Path("r"),
        model=ModelConfig(preset="gpt-neox-20b"),
        optimizer=OptimizerConfig(lr=0.5, min_lr=0.1, weight_decay=0.0),
    )
    chosen = recipe(given, open_order(order), 400).optimizer
    assert (chosen.lr, chosen.min_lr, chosen.weight_decay) == (0.5, 0.1, 0.0)


def test_settings_are_flat(order: Path) -> None:
    found = recipe(TrainConfig(order=order, output=Path("r"), model=MODEL), open_order(order), 400)
    settings = found.settings()
    assert settings["shape.hidden_size"] == 32
    assert settings["optimizer.betas"] == [0.9, 0.95]
    assert not any(isinstance(value, dict) for value in settings.values())


def published(name: str, order: Path) -> tuple[Recipe, Preset, TrainConfig, Order]:
    """What a config with nothing but a preset gives on an order of the published size."""
    config = TrainConfig(order=order, output=Path("r"), model=ModelConfig(preset=name))
    preset, opened = PRESETS[name], dataclasses.replace(open_order(order), seed=PRESETS[name].seed)
    found = recipe(config, opened, 50277)
    shape = dataclasses.replace(found.shape, max_positions=preset.seq_length)
    sizes = {"steps": preset.steps, "batch_size": preset.batch_size}
    return dataclasses.replace(found, **sizes, shape=shape), preset, config, opened


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_published_recipe_but_for_what_no_key_can_give(name: str, order: Path) -> None:
    found, *others = published(name, order)
    assert (found.optimizer.schedule, found.shape.hidden_act) == ("neox_v1", "gelu_pytorch_tanh")
    assert [line.split(":")[0] for line in differences(found, *others)] == ["precision", "first weights"]


ADAMW = AdamW(
    **{"lr": 0.5, "min_lr": 0.25, "warmup": 0.5, "betas": (0.0, 0.0), "eps": 1.0, "weight_decay": 0.5},
    **{"gradient_clipping": 2.0, "schedule": "wsd", "decay": 0.25, "decay_shape": "sqrt"},
)

#: Other values of everything that determines the weights.
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "optimizer": {field.name: getattr(ADAMW, field.name) for field in dataclasses.fields(AdamW)},
    "shape": {
        **{"rotary_pct": 1.0, "rotary_base": 5.0, "layer_norm_eps": 1.0, "parallel_residual": False},
        **{"hidden_act": "gelu", "init": "normal_scaled", "vocab_size": 128},
    },
    "recipe": {
        **{"steps": 3, "batch_size": 5, "seed": 7, "attention_within_documents": True, "precision": "bf16"},
        "stages": (Stage(steps=7, optimizer=ADAMW),),
        "branch": BranchPoint(step=3, fresh_moments=True, rewarm=9),
    },
    "config": {"skip_steps": (4, 7), "checkpoint_every": 7},
}
#: What has a name of its own in the lines.
NAMES = {"branch": "fresh_moments"}
#: Fields that change no weights, or that others above are made from.
WITHOUT = {
    "optimizer": set(),
    "shape": {"hidden_size", "n_layers", "n_heads", "max_positions"},
    "recipe": {"micro_batch_size", "shape", "optimizer"},
    "config": {
        *("order", "output", "model", "optimizer", "tokenizer", "steps", "batch_size", "seed", "precision"),
        *("micro_batch_size", "validation", "stages", "tensorboard", "activation_checkpointing", "compile"),
        *("deepspeed", "max_skipped_in_a_row", "branch"),
    },
}


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part in OTHER_VALUES for name in OTHER_VALUES[part]]
)
def test_every_setting_is_compared_with_the_published_one(part: str, name: str, order: Path) -> None:
    found, preset, config, opened = published("pythia-14m", order)
    change = {name: OTHER_VALUES[part][name]}
    if part == "config":
        config = dataclasses.replace(config, **change)
    elif part == "recipe":
        found = dataclasses.replace(found, **change)
    else:
        found = dataclasses.replace(found, **{part: dataclasses.replace(getattr(found, part), **change)})
    lines = differences(found, preset, config, opened)
    assert any(line.startswith(f"{NAMES.get(name, name)}: ") for line in lines), lines


def test_no_setting_is_left_out_of_the_comparison() -> None:
    for part, kind in (
        ("optimizer", AdamW),
        ("shape", ModelShape),
        ("recipe", Recipe),
        ("config", TrainConfig),
    ):
        fields = {field.name for field in dataclasses.fields(kind)}
        assert fields == set(OTHER_VALUES[part]) | WITHOUT[part], part


def test_an_order_that_none_was_trained_on_is_said(order: Path, dataset: Path, tmp_path: Path) -> None:
    """Of another rule, of several datasets, of stages, with interventions; and where a branch starts."""
    found, preset, config, opened = published("pythia-14m", order)
    sizes = OrderConfig(seq_length=32, steps=2, batch_size=4)
    megatron = dataclasses.replace(sizes, packing="megatron")
    build_order(dataset, tmp_path / "megatron-lm", megatron)
    build_order(dataset, tmp_path / "gpt-neox unpacked", dataclasses.replace(sizes, packing="unpacked"))
    build_order(Blend((dataset, dataset), (1.0, 1.0)), tmp_path / "blend", sizes)
    join_stages([Stages(order, 3), Stages(order, 2)], tmp_path / "stages")
    save_interventions(insert_tokens(opened, [Insert(0, 1, 2, (5, 6))]), tmp_path / "view")
    for path in tmp_path.iterdir():
        lines = differences(found, preset, config, open_order(path))
        rule = f"rule of the order: {path.name}, published gpt-neox packed"
        expected = "datasets of the order: 2, published 1" if path.name == "blend" else rule
        assert expected in lines, lines
    branch = BranchConfig(source=Path("r"), step=3)
    lines = differences(found, preset, dataclasses.replace(config, branch=branch), opened)
    assert lines[-1] == "first weights: those of step 3 of r"


def test_what_differs_from_the_published_recipe_is_said(order: Path) -> None:
    config = TrainConfig(
        order=order,
        output=Path("r"),
        model=ModelConfig(preset="pythia-14m", hidden_act="gelu"),
        optimizer=OptimizerConfig(schedule="neox"),
        precision="bf16",
        checkpoint_every=100,
        stages=(StageConfig(steps=30), StageConfig(steps=10, lr=1e-4, schedule="wsd")),
        skip_steps=(5, 6),
    )
    opened = dataclasses.replace(open_order(order), seed=7)
    assert differences(recipe(config, opened, 400), PRESETS["pythia-14m"], config, opened) == [
        "steps: 40, published 143000",
        "batch_size: 8, published 1024",
        "seq_length: 32, published 2048",
        "vocab_size: 512, published 50304",
        "seed of the order: 7, published 1234",
        "checkpoint_every: 100, published 1000",
        "hidden_act: gelu, published gelu_pytorch_tanh",
        "schedule: neox, published neox_v1",
        "stages: 30 steps (lr 0.001, min_lr 0.0001, warmup 0.0, schedule neox), "
        "10 steps (lr 0.0001, min_lr 1e-05, warmup 0.0, schedule wsd, decay 0.1, decay_shape linear), "
        "published none",
        "skip_steps: 5, 6, published none",
        "precision: bf16, published fp16 with dynamic loss scaling",
        "first weights: same distributions, other random numbers",
    ]


@pytest.mark.parametrize("which", ["order", "interventions", "validation"])
def test_an_order_with_labels_is_refused(order: Path, dataset: Path, tmp_path: Path, which: str) -> None:
    """They mask tokens, and the loss is of all tokens."""
    labelled = tmp_path / "labelled"
    build_order(dataset, labelled, OrderConfig(seq_length=32, steps=2, batch_size=4), labels=dataset)
    if which == "interventions":
        save_interventions(insert_tokens(open_order(labelled), [Insert(0, 1, 2, (5, 6))]), tmp_path / "view")
        labelled = tmp_path / "view"
    config = TrainConfig(order=labelled, output=tmp_path / "r", model=MODEL)
    if which == "validation":
        validation = ValidationConfig(order=labelled, rows=1)
        config = dataclasses.replace(config, order=order, validation=validation)
    with pytest.raises(ConfigError, match="the order has labels"):
        plan(config)


def other_tokenizer(dataset: Path) -> None:
    """Changes the manifest of a dataset as if it had been made with another tokenizer."""
    found = manifest.read(dataset.parent / f"{dataset.name}.manifest.json")
    inputs = [{**e, "sha256": "0" * 64} if e["role"] == "tokenizer" else e for e in found.inputs]
    manifest.write(found.path, Request("tokens", found.settings, inputs), found.outputs, found.summary)


@pytest.mark.parametrize("which", ["first", "second"])
@pytest.mark.parametrize("is_given", [True, False])
def test_all_datasets_have_one_tokenizer_the_given_one(
    dataset: Path, tokenizer: Path, tmp_path: Path, which: str, is_given: bool
) -> None:
    for path in dataset.parent.glob(dataset.name + ".*"):
        shutil.copy(path, tmp_path / path.name.replace(dataset.name, "other"))
    pair = (tmp_path / "other", dataset) if which == "first" else (dataset, tmp_path / "other")
    sizes = OrderConfig(seq_length=32, steps=2, batch_size=4)
    build_order(Blend(pair, (1.0, 1.0)), tmp_path / "o", sizes)
    config = TrainConfig(
        order=tmp_path / "o", output=tmp_path / "r", model=MODEL, tokenizer=tokenizer if is_given else None
    )
    assert plan(config).recipe.shape.vocab_size == 384
    other_tokenizer(tmp_path / "other")
    name = "other" if is_given or which == "second" else dataset.name
    with pytest.raises(ConfigError, match=f"made with another tokenizer.*{name}.manifest.json"):
        plan(config)


def test_a_dataset_whose_tokenizer_is_not_known_takes_any(
    dataset: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """As one merged from datasets of another tool: its manifest names none."""
    for suffix in (".bin", ".idx"):
        shutil.copy(dataset.parent / f"{dataset.name}{suffix}", tmp_path / f"foreign{suffix}")
    merge.run([tmp_path / "foreign"] * 2, tmp_path / "both")
    build_order(tmp_path / "both", tmp_path / "o", OrderConfig(seq_length=32, steps=2, batch_size=4))
    config = TrainConfig(order=tmp_path / "o", output=tmp_path / "r", model=MODEL, tokenizer=tokenizer)
    assert plan(config).tokenizer is not None


def test_runs_without_a_preset_keep_their_formula_and_activation(order: Path) -> None:
    found = recipe(TrainConfig(order=order, output=Path("r"), model=MODEL), open_order(order), 400)
    assert (found.optimizer.schedule, found.shape.hidden_act) == ("neox", "gelu")
    settings = found.settings()
    assert (settings["optimizer.schedule"], settings["shape.hidden_act"]) == ("neox", "gelu")


STAGED = """
[[stages]]
steps = 30
warmup = 0.1
[[stages]]
steps = 10
schedule = "linear"
min_lr = 0.0
"""


def test_each_stage_has_its_own_schedule(order: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(BASE + TABLE + "[optimizer]\nlr = 0.5\n" + STAGED)
    config = dataclasses.replace(from_toml(TrainConfig, tmp_path / "c.toml"), order=order)
    found = recipe(config, open_order(order), 400)
    assert found.steps == 40
    first = [learning_rate(s, 30, lr=0.5, min_lr=0.05, warmup=0.1) for s in range(30)]
    assert [found.rate(step) for step in range(30)] == first
    assert [found.rate(step) for step in range(30, 40)] == pytest.approx([0.05 * n for n in range(10, 0, -1)])
    assert [stage["steps"] for stage in found.settings()["stages"]] == [30, 10]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("steps = 41\n" + STAGED, "steps = 41"),
        (STAGED.replace("30", "0"), "steps must be from 1"),
        (STAGED.replace("min_lr = 0.0", "min_lr = 0.2"), "min_lr must be at most lr, 0.001, got 0.2"),
        (STAGED.replace("min_lr", "decay"), "decay and decay_shape are of"),
        (STAGED.replace('"linear"', '"wsd"\nwarmup = 0.95'), "warmup must be at most"),
    ],
)
def test_stages_that_cannot_be_are_refused(order: Path, tmp_path: Path, changed: str, message: str) -> None:
    is_top = changed.startswith("steps")
    text = changed.split("\n", 1)[0] + "\n" + BASE + TABLE + STAGED if is_top else BASE + TABLE + changed
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        recipe(from_toml(TrainConfig, tmp_path / "c.toml"), open_order(order), 400)
