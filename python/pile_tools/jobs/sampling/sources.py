"""The text that every machine already has, by subset, in an order that a seed decides.

Sources are read lazily: a document is opened only when its subset's turn comes. The files of a subset are
listed in sorted order and shuffled with the seed, so the same machine gives the same documents again.
"""

from __future__ import annotations

import gzip
import importlib
import random
import re
import sysconfig
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pile_tools.jobs.sampling import troff

MANUALS, SYSTEM_DOCS = Path("/usr/share/man"), Path("/usr/share/doc")
#: Directories of the standard library that are not part of it, or hold copies.
LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", "lib-dynload", "_bundled"})
TESTS = frozenset({"test", "tests", "idle_test"})
DOC_NAMES = (
    "README",
    "NEWS",
    "changelog",
    "ChangeLog",
    "copyright",
    "TODO",
    "AUTHORS",
    "FAQ",
    "BUGS",
    "THANKS",
)

#: Shorter texts say too little to be documents.
MIN_DOCUMENT_BYTES = 200


@dataclass(frozen=True)
class Source:
    """A subset: its name, how much of the sample it should be next to others, and its documents by seed."""

    name: str
    weight: float
    documents: Callable[[random.Random], Iterable[str]]


def all_sources() -> list[Source]:
    """The subsets of a sample, in a fixed order; one with no text on this machine yields nothing."""
    return [
        Source("Python Source", 3, lambda rng: _texts(_library_files(is_test=False), rng)),
        Source("Python Tests", 1, lambda rng: _texts(_library_files(is_test=True), rng)),
        Source("Python Topics", 1, _topics),
        Source("Manual Pages", 3, lambda rng: _pages(_manual_pages(), rng)),
        Source("System Docs", 2, lambda rng: _texts(_system_docs(), rng)),
    ]


def read_text(path: Path) -> str | None:
    """A file's text, gunzipped where its name ends in `.gz`; None if it cannot be read or is not UTF-8."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None


def cut(text: str, n_bytes: int) -> str:
    """`text`, or as many of its first lines as fit into `n_bytes` of UTF-8."""
    data = text.encode()
    if len(data) <= n_bytes:
        return text
    head = data[:n_bytes]
    return head[: head.rfind(b"\n") + 1].decode("utf-8", "ignore")


def _texts(paths: list[Path], rng: random.Random) -> Iterator[str]:
    """The texts of files in the order of a shuffle, those that cannot be read left out."""
    rng.shuffle(paths)
    return (text for text in map(read_text, paths) if text is not None)


def _pages(paths: list[Path], rng: random.Random) -> Iterator[str]:
    """Manual pages as plain text: the first of every program before the second of any.

    Some programs bring thousands of pages that say much the same; none is to drown the others.
    """
    rng.shuffle(paths)
    n_before: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for place, path in enumerate(paths):
        program = re.split(r"[-_.:]", path.name, maxsplit=1)[0]
        turns.append((n_before[program], place))
        n_before[program] += 1
    texts = (read_text(paths[place]) for _, place in sorted(turns))
    return (troff.plain_text(text) for text in texts if text is not None)


def _library_files(*, is_test: bool) -> list[Path]:
    """Python files of the running Python's own library, without what is installed into it."""
    root = Path(sysconfig.get_path("stdlib"))
    return [
        path
        for path in sorted(root.rglob("*.py"))
        if not LEFT_OUT & set(path.relative_to(root).parts)
        and bool(TESTS & set(path.relative_to(root).parts)) == is_test
    ]


def _topics(rng: random.Random) -> list[str]:
    """The texts of Python's `help()` on the language's topics."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        return []
    texts = [topics[name] for name in sorted(topics)]
    rng.shuffle(texts)
    return texts


def _manual_pages() -> list[Path]:
    """English manual pages; other names of the same page are links and left out."""
    return [path for path in sorted(MANUALS.glob("man*/*")) if path.is_file() and not path.is_symlink()]


def _system_docs() -> list[Path]:
    """Plain texts that packages bring along: README, changelog, copyright and so on."""
    return [
        path
        for path in sorted(SYSTEM_DOCS.glob("*/*"))
        if path.name.startswith(DOC_NAMES)
        and path.suffix in ("", ".gz", ".txt", ".md", ".rst", ".Debian")
        and path.is_file()
        and not path.is_symlink()
    ]
