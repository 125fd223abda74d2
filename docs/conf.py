"""Builds the site: `make docs`.

The pages are the Markdown files of the repository. Their relative links work here and on a code host.
"""

from __future__ import annotations
import __future__

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import version as version_of
from importlib.util import spec_from_loader
from itertools import groupby
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

#: The table of contents. A page of docs/ that is not named here comes last in the guide.
CONTENTS = {
    "Guide": [
        "which-tool",
        "dedup",
        "tokenizer",
        "datasets",
        "order",
        "timeline",
        "contamination",
        "search",
        "count",
        "training",
        "pythia-70m",
        "continue-published",
        "scale",
        "images",
    ],
    "Reference": ["reference/cli", "reference/api", "formats", "guarantees", "publishing", "glossary"],
    "Project": ["dependencies", "../benches/RESULTS", "../CONTRIBUTING", "../CHANGELOG"],
}
_named = {page for pages in CONTENTS.values() for page in pages}
CONTENTS["Guide"] += sorted({path.stem for path in Path(__file__).parent.glob("*.md")} - _named)


class _StubLoader(SourceFileLoader):
    """Compiles a stub, in which annotations may name what is defined later."""

    def source_to_code(self, data: Any, path: Any, **_: Any) -> Any:
        return compile(data, path, "exec", __future__.annotations.compiler_flag, dont_inherit=True)


class _StubFinder(MetaPathFinder):
    """Finds the stub of the Rust core instead of the core, whose functions have no types."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != "pile_tools._core":
            return None
        path = str(ROOT / "python" / "pile_tools" / "_core.pyi")
        return spec_from_loader(name, _StubLoader(name, path), origin=path)


sys.dont_write_bytecode = True
sys.meta_path.insert(0, _StubFinder())

project = "pile-tools"
release = version_of("pile-tools")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/reference/*.rst", "benches/RESULTS.md"]
exclude_patterns = [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("docs", "benches")
]

html_theme = "furo"
html_title = f"pile-tools {release}"
html_copy_source = False
# Options start with two hyphens, which are not a dash.
smartquotes = False

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4
myst_ref_domains = ["std"]

# Docstrings and help write code between single backticks, as Markdown does.
default_role = "literal"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
napoleon_use_ivar = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True


def _prepare_page(_: Sphinx, name: str, source: list[str]) -> None:
    """Adds the table of contents to the first page; makes targets of `<a id="...">`, to it only HTML."""
    if name == root_doc:
        for part, pages in CONTENTS.items():
            names = "\n".join(f"docs/{page}" for page in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {part}\n\n{names}\n```\n"
    source[0] = re.sub(r'<a id="([^"]+)"></a>', r"[]{#\1}", source[0])


def _prepare_description(_: Sphinx, __: Any, lines: list[str]) -> None:
    """Shows the examples in a command's help as code; they are a line block, `| Examples:` and so on."""
    lines[:] = [line for part in _described(lines) for line in part]


def _described(lines: list[str]) -> Iterator[list[str]]:
    for is_verbatim, group in groupby(lines, key=lambda line: line.startswith("| ")):
        part = list(group)
        if not is_verbatim:
            yield part
            continue
        heading, *examples = (line.removeprefix("| ") for line in part)
        yield [heading, "", ".. code-block:: sh", "", *(f"   {line}" for line in examples), ""]


#: How autodoc writes `NDArray[np.int64]`.
_ARRAY = re.compile(
    r"~?(?:numpy\.)?ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], "
    r"~?(?:numpy\.)?dtype\[~?(?:numpy\.)?(\w+)(?:\[~?(?:typing\.)?Any\])?\]\]"
)


def _shorten_signature(*event: Any) -> tuple[str | None, str | None]:
    """Writes the types of arrays as the code does."""
    signature, returned = (text and _ARRAY.sub(r"NDArray[\1]", text) for text in event[-2:])
    return signature, returned


def _edit_docstring(_: Sphinx, kind: str, __: str, ___: Any, ____: Any, lines: list[str]) -> None:
    """Restores a first line like "The shares: one of each", which napoleon takes for a type and a text."""
    lines[:] = [_ARRAY.sub(r"NDArray[\1]", line) for line in lines]
    if kind in ("property", "attribute", "data") and lines and lines[-1].startswith(":type: "):
        lines[0] = f"{lines.pop().removeprefix(':type: ')}: {lines[0]}"


def _write_index(app: Sphinx, error: Exception | None) -> None:
    """The first page under the name that servers look for."""
    if error is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Connects the functions above."""
    app.connect("source-read", _prepare_page)
    app.connect("sphinx-click-process-description", _prepare_description)
    app.connect("autodoc-process-signature", _shorten_signature)
    app.connect("autodoc-process-docstring", _edit_docstring, priority=900)
    app.connect("build-finished", _write_index)
