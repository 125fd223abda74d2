"""The HTML report of a deduplication: documents removed, similarities of candidates, largest clusters."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pile_tools.manifest import Manifest
from pile_tools.present.charts import Stack
from pile_tools.present.markup import markup, markup_lines
from pile_tools.present.pages import Table, document, figure, table
from pile_tools.publish import PAGE_MARK
from pile_tools.terminal import counted

#: Characters of equal text shown before and after a difference.
_CONTEXT = 120

#: Maximum characters of each text that are compared.
_MAX_COMPARED = 20_000

#: Maximum pairs of equal items in two compared texts. `difflib` visits each pair about once per difference.
#: Two texts of 20,000 characters of prose or code have 30,000 to 250,000 such pairs.
_MAX_PAIRS = 1_000_000

#: Maximum differences shown for a pair.
_MAX_SHOWN = 12

#: Maximum characters shown of each side of a difference.
_MAX_DIFFERENCE = 4 * _CONTEXT

_STYLE = """
.pair { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; margin: .8rem 0; }
.pair p { margin: .3rem 0; }
.pair .text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9em; }
del { background: #ffd9d6; color: inherit; } ins { background: #d4f4dc; color: inherit; }
@media screen and (prefers-color-scheme: dark) { del { background: #5c1f1b; } ins { background: #17472a; } }
"""


@dataclass(frozen=True)
class Pair:
    """A removed document and the kept document that it duplicates.

    Attributes:
        about: A line that states the size of their cluster and their similarity.
        kept_name: Shard and record of the kept document.
        kept: Its text.
        removed_name: Shard and record of the removed document, which `mark` only marks as a copy.
        removed: Its text.
    """

    about: str
    kept_name: str
    kept: str
    removed_name: str
    removed: str


def page(made: Manifest, title: str, clusters: Sequence[Sequence[str]], pairs: Sequence[Pair]) -> str:
    """A self-contained HTML page.

    Args:
        made: The manifest of the deduplicated shards.
        title: The heading.
        clusters: The rows of the table of the largest clusters, as shown: shard and record of the first
            member, then the counts of documents, of removed, of kept and of left-alone documents.
        pairs: A removed and a kept document from each of the largest clusters with a removed document.
    """
    summary, settings = made.summary, made.settings
    body = [f"<header><h1>{markup(title)}</h1><p>{markup(_about(made))}</p></header>", table(_subsets(made))]
    if settings.get("unverified"):
        what = (
            f"Estimate: the older corpus was not read. {counted(summary['n_estimated'], 'document')} "
            f"{_done(made)} for a similarity to older ones that is estimated from signatures of "
            f"{settings['permutations']} values, and copies of older ones for an equal hash of 128 bits."
        )
        body.append(f"<p>{markup(what)}</p>")
    if summary["n_left_alone"]:
        what = (
            f"{counted(summary['n_left_alone'], 'document')} left alone: their clusters have more than "
            f"{settings['max_cluster']:,} documents, which is more often a boilerplate that many "
            f"documents share than copies of one."
        )
        body.append(f"<p>{markup(what)}</p>")
    # Empty where only exact copies were searched for.
    if summary["histogram"]:
        edges = [i / len(summary["histogram"]) for i in range(len(summary["histogram"]) + 1)]
        what = measure(made)
        chart = Stack(f"Candidates by {what}", what, "pairs", edges, {"candidates": summary["histogram"]})
        verified = "verified or estimated" if settings.get("unverified") else "verified"
        caption = (
            f"All {summary['n_candidates']:,} candidate pairs by their {verified} {what}; "
            f"{summary['n_verified']:,} reach {settings['threshold']}."
        )
        body.append(figure(chart, markup(caption)))
        body.append(table(_curve(made)))
    copies = "Marked copies" if settings["mark"] else "Removed"
    header = ["Cluster", "Documents", copies, "Kept", "Left alone"]
    body.append(table(Table("Largest clusters", header, clusters)))
    body += [_pair(pair, "marked as its copy" if settings["mark"] else "removed") for pair in pairs]
    body.append(f"<footer>Made by pile-tools {markup(version('pile-tools'))}.</footer>")
    return document(title, "\n".join(body), _STYLE, mark=PAGE_MARK)


def measure(made: Manifest) -> str:
    """The measure that the threshold applies to: `similarity` or `containment`."""
    return "containment" if made.settings.get("verify") == "containment" else "similarity"


def _done(made: Manifest) -> str:
    """What happened to the copies."""
    return "marked as copies" if made.settings["mark"] else "removed"


def _about(made: Manifest) -> str:
    """A sentence that states how many documents were removed or marked."""
    summary, settings = made.summary, made.settings
    n_documents = max(summary["n_documents"], 1)
    if settings["mark"]:
        n = summary["n_marked"]
        about = (
            f"{counted(n, 'document')} of {summary['n_documents']:,} ({n / n_documents:.1%}) marked with "
            "their cluster, none removed."
        )
    else:
        about = (
            f"{counted(summary['n_removed'], 'document')} of {summary['n_documents']:,} removed "
            f"({summary['n_removed'] / n_documents:.1%}), {summary['n_removed_bytes'] / 1e6:,.1f} of "
            f"{summary['n_text_bytes'] / 1e6:,.1f} MB of text."
        )
    return f"{about} A dry run: no shard was written." if settings["dry_run"] else about


def _subsets(made: Manifest) -> Table:
    if made.settings["mark"]:
        sizes = [
            [_name(of), f"{of['n_documents']:,}", f"{of['n_text_bytes'] / 1e6:,.2f}"]
            for of in sorted(made.summary["subsets"], key=lambda of: -of["n_text_bytes"])
        ]
        return Table("By subset", ["Subset", "Documents", "MB of text"], sizes)
    rows = []
    for of in sorted(made.summary["subsets"], key=lambda of: -of["n_removed_bytes"]):
        share = of["n_removed"] / max(of["n_documents"], 1)
        rows.append(
            [
                _name(of),
                f"{of['n_documents']:,}",
                f"{of['n_removed']:,}",
                f"{share:.1%}",
                f"{of['n_removed_bytes'] / 1e6:,.2f}",
            ]
        )
    header = ["Subset", "Documents", "Removed", "Share", "MB of text removed"]
    return Table("By subset", header, rows)


def _name(subset: Mapping[str, Any]) -> str:
    return "no subset" if subset["name"] is None else str(subset["name"])


def _curve(made: Manifest) -> Table:
    bands = made.summary["bands"]
    note = f"With {bands['bands']} bands of {bands['rows']} values of {made.settings['permutations']}."
    # The curve has a point every 0.01 from 0.5 to 1, so a threshold such as 0.875 or 0.4 gets no row. `==` is
    # exact: both sides are the float nearest to a decimal number.
    threshold = float(made.settings["threshold"])
    rows = [
        [f"{similarity:.2f}", f"{probability:.4f}"]
        for similarity, probability in made.summary["curve"]
        if round(similarity * 100) % 5 == 0 or (similarity == threshold and measure(made) == "similarity")
    ]
    return Table("Probability that a pair is found", ["Jaccard similarity", "Probability"], rows, note=note)


def _pair(pair: Pair, done: str) -> str:
    return (
        f'<div class="pair"><p>{markup(pair.about)}</p>'
        f"<p>kept: {markup(pair.kept_name)}<br>{done}: {markup(pair.removed_name)}</p>"
        f'<p class="text">{differences(pair.kept, pair.removed)}</p></div>'
    )


def differences(kept: str, removed: str) -> str:
    """Where two texts differ, word by word, as HTML: what only the kept one has is struck out.

    Shows up to `_CONTEXT` characters of equal text before and after a difference, and up to `_MAX_DIFFERENCE`
    of each side of a difference. `[…]` replaces the rest; the first and last equal text always have one.
    Compares the first `_MAX_COMPARED` characters, fewer of repetitive texts. The last difference may be an
    artifact of this truncation.
    """
    n_compared = _MAX_COMPARED
    a, keys_a = _words(kept[:n_compared])
    b, keys_b = _words(removed[:n_compared])
    while _n_pairs(keys_a, keys_b) > _MAX_PAIRS:
        n_compared //= 2
        a, keys_a = _words(kept[:n_compared])
        b, keys_b = _words(removed[:n_compared])
    is_cut = max(len(kept), len(removed)) > n_compared
    # With `autojunk`, a frequent word of a long text would match only next to a match of rarer words.
    matcher = difflib.SequenceMatcher(None, keys_a, keys_b, autojunk=False)
    shown, n_shown = [], 0
    steps = matcher.get_opcodes()
    for number, (kind, i, end_i, j, end_j) in enumerate(steps):
        if kind == "equal":
            equal = "".join(a[i:end_i])
            is_first, is_last = number == 0, number == len(steps) - 1
            before, after = "" if is_first else equal[:_CONTEXT], "" if is_last else equal[-_CONTEXT:]
            if len(equal) <= 2 * _CONTEXT and not (is_first or is_last):
                shown.append(markup_lines(equal))
            else:
                shown.append(f"{markup_lines(before)} […] {markup_lines(after)}")
            continue
        n_shown += 1
        if n_shown > _MAX_SHOWN:
            shown.append(" and more differences")
            break
        if end_i > i:
            shown.append(f"<del>{_shortened(''.join(a[i:end_i]))}</del>")
        if end_j > j:
            shown.append(f"<ins>{_shortened(''.join(b[j:end_j]))}</ins>")
    if n_shown == 0:
        return "The texts are equal as far as they are compared." if is_cut else "The texts are equal."
    # The texts continue after the last difference. An equal text at the end already ends with `[…]`.
    if is_cut and steps[-1][0] != "equal" and n_shown <= _MAX_SHOWN:
        shown.append(" […]")
    return "".join(shown)


def _words(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The words of a text and the spaces between them, and the keys by which they are compared.

    A space matches only after an equal word: spaces are half of all items, and matching them all is slow. As
    junk of `difflib`, they would end every match after one word, so longer equal texts would not be found.
    """
    items = re.findall(r"\s+|[^\s]+", text)
    befores = ["", *items]
    return items, [
        (item, before if item.isspace() else "") for before, item in zip(befores, items, strict=False)
    ]


def _n_pairs(a: Sequence[tuple[str, str]], b: Sequence[tuple[str, str]]) -> int:
    """The pairs of equal items."""
    counts = Counter(b)
    return sum(n * counts[item] for item, n in Counter(a).items())


def _shortened(text: str) -> str:
    """One side of a difference as HTML, at most `_MAX_DIFFERENCE` characters of it."""
    rest = " […]" if len(text) > _MAX_DIFFERENCE else ""
    return markup_lines(text[:_MAX_DIFFERENCE]) + rest
