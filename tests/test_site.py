"""`make docs` builds a site without warnings: every command, option and public name, and only local files."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]

MODULES = ["pile_tools", "pile_tools.order", "pile_tools.timeline", "trainer"]

Inventory = dict[str, set[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"/sphinx-build (.*) -c docs -d \S+ \. site$", recipe, re.MULTILINE)
    assert found
    assert "--fail-on-warning" in found[1]
    command = [
        sys.executable,
        "-m",
        "sphinx",
        *found[1].split(),
        "-c",
        "docs",
        "-d",
        folder / "cache",
        ".",
        folder / "site",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def inventory(site: Path) -> Inventory:
    """The names that the site describes, by kind."""
    with (site / "objects.inv").open("rb") as file:
        data = InventoryFile.load(file, "", lambda base, uri: uri)
    return {kind: set(names) for kind, names in data.items()}


def test_every_command_and_option_is_there(inventory: Inventory, options: dict[str, set[str]]) -> None:
    assert {"pile-tools when", "pile-study report", "pile-train train"} <= options.keys()
    expected = {f"{name.replace(' ', '-')}.{option}" for name in options for option in options[name]}
    assert expected - inventory["std:cmdoption"] == set()


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_there(inventory: Inventory, module: str) -> None:
    documented = set().union(*(names for kind, names in inventory.items() if kind.startswith("py:")))
    names = set(importlib.import_module(module).__all__)
    elsewhere = names & set(importlib.import_module("pile_tools").__all__)
    expected = {f"{'pile_tools' if name in elsewhere else module}.{name}" for name in names}
    assert expected - documented == set()


def test_the_types_of_the_core_are_shown(site: Path) -> None:
    """They come from the stub; the compiled core has none."""
    page = re.sub(r"<[^>]+>", "", (site / "docs/reference/api.html").read_text(encoding="utf-8"))
    assert "pile_tools.TokenDataset(prefix: str | PathLike[str])" in page
    assert re.search(r"count_batch\(queries: [^)]*threads: int \| None = None\) \S+ NDArray\[int64\]", page)
    assert "The concatenated tokens of all documents: " in page


def test_nothing_is_fetched(site: Path) -> None:
    """Links to other sites are links that a reader may follow; styles, scripts, fonts and images are here."""
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//|"""
        r"""url\(["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
    )
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 20
    assert [str(page) for page in pages if fetched.search(page.read_text(encoding="utf-8"))] == []


def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for page in (
        "README",
        "CHANGELOG",
        "benches/RESULTS",
        *(f"docs/{p.stem}" for p in (ROOT / "docs").glob("*.md")),
    ):
        assert f'"{page}"' in index
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()
