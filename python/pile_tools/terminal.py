"""Prints the output of commands: text that cannot control a terminal, and words quoted for a shell.

Texts, names and messages may come from untrusted data. A control character in them could move the cursor,
recolor or rewrite lines, or type into the shell; a direction override could reorder the displayed text. They
are printed as escapes (`\\x1b`, `\\u202e`), on a terminal and elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import click

from pile_tools import _core

#: C1, all that changes the direction of text, line and paragraph separators, surrogates, and the two
#: noncharacters that XML forbids.
_BEYOND_ASCII = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_CONTROL = re.compile(f"[\x00-\x1f{_BEYOND_ASCII}]")
#: The same without line feeds and tabs.
_CONTROL_IN_TEXT = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND_ASCII}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


#: The file name in errors of standard output.
STANDARD_OUTPUT = "standard output"


class ReaderLeftError(Exception):
    """The reader of standard output has closed it, as `head` does; the command ends quietly."""


class Styled(NamedTuple):
    """A part of a line with a style; its text is escaped like any other part."""

    text: str
    style: dict[str, Any]


def style(text: str, **how: Any) -> Styled:
    """A part for `echo` with the style that the arguments of `click.style` describe."""
    return Styled(text, how)


def escape(text: str) -> str:
    """`text` on one line, with every control character, line feeds and tabs included, as an escape.

    A byte of a file name that is not UTF-8 becomes `\\xNN`.
    """
    return _CONTROL.sub(_escaped, text)


def escape_text(text: str) -> str:
    """`text` with every control character except line feeds and tabs as an escape."""
    return _CONTROL_IN_TEXT.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":
        # Python represents a byte of a name that is not UTF-8 by a surrogate (PEP 383).
        return f"\\x{ord(character) - 0xDC00:02x}"
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def shell_quote(word: str | Path) -> str:
    """`word` quoted for a shell as one word, and a `Path` as no option; control characters as `$'\\x1b'`."""
    text = os.fspath(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if not _CONTROL.search(text):
        return shlex.quote(text)
    quoted = "".join(
        "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))
        if _CONTROL.match(character)
        else f"\\{character}"
        if character in "\\'"
        else character
        for character in text
    )
    return f"$'{quoted}'"


def echo(*parts: str | Styled, err: bool = False) -> None:
    """Prints one line; on a terminal, output that is too long continues on indented lines, between words.

    An error stays one line. Raises ReaderLeftError, OSError.
    """
    limit = None if err else _line_limit(sys.stdout)
    _write(_styled(_wrapped([_escaped_part(part) for part in parts], limit)), err)


#: Settings of the core, and the argument `force` of jobs, in their messages.
_SETTING = re.compile(
    r"(?<![\w-])(max-record|on-bad-record)(?![\w-])"
    r"|(?<=; )(text-field(?= names the key)|force(?= (?:\w+ it|starts again)))"
)


def with_options(message: str) -> str:
    """A message of the library in which settings are named as the options of commands: `--force`."""
    return _SETTING.sub(r"--\g<0>", message)


def echo_text(*parts: str | Styled, err: bool = False, nl: bool = True) -> None:
    """Prints text of several lines, and a line feed unless `nl` is off. Raises ReaderLeftError, OSError."""
    _write("".join(_shown(part, escape_text) for part in parts), err, nl)


def echo_row(row: str) -> None:
    """Prints a row of a table, which stays one line. Raises ReaderLeftError, OSError."""
    _write(escape(row), err=False)


def note(*parts: str | Styled, err: bool = False) -> None:
    """Prints one line that `--quiet` leaves out: of a summary, or with `err` on what the command noticed.

    With `--json`, standard output has the document alone, so that all notes go to standard error.
    """
    if not is_chosen(QUIET):
        err = err or is_chosen(JSON)
        limit = _line_limit(sys.stderr if err else sys.stdout)
        _write(_styled(_wrapped([_escaped_part(part) for part in parts], limit)), err)


#: Columns of a table if the width of the terminal is unknown.
_COLUMNS = 80
#: Minimum columns that tables use.
_MIN_COLUMNS = 40


def columns() -> int:
    """Columns that a table may use: those of the terminal, or 80."""
    return max(_line_limit(sys.stdout) or _COLUMNS, _MIN_COLUMNS)


def _line_limit(stream: TextIO) -> int | None:
    """Columns of a line: `COLUMNS`, or those of the terminal. None without a terminal: lines stay whole."""
    given = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[1-9][0-9]{0,5}", given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def width(text: str) -> int:
    """Columns of a text on a terminal: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def fit(text: str, n_columns: int) -> str:
    """A text in at most `n_columns`, at least 1, cut with an ellipsis if it is longer."""
    text = escape(text)
    if width(text) <= n_columns:
        return text
    cut = text[: max(0, n_columns)]
    while cut and width(cut) >= n_columns:
        cut = cut[:-1]
    return f"{cut}\u2026"


def padded(text: str, n_columns: int) -> str:
    """A text as a cell of exactly `n_columns`, cut if it is longer."""
    text = fit(text, n_columns)
    return text + " " * (n_columns - width(text))


def cell_columns(texts: Iterable[str], n_beside: int) -> int:
    """The columns of cells with these texts beside `n_beside` others: what the longest text needs and the
    terminal has, but at least 12. A narrower terminal breaks the lines, not the names."""
    return min(max(map(width, texts), default=0), max(columns() - n_beside, 12))


#: A line that names a command to run, which must stay one command where it is wrapped.
_COMMAND = re.compile(r"[a-z ]+: (pile-|rm )")


#: A word with the spaces after it; one of a shell may have spaces within quotes.
_WORD, _SHELL_WORD = re.compile(r"\S+ *"), re.compile(r"""(?:'[^']*'|"[^"]*"|\S)+ *""")


def _wrapped(parts: list[Styled], limit: int | None) -> list[Styled]:
    """The parts of a line, with line feeds and indentation instead of spaces where it exceeds `limit`."""
    line = "".join(part.text for part in parts)
    if limit is None or width(line) <= limit:
        return parts
    is_command = _COMMAND.match(line) is not None
    end = " \\\n" if is_command else "\n"
    indent = min(len(line) - len(line.lstrip(" ")) + 4, limit // 2)
    breaks, column, previous = set(), 0, 0
    for match in (_SHELL_WORD if is_command else _WORD).finditer(line):
        word = match[0].rstrip(" ")
        column += width(line[previous : match.start()])
        is_first = not line[: match.start()].strip(" ")
        if not is_first and column + width(word) + len(end) - 1 > limit:
            breaks.add(match.start() - 1)
            column = indent
        column += width(match[0])
        previous = match.end()
    shown, start = [], 0
    for text, how in parts:
        inside = sorted(i - start for i in breaks if start <= i < start + len(text))
        cut = [text[a:b] for a, b in zip([0, *(i + 1 for i in inside)], [*inside, len(text)], strict=True)]
        shown.append(Styled((end + " " * indent).join(cut), how))
        start += len(text)
    return shown


#: Options of every command; the key is the name of the parameter.
QUIET, JSON = "quiet", "as_json"


def choose(context: click.Context, option: click.Parameter, is_given: bool) -> bool:
    """The callback of the options `QUIET` and `JSON`: remembers for `is_chosen` that one is given."""
    context.meta[f"{__name__}.{option.name}"] = is_given
    return is_given


def is_chosen(option: str) -> bool:
    """Whether the option is given to the command that is running; False outside commands."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(f"{__name__}.{option}"))


#: Bytes of a document in memory; the rest of a longer one waits in a temporary file.
_MAX_DOCUMENT_BYTES = 16 << 20


def print_document(document: Mapping[str, Any]) -> None:
    """Prints the answer of `--json`: one line of JSON, with control characters as JSON escapes.

    A value may be an iterator, which becomes an array. Nothing is printed before all values are known and all
    files were intact while they were read, so that a document is always complete.

    Raises:
        FormatError: A file was truncated while it was read.
        ReaderLeftError, OSError: The document cannot be written.
    """
    is_ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    with tempfile.SpooledTemporaryFile(_MAX_DOCUMENT_BYTES, "w+", encoding="utf-8", newline="") as waiting:
        for part in _encoded(document, is_ascii):
            waiting.write(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", part))
        _core.check_mapped()
        waiting.seek(0)
        with stdout_failures():
            while part := waiting.read(1 << 20):
                click.echo(part, nl=False)
            click.echo()


def _encoded(value: Any, is_ascii: bool) -> Iterator[str]:
    """The parts of a value's JSON."""
    if not isinstance(value, Iterator):
        try:
            yield json.dumps(value, ensure_ascii=is_ascii)
            return
        except TypeError:
            # A value inside is an iterator.
            if not isinstance(value, Mapping):
                raise
    is_mapping = isinstance(value, Mapping)
    yield "{" if is_mapping else "["
    for number, item in enumerate(value.items() if is_mapping else value):
        if number:
            yield ", "
        if is_mapping:
            yield f"{json.dumps(item[0], ensure_ascii=is_ascii)}: "
            item = item[1]
        yield from _encoded(item, is_ascii)
    yield "}" if is_mapping else "]"


#: Plurals that do not end in `s` alone.
_PLURALS = {
    "query": "queries",
    "match": "matches",
    "index": "indexes",
    "batch": "batches",
    "branch": "branches",
    "process": "processes",
}


def counted(n: int, noun: str) -> str:
    """A count with its noun: `1 document`, `12,345 documents`, `2 bad records`."""
    if n == 1:
        return f"1 {noun}"
    first, space, last = noun.rpartition(" ")
    return f"{n:,} {first}{space}{_PLURALS.get(last, last + 's')}"


def _escaped_part(part: str | Styled) -> Styled:
    text, how = part if isinstance(part, Styled) else (part, {})
    return Styled(escape(text), how)


def _styled(parts: list[Styled]) -> str:
    return "".join(click.style(text, **how) if how else text for text, how in parts)


def _shown(part: str | Styled, escaped: Any) -> str:
    if isinstance(part, Styled):
        return click.style(escaped(part.text), **part.style)
    shown: str = escaped(part)
    return shown


def _write(line: str, err: bool, nl: bool = True) -> None:
    if err:
        # A message that cannot be written must not stop the job.
        with contextlib.suppress(OSError):
            click.echo(line, err=True)
        return
    with stdout_failures():
        click.echo(line, nl=nl)


@contextlib.contextmanager
def stdout_failures() -> Any:
    """Sets the file name of errors of writing to `STANDARD_OUTPUT`; a closed pipe is a ReaderLeftError."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeftError from None
    except OSError as error:
        error.filename = error.filename or STANDARD_OUTPUT
        raise


def prepare_streams() -> None:
    """Replaces closed standard streams, and makes their encodings escape what they cannot encode.

    A closed descriptor would be reused by the next file that is opened, and messages would be written to it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one: the lower ones are open by now.
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    sys.stdin = sys.stdin or _null("r")
    sys.stdout, sys.stderr = _usable(sys.stdout), _usable(sys.stderr)


def _usable(stream: TextIO | None) -> TextIO:
    if stream is None:
        return _null("w")
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _null(mode: str) -> TextIO:
    stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
    assert isinstance(stream, TextIO) or hasattr(stream, "write")
    return stream  # type: ignore[return-value]


def flush_stdout() -> None:
    """Flushes standard output, so that a failure is reported and not lost at exit."""
    with stdout_failures():
        sys.stdout.flush()


def silence_stdout() -> None:
    """Redirects standard output to the null device: the interpreter flushes it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
