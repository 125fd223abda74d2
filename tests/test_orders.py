"""Datasets and orders from Python, against arrays and samples made by GPT-NeoX."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pile_tools import (
    ConfigError,
    FormatError,
    OutputExistsError,
    PileError,
    TokenDataset,
    Tokenizer,
    TrainingOrder,
    open_index,
    open_order,
    timeline,
)
from pile_tools.jobs import index, tokenize
from pile_tools.jobs.index import IndexConfig
from pile_tools.jobs.order import Blend, OrderConfig, run
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions
from pile_tools.read.shards import find_shards
from pile_tools.search import index_for
from pile_tools.tokens import datasets


def all_packed_cases(golden: Path) -> list[dict[str, Any]]:
    cases = json.loads((golden / "index_manifest.json").read_text())["cases"]
    return [case for case in cases if case["pack_impl"] == "packed"]


def packed_cases(golden: Path) -> list[dict[str, Any]]:
    """Those over a whole dataset, which is what the order job builds."""
    cases = all_packed_cases(golden)
    return [case for case in cases if case["split"] is None and case["num_samples"] is not None]


def sha256(tokens: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest()


def test_arrays_and_samples_are_the_references(golden: Path, tmp_path: Path) -> None:
    cases = packed_cases(golden)
    assert len(cases) >= 15
    for case in cases:
        prefix = golden / case["dataset"]
        config = OrderConfig(seq_length=case["seq_length"], samples=case["num_samples"], seed=case["seed"])
        folder = tmp_path / case["id"]
        run(prefix, folder, config)
        for name, expected in case["npy_sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name
            assert np.array_equal(np.load(folder / name), np.load(golden / "index" / case["id"] / name))
        order = open_order(folder)
        for sample in case["samples"]:
            assert sha256(order.samples[sample["i"]]) == sample["sha256"]
        everything = order.samples.read(0, case["len"])
        assert sha256(everything) == case["sha256_all_text"]


def test_the_references_own_index_files_are_read(golden: Path) -> None:
    for case in all_packed_cases(golden):
        stem = golden / "index" / case["id"] / case["files"][0].removesuffix("_doc_idx.npy")
        samples = TrainingOrder(stem, case["seq_length"], golden / case["dataset"])
        assert sha256(samples.read(0, case["len"])) == case["sha256_all_text"]


@pytest.fixture(scope="module")
def order_folder(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("order")
    run(dataset, folder, OrderConfig(seq_length=32, steps=100, batch_size=4, seed=3))
    return folder


def test_batches_are_runs_of_samples(order_folder: Path) -> None:
    order = open_order(order_folder)
    batch = order.batch(7)
    assert batch.shape == (4, 33)
    assert batch.dtype == np.uint16
    assert np.array_equal(batch, [order.samples[i] for i in range(28, 32)])
    assert np.array_equal(order.batch(1, batch_size=14)[0], order.samples[14])


def test_spans_say_what_a_batch_consists_of(order_folder: Path) -> None:
    order = open_order(order_folder)
    dataset = order.samples.dataset
    for step in (0, 50, 99):
        rows: list[list[int]] = [[] for _ in range(4)]
        for row, document, start, length in order.batch_spans(step).tolist():
            rows[row] += dataset[document][start : start + length].tolist()
        assert np.array_equal(rows, order.batch(step))


def test_steps_out_of_range_are_refused(order_folder: Path) -> None:
    order = open_order(order_folder)
    for step in (-1, len(order.samples) // 4, 10**30):
        with pytest.raises(ConfigError, match="no step"):
            order.batch(step)
    with pytest.raises(ConfigError, match="no 5 samples"):
        order.samples.read(len(order.samples) - 4, 5)
    with pytest.raises(IndexError):
        order.samples[len(order.samples)]
    assert np.array_equal(order.samples[-1], order.samples[len(order.samples) - 1])


def test_documents_come_with_their_origin(dataset: Path, shards: Path) -> None:
    tokens = TokenDataset(dataset)
    origin = tokens.origin(len(tokens) - 1)
    assert origin is not None
    assert origin["shard"] == str(shards / "03.jsonl.zst")
    assert origin["record"] == 299
    assert tokens.subsets == ["Code", "Books"]
    numbers = tokens.subset_numbers(np.arange(len(tokens)))
    assert set(numbers.tolist()) == {-1, 0, 1}
    with pytest.raises(ConfigError, match="no document"):
        tokens.origin(len(tokens))


def test_subsets_of_documents_in_any_order(dataset: Path) -> None:
    """Those that follow each other are decoded together."""
    tokens = TokenDataset(dataset)
    origins = tokens.origins()
    assert origins is not None
    everything, source = np.arange(len(tokens)), np.random.default_rng(3)
    for documents in (
        *(everything, everything[::-1], everything[::3], np.repeat(everything, 2)),
        *(source.integers(0, len(tokens), 500), np.tile(everything, 300)),
    ):
        assert np.array_equal(tokens.subset_numbers(documents), origins["subset"][documents])
    for wrong, message in ((-1, "numbers start at 0"), (len(tokens), "no document")):
        for documents in ([wrong], [*everything, wrong], [*np.tile(everything, 300), wrong]):
            with pytest.raises(ConfigError, match=message):
                tokens.subset_numbers(np.array(documents, dtype=np.int64))


def test_a_dataset_of_another_tool_has_unknown_origins(golden: Path) -> None:
    tokens = TokenDataset(golden / "dataset" / "mini_eod_text_document")
    assert not tokens.has_provenance
    assert tokens.origin(0) is None
    assert tokens.subset_numbers(np.array([0, 5])).tolist() == [-1, -1]


ASK = (
    lambda order: [order.batch(step, with_documents=True) for step in range(order.n_steps(8))],
    lambda order: order.samples.take(np.arange(len(order.samples))),
    lambda order: timeline.trace(order, 3, batch_size=8),
    lambda order: timeline.mixture(order, batch_size=8),
    lambda order: timeline.repeats(order, batch_size=8),
    lambda order: timeline.when(order, "alpha", batch_size=8, across_documents=True),
)


def made(dataset: Path, folder: Path, kind: str) -> Path:
    """An order of a packing, or a blend."""
    packing = "packed" if kind == "blend" else kind
    config = OrderConfig(seq_length=32, steps=100, batch_size=4, seed=3, packing=packing)
    run(Blend((dataset, dataset), (2.0, 1.0)) if kind == "blend" else dataset, folder, config)
    return folder


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("packed", name) for name in ("doc_idx", "sample_idx", "shuffle_idx")),
        *(("unpacked", name) for name in ("doc_idx", "sample_idx", "shuffle_idx")),
        *(("blend", name) for name in ("dataset_index", "dataset_sample_index", "0_*doc_idx")),
    ],
)
def test_damaged_arrays_are_format_errors(dataset: Path, tmp_path: Path, kind: str, name: str) -> None:
    """Whatever their numbers are: the arrays may come from anyone."""
    (path,) = made(dataset, tmp_path / "order", kind).glob(f"*_{name}.npy")
    array, source = np.load(path), np.random.default_rng(3)
    limits = np.iinfo(array.dtype)
    refused = []
    for high in (1, 4, 1200, 1 << 30):
        for _ in range(5):
            damaged = array.copy().reshape(-1)
            number = np.clip(source.integers(-high // 4, high), limits.min, limits.max)
            damaged[source.integers(0, damaged.size, damaged.size // 3)] = number
            np.save(path, damaged.reshape(array.shape))
            order = open_order(tmp_path / "order")
            for ask in ASK:
                try:
                    ask(order)
                except FormatError as err:
                    refused.append(str(err))
    assert len(refused) > 10
    assert all(re.search(r"_(idx|index)\.npy", message) for message in refused)


@pytest.mark.parametrize(
    ("kind", "name", "what", "numbers"),
    [
        ("packed", "shuffle_idx", "none of its [0-9]+ samples", [400_000]),
        ("unpacked", "shuffle_idx", "none of its [0-9]+ samples", [400_000, -1]),
        ("blend", "dataset_index", "none of the 2 datasets", [2, 255]),
        ("blend", "dataset_sample_index", "none of the [0-9]+ samples of its dataset", [400_000, -1]),
        ("blend", "0_*doc_idx", "but the dataset has", ["n"]),
    ],
)
def test_one_damaged_number_is_refused_by_all_that_read_it(
    dataset: Path, tmp_path: Path, kind: str, name: str, what: str, numbers: list[Any]
) -> None:
    (path,) = made(dataset, tmp_path / "order", kind).glob(f"*_{name}.npy")
    array = np.load(path)
    for number in numbers:
        if number == "n":
            # The datasets of a blend have this document together, and the first one has not.
            array[:] = len(TokenDataset(dataset))
        else:
            array[25] = number
        np.save(path, array)
        order = open_order(tmp_path / "order")
        for ask in ASK:
            with pytest.raises(FormatError, match=rf"{what}.*{path.name}"):
                ask(order)


def test_everything_pickles_by_path(order_folder: Path) -> None:
    order = open_order(order_folder)
    again = pickle.loads(pickle.dumps(order.samples))
    assert np.array_equal(again[5], order.samples[5])
    assert len(pickle.loads(pickle.dumps(order.samples.dataset))) == len(order.samples.dataset)


@pytest.fixture
def replaceable(dataset: Path, tmp_path: Path) -> Path:
    """A dataset with an order and an index beside it, to which `another_dataset` can be done."""
    for name in (".bin", ".idx"):
        shutil.copy(str(dataset) + name, tmp_path / f"d{name}")
    run(tmp_path / "d", tmp_path, OrderConfig(seq_length=32, samples=20))
    index.run(tmp_path / "d", IndexConfig(texts=False))
    return tmp_path / "d"


def another_dataset(prefix: Path) -> None:
    """Replaces a dataset by one whose documents have the same lengths, as a `--force` does."""
    path = prefix.with_suffix(".bin")
    data = bytearray(path.read_bytes())
    data[:40] = bytes(40)
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("replaced", ["nothing", "dataset", "both"])
@pytest.mark.parametrize("again", [lambda order: pickle.loads(pickle.dumps(order)), copy.deepcopy])
def test_a_copy_of_an_order_is_of_the_same_files(
    replaceable: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replaced: str, again: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    order = open_order(".")
    before = order.samples.read(0, 20)
    packed = pickle.dumps(order)
    assert np.array_equal(again(order).samples.read(0, 20), before)
    if replaced != "nothing":
        another_dataset(replaceable)
    if replaced == "both":
        run(replaceable, tmp_path, OrderConfig(seq_length=32, samples=20), force=True)
    monkeypatch.chdir("/")
    if replaced == "nothing":
        assert np.array_equal(pickle.loads(packed).samples.read(0, 20), before)
    else:
        with pytest.raises(PileError, match="was replaced since the order was opened"):
            pickle.loads(packed)


def test_a_copy_of_an_order_has_the_same_labels(replaceable: Path, tmp_path: Path) -> None:
    for name in (".bin", ".idx"):
        shutil.copy(f"{replaceable}{name}", tmp_path / f"labels{name}")
    folder = tmp_path / "labelled"
    run(replaceable, folder, OrderConfig(seq_length=32, samples=20), labels=tmp_path / "labels")
    packed = pickle.dumps(open_order(folder))
    assert pickle.loads(packed).labels is not None
    another_dataset(tmp_path / "labels")
    with pytest.raises(PileError, match="was replaced since the order was opened"):
        pickle.loads(packed)


def test_a_saved_order_does_not_replace_one_that_it_is_made_of(order_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(order_folder, base)
    made = json.loads((base / "order.json").read_text())
    made["inputs"][0]["path"] = os.path.relpath(order_folder / made["inputs"][0]["path"], base)
    (base / "order.json").write_text(json.dumps(made))
    inserted = Insert(step=0, row=0, offset=0, tokens=(1, 2))
    first = insert_tokens(open_order(base).rebatch(batch_size=4), [inserted])
    save_interventions(first, tmp_path / "first")
    second = insert_tokens(open_order(tmp_path / "first"), [inserted])
    for folder in (base, tmp_path / "first"):
        with pytest.raises(ConfigError, match="give another"):
            save_interventions(second, folder, force=True)
    save_interventions(second, tmp_path / "second")
    open_order(tmp_path / "second")


def hidden_change(number: int) -> list[str]:
    """Documents of one length, of which one differs by `number`, between the samples of a fingerprint."""
    texts = ["ø" * 16] * 20_000
    texts[77] = "ø" * 15 + "ßøþ"[number]
    return texts


def test_a_change_between_the_samples_of_the_fingerprint_is_found(
    tokenizer: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    prefix, shard, folder = tmp_path / "d", tmp_path / "d.jsonl", tmp_path / "order"

    def make(number: int) -> None:
        shard.write_text("".join(json.dumps({"text": text}) + "\n" for text in hidden_change(number)))
        config = TokenizeConfig(tokenizer=tokenizer)
        tokenize.run(find_shards([shard]), prefix, config, threads=1, force=True)

    make(0)
    index.run(prefix, IndexConfig())
    config = OrderConfig(seq_length=32, samples=20)
    run(prefix, folder, config)
    packed = pickle.dumps(open_order(folder)), pickle.dumps(open_index(prefix))
    before = TokenDataset(prefix).fingerprint
    make(1)
    assert TokenDataset(prefix).fingerprint == before
    for opened in (
        lambda: open_order(folder),
        lambda: open_index(prefix),
        *(lambda data=data: pickle.loads(data) for data in packed),
    ):
        with pytest.raises(PileError, match=r"another dataset|a dataset of it was replaced"):
            opened()
    for again in (lambda: index.run(prefix, IndexConfig()), lambda: run(prefix, folder, config)):
        with pytest.raises(OutputExistsError):
            again()
    for artifact in (folder, tmp_path / "d.index"):
        done = cli("verify", artifact, "--chain")
        assert done.returncode == 1
        assert "another dataset than the input: its manifest has another SHA-256 of the tokens" in done.stdout


def test_arrays_of_an_order_are_of_its_dataset(replaceable: Path) -> None:
    [array] = replaceable.parent.glob("*_shuffle_idx.npy")
    by_name = open_order(array).samples.read(0, 20)
    assert np.array_equal(by_name, open_order(replaceable.parent).samples.read(0, 20))
    another_dataset(replaceable)
    for path in (array, replaceable.parent):
        with pytest.raises(FormatError, match=r"built for another dataset than .*order\.json"):
            open_order(path)
    # Without our order beside them they are GPT-NeoX's, which records no dataset.
    (replaceable.parent / "order.json").unlink()
    open_order(array)


def test_the_end_of_document_token_is_that_of_the_open_dataset(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    found, loaded = find_shards([shards]), Tokenizer.from_file(tokenizer)
    tokenize.run(found, tmp_path / "d", TokenizeConfig(tokenizer=tokenizer), threads=1)
    dataset = TokenDataset(tmp_path / "d")
    assert loaded.eod is not None
    assert datasets.eod_of(dataset, loaded) == loaded.eod[1]
    without = TokenizeConfig(tokenizer=tokenizer, append_eod=False)
    tokenize.run(found, tmp_path / "d", without, threads=1, force=True)
    with pytest.raises(FormatError, match="replaced"):
        datasets.eod_of(dataset, loaded)


def test_the_index_of_another_dataset_is_not_used(replaceable: Path) -> None:
    order = open_order(replaceable.parent)
    dataset = order.samples.dataset
    assert isinstance(dataset, TokenDataset)
    assert index_for(dataset, None, 0) is not None
    ids = order.samples[0][:4].tolist()
    before = timeline.when(order, [ids], batch_size=4).sightings
    another_dataset(replaceable)
    index.run(replaceable, IndexConfig(texts=False), force=True)
    assert index_for(dataset, None, 0) is None
    after = timeline.when(order, [ids], batch_size=4).sightings
    assert np.array_equal(np.asarray(before), np.asarray(after))


def test_an_order_of_another_dataset_is_refused(order_folder: Path, dataset: Path, tmp_path: Path) -> None:
    for name in (".bin", ".idx"):
        shutil.copy(str(dataset) + name, tmp_path / f"sample{name}")
    shutil.copytree(order_folder, tmp_path / "order")
    manifest = json.loads((tmp_path / "order" / "order.json").read_text())
    manifest["inputs"][0]["path"] = "../sample"
    (tmp_path / "order" / "order.json").write_text(json.dumps(manifest))
    open_order(tmp_path / "order")
    with (tmp_path / "sample.bin").open("r+b") as file:
        file.write(b"\x07")
    with pytest.raises(FormatError, match="another dataset"):
        open_order(tmp_path / "order")


@pytest.mark.parametrize("array", ["doc_idx", "sample_idx", "shuffle_idx"])
def test_damaged_arrays_are_told(order_folder: Path, dataset: Path, tmp_path: Path, array: str) -> None:
    for path in order_folder.glob("*.npy"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = next(tmp_path.glob(f"*_{array}.npy"))
    stem = str(damaged).removesuffix(f"_{array}.npy")
    good = damaged.read_bytes()
    for content in (good[:-1], good[:60], b"", b"\x93NUMPY\x02\x00" + good[8:], good + b"\x00"):
        damaged.write_bytes(content)
        with pytest.raises(FormatError, match=array):
            TrainingOrder(stem, 32, dataset)
    for dtype in (np.float32, np.uint64, np.int16):
        damaged.write_bytes(good)
        np.save(damaged, np.load(damaged).astype(dtype))
        with pytest.raises(FormatError, match=rf"type {np.dtype(dtype).str}, expected one of .*<i8.*{array}"):
            TrainingOrder(stem, 32, dataset)
    # Numbers that lead nowhere are told when they are met.
    data_start = good.index(b"\n") + 1
    damaged.write_bytes(good[:data_start] + b"\xff\xff\xff\x7f" * ((len(good) - data_start) // 4))
    samples = TrainingOrder(stem, 32, dataset)
    with pytest.raises(FormatError):
        samples.read(0, len(samples))


def test_file_names_are_the_references() -> None:
    config = OrderConfig(seq_length=2048, steps=143000, batch_size=1024)
    name = "pile_20B_tokenizer_text_document"
    stem = config.stem(name, 0, config.n_samples)
    assert stem == f"{name}_train_0_indexmap_147164160ns_2048sl_1234s_packedpi_ac"
    old = OrderConfig(seq_length=2048, steps=143000, batch_size=1024, names="v1.0")
    assert old.stem(name, 0, old.n_samples) == f"{name}_train_0_indexmap_147164160ns_2048sl_1234s"
    split = OrderConfig(seq_length=2048, steps=143000, batch_size=1024, split="969,30,1")
    assert (
        split.stem(name, 0, split.n_samples) == f"{name}_train_indexmap_146432000ns_2048sl_1234s_packedpi_ac"
    )


def test_the_margin_is_the_references() -> None:
    assert OrderConfig(seq_length=2048, steps=143000, batch_size=1024).n_samples == 147164160
