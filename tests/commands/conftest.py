"""A folder with one of each kind of artifact, made by the commands, and a call of each command on it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from pile_tools.cli import run

#: Subset and shard names are longer than a column of a terminal.
SUBSETS = ["Books with a name that is much longer than any column of a table has room for", "Code", None]
LONG = "a-folder-with-a-long-name"

CONFIG = """
order = "tokens"
output = "run"
tokenizer = "tokenizer.json"
[model]
hidden_size = 32
n_layers = 2
n_heads = 4
[optimizer]
lr = 0.01
"""

#: A configuration in the form of GPT-NeoX's.
NEOX = """
{ "num-layers": 2, "hidden-size": 32, "num-attention-heads": 4, "seq-length": 64, "pos-emb": "rotary",
  "no-weight-tying": true, "optimizer": { "type": "Adam", "params": { "lr": 0.01 } }, "weight-decay": 0.1,
  "gradient_clipping": 1.0, "hidden-dropout": 0, "attention-dropout": 0, "train-iters": 6,
  "lr-decay-style": "cosine", "launcher": "slurm", "log-dir": "a-\\u001b[2J-folder", "odd": [], }
"""

#: A call of every command, in an order in which each finds what it needs.
CALLS = [
    "pile-tools sample {LONG}/sample --megabytes 0.1 --shards 1",
    "pile-tools dedup exact shards -o {LONG}/exact --normalize case --dry-run",
    "pile-tools dedup near shards -o {LONG}/near --threshold 0.5 --permutations 64 --keep-signatures",
    "pile-tools dedup signatures shards -o {LONG}/sigs --permutations 64 --part 1/2",
    "pile-tools dedup passages shards -o {LONG}/cut --length 40",
    "pile-tools dedup restore {LONG}/near 00-{LONG}.jsonl.zst:5",
    "pile-tools train-tokenizer shards -o tokenizer.json --vocab-size 300",
    "pile-tools tokenize shards -o tokens/sample --tokenizer tokenizer.json",
    "pile-tools tokenize shards -o {LONG}/parts --tokenizer tokenizer.json --part 1/2",
    "pile-tools merge tokens/sample tokens/sample -o {LONG}/both",
    "pile-tools label {LONG}/foreign shards --tokenizer tokenizer.json",
    "pile-tools index tokens/sample",
    "pile-tools order tokens/sample --seq-length 64 --steps 6 --batch-size 4 --seed 1",
    "pile-tools stages tokens:4 tokens:2 -o {LONG}/staged",
    "pile-tools shard tokens/sample.bin -o sharded --bytes 10000",
    "pile-tools unshard sharded -o {LONG}/joined.bin",
    "pile-tools shard rows/rows.bin -o {LONG}/rows --bytes 8196",
    "pile-tools show tokens/sample 5",
    "pile-tools show tokens/sample -1 --tokens",
    "pile-tools show tokens/sample 5 --raw",
    "pile-tools show {LONG}/unlabelled 5 --tokens",
    "pile-tools search tokens/sample alpha 日本語 --order tokens",
    "pile-tools search tokens/sample alpha",
    "pile-tools search tokens/sample alpha --count",
    "pile-tools search tokens/sample alpha --next",
    'pile-tools search tokens/sample --cnf [["alpha"],["beta"]]',
    "pile-tools trace-text tokens/sample text.txt --order tokens",
    "pile-tools count-ngrams tokens/sample --n 1-2",
    "pile-tools count-ngrams shards --by-subset",
    "pile-tools count-ngrams shards --by-subset -o ngrams.tsv",
    "pile-tools count-terms terms.txt shards --by-subset",
    "pile-tools count-terms terms.txt tokens --checkpoints 2 --pairs all -o terms.tsv",
    "pile-tools count-numbers tokens --checkpoints 2",
    "pile-tools batch tokens --step 1",
    "pile-tools batch tokens --step 1 --row 2 --tokens",
    "pile-tools batch rows --step 0 --batch-size 1",
    "pile-tools export tokens --steps 0:2 -o steps.csv",
    "pile-tools when tokens alpha 日本語",
    "pile-tools when tokens alpha --limit 3",
    "pile-tools when rows --ids 300 --batch-size 1",
    "pile-tools trace tokens 5",
    "pile-tools repeats tokens --every 2",
    "pile-tools mixture tokens --every 2",
    "pile-tools contamination items.jsonl shards -o {LONG}/in-shards --report {LONG}/items.html",
    "pile-tools contamination items.jsonl tokens/sample -o {LONG}/in-dataset",
    "pile-tools contamination items.jsonl tokens -o {LONG}/in-order --checkpoints 2",
    "pile-tools verify tokens",
    "pile-train train config.toml --threads 1",
    "pile-train branch run --step 1 -o {LONG}/branch --fresh-moments --rewarm 2 --threads 1",
    "pile-train losses run --step 3 --top 2",
    "pile-train losses run --by subset --every 2",
    "pile-train loss-page run -o {LONG}/losses.html",
    "pile-train plan pythia-70m --gpus 8 --memory 80",
    "pile-train neox-config neox.yml -o {LONG}/neox.toml --force",
    "pile-train verify run",
    "pile-train import run/checkpoints/step1 -o {LONG}/model",
    "pile-train generate run alpha 日本語 --max-tokens 4 --temperature 1",
    "pile-study memorization run -o study --rows 8 --prompt-tokens 8 --continuation-tokens 8",
    "pile-study report run --memorization study -o report.html",
    "pile-tools verify run --chain",
    "vqgan-clip generate star -o star.png --steps 2 --views 2",
    "vqgan-clip edit star.png circle -o {LONG}/edit.png --steps 2 --views 2 --mask-text star",
    "vqgan-clip show star.png",
    "vqgan-clip rerun star.png",
    "vqgan-clip demo -o {LONG}/demo",
    "vqgan-clip train-toy -o {LONG}/toy --vqgan-steps 1 --clip-steps 1 --adversarial-steps 1",
]

MODULES = {
    "pile-tools": "pile_tools.cli",
    "pile-train": "trainer.cli",
    "pile-study": "studies.cli",
    "vqgan-clip": "vqgan_clip.cli",
}


@dataclass(frozen=True)
class Done:
    """The exit code of a command and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class World:
    """A folder with artifacts.

    Attributes:
        folder: The folder, in which the calls run.
        printed: What each of `calls` printed when it was run first, by its words.
    """

    folder: Path
    printed: dict[tuple[str, ...], Done] = field(default_factory=dict)

    def call(self, *words: str | Path, columns: int = 80) -> Done:
        """Runs a command line of any of our commands in the folder, in this process, on a narrow terminal."""
        program, *arguments = map(str, words)
        module = importlib.import_module(MODULES[program])
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("COLUMNS", str(columns))
            code = run(module.group, arguments)
        return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def calls() -> list[tuple[str, ...]]:
    """The words of a call of every command."""
    return [tuple(call.format(LONG=LONG).split()) for call in CALLS]


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    write_shard: Callable[..., Path],
    calls: list[tuple[str, ...]],
    cli: Callable[..., object],
) -> Iterator[World]:
    """A folder in which every call was run once."""
    world = World(tmp_path_factory.mktemp("world"))
    folder = world.folder
    (folder / LONG).mkdir()
    words = ["alpha", "beta", "gamma", "delta", "naïve", "日本語", "7", "12", "don't", "x_1"]
    for shard in range(2):
        texts = [" ".join(words[(i * 7 + k * k + shard) % 10] for k in range(i % 90)) for i in range(120)]
        records = [
            {"text": text, "meta": {} if SUBSETS[i % 3] is None else {"pile_set_name": SUBSETS[i % 3]}}
            for i, text in enumerate(texts)
        ]
        write_shard(folder / "shards" / f"{shard:02}-{LONG}.jsonl.zst", records)
    (folder / "terms.txt").write_text("alpha\nbeta gamma\n日本語\nnowhere\n")
    items = [
        {"id": "long", "question": texts[80], "answer": "alpha"},
        {"passage": f"{' '.join(texts[70].split()[:40])} beta \n gamma \t\x1b[2J \u202e"},
        {"question": "nowhere at all is this"},
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "text.txt").write_text(f"Before. {texts[80]} After.")
    (folder / "config.toml").write_text(CONFIG)
    (folder / "neox.yml").write_text(NEOX)
    (folder / "rows").mkdir()
    (folder / "rows" / "rows.bin").write_bytes(bytes(2) + (300).to_bytes(2, "little") * (3 * 2049 - 1))
    for call in calls:
        if call[1] == "label":
            for name in ("foreign", "unlabelled"):
                for suffix in (".bin", ".idx"):
                    shutil.copyfile(folder / f"tokens/sample{suffix}", folder / LONG / f"{name}{suffix}")
        if call[:2] in (("pile-train", "train"), ("pile-train", "branch")):
            # DeepSpeed changes the process it runs in.
            done = cli(*call[1:], module="trainer.cli", cwd=folder, env={**os.environ, "COLUMNS": "80"})
            world.printed[call] = Done(done.returncode, done.stdout, done.stderr)  # type: ignore[attr-defined]
        else:
            world.printed[call] = world.call(*call)
        assert world.printed[call].code == 0, (call, world.printed[call].err)
    return world


def every_command() -> dict[str, list[str]]:
    """The names of the subcommands of each program."""
    from pile_tools.cli import SECTIONS as data
    from studies.cli import SECTIONS as studies
    from trainer.cli import SECTIONS as training
    from vqgan_clip.cli import SECTIONS as images

    found: dict[str, list[str]] = {}
    programs = {
        "pile-tools": data,
        "pile-train": training,
        "pile-study": studies,
        "vqgan-clip": images,
    }
    for program, sections in programs.items():
        names = found.setdefault(program, [])
        for name in (name for section in sections.values() for name in section):
            command = command_of(program, name)
            is_group = isinstance(command, click.Group)
            context = click.Context(command)
            names += [f"{name} {sub}" for sub in command.list_commands(context)] if is_group else [name]
    return found


def command_of(program: str, name: str) -> click.Command:
    """A command by the words of its name."""
    module = importlib.import_module(MODULES[program])
    command = module.group
    for word in name.split():
        command = command.get_command(click.Context(command), word)
    assert isinstance(command, click.Command)
    return command


def parsed(text: str) -> dict[str, object]:
    """The one JSON document of a command's standard output."""
    assert text.count("\n") == 1
    found = json.loads(text)
    assert isinstance(found, dict)
    return found
