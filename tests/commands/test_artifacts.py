"""The likeliest mistakes: every argument that takes an artifact, given each other kind of artifact."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest
from tests.commands.conftest import LONG, Done, World, command_of, every_command

from pile_tools import manifest
from pile_tools.cli import run
from pile_tools.commands import artifacts

pytestmark = pytest.mark.slow

#: A path of each kind of artifact in the world, and the argument kinds that take it.
PATHS = {
    "tokens/sample": {"dataset", "files of a dataset", "token file", "anything"},
    "tokens/sample.bin": {"files of a dataset", "token file", "order", "anything"},
    "tokens/sample.idx": {"files of a dataset", "anything"},
    "tokens/sample.provenance": {"files of a dataset", "anything"},
    "tokens/sample.manifest.json": {"files of a dataset", "anything", "text"},
    "tokens/sample.index": {"index", "anything"},
    "tokens/sample.index/manifest.json": {"anything", "text"},
    "tokens": {"order", "files of a dataset", "token file", "anything"},
    "tokens/order.json": {"order", "anything", "text"},
    "shards": {"shards", "anything"},
    "tokenizer.json": {"tokenizer", "anything", "text"},
    "tokenizer.manifest.json": {"anything", "text"},
    "run": {"run", "anything"},
    "run/manifest.json": {"anything", "text"},
    "run/checkpoints/step1": {"tokenizer", "anything"},
    "study": {"study", "anything"},
    "report.html": {"anything", "text"},
    "ngrams.tsv": {"anything", "text"},
    "config.toml": {"config", "anything", "text"},
}

#: An artifact of each kind of argument, to fill the others in.
GIVEN = {
    "dataset": "tokens/sample",
    "order": "tokens",
    "shards": "shards",
    "tokenizer": "tokenizer.json",
    "run": "run",
    "study": "study",
    "config": "config.toml",
    "text": "terms.txt",
    "token file": "tokens/sample.bin",
}

#: Options and arguments, besides artifacts, with which a command would run.
MORE = {
    "tokenize": ["-o", "out/x"],
    "train-tokenizer": ["-o", "out/x.json", "--vocab-size", "300"],
    "merge": ["-o", "out/x"],
    "order": ["--seq-length", "8", "--samples", "8"],
    "dedup exact": ["-o", "out/x"],
    "dedup near": ["-o", "out/x"],
    "dedup passages": ["-o", "out/x"],
    "dedup signatures": ["-o", "out/x"],
    "dedup restore": ["00.jsonl:0"],
    "shard": ["-o", "out/x"],
    "branch": ["run", "--step", "1", "-o", "out/x"],
    "unshard": ["-o", "out/x.bin"],
    "show": ["5"],
    "search": ["alpha"],
    "when": ["alpha"],
    "batch": ["--step", "0"],
    "export": ["--steps", "0:1", "-o", "out/x.csv"],
    "trace": ["5"],
    "contamination": ["-o", "out/x"],
    "memorization": ["-o", "out/x"],
    "report": ["-o", "out/x.html"],
    "losses": ["--step", "0"],
    "loss-page": ["-o", "out/x.html"],
}


def arguments() -> list[tuple[str, str, str]]:
    """Program, command and parameter of every argument and option that takes an artifact."""
    found = []
    for program, names in every_command().items():
        for name in names:
            for parameter in command_of(program, name).params:
                takes_folder = parameter.name == "checkpoints" and "DIR" in str(parameter.metavar)
                if artifact_of(parameter) is not None or takes_folder:
                    found.append((program, name, str(parameter.name)))
    return found


def artifact_of(parameter: click.Parameter) -> artifacts.Artifact | None:
    """The type of a parameter that takes an artifact, without the check that the path is not empty."""
    kind = getattr(parameter.type, "kind", parameter.type)
    return kind if isinstance(kind, artifacts.Artifact) else None


def kinds_of(parameter: click.Parameter) -> tuple[str, ...]:
    kind = artifact_of(parameter)
    return ("run",) if kind is None else kind._kinds


def line(program: str, name: str, tested: str, path: str) -> list[str]:
    """A command line with `path` as one of its artifacts and the right ones as the others."""
    words, options = [program, *name.split()], []
    for parameter in command_of(program, name).params:
        kinds = kinds_of(parameter)
        is_artifact = artifact_of(parameter) is not None
        if parameter.name != tested and not (is_artifact and parameter.required):
            continue
        value = path if parameter.name == tested else GIVEN[kinds[0]]
        if isinstance(parameter, click.Option):
            options += [parameter.opts[0], value]
        elif name == "count-terms":
            words += ["terms.txt", value]
        elif name == "contamination":
            words += ["items.jsonl", value]
        else:
            words.append(value)
    more = MORE.get(name, [])
    more = [] if "--file" in options and more == ["alpha"] else more
    return words + more + options


def test_most_commands_take_artifacts() -> None:
    found = arguments()
    assert len(found) > 40
    assert {name for _, name, _ in found} >= {"tokenize", "order", "when", "search", "memorization", "train"}


@pytest.mark.parametrize(("program", "name", "parameter"), arguments())
def test_another_artifact_is_answered(world: World, program: str, name: str, parameter: str) -> None:
    """One line that says what the path is and what to give, and nothing is made."""
    kinds = next(kinds_of(p) for p in command_of(program, name).params if p.name == parameter)
    for path, taken_by in PATHS.items():
        if taken_by & {*kinds}:
            continue
        words = line(program, name, parameter, path)
        done = world.call(*words)
        assert done.code == 1, (words, done)
        check_message(done, path, words)
    assert not (world.folder / "out").exists()


def check_message(done: Done, path: str, words: list[str]) -> None:
    assert done.out == "", words
    assert done.err.count("\n") == 1, (words, done.err)
    assert done.err.startswith(f"error: {path} is "), (words, done.err)
    _, semicolon, advice = done.err.partition("; ")
    assert semicolon, (words, done.err)
    assert advice.startswith(("give ", "`pile-tools ", "make ")), (words, done.err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("when tokens/sample alpha", "tokens/sample is a dataset, not an order; give tokens"),
        ("search tokens alpha", "tokens is an order, not a dataset; give tokens/sample"),
        (
            "show tokens/sample.bin 5",
            "a file of the dataset tokens/sample, not a dataset; give tokens/sample",
        ),
        ("batch run --step 0", "run is a run, not an order; give tokens"),
        ("index shards", "shards is a folder of shards, not a dataset; `pile-tools tokenize shards -o"),
        (
            "tokenize tokens/sample -o out/x --tokenizer tokenizer.json",
            "tokens/sample is a dataset, not text",
        ),
        (
            "mixture tokens/sample.index",
            "tokens/sample.index is an index, not an order; `pile-tools order tok",
        ),
        (
            "contamination shards tokens/sample -o out/x",
            "shards is a folder of shards, not a file of items; give a file of JSON lines",
        ),
        (
            "count-terms shards terms.txt",
            "shards is a folder of shards, not a text file; give a text file",
        ),
        (
            "count-terms terms.txt shards --checkpoints 100",
            "shards is a folder of shards, not an order; make a dataset of it",
        ),
        (
            "contamination items.jsonl shards -o out/x --checkpoints 100",
            "shards is a folder of shards, not an order; make a dataset of it",
        ),
        (
            "dedup restore shards 00.jsonl:0",
            "shards is a folder of shards, not the output of dedup; give the folder that `pile-tools dedup`",
        ),
        (
            "contamination items.jsonl tokens/sample.index -o out/x",
            "tokens/sample.index is an index, not an order; `pile-tools order tok",
        ),
        (
            "contamination --task arc_easy study -o out/x",
            "study is a study, not an order; give",
        ),
        ("batch tokens/sample.bin --step 0", "the tokens are documents, not rows in training order"),
        (f"trace {LONG}/unlabelled 5", f"is a dataset, not an order; `pile-tools order {LONG}/unlabelled"),
    ],
)
def test_the_right_path_is_named(world: World, words: str, message: str) -> None:
    done = world.call("pile-tools", *words.split())
    assert (done.code, message in done.err) == (1, True), done.err


def test_a_folder_of_datasets_names_them(world: World, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        for suffix in (".bin", ".idx"):
            shutil.copyfile(world.folder / f"tokens/sample{suffix}", tmp_path / f"{name}{suffix}")
    done = world.call("pile-tools", "show", tmp_path, "5")
    assert f"a folder with 4 datasets, {tmp_path}/a, {tmp_path}/b, {tmp_path}/c and 1 more" in done.err


def test_what_is_missing_or_unknown_is_left_to_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").write_text("something")
    for path, message in (("absent", "No such file"), ("empty", "No such file"), ("other", "No such file")):
        assert run(command_of("pile-tools", "show"), [str(tmp_path / path), "5"]) == 1
        assert message in capsys.readouterr().err


def test_a_tokenizer_is_parsed_by_the_job_alone(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copied.json"
    shutil.copyfile(tokenizer, path)
    found = artifacts.recognized(path)
    assert found is not None
    assert found.kind == "tokenizer"
    monkeypatch.setattr("pile_tools.read.shards.artifact", lambda path: pytest.fail(f"parsed {path}"))
    artifacts.refuse_other(path, ["tokenizer"])


def test_a_manifest_that_lists_no_files_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "counts.tsv.manifest.json"
    settings = {"n": [], "min_count": 1, "top": None, "across_documents": False, "by_subset": False}
    summary = {"n_documents": 1, "n_tokens": 1, "lengths": []}
    manifest.write(path, manifest.Request("ngrams", settings), [], summary)
    found = artifacts.recognized(path)
    assert found is not None
    assert found.kind == "table"
