"""Shards that are written again, through the binding."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_tools._core import read_record, read_record_at, rewrite_shards
from pile_tools.errors import ConfigError, FormatError, OutputExistsError
from pile_tools.types import RewriteSummary

RECORDS = [
    {"text": f"document {i} é\n\U0001f600", "meta": {"pile_set_name": "A"}, "id": i} for i in range(100)
]


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    data = lines(RECORDS)
    packed = {
        "0.jsonl": data,
        "1.jsonl.gz": gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
        "2.jsonl.zst": zstandard.compress(data[:1000]) + zstandard.compress(data[1000:]),
        "3.jsonl": data,
    }
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in packed]


def content(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with path.open("rb") as file:
            return zstandard.ZstdDecompressor().stream_reader(file).read()
    return path.read_bytes()


def columns(*pairs: tuple[int, int]) -> tuple[Any, Any]:
    return np.array([s for s, _ in pairs], np.uint32), np.array([r for _, r in pairs], np.uint64)


def rewritten(shards: list[Path], folder: Path, **settings: Any) -> RewriteSummary:
    given = {"job": "job", "n_threads": 2, "discard": False, **settings}
    return rewrite_shards(shards, [path.name for path in shards], folder, **given)


def test_removed_records_are_left_out_and_the_rest_stays(shards: list[Path], tmp_path: Path) -> None:
    removed = columns(*((shard, record) for shard in range(3) for record in range(shard, 100, 3)))
    done: list[int] = []
    summary = rewritten(shards, tmp_path / "out", removed=removed, on_progress=done.append)
    for number, (path, shard) in enumerate(zip(shards, summary["shards"], strict=True)):
        kept = [record for record in RECORDS if number == 3 or record["id"] % 3 != number]
        new = tmp_path / "out" / path.name
        assert content(new) == lines(kept)
        assert shard["output"] == {
            "name": path.name,
            "bytes": new.stat().st_size,
            "sha256": hashlib.sha256(new.read_bytes()).hexdigest(),
        }
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert shard["bytes"] == path.stat().st_size
        assert shard["n_removed"] == 100 - len(kept)
        assert shard["n_kept"] == (None if number == 3 else len(kept))
        gone = [record["text"].encode() for record in RECORDS if record not in kept]
        assert shard["n_text_bytes_removed"] == sum(map(len, gone))
    assert done[-1] == sum(path.stat().st_size for path in shards)


def test_a_finished_shard_is_not_written_again(shards: list[Path], tmp_path: Path) -> None:
    removed = columns((0, 5), (2, 200))
    with pytest.raises(FormatError, match=r"ends before record 200: the shard has changed .*2\.jsonl\.zst"):
        rewritten(shards, tmp_path / "out", removed=removed, n_threads=1)
    # The digest of a job includes its changes; here it does not, which shows that the first shards are not
    # read again.
    removed = columns((0, 6), (2, 20))
    summary = rewritten(shards, tmp_path / "out", removed=removed)
    assert summary["n_resumed_shards"] == 2
    assert content(tmp_path / "out" / "0.jsonl") == lines(RECORDS[:5] + RECORDS[6:])
    assert content(tmp_path / "out" / "2.jsonl.zst") == lines(RECORDS[:20] + RECORDS[21:])
    with pytest.raises(OutputExistsError, match="4 finished shards of an unfinished run"):
        rewritten(shards, tmp_path / "out", job="other")


def test_records_are_marked_in_their_meta(shards: list[Path], tmp_path: Path) -> None:
    values = [("cluster", np.array([3, 5], np.uint64)), ("size", np.array([2, 4], np.uint64))]
    marks = (*columns((0, 1), (1, 2)), "dedup", values)
    summary = rewritten(shards, tmp_path / "out", marks=marks)
    assert [shard["n_marked"] for shard in summary["shards"]] == [1, 1, 0, 0]
    for name, record, mark in [
        ("0.jsonl", 1, {"cluster": 3, "size": 2}),
        ("1.jsonl.gz", 2, {"cluster": 5, "size": 4}),
    ]:
        found = [json.loads(line) for line in content(tmp_path / "out" / name).splitlines()]
        expected = [dict(r) for r in RECORDS]
        expected[record]["meta"] = {"pile_set_name": "A", "dedup": mark}
        assert found == expected


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=30), ranges=st.lists(st.integers(0, 30), max_size=6), is_ascii=st.booleans())
def test_a_cut_text_is_written_as_json_dumps_does(
    tmp_path_factory: pytest.TempPathFactory, text: str, ranges: list[int], is_ascii: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    before, after = '{"x": [1.0e2, "\\u00e9"],"text" :', ' , "text2": "z"}\r\n'
    (folder / "a.jsonl").write_bytes((before + json.dumps(text, ensure_ascii=is_ascii) + after).encode())
    offsets = sorted({min(at, len(text)) for at in ranges})
    pairs = list(zip(offsets[::2], offsets[1::2], strict=False))
    n_bytes = [len(text[:i].encode()) for i in range(len(text) + 1)]
    starts, ends = ([n_bytes[pair[i]] for pair in pairs] for i in (0, 1))
    cuts = (*columns(*((0, 0) for _ in pairs)), np.array(starts, np.uint64), np.array(ends, np.uint64))
    summary = rewritten([folder / "a.jsonl"], folder / "out", cuts=cuts)
    kept = "".join(c for i, c in enumerate(text) if not any(a <= i < b for a, b in pairs))
    # A record without a range stays as it is.
    expected = json.dumps(kept, ensure_ascii=is_ascii and not pairs)
    assert (folder / "out" / "a.jsonl").read_bytes() == (before + expected + after).encode()
    assert summary["shards"][0]["n_text_bytes_removed"] == len(text.encode()) - len(kept.encode())


def test_bad_settings_are_named(shards: list[Path], tmp_path: Path) -> None:
    for wrong, message in [
        ({"zstd_level": 99}, "zstd has the levels"),
        ({"removed": columns((1, 0), (0, 0))}, "removed: the records are not in ascending order"),
        ({"sha256": ["0"]}, "each shard needs a name and a checksum"),
    ]:
        with pytest.raises(ConfigError, match=message):
            rewritten(shards, tmp_path / "out", **wrong)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="the shard has changed since its records were compared"):
        rewritten(shards, tmp_path / "out", sha256=["0" * 64] * 4)


def table(n: int) -> dict[str, list[Any]]:
    """Columns of every kind that Parquet stores, with nulls and lists, and the texts."""

    def some(i: int, value: Any) -> Any:
        return None if i % 7 == 3 else value

    return {
        "text": [None if i % 50 == 49 else f"text {i} é " + "x" * (i % 977) for i in range(n)],
        "id": list(range(n)),
        "score": [some(i, i / 7) for i in range(n)],
        "flag": [some(i, i % 2 == 0) for i in range(n)],
        "tags": [some(i, [some(j, f"tag {j}") for j in range(i % 5)]) for i in range(n)],
        "meta": [some(i, {"pile_set_name": f"s{i % 3}", "n": [i, None]}) for i in range(n)],
        "fixed": [bytes([i % 256] * 4) for i in range(n)],
        "nothing": [None] * n,
    }


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["NONE", "SNAPPY", "GZIP", "ZSTD", "LZ4"])
def test_rows_of_a_table_are_removed_and_cut(tmp_path: Path, compression: str, version: str) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns_of = table(1000)
    schema_of = pa.table(columns_of).schema
    schema = schema_of.set(6, pa.field("fixed", pa.binary(4))).with_metadata({"about": "a test"})
    data = pa.table(columns_of, schema=schema)
    delta = {
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED"},
    }
    path = tmp_path / "a.parquet"
    pq.write_table(
        data,
        path,
        row_group_size=300,
        compression=compression,
        data_page_version=version,
        **(delta if version == "2.0" else {}),
    )
    gone = {i for i in range(1000) if (i % 3 == 1 and i % 50 != 49) or (300 <= i < 600 and i % 50 != 49)}
    cut = {record: (1, 7) for record in (0, 200, 999 - 999 % 50 + 2) if record not in gone}
    cuts = (
        *columns(*((0, record) for record in cut)),
        np.array([start for start, _ in cut.values()], np.uint64),
        np.array([end for _, end in cut.values()], np.uint64),
    )
    summary = rewritten([path], tmp_path / "out", removed=columns(*((0, i) for i in sorted(gone))), cuts=cuts)
    new = tmp_path / "out" / "a.parquet"
    texts = [
        text if i not in cut else (text.encode()[: cut[i][0]] + text.encode()[cut[i][1] :]).decode()
        for i, text in enumerate(columns_of["text"])
    ]
    # Not `data`: Parquet names the items of a list in its own way.
    stored = pq.read_table(path)
    expected = stored.set_column(0, schema.field("text"), pa.array(texts))
    expected = expected.filter(pa.array([i not in gone for i in range(1000)]))
    found = pq.read_table(new)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)
    described = pq.ParquetFile(new).metadata
    assert described.row_group(0).column(0).compression == (
        "UNCOMPRESSED" if compression == "NONE" else compression
    )
    assert [described.row_group(i).num_rows for i in range(described.num_row_groups)] == [
        n
        for start in range(0, 1000, 300)
        if (n := sum(i not in gone for i in range(start, min(start + 300, 1000))))
    ]
    shard = summary["shards"][0]
    assert (shard["n_kept"], shard["n_removed"], shard["n_cut"]) == (1000 - len(gone), len(gone), len(cut))
    removed_bytes = sum(len(columns_of["text"][i].encode()) for i in gone) + 6 * len(cut)
    assert shard["n_text_bytes_removed"] == removed_bytes


def test_a_row_group_without_rows_is_left_out_and_errors_name_the_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "bb", "é", None], "x": [1, 2, 3, 4]}), path, row_group_size=2)
    summary = rewritten([path], tmp_path / "out", removed=columns((0, 0), (0, 1)))
    assert summary["shards"][0]["n_text_bytes_removed"] == 3
    found = pq.ParquetFile(tmp_path / "out" / "a.parquet")
    assert found.metadata.num_row_groups == 1
    assert found.read().to_pydict() == {"text": ["é", None], "x": [3, 4]}
    half = (*columns((0, 2)), np.array([1], np.uint64), np.array([2], np.uint64))
    marks = (*columns((0, 0)), "dedup", [])
    for changes, message in [
        ({"removed": columns((0, 3))}, r"record 3: null, expected a string .*a\.parquet"),
        ({"removed": columns((0, 4))}, "ends before record 4: the shard has changed"),
        ({"cuts": half}, "record 2: bytes 1 to 2 cannot be cut from its text of 2 bytes"),
        ({"marks": marks}, "marks are written to JSON lines only"),
    ]:
        with pytest.raises(FormatError, match=message):
            rewritten([path], tmp_path / "other", **changes)  # type: ignore[arg-type]


#: Bytes that end in 10, as stored: the values in a page's header, the rows in a row group's metadata.
PAGE, GROUP = rb"\x2c\x15\x14", rb"\x16\x14(?=\x26)"


@pytest.mark.parametrize(
    ("pattern", "index", "message"),
    [
        (PAGE, 0, "row group 0 has 5 rows, 10 by its metadata"),
        (PAGE, 3, "row group 1 has 5 rows, 10 by its metadata"),
        (PAGE, 1, "row group 0 has 5 rows, 10 by its metadata|columns of different lengths"),
        (PAGE, 2, "row group 0 has 5 rows, 10 by its metadata"),
        (GROUP, 0, "row group 0 has 10 rows, 5 by its metadata"),
    ],
)
def test_a_row_group_has_the_rows_of_its_metadata(
    tmp_path: Path, pattern: bytes, index: int, message: str
) -> None:
    """Jobs number the rows that they read, the rewriter those of the metadata: others would be removed."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    names = {"text": pa.string(), "meta.pile_set_name": pa.string(), "x": pa.int64()}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in names.items()])
    texts = [f"text {i}" for i in range(20)]
    data = pa.table({"text": texts, "meta.pile_set_name": texts, "x": list(range(20))}, schema=schema)
    path = tmp_path / "a.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(data, path, row_group_size=10, **options)
    stored = bytearray(path.read_bytes())
    stored[[found.end() - 1 for found in re.finditer(pattern, stored)][index]] = 10
    path.write_bytes(stored)
    expected = rf"({message}) \(.*a\.parquet"
    with pytest.raises(FormatError, match=expected):
        rewritten([path], tmp_path / "out", removed=columns((0, 13)))
    if index != 2:
        with pytest.raises(FormatError, match=expected):
            read_record(path, 19)


def test_a_record_is_read_by_its_number_or_its_position(shards: list[Path], tmp_path: Path) -> None:
    stored = [json.dumps(record).encode() for record in RECORDS]
    start = sum(len(line) + 1 for line in stored[:71])
    for shard in shards:
        assert read_record(shard, 71) == (stored[71], RECORDS[71]["text"])
        assert read_record_at(shard, start, len(stored[71])) == stored[71]
        with pytest.raises(FormatError, match="there is no record 100: the shard has 100"):
            read_record(shard, 100)
    (tmp_path / "bad.jsonl").write_text('bad\n{"body": "x"}\n')
    assert read_record(tmp_path / "bad.jsonl", 1, text_field="body") == (b'{"body": "x"}', "x")
    with pytest.raises(FormatError, match="record 0: not JSON"):
        read_record(tmp_path / "bad.jsonl", 0, text_field="body")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(FormatError, match="expected a file, found a folder"):
        read_record(tmp_path / "folder.jsonl", 0)


def test_a_row_of_a_table_is_read_by_its_number(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    texts = [f"é {i}" for i in range(500)]
    pq.write_table(pa.table({"text": [*texts, None]}), path, row_group_size=100)
    assert read_record(path, 321) == (texts[321].encode(), texts[321])
    with pytest.raises(FormatError, match="record 500: null, expected a string"):
        read_record(path, 500)
    with pytest.raises(FormatError, match="a row of a table is not at a byte of the file"):
        read_record_at(path, 0, 1)
