"""`pile-train` from end to end, under DeepSpeed: what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.trainer.same import contents

import trainer
from pile_tools import Tokenizer, manifest, open_order
from pile_tools.jobs import verify
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.stages import Stage
from pile_tools.jobs.stages import run as join_stages
from pile_tools.manifest import Request
from studies.runs import open_run
from trainer.log import LOG_FILE, read_log, read_validations
from trainer.validation import n_bytes_of

pytestmark = pytest.mark.slow

Train = Callable[..., "subprocess.CompletedProcess[str]"]
WriteConfig = Callable[..., Path]

REGULAR = "checkpoint_every = 10"


#: A number of rows that is no multiple of a batch.
N_VALIDATED = 5


def validation(order: Path) -> tuple[str, ...]:
    """The lines of the table."""
    return "[validation]", f'order = "{order}"', "every = 15", f"rows = {N_VALIDATED}"


def losses(output: Path) -> NDArray[np.float64]:
    return np.array([line["loss"] for line in read_log(output / LOG_FILE)])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, write_config: WriteConfig, order: Path) -> Path:
    folder = tmp_path_factory.mktemp("train")
    return write_config(folder / "config.toml", folder / "run", REGULAR, tables=validation(order))


@pytest.fixture(scope="module")
def finished(config: Path, train: Train) -> Path:
    """The output of a run that nothing disturbed."""
    result = train(config)
    assert result.returncode == 0, result.stderr
    assert "trained 40 steps, 10,240 tokens" in result.stdout
    assert "next: pile-study memorization" in result.stdout
    chatter = [line for line in result.stderr.splitlines() if not line.startswith(("training:", "step "))]
    assert [line for line in chatter if "DeepSpeed compiles" not in line] == []
    return config.parent / "run"


def test_it_learns(finished: Path) -> None:
    found = losses(finished)
    assert len(found) == 40
    assert found[0] == pytest.approx(np.log(384), abs=0.5)
    assert found[-5:].mean() < found[0] - 1


def test_it_leaves_checkpoints_a_log_and_a_manifest(finished: Path) -> None:
    steps = [0, 1, 2, 4, 8, 10, 16, 20, 30, 32, 40]
    assert trainer.list_steps(finished) == steps
    found = manifest.read(finished / "manifest.json")
    assert found.kind == "run"
    assert found.summary["checkpoints"] == steps
    for step in steps:
        trainer.load_checkpoint(finished, step)
    assert [path.name for path in (finished / "resume").iterdir()] == ["step40"]


def test_the_log_counts_tokens_and_follows_the_schedule(finished: Path) -> None:
    lines = read_log(finished / LOG_FILE)
    assert [line["step"] for line in lines] == list(range(40))
    assert lines[-1]["tokens"] == 40 * 8 * 32
    assert lines[0]["lr"] == 0.01
    assert lines[-1]["lr"] == pytest.approx(0.001, rel=0.02)
    assert all(line["grad_norm"] > 0 for line in lines)


def losses_by(checkpoint: Path, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean loss of each row by a checkpoint's weights, computed here."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    with torch.no_grad():
        logits = trainer.load_model(checkpoint)(tokens[:, :-1]).double()
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return each.view(len(tokens), -1).mean(dim=1).numpy()


def test_the_losses_of_rows_are_those_of_their_tokens(finished: Path, order: Path) -> None:
    found = trainer.read_row_losses(finished)
    assert found.shape == (40, 8)
    np.testing.assert_allclose(found.mean(axis=1, dtype=np.float64), losses(finished), rtol=1e-3)
    for step in (0, 8, 32):
        expected = losses_by(finished / f"checkpoints/step{step}", open_order(order).batch(step))
        np.testing.assert_allclose(found[step], expected, rtol=1e-3)


def test_validations_are_of_the_weights_then(finished: Path, order: Path, tokenizer: Path) -> None:
    lines = read_validations(finished / "validation_log.jsonl")
    assert [line["step"] for line in lines] == [0, 15, 30, 40]
    rows = open_order(order).samples.read(0, N_VALIDATED)
    decoder = Tokenizer.from_file(tokenizer)
    n_bytes = sum(n_bytes_of(decoder, id) for id in rows[:, 1:].flatten().tolist())
    for line in lines:
        if line["step"] != 15:
            expected = losses_by(finished / f"checkpoints/step{line['step']}", rows).mean()
            assert line["loss"] == pytest.approx(expected, rel=1e-5)
        assert line["tokens"] == line["step"] * 8 * 32
        nats = line["loss"] * rows[:, 1:].size
        assert line["bits_per_byte"] == pytest.approx(nats / np.log(2) / n_bytes)


def test_the_log_has_times_and_speeds(finished: Path) -> None:
    lines = read_log(finished / LOG_FILE)
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    assert all(line["tokens_per_second"] > 0 for line in lines)


def test_the_same_command_does_nothing(config: Path, finished: Path, train: Train) -> None:
    before = contents(finished)
    result = train(config)
    assert (result.returncode, result.stderr) == (0, "")
    assert "is finished already" in result.stdout
    assert contents(finished) == before


def test_other_settings_are_refused(
    finished: Path, train: Train, write_config: WriteConfig, order: Path, tmp_path: Path
) -> None:
    other = write_config(
        tmp_path / "config.toml", finished, REGULAR, optimizer="lr = 0.02", tables=validation(order)
    )
    result = train(other)
    assert result.returncode == 1
    assert "optimizer.lr = 0.01, not 0.02; --force replaces it" in result.stderr


def kill(
    command: list[str], environment: dict[str, str], output: Path, n_lines: int, number: signal.Signals
) -> int:
    """Starts a run, sends it a signal when it has logged so many steps, and returns its exit code."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = output / LOG_FILE
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < n_lines):
        time.sleep(0.001)
    process.send_signal(number)
    return process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(
    finished: Path,
    train: Train,
    train_command: Callable[..., list[str]],
    environment: dict[str, str],
    write_config: WriteConfig,
    order: Path,
    number: signal.Signals,
) -> None:
    output = finished.parent / f"killed{int(number)}"
    config = write_config(output.with_suffix(".toml"), output, REGULAR, tables=validation(order))
    code = kill(train_command(config), environment, output, 23, number)
    assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert not (output / "manifest.json").exists()
    _pretend_to_have_been_killed_while_writing(output)
    result = train(config)
    assert result.returncode == 0, result.stderr
    assert "going on after step " in result.stderr
    assert contents(output) == contents(finished)


def _pretend_to_have_been_killed_while_writing(output: Path) -> None:
    """Leaves what a kill in the middle of a save and of a line leaves."""
    scratch = output / "run.json.partial"
    assert (scratch / "pile-tools.lock").exists() or not scratch.exists()
    scratch.mkdir(exist_ok=True)
    (scratch / "pile-tools.lock").touch()
    (scratch / "state-39").mkdir()
    (scratch / "state-39/half").write_bytes(b"\0")
    with (output / LOG_FILE).open("ab") as log:
        log.write(b'{"step": 39, "tok')


def test_an_unfinished_run_goes_on_only_with_the_same_settings(
    finished: Path, train: Train, write_config: WriteConfig, order: Path
) -> None:
    output = finished.parent / "unfinished"
    shutil.copytree(finished, output)
    (output / "manifest.json").unlink()
    tables = validation(order)
    config = write_config(output.with_suffix(".toml"), output, REGULAR, "seed = 5", tables=tables)
    refused = train(config)
    assert refused.returncode == 1
    assert "seed = 1234, not 5; --force replaces it" in refused.stderr
    assert trainer.list_steps(output) == trainer.list_steps(finished)
    ended = train(write_config(config, output, REGULAR, tables=tables))
    assert ended.returncode == 0, ended.stderr
    assert "going on after step 40" in ended.stderr
    assert contents(output) == contents(finished)


def test_two_processes_see_the_same_data(
    finished: Path, train: Train, write_config: WriteConfig, order: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    config = write_config(tmp_path / "config.toml", output, REGULAR, tables=validation(order))
    result = train(config, launcher=("torch.distributed.run", "--nproc_per_node", "2"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("trained 40 steps") == 1
    np.testing.assert_allclose(losses(output), losses(finished), rtol=1e-3)
    np.testing.assert_allclose(trainer.read_row_losses(output), trainer.read_row_losses(finished), rtol=5e-3)
    validated = [
        [line["loss"] for line in read_validations(run / "validation_log.jsonl")]
        for run in (output, finished)
    ]
    np.testing.assert_allclose(*validated, rtol=1e-3)
    assert trainer.list_steps(output) == trainer.list_steps(finished)


def test_the_process_ends_without_pythons_shutdown(environment: dict[str, str]) -> None:
    """In it, threads of communication that are still alive abort a process whose run succeeded."""
    script = "import atexit, os; atexit.register(os._exit, 9); from trainer import cli; cli.main()"
    for option, code in (("--help", 0), ("--no-such-option", 2)):
        command = [sys.executable, "-c", script, option]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == code, ended.stderr
        assert (ended.stdout if code == 0 else ended.stderr).strip()


def test_micro_batches_change_only_the_rounding(
    finished: Path, train: Train, write_config: WriteConfig, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    result = train(write_config(tmp_path / "config.toml", output, REGULAR, "micro_batch_size = 2"))
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(losses(output), losses(finished), rtol=1e-3)
    np.testing.assert_allclose(trainer.read_row_losses(output), trainer.read_row_losses(finished), rtol=5e-3)


def test_bf16_adds_gradients_in_fp32(train: Train, write_config: WriteConfig, tmp_path: Path) -> None:
    """The norm of many micro-batches is that of fp32; added in bf16 it would be more than 1 % off."""
    norms = []
    for precision, size in (("fp32", 256), ("bf16", 1)):
        output = tmp_path / precision
        lines = ("steps = 1", "batch_size = 256", f'precision = "{precision}"', f"micro_batch_size = {size}")
        result = train(write_config(tmp_path / "config.toml", output, *lines))
        assert result.returncode == 0, result.stderr
        norms += [line["grad_norm"] for line in read_log(output / LOG_FILE)]
    assert norms[1] == pytest.approx(norms[0], rel=0.003)


def test_bf16_trains_and_publishes_bf16(train: Train, write_config: WriteConfig, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    output = tmp_path / "run"
    result = train(write_config(tmp_path / "config.toml", output, "steps = 6", 'precision = "bf16"'))
    assert result.returncode == 0, result.stderr
    weights = load_file(output / "checkpoints/step6/model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.bfloat16"}
    assert '"torch_dtype": "bfloat16"' in (output / "checkpoints/step6/config.json").read_text()
    assert losses(output)[-1] < losses(output)[0]


def test_stages_have_one_log_and_rates_of_their_own(
    train: Train, write_config: WriteConfig, order: Path, dataset: Path, tmp_path: Path
) -> None:
    """The second one is of other rows, and a study finds both in the run's order."""
    second = OrderConfig(seq_length=32, steps=3, batch_size=8, split="8,2,0", part="valid")
    build_order(dataset, tmp_path / "second", second)
    join_stages([Stage(order, 5), Stage(tmp_path / "second")], tmp_path / "staged")
    tables = ("[[stages]]", "steps = 5", "[[stages]]", "steps = 3", 'schedule = "linear"', "lr = 0.004")
    config = write_config(tmp_path / "config.toml", tmp_path / "run", tables=(*tables, "min_lr = 0.001"))
    config.write_text(config.read_text().replace(str(order), str(tmp_path / "staged")))
    result = train(config)
    assert result.returncode == 0, result.stderr
    lines = read_log(tmp_path / "run" / LOG_FILE)
    assert [line["step"] for line in lines] == list(range(8))
    assert [line["lr"] for line in lines[5:]] == pytest.approx([0.004, 0.003, 0.002])
    assert lines[0]["lr"] == 0.01
    found = open_run(tmp_path / "run")
    assert (found.steps, found.checkpoints) == (8, [0, 1, 2, 4, 8])
    np.testing.assert_array_equal(found.order.batch(6), open_order(tmp_path / "second").batch(1))
    verify.run(tmp_path / "run", chain=True)
    other = write_config(tmp_path / "config.toml", tmp_path / "other", tables=("[[stages]]", "steps = 8"))
    other.write_text(other.read_text().replace(str(order), str(tmp_path / "staged")))
    assert "stages of [8] steps, those of the order have [5, 3]" in train(other).stderr


def test_a_loss_that_is_not_finite_stops_the_run(
    train: Train, write_config: WriteConfig, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    # Another batch size than the order's: the commands that show rows must name it.
    config = write_config(tmp_path / "config.toml", output, "batch_size = 4", optimizer="lr = 1e30")
    result = train(config)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith("error: the ")
    assert "at step 10: 10 steps in a row did not change the weights; no state was saved" in message
    assert trainer.list_steps(output)[0] == 0
    first, *others = read_log(output / LOG_FILE)
    assert "skipped" not in first
    assert {line["skipped"] for line in others} <= {"the loss is nan", "the gradient is not finite"}
    assert others[1]["samples"] == [8, 12]
    (line,) = [line for line in result.stderr.splitlines() if "step 2 did not change the weights" in line]
    assert line.endswith("/order.json --step 2 --batch-size 4")
    assert "`pile-tools batch --batch-size 4`" in (output / "checkpoints/step0/README.md").read_text()


def test_force_begins_anew_and_keeps_what_is_not_ours(
    finished: Path, train: Train, write_config: WriteConfig
) -> None:
    output = finished.parent / "forced"
    shutil.copytree(finished, output)
    (output / "notes.txt").write_text("mine")
    config = write_config(output.with_suffix(".toml"), output, "steps = 3")
    assert train(config).returncode == 1
    result = train(config, "--force")
    assert result.returncode == 0, result.stderr
    assert trainer.list_steps(output) == [0, 1, 2, 3]
    assert (output / "notes.txt").read_text() == "mine"


def test_a_tokenizer_among_the_checkpoints_of_the_run_is_refused(
    finished: Path, train: Train, write_config: WriteConfig, tokenizer: Path
) -> None:
    """With --force the run would remove it, and then miss it."""
    output = finished.parent / "own"
    shutil.copytree(finished, output)
    own = output / "checkpoints" / "step0" / "tokenizer.json"
    config = write_config(output.with_suffix(".toml"), output)
    config.write_text(config.read_text().replace(str(tokenizer), str(own)))
    result = train(config, "--force")
    assert result.returncode == 2, result.stderr
    assert "tokenizer is among the files of the run" in result.stderr
    assert own.is_file()
    assert trainer.list_steps(output) == trainer.list_steps(finished)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("tokenizer", "train_log.jsonl"),
        ("tokenizer", "row_losses.f16"),
        ("tokenizer", "run.json"),
        ("config", "row_losses.f16"),
        ("config", "run.json"),
    ],
)
def test_an_input_with_the_name_of_a_file_of_the_run_is_refused(
    tmp_path: Path, train: Train, write_config: WriteConfig, tokenizer: Path, name: str, given: str
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    own = output / name
    config = write_config(tmp_path / "t.toml", output)
    if given == "tokenizer":
        shutil.copy(tokenizer, own)
        config.write_text(config.read_text().replace(str(tokenizer), str(own)))
    else:
        config = config.rename(own)
    before = own.read_bytes()
    result = train(config, "--force")
    assert result.returncode == 2, result.stderr
    assert f"{given} is among the files of the run" in result.stderr
    assert own.read_bytes() == before


def test_force_removes_nothing_that_the_run_does_not_write(
    tmp_path: Path, train: Train, write_config: WriteConfig
) -> None:
    """There was no run in the folder, and this one does not validate."""
    output = tmp_path / "run"
    output.mkdir()
    (output / "validation_log.jsonl").write_text("mine")
    (output / "train_log.jsonl").write_text("replaced")
    result = train(write_config(tmp_path / "t.toml", output), "--force")
    assert result.returncode == 0, result.stderr
    assert (output / "validation_log.jsonl").read_text() == "mine"
    assert len(read_log(output / LOG_FILE)) > 0


def test_an_artifact_to_which_an_input_belongs_is_not_replaced(
    tmp_path: Path, train: Train, write_config: WriteConfig, tokenizer: Path
) -> None:
    """`manifest.json` of an imported model, say, whose tokenizer the run takes."""
    output = tmp_path / "model"
    output.mkdir()
    own = output / "tokenizer.json"
    shutil.copyfile(tokenizer, own)
    request = Request("model", {"format": "Hugging Face", "step": None})
    summary = {"n_parameters": 1, "vocab_size": 1, "dtype": "float32"}
    manifest.write(output / "manifest.json", request, [manifest.file_entry(own, output)], summary)
    before = (output / "manifest.json").read_bytes()
    config = write_config(tmp_path / "t.toml", output)
    config.write_text(config.read_text().replace(str(tokenizer), str(own)))
    result = train(config, "--force")
    assert result.returncode == 2, result.stderr
    assert "an input is in the folder of this model" in result.stderr
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "tokenizer.json"]
    assert (output / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["tokenizer", "config"])
def test_an_input_in_the_scratch_folder_of_the_run_is_refused(
    tmp_path: Path, train: Train, write_config: WriteConfig, tokenizer: Path, name: str
) -> None:
    output = tmp_path / "run"
    scratch = output / "run.json.partial"
    scratch.mkdir(parents=True)
    (scratch / "pile-tools.lock").touch()
    own = scratch / "own"
    config = write_config(own if name == "config" else tmp_path / "run.toml", output)
    if name == "tokenizer":
        shutil.copy(tokenizer, own)
        config.write_text(config.read_text().replace(str(tokenizer), str(own)))
    before = own.read_bytes()
    result = train(config)
    assert result.returncode == 2, result.stderr
    assert "is in the scratch folder of the output" in result.stderr
    assert own.read_bytes() == before


def test_files_in_the_way_are_kept(train: Train, write_config: WriteConfig, tmp_path: Path) -> None:
    mine = tmp_path / "run/checkpoints/step7/mine"
    mine.parent.mkdir(parents=True)
    mine.touch()
    result = train(write_config(tmp_path / "config.toml", tmp_path / "run"))
    assert result.returncode == 1
    assert "exists and is not from pile-tools" in result.stderr
    assert mine.is_file()
    forced = train(tmp_path / "config.toml", "--force")
    assert forced.returncode == 1
    assert "has no manifest of pile-train; move it away" in forced.stderr
    assert mine.is_file()
    # An empty folder may be what a kill left of a step that was being removed.
    mine.unlink()
    assert train(tmp_path / "config.toml", "--force").returncode == 0
    assert 7 not in trainer.list_steps(tmp_path / "run")


def test_it_needs_no_torch_to_help() -> None:
    program = (
        "import sys, trainer.cli, click.testing as t;"
        "r = t.CliRunner().invoke(trainer.cli.group, ['train', '--help']);"
        "print(r.exit_code, 'order = ' in r.output, 'torch' in sys.modules, 'deepspeed' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "True", "False", "False"]


def test_a_missing_order_is_one_line(train: Train, write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.toml", tmp_path / "run")
    text = config.read_text().splitlines()
    config.write_text("\n".join(['order = "absent"', *text[1:]]))
    result = train(config)
    assert result.returncode == 1
    assert result.stderr == f"error: {os.strerror(2)} (absent)\n"
