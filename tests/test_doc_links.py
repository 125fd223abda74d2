"""Links and options in the documentation exist, and the glossary is in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

_CODE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names by which a link can lead to a part of a page, as GitHub makes them from headings."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return names | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme]
    assert missing == []


def test_the_glossary_is_alphabetical() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^- .*?\*\*(.+?)\*\*:", text, re.MULTILINE)
    assert len(terms) > 50
    assert terms == sorted(terms, key=str.casefold)


#: Options of other programs that the pages name: of sbatch, srun, torchrun, GPT-NeoX and the harness.
FOREIGN_OPTIONS = {
    *("--array", "--cpus-per-task", "--ftfy", "--mem", "--nproc_per_node", "--requeue"),
    *("--nodes", "--ntasks-per-node", "--gpus-per-node", "--time", "--open-mode", "--signal"),
    *("--kill-on-bad-exit", "--module", "--no_local_rank", "--num_gpus"),
    *("--include_path", "--model", "--model_args", "--samples", "--tasks"),
}


def test_options_in_the_pages_exist(options: dict[str, set[str]]) -> None:
    known = set().union(*options.values()) | {"--help", "--debug"}
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", page.read_text(encoding="utf-8")))
        assert named - known - FOREIGN_OPTIONS == set(), page.name
