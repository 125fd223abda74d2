"""Runs that branch off from a kept step, and from weights alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import trainer
from pile_tools import manifest
from pile_tools.errors import ConfigError
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from trainer.branching import config_of_branch, find_source, threads_of_source
from trainer.config import (
    BranchConfig,
    ModelConfig,
    OptimizerConfig,
    Sharding,
    StageConfig,
    TrainConfig,
    ValidationConfig,
    recipe,
)
from trainer.log import LOG_FILE, read_log
from trainer.run import Stretch, begin, plan, stretches_of, writing
from trainer.run_check import check_run

pytestmark = pytest.mark.slow

WriteConfig = Callable[..., Path]
Server = Any


def logged(output: Path) -> list[tuple[int, float | None, float]]:
    """Step, loss and rate of each line of the log; a skipped step has no loss."""
    return [
        (line["step"], None if "skipped" in line else line["loss"], line["lr"])
        for line in read_log(output / LOG_FILE)
    ]


def test_the_config_of_a_branch_is_that_of_its_run(order: Path, tokenizer: Path, tmp_path: Path) -> None:
    """Every key, but for those that no weight depends on; options replace the stages."""
    config = TrainConfig(
        order=order,
        output=tmp_path / "run",
        tokenizer=tokenizer,
        model=ModelConfig(
            hidden_size=32, n_layers=1, n_heads=2, rotary_pct=0.5, attention_within_documents=True
        ),
        optimizer=OptimizerConfig(lr=0.01, betas=(0.8, 0.9), weight_decay=0.02, gradient_clipping=0.5),
        stages=(StageConfig(steps=30), StageConfig(steps=10, lr=0.001, schedule="wsd", decay=0.3)),
        validation=ValidationConfig(order=order / "order.json", every=5, rows=3),
        precision="bf16",
        seed=7,
        checkpoint_every=13,
        steps=40,
        batch_size=8,
        micro_batch_size=2,
        activation_checkpointing=True,
        compile=True,
        deepspeed=Sharding(zero_stage=2, offload_optimizer=True),
        skip_steps=(0, 4, 30),
        max_skipped_in_a_row=3,
        tensorboard=True,
    )
    default = TrainConfig(order=config.order, output=config.output, model=config.model)
    same = {field.name for field in fields(TrainConfig)} - {"order", "output", "model", "branch"}
    assert not [name for name in same if getattr(config, name) == getattr(default, name)]
    run = plan(replace(config, tensorboard=False))
    first = Stretch(
        step=0,
        processes=1,
        threads=3,
        micro_batch_size=2,
        zero_stage=2,
        offload_optimizer=True,
        checkpoint_every=13,
        keep_states="all",
        pipeline_stages=1,
        activation_checkpointing=True,
        compile=True,
    )
    later = replace(first, step=20, threads=5, micro_batch_size=8, zero_stage=3)
    with writing(config.output) as scratch:
        begin(replace(run, stretches=(first, later)), scratch, force=False)
    branch = BranchConfig(source=config.output, step=1)
    found = config_of_branch(branch, tmp_path / "b", {}, {})
    n_known = run.recipe.shape.vocab_size
    made = recipe(found, run.order, n_known)
    assert replace(made, branch=None) == run.recipe
    assert made.branch is not None
    # What the recipe is made from is given with its defaults filled in; these change no weight.
    same -= {"optimizer", "stages", "max_skipped_in_a_row", "tensorboard"}
    assert {name: getattr(found, name) for name in same} == {
        **{name: getattr(config, name) for name in same},
        "skip_steps": (4, 30),
    }
    assert threads_of_source(branch) == 3
    after = BranchConfig(source=config.output, step=20)
    assert config_of_branch(after, tmp_path / "b", {}, {}).deepspeed.zero_stage == 3
    assert threads_of_source(after) == 5
    other = config_of_branch(branch, tmp_path / "b", {"precision": "fp32", "skip_steps": [7]}, {})
    assert (other.micro_batch_size, other.deepspeed, other.skip_steps) == (None, Sharding(), (4, 7, 30))
    changed = recipe(config_of_branch(branch, tmp_path / "b", {}, {"lr": 0.2}), run.order, n_known)
    assert (changed.stages, changed.optimizer.lr, changed.optimizer.min_lr) == ((), 0.2, 0.02)
    past = config_of_branch(after, tmp_path / "b", {"skip_steps": [7]}, {})
    with pytest.raises(ConfigError, match="step 7, which was trained on before the branch's first, 20"):
        recipe(past, run.order, n_known)


def test_a_source_among_the_files_of_the_run_is_refused(order: Path, tokenizer: Path, tmp_path: Path) -> None:
    """With --force the run would remove it, and then miss it."""
    inside = tmp_path / "run" / "checkpoints" / "step8"
    inside.mkdir(parents=True)
    (inside / "config.json").touch()
    save_file({"a": torch.zeros(1)}, inside / "model.safetensors")
    (links := tmp_path / "links").mkdir()
    for path in inside.iterdir():
        (links / path.name).symlink_to(path)
    for source in (inside, links):
        config = TrainConfig(
            order=order,
            output=tmp_path / "run",
            tokenizer=tokenizer,
            model=ModelConfig(hidden_size=32, n_layers=1, n_heads=2),
            branch=BranchConfig(source=source, fresh_moments=True, rewarm=1),
        )
        with pytest.raises(ConfigError, match=r"branch\.source is among the files of the run"):
            plan(config)


def write_model(folder: Path, kind: str) -> set[str]:
    """Writes two tensors as weights of a kind; returns the names of its files."""
    folder.mkdir()
    tensors = {name: torch.full((2,), float(i)) for i, name in enumerate("ab")}
    suffix = "bin" if "pickles" in kind else "safetensors"
    stem = "pytorch_model" if suffix == "bin" else "model"

    def save(names: str, path: Path) -> None:
        chosen = {name: tensors[name] for name in names}
        if suffix == "bin":
            torch.save(chosen, path)
        else:
            save_file(chosen, path)

    if "whole" in kind:
        save("ab", folder / f"{stem}.{suffix}")
        return {f"{stem}.{suffix}"}
    shards = {name: f"{stem}-{name}.{suffix}" if "usual" in kind else f"w{name}.{suffix}" for name in "ab"}
    for name, shard in shards.items():
        save(name, folder / shard)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": shards}))
    return {*shards.values(), f"{stem}.{suffix}.index.json"}


@pytest.mark.parametrize(
    "kind", ["whole", "whole pickles", "usual shards", "usual pickles", "other shards", "other pickles"]
)
def test_the_files_that_weights_are_read_from_are_the_inputs(tmp_path: Path, kind: str) -> None:
    """Each of them, whatever an index calls it, and no other that looks like one."""
    model, output = tmp_path / "model", tmp_path / "b"
    read = write_model(model, kind)
    for name in ("model-extra.safetensors", "pytorch_model-extra.bin"):
        (model / name).write_bytes(b"not read")
    branch = BranchConfig(source=model, fresh_moments=True, rewarm=1)
    before = find_source(branch, output)
    assert {Path(entry["path"]).name for entry in before.inputs} == read
    for name in read:
        whole = (model / name).read_bytes()
        (model / name).write_bytes(whole + b" ")
        assert find_source(branch, output) != before, name
        (model / name).write_bytes(whole)
    shutil.rmtree(model)
    with pytest.raises(FileNotFoundError, match="no weights here"):
        find_source(branch, output)
    output.mkdir()
    manifest.write(output / "run.json", manifest.Request("run", {}, before.entries(output)), [], {})
    assert [entry["sha256"] for entry in find_source(branch, output).inputs] == [
        entry["sha256"] for entry in before.inputs
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, server: Server, write_config: WriteConfig) -> Path:
    """A finished run with its states of steps 3 and 6, which skipped step 4, in micro-batches."""
    folder = tmp_path_factory.mktemp("branch")
    more = ("checkpoint_every = 3", "steps = 6", "micro_batch_size = 2", "skip_steps = [4]")
    config = write_config(folder / "config.toml", folder / "run", *more)
    result = server.wait(server.start(config, "--keep-states", "all"))
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def changed_order(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("changed")
    build_order(dataset, folder, OrderConfig(seq_length=32, steps=40, batch_size=8, seed=77))
    return folder


def branch(server: Server, source: Path, output: Path, *options: str, code: int = 0) -> Any:
    result = server.wait(server.start("branch", source, "-o", output, *options))
    assert result.returncode == code, result.stderr
    return result


def test_an_unchanged_branch_is_the_run_itself(server: Server, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "control"
    result = branch(server, base, output, "--step", "3")
    assert f"branching off from {base} after step 3" in result.stderr
    assert logged(output) == logged(base)[3:]
    assert trainer.list_steps(output) == [3, 4, 6]
    for step in (3, 6):
        paths = [run / f"checkpoints/step{step}/model.safetensors" for run in (base, output)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    found = manifest.read(output / "manifest.json")
    state = base / "resume/step3/manifest.json"
    source = found.input("state")
    assert source is not None
    assert manifest.input_path(found, source).samefile(state)
    assert (found.settings["branch.step"], found.settings["branch.fresh_moments"]) == (3, False)
    rows = trainer.read_row_losses(output)
    np.testing.assert_array_equal(rows[3:], trainer.read_row_losses(base)[3:])
    assert np.isnan(rows[:3]).all()
    checks = check_run(output)
    assert any(str(state) in check.what for check in checks)
    assert {check.state for check in checks} == {"ok"}


def test_other_data_and_more_steps_change_what_follows(
    server: Server, base: Path, changed_order: Path, tmp_path: Path
) -> None:
    options = ("--step", "3", "--order", str(changed_order), "--steps", "8", "--checkpoint-every", "4")
    branch(server, base, tmp_path / "changed", *options)
    lines = logged(tmp_path / "changed")
    assert [line[0] for line in lines] == list(range(3, 8))
    assert lines[0][1] != logged(base)[3][1]
    assert trainer.list_steps(tmp_path / "changed") == [3, 4, 8]
    again = branch(server, base, tmp_path / "changed", *options)
    assert "is finished already" in again.stdout


def test_a_branch_is_resumed_without_its_source(server: Server, base: Path, tmp_path: Path) -> None:
    """Whether the step that it started from is gone, or all of the run."""
    shutil.copytree(base, tmp_path / "run")
    options = ("--step", "3", "--skip-step", "5")
    branch(server, tmp_path / "run", tmp_path / "b", *options)
    whole = logged(tmp_path / "b")
    assert [loss is None for _, loss, _ in whole] == [False, True, True]
    for gone in ("run/resume/step3", "run"):
        (tmp_path / "b/manifest.json").unlink()
        shutil.rmtree(tmp_path / gone)
        branch(server, tmp_path / "run", tmp_path / "b", *options)
        assert logged(tmp_path / "b") == whole
    result = branch(server, tmp_path / "run", tmp_path / "other", *options, code=1)
    assert "neither a run of pile-train nor a model" in result.stderr


def test_a_branch_whose_source_is_gone_keeps_its_own_config(
    base: Path, changed_order: Path, tmp_path: Path
) -> None:
    """With other data, more steps and another schedule than the source had."""
    shutil.copytree(base, tmp_path / "run")
    source = BranchConfig(source=tmp_path / "run", step=3)
    changes = {"order": str(changed_order), "steps": 8}
    config = config_of_branch(source, tmp_path / "b", changes, {"schedule": "constant"})
    with writing(config.output) as scratch:
        stretch = stretches_of(manifest.read(base / "run.json"))[0]
        started = replace(plan(config), stretches=(replace(stretch, step=3),))
        begin(started, scratch, force=False)
    shutil.rmtree(tmp_path / "run")
    again = config_of_branch(source, tmp_path / "b", changes, {"schedule": "constant"})
    assert plan(again).request.digest == started.request.digest
    assert again.skip_steps == (4,)


def test_fresh_moments_start_from_weights_with_a_named_warm_up(
    server: Server, base: Path, changed_order: Path, tmp_path: Path
) -> None:
    """The same from a checkpoint of a run and from its folder as a published model."""
    model = tmp_path / "published"
    shutil.copytree(base / "checkpoints/step6", model)
    (model / "manifest.json").unlink()
    fresh = ("--fresh-moments", "--rewarm", "4", "--steps", "5", "--lr", "0.002", "--schedule", "constant")
    options = (*fresh, "--order", str(changed_order), "--checkpoint-every", "5")
    branch(server, model, tmp_path / "a", *options)
    rates = [line[2] for line in logged(tmp_path / "a")]
    assert rates[:4] == pytest.approx([rates[3] / 4, rates[3] / 2, rates[3] * 0.75, rates[3]])
    start = load_file(tmp_path / "a/checkpoints/step0/model.safetensors")
    weights = load_file(model / "model.safetensors")
    assert all(weights[name].equal(start[name]) for name in weights)
    found = manifest.read(tmp_path / "a/manifest.json")
    assert found.settings["branch.rewarm"] == 4
    assert found.input("weights") is not None
    assert manifest.read(tmp_path / "a/resume/step5/manifest.json").summary["adam_updates"] == 5
    branch(server, base, tmp_path / "c", "--step", "3", "--fresh-moments", "--rewarm", "2")
    assert [line[0] for line in logged(tmp_path / "c")] == [3, 4, 5]
    assert logged(tmp_path / "c")[0][1] == logged(base)[3][1]


def test_what_cannot_be_branched_from_is_named(
    server: Server, base: Path, changed_order: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b"
    cases = {
        ("--step", "5"): (1, "no state of step 5 is kept; there are: 3, 6"),
        ("--step", "6"): (2, "branches off after step 6, and has 6 steps in all"),
        ("--step", "3", "--fresh-moments"): (2, "fresh_moments and rewarm are given together"),
        ("--fresh-moments", "--rewarm", "2", "--step", "5"): (1, "no weights of step 5"),
        (): (2, "Missing option '--step'"),
        ("--fresh-moments", "--rewarm", "2"): (2, "Missing option '--step'"),
    }
    for options, (code, message) in cases.items():
        result = branch(server, base, output, *options, code=code)
        assert message in result.stderr, result.stderr
    model = base / "checkpoints/step3"
    result = branch(server, model, output, "--step", "3", "--order", str(changed_order), "--lr", "1", code=1)
    assert "no run, so there is no state of the optimizer" in result.stderr
    result = branch(server, model, output, "--fresh-moments", "--rewarm", "2", code=2)
    assert "a model names no order and no lr" in result.stderr
    result = branch(server, base, base, "--step", "3", code=2)
    assert "output is the run that is branched from" in result.stderr
    for inside in ("checkpoints/step3", "resume/step3", "resume/new"):
        for options in ((), ("--fresh-moments", "--rewarm", "2")):
            result = branch(server, base, base / inside, "--step", "3", "--force", *options, code=2)
            assert "output is among the files of" in result.stderr
    state = tmp_path / "run/resume/step3"
    shutil.copytree(base, tmp_path / "run")
    path = state / "state-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = branch(server, tmp_path / "run", output, "--step", "3", code=1)
    assert "damaged" in result.stderr
    assert "state-00000.safetensors" in result.stderr
    assert json.loads((base / "run.json").read_text())["kind"] == "run"
