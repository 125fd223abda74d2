"""The section of pictures: those of the manifest, escaped; damaged or foreign files are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pile_tools import manifest
from pile_tools.errors import FormatError, PileError
from pile_tools.kinds import MAX_PICTURES
from pile_tools.manifest import MANIFEST_FILE, Request
from studies.report.pictures import open_pictures, read_pictures

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def made(folder: Path, data: bytes = PNG, name: str = "a.png", n: int = 1) -> Path:
    (folder / "a.png").write_bytes(data)
    outputs = [{"path": "a.png", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}]
    request = Request("pictures", {"steps": 1, "views": 1, "weights": "toy"})
    summary = {"pictures": [{"path": name, "prompts": "a <b>", "about": "x"}] * n}
    manifest.write(folder / MANIFEST_FILE, request, outputs, summary)
    return folder


def test_pictures_are_embedded(tmp_path: Path) -> None:
    (found,) = read_pictures(open_pictures(made(tmp_path)))
    assert found.uri.startswith("data:image/png;base64,iVBORw0KGgo")
    assert (found.prompts, found.about) == ("a <b>", "x")
    assert read_pictures(None) == []


def test_files_that_are_not_as_listed_are_refused(tmp_path: Path) -> None:
    found = open_pictures(made(tmp_path))
    (tmp_path / "a.png").write_bytes(PNG + b"more")
    with pytest.raises(FormatError, match="not the PNG file that its manifest lists"):
        read_pictures(found)
    with pytest.raises(FormatError, match="not the PNG file"):
        read_pictures(open_pictures(made(tmp_path, b"<svg>")))
    with pytest.raises(FormatError, match=r"no output 'b\.png'"):
        read_pictures(open_pictures(made(tmp_path, name="b.png")))


def test_a_page_has_some_pictures_only(tmp_path: Path) -> None:
    """A manifest can list one file any number of times, each of which would become a part of the page."""
    assert len(read_pictures(open_pictures(made(tmp_path, n=MAX_PICTURES)))) == MAX_PICTURES
    with pytest.raises(FormatError, match="expected at most 16 pictures"):
        open_pictures(made(tmp_path, n=MAX_PICTURES + 1))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PileError, match="no pictures of vqgan-clip demo"):
        open_pictures(tmp_path)
    path = made(tmp_path) / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "ngrams-x"}))
    with pytest.raises(FormatError, match="kind ngrams-x, expected pictures"):
        open_pictures(tmp_path)
