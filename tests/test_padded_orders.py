"""Orders with padding: samples of little or no text are answered for as all others."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pile_tools import Order, open_order, timeline
from pile_tools.cli import group
from pile_tools.cli import run as run_cli
from pile_tools.jobs.order import OrderConfig, run
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions

PACKINGS = ["unpacked", "pack_until_overflow"]


def write_dataset(prefix: Path, documents: list[list[int]]) -> Path:
    """A dataset as GPT-NeoX writes it, which keeps documents without any token."""
    lengths = np.array([len(document) for document in documents], "<i4")
    starts = (np.cumsum(lengths) - lengths).astype("<i8") * 2
    np.array([token for document in documents for token in document], "<u2").tofile(
        prefix.with_suffix(".bin")
    )
    n = len(documents)
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, n, n + 1)
    arrays = lengths.tobytes() + starts.tobytes() + np.arange(n + 1, dtype="<i8").tobytes()
    prefix.with_suffix(".idx").write_bytes(header + arrays)
    return prefix


@pytest.fixture
def mostly_empty(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "d", [[]] * 30 + [[5, 6, 7, 8]] * 2)


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The document that a command prints for `--json`."""
    capsys.readouterr()
    assert run_cli(group, [*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("seed", range(4))
def test_samples_without_any_token_are_answered_for(
    mostly_empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], packing: str, seed: int
) -> None:
    order, options = tmp_path / "o", {"seq_length": 8, "samples": 12, "batch_size": 2}
    run(mostly_empty, order, OrderConfig(packing=packing, seed=seed, **options))  # type: ignore[arg-type]
    opened = open_order(order)
    assert opened.knows_documents
    rows = np.concatenate([opened.batch(step) for step in range(6)])
    found = answer(capsys, "mixture", order, "--every", 1)
    assert sum(one["n_tokens_without_subset"] for one in found["intervals"]) == (rows[:, :-1] != 0).sum()
    sightings = answer(capsys, "when", order, "--ids", "5 6")["sightings"]
    assert len(sightings) == ((rows[:, :-1] == 5) & (rows[:, 1:] == 6)).sum()
    assert all(row["document"] is not None for row in sightings)
    assert len(answer(capsys, "batch", order, "--step", 0, "--tokens")["rows"]) == 2
    for arguments in (["batch", order, "--step", 0, "--tokens"], ["mixture", order, "--every", 1]):
        assert run_cli(group, [*map(str, arguments)]) == 0
    assert run_cli(group, ["mixture", str(order), "--every", "1", "--plot", str(tmp_path / "m.html")]) == 0
    assert run_cli(group, ["trace", str(order), "31"]) == 0
    # Of a run, or of an interval, there may be padding only.
    assert run_cli(group, ["repeats", str(order), "--every", "1", "--plot", str(tmp_path / "r.html")]) == 0
    shown = capsys.readouterr().out + (tmp_path / "r.html").read_text()
    assert "nan" not in shown


@pytest.mark.parametrize("packing", PACKINGS)
def test_padding_is_not_read(tmp_path: Path, packing: str) -> None:
    documents = [[1 + (i * 7 + k) % 50 for k in range(i % 13)] for i in range(40)]
    prefix = write_dataset(tmp_path / "d", documents)
    run(prefix, tmp_path / "o", OrderConfig(seq_length=8, samples=60, batch_size=4, packing=packing))
    opened = open_order(tmp_path / "o")
    expected = timeline.mixture(opened, interval_steps=4).n_tokens.sum(axis=1)
    assert (expected < 4 * 4 * 8).any()
    found = timeline.repeats(opened, interval_steps=4).intervals
    assert found["n_tokens"].tolist() == expected.tolist()


def test_an_inserted_text_has_its_subset_in_every_answer(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(dataset, tmp_path / "o", OrderConfig(seq_length=16, steps=4, batch_size=2))
    changed = insert_tokens(open_order(tmp_path / "o"), [Insert(1, 0, 3, (7, 8, 9, 7, 8, 9))])
    save_interventions(changed, tmp_path / "s")
    spans = answer(capsys, "batch", tmp_path / "s", "--step", 1, "--row", 0)["rows"][0]["spans"]
    assert [span["n_tokens"] for span in spans if span["subset"] == "inserted"] == [6]
    sightings = answer(capsys, "when", tmp_path / "s", "--ids", "7 8 9 7 8 9")["sightings"]
    assert "inserted" in {row["subset"] for row in sightings}
    exported = tmp_path / "e.csv"
    assert run_cli(group, ["export", str(tmp_path / "s"), "--steps", "1:2", "-o", str(exported)]) == 0
    assert '"inserted"' in exported.read_text()


def counted_plainly(opened: Order, documents: list[list[int]], interval: int) -> list[list[int]]:
    """By interval of steps: the tokens read, those read before in their document, and only in a duplicate."""
    size, n_steps = opened.batch_size or 1, opened.steps or 0
    same_as = [documents.index(document) for document in documents]
    counts = [[0, 0, 0] for _ in range(-(-n_steps // interval))]
    read: set[tuple[int, int]] = set()
    read_in_class: set[tuple[int, int]] = set()
    for sample in range(n_steps * size):
        count = counts[sample // size // interval]
        offset = 0
        for _, document, start, length in opened.samples.spans(sample, 1).tolist():
            for token in range(start, start + min(length, opened.seq_length - offset)):
                count[0] += 1
                count[1] += (document, token) in read
                count[2] += (document, token) not in read and (same_as[document], token) in read_in_class
                read.add((document, token))
                read_in_class.add((same_as[document], token))
            offset += length
    return counts


@pytest.mark.parametrize("packing", [*PACKINGS, "packed"])
@pytest.mark.parametrize("seed", range(8))
def test_repeats_are_those_of_a_plain_count(tmp_path: Path, packing: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [rng.integers(1, 90, rng.integers(0, 30)).tolist() for _ in range(12)]
    documents = [kinds[i] for i in rng.integers(0, 12, 15)]
    prefix = write_dataset(tmp_path / "d", documents)
    settings = OrderConfig(seq_length=8, steps=5, batch_size=4, packing=packing, seed=seed)
    run(prefix, tmp_path / "o", settings)
    shuffle = next((tmp_path / "o").glob("*_shuffle_idx.npy"))
    for is_damaged in (False, True):
        if is_damaged:
            listed = np.load(shuffle)
            listed[1:4] = listed[0]
            np.save(shuffle, listed)
        opened = open_order(tmp_path / "o", compat="gpt-neox" if packing != "packed" else None)
        found = timeline.repeats(opened, interval_steps=2).intervals
        columns = [found[name].tolist() for name in ("n_tokens", "by_epoch", "by_duplicate")]
        assert [list(row) for row in zip(*columns, strict=True)] == counted_plainly(opened, documents, 2)
