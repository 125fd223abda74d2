"""No value of an option is a bug of ours, in any command: exit code 0, 1 or 2, and one line that says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import NEOX_CONFIG

from pile_tools.arguments import checked
from pile_tools.cli import group, run
from pile_tools.commands import options
from pile_tools.config import from_toml
from pile_tools.errors import ConfigError
from trainer.commands.import_model import command as import_model
from trainer.config import TrainConfig

TRAIN = """
order = "o"
output = "run"
tokenizer = "t.json"
steps = 2
[model]
hidden_size = 16
n_layers = 1
n_heads = 1
[optimizer]
lr = 0.01
"""
DATA_PROGRAMS = ("pile-tools", "pile-study")
PROGRAM = Path(__file__).with_name("hostile_values.py")
#: Starts a program that may not read what a file's mode forbids, of the superuser too.
OBEYING_MODES = [] if os.geteuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, cli: Run) -> Path:
    """Shards, a tokenizer, an indexed dataset and an order, all tiny."""
    folder = tmp_path_factory.mktemp("inputs")
    words = ["alpha", "beta", "gamma", "delta"]
    texts = [" ".join(words[(i * 7 + k * k) % 4] for k in range(i % 40)) for i in range(60)]
    (folder / "shards").mkdir()
    lines = (json.dumps({"text": text, "meta": {"pile_set_name": "A"}}) for text in texts)
    (folder / "shards" / "0.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "terms.txt").write_text("alpha\nbeta\n")
    (folder / "text.txt").write_text("alpha beta gamma delta alpha\n")
    (folder / "items.jsonl").write_text(json.dumps({"question": texts[30]}) + "\n")
    (folder / "loop").symlink_to("loop")
    for command in (
        ["train-tokenizer", "shards", "-o", "t.json", "--vocab-size", "300"],
        ["tokenize", "shards", "-o", "d/s", "--tokenizer", "t.json"],
        ["index", "d/s"],
        ["dedup", "exact", "shards", "-o", "deduped"],
        ["order", "d/s", "-o", "o", "--seq-length", "16", "--steps", "4", "--batch-size", "4"],
    ):
        result = cli(*command, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def networks(inputs: Path) -> Path:
    """The inputs, with a config, a run and a picture beside them."""
    (inputs / "train.toml").write_text(TRAIN)
    (inputs / "neox.yml").write_text(NEOX_CONFIG)
    picture = ["generate", "red", "-o", "red.png", "--steps", "1", "--views", "1", "--threads", "1"]
    for program in (
        ["trainer.cli", "train.toml", "--threads", "1", "--keep-states", "all"],
        ["vqgan_clip.cli", *picture],
    ):
        command = [sys.executable, "-m", *program]
        done = subprocess.run(command, cwd=inputs, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    assert (inputs / "red.png").exists()
    return inputs


def _sweep(folder: Path, part: int, n_parts: int, *programs: str) -> int:
    """Runs a part of the sweep in a folder that has inputs, and returns how many runs that were."""
    inputs, out = folder / "inputs", folder / "out"
    (inputs / "closed.jsonl").touch(mode=0)
    (inputs / "closed").mkdir(mode=0)
    command = [*OBEYING_MODES, sys.executable, PROGRAM, inputs, out, str(part), str(n_parts), *programs]
    # A name that is no file is one of the Hub's, which would be asked for it again and again.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=3000, env=environment
    )
    runs = [json.loads(line) for line in result.stdout.splitlines()]
    wrong = [run for run in runs if not _is_right(run)]
    assert not wrong, json.dumps(wrong[:5], indent=1)
    return len(runs)


def _is_right(run: dict[str, Any]) -> bool:
    """Whether a run ended in time with a code that users are told of, and failed with one line."""
    if run["code"] is None and "/" in run["arguments"]:
        # The shards of a whole disk take as long as it is large.
        return True
    if run["code"] not in (0, 1, 2) or any(c < " " and c != "\n" for c in run["stderr"]):
        return False
    errors = [line for line in run["stderr"].split("\n") if line.startswith("error: ")]
    if run["code"] == 2 and "is not readable" in run["stderr"]:
        return False
    return len(errors) == (0 if run["code"] == 0 else 1)


@pytest.mark.parametrize(
    ("programs", "n_parts"),
    [(DATA_PROGRAMS, 7), (("pile-train", "vqgan-clip"), 30)],
    ids=["data", "networks"],
)
def test_hostile_values(
    request: pytest.FixtureRequest, tmp_path: Path, programs: tuple[str, ...], n_parts: int
) -> None:
    """A sample; `make slow` takes all."""
    folder: Path = request.getfixturevalue("inputs" if programs == DATA_PROGRAMS else "networks")
    # Runs write among their inputs, which other tests read.
    shutil.copytree(folder, tmp_path / "inputs", symlinks=True)
    n_parts = 1 if os.environ.get("PILE_TOOLS_SLOW") else n_parts
    assert _sweep(tmp_path, 3 % n_parts, n_parts, *programs) > 1500 // n_parts


@pytest.mark.parametrize("table", ["", "model", "optimizer"])
@pytest.mark.parametrize(
    "value", ["nan", "inf", "-1", "9223372036854775808", "1" + "0" * 5000, "[[[]]]", '"\\u001b[2J"', "-1e400"]
)
def test_no_value_of_a_training_config_is_a_bug(table: str, value: str, tmp_path: Path) -> None:
    keys = {
        "": ["steps", "batch_size", "micro_batch_size", "seed", "checkpoint_every", "precision"],
        "model": ["hidden_size", "n_layers", "vocab_size", "rotary_pct", "rotary_base", "layer_norm_eps"],
        "optimizer": ["lr", "min_lr", "warmup", "betas", "eps", "weight_decay", "gradient_clipping"],
    }
    path = tmp_path / "c.toml"
    for key in keys[table]:
        model = {"hidden_size": "32", "n_layers": "1", "n_heads": "1"} | (
            {key: value} if table == "model" else {}
        )
        lines = ['order = "o"', 'output = "r"', *([f"{key} = {value}"] if table == "" else []), "[model]"]
        lines += [f"{name} = {given}" for name, given in model.items()]
        lines += ["[optimizer]", f"{key} = {value}"] if table == "optimizer" else []
        path.write_text("\n".join(lines) + "\n")
        if value in ("-1", "9223372036854775808") and not _is_refused(path):
            continue  # Some settings may be so, and others are refused with the order at hand.
        with pytest.raises(ConfigError, match=r"c\.toml"):
            from_toml(TrainConfig, path)


def _is_refused(path: Path) -> bool:
    try:
        from_toml(TrainConfig, path)
    except ConfigError:
        return True
    return False


def test_a_deeply_nested_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("order = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"c\.toml"):
        from_toml(TrainConfig, tmp_path / "c.toml")


@pytest.mark.parametrize("n", ["1-1000000000", "99999999999999999999", "0", "1-", "10001"])
def test_lengths_of_ngrams_are_bounded(cli: Run, inputs: Path, n: str) -> None:
    result = cli("count-ngrams", inputs / "shards", "--n", n)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


def test_an_order_that_does_not_fit_is_refused(cli: Run, inputs: Path, tmp_path: Path) -> None:
    result = cli("order", inputs / "d/s", "-o", tmp_path / "o", "--seq-length", "16", "--samples", str(2**39))
    assert result.returncode == 2
    assert "does not fit into memory" in result.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "\udcff"])
def test_names_that_no_output_can_have(
    inputs: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["tokenize", inputs / "shards", "--tokenizer", inputs / "t.json", "-o", name],
        ["merge", inputs / "d/s", inputs / "d/s", "-o", name],
        ["train-tokenizer", inputs / "shards", "-o", name],
        ["count-ngrams", inputs / "d/s", "-o", name],
        ["unshard", inputs / "d", "-o", name],
        ["batch", inputs / "o", "--step", "0", "--npy", name],
        ["when", inputs / "o", "alpha", "--plot", name],
    ):
        assert run(group, [str(argument) for argument in command]) == 2, command
        errors = capfd.readouterr().err
        assert "Invalid value" in errors
        assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["made/", "."])
def test_a_folder_is_named_as_a_shell_completes_it(cli: Run, inputs: Path, tmp_path: Path, name: str) -> None:
    made = cli("dedup", "signatures", inputs / "shards", "-o", name, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    [output] = [parameter for parameter in checked(import_model).params if parameter.name == "output"]
    assert output.type.convert(name, output, None) == Path(name)


@pytest.mark.parametrize("n", [options.MAX_THREADS + 1, 2**31])
def test_threads_out_of_reach_are_refused(cli: Run, inputs: Path, n: int) -> None:
    result = cli("search", inputs / "d/s", "alpha", "--threads", str(n))
    assert result.returncode == 2
    assert "--threads" in result.stderr
