"""Runs `pile-tools sample` on the texts of a corpus instead of the machine's, for the transcripts."""

from __future__ import annotations

import io
import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import zstandard

from pile_tools import cli
from pile_tools.jobs.sampling import sources, troff

_TEST = re.compile(r"^(?:import|from) (?:pytest|unittest)\b", re.MULTILINE)


def texts(corpus: Path, subset: str) -> list[str]:
    """The English texts of a subset."""
    found = []
    for shard in sorted(corpus.glob("*.jsonl.zst")):
        with shard.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as data:
            records = map(json.loads, io.TextIOWrapper(data, encoding="utf-8"))
            found += [record["text"] for record in records if record["meta"]["pile_set_name"] == subset]
    return [text for text in found if text.isascii()]


def all_sources(corpus: Path) -> list[sources.Source]:
    """Subsets with the names and weights of those of a machine."""
    python = texts(corpus, "PythonSrc")
    by_name: dict[str, tuple[float, Iterable[str]]] = {
        "Python Source": (3, [text for text in python if not _TEST.search(text)]),
        "Python Tests": (1, [text for text in python if _TEST.search(text)]),
        "Manual Pages": (3, map(troff.plain_text, texts(corpus, "Manpages"))),
        "System Docs": (2, texts(corpus, "HTMLDocs")),
    }

    def source(name: str, weight: float, documents: Iterable[str]) -> sources.Source:
        def shuffled(rng: random.Random) -> list[str]:
            found = list(documents)
            rng.shuffle(found)
            return found

        return sources.Source(name, weight, shuffled)

    return [source(name, weight, documents) for name, (weight, documents) in by_name.items()]


if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    sources.all_sources = lambda: all_sources(folder)
    cli.main()
