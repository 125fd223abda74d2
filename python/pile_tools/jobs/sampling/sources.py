"""Reads the text installed on a machine, by subset, in a seeded order.

Documents are read lazily, when the sample takes the next one of their subset. The files of a subset are
sorted, then shuffled with the seed, so that the same machine gives the same documents again.
"""

from __future__ import annotations

import gzip
import importlib
import os
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
#: Directories in the standard library's folder that are not part of the library, or hold copies.
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

#: Minimum bytes of a document.
MIN_DOCUMENT_BYTES = 200


@dataclass(frozen=True)
class Source:
    """A subset of a sample.

    Attributes:
        name: Name of the subset.
        weight: Share of the sample, relative to the other weights.
        documents: Gives the documents, shuffled with a random generator.
    """

    name: str
    weight: float
    documents: Callable[[random.Random], Iterable[str]]


def all_sources() -> list[Source]:
    """The subsets of a sample, in a fixed order; one without text on this machine has no documents."""
    return [
        Source("Python Source", 3, lambda rng: _texts(_library_files(is_test=False), rng)),
        Source("Python Tests", 1, lambda rng: _texts(_library_files(is_test=True), rng)),
        Source("Python Topics", 1, _topics),
        Source("Manual Pages", 3, lambda rng: _pages(_manual_pages(), rng)),
        Source("System Docs", 2, lambda rng: _texts(_system_docs(), rng)),
    ]


def read_text(path: Path) -> str | None:
    """The text of a file, decompressed if it is a `.gz`; None if it cannot be read or is not UTF-8."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None


def truncated(text: str, n_bytes: int) -> str:
    """`text`, or the first of its lines that fit into `n_bytes` of UTF-8."""
    data = text.encode()
    if len(data) <= n_bytes:
        return text
    head = data[:n_bytes]
    return head[: head.rfind(b"\n") + 1].decode("utf-8", "ignore")


def _texts(paths: list[Path], rng: random.Random) -> Iterator[str]:
    """The texts of files in shuffled order, without files that cannot be read."""
    rng.shuffle(paths)
    return (text for text in map(read_text, paths) if text is not None)


def _pages(paths: list[Path], rng: random.Random) -> Iterator[str]:
    """Manual pages as plain text, shuffled: the first page of every program before the second of any.

    Some programs have thousands of similar pages, which must not dominate the subset.
    """
    rng.shuffle(paths)
    n_before: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for index, path in enumerate(paths):
        program = re.split(r"[-_.:]", path.name, maxsplit=1)[0]
        ranked.append((n_before[program], index))
        n_before[program] += 1
    texts = (read_text(paths[index]) for _, index in sorted(ranked))
    return (troff.plain_text(text) for text in texts if text is not None)


def _sorted(paths: Iterable[Path]) -> list[Path]:
    """Paths in their own order; of tens of thousands, tuples are compared several times faster."""
    return sorted(paths, key=lambda path: path.parts)


def _library_files(*, is_test: bool) -> list[Path]:
    """Files of the running Python's standard library, without installed packages."""
    root = sysconfig.get_path("stdlib")
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = set(folders) - LEFT_OUT
        if bool(TESTS & set(Path(folder).relative_to(root).parts)) == is_test:
            paths += [Path(folder, name) for name in names if name.endswith(".py")]
    return _sorted(paths)


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
    """English manual pages, without links, which are other names of the same page."""
    return [path for path in _sorted(MANUALS.glob("man*/*")) if path.is_file() and not path.is_symlink()]


def _system_docs() -> list[Path]:
    """Plain texts of installed packages: README, changelog, copyright and so on."""
    return [
        path
        for path in _sorted(SYSTEM_DOCS.glob("*/*"))
        if path.name.startswith(DOC_NAMES)
        and path.suffix in ("", ".gz", ".txt", ".md", ".rst", ".Debian")
        and path.is_file()
        and not path.is_symlink()
    ]
