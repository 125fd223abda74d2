"""What commands print: text that cannot drive a terminal, and commands that a shell reads as meant.

Texts, names and messages come from data that anyone may have written. A control character in them would
move the cursor, recolor or rewrite lines, or type into the shell; a direction override would reorder what is
read. They are printed as escapes (`\\x1b`, `\\u202e`), on a terminal and elsewhere alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import click

#: C0, DEL, C1, line and paragraph separators, bidirectional embeddings, overrides and isolates, surrogates,
#: and the two code points that are no characters and XML forbids.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
#: The same, except for line feeds and tabs.
_CONTROL_IN_TEXT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


#: In place of a file's name in an error.
STANDARD_OUTPUT = "standard output"


class ReaderLeftError(Exception):
    """Nobody reads standard output any more, as after `| head`; the command ends quietly."""


class Styled(NamedTuple):
    """A part of a line in a style, which is escaped like any other part."""

    text: str
    style: dict[str, Any]


def style(text: str, **how: Any) -> Styled:
    """A part for `echo`, with the arguments of `click.style`."""
    return Styled(text, how)


def escape(text: str) -> str:
    """`text` on one line: every control character, line feeds and tabs included, as an escape.

    A byte of a file name that is not UTF-8 is shown as that byte.
    """
    return _CONTROL.sub(_escaped, text)


def escape_text(text: str) -> str:
    """`text` with its lines and tabs, every other control character as an escape."""
    return _CONTROL_IN_TEXT.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":
        # How Python holds a byte of a name that is not UTF-8 (PEP 383).
        return f"\\x{ord(character) - 0xDC00:02x}"
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def shell_quote(word: str | Path) -> str:
    """`word` as a shell reads it back: one word, no option, control characters as `$'\\x1b'`."""
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
    """Prints one line. Raises ReaderLeftError, OSError."""
    _write("".join(_shown(part, escape) for part in parts), err)


def echo_text(*parts: str | Styled, err: bool = False) -> None:
    """Prints text that has lines of its own. Raises ReaderLeftError, OSError."""
    _write("".join(_shown(part, escape_text) for part in parts), err)


def echo_json(value: Any) -> None:
    """Prints a value as one line of JSON, its control characters as JSON's own escapes."""
    text = json.dumps(value, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf"))
    _write(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text), err=False)


def _shown(part: str | Styled, escaped: Any) -> str:
    if isinstance(part, Styled):
        return click.style(escaped(part.text), **part.style)
    shown: str = escaped(part)
    return shown


def _write(line: str, err: bool) -> None:
    if err:
        # A message that cannot be written is no reason to stop the work.
        with contextlib.suppress(OSError):
            click.echo(line, err=True)
        return
    with stdout_failures():
        click.echo(line)


@contextlib.contextmanager
def stdout_failures() -> Any:
    """Names standard output in the errors of writing to it."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeftError from None
    except OSError as error:
        error.filename = error.filename or STANDARD_OUTPUT
        raise


def prepare_streams() -> None:
    """Makes standard streams usable: closed ones are replaced, and no encoding refuses a character.

    A closed descriptor would be given to the next file that is opened, and messages would land in that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is given: the streams before are open by now.
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
    """Writes what is buffered, so that a failure is reported rather than lost at exit."""
    with stdout_failures():
        sys.stdout.flush()


def silence_stdout() -> None:
    """Sends the rest of standard output nowhere: the interpreter flushes it once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
