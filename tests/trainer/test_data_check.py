"""The data are compared with their checksums before the first step: each file damaged in turn."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pile_tools import open_order
from pile_tools.errors import FormatError, VerifyError
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.token_shards import shard
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions
from trainer.data_check import DataCheck


@pytest.fixture
def folder(dataset: Path, tmp_path: Path) -> Path:
    """A dataset and its order in one folder."""
    for path in dataset.parent.glob(dataset.name + ".*"):
        shutil.copy(path, tmp_path)
    build_order(
        tmp_path / dataset.name, tmp_path / "order", OrderConfig(seq_length=32, steps=4, batch_size=8)
    )
    return tmp_path


def check(folder: Path) -> tuple[int, list[Path]]:
    data = DataCheck(open_order(folder / "order"), folder / "run/checked.json")
    n_bytes = data.n_bytes
    data.run()
    return n_bytes, data.unverified


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_tokens_are_read_once_a_run_and_arrays_at_every_start(folder: Path) -> None:
    (tokens,) = folder.glob("*.bin")
    arrays = sum(path.stat().st_size for path in (folder / "order").glob("*.npy"))
    first, unverified = check(folder)
    assert first >= tokens.stat().st_size + arrays
    assert unverified == []
    assert check(folder) == (arrays, [])
    os.utime(tokens)
    assert check(folder)[0] == arrays + tokens.stat().st_size
    shutil.copy(tokens, folder / "copy")
    (folder / "copy").rename(tokens)
    assert check(folder)[0] == arrays + tokens.stat().st_size


def test_tokens_in_shards_are_the_bytes_of_their_file(folder: Path) -> None:
    """Shards that are read in place of the token file are compared with its checksum, and noted."""
    (tokens,) = folder.glob("*.bin")
    n_bytes = tokens.stat().st_size
    shard(tokens, folder, shard_bytes=n_bytes // 3 + 1)
    tokens.unlink()
    arrays = sum(path.stat().st_size for path in (folder / "order").glob("*.npy"))
    first, unverified = check(folder)
    assert (first >= n_bytes + arrays, unverified) == (True, [])
    assert check(folder) == (arrays, [])
    shards = sorted(folder.glob("*-of-*.bin"))
    assert len(shards) == 3
    order = open_order(folder / "order")
    for path in shards:
        whole = path.read_bytes()
        damage(path)
        data = DataCheck(order, folder / "run/checked.json")
        assert data.n_bytes == arrays + n_bytes
        with pytest.raises(
            VerifyError, match=r"damaged or replaced \(.*-00000-of-00002.bin and 2 more shards"
        ):
            data.run()
        path.write_bytes(whole)
    assert check(folder) == (arrays + n_bytes, [])
    shards[1].unlink()
    with pytest.raises(FormatError, match="00001-of-00002"):
        DataCheck(order, folder / "run/checked.json")


@pytest.mark.parametrize("name", ["order/*_doc_idx.npy", "*.bin", "*.idx", "*.provenance"])
def test_every_missing_file_is_named(folder: Path, name: str) -> None:
    order = open_order(folder / "order")
    (path,) = folder.glob(name)
    path.unlink()
    with pytest.raises((VerifyError, FormatError), match=path.name.removesuffix(".bin")):
        DataCheck(order, folder / "run/checked.json").run()


@pytest.mark.parametrize("is_known", [False, True])
def test_every_damaged_file_is_named(folder: Path, is_known: bool) -> None:
    if is_known:
        check(folder)
    paths = [*(folder / "order").glob("*.npy"), *folder.glob("*.bin"), *folder.glob("*.provenance")]
    assert len(paths) == 5
    # Opened before the damage: an order compares samples of its dataset when it is opened.
    order = open_order(folder / "order")
    for path in paths:
        whole = path.read_bytes()
        damage(path)
        data = DataCheck(order, folder / "run/checked.json")
        with pytest.raises(VerifyError, match=path.name.replace(".", r"\.")):
            data.run()
        path.write_bytes(whole)
    assert check(folder)[1] == []


def test_manifests_that_were_changed_are_named(folder: Path) -> None:
    """That of the order, of the order that it is an intervention on, and of the dataset."""
    base = open_order(folder / "order")
    save_interventions(insert_tokens(base, [Insert(0, 1, 2, (5, 6))]), folder / "view")
    (dataset,) = folder.glob("*.manifest.json")
    order = open_order(folder / "view")
    DataCheck(order, folder / "run/checked.json").run()
    for path in (folder / "order/order.json", folder / "view/order.json", dataset):
        whole = path.read_bytes()
        values = json.loads(whole)
        values["made_by"]["pile_tools"] += "x"
        path.write_text(json.dumps(values))
        with pytest.raises(VerifyError, match=path.name.replace(".", r"\.")):
            DataCheck(order, folder / "run/checked.json")
        path.write_bytes(whole)


def test_damaged_notes_cost_another_reading(folder: Path) -> None:
    first, _ = check(folder)
    for text in ("", "{", "[]", "[" * 100_000, '{"x": 1}'):
        (folder / "run/checked.json").write_text(text)
        assert check(folder)[0] == first


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "link to a device", "broken link"])
def test_notes_that_are_no_file_cost_another_reading(folder: Path, kind: str) -> None:
    first, _ = check(folder)
    notes = folder / "run/checked.json"
    notes.rename(folder / "aside.json")
    if kind == "pipe":
        os.mkfifo(notes)
    elif kind == "folder":
        notes.mkdir()
    else:
        target = {"link": "aside.json", "broken link": "none", "link to a device": "/dev/full"}[kind]
        notes.symlink_to(folder / target)
    data = DataCheck(open_order(folder / "order"), notes)
    assert data.n_bytes == first


def test_data_without_checksums_are_told(folder: Path) -> None:
    (manifest,) = folder.glob("*.manifest.json")
    manifest.unlink()
    assert [path.resolve() for path in check(folder)[1]] == [
        (folder / manifest.name.removesuffix(".manifest.json")).resolve()
    ]
