"""The presets are the published models: names, parameters, checkpoints and seeds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from pile_tools.errors import ConfigError
from pile_tools.order.open import open_order
from trainer.config import ModelConfig, TrainConfig, recipe
from trainer.model.neox import GPTNeoX
from trainer.presets import PRESETS, TOKENIZER_SIZE

#: Parameters as published, of the sixteen models of Pythia in pairs, the small ones and GPT-NeoX-20B.
PUBLISHED = {
    "pythia-14m": 14_067_712,
    "pythia-31m": 30_494_720,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "gpt-neox-20b": 20_554_567_680,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_parameters(name: str) -> None:
    with torch.device("meta"):
        model = GPTNeoX(ModelConfig(preset=name).shape(2048, TOKENIZER_SIZE))
    assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[name]


def test_variants_have_the_size_of_their_model() -> None:
    for name in PRESETS:
        size = re.sub(r"-(deduped|seed\d)$", "", name)
        assert ModelConfig(preset=name).shape(2048, TOKENIZER_SIZE).n_parameters == PUBLISHED[size]


def test_the_sixteen_of_pythia_come_in_pairs() -> None:
    plain = {name.removesuffix("-deduped") for name in PRESETS if name.endswith("-deduped")}
    assert plain == set(PUBLISHED) - {"pythia-14m", "pythia-31m", "gpt-neox-20b"}
    assert {PRESETS[name].data for name in plain} == {"the Pile"}
    assert {PRESETS[f"{name}-deduped"].data for name in plain} == {"the deduplicated Pile"}


def test_polypythias_have_nine_more_seeds_each() -> None:
    seeds = {name: preset.seed for name, preset in PRESETS.items() if "-seed" in name}
    assert len(seeds) == 45
    assert all(seed == int(name[-1]) for name, seed in seeds.items())
    assert {name.rpartition("-")[0] for name in seeds} == {
        *("pythia-14m", "pythia-31m", "pythia-70m", "pythia-160m", "pythia-410m"),
    }
    with pytest.raises(ConfigError, match="no preset 'pythia-1b-seed1'"):
        ModelConfig(preset="pythia-1b-seed1")


def test_a_seed_is_that_of_the_first_weights(order: Path) -> None:
    def seed(given: int | None) -> int:
        model = ModelConfig(preset="pythia-70m-seed3")
        config = TrainConfig(order=order, output=Path("r"), model=model, seed=given)
        return recipe(config, open_order(order), 400).seed

    assert (seed(None), seed(0), seed(7)) == (3, 0, 7)


def test_a_preset_of_pythia_has_154_checkpoints(order: Path) -> None:
    config = TrainConfig(order=order, output=Path("r"), model=ModelConfig(preset="pythia-70m"), steps=2)
    found = recipe(config, open_order(order), 400)
    steps = [s for s in range(143_001) if found.is_checkpoint(s, config.checkpoint_interval)]
    assert len(steps) == 154
    assert steps[:12] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]


def test_checkpoints_without_a_preset_are_a_hundred_steps_apart() -> None:
    model = ModelConfig(hidden_size=32, n_layers=2, n_heads=4)
    assert TrainConfig(order=Path("o"), output=Path("r"), model=model).checkpoint_interval == 100
    given = ModelConfig(preset="pythia-70m")
    assert (
        TrainConfig(order=Path("o"), output=Path("r"), model=given, checkpoint_every=7).checkpoint_interval
        == 7
    )


def test_a_preset_names_steps_and_batch_where_the_order_does_not(tmp_path: Path) -> None:
    (tmp_path / "rows.bin").write_bytes(bytes(2 * 2049 * 3))
    model = ModelConfig(preset="pythia-14m")
    config = TrainConfig(order=tmp_path, output=Path("r"), model=model, steps=1, batch_size=2)
    assert recipe(config, open_order(tmp_path), TOKENIZER_SIZE).batch_size == 2
    bare = TrainConfig(order=tmp_path, output=Path("r"), model=model)
    with pytest.raises(ConfigError, match=r"143,000 steps of 1024 need 146,432,000 samples"):
        recipe(bare, open_order(tmp_path), TOKENIZER_SIZE)
