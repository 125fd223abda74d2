"""`plan`, `neox-config` and `generate` as commands: what they print, refuse and leave."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pile_tools import Tokenizer
from pile_tools.cli import run
from pile_tools.config import from_toml
from trainer.checkpoint import hf
from trainer.cli import group
from trainer.config import EARLY_CHECKPOINTS, TrainConfig
from trainer.model.neox import GPTNeoX
from trainer.presets import PRESETS

ModelOf = Callable[..., GPTNeoX]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: exit code, standard output and standard error."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run(group, list(map(str, words)))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_of: ModelOf, tokenizer: Path) -> Path:
    """A Hugging Face folder whose vocabulary is padded."""
    folder = tmp_path_factory.mktemp("model")
    known = Tokenizer.from_file(tokenizer)
    model = model_of(vocab_size=known.vocab_size + 40)
    save_file(model.state_dict(), folder / hf.WEIGHTS_FILE, metadata={"format": "pt"})
    config = hf.model_config(model.shape, "float32", None)
    (folder / hf.CONFIG_FILE).write_text(json.dumps(config))
    (folder / hf.TOKENIZER_FILE).write_bytes(tokenizer.read_bytes())
    return folder


@pytest.mark.parametrize("name", [name for name in PRESETS if "-seed" not in name])
def test_the_plan_of_a_preset_fits_80_columns(call: Call, name: str) -> None:
    n_gpus = 96 if name == "gpt-neox-20b" else 64
    code, out, err = call("plan", name, "--gpus", n_gpus, "--memory", "40")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"{name}: ")
    assert [line[0] for line in lines[7:11]] == ["0", "1", "2", "3"]
    n_checkpoints = 311 if name == "gpt-neox-20b" else 154
    assert f"{n_checkpoints} checkpoints" in lines[-1]


def test_the_plan_in_the_page_is_what_the_command_prints(call: Call) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pythia-70m.md").read_text(encoding="utf-8")
    found = re.search(r"^\$ pile-train (plan .*)\n((?:.*\n)*?)```", page, re.MULTILINE)
    assert found is not None
    assert call(*found[1].split())[1] == found[2]


def test_the_config_in_the_page_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pythia-70m.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "train.toml").write_text(found[1], encoding="utf-8")
    config = from_toml(TrainConfig, tmp_path / "train.toml")
    assert config.model.published == PRESETS["pythia-70m"]
    assert config.micro_batch_size == 1024 // 8 // 4


def test_a_plan_as_json(call: Call) -> None:
    code, out, _ = call("plan", "pythia-70m", "--gpus", 8, "--memory", 80, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["tokens"] == 143_000 * 1024 * 2048
    assert found["gpu_days"] == pytest.approx(8 * found["days"])
    assert found["disk_bytes"] == 154 * 2 * 70_426_624 + 2 * 12 * 70_426_624


def test_the_plan_of_a_config(call: Call, tmp_path: Path, order: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(
        f'order = "{order}"\noutput = "r"\n[model]\nhidden_size = 32\nn_layers = 2\nn_heads = 4\n'
    )
    code, out, _ = call("plan", path, "--gpus", 2, "--memory", "0.1", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["steps"], found["batch_size"], found["seq_length"]) == (40, 8, 32)
    assert found["n_checkpoints"] == len({step for step in EARLY_CHECKPOINTS if step <= 40} | {40})
    path.write_text('order = "missing"\noutput = "r"\n[model]\npreset = "pythia-14m"\n')
    assert call("plan", path, "--gpus", 1, "--memory", 80)[0] == 0
    path.write_text('order = "missing"\noutput = "r"\n[model]\nhidden_size = 32\nn_layers = 2\nn_heads = 4\n')
    code, out, err = call("plan", path, "--gpus", 1, "--memory", 80)
    assert (code, out) == (2, "")
    assert err.startswith("error: steps is not known: the order is missing")


def test_the_plan_without_an_order_is_that_of_its_stages(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    head, stages = 'order = "missing"\noutput = "r"\n', "[[stages]]\nsteps = 500\n" * 2
    dimensions = "[model]\nhidden_size = 32\nn_layers = 2\nn_heads = 4\nvocab_size = 100\n"
    words = ["plan", path, "--gpus", 1, "--memory", 80, "--json"]
    path.write_text(f'{head}[model]\npreset = "pythia-14m"\n{stages}')
    assert json.loads(call(*words)[1])["steps"] == 1000
    path.write_text(f"batch_size = 8\n{head}{dimensions}{stages}")
    code, out, _ = call(*words, "--seq-length", 64)
    assert (code, json.loads(out)["tokens"]) == (0, 1000 * 8 * 64)
    path.write_text(f"steps = 30\nbatch_size = 8\n{head}{dimensions}{stages}")
    code, _, err = call(*words, "--seq-length", 64)
    assert (code, "the stages have 1,000 steps, steps = 30" in err, str(path) in err) == (2, True, True)
    # Other values that a run would be refused for.
    path.write_text(f"steps = 9\nbatch_size = 8\n{head}{dimensions}[deepspeed]\npipeline_stages = 3\n")
    code, _, err = call(*words, "--seq-length", 64)
    assert (code, "pipeline_stages 3 needs 3 blocks" in err) == (2, True)


def test_the_plan_of_a_pipeline_is_that_of_its_largest_stage(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    text = 'order = "missing"\noutput = "r"\nprecision = "bf16"\n[model]\npreset = "pythia-12b"\n'
    path.write_text(text)
    whole = json.loads(call("plan", path, "--gpus", 8, "--memory", 80, "--json")[1])
    path.write_text(text + "[deepspeed]\npipeline_stages = 4\n")
    code, out, _ = call("plan", path, "--gpus", 8, "--memory", 80, "--json")
    found = json.loads(out)
    assert (code, found["pipeline_stages"], whole["pipeline_stages"]) == (0, 4, 1)
    assert [stage["stage"] for stage in found["stages"]] == [1]
    # The optimizer is divided among eight processes either way: by stages, then by copies.
    n_embedding = 50688 * 5120
    n_largest = (11_846_072_320 - 2 * n_embedding) // 4 + n_embedding
    assert found["stages"][0]["weights"] == 2 * n_largest < 0.3 * whole["stages"][1]["weights"]
    assert found["stages"][0]["optimizer"] == 12 * n_largest // 2
    assert "on 8 GPUs in 4 pipeline stages:" in call("plan", path, "--gpus", 8, "--memory", 80)[1]
    code, _, err = call("plan", path, "--gpus", 6, "--memory", 80)
    assert (code, err) == (2, "error: 6 GPUs are not a multiple of 4 pipeline stages\n")


def test_the_plan_of_an_offloaded_optimizer_leaves_its_memory(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    text = 'order = "missing"\noutput = "r"\n[model]\npreset = "pythia-1b"\n'
    path.write_text(text + "[deepspeed]\noffload_optimizer = true\n")
    code, out, _ = call("plan", path, "--gpus", 1, "--memory", 40, "--json")
    stages = json.loads(out)["stages"]
    assert (code, [stage["stage"] for stage in stages]) == (0, [1, 2, 3])
    assert [stage["optimizer"] for stage in stages] == [0, 0, 0]
    code, out, _ = call("plan", path, "--gpus", 1, "--memory", 40)
    assert (code, out.splitlines()[7].split()[:4]) == (0, ["1", "4.05", "4.05", "0"])


def test_the_plan_of_a_translated_configuration_needs_no_order(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(NEOX)
    config = tmp_path / "train.toml"
    assert call("neox-config", tmp_path / "a.yml", "-o", config, "--gpus", 4)[0] == 0
    words = ["plan", config, "--gpus", 4, "--memory", 8]
    code, _, err = call(*words)
    assert code == 2
    assert "seq_length is not known: the order is missing, and no preset is named; give --seq-length" in err
    code, out, _ = call(*words, "--seq-length", 64, "--json")
    assert code == 0
    assert (json.loads(out)["tokens"], json.loads(out)["precision"]) == (6 * 24 * 64, "fp32")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["plan", "pythia-15m", "--gpus", "1", "--memory", "8"], 2, "no preset and no file 'pythia-15m'"),
        (["plan", "pythia-1b", "--gpus", "7", "--memory", "8"], 2, "cannot be divided among 7 GPUs"),
        (["plan", "pythia-1b", "--gpus", "0", "--memory", "8"], 2, "0 is not in the range"),
        (["plan", "pythia-1b", "--gpus", "1", "--memory", "nan"], 2, "--memory"),
        (["plan", "pythia-1b", "--gpus", "1", "--memory", "8", "--utilization", "inf"], 2, "--utilization"),
        (["plan", "pythia-1b", "--gpus", "1"], 2, "Missing option '--memory'"),
        (["neox-config", "x.yml"], 2, "Missing option '-o'"),
        (["generate", "x"], 2, "no prompts: give some"),
        (["generate", "x", "y", "--top-p", "0"], 2, "--top-p"),
        (["generate", "x", "y", "--temperature", "nan"], 2, "--temperature"),
    ],
)
def test_bad_options_are_named(call: Call, words: list[str], code: int, message: str) -> None:
    found, out, err = call(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


NEOX = """{
  "num-layers": 2, "hidden-size": 32, "num-attention-heads": 4, "pos-emb": "rotary", "no-weight-tying": true,
  "optimizer": { "type": "Adam", "params": { "lr": 0.01 } }, "weight-decay": 0.1, "gradient_clipping": 1.0,
  "hidden-dropout": 0, "attention-dropout": 0, "train-iters": 6, "lr-decay-style": "cosine", "launcher": "x",
  "train_micro_batch_size_per_gpu": 2, "gas": 3, "our-own": 1,
}"""


def test_a_configuration_is_translated(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(NEOX)
    (tmp_path / "b.yml").write_text("seed: 7\nmodel_parallel_size: 1\n")
    config = tmp_path / "train.toml"
    words = ["neox-config", tmp_path / "a.yml", tmp_path / "b.yml", "-o", config, "--gpus", 4]
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert '  launcher = "x": for the launcher of GPT-NeoX' in out
    assert "unknown: our_own, no key of GPT-NeoX; ignored" in out
    assert "batch_size = 24\n" in config.read_text()
    assert "seed = 7\n" in config.read_text()
    # The same again is no change; other contents are not replaced.
    assert call(*words)[0] == 0
    code, _, err = call(*words[:-1], 8)
    assert code == 1
    assert "--force replaces it" in err
    assert call(*words[:-1], 8, "--force")[0] == 0
    assert "batch_size = 48\n" in config.read_text()


def test_what_cannot_be_translated_leaves_no_file(call: Call, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.yml").write_text(NEOX.replace('"rotary"', '"alibi"'))
    code, out, err = call("neox-config", tmp_path / "a.yml", "-o", tmp_path / "train.toml")
    assert (code, out) == (1, "")
    assert err.startswith('error: cannot be translated: pos_emb is "alibi"')
    assert str(tmp_path / "a.yml") in err
    assert not (tmp_path / "train.toml").exists()
    code, _, err = call("neox-config", tmp_path / "a.yml", "-o", tmp_path / "a.yml", "--force")
    assert code == 1
    assert (tmp_path / "a.yml").read_text().startswith("{")
    named = tmp_path / "\udcff.json"
    named.write_bytes(tokenizer.read_bytes())
    (tmp_path / "a.yml").write_text(NEOX)
    words = ["neox-config", tmp_path / "a.yml", "-o", tmp_path / "train.toml", "--tokenizer", named]
    code, _, err = call(*words)
    assert code == 2
    assert "a TOML file is UTF-8, and this name is not: " in err
    assert "udcff.json" in err


def test_prompts_are_continued_alike_in_any_batch(call: Call, folder: Path, tmp_path: Path) -> None:
    # As an editor on Windows saves it.
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfone two\r\n\r\nthree\r\n")
    words = ["generate", folder, "alpha", "--file", tmp_path / "prompts.txt", "--max-tokens", 9]
    words += ["--temperature", 1, "--json"]
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    found = json.loads(out)["continuations"]
    assert [one["prompt"] for one in found] == ["alpha", "one two", "three"]
    assert json.loads(call(*words, "--batch-size", 1)[1])["continuations"] == found
    known = Tokenizer.from_file(folder / hf.TOKENIZER_FILE).vocab_size
    assert all(token < known for one in found for token in one["tokens"])


def test_a_file_of_prompts_that_is_no_text_is_named(call: Call, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"one\ntwo \xff\n")
    code, out, err = call("generate", folder, "--file", path)
    assert (code, out) == (1, "")
    assert f"not UTF-8: invalid start byte at byte 4 of the line ({path}, line 2)" in err


def test_a_single_prompt_is_printed_as_in_the_document(call: Call, folder: Path) -> None:
    words = ["generate", folder, "a\x1b[2Jb", "--max-tokens", 12, "--temperature", 1, "--seed", 5]
    one = json.loads(call(*words, "--json")[1])["continuations"][0]
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert out.startswith("a\\x1b[2Jb")
    assert "\x1b" not in out
    from pile_tools.terminal import escape_text

    assert out == f"{escape_text('a' + chr(27) + '[2Jb' + one['text'])}\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / hf.CONFIG_FILE).unlink(), "config.json"),
        (lambda f: (f / hf.TOKENIZER_FILE).unlink(), "tokenizer.json"),
        (lambda f: (f / hf.WEIGHTS_FILE).write_bytes(b"x"), "not a safetensors file"),
    ],
)
def test_a_damaged_folder_is_named(
    call: Call, folder: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    change(copy)
    code, out, err = call("generate", copy, "x")
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_device_that_is_not_there_is_named(call: Call, folder: Path) -> None:
    for device in ("no-device", "meta", "hpu", "mkldnn", *([] if torch.cuda.is_available() else ["cuda"])):
        code, _, err = call("generate", folder, "x", "--device", device)
        assert code == 2
        assert f"no device '{device}' here" in err
        assert err.count("\n") == 1
