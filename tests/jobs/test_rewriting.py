"""Jobs that write shards again keep to their own files."""

from __future__ import annotations

import contextlib
import glob
import json
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.conftest import Bind, Run

from pile_tools import files, scratch_folders
from pile_tools.cli import group, run
from pile_tools.errors import ConfigError, PileError
from pile_tools.jobs import rewriting
from pile_tools.jobs.rewriting import Rewriting
from pile_tools.manifest import Request
from pile_tools.read import shards
from pile_tools.read.shards import RecordConfig
from pile_tools.types import OnProgress, RewriteSummary

TEXTS = ["the same text of more than forty characters, twice in this shard"] * 2 + ["another"]


@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
@pytest.mark.parametrize(
    "name", ["duplicates", "search", "shards", "a.jsonl", "clusters.parquet", "passages.parquet", "files"]
)
@pytest.mark.parametrize("method", ["exact", "near", "passages"])
def test_links_in_the_scratch_folder_are_removed_and_not_followed(
    cli: Run, tmp_path: Path, method: str, name: str, target: str
) -> None:
    (tmp_path / "in").mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    folder, file = tmp_path / "photos", tmp_path / "letter"
    folder.mkdir()
    (folder / "a.jpg").write_text("dear")
    (folder / "state.json").write_text("{}")
    file.write_text("dear")
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "pile-tools.lock").touch()
    (partial / name).symlink_to({"folder": folder, "file": file, "nothing": tmp_path / "none"}[target])
    done = cli("dedup", method, tmp_path / "in", "-o", tmp_path / "out", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "state.json"]
    assert (folder / "a.jpg").read_text() == file.read_text() == "dear"
    assert not (tmp_path / "none").exists()
    assert not partial.exists()
    assert (tmp_path / "out" / "a.jsonl").is_file()
    assert not (tmp_path / "out" / "a.jsonl").is_symlink()


@pytest.mark.parametrize("method", ["exact", "near", "passages"])
def test_published_shards_share_no_file_with_the_scratch_folder(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens to that folder after a kill must not change them."""
    (tmp_path / "in").mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    removed = scratch_folders.clear

    def clear(folder: Path, *args: Any, **options: Any) -> None:
        if (tmp_path / "out" / "manifest.json").exists():
            raise KeyboardInterrupt
        removed(folder, *args, **options)

    command = ["dedup", method, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(scratch_folders, "clear", clear)
        assert run(group, command) != 0
    assert (tmp_path / "out.partial").exists()
    published = list((tmp_path / "out").iterdir())
    assert len(published) == 3
    assert all(path.stat().st_nlink == 1 for path in published)
    assert run(group, command) == 0
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "command",
    [
        "dedup exact {in} -o {in}/out",
        "dedup near {in} -o {in}",
        "dedup passages {in}* -o {in}/deep/er",
        "contamination {items} {in} -o {in}/out --purify documents",
        "count-ngrams {in} -o {in}/n.parquet",
    ],
)
def test_an_output_among_the_shards_is_refused(cli: Run, tmp_path: Path, command: str) -> None:
    """The next run of the same command would read it."""
    (tmp_path / "in").mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    (tmp_path / "items.jsonl").write_text('{"question": "a question of five words?"}\n')
    words = [
        word.replace("{in}", str(tmp_path / "in")).replace("{items}", str(tmp_path / "items.jsonl"))
        for word in command.split()
    ]
    done = cli(*words)
    assert done.returncode == 2, done.stderr
    assert "in a folder of the shards" in done.stderr
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("below", ["", "deep"])
def test_an_output_in_a_folder_that_is_read_is_refused_through_a_mount(
    bind: Bind, tmp_path: Path, below: str
) -> None:
    for name in ("sigs/deep", "mounted"):
        (tmp_path / name).mkdir(parents=True)
    rewriting.refuse_within(tmp_path / "sigs", tmp_path / "mounted" / "new", "signatures")
    bind(tmp_path / "sigs" / below, tmp_path / "mounted")
    for output in ("mounted", "mounted/new"):
        with pytest.raises(ConfigError, match="in the folder of the signatures"):
            rewriting.refuse_within(tmp_path / "sigs", tmp_path / output, "signatures")


@pytest.mark.parametrize("given", ["top", "link", "top/in/deep", "t*", "**", "top/in/deep/*", "top/*/*/*"])
@pytest.mark.parametrize("output", ["n.parquet", "new/n.parquet"])
def test_a_folder_of_the_shards_that_is_mounted_elsewhere_is_still_theirs(
    bind: Bind, tmp_path: Path, given: str, output: str
) -> None:
    deep, mounted = tmp_path / "all" / "top" / "in" / "deep", tmp_path / "mounted"
    deep.mkdir(parents=True)
    mounted.mkdir()
    (tmp_path / "all" / "link").symlink_to("top")
    (deep / "a.jsonl").write_text('{"text": "a"}\n')
    found = shards.find_shards([tmp_path / "all" / given])
    shards.refuse_output_within(found, mounted / output)
    bind(deep, mounted)
    with pytest.raises(ConfigError, match="the next run would read it"):
        shards.refuse_output_within(found, mounted / output)
    with pytest.raises(ConfigError, match="the next run would read it"):
        shards.refuse_output_within(found, deep / output)
    by_another_name = shards.find_shards([deep / "*.jsonl"])
    shards.refuse_output_within(by_another_name, mounted / output)


@pytest.mark.parametrize(
    "command",
    [
        "dedup exact {top}/*/*.jsonl -o {top}/out",
        "dedup near {top}/i* -o {top}/in/deep/er",
        "dedup passages {top}/**/a.jsonl -o {top}/new/out",
        "contamination {items} {top}/* -o {top}/out --purify documents",
        "count-ngrams {in}/* -o {in}/n.parquet",
    ],
)
def test_an_output_that_matches_a_pattern_of_shards_is_refused(
    cli: Run, tmp_path: Path, command: str
) -> None:
    top = tmp_path / "top"
    (top / "in").mkdir(parents=True)
    (top / "in" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "items.jsonl").write_text('{"question": "a question of five words?"}\n')
    given = {"top": top, "in": top / "in", "items": tmp_path / "items.jsonl"}
    done = cli(*(word.format_map(given) for word in command.split()))
    assert done.returncode == 2, done.stderr
    assert "the next run would read it" in done.stderr
    assert [path.name for path in top.rglob("*")] == ["in", "a.jsonl"]


_NAMES = st.sampled_from(["a", "b", ".h", "a.jsonl"])
_PARTS = st.sampled_from(["a", "b", "*", "**", "?", "[ab]", ".*", "*.jsonl", "a.jsonl"])


@given(
    pattern=st.lists(_PARTS, min_size=1, max_size=4),
    output=st.lists(_NAMES, min_size=1, max_size=3),
)
@example(pattern=["a", "a.jsonl", "*"], output=["a"])
@example(pattern=["a", "a.jsonl", "**", "*"], output=["a"])
def test_shards_below_an_output_that_is_accepted_match_no_pattern(
    pattern: list[str], output: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as top:
        inputs = [Path(top, "other.txt"), Path(top, *pattern)]
        inputs[0].write_text("text")
        if not glob.has_magic(str(inputs[1])):
            return
        folder = Path(top, *output)
        finder = shards._Finder()
        # A pattern without matches is an error of its own.
        with contextlib.suppress(PileError):
            finder.find(inputs)
        try:
            shards.refuse_output_within(shards.Shards(patterns=finder.patterns), folder)
        except ConfigError:
            return
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text('{"text": "a"}\n')
        finder = shards._Finder()
        with contextlib.suppress(PileError):
            finder.find(inputs)
        assert not any(path.is_relative_to(folder) for path in finder.found)


def test_a_pattern_that_leaves_what_a_wildcard_matched_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigError, match="after a wildcard"):
        shards.find_shards([tmp_path / "i*" / ".." / "*"])


@pytest.mark.parametrize("pattern", ["*/*.jsonl", "*", "**/*.jsonl"])
def test_a_pattern_matches_nothing_in_the_scratch_folders_of_jobs(tmp_path: Path, pattern: str) -> None:
    for folder in ("in", "out.partial", "in/x.partial"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text('{"text": "a"}\n')
    found = shards.find_shards([tmp_path / pattern])
    assert found == [tmp_path / "in" / "a.jsonl"]
    assert ("out.partial", "a folder in which a job works") in [
        (path.name, reason) for path, reason in found.passed_over
    ]


@pytest.mark.parametrize("command", ["dedup exact", "count-ngrams --by-subset"])
def test_a_shard_of_too_many_subsets_is_named(cli: Run, tmp_path: Path, command: str) -> None:
    with (tmp_path / "s.jsonl").open("w") as file:
        for number in range((1 << 16) + 1):
            file.write(f'{{"text": "a b", "meta": {{"pile_set_name": "{number}"}}}}\n')
    words = command.split()
    done = cli(*words, tmp_path / "s.jsonl", "-o", tmp_path / "out.tsv", "--quiet")
    assert done.returncode == 1
    assert "one more subset than the 65,5" in done.stderr
    assert "s.jsonl" in done.stderr


class _Unpickled:
    """Workers that write each part alone, as another process would."""

    def rewrite(self, parts: Sequence[Rewriting], on_progress: OnProgress) -> list[RewriteSummary]:
        made = []
        for part in pickle.loads(pickle.dumps(list(parts))):
            part.folder.mkdir(exist_ok=True)
            made.append(part.run(1, on_progress))
        return made


@pytest.mark.parametrize("change", ["removed", "cuts", "marks"])
def test_shards_that_are_written_one_by_one_have_the_same_bytes(tmp_path: Path, change: str) -> None:
    shards = []
    for number in range(3):
        shards.append(tmp_path / f"{number}.jsonl")
        shards[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    # None of the second shard.
    at = (np.array([0, 0, 2], dtype=np.uint32), np.array([0, 2, 1], dtype=np.uint64))
    numbers = np.array([1, 2, 3], dtype=np.uint64)
    changes: dict[str, dict[str, Any]] = {
        "removed": {"removed": at},
        "cuts": {"cuts": (*at, numbers, numbers + 2)},
        "marks": {"marks": (*at, "dedup", [("cluster", numbers), ("size", numbers)])},
    }
    request = Request("deduplicated", {}, [])
    written = []
    for workers in (None, _Unpickled()):
        folder = tmp_path / f"by-{workers is not None}"
        folder.mkdir()
        sha256 = rewriting.write_shards(
            shards,
            folder,
            request,
            [files.sha256(shard) for shard in shards],
            RecordConfig(),
            threads=1,
            force=False,
            on_progress=None,
            workers=workers,
            **changes[change],
        )
        assert list(sha256) == [shard.name for shard in shards]
        written.append([(folder / shard.name).read_bytes() for shard in shards])
    assert written[0] == written[1]
    assert written[0][1] == shards[1].read_bytes()
    assert written[0][2] != shards[2].read_bytes()
