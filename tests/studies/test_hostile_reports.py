"""Untrusted runs and studies: every mutation of a file is reported, or refused as the fault of that file."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from tests.studies.conftest import write_run
from tests.test_hostile_manifests import mutations

from pile_tools import manifest
from pile_tools.errors import ConfigError, PileError
from studies.memorization import study
from studies.memorization.plan import MemorizationConfig, prepare
from studies.report import page
from studies.report.facts import collect

#: Mutations of one value, for each file.
N_SAMPLED = 40


def list_again(path: Path) -> None:
    """Makes the manifest beside a file list it as it is now, as whoever changed it could."""
    beside = path.with_name("manifest.json")
    values = json.loads(beside.read_bytes())
    for entry in values["outputs"]:
        if entry["path"] == path.name:
            entry.update(manifest.file_entry(path, path.parent))
    beside.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "name",
    [
        "run/manifest.json",
        "memo/manifest.json",
        "memo/memorization.json",
        "memo/canaries.json",
        "corpus/tokens/sample.manifest.json",
        "corpus/tokens/order.json",
        "corpus/tokenizer.manifest.json",
    ],
)
def test_reports_of_mutated_files(
    tmp_path: Path, corpus: Path, order: Path, canaries_file: Path, loaded_steps: list[int], name: str
) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    run = write_run(tmp_path / "run", tmp_path / "corpus" / "tokens", tmp_path / "corpus" / "tokenizer.json")
    study.run(prepare(run, MemorizationConfig(rows=60), canaries_file), tmp_path / "memo")

    def report() -> None:
        page.render(collect(run, tmp_path / "memo"), tmp_path / "report.html")

    report()
    path = tmp_path / name
    good = path.read_bytes()
    of_values, others = mutations(good)
    wrong = []
    for mutation in others + random.Random(name).sample(of_values, min(N_SAMPLED, len(of_values))):
        path.write_bytes(mutated := mutation())
        if name in ("memo/memorization.json", "memo/canaries.json"):
            list_again(path)
        try:
            report()
        except (PileError, OSError) as err:
            if isinstance(err, ConfigError):
                wrong.append((err, mutated))
        except Exception as err:
            wrong.append((err, mutated))
    assert not wrong, f"{len(wrong)}: {wrong[:3]}"
