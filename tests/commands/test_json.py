"""`--json` prints one document with the keys that docs/json.md lists; `--quiet` prints answers alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.commands.conftest import MODULES, World, every_command, parsed

from pile_tools import terminal

PAGE = Path(__file__).parents[2] / "docs/json.md"

pytestmark = pytest.mark.slow


def documented() -> dict[str, set[str]]:
    """The paths of the keys in the page, by command."""
    found: dict[str, set[str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        paths = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
        if not paths:
            continue
        names = [heading]
        if heading.startswith("Commands"):
            names = re.findall(r"`(?:pile-study )?([a-z -]+)`", text.split("|")[0])
        found |= dict.fromkeys(names, paths)
    return found


def qualified(program: str, name: str) -> str:
    """A command as the page names it: programs have commands of the same name."""
    return f"{program} {name}" if program in ("pile-train", "vqgan-clip") else name


def check(value: Any, path: str, listed: set[str], seen: set[str]) -> None:
    """Asserts that all objects in a value have exactly the keys listed below their path."""
    if isinstance(value, list):
        for item in value:
            check(item, f"{path}[]", listed, seen)
    elif isinstance(value, dict):
        start = f"{path}." if path else ""
        children = {p[len(start) :] for p in listed if p.startswith(start)}
        keys = {re.split(r"[.\[]", child)[0] for child in children}
        if keys:
            assert set(value) == keys, path
            for key, item in value.items():
                seen.add(start + key)
                check(item, start + key, listed, seen)


def test_every_command_prints_the_documented_keys(world: World, calls: list[tuple[str, ...]]) -> None:
    page, seen = documented(), dict[str, set[str]]()
    # `origin` of a trace has the keys of `origin` of a document.
    page["trace"] |= {path for path in page["show"] if path.startswith("origin.")}
    for call in calls:
        name = qualified(call[0], call[1])
        name = " ".join(call[1:3]) if name == "dedup" else name
        force = ["--force"] if name == "export" else []
        done = world.call(*call, "--json", *force)
        assert done.code == 0, (call, done.err)
        check(parsed(done.out), "", page[name], seen.setdefault(name, set()))
    assert seen == page
    names = {qualified(program, name) for program, names in every_command().items() for name in names}
    assert set(page) == names


def test_the_document_of_an_artifact_holds_its_summary(world: World) -> None:
    done = world.call("pile-tools", "index", "tokens/sample", "--json")
    document = parsed(done.out)
    assert document["manifest"] == "tokens/sample.index/manifest.json"
    found = json.loads((world.folder / "tokens/sample.index/manifest.json").read_text())
    assert document == {
        "kind": "index",
        "manifest": "tokens/sample.index/manifest.json",
        "is_new": False,
        "summary": found["summary"],
    }


def test_a_failed_check_is_in_the_document(world: World, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx", ".provenance", ".manifest.json"):
        data = bytearray((world.folder / f"tokens/sample{suffix}").read_bytes())
        if suffix == ".provenance":
            data[-1] ^= 1
        (tmp_path / f"sample{suffix}").write_bytes(data)
    done = world.call("pile-tools", "verify", tmp_path / "sample", "--json")
    document = parsed(done.out)
    assert done.code == 1
    assert document["is_right"] is False
    assert "WRONG" in {check["state"] for check in document["checks"]}  # type: ignore[attr-defined]


def test_quiet_prints_answers_alone(world: World, calls: list[tuple[str, ...]]) -> None:
    asks = {"show", "search", "trace-text", "batch", "when", "trace", "repeats", "mixture", "losses"}
    asks |= {"count-ngrams", "count-terms", "count-numbers", "dedup", "plan", "neox-config", "generate"}
    for call in calls:
        force = ["--force"] if "export" in call else []
        done = world.call(*call, "--quiet", *force)
        assert (done.code, done.err) == (0, ""), call
        assert bool(done.out) == (call[1] in asks) or "-o" in call, call


def test_quiet_training_prints_nothing(
    world: World, tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Neither does its thread that saves."""
    config = (world.folder / "config.toml").read_text().replace('"run"', f'"{tmp_path}/run"')
    (tmp_path / "config.toml").write_text(config)
    words = ["train", tmp_path / "config.toml", "--threads", "1", "--quiet"]
    done = cli(*words, module="trainer.cli", cwd=world.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run" / "manifest.json").exists()


def test_a_long_document_waits_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_MAX_DOCUMENT_BYTES", 100)
    rows = ({"n": n, "of": iter([n, "\x1b\u202e"])} for n in range(1000))
    terminal.print_document({"rows": rows, "empty": iter([]), "none": None})
    found = parsed(capsys.readouterr().out)
    assert found == {
        "rows": [{"n": n, "of": [n, "\x1b\u202e"]} for n in range(1000)],
        "empty": [],
        "none": None,
    }


def test_nothing_is_printed_of_a_document_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Any:
        yield 1
        raise OSError(5, os.strerror(5), "x")

    with pytest.raises(OSError, match="x"):
        terminal.print_document({"rows": rows()})
    assert capsys.readouterr().out == ""


def test_nothing_is_printed_of_a_file_that_became_shorter(dataset: Path, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx"):
        (tmp_path / f"d{suffix}").write_bytes(dataset.with_suffix(suffix).read_bytes())
    program = """
import os, sys
from pile_tools import _core, cli, terminal
import click

@click.command()
def command():
    dataset = _core.TokenDataset("d")
    os.truncate("d.bin", 0)
    terminal.print_document({"tokens": (int(token) for token in dataset.tokens)})

sys.exit(cli.run(command, []))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "shorter while it was read" in done.stderr


def test_the_programs_are_those_installed() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    # The package starts the module of the commands.
    expected = {f'{name} = "{module.split(".")[0]}.__main__:main"' for name, module in MODULES.items()}
    assert expected <= set(project.splitlines())
