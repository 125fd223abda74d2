from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pile_tools.commands import order
from pile_tools.config import from_toml, from_values
from pile_tools.errors import ConfigError, FormatError
from trainer.config import TrainConfig
from trainer.neox.keys import FIXED, IGNORED, TRANSLATED
from trainer.neox.translate import model_shape, nested, to_toml, translate
from trainer.presets import PRESETS, Preset


def pythia(preset: Preset, model_parallel: int = 1, **more: Any) -> dict[str, Any]:
    """The configuration of a published model, in the form of Pythia's files."""
    small = preset.init == "small_wang"
    values: dict[str, Any] = {
        "pipe_parallel_size": 1,
        "model_parallel_size": model_parallel,
        "num_layers": preset.n_layers,
        "hidden_size": preset.hidden_size,
        "num_attention_heads": preset.n_heads,
        "seq_length": 2048,
        "max_position_embeddings": 2048,
        "pos_emb": "rotary",
        "rotary_pct": 0.25,
        "no_weight_tying": True,
        "gpt_j_residual": True,
        "attention_config": [[["flash"], preset.n_layers]],
        "bias_gelu_fusion": True,
        **({"init_method": "small_init", "output_layer_init_method": "wang_init"} if small else {}),
        "optimizer": {
            "type": "Adam",
            "params": {"lr": preset.lr, "betas": list(preset.betas), "eps": preset.eps},
        },
        "min_lr": preset.min_lr,
        "zero_optimization": {"stage": 1, "cpu_offload": False},
        "train_micro_batch_size_per_gpu": 32,
        "gas": 1,
        "gradient_clipping": 1.0,
        "weight_decay": preset.weight_decay,
        "hidden_dropout": 0,
        "attention_dropout": 0,
        "fp16": {"fp16": True, "enabled": True, "loss_scale": 0},
        "train_iters": preset.steps,
        "lr_decay_iters": preset.steps,
        "lr_decay_style": "cosine",
        "warmup": 0.01,
        "checkpoint_factor": 1000,
        "extra_save_iters": [0, 1, 2, 4],
        "train_data_paths": ["/data/pile"],
        "vocab_file": "/data/20B_tokenizer.json",
        "launcher": "slurm",
    }
    return values | more


SMALL = pythia(PRESETS["pythia-70m"])


@pytest.mark.parametrize("name", [name for name in PRESETS if "-seed" not in name])
def test_a_published_recipe_is_that_of_its_preset(name: str) -> None:
    preset = PRESETS[name]
    n_ranks = preset.vocab_multiple // 128
    n_gpus = preset.batch_size // 32 * n_ranks
    made = translate(pythia(preset, n_ranks), n_gpus=n_gpus, n_known=50277)
    model, optimizer, top = made.toml["model"], made.toml["optimizer"], made.toml[""]
    assert model.pop("vocab_size", preset.vocab_size) == preset.vocab_size
    for values in (model, optimizer):
        for key, value in values.items():
            known = getattr(preset, key)
            assert value == (list(known) if isinstance(known, tuple) else known), key
    assert (top["steps"], top["batch_size"], top["checkpoint_every"]) == (
        preset.steps,
        preset.batch_size,
        1000,
    )


def test_the_toml_loads_and_names_the_order(tmp_path: Path) -> None:
    made = translate(pythia(PRESETS["pythia-70m"], save='a "b" \\ \t\x7f ü'), n_gpus=32)
    text = to_toml(made, [Path("a\nb.yml")])
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    config = from_toml(TrainConfig, path)
    assert str(config.output) == 'a "b" \\ \t\x7f ü'
    assert (config.batch_size, config.seed, str(config.tokenizer)) == (1024, 1234, "/data/20B_tokenizer.json")
    assert config.optimizer.eps == 1e-8
    assert text.splitlines()[:2] == [
        "# Translated from a?b.yml.",
        "# The order: pile-tools order /data/pile -o order --seq-length 2048 --steps 143000 "
        "--batch-size 1024 --seed 1234",
    ]


@pytest.mark.parametrize(
    ("changes", "datasets", "options"),
    [
        ({"train_data_paths": ["/a b", "c"]}, "'/a b' c", "--weights 1.0,1.0"),
        ({"train_data_paths": ["a", "b"], "train_data_weights": [2, "1e-1"]}, "a b", "--weights 2,0.1"),
        (
            {
                **{"train_data_paths": ["a", "b"], "train_data_weights": [2, 1]},
                **{"weight_by_num_documents": True, "weighted_sampler_alpha": 1},
            },
            "a b",
            "--alpha 1",
        ),
        ({"train_data_paths": None, "data_path": "a"}, "a", "--split 969,30,1"),
        ({"train_data_paths": None, "data_path": "a", "split": "95/5"}, "a", "--split 95/5"),
        ({"pack_impl": "unpacked", "allow_chopped": False}, "/data/pile", "--packing unpacked --no-chop"),
        ({"allow_chopped": False, "split": "1"}, "/data/pile", ""),
    ],
)
def test_the_order_is_that_of_the_configuration(
    changes: dict[str, Any], datasets: str, options: str, tmp_path: Path
) -> None:
    made = translate({**SMALL, **changes}, n_gpus=32)
    line = to_toml(made, [Path("a.yml")]).splitlines()[1]
    start = f"# The order: pile-tools order {datasets} -o order --seq-length 2048 --steps 143000 "
    assert line == f"{start}--batch-size 1024 --seed 1234 {options}".rstrip()
    # The command takes the options: only the datasets are missing.
    given = [
        *(str(tmp_path / name) for name in made.datasets),
        "-o",
        str(tmp_path / "o"),
        *made.order_options,
    ]
    assert isinstance(CliRunner().invoke(order.command, given).exception, FileNotFoundError)


def test_every_key_is_in_the_report_once() -> None:
    made = translate({**SMALL, "no_such_key": 1})
    listed = [entry.key for entry in (*made.translated, *made.ignored, *made.unknown)]
    assert sorted(listed) == sorted({**SMALL, "no_such_key": 1})
    assert [entry.key for entry in made.unknown] == ["no_such_key"]
    assert {entry.key: entry.what for entry in made.ignored}["launcher"].startswith("for the launcher")


def test_the_tables_know_every_key_once() -> None:
    tables = [set(TRANSLATED), set(FIXED), set(IGNORED)]
    assert sum(map(len, tables)) == len(set.union(*tables)) > 270
    assert all(IGNORED.values())


def test_without_gpus_the_batch_is_the_orders() -> None:
    made = translate(SMALL)
    assert "batch_size" not in made.toml[""]
    assert any("the batch is not known" in line for line in made.notes)
    assert translate({**SMALL, "train_batch_size": 7}).toml[""]["batch_size"] == 7


def test_missing_keys_have_the_defaults_of_gpt_neox() -> None:
    bare = {
        key: SMALL[key]
        for key in (
            *("num_layers", "hidden_size", "num_attention_heads", "pos_emb", "no_weight_tying", "optimizer"),
            *("hidden_dropout", "attention_dropout", "weight_decay", "gradient_clipping", "train_iters"),
            "lr_decay_style",
        )
    }
    bare["optimizer"] = {"params": {"lr": "1e-3"}}
    made = translate(bare).toml
    assert made["model"] == {
        **{"hidden_size": 512, "n_layers": 6, "n_heads": 8, "rotary_pct": 1.0, "rotary_base": 10000},
        **{"layer_norm_eps": 1e-5, "parallel_residual": False, "hidden_act": "gelu", "init": "normal_scaled"},
    }
    assert made["optimizer"]["betas"] == [0.9, 0.999]
    assert (made["optimizer"]["lr"], made["optimizer"]["min_lr"]) == (0.001, 0.0)
    assert made[""]["precision"] == "fp32"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "rmsnorm"}, 'norm is "rmsnorm", but here it is: layer norms'),
        ({"pos_emb": "alibi"}, 'pos_emb is "alibi"'),
        ({"no_weight_tying": False}, "no_weight_tying is false"),
        ({"gpt_j_tied": True}, "gpt_j_tied is true"),
        ({"activation": "swiglu"}, 'activation is "swiglu"'),
        ({"hidden_dropout": 0.1}, "hidden_dropout is 0.1"),
        ({"attention_config": [[["flash", "local"], 3]]}, 'attention of kind "local"'),
        ({"attention_config": {"a": 1}}, "attention of kind"),
        ({"num_kv_heads": 2}, "num_kv_heads is 2, but here it is 8"),
        ({"intermediate_size": 5}, "intermediate_size is 5, but here it is 2048"),
        ({"lr_decay_style": "exponential"}, 'lr_decay_style is "exponential"'),
        ({"lr_decay_style": "linear"}, "linear falls to 0 there and is cut off at min_lr"),
        ({"lr_decay_iters": 7}, "lr_decay_iters 7 is not train_iters 143000"),
        ({"optimizer": {"type": "Lion"}}, 'optimizer.type is "Lion"'),
        ({"optimizer": {"params": {"lr": 1, "nesterov": True}}}, "optimizer.params.nesterov has no equal"),
        ({"optimizer": "Adam"}, "expected a map"),
        ({"optimizer": {"params": {"lr": 1, "betas": 3}}}, "expected two numbers"),
        ({"init_method": "xavier_uniform"}, "xavier_uniform/wang_init, expected"),
        ({"moe_num_experts": 8}, "moe_num_experts is 8"),
        ({"model_parallel_size": 2}, "give --tokenizer"),
        ({"train_iters": None}, "train_iters is missing"),
        ({"hidden_size": "wide"}, 'hidden_size is "wide", expected a whole number'),
        ({"weight_decay": None}, "weight_decay is missing"),
        ({"zero_optimization": {"stage": 7}}, "zero_optimization.stage is 7, expected 0 to 3"),
        ({"precision": "fp8"}, 'precision is "fp8"'),
        ({"save": 3}, "save is 3, expected text"),
        ({"train_data_paths": 5}, "the data paths are 5, expected text or a list"),
        ({"train_data_paths": {"a": 1}}, 'the data paths are {"a": 1}, expected text or a list'),
        ({"rotary_pct": True}, "rotary_pct is true, expected a number"),
        ({"pack_impl": "megatron"}, 'pack_impl is "megatron", expected one of packed, '),
        ({"train_data_paths": None, "data_path": "a", "split": "most"}, 'split is "most", expected shares'),
        (
            {"train_data_paths": ["a", "b"], "train_data_weights": [1]},
            "train_data_weights is [1], expected 2",
        ),
        ({"seq_length": -5}, "the order: seq-length must be at least 1, got -5"),
        ({"seed": 2**32}, "the order: seed must be within 0 and 2^32 - 1"),
        ({"min_lr": "1e999"}, 'min_lr is "1e999", expected a number'),
        (
            {"train_data_paths": ["a", "b"], "train_data_weights": ["1e999", 1]},
            'train_data_weights is "1e999", expected a number',
        ),
        (
            {"train_data_paths": ["a", "b"], "train_data_weights": [-1, 2]},
            "the order: weights [-1.0, 2.0] must be at least 0",
        ),
        (
            {"train_data_paths": ["a", "b"], "weight_by_num_documents": True},
            "weighted_sampler_alpha is missing",
        ),
    ],
)
def test_what_this_trainer_cannot_do_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match="cannot be translated") as caught:
        translate({**SMALL, **changes})
    assert message in str(caught.value)


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(FormatError, match=r"norm is .*; activation is .*; z_loss is 0.1"):
        translate({**SMALL, "norm": "rmsnorm", "activation": "swiglu", "z_loss": 0.1})


def test_the_exchanged_layers_and_heads_of_a_published_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size 5120 is not a multiple of n_heads 36"):
        translate({**SMALL, "hidden_size": 5120, "num_layers": 40, "num_attention_heads": 36})


def test_a_missing_dropout_is_refused_as_its_default_changed() -> None:
    values = {key: value for key, value in SMALL.items() if key != "hidden_dropout"}
    with pytest.raises(FormatError, match="hidden_dropout is missing, and its default differs"):
        translate(values)


def test_the_shape_of_a_checkpoint_needs_no_recipe() -> None:
    values = {key: SMALL[key] for key in ("num_layers", "hidden_size", "num_attention_heads", "rotary_pct")}
    values |= {"pos_emb": "rotary", "no_weight_tying": True, "gpt_j_residual": True, "seq_length": 128}
    shape = model_shape(values, 96)
    assert (shape.n_layers, shape.vocab_size, shape.max_positions, shape.hidden_act) == (6, 96, 128, "gelu")
    assert nested({"": {"a": 1}, "model": {"b": 2}}) == {"a": 1, "model": {"b": 2}}


@pytest.mark.parametrize("change", [{"use_mup": True}, {"sliding_window_width": 64}])
def test_a_trained_model_that_computes_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=f"{next(iter(change))} is"):
        model_shape({**SMALL, **change}, 96)


@pytest.mark.parametrize(
    ("changes", "sharding", "precision"),
    [
        ({}, {"zero_stage": 1}, "fp16"),
        ({"zero_optimization": {"stage": 0}}, {"zero_stage": 1}, "fp16"),
        ({"zero_optimization": {"stage": 0}, "fp16": None}, {"zero_stage": 0}, "fp32"),
        (
            {"zero_optimization": {"stage": 3, "cpu_offload": True}, "precision": "bfloat16"},
            {"zero_stage": 3, "offload_optimizer": True},
            "bf16",
        ),
    ],
)
def test_zero_and_precision_are_translated(
    changes: dict[str, Any], sharding: dict[str, Any], precision: str
) -> None:
    made = translate({**SMALL, **changes})
    assert made.toml["deepspeed"] == sharding
    assert made.toml[""]["precision"] == precision


@pytest.mark.parametrize("recomputes", [True, False])
def test_activation_checkpointing_is_translated(recomputes: bool) -> None:
    made = translate({**SMALL, "checkpoint_activations": recomputes, "checkpoint_num_layers": 1})
    config = from_values(TrainConfig, nested(made.toml), "the translation")
    assert config.activation_checkpointing is recomputes
    entries = {entry.key: entry.what for entry in made.translated}
    assert entries["checkpoint_activations"] == "activation_checkpointing"


@pytest.mark.parametrize("style", ["linear", "constant"])
def test_other_courses_of_the_rate_have_equals(style: str) -> None:
    assert translate({**SMALL, "min_lr": 0.0, "lr_decay_style": style}).toml["optimizer"]["schedule"] == style
