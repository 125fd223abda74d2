"""Commands that read an order: steps of any size, the run's samples, what GPT-NeoX replaces, exports."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pile_tools import ConfigError, Order, Tokenizer, open_order, timeline
from pile_tools.commands import batch, export, mixture, repeats, trace, when
from pile_tools.commands.orders import order_and_steps
from pile_tools.jobs import order as orders
from pile_tools.jobs import tokenize
from pile_tools.jobs.export import run as run_export
from pile_tools.jobs.order import Blend, OrderConfig
from pile_tools.order import insert_tokens
from pile_tools.read.shards import find_shards

SEQ_LENGTH = 16

#: Steps of the order, and samples of each.
STEPS, BATCH_SIZE = 12, 5

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, shards: Path, tokenizer: Path) -> Path:
    prefix = tmp_path_factory.mktemp("dataset") / "d"
    shard = find_shards([shards])[:1]
    tokenize.run(shard, prefix, tokenize.TokenizeConfig(tokenizer=tokenizer), threads=2)
    return prefix


@pytest.fixture(scope="module")
def places(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """Where an order of each kind is, and the samples of its run."""
    folder = tmp_path_factory.mktemp("orders")
    config = OrderConfig(seq_length=SEQ_LENGTH, steps=STEPS, batch_size=BATCH_SIZE, seed=3)
    orders.run(dataset, folder / "order", config)
    order = open_order(folder / "order")
    order.samples.read(0, 60).tofile(folder / "rows.bin")
    for path in dataset.parent.glob("d.*"):
        shutil.copy(path, folder)
    for path in (folder / "order").glob("*.npy"):
        shutil.copy(path, folder)
    arrays = next(folder.glob("*_shuffle_idx.npy"))
    return {
        "order": (folder / "order", STEPS * BATCH_SIZE),
        "rows": (folder / "rows.bin", 60),
        "arrays": (arrays, len(order.samples)),
    }


@pytest.fixture
def invoke() -> Run:
    def run(module: Any, *arguments: object) -> list[str]:
        done = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
        assert done.exception is None, done.output
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("kind", ["order", "rows", "arrays"])
@pytest.mark.parametrize("size", [1, 3, BATCH_SIZE, 7, 50])
def test_a_batch_size_is_honoured_everywhere(
    kind: str,
    size: int,
    places: dict[str, tuple[Path, int]],
    tokenizer: Path,
    invoke: Run,
    tmp_path: Path,
) -> None:
    path, n_samples = places[kind]
    options = ["--batch-size", size] + (["--row-length", SEQ_LENGTH + 1] if kind == "rows" else [])
    order = open_order(path, batch_size=size, row_length=SEQ_LENGTH + 1)
    n_steps = n_samples // size
    assert (len(order), order.steps) == (n_samples, n_steps)
    rows = order.samples.read(0, n_steps * size)
    token = int(np.bincount(rows.ravel())[1:].argmax()) + 1

    lines = json.loads(invoke(when, path, "--ids", token, "--json", *options)[0])["sightings"]
    seen = sorted((line["step"] * size + line["row"], line["offset"]) for line in lines)
    assert all(line["row"] < size for line in lines)
    assert seen == [tuple(at) for at in np.argwhere(rows == token).tolist()]
    answer = timeline.when(order, [[token]])
    by_name = timeline.when(open_order(path, row_length=SEQ_LENGTH + 1), [[token]], batch_size=size)
    for sightings in (answer.sightings, by_name.sightings):
        assert sorted(zip(sightings["sample"], sightings["offset"], strict=True)) == seen

    lines = json.loads(invoke(mixture, path, "--every", 1, "--json", *options)[0])["intervals"]
    assert [line["first_step"] for line in lines] == list(range(n_steps))
    sums = {sum(line["n_tokens"].values()) + line["n_tokens_without_subset"] for line in lines}
    assert sums == {size * SEQ_LENGTH}
    found = "\n".join(invoke(repeats, path, "--every", 1, *options))
    assert f"of {n_steps * size * SEQ_LENGTH:,} tokens" in found
    (line,) = json.loads(
        invoke(batch, path, "--step", n_steps - 1, "--row", 0, "--json", "--tokens", *options)[0]
    )["rows"]
    assert line["tokens"] == rows[(n_steps - 1) * size].tolist()
    file, of = tmp_path / "steps.csv", ["--steps", f"0:{n_steps}", "--tokenizer", tokenizer]
    invoke(export, path, "-o", file, *of, *options)
    records = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
    exported = {int(record["step"]) * size + int(record["row"]) for record in records}
    assert exported == set(range(n_steps * size))
    if kind != "rows":
        lines = json.loads(invoke(trace, path, 7, "--json", *options)[0])["parts"]
        assert lines
        assert all(line["step"] == line["sample"] // size for line in lines)


def test_less_than_one_step_is_said(places: dict[str, tuple[Path, int]]) -> None:
    path, _ = places["rows"]
    order = open_order(path, row_length=SEQ_LENGTH + 1)
    for ask in (
        lambda: timeline.when(order, [[1]]),
        lambda: timeline.repeats(order),
        lambda: timeline.mixture(order),
    ):
        with pytest.raises(ConfigError, match=r"60 samples are fewer than one step of 1,024"):
            ask()


def test_a_data_loader_yields_the_steps_the_order_was_made_for(places: dict[str, tuple[Path, int]]) -> None:
    from torch.utils.data import DataLoader

    order = open_order(places["order"][0])
    assert len(order.samples) > len(order) == STEPS * BATCH_SIZE
    batches = list(DataLoader(order, batch_size=BATCH_SIZE))  # type: ignore[arg-type]
    assert len(batches) == STEPS
    for step, found in enumerate(batches):
        assert np.array_equal(found.numpy(), order.batch(step))
    assert np.array_equal(order[-1], order.samples[len(order) - 1])
    for beyond in (len(order), -len(order) - 1):
        with pytest.raises(IndexError):
            order[beyond]
    # The margin is there for who asks for it.
    assert order.samples[len(order)].shape == (SEQ_LENGTH + 1,)
    wide = order.rebatch(batch_size=7)
    assert (len(wide), wide.steps) == (len(order), STEPS * BATCH_SIZE // 7)


def test_samples_that_gpt_neox_replaces_are_named_and_given_on_request(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((golden / "index_manifest.json").read_text())["cases"]
    padded = [
        case for case in found if case["pack_impl"] == "pack_until_overflow" and not case["label_dataset"]
    ]
    assert padded
    n_replaced = 0
    for case in padded:
        folder = tmp_path / case["id"]
        folder.mkdir()
        for suffix in (".bin", ".idx"):
            shutil.copy(Path(f"{golden / case['dataset']}{suffix}"), folder)
        config = OrderConfig(
            seq_length=case["seq_length"],
            samples=case["num_samples"],
            seed=case["seed"],
            packing=case["pack_impl"],
            chop=case["allow_chopped"],
            split=case["split"],
        )
        made, _ = orders.run(folder / Path(case["dataset"]).name, folder, config)
        arrays = next(folder.glob("*_shuffle_idx.npy"))
        true, compat = open_order(arrays), open_order(arrays, compat="gpt-neox")
        assert true.replaced_by_gpt_neox == made.summary["replaced_by_gpt_neox"]
        assert insert_tokens(true, []).replaced_by_gpt_neox == true.replaced_by_gpt_neox
        tokens = compat.samples.read(0, case["len"]).astype("<i8")
        assert hashlib.sha256(tokens.tobytes()).hexdigest() == case["sha256_all_text"], case["id"]
        # The same by the order's folder, built without.
        assert np.array_equal(open_order(folder, compat="gpt-neox").samples.read(0, case["len"]), tokens)
        note = CliRunner().invoke(
            batch.command, [str(arrays), "--step", "0", "--batch-size", "1", "--tokens"]
        )
        capsys.readouterr()
        order_and_steps(arrays, "1", 1, None)
        other = capsys.readouterr().err
        assert "--compat" not in other
        for sample in true.replaced_by_gpt_neox:
            n_replaced += 1
            for said in (note.stderr, other):
                assert f"GPT-NeoX cannot read sample {sample}" in said
            assert not np.array_equal(true.samples[sample], compat.samples[sample])
    assert n_replaced
    with pytest.raises(ConfigError, match="no compat 'other'"):
        open_order(tmp_path, compat="other")


@pytest.fixture
def mixed(dataset: Path, tmp_path: Path) -> tuple[Order, np.ndarray[Any, Any]]:
    """A blend of a uint16 and an int32 dataset with the same tokens but for a large id, and its rows."""
    from pile_tools import TokenDataset

    wide = tmp_path / "wide"
    tokens = TokenDataset(dataset).tokens.astype("<i4")
    tokens[::5] = 70_000
    tokens.tofile(tmp_path / "wide.bin")
    idx = bytearray(Path(f"{dataset}.idx").read_bytes())
    n = int(np.frombuffer(idx, "<u8", 1, 18)[0])
    assert idx[17] == 8
    idx[17] = 4
    pointers = np.frombuffer(bytes(idx), "<i8", n, 34 + 4 * n) * 2
    idx[34 + 4 * n : 34 + 12 * n] = pointers.tobytes()
    (tmp_path / "wide.idx").write_bytes(idx)
    config = OrderConfig(seq_length=SEQ_LENGTH, samples=40, seed=1)
    orders.run(Blend((dataset, wide), (1.0, 1.0)), tmp_path / "blend", config)
    order = open_order(tmp_path / "blend")
    spans = order.samples.spans(0, 40)
    rows = [np.empty(0, np.int64)] * 40
    for row, document, start, length in spans.tolist():
        run = order.dataset[document][start : start + length]
        rows[row] = np.concatenate([rows[row], run])
    return order, np.stack(rows)


def test_a_blend_of_token_types_reads_as_int64(mixed: tuple[Order, np.ndarray[Any, Any]]) -> None:
    order, rows = mixed
    assert order.dataset.dtype == "int64"
    assert {order.dataset[0].dtype, order.dataset[len(order.dataset) - 1].dtype} == {np.dtype("int64")}
    for tokens in (order.samples.read(0, 40), order.samples.take(np.arange(40)), order[0]):
        assert tokens.dtype == np.int64
    assert np.array_equal(order.samples.read(0, 40), rows)
    assert (rows == 70_000).any()
    assert (rows[rows != 70_000] < 400).all()
    small = int(np.bincount(rows[rows < 400]).argmax())
    for token in (70_000, small):
        seen = timeline.when(order, [[token]], batch_size=1).sightings
        found = sorted(zip(seen["sample"], seen["offset"], strict=True))
        assert [at for at in found if at[0] < 40] == [tuple(at) for at in np.argwhere(rows == token).tolist()]


def test_an_export_has_nulls_for_what_is_unknown(
    places: dict[str, tuple[Path, int]], mixed: tuple[Order, Any], tokenizer: Path, tmp_path: Path
) -> None:
    decoder = Tokenizer.from_file(tokenizer)
    rows = open_order(places["rows"][0], row_length=SEQ_LENGTH + 1, batch_size=2)
    for name, order in (("rows", rows), ("blend", mixed[0].rebatch(batch_size=2))):
        files = [tmp_path / f"{name}.parquet", tmp_path / f"{name}.CSV"]
        for file in files:
            run_export(order, (0, 20), file, decoder)
        records = pq.read_table(files[0]).to_pylist()
        with files[1].open(encoding="utf-8", newline="") as file:
            assert file.read().count("\r\n") >= len(records) + 1
            file.seek(0)
            as_csv = list(csv.DictReader(file))
        text = [{key: "" if v is None else str(v) for key, v in record.items()} for record in records]
        assert text == as_csv
        is_known = [record["document"] is not None for record in records]
        assert any(is_known) == (name == "blend")
        for record in records:
            assert (record["start"] is None) == (record["document"] is None)
            # The second dataset has no provenance, and some documents of the first no subset.
            of_second = record["document"] is None or record["document"] >= len(order.dataset) // 2
            assert record["subset"] in ((None,) if of_second else (None, "Books", "Code"))
    with pytest.raises(ConfigError, match=r"is .parquet or .csv, got '.txt'"):
        run_export(rows, (0, 1), tmp_path / "a.txt", decoder)
    with pytest.raises(ConfigError, match="got 'no suffix'"):
        run_export(rows, (0, 1), tmp_path / "a", decoder)
