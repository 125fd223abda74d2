"""Converts manual pages to plain text by removing troff's requests and escapes.

Handles the most common macros of man(7) and mdoc(7) and drops unknown ones. A paragraph becomes one line,
with an empty line between paragraphs; examples keep their lines. Tables, equations, macro definitions and
both branches of conditionals are skipped: they hold layout, rarely text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

NAMED_CHARACTERS = {
    "aq": "'", "dq": '"', "lq": '"', "rq": '"', "oq": "'", "cq": "'", "bu": "*", "em": "--", "en": "-",
    "hy": "-", "mi": "-", "co": "(c)", "rg": "(R)", "tm": "(TM)", "rs": "\\", "ga": "`", "ha": "^",
    "ti": "~", "at": "@", "sh": "#", "Do": "$", "ba": "|", "br": "|", "lB": "[", "rB": "]", "lC": "{",
    "rC": "}", "la": "<", "ra": ">", "<=": "<=", ">=": ">=", "!=": "!=", "->": "->", "<-": "<-", "+-": "+-",
    "mu": "x", "de": " degrees", "mc": "u", "ss": "ss", "lh": "<-", "rh": "->", "sl": "/", "ul": "_",
}  # fmt: skip
#: Macros of mdoc that enclose their arguments.
MDOC_QUOTES = {
    "Op": "[]", "Oo": "[]", "Dq": '""', "Qq": '""', "Sq": "''", "Ql": "''", "Pq": "()", "Bq": "[]",
    "Aq": "<>", "Brq": "{}",
}  # fmt: skip
#: Macros of mdoc whose arguments are text or further macros.
MDOC_WORDS = frozenset([
    "Ad", "An", "Ao", "Ac", "Aq", "Ar", "At", "Bc", "Bo", "Bq", "Brq", "Bsx", "Bx", "Cd", "Cm", "Dc", "Do",
    "Dq", "Dv", "Dx", "Ec", "Em", "Eo", "Er", "Ev", "Fa", "Fl", "Fn", "Ft", "Fx", "Ic", "In", "Li", "Lb",
    "Lk", "Ms", "Mt", "Nd", "Nm", "No", "Ns", "Nx", "Oc", "Oo", "Op", "Ot", "Ox", "Pa", "Pc", "Pf", "Po",
    "Pq", "Qc", "Ql", "Qo", "Qq", "Rv", "Sc", "So", "Sq", "St", "Sx", "Sy", "Ta", "Tn", "Ux", "Va", "Vt",
    "Xc", "Xo", "Xr",
])  # fmt: skip
#: Requests that start a block without running text, and the request that ends it.
SKIPPED_BLOCKS = {"TS": ".TE", "EQ": ".EN", "de": "..", "de1": "..", "am": "..", "ig": ".."}
#: Requests that end a paragraph. `IX` is an index entry, which pod2man writes after a heading or an item.
PARAGRAPHS = frozenset(["PP", "LP", "P", "Pp", "TP", "HP", "sp", "RS", "RE", "TQ", "Bl", "El", "It", "IX"])
#: Requests that end a paragraph, and whether an example starts there.
PREFORMATTED = {"nf": True, "EX": True, "Bd": True, "fi": False, "EE": False, "Ed": False}
#: Requests that change the font. Spaces separate the arguments of the first set only.
SPACED, JOINED = frozenset(["B", "I", "SM", "SB"]), frozenset(["BR", "IR", "RB", "BI", "IB", "RI"])

_ESCAPE = re.compile(
    r"""\\(?: ["#].* | \*?\((?P<two>..) | \*?\[(?P<long>[^]]*)\] | [fFmMnkgYV](?:\(..|\[[^]]*\]|[+-]?.)
    | s(?:[+-]?\d{1,2}|\(..|\[[^]]*\]|'[^']*') | [hvwlLDbXoZNxA]'[^']*' | \*. | z | (?P<one>.) | $ )""",
    re.VERBOSE,
)
_ONE = {
    "e": "\\",
    "\\": "\\",
    "-": "-",
    " ": " ",
    "~": " ",
    "0": " ",
    ".": ".",
    "'": "'",
    "`": "`",
    "t": "\t",
}
#: A comment, to the end of its line. It is removed before arguments are split: its words are no arguments.
_COMMENT = re.compile(r"""(?<!\\)\\["#].*""")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)')


def plain_text(page: str) -> str:
    """The text of a manual page; empty for a page that only includes another."""
    writer = _Writer()
    lines = page.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for line in _without_blocks(lines):
        writer.add(line)
    return writer.text()


def without_escapes(text: str) -> str:
    """`text` without escapes such as font changes, and with named characters replaced."""
    return _ESCAPE.sub(_replacement, text)


def arguments(text: str) -> list[str]:
    """The arguments of a request, words or phrases in double quotes, without escapes."""
    found = (quoted.replace('""', '"') or word for quoted, word in _ARGUMENT.findall(_COMMENT.sub("", text)))
    return [without_escapes(argument) for argument in found]


def _replacement(match: re.Match[str]) -> str:
    name = match["two"] or match["long"]
    return NAMED_CHARACTERS.get(name, "") if name else _ONE.get(match["one"] or "", "")


def _without_blocks(lines: list[str]) -> Iterator[str]:
    """The lines outside comments, conditionals, tables, equations and macro definitions."""
    until, depth = "", 0
    for line in lines:
        name = _request(line)[0]
        if until:
            until = "" if line.startswith(until) else until
        elif depth or name in ("if", "ie", "el", "while"):
            depth = max(0, depth + line.count(r"\{") - line.count(r"\}"))
        elif name in SKIPPED_BLOCKS:
            until = SKIPPED_BLOCKS[name]
        elif not re.match(r"""[.']\s*\\["#]""", line):
            yield line


def _request(line: str) -> tuple[str, str]:
    """The name and arguments of a line's request; an empty name for a line of text."""
    match = re.match(r"[.']\s*(\S*)\s*(.*)", line)
    return (match[1], match[2]) if match else ("", line)


class _Writer:
    """Collects the paragraphs of a page."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._words: list[str] = []
        self._is_preformatted = False
        self._name = ""

    def text(self) -> str:
        """All blocks, separated by empty lines."""
        self._end_block()
        return "\n\n".join(self._blocks) + "\n" if self._blocks else ""

    def add(self, line: str) -> None:
        """Adds the next line of the source."""
        name, rest = _request(line)
        if name:
            self._add_request(name, rest)
        elif line.startswith((".", "'")):
            pass
        elif not line.strip() and not self._is_preformatted:
            self._end_block()
        else:
            self._words.append(without_escapes(line))

    def _add_request(self, name: str, rest: str) -> None:
        if name in ("TH", "Dt"):
            title = arguments(rest)
            self._heading(f"{title[0]}({title[1]})" if len(title) > 1 else rest)
        elif name in ("SH", "Sh", "SS", "Ss"):
            self._heading(" ".join(arguments(rest)))
        elif name in PREFORMATTED:
            self._end_block()
            self._is_preformatted = PREFORMATTED[name]
        elif name in PARAGRAPHS or name == "IP":
            self._end_block()
            self._words += arguments(rest)[:1] if name == "IP" else [_mdoc(rest)] if name == "It" else []
        elif name in SPACED or name in JOINED:
            self._words.append(("" if name in JOINED else " ").join(arguments(rest)))
        elif name in ("UR", "MT"):
            self._words.append(f"<{without_escapes(rest)}>")
        elif name == "Nm":
            self._name = self._name or (arguments(rest) or [""])[0]
            self._words.append(_mdoc(rest) or self._name)
        elif name in MDOC_WORDS:
            self._words.append(_mdoc(f"{name} {rest}"))

    def _heading(self, text: str) -> None:
        self._end_block()
        self._is_preformatted = False
        self._blocks.append(text)

    def _end_block(self) -> None:
        """Ends the current paragraph or example."""
        glue, words = ("\n", self._words) if self._is_preformatted else (" ", " ".join(self._words).split())
        block = glue.join(words).strip("\n ")
        self._words = []
        if block:
            self._blocks.append(block)


def _mdoc(text: str) -> str:
    """A line of nested mdoc macros as plain text: `Op Fl v Ar file` is `[-v file]`.

    Each line stands alone: all brackets close at its end, even that of `Oo`, whose `Oc` may be on a later
    line.
    """
    # The empty word is what a leading `Ns` joins the next word to.
    words, closing, prefix = [""], "", ""
    is_glued, is_reference = False, False
    for word in arguments(text):
        if word in MDOC_QUOTES:
            prefix, closing = prefix + MDOC_QUOTES[word][0], MDOC_QUOTES[word][1] + closing
        elif word == "Fl":
            prefix += "-"
        elif word == "Ns":
            # No space before the next word, whichever macros are between.
            is_glued = True
        elif word in MDOC_WORDS:
            is_reference = word == "Xr"
        elif is_reference and word[:1].isdigit():
            words[-1] += f"({word})"
            is_reference = False
        else:
            if is_glued:
                words[-1] += prefix + word
            else:
                words.append(prefix + word)
            is_glued, prefix = False, ""
    return re.sub(r" (?=[.,:;)\]](?: |$))", "", " ".join(filter(None, words)) + closing)
