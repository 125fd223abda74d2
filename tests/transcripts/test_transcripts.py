"""The transcripts of the README and docs/ are what the commands print and what the Python in them gives.

They are of one sample: `pile-tools sample` on the texts of a corpus, so that every machine prints the same.
Each page has a folder in which the demo's commands have run, and its blocks run there, one after the other.
`make transcripts` runs these tests with PILE_TOOLS_TRANSCRIPTS=write, which writes what is printed now to the
pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pile_tools

from . import hub
from .blocks import abridged, agrees, blocks, commands, run_python

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]

#: "check", "write", or "write-all", which trains the model of the README too and takes minutes.
MODE = os.environ.get("PILE_TOOLS_TRANSCRIPTS", "check")

#: Commands, and Python, that are not run, and why.
NOT_RUN = {
    r"RAY_ADDRESS=": "needs a Ray cluster; tests/jobs/test_distributed.py compares with a plain run",
    r"import pile_tools\n\ndataset = ": "is of another sample; tests/test_documented_examples.py runs it",
    r"import huggingface_hub": "downloads a model; tests/trainer imports folders like it",
    r"from pathlib import Path\n\nfrom pile_tools import open_order\nfrom pile_tools.order.interventions": (
        "is of an order of the Pile; tests/test_timeline_interventions.py saves such interventions"
    ),
    r"import torch, trainer": "needs the trained model; tests/trainer loads such folders",
}
if MODE != "write-all":
    NOT_RUN[r"pile-train (?!plan)|pile-study |vqgan-clip |pile-tools verify demo/report"] = (
        "takes minutes; a test below runs the same commands with a smaller model"
    )

#: The pages whose transcripts begin without the demo's files, or without those that these patterns match.
WITHOUT = {"README.md": "demo", "docs/order.md": "demo/tokens/*_indexmap_* demo/tokens/order.json"}


@pytest.fixture(scope="module")
def environment(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the commands: `pile-tools sample` takes texts from the corpus."""
    folder = tmp_path_factory.mktemp("bin")
    installed = Path(sys.executable).parent
    script = folder / "pile-tools"
    corpus = shared / "corpus" / "mini_pile"
    sample = Path(__file__).with_name("corpus.py")
    script.write_text(
        f'#!/bin/sh\n[ "$1" = sample ] && exec {sys.executable} {sample} {corpus} "$@"\n'
        f'exec {installed}/pile-tools "$@"\n'
    )
    script.chmod(0o755)
    return {
        **{key: value for key, value in os.environ.items() if key not in ("COLUMNS", "TERM")},
        "PATH": f"{folder}:{installed}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture(scope="module")
def made(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo-data` leaves it."""
    folder = tmp_path_factory.mktemp("made")
    command = ["sh", str(ROOT / "scripts" / "demo.sh"), "data"]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True, timeout=300)
    return folder


@pytest.fixture
def scratch(
    made: Path, shared: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of a page, with what its transcripts take for granted."""
    page = request.node.callspec.params["page"]
    folder = tmp_path / "scratch"
    shutil.copytree(made, folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for pattern in WITHOUT.get(page, "").split():
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if page in PREPARE:
        PREPARE[page](folder, shared)
    monkeypatch.chdir(folder)
    return folder


def _prepare_datasets(folder: Path, shared: Path) -> None:
    """The dataset as another tool writes it, without provenance."""
    (folder / "neox").mkdir()
    for suffix in (".bin", ".idx"):
        shutil.copy(folder / f"demo/tokens/sample{suffix}", folder / f"neox/pile{suffix}")


def _prepare_search(folder: Path, shared: Path) -> None:
    """A text of which two parts are in the sample: lines of a program, and a canary."""
    dataset = pile_tools.TokenDataset(folder / "demo/tokens/sample")
    tokenizer = pile_tools.Tokenizer.from_file(folder / "demo/tokenizer.json")
    texts: dict[str | None, str] = {}
    for document in range(len(dataset)):
        origin = dataset.origin(document)
        assert origin is not None
        texts.setdefault(origin["subset"], tokenizer.decode(dataset[document]))
    lines = "\n".join(texts["Python Source"].splitlines()[30:37])
    (folder / "answer.txt").write_text(
        f"This program has the lines:\n\n{lines}\n\nThe licence says: {texts['Canaries'][:200]}.\n\n"
        "No one else wrote this sentence, I am nearly sure of it.\n"
    )


def _prepare_scale(folder: Path, shared: Path) -> None:
    """A corpus of 100 MB; a run that a damaged shard stopped; three of four parts; two other datasets."""
    shutil.copy(shared / "golden" / "20B_tokenizer.json", folder)
    shutil.copytree(shared / "corpus" / "mini_pile", folder / "pile", copy_function=shutil.copyfile)
    (folder / "pile").chmod(0o755)

    def tokenize(shards: str, output: str, *more: str, expected: int = 0) -> None:
        command = [
            str(Path(sys.executable).with_name("pile-tools")),
            "tokenize",
            shards,
            "-o",
            output,
            "--tokenizer",
            "20B_tokenizer.json",
            *more,
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300)
        assert done.returncode == expected, done.stderr

    shard = folder / "pile" / "03.jsonl.zst"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    tokenize("pile", "tokens/first", "--threads", "1", expected=1)
    shard.write_bytes(whole)
    for part in ("1/4", "2/4", "4/4"):
        tokenize("pile", "tokens/pile", "--part", part)
    tokenize("demo/deduped/00.jsonl.zst", "tokens/books")
    tokenize("demo/deduped/01.jsonl.zst", "tokens/code")


def _prepare_tokenizer(folder: Path, shared: Path) -> None:
    shutil.copy(folder / "demo/tokenizer.json", folder)


PREPARE: dict[str, Callable[[Path, Path], None]] = {
    "docs/datasets.md": _prepare_datasets,
    "docs/search.md": _prepare_search,
    "docs/scale.md": _prepare_scale,
    "docs/tokenizer.md": _prepare_tokenizer,
}


def printed(command: str, folder: Path, environment: dict[str, str]) -> list[str]:
    """The lines of standard output and standard error."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode in (0, 1, 2, 141), done.stdout
    return done.stdout.splitlines()


def is_run(text: str) -> bool:
    return not any(re.match(pattern, text) for pattern in NOT_RUN)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks((ROOT / page).read_text(encoding="utf-8"))]
)
def test_a_page_says_what_happens(page: str, scratch: Path, environment: dict[str, str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    now = []
    names: dict[str, Any] = {}
    with hub.serve() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.address)
        for block in blocks(text):
            if block.language == "python":
                now.append(run_python(block.text, names, page) if is_run(block.text) else block.text)
                continue
            lines = []
            for command, documented in commands(block.text):
                if is_run(command):
                    documented = abridged(documented, printed(command, scratch, environment))
                lines += [f"$ {command}", *documented]
            now.append("".join(f"{line}\n" for line in lines))
    new = text
    for block, content in reversed(list(zip(blocks(text), now, strict=True))):
        new = block.replaced(new, content)
    if MODE != "check" and new != text:
        (ROOT / page).write_text(new, encoding="utf-8")
    elif new != text:
        assert new.splitlines() == text.splitlines(), "run `make transcripts`"


def test_a_step_of_published_data_is_read_without_its_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the README's first lines of Python, from a server with the Hub's paths."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = next(block.text for block in blocks(text) if block.language == "python")
    assert hub.NAME in example
    assert len(example.splitlines()) == 3
    names: dict[str, Any] = {}
    with hub.serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        exec(compile(example, "README.md", "exec"), names)
        assert server.n_sent < 4_250_000
    assert np.array_equal(names["tokens"], hub.rows(1000 * 1024, 1001 * 1024))


def test_every_transcript_is_in_a_block() -> None:
    """Commands with a prompt are not outside of the blocks that are run."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in reversed(blocks(text)):
            text = text[: block.start] + text[block.end :]
        assert re.findall(r"^ *\$ .*", text, re.MULTILINE) == [], page


def test_what_is_not_run_is_there() -> None:
    everything = [
        text
        for page in PAGES
        for block in blocks((ROOT / page).read_text(encoding="utf-8"))
        for text in ([block.text] if block.language == "python" else [c for c, _ in commands(block.text)])
    ]
    assert len(everything) > 40
    for pattern in NOT_RUN:
        assert any(re.match(pattern, text) for text in everything), pattern


def test_the_readme_shows_the_demo() -> None:
    """The commands of the README are those of `make demo`, with the same options."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [
        command
        for block in blocks(page)
        if block.language == "console"
        for command, _ in commands(block.text)
    ]
    script = (ROOT / "scripts" / "demo.sh").read_text(encoding="utf-8")
    run = re.findall(r"^run ((?:pile|vqgan)-.*)$", script, re.MULTILINE)
    assert [command for command in shown if command not in run] == []
    assert len(shown) > 7


def test_the_configuration_in_the_docs_is_the_demo_s() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found
    assert tomllib.loads(found[1]) == tomllib.loads(
        (ROOT / "scripts" / "demo.toml").read_text(encoding="utf-8")
    )


@pytest.mark.slow
def test_training_prints_the_lines_of_the_readme(environment: dict[str, str], tmp_path: Path) -> None:
    """With a smaller model and fewer steps: the same lines apart from numbers."""
    (tmp_path / "scripts").mkdir()
    config = (ROOT / "scripts" / "demo.toml").read_text(encoding="utf-8")
    config = config.replace("hidden_size = 192", "hidden_size = 48")
    (tmp_path / "scripts" / "demo.toml").write_text(config)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    n_checked = 0
    for block in blocks(page):
        if block.language != "console":
            continue
        for command, documented in commands(block.text):
            smaller = command.replace("--steps 500", "--steps 20").replace("--step 100", "--step 10")
            lines = printed(smaller.replace("--rows 256", "--rows 8"), tmp_path, environment)
            if command.startswith(("pile-train", "pile-study")):
                assert agrees(*(_without_numbers(part) for part in (documented, lines))), "\n".join(lines)
                n_checked += 1
    assert n_checked == 3


def _without_numbers(lines: list[str]) -> list[str]:
    return [re.sub(r"\d[\d,.]*", "#", line) if line.strip() != "..." else line for line in lines]
