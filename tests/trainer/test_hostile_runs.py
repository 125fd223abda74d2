"""Untrusted records of runs: every mutation is read, or refused as the fault of the file that it is in."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tests.test_hostile_manifests import mutations

from pile_tools import checked, manifest
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE, Request
from trainer.branching import config_of_branch, threads_of_source
from trainer.checkpoint.load import verify_checkpoint
from trainer.checkpoint.state import Logits, Summary
from trainer.cli import group
from trainer.config import (
    BranchConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
    ValidationConfig,
)
from trainer.log import VALIDATION_LOG_FILE
from trainer.partitions import SCALER_VALUES
from trainer.row_losses import ROW_LOSSES_FILE
from trainer.run import Run, Stretch, begin, plan, previous_stretches, stretches_of, writing

#: Mutations of one value.
N_SAMPLED = 400

STRETCH = Stretch(
    step=0,
    processes=1,
    threads=1,
    micro_batch_size=8,
    zero_stage=1,
    offload_optimizer=False,
    checkpoint_every=13,
    keep_states="last",
    pipeline_stages=1,
)
LOGITS = torch.linspace(-4, 4, 32 * 50).view(1, 32, 50)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, order: Path, tokenizer: Path) -> Run:
    """A run with everything that a run.json may have, and no checkpoint."""
    config = TrainConfig(
        order=order,
        output=tmp_path_factory.mktemp("run") / "run",
        tokenizer=tokenizer,
        model=ModelConfig(hidden_size=32, n_layers=1, n_heads=2),
        optimizer=OptimizerConfig(lr=0.01),
        stages=(StageConfig(steps=30), StageConfig(steps=10, lr=0.001)),
        validation=ValidationConfig(order=order, every=5, rows=3),
        skip_steps=(4, 30),
    )
    planned = replace(plan(config), stretches=(STRETCH,))
    with writing(config.output) as scratch:
        begin(planned, scratch, force=False)
    losses = np.linspace(1, 4, 40 * 8).astype(np.float16)
    (config.output / ROW_LOSSES_FILE).write_bytes(losses.tobytes())
    return planned


def check_mutations(path: Path, read: Callable[[], object]) -> None:
    """Asserts that whatever is wrong in a file, reading it returns or raises an error that is the file's."""
    good = path.read_bytes()
    read()
    of_values, others = mutations(good)
    chosen = others + random.Random(path.name).sample(of_values, min(N_SAMPLED, len(of_values)))
    wrong, n_refused = [], 0
    for mutation in chosen:
        path.write_bytes(mutated := mutation())
        try:
            read()
        except (PileError, OSError) as err:
            n_refused += 1
            if isinstance(err, ConfigError):
                wrong.append((err, mutated))
        except Exception as err:
            wrong.append((err, mutated))
    path.write_bytes(good)
    assert not wrong, f"{len(wrong)} of {len(chosen)}: {wrong[:3]}"
    assert n_refused > len(chosen) // 4


def test_branches_of_a_mutated_run(run: Run, tmp_path: Path) -> None:
    branch = BranchConfig(source=run.config.output, step=1)

    def read() -> None:
        config_of_branch(branch, tmp_path / "b", {}, {"lr": 0.1})
        threads_of_source(branch)

    check_mutations(run.config.output / RUN_FILE, read)


@pytest.mark.parametrize(
    "changed",
    [
        {"shape.hidden_act": "x"},
        {"shape.init": ""},
        {"shape.hidden_size": 1},
        {"shape.rotary_base": 9e18},
        {"shape.max_positions": 0},
        {"shape.vocab_size": None},
        {"optimizer.lr": 0},
        {"steps": 1},
        {"batch_size": 0},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_run_that_cannot_be_trained_is_no_source(run: Run, tmp_path: Path, changed: dict[str, Any]) -> None:
    shutil.copytree(run.config.output, tmp_path / "run")
    path = tmp_path / "run" / RUN_FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"settings": values["settings"] | changed}))
    branch = BranchConfig(source=tmp_path / "run", step=1)
    with pytest.raises(FormatError, match=re.escape(str(path))):
        config_of_branch(branch, tmp_path / "b", {}, {})


def test_stretches_of_a_mutated_run(run: Run) -> None:
    path = run.config.output / RUN_FILE
    check_mutations(path, lambda: stretches_of(manifest.read(path)))


def test_losses_of_a_mutated_run(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.config.output, tmp_path / "run")
    _edit_input(tmp_path / "run" / RUN_FILE, run.order.record.path)
    rng = random.Random(1)
    commands = [["--step", "3"], ["--step", "39", "--json"], ["--by", "subset"]]

    def read() -> None:
        arguments = ["losses", str(tmp_path / "run"), *rng.choice(commands)]
        found = CliRunner().invoke(group, arguments, standalone_mode=False).exception
        # A step that a run of other batches has not trained is a wrong option.
        if found is not None and not (isinstance(found, ConfigError) and "no step" in str(found)):
            raise found

    check_mutations(tmp_path / "run" / RUN_FILE, read)


@pytest.mark.parametrize("command", [["--step", "300"], ["--by", "subset"]])
def test_more_losses_than_the_order_has_rows(run: Run, tmp_path: Path, command: list[str]) -> None:
    shutil.copytree(run.config.output, tmp_path / "run")
    _edit_input(tmp_path / "run" / RUN_FILE, run.order.record.path)
    path = tmp_path / "run" / ROW_LOSSES_FILE
    path.write_bytes(path.read_bytes() * 10)
    arguments = ["losses", str(tmp_path / "run"), *command]
    found = CliRunner().invoke(group, arguments, standalone_mode=False).exception
    assert isinstance(found, PileError), found


def _edit_input(path: Path, order: Path) -> None:
    """Lets a copied record name the order as the original one does."""
    values = json.loads(path.read_text())
    entry = next(entry for entry in values["inputs"] if entry["role"] == "order")
    entry["path"] = str(order)
    path.write_text(json.dumps(values))


def test_summaries_of_a_mutated_state(run: Run, tmp_path: Path) -> None:
    scale = dict.fromkeys(SCALER_VALUES, 1.0)
    records = {"log": {"bytes": 3, "sha256": "0" * 64}}
    summary = Summary(5, records, 1, scale, Logits.of(LOGITS)).values(run)
    manifest.write(tmp_path / MANIFEST_FILE, Request("state", {}), [], summary)
    found = Logits.of(LOGITS + 1e-6)

    def read() -> None:
        of = Summary.read(manifest.read(tmp_path / MANIFEST_FILE))
        assert of.loss_scale is None or of.loss_scale.keys() == scale.keys()
        of.logits.check(found, tmp_path)

    check_mutations(tmp_path / MANIFEST_FILE, read)


def test_a_shorter_list_of_logits_is_not_equal() -> None:
    saved = Logits.of(LOGITS)
    for last in ((), saved.last[1:], (*saved.last, 0.0)):
        with pytest.raises(VerifyError, match="other logits"):
            replace(saved, sha256="0" * 64, last=last).check(saved, Path("manifest.json"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keep_states": "x"}, "keep_states is"),
        ({"threads": 0}, "threads is"),
        ({"threads": 1025}, "threads is"),
        ({"step": None}, "step is"),
    ],
)
def test_a_wrong_value_of_a_stretch_names_its_file(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=rf"{message}.*\(run\.json\)"):
        Stretch.read(checked.Values(STRETCH.values() | changed, "run.json"))


@pytest.mark.parametrize(
    "changed",
    [{"micro_batch_size": 3}, {"processes": 3}, {"pipeline_stages": 2}, {"micro_batch_size": 2**62}],
)
def test_a_run_that_cannot_have_been_trained_so_is_not_resumed(
    run: Run, tmp_path: Path, changed: dict[str, Any]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(run.config.output, output)
    path = output / RUN_FILE
    _edit_input(path, run.order.record.path)
    signed = json.loads(path.read_text())
    signed["summary"]["stretches"][0] |= changed
    path.write_text(json.dumps(signed))
    moved = replace(plan(replace(run.config, output=output)), stretches=())
    with pytest.raises(FormatError, match=re.escape(str(path))):
        previous_stretches(moved, force=False)


@pytest.mark.parametrize("n_renames", range(5))
def test_a_killed_removal_of_a_run_leaves_nothing_for_the_next_start(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_renames: int
) -> None:
    """The new run does not validate, so only the old one's manifest tells whose its log is."""
    output = tmp_path / "run"
    shutil.copytree(run.config.output, output)
    (output / VALIDATION_LOG_FILE).touch()
    config = replace(run.config, output=output, validation=None)
    planned = replace(plan(config), stretches=(STRETCH,))
    rename, renamed = Path.rename, []

    def fail(path: Path, to: Path) -> Path:
        if path.parent == output:
            if len(renamed) == n_renames:
                raise KeyboardInterrupt
            renamed.append(path)
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with contextlib.suppress(KeyboardInterrupt), writing(output) as scratch:
            begin(planned, scratch, force=True)
    with writing(output) as scratch:
        begin(planned, scratch, force=True)
    assert sorted(path.name for path in output.iterdir()) == [RUN_FILE]


def test_a_log_of_validations_that_no_run_made_stays(run: Run, tmp_path: Path) -> None:
    config = replace(run.config, output=tmp_path / "run", validation=None)
    planned = replace(plan(config), stretches=(STRETCH,))
    for force in (False, True):
        with writing(config.output) as scratch:
            begin(planned, scratch, force=force)
        (config.output / VALIDATION_LOG_FILE).write_text("mine")
    assert (config.output / VALIDATION_LOG_FILE).read_text() == "mine"
    with writing(config.output) as scratch:
        begin(planned, scratch, force=True)
    assert (config.output / VALIDATION_LOG_FILE).read_text() == "mine"


@pytest.mark.parametrize("name", ["manifest.json", "train_log.jsonl", "resume/checked.json", "resume"])
@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_of_a_run_is_in_its_way(run: Run, tmp_path: Path, name: str, kind: str) -> None:
    output = tmp_path / "run"
    path = output / name
    path.parent.mkdir(parents=True)
    if kind == "folder":
        (path / "mine").mkdir(parents=True)
    elif kind == "link":
        (tmp_path / "mine").mkdir()
        path.symlink_to(tmp_path / "mine")
    else:
        os.mkfifo(path)
    planned = plan(replace(run.config, output=output, validation=None))
    if (name, kind) == ("resume", "folder"):
        previous_stretches(planned, force=True)
        return
    with pytest.raises(OutputExistsError, match=re.escape(str(path))):
        previous_stretches(planned, force=True)
    assert os.path.lexists(path)


def test_no_file_outside_a_checkpoint_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("precious")
    entry = manifest.file_entry(tmp_path / "x", tmp_path / "step1")
    (tmp_path / "step1").mkdir()
    manifest.write(tmp_path / "step1" / MANIFEST_FILE, Request("checkpoint", {}), [entry], {})
    with pytest.raises(FormatError, match="not below"):
        verify_checkpoint(tmp_path / "step1")
