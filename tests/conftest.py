"""Fixtures: the golden data, small shards, a tokenizer, the command line."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

ROOT = Path(__file__).parents[1]

#: A configuration of GPT-NeoX for a tiny model, which `pile-train neox-config` translates.
NEOX_CONFIG = """
{
  "num-layers": 2, "hidden-size": 32, "num-attention-heads": 4, "seq-length": 16,
  "max-position-embeddings": 16, "train-iters": 4, "train_micro_batch_size_per_gpu": 4, "pos-emb": "rotary",
  "rotary-pct": 0.25, "no-weight-tying": true, "gpt-j-residual": true, "hidden-dropout": 0,
  "attention-dropout": 0, "gradient-clipping": 1.0, "weight-decay": 0.01,
  "optimizer": {"type": "Adam", "params": {"lr": 0.001}}
}
"""

# With a width, commands wrap their lines, in which tests look for messages.
os.environ.pop("COLUMNS", None)

# In several processes, networks that each use all cores wait for each other: many times slower.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden data and corpora; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("PILE_TOOLS_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}; PILE_TOOLS_SHARED names the folder")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Golden data made by running GPT-NeoX."""
    return shared / "golden" / "neox"


@pytest.fixture(scope="session")
def neox_tokenizer(shared: Path) -> Path:
    """The GPT-NeoX-20B tokenizer file."""
    return shared / "golden" / "20B_tokenizer.json"


Record = dict[str, Any]
WriteShard = Callable[[Path, Iterable[Record]], Path]


@pytest.fixture(scope="session")
def write_shard() -> WriteShard:
    """Writes records as a `.jsonl` or `.jsonl.zst` shard."""

    def write(path: Path, records: Iterable[Record]) -> Path:
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstandard.compress(lines) if path.suffix == ".zst" else lines)
        return path

    return write


def document(i: int) -> Record:
    """A made-up record of one of three subsets, some without any, some empty."""
    words = ["alpha", "beta", "gamma", "delta", "naïve", "日本語", "  ", "\n", "don't", "x_1"]
    text = " ".join(words[(i * 7 + k * k) % len(words)] for k in range(i % 90))
    subset = ["Books", "Code", None][i % 3]
    return {"text": text, "meta": {} if subset is None else {"pile_set_name": subset}}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, write_shard: WriteShard) -> Path:
    """A folder with four shards of 300 documents each, both kinds of file."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        name = f"{shard:02}.jsonl" + (".zst" if shard % 2 else "")
        write_shard(folder / name, (document(shard * 1000 + i) for i in range(300)))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A tokenizer of 400 tokens trained on the shards."""
    from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig, run
    from pile_tools.read.shards import find_shards

    output = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    run(find_shards([shards]), output, TrainTokenizerConfig(vocab_size=400), threads=2)
    return output


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, shards: Path, tokenizer: Path) -> Path:
    """The prefix of a token dataset of the shards."""
    from pile_tools.jobs.tokenize import TokenizeConfig, run
    from pile_tools.read.shards import find_shards

    prefix = tmp_path_factory.mktemp("tokens") / "sample"
    run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=2)
    return prefix


def outputs(made: Any) -> list[Path]:
    """The files that a manifest lists as outputs, in its order."""
    return [made.folder / entry["path"] for entry in made.outputs]


#: Mounts a folder or file, the first, on another one.
Bind = Callable[[Path, Path], None]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cli() -> Run:
    """Runs a command of ours in a process of its own, as a user would."""

    def run(
        *arguments: str | Path, module: str = "pile_tools.cli", **more: Any
    ) -> subprocess.CompletedProcess[str]:
        program = f"import sys; from {module} import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *map(str, arguments)]
        # pytest imports readline, which sets COLUMNS behind Python's back, and children would inherit it.
        more.setdefault("env", dict(os.environ))
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **more)

    return run


@pytest.fixture
def usual_mode() -> Iterator[int]:
    """The mode of new files under the umask of the test, which lets the group read."""
    before = os.umask(0o027)
    yield stat.S_IFREG | 0o640
    os.umask(before)


@contextlib.contextmanager
def mounting() -> Iterator[Callable[[list[str], Path], None]]:
    """Runs `mount` with arguments on a folder or file until the end; skips tests without the right to."""
    mounted = []

    def mount(arguments: list[str], on: Path) -> None:
        done = subprocess.run(["mount", *arguments, on], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"folders cannot be mounted here: {done.stderr.strip()}")
        mounted.append(on)

    yield mount
    for on in reversed(mounted):
        subprocess.run(["umount", on], check=True)


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Mounts a folder or file on another one, until the test ends."""
    with mounting() as mount:
        yield lambda source, on: mount(["--bind", str(source)], on)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Mounts a disk of so many KiB on a folder, until the test ends; resizes one that is mounted."""
    with mounting() as mount:

        def resize(folder: Path, n_kib: int) -> None:
            if os.path.ismount(folder):
                subprocess.run(["mount", "-o", f"remount,size={n_kib}k", str(folder)], check=True)
            else:
                mount(["-t", "tmpfs", "-o", f"size={n_kib}k", "none"], folder)

        yield resize


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Shows a folder as an overlay, whose changes are on another file system, until the test ends."""
    with mounting() as mount:

        def show(lower: Path) -> Path:
            for name in ("upper", "shown"):
                (tmp_path / name).mkdir()
            mount(["-t", "tmpfs", "none"], tmp_path / "upper")
            for name in ("changes", "work"):
                (tmp_path / "upper" / name).mkdir()
            upper = f"upperdir={tmp_path}/upper/changes,workdir={tmp_path}/upper/work"
            mount(["-t", "overlay", "none", "-o", f"lowerdir={lower},{upper}"], tmp_path / "shown")
            return tmp_path / "shown"

        yield show


@pytest.fixture(scope="session")
def options() -> dict[str, set[str]]:
    """The options of every command, by its whole name, `pile-tools order`."""
    import click

    from pile_tools.cli import group as tools
    from studies.cli import group as study
    from trainer.cli import group as train
    from vqgan_clip.cli import group as images

    found: dict[str, set[str]] = {}

    def add(name: str, command: click.Command) -> None:
        given = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        found[name] = {
            option for parameter in given for option in (*parameter.opts, *parameter.secondary_opts)
        }
        if isinstance(command, click.Group):
            context = click.Context(command)
            for word in command.list_commands(context):
                subcommand = command.get_command(context, word)
                assert subcommand is not None
                add(f"{name} {word}", subcommand)

    add("pile-tools", tools)
    add("pile-study", study)
    add("pile-train", train)
    add("vqgan-clip", images)
    return found
