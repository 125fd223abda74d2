"""Splits, epochs, whole documents, blends, Megatron-LM's order: from Python and the command line."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pile_tools import ConfigError, FormatError, OutputExistsError, _core, open_order
from pile_tools.jobs.order import Blend, OrderConfig, run
from pile_tools.jobs.verify import run as verify


def cases(golden: Path) -> list[dict[str, Any]]:
    found = json.loads((golden / "index_manifest.json").read_text())["cases"]
    assert len(found) >= 27
    return list(found)


def config_of(case: dict[str, Any], **more: Any) -> OrderConfig:
    part = None if case["split"] is None else case["name"]
    return OrderConfig(
        seq_length=case["seq_length"],
        samples=case["num_samples"],
        epochs=case["num_epochs_arg"],
        seed=case["seed"],
        packing=case["pack_impl"],
        chop=case["allow_chopped"],
        split=case["split"],
        part=part or "train",
        **more,
    )


def test_every_case_has_the_references_files_and_tokens(golden: Path, tmp_path: Path) -> None:
    for case in cases(golden):
        folder = tmp_path / case["id"]
        labels = golden / case["label_dataset"] if case["label_dataset"] else None
        run(golden / case["dataset"], folder, config_of(case, compat="gpt-neox"), labels=labels)
        for name, expected in case["npy_sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name
        order = open_order(folder)
        tokens = order.samples.read(0, case["len"]).astype("<i8")
        assert hashlib.sha256(tokens.tobytes()).hexdigest() == case["sha256_all_text"], case["id"]
        if labels:
            assert order.labels is not None
            for sample in case["samples"]:
                found = order.labels[sample["i"]].astype("<i8").tobytes()
                assert hashlib.sha256(found).hexdigest() == sample["label_sha256"]


def test_an_order_that_gpt_neox_wrote_is_adopted_and_read(golden: Path, tmp_path: Path) -> None:
    case = next(case for case in cases(golden) if case["id"] == "multi_sl64")
    for suffix in (".bin", ".idx"):
        shutil.copy(golden / (case["dataset"] + suffix), tmp_path)
    for file in (golden / "index" / case["id"]).glob("*.npy"):
        shutil.copy(file, tmp_path)
        shutil.copy(file, tmp_path / file.name.replace("_packedpi_ac", ""))  # v1.0's name
    prefix = tmp_path / Path(case["dataset"]).name
    for file in sorted(tmp_path.glob("*_shuffle_idx.npy")):
        order = open_order(file)
        assert order.seed == case["seed"]
        tokens = order.samples.read(0, case["len"]).astype("<i8")
        assert hashlib.sha256(tokens.tobytes()).hexdigest() == case["sha256_all_text"]
    for names in ("now", "v1.0"):
        run(prefix, None, config_of(case, names=names), force=names == "v1.0")
    for length in ("99999999999999999999", "4294967296", "0", "\u0663"):
        other = tmp_path / re.sub("_[0-9]+sl_", f"_{length}sl_", file.name)
        shutil.copy(file, other)
        with pytest.raises(FormatError, match=re.escape(f"({other})")):
            open_order(other)
        other.unlink()
    damaged = next(tmp_path.glob("*_1234s_shuffle_idx.npy"), None) or next(tmp_path.glob("*_shuffle_idx.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (tmp_path / "order.json").unlink()
    with pytest.raises(OutputExistsError, match="is not from pile-tools"):
        run(prefix, None, config_of(case, names="v1.0"))


def test_a_split_takes_the_documents_of_its_part(dataset: Path, tmp_path: Path) -> None:
    n = len(_core.TokenSource(dataset))
    seen: list[set[int]] = []
    for part in ("train", "valid", "test"):
        config = OrderConfig(seq_length=16, samples=50, split="8/1/1", part=part)
        run(dataset, tmp_path / part, config)
        order = open_order(tmp_path / part)
        seen.append(set(order.samples.spans(0, len(order))[:, 1].tolist()))
    assert max(seen[0]) < min(seen[1]) <= max(seen[1]) < min(seen[2]) < n
    with pytest.raises(ConfigError, match=r"part of the .* is empty"):
        run(dataset, tmp_path / "none", OrderConfig(seq_length=16, samples=5, split="1", part="valid"))
    with pytest.raises(ConfigError, match="not up to three shares"):
        run(dataset, tmp_path / "none", OrderConfig(seq_length=16, samples=5, split="a,b"))


def test_a_blend_takes_from_each_dataset_by_its_weight(golden: Path, dataset: Path, tmp_path: Path) -> None:
    prefixes = (dataset, golden / "dataset" / "mini_eod_text_document")
    config = OrderConfig(seq_length=32, samples=600, seed=5)
    run(Blend(prefixes, (3.0, 1.0)), tmp_path, config)
    order = open_order(tmp_path)
    alone = []
    for k, (prefix, n) in enumerate(zip(prefixes, _core.normalized_weights([3, 1], 600)[1], strict=True)):
        run(prefix, tmp_path / str(k), OrderConfig(seq_length=32, samples=n, seed=5))
        alone.append(open_order(tmp_path / str(k)))
    stem = order.manifest.settings["stem"] if order.manifest else ""
    numbers = np.load(tmp_path / f"{stem}_dataset_index.npy")
    places = np.load(tmp_path / f"{stem}_dataset_sample_index.npy")
    assert numbers.dtype == np.uint8
    assert np.bincount(numbers[:600]).tolist() == [450, 150]
    for i in (0, 1, 2, 3, 100, 599):
        assert np.array_equal(order[i], alone[numbers[i]][places[i]])
        spans = order.samples.spans(i, 1)
        rows = [order.dataset[d][s : s + n] for _, d, s, n in spans.tolist()]
        assert np.array_equal(np.concatenate(rows), order[i])
    first = int(np.flatnonzero(numbers == 1)[0])
    assert order.dataset.origin(int(order.samples.spans(first, 1)[0, 1])) is None
    assert set(order.dataset.subsets) == {"Books", "Code"}
    again = pickle.loads(pickle.dumps(order.samples))
    assert np.array_equal(again.read(0, 20), order.samples.read(0, 20))
    verify(tmp_path)
    with pytest.raises(ConfigError, match="1 weight for 2 datasets"):
        run(Blend(prefixes, (1.0,)), tmp_path / "x", config)
    with pytest.raises(ConfigError, match="a blend takes no labels"):
        run(Blend(prefixes), tmp_path / "x", config, labels=prefixes[0])


def test_the_last_epoch_of_megatron_stands_apart(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "one", OrderConfig(seq_length=32, epochs=1, packing="megatron"))
    per_epoch = len(open_order(tmp_path / "one"))
    config = OrderConfig(seq_length=32, samples=per_epoch + per_epoch // 3, packing="megatron")
    made, _ = run(dataset, tmp_path / "two", config)
    assert made.summary["has_separate_epoch"]
    order = open_order(tmp_path / "two")
    documents = order.samples.spans(0, per_epoch - 1)[:, 1]
    n = len(_core.TokenSource(dataset))
    assert len(set(documents.tolist())) >= n - 2


def test_documents_can_be_ordered_by_their_index_alone(golden: Path, tmp_path: Path) -> None:
    prefix = golden / "dataset" / "mini_eod_text_document"
    shutil.copy(f"{prefix}.idx", tmp_path / "mini.idx")
    config = OrderConfig(seq_length=64, steps=10, batch_size=4)
    run(tmp_path / "mini", tmp_path / "order", config)
    run(prefix, tmp_path / "whole", config)
    order, whole = open_order(tmp_path / "order"), open_order(tmp_path / "whole")
    assert np.array_equal(order.batch_spans(3), whole.batch_spans(3))
    with pytest.raises(FormatError, match="its tokens do not"):
        order.batch(3)


def test_shards_of_a_dataset_are_read_in_place(golden: Path, tmp_path: Path) -> None:
    from pile_tools.jobs.token_shards import shard

    prefix = golden / "dataset" / "mini_eod_text_document"
    shutil.copy(f"{prefix}.idx", tmp_path)
    shard(Path(f"{prefix}.bin"), tmp_path, shard_bytes=99_999)
    config = OrderConfig(seq_length=64, samples=2000)
    run(tmp_path / prefix.name, tmp_path / "order", config)
    run(prefix, tmp_path / "whole", config)
    order, whole = open_order(tmp_path / "order"), open_order(tmp_path / "whole")
    assert np.array_equal(order.samples.read(0, 2000), whole.samples.read(0, 2000))
    last = sorted(tmp_path.glob("*-of-*.bin"))[-1]
    last.unlink()
    with pytest.raises(FormatError, match="is missing"):
        open_order(tmp_path / "order")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"samples": 0}, "at least 1"),
        ({"samples": 5, "epochs": 1}, "either"),
        ({}, "either"),
        ({"steps": 5}, "need a batch-size"),
        ({"samples": 5, "seed": 2**32}, "seed"),
        ({"samples": 5, "packing": "tight"}, "no packing"),
        ({"samples": 5, "packing": "unpacked", "names": "v1.0"}, "v1.0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        OrderConfig(seq_length=8, **settings)


def test_whole_documents_of_a_later_part_are_refused(dataset: Path, tmp_path: Path) -> None:
    config = OrderConfig(seq_length=8, samples=5, split="8,1,1", part="valid", packing="unpacked")
    with pytest.raises(ConfigError, match="in every part of a split"):
        run(dataset, tmp_path, config)


def test_all_documents_left_out_is_told(dataset: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    shutil.copy(f"{dataset}.idx", f"{labels}.idx")
    shutil.copy(f"{dataset}.bin", f"{labels}.bin")
    for packing in ("unpacked", "pack_until_overflow"):
        config = OrderConfig(seq_length=1, samples=5, packing=packing, chop=False)
        with pytest.raises(ConfigError, match="are excluded"):
            run(golden_onelong(dataset), tmp_path / packing, config)


def golden_onelong(dataset: Path) -> Path:
    """A dataset of one document of five tokens."""
    prefix = dataset.with_name("onelong")
    if not prefix.with_suffix(".bin").exists():
        import struct

        prefix.with_suffix(".bin").write_bytes(bytes(10))
        header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 1, 2)
        prefix.with_suffix(".idx").write_bytes(header + struct.pack("<iqqq", 5, 0, 0, 1))
    return prefix
