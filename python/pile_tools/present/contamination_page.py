"""The page of a search for the items of a benchmark: verdicts, and matches beside their items."""

from __future__ import annotations

import difflib
import re
import unicodedata
from importlib.metadata import version
from typing import Any

from pile_tools.manifest import Manifest
from pile_tools.present.markup import markup, markup_lines
from pile_tools.present.pages import Table, document, table
from pile_tools.publish import PAGE_MARK
from pile_tools.terminal import counted

_STYLE = """
.match { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; margin: .8rem 0; }
.match p { margin: .3rem 0; }
.match .texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: .8rem; }
.match .text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9em; }
mark { background: #ffe9a8; color: inherit; }
@media screen and (prefers-color-scheme: dark) { mark { background: #5a4a12; } }
"""

_VERDICTS = (
    ("n_verbatim", "verbatim", "the characters of passage or question, byte for byte"),
    ("n_normalized", "all words in order", "other lines, case, punctuation or Unicode forms"),
    ("n_partial", "partial", "at least the threshold's share of rare n-grams in one region"),
    ("n_too_common", "too common to tell", "their n-grams are in too many documents"),
    ("n_too_short", "too short to tell", "a passage or question of fewer than 4 words"),
    ("n_clean", "clean", "neither passage nor question is in a document"),
)

_WORD = re.compile(r"\w+")


def page(made: Manifest, title: str) -> str:
    """A self-contained HTML page of an output of `pile_tools.jobs.contamination`."""
    summary, settings = made.summary, made.settings
    n_found = sum(summary[key] for key in ("n_verbatim", "n_normalized", "n_partial"))
    about = (
        f"{n_found:,} of {counted(summary['n_items'], 'item')} found in "
        f"{counted(summary['n_documents'], 'document')}, {summary['n_with_answer']:,} with the answer near "
        f"the question. N-grams of {settings['ngram']} words, threshold {settings['threshold']}."
    )
    if "harness" in summary:
        harness = summary["harness"]
        about += f" The items are the split {harness['split']} of the task in lm-eval {harness['version']}."
    rows = [
        [name, meaning, f"{summary[key]:,}", f"{summary[key] / summary['n_items']:.1%}"]
        for key, name, meaning in _VERDICTS
    ]
    body = [
        f"<header><h1>{markup(title)}</h1><p>{markup(about)}</p></header>",
        table(Table("Items by verdict", ["Verdict", "Meaning", "Items", "Share"], rows, n_left=2)),
        *(_match(one) for one in summary["worst"]),
        f"<footer>Made by pile-tools {markup(version('pile-tools'))}.</footer>",
    ]
    return document(title, "\n".join(body), _STYLE, mark=PAGE_MARK)


def _match(one: dict[str, Any]) -> str:
    name = f"Item {one['item']:,}" + ("" if one["id"] is None else f" ({one['id']})")
    answer = one["answer_score"]
    about = [
        f"{name}, {one['part']}: {one['kind']}, score {one['score']:.4f}",
        counted(one["n_documents"], "document"),
        *([] if answer is None else [f"answer near it: {answer:.4f}"]),
        *(
            []
            if one.get("first_step") is None
            else [f"seen in steps {one['first_step']:,} to {one['last_step']:,}"]
        ),
    ]
    item, text = marked(one["item_text"], one["text"])
    return (
        f'<div class="match"><p>{markup("; ".join(about))}</p><p>{markup(one["document"])}</p>'
        f'<div class="texts"><div class="text">{item}</div><div class="text">{text}</div></div></div>'
    )


def marked(a: str, b: str) -> tuple[str, str]:
    """Two texts as HTML, with the words that both have in the same order marked."""
    in_a, in_b = (list(_WORD.finditer(text)) for text in (a, b))
    # difflib takes quadratic time: manifests hold at most `kinds.MAX_EXCERPT` characters of a text.
    words_a, words_b = ([_normalized(word[0]) for word in of_text] for of_text in (in_a, in_b))
    blocks = difflib.SequenceMatcher(None, words_a, words_b, autojunk=False).get_matching_blocks()
    return (
        _with_marks(a, [(in_a[i], in_a[i + n - 1]) for i, _, n in blocks if n]),
        _with_marks(b, [(in_b[j], in_b[j + n - 1]) for _, j, n in blocks if n]),
    )


def _normalized(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()


def _with_marks(text: str, runs: list[tuple[re.Match[str], re.Match[str]]]) -> str:
    shown, at = [], 0
    for first, last in runs:
        shown.append(markup_lines(text[at : first.start()]))
        shown.append(f"<mark>{markup_lines(text[first.start() : last.end()])}</mark>")
        at = last.end()
    return "".join([*shown, markup_lines(text[at:])])
