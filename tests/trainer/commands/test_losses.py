"""`pile-train losses` on a run folder made by hand: a real order, losses that are known."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.page import read_page

from pile_tools import FormatError, manifest, open_order
from pile_tools.cli import group as pile_tools_group
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.manifest import Request
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions
from trainer.cli import group
from trainer.row_losses import ROW_LOSSES_FILE

N_STEPS, BATCH = 40, 8


@pytest.fixture(scope="module")
def losses() -> Any:
    found = np.random.default_rng(1).uniform(1, 4, (N_STEPS, BATCH)).astype(np.float16)
    found[12, 3], found[12, 5] = 9.5, np.nan
    return found


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, order: Path, losses: Any) -> Path:
    """A run in training, which has no manifest yet."""
    folder = tmp_path_factory.mktemp("run")
    inputs = [manifest.file_entry(order / "order.json", folder, role="order")]
    manifest.write(
        folder / "run.json", Request("run", {"batch_size": BATCH, "steps": N_STEPS}, inputs), [], {}
    )
    (folder / ROW_LOSSES_FILE).write_bytes(losses.tobytes())
    return folder


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, ["losses", *map(str, arguments)], catch_exceptions=True)


def test_the_rows_of_a_step_come_with_their_documents(run_folder: Path, order: Path, losses: Any) -> None:
    found = json.loads(invoke(run_folder, "--step", "12", "--top", "3", "--json").stdout)
    assert (found["step"], found["n_rows"]) == (12, BATCH)
    assert found["loss"] == pytest.approx(np.nanmean(losses[12].astype(np.float64)))
    assert [row["row"] for row in found["rows"]][:2] == [5, 3]
    assert [row["loss"] for row in found["rows"]][:2] == [None, 9.5]
    opened = open_order(order)
    tokens = opened.batch(12)[3]
    row = found["rows"][1]
    assert row["sample"] == 12 * BATCH + 3
    read = [opened.dataset[s["document"]][s["start"] : s["start"] + s["n_tokens"]] for s in row["spans"]]
    np.testing.assert_array_equal(np.concatenate(read), tokens)
    origin = opened.dataset.origin(row["spans"][0]["document"])
    assert origin is not None
    assert [row["spans"][0][key] for key in ("subset", "shard", "record")] == [
        origin[key]
        for key in ("subset", "shard", "record")  # type: ignore[literal-required]
    ]


@pytest.mark.parametrize("kind", ["as the order", "smaller", "order of samples"])
def test_the_next_command_shows_the_rows_of_the_step(
    order: Path, dataset: Path, tmp_path: Path, kind: str
) -> None:
    """Whatever the batch size of the order is, if it has one."""
    size = BATCH if kind == "as the order" else 4
    if kind == "order of samples":
        order = tmp_path / "order"
        build_order(dataset, order, OrderConfig(seq_length=32, samples=64))
    inputs = [manifest.file_entry(order / "order.json", tmp_path, role="order")]
    manifest.write(tmp_path / "run.json", Request("run", {"batch_size": size, "steps": 3}, inputs), [], {})
    (tmp_path / ROW_LOSSES_FILE).write_bytes(np.ones((3, size), np.float16).tobytes())
    printed = invoke(tmp_path, "--step", "2").output
    program, *command = shlex.split(printed.splitlines()[-1].removeprefix("next: "))
    assert program == "pile-tools"
    found = json.loads(CliRunner().invoke(pile_tools_group, [*command, "--json"]).stdout)
    sample = json.loads(invoke(tmp_path, "--step", "2", "--json").stdout)["rows"][0]["sample"]
    assert sample == 2 * size
    assert found["rows"][0]["tokens"] == open_order(order).samples[sample].tolist()


def test_an_inserted_text_has_its_subset(order: Path, tmp_path: Path) -> None:
    view = insert_tokens(open_order(order), [Insert(0, 1, 2, (5, 6))])
    save_interventions(view, tmp_path / "view")
    inputs = [manifest.file_entry(tmp_path / "view/order.json", tmp_path, role="order")]
    manifest.write(tmp_path / "run.json", Request("run", {"batch_size": BATCH, "steps": 1}, inputs), [], {})
    (tmp_path / ROW_LOSSES_FILE).write_bytes(np.ones((1, BATCH), np.float16).tobytes())
    rows = json.loads(invoke(tmp_path, "--step", "0", "--json").stdout)["rows"]
    spans = next(row["spans"] for row in rows if row["row"] == 1)
    assert [span["n_tokens"] for span in spans if span["subset"] == "inserted"] == [2]


def test_the_spike_is_printed_first(run_folder: Path) -> None:
    said = invoke(run_folder, "--step", "12", "--top", "2").output
    assert "step 12: 8 rows, mean loss" in said
    assert "row 3, sample 99: loss 9.500" in said
    assert ".jsonl" in said


def naive_means(order: Path, losses: Any, first: int, end: int) -> dict[str | None, float]:
    """Mean loss by subset, document by document."""
    opened = open_order(order)
    total: dict[str | None, list[float]] = {}
    for step in range(first, end):
        for row, document, _, length in opened.batch_spans(step).tolist():
            origin, loss = opened.dataset.origin(document), float(losses[step, row])
            if np.isfinite(loss):
                entry = total.setdefault(origin["subset"] if origin else None, [0.0, 0.0])
                entry[0] += loss * length
                entry[1] += length
    return {name: of[0] / of[1] for name, of in total.items()}


def test_means_by_subset_are_those_of_their_documents(run_folder: Path, order: Path, losses: Any) -> None:
    found = json.loads(invoke(run_folder, "--by", "subset", "--every", "15", "--json").stdout)
    assert (found["n_steps"], found["n_rows_without_loss"]) == (40, 1)
    assert [interval["first_step"] for interval in found["intervals"]] == [0, 15, 30]
    for interval in found["intervals"]:
        first = interval["first_step"]
        expected = naive_means(order, losses, first, min(first + 15, N_STEPS))
        assert set(interval["by_subset"]) == {name for name in expected if name is not None}
        for name, value in interval["by_subset"].items():
            assert value["loss"] == pytest.approx(expected[name])
        assert interval["without_subset"]["loss"] == pytest.approx(expected[None])


def test_subsets_are_printed_and_drawn(run_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "subsets.html"
    said = invoke(run_folder, "--by", "subset", "--plot", page)
    assert said.exit_code == 0, said.output
    assert "in 40 steps, by subset:" in said.output
    assert all(len(line) <= 80 for line in said.output.splitlines() if str(page) not in line)
    text = read_page(page.read_text()).text
    assert "Books" in text
    assert "Last interval" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --step or --by subset"),
        (["--step", "1", "--by", "subset"], "give either --step or --by subset"),
        (["--step", "1", "--every", "2"], "need --by subset"),
        (["--step", "40"], "no step 40: the run has trained 40 steps, from 0"),
    ],
)
def test_what_cannot_be_answered_is_said(run_folder: Path, arguments: list[str], message: str) -> None:
    found = invoke(run_folder, *arguments)
    assert found.exit_code != 0
    assert message in str(found.exception) + found.output


def test_another_order_is_refused(run_folder: Path, order: Path, tmp_path: Path) -> None:
    record = manifest.read(run_folder / "run.json")
    (entry,) = record.inputs
    inputs = [{**entry, "path": manifest.relative(order / "order.json", tmp_path), "sha256": "0" * 64}]
    manifest.write(tmp_path / "run.json", Request("run", record.settings, inputs), [], {})
    (tmp_path / ROW_LOSSES_FILE).write_bytes((run_folder / ROW_LOSSES_FILE).read_bytes())
    assert "not the order that the run was trained on" in str(invoke(tmp_path, "--step", "0").exception)


@pytest.mark.parametrize("n_bytes", [0, 1, 2 * BATCH, 2 * BATCH * N_STEPS - 2, 2 * BATCH * N_STEPS + 2])
@pytest.mark.parametrize("asked", [("--by", "subset"), ("--step", "1")])
def test_the_losses_of_a_finished_run_are_all_there(
    run_folder: Path, losses: Any, tmp_path: Path, n_bytes: int, asked: tuple[str, str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    (folder / "run.json").rename(folder / "manifest.json")
    (folder / ROW_LOSSES_FILE).write_bytes((losses.tobytes() + b"xy")[:n_bytes])
    error = invoke(folder, *asked).exception
    assert isinstance(error, FormatError), error
    assert f"expected {2 * BATCH * N_STEPS:,}" in str(error)
    assert ROW_LOSSES_FILE in str(error)
