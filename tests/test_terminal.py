"""What commands print cannot drive a terminal, goes through any encoding, and survives closed streams."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.page import read_page

from pile_tools import terminal
from pile_tools.cli import group, run
from pile_tools.errors import first_line
from pile_tools.progress import _rich_bar

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \x08\x0b\r\x7f\x9b31m \u202eltr\u2066\u2069\u2028\u200e\u200f\u061c "
    "\U0001f600 é"
)
#: As `terminal` has it, spelt out another way.
FORBIDDEN = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *map(chr, range(0x2028, 0x202F))} | {
    *map(chr, range(0x2066, 0x206A)),
    *"\u061c\u200e\u200f",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, cli: Run) -> Path:
    """A folder whose names, and shards whose texts and subsets, hold control characters."""
    folder = tmp_path_factory.mktemp("hostile") / "na\x1b[2Jme \u202e"
    (folder / "shards").mkdir(parents=True)
    records = [
        {"text": f"alpha {HOSTILE} beta " * (1 + i % 5), "meta": {"pile_set_name": f"sub\n{HOSTILE}{i % 3}"}}
        for i in range(40)
    ]
    shard = folder / "shards" / "sh\x1bard\n.jsonl"
    shard.write_text("\n".join(json.dumps(record) for record in records) + "\nbroken\x1b[2J\n")
    (folder / "t.txt").write_text(f"alpha {HOSTILE} beta alpha {HOSTILE} beta")
    (folder / "terms.txt").write_text(f"alpha\n{HOSTILE.replace(chr(13), '')}\n")
    return folder


@pytest.fixture(scope="module")
def commands(hostile: Path) -> list[list[str]]:
    """Every data command, in an order in which each finds what it needs."""
    h = str(hostile)
    skip = ["--on-bad-record", "skip"]
    return [
        ["train-tokenizer", f"{h}/shards", "-o", f"{h}/t.json", "--vocab-size", "300", *skip],
        ["tokenize", f"{h}/shards", "-o", f"{h}/bad", "--tokenizer", f"{h}/t.json"],
        ["tokenize", f"{h}/shards", "-o", f"{h}/d/s", "--tokenizer", f"{h}/t.json", *skip],
        ["merge", f"{h}/d/s", f"{h}/d/s", "-o", f"{h}/m/s"],
        ["label", f"{h}/m/s", f"{h}/shards", "--tokenizer", f"{h}/t.json", *skip],
        ["index", f"{h}/d/s"],
        ["order", f"{h}/d/s", "--seq-length", "64", "--steps", "3", "--batch-size", "4"],
        ["show", f"{h}/d/s", "0"],
        ["show", f"{h}/d/s", "1", "--raw"],
        ["show", f"{h}/d/s", "1", "--json"],
        ["search", f"{h}/d/s", "alpha", HOSTILE],
        ["search", f"{h}/d/s", "alpha", "--next"],
        ["search", f"{h}/d/s", "alpha", "--json"],
        ["search", f"{h}/d/s", "--cnf", json.dumps([["alpha"], [HOSTILE]])],
        ["trace-text", f"{h}/d/s", f"{h}/t.txt"],
        ["trace-text", f"{h}/d/s", f"{h}/t.txt", "--json"],
        ["trace-text", f"{h}/d/s", f"{h}/t.txt", "-o", f"{h}/t.html", "--order", f"{h}/d"],
        ["count-ngrams", f"{h}/d/s", "--n", "2"],
        ["count-ngrams", f"{h}/shards", *skip],
        ["count-terms", f"{h}/terms.txt", f"{h}/d/s"],
        ["batch", f"{h}/d", "--step", "0"],
        ["batch", f"{h}/d", "--step", "0", "--json"],
        ["when", f"{h}/d", "alpha"],
        ["when", f"{h}/d", HOSTILE, "alpha", "--plot", f"{h}/w.html"],
        ["count-terms", f"{h}/terms.txt", f"{h}/shards", *skip, "--plot", f"{h}/c.html"],
        ["when", f"{h}/d", "alpha", "--json"],
        ["trace", f"{h}/d", "0"],
        ["repeats", f"{h}/d", "--plot", f"{h}/r.svg"],
        ["mixture", f"{h}/d", "--plot", f"{h}/m.svg"],
        ["mixture", f"{h}/d", "--plot", f"{h}/m.html"],
        ["mixture", f"{h}/d", "--json"],
        ["shard", f"{h}/d/s.bin", "-o", f"{h}/sh", "--bytes", "2000"],
        ["verify", f"{h}/d/s"],
        ["verify", f"{h}/no\x1b[2Jne\nerror: forged"],
        ["tokenize", f"{h}/shards", "-o", f"{h}/x", "--tokenizer", f"{h}/no\x9bne"],
        ["show", f"{h}/d/s", "\x1b[2J"],
        ["--\x1b[2J"],
        ["\x1b[2J\n"],
        ["search", f"{h}/d/s", "a", "--limit", "\x1b[2J\u202e"],
    ]


def test_no_command_prints_control_characters(
    commands: list[list[str]], hostile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in commands:
        code = run(group, command)
        assert code in (0, 1, 2), command
        captured = capfd.readouterr()
        for text in captured:
            found = FORBIDDEN & {*text} - {"\n"}
            assert not found - {"\t"}, (command, found)
        assert "\nerror: forged" not in captured.err
        if code:
            assert len(captured.err.splitlines()) == 1, (command, captured.err)
        if "--json" in command:
            for line in captured.out.splitlines():
                json.loads(line)
    for chart in ("r.svg", "m.svg"):
        ElementTree.parse(hostile / chart)
    for page in ("t.html", "w.html", "c.html", "m.html"):
        text = (hostile / page).read_text()
        read_page(text)
        assert not FORBIDDEN & {*text} - {"\n", "\t"}


def test_what_json_says_is_the_text(
    commands: list[list[str]], hostile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(group, ["show", f"{hostile}/d/s", "0", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["text"].startswith(f"alpha {HOSTILE} beta ")


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_escaped_text_is_printable_and_one_line(text: str) -> None:
    escaped = terminal.escape(text)
    assert not FORBIDDEN & {*escaped}
    escaped.encode()
    assert terminal.escape(escaped) == escaped
    assert not FORBIDDEN & {*terminal.escape_text(text)} - {"\n", "\t"}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_bash_reads_a_quoted_word_back(text: str) -> None:
    quoted = terminal.shell_quote(text)
    assert not FORBIDDEN & {*quoted}
    if quoted.startswith("$"):
        parts = re.findall(r"\\x([0-9a-f]{2})|\\(['\\])|([^\\])", quoted[2:-1])
        read = b"".join(bytes([int(h, 16)]) if h else (e or c).encode() for h, e, c in parts)
        assert read == text.encode()
    else:
        assert shlex.split(quoted) == [text]


def test_bash_itself_reads_quoted_words_back() -> None:
    for word in ("x $(touch PWNED)", "a'b\\c", "\x1b[2J'\\", "new\nline", "\u202ex", "$HOME", ""):
        script = f"printf %s {terminal.shell_quote(word)}"
        found = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
        assert found == word.encode()
    assert terminal.shell_quote(Path("-rf")) == "./-rf"


@pytest.mark.parametrize("columns", [40, 60, 61, 62, 63, 64, 80])
def test_a_suggested_command_is_wrapped_between_words_of_the_shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["a name with many words in it", "it's one with a 'quote'  in it"]
    words = ["pile-tools", "merge", *names, "-o", "x y"]
    terminal.note(f"next: {shlex.join(words)}")
    shown = capsys.readouterr().out
    # A shell ignores a line end after a backslash, `shlex` does not.
    assert shlex.split(shown.removeprefix("next: ").replace("\\\n", "")) == words


def test_commands_print_by_the_one_wrapper() -> None:
    source = Path(terminal.__file__).parents[1]
    for path in source.rglob("*.py"):
        if path.name != "terminal.py":
            found = re.search(r"click\.echo\(|click\.secho\(|click\.style\(|\bprint\(", path.read_text())
            assert found is None, f"{path} prints past pile_tools.terminal"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_any_encoding_can_be_printed_in(cli: Run, shards: Path, dataset: Path, encoding: str) -> None:
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    for arguments in (
        ["show", dataset, "00.jsonl:15", "--json"],
        ["show", dataset, "00.jsonl:15"],
        ["show", "日本語", "0"],
    ):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert result.returncode == (1 if arguments[1] == "日本語" else 0), result.stderr
        if "--json" in arguments:
            assert "日本語" in json.loads(result.stdout.decode(encoding))["text"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_bug(dataset: Path, tokenizer: Path, tmp_path: Path, closed: str) -> None:
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"
    arguments = ["merge", str(dataset), "-o", str(tmp_path / "m")]
    command = f"{shlex.join([sys.executable, '-c', program, *arguments])} {closed}"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0
    assert (tmp_path / "m.bin").read_bytes() == dataset.with_name("sample.bin").read_bytes()


def test_a_reader_that_leaves_ends_the_command_quietly(dataset: Path) -> None:
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"
    shown = shlex.join([sys.executable, "-c", program, "show", str(dataset), "5"])
    script = f"{{ {shown}; echo $? >&3; }} 3>&1 >&4 4>&- | cat"
    result = subprocess.run(
        ["bash", "-c", f"exec 4> >(exec true); sleep 0.3; {script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "0\n"
    assert result.stderr == ""


def test_a_full_device_is_named(dataset: Path) -> None:
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"
    command = f"{shlex.join([sys.executable, '-c', program, 'show', str(dataset), '5'])} > /dev/full"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "standard output" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "shown"), [("", "OSError"), (" \n\t", "OSError"), ("\n why \n more", "why"), ("why", "why")]
)
def test_a_library_that_says_nothing_is_named_by_the_kind_of_its_error(said: str, shown: str) -> None:
    assert first_line(OSError(said)) == shown


@pytest.mark.parametrize(("unit", "expected"), [("rows", "12,345/56,789 rows"), ("B", "B/s")])
def test_a_bar_has_thousands_separators_and_no_red_rate(unit: str, expected: str) -> None:
    out = io.StringIO()
    bar = _rich_bar(unit, file=out, force_terminal=True, color_system="standard", width=80)
    task = bar.add_task("counting", total=56789, tokens="")
    for done in (1, 12345):
        time.sleep(0.01)
        bar.update(task, completed=done)
    bar.console.print(bar.get_renderable())
    assert expected in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert not re.search(r"\x1b\[(\d+;)*31m", out.getvalue())
