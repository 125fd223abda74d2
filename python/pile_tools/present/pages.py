"""Self-contained pages: one file that loads nothing, for wide screens, phones, paper and dark mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from pile_tools import publish
from pile_tools.errors import ConfigError
from pile_tools.present import colors
from pile_tools.present.charts import NARROW, WIDE, Chart
from pile_tools.present.markup import markup
from pile_tools.publish import PAGE_MARK

#: What a chart can be written as: a page, or the bare picture.
SUFFIXES = (".html", ".svg")
#: Maximum rows of a table: browsers show a page of more only slowly.
MAX_ROWS = 1000

_DOCUMENT = """<!doctype html>
<html lang="en"><head>{mark}<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style></head>
<body>
{body}
</body></html>
"""


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        title: What it holds.
        header: The names of its columns.
        rows: Its cells, as they are shown.
        n_left: Columns of words, the first ones; the others have numbers.
        note: A remark below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_left: int = 1
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """Charts of one answer with what a reader needs to know, and the numbers.

    Attributes:
        title: What was asked, with its subject.
        about: What was read.
        charts: The charts, each with its caption.
        tables: The numbers.
    """

    title: str
    about: str
    charts: Sequence[tuple[Chart, str]]
    tables: Sequence[Table] = field(default=())


def write(path: Path, plot: Plot, inputs: Iterable[Path] = ()) -> None:
    """Writes a plot as a page, `.html`, or its first chart as a picture, `.svg`.

    Args:
        path: The file.
        plot: What it shows.
        inputs: Files that the plot was made from and that it may not replace. Files that this process has
            mapped into memory are known to be inputs without it.

    Raises:
        ConfigError: The file has another suffix, is one of the inputs or belongs to an artifact.
        OutputExistsError: The file exists and is not from pile-tools.
        OSError: The file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"a plot is written to a file that ends in .html or .svg ({path})")
    if path.suffix == ".svg":
        publish.write_page(path, plot.charts[0][0].svg(WIDE, is_picture=True), inputs)
        return
    body = [
        f"<header><h1>{markup(plot.title)}</h1><p>{markup(plot.about)}</p></header>",
        *(figure(chart, markup(caption)) for chart, caption in plot.charts),
        *map(table, plot.tables),
        f"<footer>Made by pile-tools {markup(version('pile-tools'))}.</footer>",
    ]
    publish.write_page(path, document(plot.title, "\n".join(body), mark=PAGE_MARK), inputs)


def document(title: str, body: str, style: str = "", *, mark: str = "") -> str:
    """A page in the common style.

    Args:
        title: The title, as text.
        body: The contents of the body, as HTML.
        style: Rules of a style sheet after the common ones.
        mark: A comment in front; `PAGE_MARK` if commands may replace the page.
    """
    common = resources.files("pile_tools.present").joinpath("page.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{colors.dark_rules()}\n}}\n"
    return _DOCUMENT.format(mark=mark, title=markup(title), style=common + dark + style, body=body)


def figure(chart: Chart, caption: str) -> str:
    """A chart with a caption, which is HTML."""
    return f"<figure>{drawn(chart)}<figcaption>{caption}</figcaption></figure>"


def drawn(chart: Chart, *, is_half: bool = False) -> str:
    """A chart as HTML: drawn for wide screens and for phones, of which one is shown, or for half a page."""
    if is_half:
        return chart.svg(NARROW)
    return f'<div class="wide">{chart.svg(WIDE)}</div><div class="narrow">{chart.svg(NARROW)}</div>'


def table(of: Table) -> str:
    """A table as HTML, in a frame that scrolls where it is too wide."""

    def row(cells: Sequence[str], tag: str) -> str:
        left = ' class="left"'
        listed = (
            f"<{tag}{left if i < of.n_left else ''}>{markup(cell)}</{tag}>" for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(listed)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in of.rows[:MAX_ROWS])
    n_more = len(of.rows) - MAX_ROWS
    notes = [of.note] if of.note else []
    notes += [f"{n_more:,} more rows are left out of this page."] if n_more > 0 else []
    note = f'<p class="note">{markup(" ".join(notes))}</p>' if notes else ""
    return (
        f"<h2>{markup(of.title)}</h2>"
        f'<div class="scroll" role="region" tabindex="0" aria-label="{markup(of.title)}"><table>'
        f"<thead>{row(of.header, 'th')}</thead><tbody>\n{rows}\n</tbody></table></div>{note}"
    )
