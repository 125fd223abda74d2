"""`verify --chain`: any damage to any file below a report or a run is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pile_tools import VerifyError, manifest
from pile_tools.jobs import sample, tokenize, train_tokenizer, verify
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.manifest import Request
from pile_tools.read.shards import find_shards
from studies.memorization import models, study
from studies.memorization.plan import MemorizationConfig, prepare
from studies.report import job

from .conftest import BATCH_SIZE, CHECKPOINTS, STEPS, greedy_that_knows, write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards, tokenizer, dataset, order, run, study and report, all but the weights real."""
    root = tmp_path_factory.mktemp("whole")
    sample.run(sample.SampleConfig(megabytes=0.05, shards=1), root / "shards")
    shards = find_shards([root / "shards"])
    tokenizer, tokens = root / "tokenizer.json", root / "tokens"
    train_tokenizer.run(shards, tokenizer, train_tokenizer.TrainTokenizerConfig(vocab_size=300), threads=1)
    tokenize.run(shards, tokens / "sample", tokenize.TokenizeConfig(tokenizer=tokenizer), threads=1)
    config = OrderConfig(seq_length=80, steps=STEPS, batch_size=BATCH_SIZE, seed=5)
    build_order(tokens / "sample", root / "order", config)
    write_run(root / "run", root / "order", tokenizer)
    _list_all_files(root / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            models,
            "load_greedy",
            lambda run, step, n_new, ban: greedy_that_knows(root / "order", step * BATCH_SIZE, n_new),
        )
        study.run(prepare(root / "run", MemorizationConfig(rows=20), None), root / "study")
    job.run(root / "run", root / "study", root / "report.html")
    return root


def _list_all_files(run: Path) -> None:
    """Writes the manifests of a run and its checkpoints anew, with all their files as `pile-train` does."""
    found = manifest.read(run / "manifest.json")
    made = [run / "train_log.jsonl"]
    for step in CHECKPOINTS:
        folder = run / "checkpoints" / f"step{step}"
        (folder / "model.safetensors").write_bytes(bytes(range(256)))
        old = manifest.read(folder / "manifest.json")
        outputs = [
            manifest.file_entry(folder / name, folder) for name in ("model.safetensors", "tokenizer.json")
        ]
        # A checkpoint names its inputs from its own folder.
        inputs = [{**entry, "path": manifest.relative(run / entry["path"], folder)} for entry in found.inputs]
        manifest.write(
            folder / "manifest.json", Request(old.kind, old.settings, inputs), outputs, old.summary
        )
        made.append(folder / "manifest.json")
    outputs = [manifest.file_entry(path, run) for path in made]
    manifest.write(
        run / "manifest.json", Request(found.kind, found.settings, found.inputs), outputs, found.summary
    )


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: list[Callable[[Path], None]] = [_flip, _truncate, Path.unlink]

#: Inputs that may lie elsewhere: where they are missing, that is said, and not wrong.
SOURCES = ("tokenizer.manifest.json", "shards/manifest.json")


def test_a_whole_chain_is_right_and_says_what_was_checked(whole: Path) -> None:
    for root, n_artifacts in (("report.html", 10), ("run", 8)):
        checks = verify.run(whole / root, chain=True)
        assert {check.state for check in checks} == {"ok"}
        totals = verify.Totals.of(checks)
        assert (totals.n_artifacts, totals.n_absent, totals.n_unsure) == (n_artifacts, 0, 0)
        if root == "report.html":
            read = {check.path for check in checks if check.path is not None}
            assert {path for path in whole.rglob("*") if path.is_file()} == read


@pytest.mark.parametrize("root", ["report.html", "run"])
@pytest.mark.parametrize("damage", DAMAGES, ids=["bit", "cut", "gone"])
def test_damage_of_any_file_below_is_found(
    whole: Path, tmp_path: Path, root: str, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(whole, tmp_path / "here")
    here = tmp_path / "here"
    above = {"report.html", "report.manifest.json", "study"} if root == "run" else set()
    right = verify.run(here / root, chain=True)
    undetected = []
    for path in sorted(path for path in here.rglob("*") if path.is_file()):
        name = path.relative_to(here)
        if name.parts[0] in above or (path.name == "manifest.json" and name.parts[0] == root):
            continue
        if damage is Path.unlink and str(name) == f"{Path(root).stem}.manifest.json":
            continue
        before = path.read_bytes()
        damage(path)
        try:
            checks = verify.run(here / root, chain=True)
        except VerifyError:
            pass
        else:
            states = {check.state for check in checks}
            is_said = damage is Path.unlink and (
                states != {"ok"} or (str(name) in SOURCES and len(checks) < len(right))
            )
            if not is_said:
                undetected.append(str(name))
        path.write_bytes(before)
    assert not undetected
