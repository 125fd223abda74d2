"""The command line as a user meets it: exit codes, one clear line, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pile_tools import _core, cli

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_whole_of_the_data_tools(cli: Run, shards: Path, tmp_path: Path) -> None:
    def done(*arguments: str | Path) -> str:
        result = cli(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout

    assert "merges" in done("train-tokenizer", shards, "-o", "t.json", "--vocab-size", "300")
    assert "Books" in done("tokenize", shards, "-o", "out/d", "--tokenizer", "t.json")
    assert "nothing to do" in done("tokenize", shards, "-o", "out/d", "--tokenizer", "t.json")
    assert "epoch" in done("order", "out/d", "--seq-length", "32", "--steps", "20", "--batch-size", "4")
    text = done("batch", "out", "--step", "3")
    assert "step 3: samples 12 to 15" in text
    assert "subsets: " in text
    assert "record" in text
    assert "naïve" in text
    ids = done("batch", "out", "--step", "3", "--row", "1", "--tokens")
    assert "row 1, sample 13" in ids
    assert "row 2" not in ids
    assert "is what its manifest says" in done("verify", "out", "--chain")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tokenize"], 2, "Missing argument"),
        (["nonsense"], 2, "No such command"),
        (["order", "x", "--seq-length", "four", "--samples", "1"], 2, "not a valid int"),
        (["order", "x", "--seq-length", "4"], 2, "error: give either samples, or steps and batch-size"),
        (
            ["order", "x", "--seq-length", "4", "--samples", "1"],
            1,
            "error: No such file or directory (x.idx)",
        ),
        (["batch", "x", "--step", "1"], 1, "error: No such file or directory (x)"),
        (["verify", "x"], 1, "error: cannot be verified"),
        (["tokenize", "x", "-o", "y", "--tokenizer", "z"], 1, "error: x does not exist"),
        (
            ["train-tokenizer", ".", "-o", "y", "--vocab-size", "5"],
            2,
            "error: vocab-size must be at least 258",
        ),
    ],
)
def test_mistakes_are_one_line(
    cli: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = cli(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_unsupported_tokenizer_is_named(cli: Run, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"model": {"type": "Unigram"}}')
    result = cli("tokenize", shards, "-o", tmp_path / "d", "--tokenizer", tmp_path / "t.json")
    assert result.returncode == 1
    assert "Unigram" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_panic_is_named_a_bug(capfd: pytest.CaptureFixture[str]) -> None:
    command = click.Command("boom", callback=_core._panic)
    assert cli.run(command, []) == 70
    captured = capfd.readouterr()
    assert captured.err.startswith("error: a bug in pile-tools: PanicException: on request")
    assert len(captured.err.splitlines()) == 1
    assert cli.run(command, ["--debug"]) == 70
    assert "Traceback" in capfd.readouterr().err


def test_our_own_mistakes_are_named_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise KeyError("x")

    assert cli.run(click.Command("broken", callback=broken), []) == 70
    assert "a bug in pile-tools: KeyError: 'x'" in capsys.readouterr().err


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def needs_torch() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert cli.run(click.Command("train", callback=needs_torch), []) == 1
    assert "needs torch, which is not installed; install it with pip install" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [KeyboardInterrupt, click.Abort])
def test_interruptions_say_how_to_go_on(
    kind: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise kind

    assert cli.run(click.Command("stop", callback=stop), []) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_an_address_that_is_not_utf8_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.group, ["batch", "http://127.0.0.1:1/\udcff", "--step", "0"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: not UTF-8: 'http://127.0.0.1:1/")


@pytest.mark.slow
def test_ctrl_c_stops_a_job_and_leaves_nothing_half_written(tmp_path: Path, tokenizer: Path) -> None:
    line = '{"text": "' + "words and more words " * 5000 + '"}\n'
    (tmp_path / "a.jsonl").write_text(line * 3000)
    program = "from pile_tools.cli import main; main()"
    arguments = ["tokenize", "a.jsonl", "-o", "out/d", "--tokenizer", str(tokenizer), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background have it ignored, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "out" / "d.partial" / "d.bin").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d.partial"]


@pytest.mark.parametrize("shard", ["-", "pipe.jsonl"])
def test_ctrl_c_ends_the_wait_for_a_silent_pipe(tmp_path: Path, shard: str) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    silent, never_written = os.pipe()
    with (
        (tmp_path / "errors").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "pile_tools", "count-ngrams", shard, "-o", "x.tsv"],
            cwd=tmp_path,
            stdin=silent,
            stderr=errors,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        while not (tmp_path / "x.tsv.partial").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert "error: interrupted" in (tmp_path / "errors").read_text()
    for end in (silent, never_written):
        os.close(end)


@pytest.mark.parametrize(
    ("fails", "code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted during its start"),
        ("raise OSError(24, 'Too many open files')", 1, "the program cannot be loaded: [Errno 24] Too many"),
        ("raise MemoryError", 1, "the program cannot be loaded"),
        ("raise ImportError('failed to map segment')", 1, "the program cannot be loaded: failed to map"),
    ],
)
@pytest.mark.parametrize("package", ["pile_tools", "trainer", "studies", "vqgan_clip"])
def test_a_failure_of_imports_is_one_line(
    tmp_path: Path, package: str, fails: str, code: int, message: str
) -> None:
    # A module that is imported early, here instead of Python's.
    (tmp_path / "contextlib.py").write_text(fails)
    program = (
        "import sys, runpy, pile_tools.start; del sys.modules['contextlib']; "
        f"sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module({package!r}, run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
    assert ended.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("package", ["pile_tools", "trainer"])
def test_a_folder_that_was_removed_is_named_before_imports(tmp_path: Path, package: str) -> None:
    (tmp_path / "gone").mkdir()
    program = (
        "import os, runpy, sys; os.rmdir(os.getcwd()); runpy.run_module(sys.argv[1], run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, package, "--help"],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: the current folder was removed; change to another\n",
    )


@pytest.mark.parametrize("program", ["pile_tools", "trainer", "studies", "vqgan_clip"])
def test_names_of_files_that_are_not_utf_8_are_refused_at_the_start(program: str) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"names of files are read as ascii, not UTF-8; set PYTHONUTF8=1" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("mask", "is_refused"), [(0o022, False), (0o077, False), (0o222, True), (0o777, True)]
)
def test_a_umask_that_denies_the_owner_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mask: int, is_refused: bool
) -> None:
    from pile_tools import start

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = os.umask(mask)
    try:
        if is_refused:
            with pytest.raises(SystemExit) as ended:
                start._check_process()
            assert ended.value.code == 1
            assert f"the umask {mask:03o} denies you" in capsys.readouterr().err
        else:
            start._check_process()
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_a_reader_that_leaves_early_is_no_error(dataset: Path, tmp_path: Path) -> None:
    from pile_tools.jobs.order import OrderConfig, run

    run(dataset, tmp_path, OrderConfig(seq_length=64, samples=100, batch_size=100))
    program = "from pile_tools.cli import main; main()"
    command = f'"{sys.executable}" -c "{program}" batch "{tmp_path}" --step 0 --tokens | head -n 1'
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    assert "bug" not in result.stderr


@pytest.mark.parametrize("command", ["train-tokenizer", "tokenize", "merge", "order", "batch", "verify"])
def test_every_command_shows_examples(cli: Run, command: str) -> None:
    result = cli(command, "--help")
    assert result.returncode == 0
    assert f"pile-tools {command}" in result.stdout.split("Examples:")[1]


def test_code_in_a_help_is_not_wrapped(cli: Run) -> None:
    assert "\n    order.rebatch(batch_size=512)\n" in cli("order", "--help").stdout


def test_help_fits_80_columns() -> None:
    from studies.cli import group as studies
    from trainer.cli import group as train
    from vqgan_clip.cli import group as images

    groups = {"pile-tools": cli.group, "pile-study": studies, "pile-train": train, "vqgan-clip": images}
    for name, group in groups.items():
        context = click.Context(group, info_name=name, terminal_width=80, max_content_width=80)
        pages = {name: group.get_help(context)}
        if isinstance(group, click.Group):
            for subcommand in group.list_commands(context):
                command = group.get_command(context, subcommand)
                assert command is not None
                inner = click.Context(command, parent=context, info_name=subcommand, terminal_width=80)
                pages[f"{name} {subcommand}"] = command.get_help(inner)
        for title, page in pages.items():
            assert "Options:" in page
            assert not [line for line in page.splitlines() if len(line) > 80], title
            if title == name and isinstance(group, click.Group):
                assert "..." not in page.replace("[ARGS]...", "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("tokenise", "(did you mean tokenize?)"),
        ("count-ngram", "(did you mean count-ngrams or count-terms?)"),
        ("xyz", "'xyz'; see"),
        ("index x --memry 1", "No such option '--memry' (did you mean --memory?); see"),
        ("index x --xyz", "No such option '--xyz'; see"),
        ("batch my tokens --step 0", "unexpected extra argument (tokens); one with spaces needs quotes; see"),
        ("count-ngrams x --threads many", "'many' is not a valid integer; see"),
        ("sample x --megabytes many", "'many' is not a valid number; see"),
    ],
)
def test_a_mistyped_word_is_recognized(cli: Run, given: str, expected: str) -> None:
    done = cli(*given.split())
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_config_is_trained_without_the_name_of_a_command(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/0.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "other.toml").write_text(
        'order = "shards"\noutput = "run"\n[model]\nhidden_size = 8\nn_layers = 1\nn_heads = 1\n'
    )
    for arguments, code, text in [
        (["absent.toml"], 1, f"{os.strerror(2)} (absent.toml)"),
        (["--json", "absent.toml"], 1, f"{os.strerror(2)} (absent.toml)"),
        (["train", "absent.toml"], 1, f"{os.strerror(2)} (absent.toml)"),
        (["config"], 2, "missing key 'order' (config)"),
        (["other.toml"], 1, "shards is a folder of shards, not an order; make a dataset of it"),
        (["trian", "absent.toml"], 2, "No such command 'trian' (did you mean train?)"),
    ]:
        command = [sys.executable, "-m", "trainer.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == code, arguments
        assert text in done.stderr, (arguments, done.stderr)
