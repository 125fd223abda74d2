"""The order of a run of several stages is read as its orders are, one after the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pile_tools import ConfigError, FormatError, Order, PileError, manifest, open_order, timeline
from pile_tools.jobs import verify
from pile_tools.jobs.order import Blend, OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.stages import Stage, run

BATCH = 4


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> tuple[Path, Path, Path]:
    """An order of a dataset, one of other documents of it, and a blend."""
    folder = tmp_path_factory.mktemp("orders")
    first, second, blend = (folder / name for name in ("first", "second", "blend"))
    config = OrderConfig(seq_length=32, steps=10, batch_size=BATCH, seed=1)
    build_order(dataset, first, config)
    build_order(
        dataset, second, OrderConfig(seq_length=32, steps=6, batch_size=BATCH, split="8,2,0", part="valid")
    )
    build_order(Blend((dataset, dataset), (2.0, 1.0)), blend, OrderConfig(seq_length=32, samples=30))
    return first, second, blend


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, orders: tuple[Path, Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("staged") / "order"
    first, second, blend = orders
    made, is_new = run([Stage(first, 7), Stage(blend, 5), Stage(second)], folder, batch_size=BATCH)
    assert is_new
    assert made.summary["n_samples"] == 18 * BATCH
    return folder


def test_batches_are_those_of_the_stages(staged: Path, orders: tuple[Path, Path, Path]) -> None:
    found = open_order(staged)
    first, second, blend = map(open_order, orders)
    assert (found.steps, found.batch_size, len(found)) == (18, BATCH, 18 * BATCH)
    for step in range(18):
        order, of = (first, step) if step < 7 else (blend, step - 7) if step < 12 else (second, step - 12)
        np.testing.assert_array_equal(found.batch(step), order.batch(of, BATCH))
        lengths = [t.batch_spans(s, BATCH)["length"] for t, s in ((found, step), (order, of))]
        np.testing.assert_array_equal(*lengths)


def mixture_of(order: Order) -> list[dict[str | None, int]]:
    """Tokens of each subset, step by step."""
    found = timeline.mixture(order, interval_steps=1, batch_size=BATCH)
    return [dict(zip(found.subsets, counts, strict=True)) for counts in found.n_tokens.tolist()]


def test_the_way_back_knows_all_stages(staged: Path, orders: tuple[Path, Path, Path]) -> None:
    found = open_order(staged)
    first, second, blend = map(open_order, orders)
    counts = mixture_of(found)
    assert counts == [*mixture_of(first)[:7], *mixture_of(blend)[:5], *mixture_of(second)]
    document = int(found.batch_spans(13)["document"][0])
    traced = timeline.trace(found, document)
    assert 13 in traced["step"].tolist()
    for step in set(traced["step"].tolist()):
        assert document in found.batch_spans(step)["document"]


def test_the_same_command_does_nothing_and_verify_finds_damage(
    staged: Path, orders: tuple[Path, Path, Path]
) -> None:
    first, second, blend = orders
    stages = [Stage(first, 7), Stage(blend, 5), Stage(second)]
    _, is_new = run(stages, staged, batch_size=BATCH)
    assert not is_new
    verify.run(staged, chain=True)
    (path,) = staged.glob("stages_2_*_shuffle_idx.npy")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PileError, match="shuffle_idx"):
        verify.run(staged)
    path.write_bytes(data)
    with pytest.raises(PileError, match="force replaces it"):
        run(stages[:2], staged, batch_size=BATCH)


def test_a_damaged_order_is_no_stage(orders: tuple[Path, Path, Path], tmp_path: Path, dataset: Path) -> None:
    build_order(dataset, tmp_path / "a", OrderConfig(seq_length=32, steps=3, batch_size=BATCH))
    (path,) = (tmp_path / "a").glob("*_shuffle_idx.npy")
    array = np.load(path)
    np.save(path, array[::-1].copy())
    with pytest.raises(PileError, match=r"not the array that order\.json lists"):
        run([Stage(tmp_path / "a"), Stage(orders[1])], tmp_path / "staged")
    assert not (tmp_path / "staged/order.json").exists()


@pytest.mark.parametrize("array", ["dataset_index", "dataset_sample_index"])
def test_damaged_arrays_of_a_blend_are_no_stage(
    orders: tuple[Path, Path, Path], tmp_path: Path, array: str
) -> None:
    first, _, blend = orders
    shutil.copytree(blend, tmp_path / "blend")
    (path,) = (tmp_path / "blend").glob(f"*_{array}.npy")
    np.save(path, np.flip(np.load(path)))
    with pytest.raises(PileError, match=rf"not the array that order\.json lists.*{array}"):
        run([Stage(first), Stage(tmp_path / "blend", 5)], tmp_path / "staged", batch_size=BATCH)
    assert not (tmp_path / "staged/order.json").exists()


@pytest.mark.parametrize(
    ("array", "number", "message"),
    [
        ("dataset_index", 255, "not from 0 to 1"),
        ("dataset_sample_index", -1, "not from 0 to"),
        ("dataset_index", None, "not an array of numpy"),
    ],
)
def test_arrays_of_a_blend_that_lead_nowhere_are_no_stage(
    orders: tuple[Path, Path, Path], tmp_path: Path, array: str, number: int | None, message: str
) -> None:
    """Signed anew, as anyone could who writes an order."""
    first, _, blend = orders
    shutil.copytree(blend, tmp_path / "blend")
    (path,) = (tmp_path / "blend").glob(f"*_{array}.npy")
    if number is not None:
        np.save(path, np.full_like(np.load(path), number))
    else:
        # The core finds the keys of a header wherever they are.
        path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))
    record = tmp_path / "blend" / "order.json"
    values = json.loads(record.read_text())
    values["outputs"] = [
        entry | manifest.file_entry(path, path.parent) if entry["path"] == path.name else entry
        for entry in values["outputs"]
    ]
    for entry, original in zip(values["inputs"], manifest.read(blend / "order.json").inputs, strict=True):
        entry["path"] = str(manifest.input_path(manifest.read(blend / "order.json"), original))
    record.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=rf"{message}.*{array}"):
        run([Stage(first), Stage(tmp_path / "blend", 5)], tmp_path / "staged", batch_size=BATCH)
    assert not (tmp_path / "staged/order.json").exists()


def test_what_does_not_fit_is_refused(
    orders: tuple[Path, Path, Path], staged: Path, tmp_path: Path, dataset: Path
) -> None:
    first, second, blend = orders
    build_order(dataset, tmp_path / "other", OrderConfig(seq_length=16, steps=3, batch_size=BATCH))
    for stages, message in (
        ([Stage(first)], "give at least two orders"),
        ([Stage(first), Stage(blend, 1)], "do not name one batch size"),
        ([Stage(first), Stage(second, 7000)], "7,000 steps of 4 need 28,000 samples, the order has"),
        ([Stage(first), Stage(tmp_path / "other")], "stages of 16 and 32 tokens"),
        ([Stage(first), Stage(staged)], "cannot be a stage"),
    ):
        with pytest.raises(ConfigError) as error:
            run(stages, tmp_path / "out")
        assert message in str(error.value)
    with pytest.raises(ConfigError, match="names no steps"):
        run([Stage(first), Stage(blend)], tmp_path / "out", batch_size=BATCH)
    assert not (tmp_path / "out").exists()
