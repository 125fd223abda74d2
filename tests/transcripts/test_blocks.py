"""The comparison of transcripts fails where a page and a command differ."""

from __future__ import annotations

import numpy as np
import pytest

from .blocks import abridged, agrees, blocks, commands, run_python

PRINTED = ["order.json: 4,574 samples", "1 epoch", "seed 1234", "made in 0.3 s: 51.1 MB/s"]


@pytest.mark.parametrize(
    ("documented", "is_equal"),
    [
        (PRINTED, True),
        (["order.json: 4,619 samples", *PRINTED[1:]], False),
        (PRINTED[:-1], False),
        ([*PRINTED, "more"], False),
        (["order.json: 4,574 samples", "...", "made in 12.9 s: 3.0 MB/s"], True),
        (["order.json: 4,574 samples", "...", "made in 12.9 s: 3.0 GB/s"], False),
        (["...", "seed 1234", "..."], True),
        (["...", "seed 1235", "..."], False),
        ([*PRINTED[:1], "...", *PRINTED[1:]], False),
        (["order.json: 4,574 ...", *PRINTED[1:]], True),
        (["order.json: 4,573 ...", *PRINTED[1:]], False),
    ],
)
def test_lines_agree(documented: list[str], is_equal: bool) -> None:
    assert agrees(documented, PRINTED) == is_equal
    assert agrees(abridged(documented, PRINTED), PRINTED)


def test_a_page_is_abridged_where_it_was() -> None:
    old = ["order.json: 1 samples", "...", "seed 99", "..."]
    assert abridged(old, PRINTED) == ["order.json: 4,574 samples", "...", "seed 1234", "..."]
    assert abridged(["...", "7 epoch", "...", "?"], PRINTED) == ["...", *PRINTED[1:2], "...", PRINTED[-1]]
    assert abridged(["x"], ["word " * 100])[0].endswith("word ...")


def test_commands_and_their_output() -> None:
    page = "a\n\n  ```console\n  $ one \\\n    two\n  printed\n\n  $ three\n  ```\n"
    (block,) = blocks(page)
    assert list(commands(block.text)) == [("one \\\n  two", ["printed", ""]), ("three", [])]
    assert block.replaced(page, block.text) == page


@pytest.mark.parametrize(
    ("code", "now"),
    [
        ("1 + 1  # 3: a sum", "1 + 1  # 2: a sum"),
        ("1000 + 1  # 1,002", "1000 + 1  # 1,001"),
        ("[*range(9)]  # [0, 1, ..., 8]", None),
        ("[*range(9)]  # [0, 2, ..., 8]", "[*range(9)]  # [0, 1, 2, 3, 4, 5, 6, 7, 8]"),
        ("np.zeros((2, 3))  # (2, 4) float64: zeros", "np.zeros((2, 3))  # (2, 3) float64: zeros"),
        ("np.zeros((2, 3)).shape == (2, 3)  # True", None),
        ("dict(a=1)\n# {'a': 2}", "dict(a=1)\n# {'a': 1}"),
        ("1 + 1  # a sum", None),
    ],
)
def test_values_in_comments(code: str, now: str | None) -> None:
    assert run_python(code, {"np": np}, "page") == (now or code)
