"""Which files are shards, what is told of the others, and what of foreign or hostile ones is read."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from pile_tools import ConfigError, FormatError, PileError, TokenDataset, Tokenizer, cli, manifest
from pile_tools.jobs import merge, tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import RecordConfig, Shards, find_shards

#: Runs our command line in a process of its own.
PROGRAM = [sys.executable, "-c", "from pile_tools.cli import main; main()"]

Capture = pytest.CaptureFixture[str]

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
}
LINE = b'{"text": "a document"}\n'


def command(capsys: Capture, *arguments: Any) -> tuple[int, str, str]:
    """Runs a command line in this process: its exit code and what it printed."""
    capsys.readouterr()
    code = cli.run(cli.group, [str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def texts(place: Path, prefix: Path, tokenizer: Path, **records: Any) -> list[str]:
    """The texts of a dataset made of a place, special tokens left out."""
    config = TokenizeConfig(tokenizer=tokenizer, append_eod=False, records=RecordConfig(**records))
    tokenize.run(find_shards([place]), prefix, config, threads=2, force=True)
    dataset, decoder = TokenDataset(prefix), Tokenizer.from_file(tokenizer)
    return [decoder.decode(dataset[i].astype("u4")) for i in range(len(dataset))]


def test_every_name_is_read_in_any_case(tmp_path: Path, tokenizer: Path) -> None:
    for i, kind in enumerate((".jsonl", ".ndjson", ".json", ".txt")):
        for packing, pack in PACK.items():
            for name in (kind + packing, (kind + packing).upper(), kind.title() + packing):
                data = b"a document" if kind == ".txt" else LINE
                (tmp_path / "in" / str(i)).mkdir(parents=True, exist_ok=True)
                (tmp_path / "in" / str(i) / f"a{name}").write_bytes(pack(data))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a document"]}), tmp_path / "in" / "A.PARQUET")
    found = find_shards([tmp_path / "in"])
    assert (len(found), found.passed_over) == (4 * 4 * 3 + 1, [])
    assert texts(tmp_path / "in", tmp_path / "d", tokenizer) == ["a document"] * len(found)


@pytest.fixture
def mess(tmp_path: Path, tokenizer: Path) -> Path:
    """A folder with two shards among all that may lie there; the real folder of a link is beside it."""
    folder = tmp_path / "in"
    for below in ("deep/er", "x.partial", "dir.jsonl"):
        (folder / below).mkdir(parents=True)
    (folder / "deep/er/a.jsonl").write_bytes(LINE)
    (folder / "x.partial/b.jsonl").write_bytes(LINE)
    (folder / "README.md").write_text("read me")
    (folder / "dir.jsonl/_SUCCESS").write_text("")
    (folder / "a.tar.gz").write_bytes(b"")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "deep/back").symlink_to(folder)
    (tmp_path / "real").mkdir()
    (tmp_path / "real/h.ndjson.gz").write_bytes(gzip.compress(LINE))
    (folder / "h").symlink_to(tmp_path / "real")
    (folder / "h2").symlink_to(tmp_path / "real")
    shutil.copy(tokenizer, folder / "other.json")
    made = manifest.Request("run", {"seed": 1}, [])
    manifest.write(folder / "made.json", made, [], {})
    canaries = {"about": "", "repeats": [0], "passages": [{"text": "a", "repeats": 1}]}
    (folder / "c.json").write_text(json.dumps(canaries, indent=1))
    return folder


PASSED = {
    "README.md": "its name is not that of a shard",
    "a.tar.gz": "its name is not that of a shard",
    "c.json": "a list of canaries, not a shard",
    "deep/back": "a folder that is read under another name",
    "dir.jsonl/_SUCCESS": "its name is not that of a shard",
    "h2": "a folder that is read under another name",
    "made.json": "a manifest, not a shard",
    "other.json": "a tokenizer, not a shard",
    "pipe.jsonl": "no regular file; a pipe is read where it is named itself",
    "x.partial": "a folder in which a job works",
}


def test_what_is_passed_over_is_told(mess: Path) -> None:
    for places in ([mess], [f"{mess}/*"], [mess, mess / "deep"], [f"{mess}/**"]):
        found = find_shards(places)
        assert [path.relative_to(mess).as_posix() for path in found] == ["deep/er/a.jsonl", "h/h.ndjson.gz"]
        passed = {path.relative_to(mess).as_posix(): reason for path, reason in found.passed_over}
        # A pattern for what is in a folder does not name the folder: a link back to it is followed once.
        told = PASSED if places[0] == mess else PASSED.items() - {("deep/back", PASSED["deep/back"])}
        assert passed.items() >= dict(told).items(), places
        if places == [mess]:
            assert passed == PASSED


def test_a_named_file_is_not_listed_as_passed_over(mess: Path) -> None:
    for inputs in ([mess, mess / "README.md"], [mess / "README.md", mess]):
        found = find_shards(inputs)
        assert mess / "README.md" in found
        assert {path for path, _ in found.passed_over} == {mess / name for name in PASSED} - {
            mess / "README.md"
        }


def test_names_that_a_shell_made_of_a_pattern(mess: Path) -> None:
    named = [mess / name for name in ("made.json", "c.json", "deep", "h")]
    found = find_shards(named)
    assert [path.relative_to(mess).as_posix() for path in found] == ["deep/er/a.jsonl", "h/h.ndjson.gz"]
    with pytest.raises(PileError, match=r"dir\.jsonl holds no shards"):
        find_shards([*named, mess / "dir.jsonl"])


def test_every_command_tells_and_its_manifest_lists(
    mess: Path, tmp_path: Path, tokenizer: Path, capsys: Capture
) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("document\n")
    out = tmp_path / "out"
    commands = {
        "d.manifest.json": ["tokenize", mess, "-o", out / "d", "--tokenizer", tokenizer],
        "t.manifest.json": ["train-tokenizer", mess, "-o", out / "t.json", "--vocab-size", "300"],
        "n.tsv.manifest.json": ["count-ngrams", mess, "-o", out / "n.tsv"],
        "c.tsv.manifest.json": ["count-terms", terms, mess, "-o", out / "c.tsv"],
        "d.provenance.manifest.json": ["label", out / "d", mess, "--tokenizer", tokenizer, "--force"],
    }
    for name, arguments in commands.items():
        code, told, error = command(capsys, *arguments)
        assert code == 0, error
        assert f"10 ignored beside the shards:\n  {mess}/README.md: its name" in told, name
        assert "  and 5 more\n" in told
        passed = manifest.read(out / name).summary["passed_over"]
        assert passed["n"] == len(passed["first"]) == 10
        assert {one["path"].removeprefix("../in/"): one["reason"] for one in passed["first"]} == PASSED


def test_what_is_passed_over_is_named_from_here_without_an_output(
    mess: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("terms").write_text("document\n")
    for words in (["count-ngrams"], ["count-terms", "terms"]):
        code, told, error = command(capsys, *words, mess, "--json")
        assert code == 0, error
        passed = json.loads(told)["summary"]["passed_over"]["first"]
        assert {one["path"] for one in passed} == {f"{mess.name}/{name}" for name in PASSED}


@pytest.mark.parametrize("given", ["", "/a.jsonl", "/*.jsonl"])
def test_shards_that_are_being_replaced_are_no_corpus(tmp_path: Path, given: str) -> None:
    """Of an artifact whose publication was killed some shards are in its scratch folder still."""
    for folder in ("sm", "sm.partial"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{'a' if folder == 'sm' else 'b'}.jsonl").write_bytes(LINE)
    assert len(find_shards([f"{tmp_path}/sm{given}"])) == 1
    (tmp_path / "sm.partial/pile-tools.lock").touch()
    (tmp_path / "sm.partial/manifest.json").touch()
    with pytest.raises(PileError, match=r"is being replaced; try again.*sm/manifest\.json"):
        find_shards([f"{tmp_path}/sm{given}"])


def test_parts_list_what_one_run_lists(mess: Path, tmp_path: Path, tokenizer: Path) -> None:
    found, config = find_shards([mess]), TokenizeConfig(tokenizer=tokenizer)
    for number in (1, 2):
        tokenize.run(found, tmp_path / "d", config, threads=1, part=tokenize.Part(number, 2))
    merge.run(merge.find_datasets([tmp_path / "d.parts"]), tmp_path / "d")
    whole = tokenize.run(found, tmp_path / "e" / "d", config, threads=1).manifest
    merged = manifest.read(tmp_path / "d.manifest.json")
    passed = merged.summary["passed_over"]["first"]
    assert [one["reason"] for one in passed] == [
        one["reason"] for one in whole.summary["passed_over"]["first"]
    ]


@pytest.mark.parametrize("name", ["g.jsonl", "notes", "folder/g.jsonl", "self.jsonl"])
def test_a_broken_link_stops_the_job(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / name).parent.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(LINE)
    target = name if name.startswith("self") else tmp_path / "gone"
    (folder / name).symlink_to(target)
    for place in (folder, f"{tmp_path}/*", f"{folder}/**", folder / name):
        with pytest.raises(PileError, match=rf"link .*{name}\)"):
            find_shards([place])


@pytest.mark.parametrize("place", ["in", "in/*", "in/**/*.jsonl", "*/*/*"])
def test_a_folder_that_cannot_be_read_stops_the_job(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "in" / "closed"
    closed.mkdir(parents=True)
    (tmp_path / "in" / "a.jsonl").write_bytes(LINE)
    listdir = os.listdir

    def refusing(path: Any) -> list[str]:  # as for anyone but root, who reads all folders
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(PermissionError) as failed:
        find_shards([f"{tmp_path}/{place}"])
    assert failed.value.filename == str(closed)


def test_places_without_shards_say_what_is_there(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(PileError, match=r"holds no shards: \.jsonl, .*; ignored: .*a\.csv, its name"):
        find_shards([tmp_path])
    with pytest.raises(PileError, match=r"holds no shards.*a tokenizer, not a shard"):
        find_shards([tokenizer])
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)
    server.bind("s.jsonl")
    server.close()
    with pytest.raises(PileError, match=r"neither a file, a folder nor a pipe \(s\.jsonl\)"):
        find_shards(["s.jsonl"])


@pytest.mark.parametrize("packing", PACK)
def test_a_json_array_is_refused_by_name(packing: str, tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / f"a.json{packing}"
    for mark in (b"", codecs.BOM_UTF8, b" \r\n"):
        path.write_bytes(PACK[packing](mark + b'[{"text": "a"}]\n'))
        with pytest.raises(FormatError, match=r"a JSON array, expected one record a line.*a\.json"):
            texts(path, tmp_path / "d", tokenizer, on_bad_record="skip")


MARKED = {
    "start": codecs.BOM_UTF8 + b'{"text": "a"}\n{"text": "b"}\n',
    "joined": b'{"text": "a"}\n' + codecs.BOM_UTF8 + b'{"text": "b"}',
    "twice": codecs.BOM_UTF8 * 2 + b'"a"\n' + codecs.BOM_UTF8 + b' {"text": "b"}\n',
    "crlf": codecs.BOM_UTF8 + b'{"text": "a"}\r\n' + codecs.BOM_UTF8 + b'{"text": "b"}\r\n',
}


@pytest.mark.parametrize("data", MARKED.values(), ids=MARKED)
def test_byte_order_marks_are_no_text(data: bytes, tmp_path: Path, tokenizer: Path) -> None:
    for packing, pack in list(PACK.items())[:3]:
        path = tmp_path / f"a.jsonl{packing}"
        path.write_bytes(pack(data))
        assert texts(path, tmp_path / "d", tokenizer) == ["a", "b"]
        path = tmp_path / f"a.txt{packing}"
        path.write_bytes(pack(codecs.BOM_UTF8 + b"a\r\nb"))
        assert texts(path, tmp_path / "d", tokenizer) == ["a\r\nb"]
    arguments = ["tokenize", "-", "-o", tmp_path / "s", "--tokenizer", tokenizer]
    # Without `env` the process has the COLUMNS that readline sets, which pytest imports.
    env = dict(os.environ)
    told = subprocess.run([*PROGRAM, *arguments], input=data, capture_output=True, check=True, env=env).stdout
    assert b": 2 documents" in told


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packing", PACK)
def test_other_encodings_are_refused_by_name(
    encoding: str, packing: str, tmp_path: Path, tokenizer: Path
) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(PACK[packing](LINE.decode().encode(encoding)))
    with pytest.raises(FormatError, match=rf"{encoding[:6].upper()} text, expected UTF-8; .*a\.jsonl"):
        texts(path, tmp_path / "d", tokenizer, on_bad_record="skip")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "/dev/stdin"])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_compressed_bytes_under_another_name_are_named(
    name: str, packing: str, tmp_path: Path, tokenizer: Path
) -> None:
    path = tmp_path / Path(name).name
    path.write_bytes(PACK[packing](LINE))
    place = name if name.startswith("/") else path
    arguments = ["tokenize", place, "-o", tmp_path / "d", "--tokenizer", tokenizer]
    with path.open("rb") as file:
        result = subprocess.run(
            [*PROGRAM, *arguments], stdin=file, capture_output=True, text=True, check=False
        )
    assert result.returncode == 1
    kind = {".gz": "gzip", ".zst": "zstd"}[packing]
    assert f"error: compressed with {kind}, expected lines of JSON" in result.stderr


CONSTANTS = ["NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize("number", CONSTANTS)
def test_numbers_that_json_does_not_know_are_read_where_nobody_asks(
    number: str, tmp_path: Path, tokenizer: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(
        f'{{"text": "a", "x": {number}}}\n{{"meta": {{"p": [{number}, {number}]}}, "text": "{number}"}}\n'
        f'{{"text": ["a", "b"], "t\\u0065xt2": {{"y": {number}}}}}\n'
    )
    assert texts(tmp_path / "a.jsonl", tmp_path / "d", tokenizer) == ["a", number, "a\n\nb"]
    for bad in (number, f"[{number}]", f'{{"a": {number}}}', "-NaN", "Inf", "nan", "+Infinity"):
        (tmp_path / "b.jsonl").write_text(f'{{"text": "a"}}\n{{"text": {bad}}}\n')
        with pytest.raises(FormatError, match="record 1: not"):
            texts(tmp_path / "b.jsonl", tmp_path / "d", tokenizer)


def parquet(path: Path, table: dict[str, Any], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(table), path, **options)
    return path


def test_columns_of_nulls_are_bad_records(tmp_path: Path, tokenizer: Path) -> None:
    for version in ("1.0", "2.0"):
        parquet(
            tmp_path / "a.parquet",
            {"text": pyarrow.nulls(3000)},
            data_page_version=version,
            row_group_size=999,
        )
        parquet(tmp_path / "b.parquet", {"text": ["a", "b"], "meta.pile_set_name": pyarrow.nulls(2)})
        with pytest.raises(FormatError, match="record 0: null, expected a string"):
            texts(tmp_path / "a.parquet", tmp_path / "x", tokenizer)
        assert texts(tmp_path, tmp_path / "out" / "d", tokenizer, on_bad_record="skip") == ["a", "b"]
        summary = manifest.read(tmp_path / "out" / "d.manifest.json").summary
        assert [shard["bad_records"]["n"] for shard in summary["shards"]] == [3000, 0]
        assert [subset["name"] for subset in summary["subsets"]] == [None]


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary()])
@pytest.mark.parametrize("options", [{"use_dictionary": True}, {"use_dictionary": False}], ids=str)
def test_strings_that_are_not_said_to_be_any(
    kind: pyarrow.DataType, options: dict[str, Any], tmp_path: Path, tokenizer: Path
) -> None:
    column = pyarrow.array([b"a", "日本".encode(), b"\xff", None, b"a"], kind)
    path = parquet(tmp_path / "a.parquet", {"text": column}, **options)
    assert texts(path, tmp_path / "d", tokenizer, on_bad_record="skip") == ["a", "日本", "a"]
    with pytest.raises(FormatError, match="record 2: not UTF-8: byte 0xff"):
        texts(path, tmp_path / "d", tokenizer)


def test_a_flat_column_is_the_subset(tmp_path: Path, tokenizer: Path) -> None:
    for name, column in {
        "plain": pyarrow.array(["A", None, "B", "A"]),
        "binary": pyarrow.array([b"A", None, b"B", b"A"]),
        "dictionary": pyarrow.array(["A", None, "B", "A"]).dictionary_encode(),
    }.items():
        path = parquet(tmp_path / f"{name}.parquet", {"meta.pile_set_name": column, "text": list("abcd")})
        texts(path, tmp_path / "d", tokenizer)
        dataset = TokenDataset(tmp_path / "d")
        origins = [dataset.origin(i) for i in range(4)]
        assert [origin and origin["subset"] for origin in origins] == ["A", None, "B", "A"]


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4"])
def test_every_encoding_and_compression_passes_the_checks(
    encoding: str, compression: str, tmp_path: Path, tokenizer: Path
) -> None:
    expected = [f"text {i} " + "x" * (i % 300) for i in range(500)]
    column = [text if i % 5 else None for i, text in enumerate(expected)]
    for version in ("1.0", "2.0"):
        path = parquet(
            tmp_path / "a.parquet",
            {"text": column},
            use_dictionary=False,
            column_encoding={"text": encoding},
            compression=compression,
            data_page_version=version,
            data_page_size=2000,
        )
        found = texts(path, tmp_path / "d", tokenizer, on_bad_record="skip")
        assert found == [text for i, text in enumerate(expected) if i % 5]


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_pages_beyond_the_longest_record_are_refused(
    compression: str, use_dictionary: bool, tmp_path: Path, tokenizer: Path
) -> None:
    options = {"compression": compression, "use_dictionary": use_dictionary, "write_statistics": False}
    path = parquet(tmp_path / "a.parquet", {"text": ["a" * (140 << 20)]}, **options)
    with pytest.raises(FormatError, match=r"a page of 14\d+ bytes, more than the .*a\.parquet, byte \d+"):
        texts(path, tmp_path / "d", tokenizer, max_record="1MB", on_bad_record="skip")
    path = parquet(tmp_path / "b.parquet", {"text": ["a" * 999, "b" * 1001, "c"]}, **options)
    assert texts(path, tmp_path / "d", tokenizer, max_record=1000, on_bad_record="skip") == ["a" * 999, "c"]


#: Says at the end the most memory that the process had, in kB.
WATCHED = """
import pathlib, re
from pile_tools.cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:(.*)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def bomb(path: Path, head: bytes, tail: bytes) -> Path:
    """256 MiB of one letter between two texts."""
    with path.open("wb") as file:
        packed: Any = zstandard.ZstdCompressor(1).stream_writer(file, closefd=False)
        if path.suffix == ".gz":
            packed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1)
        with packed:
            packed.write(head)
            for _ in range(32):
                packed.write(b"a" * (8 << 20))
            packed.write(tail)
    return path


@pytest.mark.parametrize("name", ["a.jsonl.zst", "open.jsonl.zst", "a.txt.zst", "a.json.gz"])
@pytest.mark.parametrize("action", ["error", "skip"])
def test_bombs_take_no_memory(name: str, action: str, tmp_path: Path, tokenizer: Path) -> None:
    is_open, is_text = name.startswith("open"), ".txt" in name
    head = b"" if is_text else LINE + b'{"text": "'
    path = bomb(tmp_path / name, head, b"" if is_open or is_text else b'"}\n' + LINE)
    arguments = ["tokenize", path, "-o", tmp_path / "d", "--tokenizer", tokenizer, "--threads", "2"]
    more = ["--max-record", "1MB", "--on-bad-record", action]
    process = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments, *more], capture_output=True, text=True, check=False
    )
    told, peak = process.stderr, int(process.stdout.split()[-2])
    assert peak < 200 << 10, told
    at = r"record 0" if is_text else r"record 1"
    if action == "error":
        assert f"{at}: a record of more than 1000000 bytes" in told
        assert f"{name}, byte {0 if is_text else len(LINE)})" in told
        assert process.returncode == 1
    elif not is_text:
        summary = manifest.read(tmp_path / "d.manifest.json").summary
        (shard,) = summary["shards"]
        assert (summary["n_documents"], shard["bad_records"]["n"]) == (1 if is_open else 2, 1)
        n_bytes = len(head) + (256 << 20) + (0 if is_open else 3 + len(LINE))
        assert shard["n_text_bytes"] == n_bytes
        if not is_open:
            origin = TokenDataset(tmp_path / "d").origin(1)
            assert origin is not None
            assert (origin["record"], origin["byte_start"]) == (2, n_bytes - len(LINE))


@pytest.mark.parametrize("is_named", [False, True])
def test_rows_without_a_text_and_long_names_of_subsets_take_no_memory(
    tmp_path: Path, tokenizer: Path, is_named: bool
) -> None:
    """A page says in a few bytes that millions of rows are null, or of a subset with a long name."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    n = 20_000 if is_named else 12_000_000
    if is_named:
        # The long names are refused, but only after they were read.
        names = pyarrow.array(["a" * 100_000, "b" * 100_000, "c"])
        indices = pyarrow.array([*(i % 2 for i in range(n - 1)), 2], pyarrow.int32())
        table = {
            "text": pyarrow.array(["x"] * n),
            "meta.pile_set_name": pyarrow.DictionaryArray.from_arrays(indices, names),
        }
    else:
        table = {"text": pyarrow.concat_arrays([pyarrow.array(["x"]), pyarrow.nulls(n, pyarrow.string())])}
    path = tmp_path / "a.parquet"
    rows = {"max_rows_per_page": n + 10, "row_group_size": n + 10, "write_batch_size": n + 10}
    parquet.write_table(pyarrow.table(table), path, data_page_size=1 << 30, compression="zstd", **rows)
    arguments = ["tokenize", path, "-o", tmp_path / "d", "--tokenizer", tokenizer, "--threads", "2"]
    process = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments, "--on-bad-record", "skip"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout.split()[-2]) < 200 << 10


def test_the_longest_record_is_exact(tmp_path: Path, tokenizer: Path) -> None:
    lines = [json.dumps({"text": "x" * n}).encode() for n in (5, 30, 31, 29, 2_000_000, 3)]
    limit = len(lines[1])
    for end in (b"\n", b""):
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines) + end)
        found = texts(tmp_path / "a.jsonl", tmp_path / "d", tokenizer, max_record=limit, on_bad_record="skip")
        assert found == ["x" * n for n in (5, 30, 29, 3)]
    for n, is_read in ((limit, True), (limit + 1, False)):
        (tmp_path / "a.txt").write_text("x" * n)
        if is_read:
            assert texts(tmp_path / "a.txt", tmp_path / "d", tokenizer, max_record=limit) == ["x" * n]
        else:
            with pytest.raises(FormatError, match="record 0: a record of more than"):
                texts(tmp_path / "a.txt", tmp_path / "d", tokenizer, max_record=limit)


@pytest.mark.parametrize("given", ["0", "5GiB", "", "-1", "x", 0, -5, 1 << 40, "99999999999999999999TB"])
def test_other_limits_are_refused(given: str | int) -> None:
    with pytest.raises(ConfigError, match="max-record"):
        RecordConfig(max_record=given)


def test_a_run_goes_on_with_longer_records(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(LINE)
    (folder / "b.jsonl").write_bytes(b'{"text": "' + b"x" * 2000 + b'"}\n')
    found = find_shards([folder])

    def run(prefix: str, max_record: int, action: str = "error") -> tokenize.Result:
        records = RecordConfig(max_record=max_record, on_bad_record=action)
        config = TokenizeConfig(tokenizer=tokenizer, records=records)
        return tokenize.run(found, tmp_path / prefix, config, threads=1)

    with pytest.raises(FormatError, match="record 0: a record of more than 1000 bytes"):
        run("d", 1000)
    assert run("d", 4000).n_resumed_shards == 1
    assert (
        run("whole", 4000).manifest.outputs[0]["sha256"]
        == manifest.read(tmp_path / "d.manifest.json").outputs[0]["sha256"]
    )
    # The default says nothing, so that outputs made before there was a limit are still the same request.
    assert "max_record" not in run("e", 1 << 30).manifest.settings
    assert run("e", 1 << 30).is_new is False
    assert run("f", 4000).manifest.settings["max_record"] == 4000


def test_pipes_are_read_once_by_every_command(tmp_path: Path, tokenizer: Path, capsys: Capture) -> None:
    data = b"".join(b'{"text": "document %d"}\n' % i for i in range(3000))
    (tmp_path / "terms.txt").write_text("document\n")

    def piped(name: str, pack: Callable[[bytes], bytes], *arguments: Any) -> tuple[int, str, str]:
        fifo = tmp_path / name
        if not fifo.exists():
            os.mkfifo(fifo)
        writer = threading.Thread(target=lambda: fifo.write_bytes(pack(data)), daemon=True)
        writer.start()
        result = command(capsys, *(fifo if part is None else part for part in arguments))
        writer.join(timeout=20)
        return result

    plain, out = PACK[""], tmp_path / "out"
    tokenized = ["tokenize", None, "-o", out / "d", "--tokenizer", tokenizer]
    for name, pack in {"a.jsonl": plain, "b": plain, "c.jsonl.zst": PACK[".zst"]}.items():
        _, told, error = piped(name, pack, *tokenized, "--force")
        assert ": 3,000 documents" in told, error
        assert "reading a pipe: an interrupted run starts from the beginning" in error
    assert manifest.read(out / "d.manifest.json").inputs[1]["path"] == "-"
    for arguments in (
        ["train-tokenizer", None, "-o", out / "t.json", "--vocab-size", "300", "--force"],
        ["count-ngrams", None, "-o", out / "n.tsv", "--force"],
        ["count-terms", tmp_path / "terms.txt", None, "-o", out / "c.tsv", "--force"],
    ):
        for _ in range(2):
            code, told, error = piped("a.jsonl", plain, *arguments)
            assert code == 0, error
            assert "finished already" not in told
    fifo = tmp_path / "a.jsonl"
    for refused in (
        ["label", out / "d", fifo, "--tokenizer", tokenizer],
        ["tokenize", fifo, *tokenized[2:], "--part", "1/1"],
        ["tokenize", fifo, *tokenized[2:], "--distributed"],
    ):
        code, _, error = command(capsys, *refused)
        assert (code, "pipe" in error) == (2, True), error
    os.mkfifo(tmp_path / "p.parquet")
    _, _, error = command(capsys, "tokenize", tmp_path / "p.parquet", "-o", out / "p", *tokenized[4:])
    assert "a pipe: parquet is read from its end" in error


def test_the_pipes_of_a_shell_come_in_the_order_given(tmp_path: Path, tokenizer: Path) -> None:
    script = (
        f"'{PROGRAM[0]}' -c '{PROGRAM[2]}' tokenize <(echo '\"first\"') <(echo '\"second\"') "
        f"-o '{tmp_path}/d' --tokenizer '{tokenizer}' --no-eod"
    )
    subprocess.run(["bash", "-c", script], check=True, capture_output=True)
    dataset, decoder = TokenDataset(tmp_path / "d"), Tokenizer.from_file(tokenizer)
    assert [decoder.decode(dataset[i].astype("u4")) for i in range(2)] == ["first", "second"]


def test_frames_members_and_what_follows_them(tmp_path: Path, tokenizer: Path) -> None:
    skippable = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"xyz"
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(LINE)
    good = {
        "a.jsonl.zst": skippable + frame + skippable + frame,
        "b.jsonl.gz": gzip.compress(LINE) + gzip.compress(b"") + gzip.compress(LINE),
        "c.jsonl": LINE.replace(b"\n", b"\r\n") * 2,
    }
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
        assert texts(tmp_path / name, tmp_path / "d", tokenizer) == ["a document"] * 2, name
    bad = {
        "a.jsonl.zst": (frame + b"trailing", "the zstd data are damaged: .*; get the file again"),
        "b.jsonl.zst": (frame + frame[:-3], "cut short"),
        "c.jsonl.gz": (
            gzip.compress(LINE) + b"trailing garbage",
            "the gzip data are damaged: .*; get the file again",
        ),
        "d.jsonl.gz": (gzip.compress(LINE)[:-3], "cut short"),
        "e.jsonl.zst": (b"", "cut short"),
        # Only a file of another format is to be renamed.
        "f.jsonl.zst": (
            frame[:-1] + bytes([frame[-1] ^ 1]),
            "the zstd data are damaged: .*; get the file again",
        ),
        "g.jsonl.zst": (gzip.compress(LINE), "not zstd, or damaged: .*rename it to end with .gz"),
        "h.jsonl.gz": (frame, "not gzip, or damaged: .*rename it to end with .zst"),
    }
    for name, (data, what) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=rf"{what}.*{name}"):
            texts(tmp_path / name, tmp_path / "d", tokenizer, on_bad_record="skip")


def test_a_list_of_paths_is_still_a_list_of_shards(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE)
    paths = [tmp_path / "a.jsonl"]
    assert Shards(paths) == paths
    made = tokenize.run(paths, tmp_path / "d", TokenizeConfig(tokenizer=tokenizer), threads=1).manifest
    assert "passed_over" not in made.summary


def test_tables_of_ours_are_no_shards(tmp_path: Path, tokenizer: Path, capsys: Capture) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE)
    config = TokenizeConfig(tokenizer=tokenizer)
    assert tokenize.run([tmp_path / "a.jsonl"], tmp_path / "d", config, threads=1).is_new
    code, _, error = command(capsys, "count-ngrams", tmp_path / "d", "-o", tmp_path / "n.parquet")
    assert code == 0, error
    found = find_shards([tmp_path])
    assert found == [tmp_path / "a.jsonl"]
    reasons = {path.name: reason for path, reason in found.passed_over}
    assert "kind ngrams" in reasons["n.parquet"]


def test_a_record_may_have_keys_of_files_of_ours(tmp_path: Path) -> None:
    keys = ["views", "kind", "format", "outputs", "model", "added_tokens", "about", "repeats", "passages"]
    for key in keys:
        (tmp_path / f"{key}.json").write_text(json.dumps({"text": "a video", key: 3}))
    found = find_shards([tmp_path])
    assert (len(found), found.passed_over) == (len(keys), [])
    (tmp_path / "view.json").write_text(json.dumps({"views": []}))
    assert find_shards([tmp_path]).passed_over == [
        (tmp_path / "view.json", "a file of saved interventions, not a shard")
    ]


def test_a_pattern_may_have_more_components_than_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.jsonl").write_text('{"text": "a"}\n')
    n = sys.getrecursionlimit() + 100
    assert find_shards([Path("**/" * n + "x*.jsonl")]) == [Path("a/b/x.jsonl")]
    parents = "a/../" * (n // 2)
    assert find_shards([Path(parents + "a/b/x*.jsonl")]) == [Path(parents + "a/b/x.jsonl")]
