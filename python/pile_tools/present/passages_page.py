"""The page of cut passages: how much of each subset went, and the longest passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from pile_tools.manifest import Manifest
from pile_tools.present.markup import markup
from pile_tools.present.pages import Table, document, table
from pile_tools.publish import PAGE_MARK
from pile_tools.terminal import counted

#: Characters shown of the start and of the end of a passage.
_SHOWN = 300

_STYLE = """
.passage { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; margin: .8rem 0; }
.passage p { margin: .3rem 0; }
.passage .text { overflow-wrap: anywhere; font-size: .9em; }
"""


@dataclass(frozen=True)
class ShownPassage:
    """A passage with its text.

    Attributes:
        name: Shard and record of its document.
        start: Its first byte in the text there.
        copy: Shard and record of the document with the earlier copy.
        text: The passage.
    """

    name: str
    start: int
    copy: str
    text: str


def page(made: Manifest, title: str, window: str, passages: Sequence[ShownPassage]) -> str:
    """A self-contained HTML page.

    Args:
        made: The manifest of the shards without their passages.
        title: The heading.
        window: The length of the windows, as `100 bytes`.
        passages: The longest passages, the longest first.
    """
    summary = made.summary
    share = summary["n_repeated_bytes"] / max(summary["n_text_bytes"], 1)
    done = "found" if made.settings["dry_run"] else "cut"
    about = (
        f"{summary['n_repeated_bytes'] / 1e6:,.1f} of {summary['n_text_bytes'] / 1e6:,.1f} MB of text "
        f"({share:.1%}) in {counted(summary['n_passages'], 'passage')} {done}: bytes in windows of "
        f"{window} that also occur earlier."
    )
    body = [f"<header><h1>{markup(title)}</h1><p>{markup(about)}</p></header>", table(_subsets(made))]
    if passages:
        body.append("<h2>Longest passages</h2>")
    body += [_passage(passage) for passage in passages]
    body.append(f"<footer>Made by pile-tools {markup(version('pile-tools'))}.</footer>")
    return document(title, "\n".join(body), _STYLE, mark=PAGE_MARK)


def _subsets(made: Manifest) -> Table:
    rows = [
        [
            of["name"] if of["name"] is not None else "no subset",
            f"{of['n_documents']:,}",
            f"{of['n_text_bytes'] / 1e6:,.2f}",
            f"{of['n_repeated_bytes'] / 1e6:,.2f}",
            f"{of['n_repeated_bytes'] / max(of['n_text_bytes'], 1):.1%}",
        ]
        for of in sorted(made.summary["subsets"], key=lambda of: -of["n_repeated_bytes"])
    ]
    return Table("By subset", ["Subset", "Documents", "MB of text", "MB repeated", "Share"], rows)


def _passage(passage: ShownPassage) -> str:
    # White space as one space: a passage may be a column of numbers, pages long.
    text = " ".join(passage.text.split())
    if len(text) > 2 * _SHOWN:
        text = f"{text[:_SHOWN]} […] {text[-_SHOWN:]}"
    n_bytes = len(passage.text.encode())
    return (
        f'<div class="passage"><p>{counted(n_bytes, "byte")} from byte {passage.start:,} of '
        f"{markup(passage.name)}<br>earlier in {markup(passage.copy)}</p>"
        f'<p class="text">{markup(text)}</p></div>'
    )
