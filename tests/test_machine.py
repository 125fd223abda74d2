"""Failures of the machine, and inputs that change under way: one line that names them, exit code 1."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.test_search import write_dataset

from pile_tools import TokenDataset, checked

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SHRINK = """
import os, sys
from pathlib import Path
import click
from pile_tools import TokenDataset, cli, publish

@click.command()
@click.argument("prefix")
@click.argument("n_left", type=int)
@click.argument("output", required=False)
def command(prefix, n_left, output):
    dataset = TokenDataset(prefix)
    os.truncate(prefix + ".bin", n_left)
    found = sum(int(dataset[i].sum()) for i in range(len(dataset)))
    if output is not None:
        publish.write_file(Path(output), lambda path: path.write_text(str(found)))

sys.exit(cli.run(command))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of maps is Linux's")
@pytest.mark.parametrize("has_output", [False, True])
@pytest.mark.parametrize("n_missing", [1, 4096, None])
def test_an_input_that_shrinks_ends_the_command_with_its_name(
    dataset: Path, tmp_path: Path, n_missing: int | None, has_output: bool
) -> None:
    for suffix in (".bin", ".idx"):
        shutil.copy(dataset.with_name(dataset.name + suffix), tmp_path / f"d{suffix}")
    n_left = 0 if n_missing is None else (tmp_path / "d.bin").stat().st_size - n_missing
    output = tmp_path / "out" / "found.txt"
    output.parent.mkdir()
    command = [sys.executable, "-c", SHRINK, str(tmp_path / "d"), str(n_left)]
    command += [str(output)] if has_output else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "became shorter while it was read" in result.stderr
    assert str(tmp_path / "d.bin") in result.stderr
    assert not output.exists()


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, as Linux has"
)
@pytest.mark.parametrize(
    "read", [checked.read_bytes, checked.sha256, lambda path: list(checked.bounded_lines(path))]
)
def test_a_disk_that_cannot_be_read_is_named(read: Callable[[Path], object]) -> None:
    # Nothing is mapped at address 0: the system answers with EIO.
    with pytest.raises(OSError, match="Input/output error") as info:
        read(Path("/proc/self/mem"))
    assert info.value.filename == "/proc/self/mem"


@pytest.mark.skipif(
    not os.access("/proc/kmsg", os.R_OK), reason="needs a file with nothing to read, as root has"
)
def test_a_file_with_nothing_to_read_yet_is_empty() -> None:
    for _ in range(2):
        assert isinstance(checked.read_bytes(Path("/proc/kmsg")), bytes)


def test_a_file_that_became_shorter_explains_other_errors(dataset: Path, tmp_path: Path) -> None:
    """Its cut tokens have another fingerprint, so that an order or index seems to be of another dataset."""
    for suffix in (".bin", ".idx"):
        (tmp_path / f"d{suffix}").write_bytes(dataset.with_suffix(suffix).read_bytes())
    program = """
import os, sys
from pile_tools import _core, cli
from pile_tools.errors import FormatError
import click

@click.command()
def command():
    dataset = _core.TokenDataset("d")
    os.truncate("d.bin", 100)
    raise FormatError("built for another dataset")

sys.exit(cli.run(command, []))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: became shorter while it was read; run the command again once it is whole (d.bin)\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of maps is Linux's")
def test_a_library_keeps_its_own_signals(dataset: Path, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx"):
        shutil.copy(dataset.with_name(dataset.name + suffix), tmp_path / f"d{suffix}")
    program = (
        "import os, sys; from pile_tools import TokenDataset; d = TokenDataset(sys.argv[1]); "
        "os.truncate(sys.argv[1] + '.bin', 0); print(d[5][0])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "d")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGBUS


def _limited(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


def test_memory_that_is_used_up_is_named(cli: Run, dataset: Path, tmp_path: Path) -> None:
    arguments = ["order", dataset, "-o", tmp_path / "o", "--seq-length", "8", "--samples", "200000000"]
    result = cli(*arguments, preexec_fn=_limited(resource.RLIMIT_AS, 1 << 30))
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is not enough memory")
    assert len(result.stderr.splitlines()) == 1


def test_memory_that_a_library_lacks_is_named(shards: Path, tmp_path: Path) -> None:
    """A library that is loaded at its first use is an ImportError if there is no memory for it."""
    program = (
        "import resource, sys\n"
        "import pile_tools.jobs.dedup\n"
        "from pile_tools.cli import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20),) * 2)\n"
        "sys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "dedup", "near", shards, "-o", tmp_path / "out", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: there is not enough memory")
    assert len(result.stderr.splitlines()) == 1


def test_a_limit_of_file_sizes_is_named(cli: Run, dataset: Path, tmp_path: Path) -> None:
    arguments = ["merge", dataset, dataset, "-o", tmp_path / "m"]
    result = cli(*arguments, preexec_fn=_limited(resource.RLIMIT_FSIZE, 10_000))
    assert result.returncode == 1
    assert "ulimit -f" in result.stderr
    assert str(tmp_path) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_limit_of_open_files_is_named(cli: Run, dataset: Path, shards: Path, tokenizer: Path) -> None:
    # What is imported before the limit holds needs no file any more.
    program = (
        "import resource, sys\n"
        "from pile_tools import cli\n"
        "from pile_tools.commands import show\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "sys.exit(cli.run(cli.group, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "show", str(dataset), "5"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "ulimit -n" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def _tokenizer_with(path: Path, tokenizer: Path, **changes: object) -> Path:
    values = json.loads(tokenizer.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))
    return path


def _added(contents: list[str], first: int = 400) -> list[dict[str, object]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": first + i, "content": text, "special": True, **flags} for i, text in enumerate(contents)]


@pytest.mark.parametrize("contents", [["x" * 50_000_000], [f"{i:0100}" for i in range(60_000)]])
def test_added_tokens_take_bounded_memory(
    cli: Run, tokenizer: Path, shards: Path, tmp_path: Path, contents: list[str]
) -> None:
    hostile = _tokenizer_with(tmp_path / "t.json", tokenizer, added_tokens=_added(contents))
    result = cli(
        "tokenize",
        shards,
        "-o",
        tmp_path / "d",
        "--tokenizer",
        hostile,
        preexec_fn=_limited(resource.RLIMIT_AS, 2 << 30),
    )
    assert result.returncode == 1
    assert "bytes of content together, at most" in result.stderr
    assert "t.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":[' + "0," * 9_000_000 + "0]}", " " * (130 << 20)])
def test_hostile_tokenizer_files_are_refused_in_bounded_memory(
    cli: Run, shards: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "t.json").write_text(text)
    result = cli(
        "tokenize",
        shards,
        "-o",
        tmp_path / "d",
        "--tokenizer",
        tmp_path / "t.json",
        preexec_fn=_limited(resource.RLIMIT_AS, 1 << 30),
    )
    assert result.returncode == 1
    assert "t.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_many_added_tokens_are_still_found(tokenizer: Path, tmp_path: Path) -> None:
    from pile_tools import Tokenizer

    contents = [f"<|token number {i:060}|>" for i in range(2000)]
    first = max(json.loads(tokenizer.read_text())["model"]["vocab"].values()) + 1
    added = _added(contents, first)
    many = Tokenizer.from_file(_tokenizer_with(tmp_path / "t.json", tokenizer, added_tokens=added))
    ids = many.encode(contents[7] + contents[1999])
    assert ids.tolist() == [first + 7, first + 1999]


def test_a_refused_thread_is_named(dataset: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from pile_tools import cli\n"
        "from pile_tools.commands import count_ngrams\n"
        "most = int(Path('/proc/self/statm').read_text().split()[0]) * 4096 + (1 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "sys.exit(cli.run(cli.group, sys.argv[1:]))"
    )
    assert TokenDataset(dataset).n_tokens
    command = [sys.executable, "-c", program, "count-ngrams", str(dataset), "--threads", "64"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "bug" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def long_tokens(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 3,000 tokens of 1 MiB each, in a file of 6,000 bytes, with its tokenizer and an order."""
    folder = tmp_path_factory.mktemp("long")
    values = json.loads(tokenizer.read_bytes())
    vocabulary, merges, token = values["model"]["vocab"], values["model"]["merges"], "a"
    for _ in range(20):
        merges.append(f"{token} {token}" if isinstance(merges[0], str) else [token, token])
        token += token
        vocabulary.setdefault(token, max(vocabulary.values()) + 1)
    (folder / "tokenizer.json").write_text(json.dumps(values))
    write_dataset(folder / "d", [[vocabulary[token]] * 3000])
    return folder


LONG_TEXTS = {
    "show": ["show", "d", "0"],
    "batch": ["batch", "order", "--step", "0", "--batch-size", "1"],
    "export": ["export", "order", "--steps", "0:1", "--batch-size", "1", "-o", "o.parquet"],
    "count-terms": ["count-terms", "terms.txt", "d"],
    "count-terms of an order": ["count-terms", "terms.txt", "order", "--batch-size", "1"],
    "arithmetic": ["count-numbers", "order", "--batch-size", "1"],
}


@pytest.mark.parametrize("command", LONG_TEXTS)
def test_texts_that_tokens_decode_to_are_bounded(cli: Run, long_tokens: Path, command: str) -> None:
    """The tokenizer and the dataset are small files, and may come from anyone."""
    (long_tokens / "terms.txt").write_text("b\n")
    if not (long_tokens / "order").exists():
        made = cli("order", "d", "-o", "order", "--seq-length", "2047", "--samples", "1", cwd=long_tokens)
        assert made.returncode == 0, made.stderr
    done = cli(*LONG_TEXTS[command], "--tokenizer", "tokenizer.json", cwd=long_tokens)
    assert done.returncode == 1
    assert "decode to more than 1 GiB" in done.stderr
    assert "(tokenizer.json" in done.stderr


def test_a_text_is_searched_in_parts(cli: Run, long_tokens: Path) -> None:
    """A scan decodes some tokens at a time: a document may be longer than memory."""
    made = cli("order", "d", "-o", "again", "--seq-length", "2047", "--samples", "1", cwd=long_tokens)
    assert made.returncode == 0, made.stderr
    search = ["when", "again", "b", "--batch-size", "1", "--index", "none", "--tokenizer", "tokenizer.json"]
    done = cli(*search, cwd=long_tokens)
    assert done.returncode == 0, done.stderr
    assert "searched: 1 document, 3,000 tokens" in done.stdout + done.stderr
