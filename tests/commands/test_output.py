"""What commands print fits 80 columns, breaks no word and counts right; `| head` ends quietly."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import unicodedata

import pytest
from tests.commands.conftest import MODULES, World

from pile_tools import terminal

pytestmark = pytest.mark.slow


def width(text: str) -> int:
    """Columns of a text on a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_output_fits_80_columns(world: World) -> None:
    """Each line, unless it is data or a single long word such as a path."""
    for call, done in world.printed.items():
        for line in (done.out + done.err).splitlines():
            is_data = line.startswith(("  | ", "Before", '{"')) or call[1] == "show"
            is_data |= bool(re.fullmatch(r"[\d\s]+|\[\[.*", line))
            assert width(line) <= 80 or is_data or fits_but_for_a_word(line), (call, line)


def fits_but_for_a_word(line: str) -> bool:
    """Whether a line has one word that alone takes most of the width, which must not be broken."""
    return any(width(word) > 40 for word in line.split()) and len(line.split()) <= 3


def test_no_word_is_broken(world: World) -> None:
    """No end of a line and start of the next are one word where the terminal is wide enough."""
    n_longer = 0
    for call in world.printed:
        force = ["--force"] if "export" in call else []
        if call[0] != "pile-tools":
            continue
        narrow, wide = world.call(*call, *force, columns=50), world.call(*call, *force, columns=4000)
        words = set(wide.out.split())
        lines = narrow.out.splitlines()
        n_longer += len(lines) > len(wide.out.splitlines())
        for line, following in itertools.pairwise(lines):
            ends = line.split()[-1:] + following.split()[:1]
            assert len(ends) < 2 or "".join(ends) not in words, (call, line, following)
    assert n_longer > 5


def test_tables_say_what_they_leave_out(world: World) -> None:
    found = world.call("pile-tools", "mixture", "tokens", "--every", "2", columns=40)
    assert found.out.splitlines()[-1] == "and 2 more subsets: --all"
    whole = world.call("pile-tools", "mixture", "tokens", "--every", "2", "--all", columns=40)
    assert len(whole.out.splitlines()[-1]) > 40
    ngrams = world.call("pile-tools", "count-ngrams", "shards", "--by-subset", columns=60)
    assert "more subset" in ngrams.out


def test_a_command_that_is_wrapped_stays_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "40")
        terminal.note("next: pile-tools search ", "some/quite/long/prefix", " TEXT --count")
        terminal.note("日本" * 8, " ", terminal.style("and more", dim=True), " words than fit")
    shown = capsys.readouterr().out
    assert shown == (
        "next: pile-tools search \\\n    some/quite/long/prefix TEXT \\\n    --count\n"
        + "日本" * 8
        + " and\n    more words than fit\n"
    )


def test_counts_agree_with_their_nouns(world: World) -> None:
    ones = re.compile(
        r"(?<![\d,.:])1 (\w+ ){0,1}?(documents|tokens|shards|steps|samples|records|files"
        r"|artifacts|rows|epochs|texts|terms|occurrences|parts|bytes|datasets|checkpoints|segments|merges|groups|intervals)\b"
    )
    for call, done in world.printed.items():
        assert not (found := ones.search(done.out + done.err)), (call, found)
    assert [terminal.counted(n, "bad record") for n in (0, 1, 12345)] == [
        "0 bad records",
        "1 bad record",
        "12,345 bad records",
    ]
    assert terminal.counted(2, "query") == "2 queries"


def test_a_reader_that_leaves_is_no_error(world: World) -> None:
    """As `head` does, before the first line is read: exit code 0 and nothing on standard error."""
    for call in world.printed:
        if call[0] != "pile-tools":
            continue
        force = ["--force"] if "export" in call else []
        program = f"import sys; from {MODULES[call[0]]} import main; sys.exit(main())"
        command = shlex.join([sys.executable, "-c", program, *call[1:], *force])
        # The reader has left when the command starts.
        script = f"{{ sleep 0.05; {command}; echo $? >&3; }} 3>&2 2>err | true"
        done = subprocess.run(["bash", "-c", script], cwd=world.folder, capture_output=True, text=True)
        assert done.stderr == "0\n", (call, done.stderr, (world.folder / "err").read_text())
        errors = (world.folder / "err").read_text().splitlines()
        assert not [line for line in errors if "rror" in line or "Traceback" in line], (call, errors)


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("pile-tools to", {"plain,tokenize"}),
        ("pile-tools mixture --a", {"plain,--all"}),
        ("pile-train train --thr", {"plain,--threads"}),
        ("pile-study mem", {"plain,memorization"}),
    ],
)
def test_shells_complete_commands_and_options(words: str, completions: set[str]) -> None:
    program = words.split()[0]
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    code = f"import sys; sys.argv[0] = {program!r}; from {MODULES[program]} import main; sys.exit(main())"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), variable: "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == completions


def test_finished_output_is_said_to_be_finished(world: World) -> None:
    makers = {"sample", "train-tokenizer", "tokenize", "merge", "label", "index", "order", "shard", "unshard"}
    makers |= {"memorization", "report", "train", "import"}
    n_made = 0
    for call in world.printed:
        if call[1] in makers:
            done = world.call(*call, columns=200)
            assert (done.code, done.err) == (0, "")
            assert re.fullmatch(r"\S+ is finished already, nothing to do\n", done.out), (call, done.out)
            n_made += 1
    assert n_made >= len(makers)
    whole = next(
        call for call in world.printed if call[1:3] == ("tokenize", "shards") and "--part" not in call
    )
    done = world.call(*whole, "--part", "1/2")
    assert done.out == "tokens/sample is finished already: part 1/2 of it is not needed\n"
