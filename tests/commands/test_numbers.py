"""Numbers on the command line: the digits 0 to 9 alone, for every option that takes one."""

# ruff: noqa: RUF001
from __future__ import annotations

import click
import pytest
from tests.commands.conftest import command_of, every_command

from pile_tools import checked, cli
from pile_tools.arguments import LARGEST
from pile_tools.arguments import checked as with_checked_types
from pile_tools.errors import FormatError


def number_options() -> list[tuple[str, str, str]]:
    """Program, command and name of every option or argument that takes a number."""
    found = []
    for program, names in every_command().items():
        for name in names:
            for parameter in with_checked_types(command_of(program, name)).params:
                if isinstance(parameter.type, (click.types.IntParamType, click.types.FloatParamType)):
                    found.append((program, name, parameter.opts[0]))
    return found


@pytest.mark.parametrize("given", ["１２", "1_000", "٣", " 7", "1\u200b2"])
def test_numbers_have_plain_digits(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = number_options()
    assert len(options) > 60
    for program, name, option in options:
        command = with_checked_types(command_of(program, name))
        parameter = next(p for p in command.params if p.opts[0] == option)
        with pytest.raises(click.BadParameter, match="digits 0 to 9"):
            parameter.type.convert(given, parameter, None)
        if option in ("--min-lr", "--utilization", "--top-p"):
            # At most 1, or less.
            assert parameter.type.convert("1", parameter, None) == 1 or option == "--min-lr"
        else:
            assert parameter.type.convert("12", parameter, None) == 12


def test_no_range_in_the_help_is_cut_by_the_common_limit() -> None:
    for program, name, option in number_options():
        kind = next(p for p in command_of(program, name).params if p.opts[0] == option).type
        if isinstance(kind, click.IntRange) and kind.max is not None:
            assert kind.max <= LARGEST, (program, name, option)


@pytest.mark.parametrize(
    "arguments",
    [
        ["count-ngrams", "x", "--n", "１-３"],
        ["count-ngrams", "x", "--n", "1_0"],
        ["count-ngrams", "x", "--memory", "５１２MiB"],
        ["count-ngrams", "x", "--memory", "1_000MB"],
        ["tokenize", "x", "-o", "y", "--tokenizer", "z", "--part", "１/２"],
        ["tokenize", "x", "-o", "y", "--tokenizer", "z", "--max-record", "1_0GiB"],
        ["when", "x", "a", "--steps", "０:２"],
        ["when", "x", "--ids", "５"],
        ["export", "x", "--steps", "0:²", "-o", "y.csv"],
        ["order", "x", "y", "--weights", "1_0,2", "--seq-length", "4", "--samples", "4"],
        ["show", "x", "１２"],
    ],
)
def test_lists_and_sizes_have_plain_digits(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(cli.group, arguments)
    error = capsys.readouterr().err
    assert code == 2 if arguments[0] not in ("show", "export") else code in (1, 2)
    assert len(error.splitlines()) == 1


def test_sizes_stay(capsys: pytest.CaptureFixture[str]) -> None:
    for size in ("1k", "512MiB", "1.5 GB", "100"):
        assert cli.run(cli.group, ["count-ngrams", "absent", "--memory", size]) == 1
        assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["11805916207174113034", "1" * 19 + "0" * 30, "1" * 5000])
def test_a_long_number_is_not_shown_as_a_shorter_one(number: str) -> None:
    with pytest.raises(FormatError, match="out of range") as found:
        checked.parse_json(f'{{"n": {number}{number}}}'.encode(), "x")
    whole = number + number
    shown = str(found.value)
    assert f"number {whole} is" in shown or f"of {len(whole):,} characters" in shown
