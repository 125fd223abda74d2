"""Retired words do not return to identifiers: docs/glossary.md has the terms that replaced them."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Words that had several meanings, or none that the field knows.
RETIRED = {
    *("asked", "begun", "cutter", "desk", "piece", "pieces", "place", "places", "room", "rooms"),
    *("seam", "seams", "sign", "signs", "signpost", "told", "wanted"),
}

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|r(#+)".*?"\1|"(?:\\.|[^"\\])*"', re.DOTALL)


def identifiers(path: Path) -> set[str]:
    text = path.read_text()
    if path.suffix == ".rs":
        return set(re.findall(r"[A-Za-z_]\w*", _COMMENT_OR_STRING.sub('""', text)))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def words(identifier: str) -> set[str]:
    """The words of a name in snake_case, CamelCase or CAPITALS, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def sources() -> list[Path]:
    roots = [ROOT / "python", ROOT / "benches", *(ROOT / "rust" / name for name in ("pile-core", "pile-py"))]
    return [path for root in roots for path in root.rglob("*.*") if path.suffix in (".rs", ".py", ".pyi")]


def test_no_identifier_has_a_retired_word() -> None:
    found = {
        str(path.relative_to(ROOT)): sorted(names)
        for path in sources()
        if (names := {name for name in identifiers(path) if words(name) & RETIRED})
    }
    assert len(sources()) > 200
    assert not found, "see docs/glossary.md"


def test_names_are_taken_apart() -> None:
    assert words("_TextPlaceHTML") == {"text", "place", "html"}
    assert words("MAX_PLACES") == {"max", "places"}
    assert words("displaced_assignment") == {"displaced", "assignment"}


def test_type_names_are_unique_in_the_core() -> None:
    """Associated types aside, which are indented."""
    declared: dict[str, list[str]] = {}
    root = ROOT / "rust" / "pile-core" / "src"
    for path in sorted(root.rglob("*.rs")):
        for name in re.findall(
            r"^(?:pub(?:\([a-z]+\))? )?(?:struct|enum|trait|type|union) (\w+)", path.read_text(), re.M
        ):
            declared.setdefault(name, []).append(str(path.relative_to(root)))
    assert len(declared) > 150
    assert not {name: paths for name, paths in declared.items() if len(paths) > 1}
