"""The transcripts of a page: fenced blocks of commands, and of Python with values in comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

#: Longer lines of output are cut in a transcript.
MAX_LINE = 170

_BLOCK = re.compile(r"^( *)```(console|python)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: Numbers that depend on the machine: times and rates. Any two of them match.
_MEASURED = re.compile(r"\d[\d,.]*(?= (?:s|ms|us|seconds?|(?:tokens|documents|[kMG]?B)/s)\b)")
_NUMBER = re.compile(r"\d[\d,.]*")
#: The value with which a comment starts.
_VALUE = re.compile(r"\[[^\]]*\]|\{.*\}|\([\d, ]*\)(?: u?(?:int|float)\d+)?|True\b|False\b|-?\d[\d,]*\b")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: "console" or "python".
        text: The lines between the fences, without the indentation of the block.
        start: Index of its first character in the page.
        end: Index after its last one.
        indent: The spaces before each line.
    """

    language: str
    text: str
    start: int
    end: int
    indent: str

    def replaced(self, page: str, text: str) -> str:
        """The page with another text in this block."""
        lines = (f"{self.indent}{line}".rstrip() + "\n" for line in text.splitlines())
        return page[: self.start] + "".join(lines) + page[self.end :]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(
            match[2],
            "".join(line.removeprefix(match[1]) for line in match[3].splitlines(keepends=True)),
            *match.span(3),
            match[1],
        )
        for match in _BLOCK.finditer(page)
    ]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, with their continuation lines, and the lines printed below each."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *output = re.split(r"(?<!\\)\n", part, maxsplit=1)
        yield command, "".join(output).splitlines()


def agrees(documented: list[str], printed: list[str]) -> bool:
    """Whether lines of a page are those that a command prints.

    A line `...` stands for any lines, ` ...` at the end of a line for the rest of it. Measured numbers match
    each other, and white space at the ends of lines is ignored.
    """
    pattern = "".join(_line_pattern(line.rstrip()) for line in documented)
    lines = "".join(_MEASURED.sub("#", line.rstrip()) + "\n" for line in printed)
    return re.fullmatch(pattern, lines) is not None


def _line_pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)+?"
    line = _MEASURED.sub("#", line)
    if line.endswith(" ..."):
        # The whole line may be what is printed.
        return re.escape(line.removesuffix("...")) + r".*\n"
    return re.escape(line) + r"\n"


def abridged(documented: list[str], printed: list[str]) -> list[str]:
    """The printed lines as the page abridges them.

    The page leaves out lines at the same points: it has as many lines before the first gap and after the last
    one. Between two gaps it has lines that differ from those before only in numbers.
    """
    if agrees(documented, printed):
        return documented
    lines = [_cut(line.rstrip()) for line in printed]
    gaps = [i for i, line in enumerate(documented) if line.strip() == "..."]
    if not gaps:
        return lines
    taken, at = lines[: gaps[0]], gaps[0]
    for gap, end in pairwise(gaps):
        found = _find(documented[gap + 1 : end], lines, at)
        if found is not None:
            taken += [documented[gap]] * (found > at)
            at = found + end - gap - 1
            taken += lines[found:at]
    last = max(at, len(lines) - (len(documented) - gaps[-1] - 1))
    return taken + [documented[gaps[-1]]] * (last > at) + lines[last:]


def _find(part: list[str], lines: list[str], at: int) -> int | None:
    """Index from `at` on of lines that differ from those of a part only in numbers."""
    shapes = [_NUMBER.sub("#", line) for line in lines]
    expected = [_NUMBER.sub("#", line) for line in part]
    return next((i for i in range(at, len(lines)) if shapes[i : i + len(part)] == expected), None)


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 4].rpartition(" ")[0] + " ..."


def run_python(text: str, names: dict[str, Any], name: str) -> str:
    """Runs a block of Python; returns it with the values that its comments give now.

    The comment of an expression, or the comment line below it, may start with the value: a number, a list, a
    dictionary, True, False, or the shape and type of an array. Three dots in a list stand for any elements.
    """
    lines = text.splitlines(keepends=True)
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), name, "exec"), names)
            continue
        value = eval(compile(ast.Expression(statement.value), name, "eval"), names)
        assert statement.end_lineno is not None
        for number in (statement.end_lineno - 1, statement.end_lineno):
            if number < len(lines) and _update_comment(
                lines, number, value, is_below=number >= statement.end_lineno
            ):
                break
    return "".join(lines)


def _update_comment(lines: list[str], number: int, value: Any, *, is_below: bool) -> bool:
    """Writes the value to the comment of a line; returns whether the comment gives a value."""
    start = _comment_start(lines[number])
    if start is None or (is_below and start > 0):
        return False
    code, comment = lines[number][: start + 2], lines[number][start + 2 :]
    given = _VALUE.match(comment)
    if given is None:
        return False
    if not _is_value(given[0], value):
        lines[number] = code + _shown(value, given[0]) + comment[given.end() :]
    return True


def _comment_start(line: str) -> int | None:
    tokens = tokenize.generate_tokens(io.StringIO(line).readline)
    try:
        return next((token.start[1] for token in tokens if token.type == tokenize.COMMENT), None)
    except tokenize.TokenError:
        return None


def _is_value(given: str, value: Any) -> bool:
    if given.startswith("(") and isinstance(value, np.ndarray):
        return given == _shown(value, given)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not given.startswith("["):
        return bool(ast.literal_eval(given.replace(",", "") if given[0].isdigit() else given) == value)
    pattern = re.escape(given).replace(r",\ \.\.\.,", ",.*,").replace(r",\ \.\.\.\]", r",.*\]")
    return re.fullmatch(pattern, str(value)) is not None


def _shown(value: Any, given: str) -> str:
    if given.startswith("(") and isinstance(value, np.ndarray):
        dtype = f" {value.dtype}" if " " in given.rpartition(")")[2] else ""
        return f"{value.shape}{dtype}"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}" if "," in given else str(value)
    return str(value)
