"""`pile-train loss-page` on run folders made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.page import read_page

from pile_tools import manifest
from pile_tools.manifest import Request
from trainer.cli import group
from trainer.loss_page import loss_page, open_logged


def a_run(folder: Path, *, n: int = 400, shift: float = 0.0, batch_size: int = 8, bits: bool = True) -> Path:
    folder.mkdir(parents=True)
    settings = {"batch_size": batch_size, "steps": 400, "optimizer.lr": 0.5 + shift, "seed": 1}
    manifest.write(folder / "run.json", Request("run", settings, []), [], {})
    lines = [
        {
            **{"step": s, "tokens": (s + 1) * batch_size * 32, "loss": 2 + 4 / (1 + s) + shift, "lr": 0.5},
            **{"grad_norm": 1.0, "time": "2026-03-01T12:00:00.000Z", "tokens_per_second": 5000.0},
        }
        for s in range(n)
    ]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if bits:
        line = {"step": 0, "tokens": 0, "loss": 6.125 + shift, "bits_per_byte": 2.25}
        (folder / "validation_log.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, ["loss-page", *map(str, arguments)])


def test_runs_are_compared_on_a_page_that_loads_nothing(tmp_path: Path) -> None:
    first, second = a_run(tmp_path / "runs/a&b"), a_run(tmp_path / "runs/two", shift=0.25, n=300)
    page = tmp_path / "losses.html"
    result = invoke(first, second, "-o", page, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["runs"][1] == {"run": str(second), "n_steps": 300}
    text = read_page(page.read_text()).text
    for said in (
        "a&b",
        "two",
        "300 of 400",
        "6.1250",
        "6.3750",
        "2.2500",
        "optimizer.lr",
        "0.75",
        "Difference",
    ):
        assert said in text or said in page.read_text(), said
    assert "seed" not in text
    assert invoke(first, "-o", page).exit_code == 0


def test_differences_are_those_of_equal_steps(tmp_path: Path) -> None:
    runs = open_logged([a_run(tmp_path / "a"), a_run(tmp_path / "b", shift=0.25, n=300)])
    (chart,) = [chart for chart, _ in loss_page(runs).charts if chart.title == "Difference from a"]
    zero, other = chart.series  # type: ignore[attr-defined]
    assert [x for x, _ in other.points] == list(range(297))
    np.testing.assert_allclose([y for _, y in other.points], 0.25)
    assert {y for _, y in zero.points} == {0.0}


def test_batches_of_other_sizes_are_drawn_by_tokens(tmp_path: Path) -> None:
    runs = open_logged([a_run(tmp_path / "a"), a_run(tmp_path / "b", batch_size=16, bits=False)])
    charts = {chart.title: chart for chart, _ in loss_page(runs).charts}
    assert "Difference from a" not in charts
    losses = charts["Training loss"]
    assert losses.x_label == "training tokens"  # type: ignore[attr-defined]
    assert [s.points[0][0] for s in losses.series] == [256, 512]  # type: ignore[attr-defined]


def test_a_branch_is_compared_from_its_first_step(tmp_path: Path) -> None:
    branch = a_run(tmp_path / "b", shift=0.25)
    log = branch / "train_log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[100:]))
    charts = {
        chart.title: chart for chart, _ in loss_page(open_logged([a_run(tmp_path / "a"), branch])).charts
    }
    zero, other = charts["Difference from a"].series  # type: ignore[attr-defined]
    assert (zero.points[0][0], other.points[0][0], other.points[-1][0]) == (0, 100, 396)
    np.testing.assert_allclose([y for _, y in other.points], 0.25)
    assert charts["Training loss"].x_label == "training step"  # type: ignore[attr-defined]


def test_a_run_alone_shows_each_step(tmp_path: Path) -> None:
    (first, *_) = loss_page(open_logged([a_run(tmp_path / "a")])).charts
    assert [s.name for s in first[0].series] == ["each step", "mean"]  # type: ignore[attr-defined]


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a")
    page = tmp_path / "losses.html"
    for arguments, message in (
        ([run, run, "-o", page], "a run is given twice"),
        ([run] * 9 + ["-o", page], "9 runs, a page compares at most 8"),
        ([run, "-o", tmp_path / "losses.svg"], "-o writes a page, FILE.html"),
        ([tmp_path / "absent", "-o", page], "no run of pile-train"),
    ):
        assert message in str(invoke(*arguments).exception), message
    (run / "train_log.jsonl").write_text("")
    assert "trained no step yet" in str(invoke(run, "-o", page).exception)
    (run / "run.json").rename(run / "manifest.json")
    error = str(invoke(run, "-o", page).exception)
    assert "does not end with step 399, the last of a finished run" in error
    assert "train_log.jsonl" in error
    (tmp_path / "mine.html").write_text("mine")
    other = a_run(tmp_path / "b")
    assert invoke(other, "-o", tmp_path / "mine.html").exit_code == 1
    assert (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize("n", [1, 2, 99, 101])
def test_short_runs_are_drawn(tmp_path: Path, n: int) -> None:
    assert loss_page(open_logged([a_run(tmp_path / "a", n=n), a_run(tmp_path / "b", n=n)])).charts
