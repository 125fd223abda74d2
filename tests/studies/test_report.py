"""`pile-study report`: one page that loads nothing, escapes what the data say, and is wrong about nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.page import Page, read_page
from tests.studies.conftest import BATCH_SIZE, STEPS, write_run

from pile_tools import ConfigError, FormatError, OutputExistsError, PileError, manifest, publish
from pile_tools.cli import run as run_cli
from pile_tools.jobs import merge, stages, verify
from pile_tools.jobs.order import Blend, OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.manifest import Request
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions
from pile_tools.order.open import open_order
from pile_tools.present import colors
from studies.cli import group
from studies.memorization import study
from studies.memorization.plan import MemorizationConfig, prepare
from studies.report import chain, job, page, plots, wording
from studies.report.facts import _tokenizer_manifest, collect
from trainer.smoothing import reach, smooth


@pytest.fixture
def study_folder(run_folder: Path, tmp_path: Path, canaries_file: Path, loaded_steps: list[int]) -> Path:
    """A finished study of the run."""
    study.run(prepare(run_folder, MemorizationConfig(rows=60), canaries_file), tmp_path / "memo")
    return tmp_path / "memo"


def _report(run: Path, study_folder: Path, output: Path, **more: Any) -> str:
    job.run(run, study_folder, output, **more)
    return output.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["/", "..", ".", "tokenizer.v2.json"])
def test_the_manifest_of_a_tokenizer_with_any_path_is_looked_up(tmp_path: Path, path: str) -> None:
    entry = {"role": "tokenizer", "path": path, "sha256": "0" * 64}
    manifest.write(tmp_path / "tokenizer.v2.manifest.json", Request("test", {}), [], {})
    tokens = manifest.write(tmp_path / "d.manifest.json", Request("test", {}, [entry]), [], {})
    assert (_tokenizer_manifest(tokens) is not None) == path.endswith(".json")


def test_the_page_is_whole_and_loads_nothing(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    text = _report(run_folder, study_folder, tmp_path / "report.html")
    read_page(text)
    assert len(text) < 3_000_000


def test_text_from_the_data_is_escaped(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    parsed = Page(_report(run_folder, study_folder, tmp_path / "report.html"))
    tags = {tag for tag, _ in parsed.tags}
    assert "script" not in tags
    assert "<b>Code</b>" in parsed.text
    summary = json.loads((study_folder / "memorization.json").read_text())
    assert any("<script>" in passage["prompt"] for passage in summary["passages"])
    for passage in summary["passages"]:
        assert passage["prompt"] in parsed.text


def test_the_page_says_what_the_files_say(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    text = " ".join(Page(_report(run_folder, study_folder, tmp_path / "report.html")).text.split())
    facts = collect(run_folder, study_folder)
    assert facts.tokens is not None
    assert f"{facts.tokens.summary['n_documents']:,}" in text
    assert "6.00 → 4.19" in text
    assert "reproduces 100.0% of the tokens" in text
    assert facts.run.manifest.request[:16] in text
    assert facts.run.order.samples.dataset.fingerprint[:16] in text
    assert "pile-tools verify report.html --chain" in text


def test_commands_show_the_steps_of_the_run(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    """Of a run whose batches are not those of the order, too."""
    facts = collect(run_folder, study_folder)
    for size, option in ((BATCH_SIZE, ""), (BATCH_SIZE // 2, f" --batch-size {BATCH_SIZE // 2}")):
        run = dataclasses.replace(facts.run, batch_size=size)
        found = chain.commands(dataclasses.replace(facts, run=run), tmp_path / "report.html")
        assert found[-1][0].endswith(f" --step 0{option}")


def test_settings_without_a_value_are_left_out() -> None:
    shown = page._settings_of({"optimizer.eps": 1e-8, "optimizer.decay": None, "seed": 1}, "optimizer.")
    assert shown == [("epsilon", "1e-08")]


def test_the_report_can_be_verified_with_its_chain(
    run_folder: Path, study_folder: Path, tmp_path: Path
) -> None:
    _report(run_folder, study_folder, tmp_path / "report.html")
    checks = verify.run(tmp_path / "report.html", chain=True)
    assert {check.state for check in checks} <= {"ok", "absent"}
    assert any("train_log.jsonl" in check.what or "run/manifest.json" in check.what for check in checks)


@pytest.mark.parametrize("name", ["train_log.jsonl", "memorization.json", "canaries.json"])
def test_a_report_shows_only_what_the_manifests_list(
    run_folder: Path, study_folder: Path, tmp_path: Path, name: str
) -> None:
    """They are all that it records: what was changed since would be shown unchecked."""
    path = (run_folder if name == "train_log.jsonl" else study_folder) / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    with pytest.raises(FormatError, match=rf"is not the file that .*manifest\.json lists.*{name}"):
        job.run(run_folder, study_folder, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_finished_report_is_left_alone(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    assert job.run(run_folder, study_folder, output)[1]
    assert not job.run(run_folder, study_folder, output)[1]
    before = output.read_bytes()
    assert job.run(run_folder, study_folder, output, force=True)[1]
    assert output.read_bytes() == before


def test_a_page_of_someone_else_is_not_overwritten(
    run_folder: Path, study_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(OutputExistsError):
        job.run(run_folder, study_folder, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_a_plot_does_not_replace_the_report(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    _report(run_folder, study_folder, tmp_path / "report.html")
    with pytest.raises(OutputExistsError):
        publish.refuse_page(tmp_path / "report.html")


def test_other_names_than_html_are_usage_errors(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.html"):
        job.run(run_folder, study_folder, tmp_path / "report.pdf")


def test_a_study_of_another_run_is_an_error(run_folder: Path, study_folder: Path, tmp_path: Path) -> None:
    path = run_folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(PileError, match="another run"):
        job.run(run_folder, study_folder, tmp_path / "report.html")


@pytest.mark.parametrize("missing", ["run", "memo"])
def test_what_is_missing_is_named_in_one_line(
    run_folder: Path, study_folder: Path, tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    command = ["report", str(tmp_path / "run"), "--memorization", str(tmp_path / "memo"), "-o"]
    assert run_cli(group, [*command, str(tmp_path / "report.html")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / missing) in error


def test_a_run_without_tokenizer_and_canaries_has_a_report_too(
    order: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    run = write_run(tmp_path / "plain", order, None)
    study.run(prepare(run, MemorizationConfig(rows=60), None), tmp_path / "memo")
    text = Page(_report(run, tmp_path / "memo", tmp_path / "report.html")).text
    assert "tokens are shown as numbers" in text
    assert "Canaries" not in text


def test_a_single_untrained_checkpoint_has_a_report_too(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    study.run(prepare(run_folder, MemorizationConfig(rows=60, checkpoints="0"), None), tmp_path / "memo")
    text = Page(_report(run_folder, tmp_path / "memo", tmp_path / "report.html")).text
    assert "was not trained on any of the rows" in text


@pytest.mark.parametrize("rule", ["view", "stages", "blend", "unpacked"])
def test_a_run_on_another_kind_of_order_has_a_report_too(
    order: Path, tokenizer: Path, tmp_path: Path, loaded_steps: list[int], rule: str
) -> None:
    other, prefix = tmp_path / "other", order / "sample"
    config = OrderConfig(seq_length=80, steps=STEPS, batch_size=BATCH_SIZE, seed=5)
    if rule == "view":
        save_interventions(insert_tokens(open_order(order), [Insert(2, 1, 7, (5, 6))]), other)
        said = "Some tokens of another order are replaced"
    elif rule == "stages":
        stages.run([stages.Stage(order, STEPS // 2), stages.Stage(order, STEPS // 2)], other)
        said = "The orders of 2 stages follow each other."
    elif rule == "blend":
        build_order(Blend((prefix, prefix), (1.0, 1.0)), other, config)
        said = "the packed order of GPT-NeoX"
    else:
        build_order(prefix, other, dataclasses.replace(config, packing="unpacked"))
        said = "Each row is whole documents, padded or cut to 81 tokens."
    run = write_run(tmp_path / "run", other, tokenizer)
    study.run(prepare(run, MemorizationConfig(rows=20), None), tmp_path / "memo")
    text = " ".join(Page(_report(run, tmp_path / "memo", tmp_path / "report.html")).text.split())
    assert said in text
    assert "None" not in text


def test_a_dataset_of_other_tools_that_was_merged_has_a_report_too(
    order: Path, tokenizer: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    for suffix in (".bin", ".idx"):
        (tmp_path / f"foreign{suffix}").write_bytes((order / f"sample{suffix}").read_bytes())
    merge.run([tmp_path / "foreign"] * 2, tmp_path / "both")
    config = OrderConfig(seq_length=80, steps=STEPS, batch_size=BATCH_SIZE, seed=5)
    build_order(tmp_path / "both", tmp_path / "other", config)
    run = write_run(tmp_path / "run", tmp_path / "other", tokenizer)
    study.run(prepare(run, MemorizationConfig(rows=20), None), tmp_path / "memo")
    text = Page(_report(run, tmp_path / "memo", tmp_path / "report.html")).text
    assert "to end documents" not in text


def test_shares_of_each_stage_add_up(run_folder: Path, study_folder: Path) -> None:
    composition = collect(run_folder, study_folder).composition
    assert composition is not None
    assert composition.shares.sum(axis=1) == pytest.approx(np.ones(20))
    assert set(composition.names) == {"Books", "<b>Code</b>"}
    assert composition.edges.tolist() == list(range(21))


def test_the_running_mean_by_hand() -> None:
    values = np.arange(250, dtype=np.float64) ** 2
    assert reach(250) == 2
    means = smooth(values).tolist()
    # Near the ends as many neighbours before as after, so that the mean does not lag.
    assert means[0] == 0
    assert means[1] == pytest.approx((0 + 1 + 4) / 3)
    assert means[2] == pytest.approx((0 + 1 + 4 + 9 + 16) / 5)
    assert means[-1] == 249**2
    assert len(means) == 250
    assert smooth(values[:1]).tolist() == [0]


def test_a_short_run_has_no_running_mean() -> None:
    def log(n: int) -> list[Any]:
        return [{"step": i, "tokens": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0} for i in range(n)]

    assert [one.name for one in plots.loss(log(20), []).series] == ["each step"]
    assert [one.name for one in plots.loss(log(100), []).series] == ["each step", "mean of 3 steps"]


def test_too_few_rows_for_a_chart_are_said_in_words(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    for n_rows, is_drawn in ((8, False), (60, True)):
        folder = tmp_path / f"memo{n_rows}"
        study.run(prepare(run_folder, MemorizationConfig(rows=n_rows), None), folder)
        page = Page(_report(run_folder, folder, tmp_path / f"report{n_rows}.html"))
        assert ("There is no chart of these scores" in page.text) != is_drawn
        assert ("mean score of rows, %" in page.text) == is_drawn


def test_colours_go_from_few_repeats_to_many() -> None:
    levels = [0, 1, 4, 16, 64]
    shown = [plots.repeat_color(levels, level) for level in levels]
    assert shown[0] == colors.NONE
    assert shown[-1] == colors.SCALE[-1]
    assert len(set(shown)) == 5
    assert plots.repeat_color([0, 7], 7) == colors.SCALE[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3 thousand"),
        (819_200, "819 thousand"),
        (2.6e6, "2.6 million"),
    ],
)
def test_counts_are_short(value: float, text: str) -> None:
    assert wording.short_count(value) == text


def test_differences_within_the_error_are_not_called_more() -> None:
    seen, unseen = {"mean_score": 0.06, "standard_error": 0.01}, {"mean_score": 0.05, "standard_error": 0.01}
    assert "may be chance" in wording._difference(seen, unseen)
    assert "+1.0 points with a standard error of 1.4" in wording._difference(seen, unseen)
    assert "more than chance" in wording._difference({**seen, "mean_score": 0.2}, unseen)
