"""Files of runs and studies that were changed: the report is made or refused in one line, never a bug."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.studies.conftest import STEPS

from pile_tools import FormatError, PileError, files
from studies.checked import items, optional, read_object, real, record, text, whole
from studies.memorization import canaries, study
from studies.memorization.plan import MemorizationConfig, prepare
from studies.memorization.reading import read_canaries, read_summary
from studies.memorization.scores import Scores
from studies.report import facts as facts_module
from studies.report import page
from studies.report.facts import collect
from studies.runs import open_run

VALUES: list[Any] = [
    *(None, True, -1, 1.5, 10**30, float("nan"), "\ud800", [], {"x": 1}),
]
GONE = object()


def changes(values: Any) -> Iterator[tuple[str, Any]]:
    """Every value of a JSON tree replaced or removed in turn, of lists the first and the last item only."""
    for way in _ways(values):
        for new in (*VALUES, GONE):
            changed = copy.deepcopy(values)
            *parents, last = way
            parent = changed
            for key in parents:
                parent = parent[key]
            if new is GONE:
                del parent[last]
            else:
                parent[last] = new
            yield f"{'.'.join(map(str, way))} = {new!r}", changed


def _ways(values: Any) -> Iterator[tuple[Any, ...]]:
    keys: list[Any] = (
        list(values) if isinstance(values, dict) else sorted({0, len(values) - 1}) if values else []
    )
    for key in keys:
        yield (key,)
        if isinstance(values[key], (dict, list)):
            yield from ((key, *rest) for rest in _ways(values[key]))


@pytest.fixture
def study_folder(run_folder: Path, canaries_file: Path, tmp_path: Path, loaded_steps: list[int]) -> Path:
    config = MemorizationConfig(rows=20, prompt_tokens=32, continuation_tokens=32)
    study.run(prepare(run_folder, config, canaries_file), tmp_path / "memo")
    return tmp_path / "memo"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes time and reads none of the changed files."""
    monkeypatch.setattr(facts_module, "_composition", lambda run: None)


def is_reported(run: Path, study: Path, changed: Path | None = None) -> bool:
    """Whether there is a report; a refusal is one line that names the changed file, or the folder of both."""
    try:
        # First without the rest, which takes ten times as long.
        read_canaries(study / "canaries.json", read_summary(study / "memorization.json", STEPS))
        page.render(collect(run, study), run.parent / "report.html")
    except PileError as err:
        message = str(err)
    else:
        return True
    assert "\n" not in message
    assert str(changed or run.parent) in message
    return False


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["memorization.json", "canaries.json"])
def test_changed_results_are_reported_or_refused(run_folder: Path, study_folder: Path, name: str) -> None:
    path = study_folder / name
    values = json.loads(path.read_text())
    if name == "memorization.json":
        values["passages"] = values["passages"][:1]
    n_refused = n_tried = 0
    assert is_reported(run_folder, study_folder)
    for what, changed in changes(values):
        path.write_text(json.dumps(changed))
        try:
            n_refused += not is_reported(run_folder, study_folder)
        except Exception as err:
            raise AssertionError(what) from err
        n_tried += 1
    assert n_refused > n_tried // 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("part", ["settings", "summary", "made_by"])
def test_changed_runs_are_reported_or_refused(run_folder: Path, study_folder: Path, part: str) -> None:
    path, other = run_folder / "manifest.json", study_folder / "manifest.json"
    values, of_study = json.loads(path.read_text()), json.loads(other.read_text())
    for what, changed in changes(values[part]):
        path.write_text(json.dumps({**values, part: changed}))
        (entry,) = [entry for entry in of_study["inputs"] if entry["role"] == "run"]
        entry["sha256"] = files.sha256(path)
        other.write_text(json.dumps(of_study))
        try:
            is_reported(run_folder, study_folder)
        except Exception as err:
            raise AssertionError(what) from err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("part", ["settings", "summary"])
def test_changed_datasets_are_reported_or_refused(
    run_folder: Path, study_folder: Path, order: Path, part: str
) -> None:
    path = order / "sample.manifest.json"
    data = path.read_text()
    values = json.loads(data)
    tried = [*changes(values[part])]
    if part == "summary":
        none = [{**subset, "n_tokens": 0} for subset in values[part]["subsets"]]
        tried += [("subsets", {**values[part], "subsets": subsets}) for subsets in ([], none)]
    try:
        for what, changed in tried:
            path.write_text(json.dumps({**values, part: changed}))
            try:
                is_reported(run_folder, study_folder, path)
            except Exception as err:
                raise AssertionError(what) from err
    finally:
        path.write_text(data)


@pytest.mark.usefixtures("quick")
def test_changed_logs_are_reported_or_refused(run_folder: Path, study_folder: Path) -> None:
    path = run_folder / "train_log.jsonl"
    lines = path.read_text().splitlines()
    for what, changed in changes(json.loads(lines[3])):
        path.write_text("\n".join([*lines[:3], json.dumps(changed), *lines[4:]]) + "\n")
        try:
            is_reported(run_folder, study_folder)
        except Exception as err:
            raise AssertionError(what) from err
    for data in (
        b"",
        b"\xff\n",
        b"[]\n",
        b"3\n",
        b"[" * 10**5,
        "\n".join(lines[1:]).encode(),
        path.read_bytes() * 2,
    ):
        path.write_bytes(data)
        assert not is_reported(run_folder, study_folder)


def test_changed_lists_of_canaries_are_read_or_refused(run_folder: Path, canaries_file: Path) -> None:
    run = open_run(run_folder)
    for what, changed in changes(json.loads(canaries_file.read_text())):
        canaries_file.write_text(json.dumps(changed))
        try:
            canaries.load(canaries_file, run, 64)
        except PileError as err:
            message = str(err)
        except Exception as err:
            raise AssertionError(what) from err
        else:
            continue
        assert str(canaries_file) in message
    for data in (b"", b"\xff", b"[]", b"[" * 10**5, b'{"passages": []}'):
        canaries_file.write_bytes(data)
        with pytest.raises(FormatError, match=r"canaries\.json"):
            canaries.load(canaries_file, run, 64)


def test_scores_of_another_shape_are_not_resumed_from(tmp_path: Path) -> None:
    parts = study._Parts(tmp_path, "digest", (3, 2), discard=False)
    parts.write(1, Scores(np.ones((3, 2), dtype=np.bool_)))
    assert parts.read(1) is not None
    for wrong in (np.ones((2, 2), dtype=np.bool_), np.ones((3, 2)), np.ones(3, dtype=np.bool_)):
        parts.write(1, Scores(wrong))
        assert parts.read(1) is None
    for data in (b"no archive", b"PK\x03\x04 cut", b"\x93NUMPY", b""):
        (tmp_path / "step1.npz").write_bytes(data)
        parts._checksums["step1.npz"] = files.sha256(tmp_path / "step1.npz")
        assert parts.read(1) is None


def test_a_check_names_the_value_and_what_was_expected() -> None:
    check = record({"a": items(whole(1, 9), 2)}, {"b": optional(real(0)), "c": text})
    check({"a": [1, 9], "b": None, "z": object()}, "f")
    for value, message in [
        (3, "f is 3, expected an object"),
        ({}, "f has no key 'a'"),
        ({"a": [1]}, r"f, a is \[1\], expected a list of 2"),
        ({"a": [1, 10]}, r"f, a\[1\] is 10, expected a whole number from 1 to 9"),
        ({"a": [1, True]}, r"f, a\[1\] is true, expected a whole number"),
        ({"a": [1, 2], "b": float("nan")}, "f, b is NaN, expected a number from 0"),
        ({"a": [1, 2], "c": "\ud800"}, "f, c is .*, expected text"),
    ]:
        with pytest.raises(FormatError, match=message):
            check(value, "f")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected a file, found a folder"):
        read_object(tmp_path, record({}))
