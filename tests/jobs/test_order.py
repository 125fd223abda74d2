"""The order job: its folder, its manifest, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pile_tools import ConfigError, OutputExistsError, open_order
from pile_tools.jobs.order import OrderConfig, run


def test_it_lies_beside_the_dataset_by_default(dataset: Path, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx"):
        (tmp_path / f"sample{suffix}").write_bytes(Path(f"{dataset}{suffix}").read_bytes())
    manifest, is_new = run(tmp_path / "sample", None, OrderConfig(seq_length=16, samples=50))
    assert is_new
    assert manifest.path == tmp_path / "order.json"
    arrays = sorted(p.name for p in tmp_path.glob("*.npy"))
    stem = "sample_train_0_indexmap_50ns_16sl_1234s_packedpi_ac"
    assert arrays == [f"{stem}_{name}.npy" for name in ("doc_idx", "sample_idx", "shuffle_idx")]
    assert not list(tmp_path.glob("*.partial"))


def test_finished_orders_are_left_alone(dataset: Path, tmp_path: Path) -> None:
    config = OrderConfig(seq_length=16, samples=50)
    assert run(dataset, tmp_path, config)[1]
    before = (tmp_path / "order.json").read_bytes()
    assert not run(dataset, tmp_path, config)[1]
    other = OrderConfig(seq_length=16, samples=50, seed=5)
    with pytest.raises(OutputExistsError, match="seed = 1234, not 5"):
        run(dataset, tmp_path, other)
    assert (tmp_path / "order.json").read_bytes() == before
    run(dataset, tmp_path, other, force=True)
    assert open_order(tmp_path).seed == 5
    assert len(list(tmp_path.glob("*.npy"))) == 3, "the old order's arrays are left behind"


def test_arrays_another_tool_left_are_taken_if_equal(dataset: Path, tmp_path: Path) -> None:
    config = OrderConfig(seq_length=16, samples=50)
    run(dataset, tmp_path, config)
    (tmp_path / "order.json").unlink()
    assert run(dataset, tmp_path, config)[1]
    (tmp_path / "order.json").unlink()
    array = next(tmp_path.glob("*_shuffle_idx.npy"))
    np.save(array, np.load(array)[::-1])
    with pytest.raises(OutputExistsError, match="is not from pile-tools"):
        run(dataset, tmp_path, config)
    assert not (tmp_path / "order.json").exists()
    run(dataset, tmp_path, config, force=True)


def test_order_json_names_what_matters(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path, OrderConfig(seq_length=16, steps=10, batch_size=4, seed=9))
    order = json.loads((tmp_path / "order.json").read_text())
    assert order["settings"] == {
        "rule": "gpt-neox packed",
        "seq_length": 16,
        "samples": None,
        "epochs": None,
        "steps": 10,
        "batch_size": 4,
        "seed": 9,
        "split": None,
        "part": "train",
        "compat": None,
        "stem": "sample_train_0_indexmap_41ns_16sl_9s_packedpi_ac",
        "layout": {"extra": 1, "is_padded": False},
    }
    assert order["inputs"][0]["fingerprint"] == open_order(tmp_path).samples.dataset.fingerprint
    assert order["summary"]["n_epochs"] == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"seq_length": 16},
        {"seq_length": 16, "samples": 5, "steps": 5, "batch_size": 1},
        {"seq_length": 16, "steps": 5},
        {"seq_length": 0, "samples": 5},
        {"seq_length": 16, "samples": 0},
        {"seq_length": 16, "samples": 5, "seed": -1},
        {"seq_length": 16, "samples": 5, "seed": 2**32},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        OrderConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", ["packed", "megatron"])
def test_an_order_without_samples_is_refused(dataset: Path, tmp_path: Path, packing: str) -> None:
    config = OrderConfig(seq_length=10**9, epochs=1, packing=packing)
    with pytest.raises(ConfigError, match=r"no samples: .* tokens do not fill one of sequence length"):
        run(dataset, tmp_path, config)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_dataset_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "nothing", None, OrderConfig(seq_length=16, samples=5))


@pytest.mark.parametrize("seq_length", [2**31 - 1, 2**62, 10**30])
def test_an_order_that_could_not_be_opened_is_not_built(
    dataset: Path, tmp_path: Path, seq_length: int
) -> None:
    with pytest.raises(ConfigError, match="seq-length must be at most 2,147,483,646"):
        run(dataset, tmp_path / "o", OrderConfig(seq_length=seq_length, samples=1))
    assert not (tmp_path / "o").exists()
