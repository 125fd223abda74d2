"""Hand-written lists and texts have a largest size."""

from __future__ import annotations

from pathlib import Path

import pytest

from pile_tools.cli import group, run
from pile_tools.errors import PileError
from pile_tools.read import texts


def test_an_endless_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 4)
    whole, long = tmp_path / "whole", tmp_path / "long"
    whole.write_bytes(b"a\nb\n")
    long.write_bytes(b"a\nb\nc")
    assert texts.read_lines(whole) == [b"a", b"b"]
    for path in (long, Path("/dev/zero")):
        with pytest.raises(PileError, match="more than 4 bytes"):
            texts.read_lines(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["trace-text", "none", "/dev/zero"],
        ["search", "none", "--file", "/dev/zero"],
        ["when", "none", "--file", "/dev/zero"],
    ],
)
def test_no_command_reads_an_endless_file_whole(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 1000)
    assert run(group, arguments) == 1
    assert "more than 1,000 bytes, the maximum (/dev/zero)" in capsys.readouterr().err
