"""Hand-written lists have a largest size."""

from __future__ import annotations

from pathlib import Path

import pytest

from pile_tools.errors import PileError
from pile_tools.read import texts


def test_an_endless_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_LIST_BYTES", 4)
    whole, long = tmp_path / "whole", tmp_path / "long"
    whole.write_bytes(b"a\nb\n")
    long.write_bytes(b"a\nb\nc")
    assert texts.read_lines(whole) == [b"a", b"b"]
    for path in (long, Path("/dev/zero")):
        with pytest.raises(PileError, match="more than 4 bytes"):
            texts.read_lines(path)
