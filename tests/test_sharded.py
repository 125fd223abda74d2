"""A dataset in shards is the dataset: every command says and writes the same; all refuse damaged shards."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import outputs

from pile_tools import (
    ConfigError,
    FormatError,
    PileError,
    TokenDataset,
    VerifyError,
    open_order,
    scratch_folders,
)
from pile_tools.cli import group, run
from pile_tools.jobs import token_shards
from pile_tools.jobs.index import IndexConfig
from pile_tools.jobs.index import run as build_index
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.verify import run as verify
from pile_tools.jobs.verify import run_hashes

#: Bytes of a shard: small and within tokens, and large and between them.
SHARD_BYTES = [997, 30_002]

#: What each command is asked, one after the other, in a folder with the dataset `t`.
COMMANDS = [
    ["show", "t", "0"],
    ["show", "t", "-1", "--tokens"],
    ["show", "t", "633", "--json"],
    ["label", "u", "shards", "--tokenizer", "tokenizer.json", "--threads", "2"],
    ["show", "u", "7"],
    ["count-ngrams", "t", "-o", "ngrams.tsv", "--n", "1-3", "--threads", "2"],
    ["count-terms", "terms.txt", "t", "-o", "terms.tsv", "--by-subset", "--threads", "2"],
    ["merge", "t", "u", "-o", "both"],
    ["order", "t", "--seq-length", "32", "--steps", "20", "--batch-size", "8", "--seed", "3", "-o", "order"],
    ["batch", "order", "--step", "3"],
    ["batch", "order", "--step", "3", "--row", "1", "--json"],
    ["when", "order", "alpha beta", "--json", "--threads", "2"],
    ["trace", "order", "17", "--json"],
    ["repeats", "order", "--threads", "2"],
    ["mixture", "order", "--threads", "2"],
    ["count-terms", "terms.txt", "order", "-o", "seen.tsv", "--threads", "2"],
    ["index", "t", "--memory", "32KiB"],
    ["when", "order", "alpha beta", "--json", "--threads", "2"],
    ["search", "t", "alpha beta"],
    ["search", "t", "naïve", "--count"],
    ["trace-text", "t", "text.txt"],
    ["verify", "order"],
    ["verify", "u"],
]


@pytest.fixture
def say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path, list[str]], tuple[int, str]]:
    """Runs a command in a folder; its exit code and what it prints, times left out."""

    def run_there(folder: Path, arguments: list[str]) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        code = run(group, arguments)
        printed = capsys.readouterr()
        return code, re.sub(r"[\d.,]+ (s|MB/s|M tokens/s)\b", "TIME", printed.out + printed.err)

    return run_there


@pytest.fixture
def whole(tmp_path: Path, dataset: Path, shards: Path, tokenizer: Path) -> Path:
    folder = tmp_path / "whole"
    folder.mkdir()
    shutil.copytree(shards, folder / "shards")
    shutil.copy(tokenizer, folder / "tokenizer.json")
    (folder / "terms.txt").write_text("alpha\nnaïve\ndelta\n")
    (folder / "text.txt").write_text("alpha beta gamma delta don't x_1 alpha naïve")
    code = run(
        group,
        [
            "tokenize",
            str(folder / "shards"),
            "-o",
            str(folder / "t"),
            "--tokenizer",
            str(folder / "tokenizer.json"),
        ],
    )
    assert code == 0
    for suffix in (".bin", ".idx"):
        shutil.copy(folder / f"t{suffix}", folder / f"u{suffix}")
    return folder


def _cut(whole: Path, folder: Path, shard_bytes: int) -> Path:
    shutil.copytree(whole, folder)
    for name in ("t", "u"):
        token_shards.shard(folder / f"{name}.bin", folder, shard_bytes=shard_bytes)
        (folder / f"{name}.bin").unlink()
        # `verify` would say more of shards with a manifest.
        (folder / f"{name}.shards.manifest.json").unlink()
    return folder


@pytest.mark.parametrize("shard_bytes", SHARD_BYTES)
def test_every_command_says_the_same_of_shards(
    whole: Path, tmp_path: Path, shard_bytes: int, say: Callable[[Path, list[str]], tuple[int, str]]
) -> None:
    cut = _cut(whole, tmp_path / "cut", shard_bytes)
    for arguments in COMMANDS:
        expected = say(whole, arguments)
        assert say(cut, arguments) == expected, arguments
        assert expected[0] == 0, expected
    made = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    for path in sorted(made - {Path("t.bin"), Path("u.bin")}):
        assert (cut / path).read_bytes() == (whole / path).read_bytes(), path
    # The manifest's checksum is that of the whole file.
    assert say(cut, ["verify", "t"])[0] == 0


@pytest.mark.parametrize("shard_bytes", [2, 7, 997, 4096, 10**6])
def test_documents_of_shards_are_views_or_copies(dataset: Path, tmp_path: Path, shard_bytes: int) -> None:
    whole = TokenDataset(dataset)
    shutil.copy(f"{dataset}.idx", tmp_path)
    small = tmp_path / dataset.name
    if shard_bytes < 100:
        # As many files as tokens take long: a dataset of a few documents.
        small = tmp_path / "few"
        whole = _written(small, [whole[i].tolist() for i in range(8)] + [[]])
    else:
        shutil.copy(f"{dataset}.bin", tmp_path)
    token_shards.shard(small.with_suffix(".bin"), tmp_path, shard_bytes=shard_bytes)
    small.with_suffix(".bin").unlink()
    cut = TokenDataset(small)
    assert (len(cut), cut.n_tokens, cut.dtype) == (len(whole), whole.n_tokens, whole.dtype)
    assert cut.fingerprint == whole.fingerprint
    for before, now in zip(whole, pickle.loads(pickle.dumps(cut)), strict=True):
        assert np.array_equal(now, before)
        assert now.dtype == before.dtype
        assert not now.flags.writeable or len(now) == 0
    assert np.array_equal(cut.tokens, whole.tokens)
    assert [tokens.tolist() for tokens in cut[2:5]] == [tokens.tolist() for tokens in whole[2:5]]


def _written(prefix: Path, documents: list[list[int]], dtype: str = "<u2") -> TokenDataset:
    """A dataset of some documents, as GPT-NeoX writes it."""
    arrays = [np.array(document, dtype) for document in documents]
    prefix.with_suffix(".bin").write_bytes(b"".join(array.tobytes() for array in arrays))
    lengths = np.array([len(array) for array in arrays], "<i4")
    ends = np.cumsum(lengths, dtype="<i8") * np.dtype(dtype).itemsize
    pointers = np.concatenate([[0], ends[:-1]]).astype("<i8") if len(ends) else ends
    code, n = {"<u2": 8, "<i4": 4}[dtype], len(arrays)
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, n, n + 1)
    arrays_of_index = lengths.tobytes() + pointers.tobytes() + np.arange(n + 1, dtype="<i8").tobytes()
    prefix.with_suffix(".idx").write_bytes(header + arrays_of_index)
    return TokenDataset(prefix)


def _shard(i: int, last: int = 3, name: str = "w") -> str:
    return f"{name}-{i:05}-of-{last:05}.bin"


def _resize(path: Path, n_bytes: int) -> None:
    path.write_bytes(bytes(n_bytes))


#: What may happen to four shards of 40, 40, 40 and 20 bytes.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "first missing": lambda folder: (folder / _shard(0)).unlink(),
    "middle missing": lambda folder: (folder / _shard(2)).unlink(),
    "last missing": lambda folder: (folder / _shard(3)).unlink(),
    "middle short": lambda folder: _resize(folder / _shard(1), 20),
    "middle long": lambda folder: _resize(folder / _shard(1), 44),
    "middle empty": lambda folder: _resize(folder / _shard(1), 0),
    "middle odd": lambda folder: _resize(folder / _shard(1), 39),
    "first short": lambda folder: _resize(folder / _shard(0), 20),
    "first long": lambda folder: _resize(folder / _shard(0), 60),
    "first empty": lambda folder: _resize(folder / _shard(0), 0),
    "last long": lambda folder: _resize(folder / _shard(3), 60),
    "last empty": lambda folder: _resize(folder / _shard(3), 0),
    "last odd": lambda folder: _resize(folder / _shard(3), 19),
    "one too many": lambda folder: _resize(folder / _shard(4), 20),
    "of another number": lambda folder: (folder / _shard(3)).rename(folder / _shard(3, 4)),
    "twice": lambda folder: _resize(folder / "w-000001-of-00003.bin", 40),
    "a folder": lambda folder: ((folder / _shard(1)).unlink(), (folder / _shard(1)).mkdir()),
    "a pipe": lambda folder: ((folder / _shard(1)).unlink(), os.mkfifo(folder / _shard(1))),
    "a broken link": lambda folder: (
        (folder / _shard(1)).unlink(),
        (folder / _shard(1)).symlink_to("nowhere"),
    ),
    "a link to a device": lambda folder: (
        (folder / _shard(1)).unlink(),
        (folder / _shard(1)).symlink_to("/dev/zero"),
    ),
}

#: Only the index tells.
DAMAGE_BY_INDEX: dict[str, Callable[[Path], object]] = {
    "last short": lambda folder: _resize(folder / _shard(3), 18),
    "last full": lambda folder: _resize(folder / _shard(3), 40),
    "all others": lambda folder: [_resize(folder / _shard(i), 36) for i in range(4)],
    "index cut": lambda folder: (folder / "w.idx").write_bytes((folder / "w.idx").read_bytes()[:-1]),
    "index empty": lambda folder: (folder / "w.idx").write_bytes(b""),
    "index a folder": lambda folder: ((folder / "w.idx").unlink(), (folder / "w.idx").mkdir()),
    "index a pipe": lambda folder: ((folder / "w.idx").unlink(), os.mkfifo(folder / "w.idx")),
}

#: All that reads tokens in shards; those that need no index first.
READERS: dict[str, Callable[[Path], object]] = {
    "unshard": lambda folder: token_shards.unshard(folder, folder / "out" / "w.bin"),
    "unshard by a shard": lambda folder: token_shards.unshard(folder / _shard(1), folder / "out" / "w.bin"),
    "shard": lambda folder: token_shards.shard(folder, folder / "out", shard_bytes=50),
    "rows": lambda folder: open_order(folder, row_length=10, batch_size=1),
    "rows by a shard": lambda folder: open_order(folder / _shard(2), row_length=10, batch_size=1),
    "dataset": lambda folder: TokenDataset(folder / "w"),
    "order": lambda folder: build_order(folder / "w", folder / "out", OrderConfig(seq_length=4, samples=5)),
    "index": lambda folder: build_index(folder / "w", IndexConfig(texts=False)),
    "verify": lambda folder: verify(folder / "w"),
}


@pytest.fixture
def four(tmp_path: Path) -> Path:
    folder = tmp_path / "four"
    folder.mkdir()
    _written(folder / "w", [list(range(i)) for i in (13, 30, 0, 27)])
    token_shards.shard(folder / "w.bin", folder, shard_bytes=40)
    (folder / "w.bin").unlink()
    return folder


def test_whole_shards_are_read_by_all(four: Path) -> None:
    for read in READERS.values():
        read(four)
        shutil.rmtree(four / "out", ignore_errors=True)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_shards_are_refused_by_all(four: Path, damage: str, has_index: bool) -> None:
    if not has_index:
        (four / "w.idx").unlink()
    DAMAGE[damage](four)
    for name, read in READERS.items():
        with pytest.raises((PileError, OSError)):
            read(four)
        assert not (four / "out").exists(), name
        if name.startswith("rows by") and not has_index:
            break


@pytest.mark.parametrize("damage", DAMAGE_BY_INDEX)
def test_shards_that_are_not_of_the_index_beside_them_are_refused_by_all(four: Path, damage: str) -> None:
    DAMAGE_BY_INDEX[damage](four)
    for name, read in READERS.items():
        with pytest.raises((PileError, OSError)):
            read(four)
        assert not (four / "out").exists(), name


@pytest.mark.parametrize("is_renamed", [False, True])
@pytest.mark.parametrize("stem", ["w", "w.provenance", "w.shards", "w.bin"])
def test_readers_are_told_that_a_dataset_is_being_replaced(four: Path, stem: str, is_renamed: bool) -> None:
    """By its dataset, its labels, its shards or its joined file; before files are renamed, and between."""
    (four / "w.shards.manifest.json").unlink()
    scratch = four / f"{stem}.partial"
    scratch.mkdir()
    (scratch / f"{stem}.manifest.json").write_text("{}")
    if is_renamed:
        for path in four.glob("*.bin"):
            path.unlink()
    with (scratch / scratch_folders.MARKER).open("w") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        for name, read in READERS.items():
            with pytest.raises(PileError, match="is being replaced; try again"):
                read(four)
            assert not (four / "out").exists(), name
    if stem != "w" and not is_renamed:
        # Killed: they are absent, and the dataset is whole.
        assert len(TokenDataset(four / "w")) == 4


def test_shards_replaced_while_they_are_joined_are_not_joined(four: Path) -> None:
    def replace(n_bytes: int) -> None:
        (four / "new").write_text("another")
        (four / "new").rename(four / "w.manifest.json")

    with pytest.raises(PileError, match="was replaced while it was opened"):
        token_shards.unshard(four, four / "out" / "w.bin", on_bytes=replace)
    assert not (four / "out" / "w.bin").exists()


def test_a_shard_that_grows_while_it_is_joined_is_told(four: Path) -> None:
    def grow(n_bytes: int) -> None:
        with sorted(four.glob("w-*.bin"))[-1].open("ab") as file:
            file.write(bytes(4))

    with pytest.raises(FormatError, match=r"has [0-9,]+ bytes, had [0-9,]+ before \(.*w-0"):
        token_shards.unshard(four, four / "out" / "w.bin", on_bytes=grow)
    assert not (four / "out" / "w.bin").exists()


def test_shards_of_two_files_need_a_name(four: Path) -> None:
    _resize(four / _shard(0, 0, "v"), 40)
    for name in ("unshard", "shard", "rows"):
        with pytest.raises(FormatError, match="two files"):
            READERS[name](four)
    READERS["unshard by a shard"](four)
    READERS["rows by a shard"](four)


def test_names_of_shards_may_be_any_bytes(tmp_path: Path) -> None:
    """Two of them may be printed as the same text."""
    names = [os.fsdecode(name) for name in (b"\xfe", b"\xff", b"a\xff")]
    for i, name in enumerate(names):
        _written(tmp_path / name, [[i] * n for n in (1000, 1049, 2049)])
        token_shards.shard(tmp_path / f"{name}.bin", tmp_path, shard_bytes=4000)
        (tmp_path / f"{name}.bin").unlink()
    for i, name in enumerate(names):
        assert TokenDataset(tmp_path / name)[2].tolist() == [i] * 2049
        with pytest.raises(FormatError, match="are documents, not rows"):
            open_order(tmp_path / _shard(0, 2, name))
    with pytest.raises(FormatError, match="shards of two files"):
        open_order(tmp_path)


def test_links_to_shards_are_read(four: Path) -> None:
    for i in range(4):
        (four / _shard(i)).rename(four / f"blob{i}")
        (four / _shard(i)).symlink_to(f"blob{i}")
    test_whole_shards_are_read_by_all(four)


def test_shards_are_cut_anew(four: Path, tmp_path: Path) -> None:
    data = b"".join((four / _shard(i)).read_bytes() for i in range(4))
    for shard_bytes in (1, 9, 40, 41, 139, 140, 1000):
        folder = tmp_path / str(shard_bytes)
        made = outputs(token_shards.shard(four, folder, shard_bytes=shard_bytes)[0])
        assert [path.stat().st_size for path in made[:-1]] == [shard_bytes] * (len(made) - 1)
        assert b"".join(path.read_bytes() for path in made) == data


@pytest.mark.parametrize("in_shards", [True, False])
@pytest.mark.parametrize(
    ("lengths", "are_rows"), [([2049] * 6, True), ([2048, 2050] * 3, False), ([4098] * 3, False)]
)
def test_an_index_beside_tokens_means_documents_unless_each_is_a_row(
    tmp_path: Path, lengths: list[int], are_rows: bool, in_shards: bool
) -> None:
    _written(tmp_path / "w", [[i] * n for i, n in enumerate(lengths)], "<i4")
    path = tmp_path / "w.bin"
    if in_shards:
        token_shards.shard(path, tmp_path, shard_bytes=9999)
        path.unlink()
        path = tmp_path / _shard(1, 4)
    for named in (path, tmp_path):
        if are_rows:
            order = open_order(named, batch_size=2)
            assert len(order) == 6
            assert order.batch(1).dtype == np.int32
            assert order.batch(1)[:, 0].tolist() == [2, 3]
        else:
            with pytest.raises(FormatError, match="are documents, not rows"):
                open_order(named)
        order = open_order(named, row_length=683, batch_size=3)
        assert (len(order), order.batch(0).dtype) == (18, np.int32)
        assert len(open_order(named, row_length=683, dtype="uint16")) == 36


@pytest.mark.parametrize(
    "command",
    [
        ["batch", "rows", "--step", "1"],
        ["when", "rows", "alpha", "--tokenizer", "tokenizer.json"],
        ["repeats", "rows"],
        ["mixture", "rows"],
        ["count-terms", "terms.txt", "rows", "--tokenizer", "tokenizer.json"],
        ["export", "rows", "--steps", "0:1", "-o", "out.parquet", "--tokenizer", "tokenizer.json"],
    ],
)
def test_rows_have_any_length_in_every_command(
    whole: Path, command: list[str], say: Callable[[Path, list[str]], tuple[int, str]]
) -> None:
    n = TokenDataset(whole / "t").n_tokens // 50 * 50
    (whole / "rows.bin").write_bytes((whole / "t.bin").read_bytes()[: 2 * n])
    token_shards.shard(whole / "rows.bin", whole / "rows", shard_bytes=10_001)
    batches = ["--batch-size", "10"]
    # Without a length, `count-terms` cannot know that these are rows.
    assert say(whole, [*command, *batches])[0] == (2 if command[0] == "count-terms" else 1)
    for length in (25, 50):
        code, said = say(
            whole,
            [
                *command,
                *batches,
                "--row-length",
                str(length),
                *(["--force"] if command[0] == "export" else []),
            ],
        )
        assert code == 0, said
        if command[0] == "when":
            assert f"rows of {length} tokens" in said


def test_shards_are_not_written_over_themselves(four: Path) -> None:
    before = {path.name: path.read_bytes() for path in four.iterdir()}
    with pytest.raises(ConfigError, match="the output is one of the inputs"):
        token_shards.shard(four, four, shard_bytes=39, force=True)
    with pytest.raises(ConfigError, match="the output is one of the inputs"):
        token_shards.unshard(four, four / _shard(2), force=True)
    for name in ("w-00001-of-00009.bin", "w-00007-of-00003.bin", "x-00000-of-00000.bin"):
        with pytest.raises(ConfigError, match="has the name of a shard in the folder of the input"):
            token_shards.unshard(four, four / name, force=True)
        assert not (four / name).exists()
    _resize(four / "large.bin", 100_002)
    with pytest.raises(ConfigError, match="at most 100,000"):
        token_shards.shard(four / "large.bin", four / "out", shard_bytes=1)
    (four / "large.bin").unlink()
    assert {path.name: path.read_bytes() for path in four.iterdir()} == before


def test_files_of_one_name_in_several_folders_are_all_checked(tmp_path: Path) -> None:
    files = {"x/a.bin": b"1", "y/a.bin": b"2", "y/b.bin": b"3"}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    lines = [f"{hashlib.sha256(data).hexdigest()}  /elsewhere/{name}\n" for name, data in files.items()]
    sums = tmp_path / "sums"
    sums.write_text("".join(lines).replace("/elsewhere/", ""))
    assert len(run_hashes(tmp_path, sums)) == 3
    for name in files:
        other = tmp_path / name
        kept = other.read_bytes()
        other.write_bytes(b"x")
        with pytest.raises(VerifyError, match=f"1 of 3 checks failed: {other}"):
            run_hashes(tmp_path, sums)
        other.write_bytes(kept)
    # A list that was written elsewhere still fits, if the names alone tell the files apart.
    sums.write_text("".join(lines[1:]))
    assert len(run_hashes(tmp_path / "y", sums)) == 2
    sums.write_text(lines[0] + lines[0].replace("0", "1"))
    with pytest.raises(FormatError, match="line 2 gives another SHA-256"):
        token_shards.read_hashes(sums)


def test_a_name_with_a_nul_byte_is_refused(tmp_path: Path) -> None:
    sums = tmp_path / "sums"
    for line in ("0a" * 32 + "  a\0b", "a\0b " + "0a" * 32):
        sums.write_text(line)
        with pytest.raises(FormatError, match="line 1 is not a name"):
            token_shards.read_hashes(sums)


def test_a_long_line_of_a_list_takes_linear_time(tmp_path: Path) -> None:
    sums = tmp_path / "sums"
    for line in ("a" + " " * 10**6 + "b", "*" + "x " * 10**6 + "0a" * 31, "0a" * 32 + " " * 10**6 + "\t"):
        sums.write_text(line)
        started = time.monotonic()
        with pytest.raises(FormatError, match="line 1 is not a name"):
            token_shards.read_hashes(sums)
        assert time.monotonic() - started < 5


def test_hashes_are_read_as_they_are_written(tmp_path: Path) -> None:
    digest, path = "0a" * 32, tmp_path / "sums"
    names = ["a.bin", "a b.bin", "a\x0bb\x85\u2028.bin", "a\udcff.bin"]
    for form in ("{digest}  {name}\n", "{digest} *{name}\n", "./x/{name} {digest}\r\n", "{name}\t{digest}\n"):
        text = "\n".join(form.format(digest=digest, name=name) for name in names)
        path.write_bytes(b"\xef\xbb\xbf" + text.encode(errors="surrogateescape"))
        folder = "x/" if "/x/" in form else ""
        assert token_shards.read_hashes(path) == {folder + name: digest for name in names}, form


def test_names_that_sha256sum_escapes_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a\nb.bin", "a\\nb\\.bin", "plain) = .bin"):
        (tmp_path / "x" / name).write_text(name)
    for option in ("--binary", "--text", "--tag"):
        done = subprocess.run(
            ["sha256sum", option, *[path.name for path in (tmp_path / "x").iterdir()]],
            cwd=tmp_path / "x",
            check=True,
            stdout=subprocess.PIPE,
        )
        (tmp_path / "sums").write_bytes(done.stdout)
        assert [check.state for check in run_hashes(tmp_path / "x", tmp_path / "sums")] == ["ok"] * 3


@pytest.mark.parametrize("row_length", [0, -1, 2**31, 10**30])
def test_a_row_length_out_of_range_is_a_usage_error(four: Path, row_length: int) -> None:
    with pytest.raises(ConfigError, match="row-length"):
        open_order(four, row_length=row_length)
