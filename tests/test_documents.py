"""Single documents: found by number and by record, shown, and read again from their shard."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pile_tools import ConfigError, FormatError, PileError, TokenDataset, Tokenizer
from pile_tools._core import record_text
from pile_tools.jobs import merge, tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import RecordConfig, find_shards
from pile_tools.tokens import documents

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_document_is_found_by_its_record(dataset: Path) -> None:
    opened = TokenDataset(dataset)
    for document in range(len(opened)):
        origin = opened.origin(document)
        assert origin is not None
        name = f"{Path(origin['shard']).name}:{origin['record']}"
        assert documents.find(opened, name) == [document]
    assert documents.find(opened, f"{origin['shard']}:{origin['record']}") == [len(opened) - 1]
    assert documents.find(opened, "-1") == [len(opened) - 1]
    assert documents.find(opened, str(-len(opened))) == [0]


def test_a_record_that_is_there_twice_is_of_two_documents(dataset: Path, tmp_path: Path) -> None:
    merge.run([dataset, dataset], tmp_path / "two")
    two, n = TokenDataset(tmp_path / "two"), len(TokenDataset(dataset))
    assert documents.find(two, "02.jsonl:7") == [
        documents.find(TokenDataset(dataset), "02.jsonl:7")[0] + i for i in (0, n)
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("999999", r"no document 999999: .* has [\d,]+, from 0"),
        ("-99999999999999999999999", "is neither a document's number nor SHARD:RECORD"),
        ("x", "'x' is neither a document's number nor SHARD:RECORD"),
        ("x:1", r"no shard 'x' among the dataset's 4: .*00\.jsonl, .*02\.jsonl, \.\.\."),
        ("00.jsonl:300", r"is from record 300 of .*00\.jsonl: there is no such record"),
        ("00.jsonl:99999999999999999999999", "is neither a document's number nor SHARD:RECORD"),
    ],
)
def test_what_is_not_there_is_named(dataset: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        documents.find(TokenDataset(dataset), name)


def test_empty_texts_are_of_no_document(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="or its text is empty"):
        documents.find(TokenDataset(dataset), "00.jsonl:0")


def test_the_end_of_a_path_must_mean_one_shard() -> None:
    shards = ["a/0.jsonl", "b/0.jsonl", "b/10.jsonl"]
    assert documents.shard_named(shards, "b/0.jsonl") == "b/0.jsonl"
    assert documents.shard_named(shards, "10.jsonl") == "b/10.jsonl"
    with pytest.raises(ConfigError, match=r"'0.jsonl' is ambiguous: a/0.jsonl or b/0.jsonl; give more"):
        documents.shard_named(shards, "0.jsonl")


def test_records_are_read_again_and_compared(dataset: Path, tokenizer: Path) -> None:
    opened, encoder = TokenDataset(dataset), Tokenizer.from_file(tokenizer)
    for document in range(0, len(opened), 31):
        origin = opened.origin(document)
        assert origin is not None
        path = Path(origin["shard"])
        text = record_text(path, documents.read_record(path, origin), "text")
        assert documents.gives_tokens(text, encoder, opened[document])
        assert not documents.gives_tokens(text, encoder, opened[document - 1][1:])
    assert not documents.gives_tokens(None, encoder, opened[0])


def test_the_text_of_every_kind_of_record() -> None:
    jsonl, txt = Path("a.jsonl.gz"), Path("a.txt.zst")
    assert record_text(jsonl, b'{"body": "x", "text": "y"}', "body") == "x"
    assert record_text(jsonl, b'"bare"', "text") == "bare"
    assert record_text(jsonl, b'{"text": ["x", "y"]}', "text") == "x\n\ny"
    assert record_text(txt, b'{"text": 5}', "text") == '{"text": 5}'
    for none in (b"no record", b'{"text": 5}', b'{"other": "x"}', b"\xff"):
        assert record_text(jsonl, none, "text") is None


def test_show_reads_every_kind_of_shard_again(cli: Run, tokenizer: Path, tmp_path: Path) -> None:
    line = b'{"body": "alpha beta"}\n{"body": "gamma delta"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line[:23]) + gzip.compress(line[23:]))
    (tmp_path / "b.txt").write_text("a whole file\n")
    config = TokenizeConfig(tokenizer=tokenizer, records=RecordConfig(text_field="body"))
    tokenize.run(find_shards([tmp_path]), tmp_path / "d", config, threads=1)
    for name, record in [("a.jsonl.gz:1", '{"body": "gamma delta"}'), ("b.txt:0", "a whole file")]:
        shown = cli("show", tmp_path / "d", name, "--raw")
        assert "it gives the same tokens" in shown.stdout, shown.stderr
        assert shown.stdout.rstrip().endswith(record)


def test_a_shard_that_changed_or_went_is_named(dataset: Path, tmp_path: Path) -> None:
    origin = TokenDataset(dataset).origin(len(TokenDataset(dataset)) - 1)
    assert origin is not None
    short = tmp_path / "03.jsonl.zst"
    shutil.copy(
        next(path for path in find_shards([Path(origin["shard"]).parent]) if "01" in path.name), short
    )
    far = {**origin, "byte_start": 10**9}
    with pytest.raises(FormatError, match="ends before the record"):
        documents.read_record(short, far)  # type: ignore[arg-type]
    short.write_bytes(b"not zstd")
    with pytest.raises(FormatError, match=r"03\.jsonl\.zst"):
        documents.read_record(short, origin)
    with pytest.raises(PileError, match=r"not here .*gone/03\.jsonl"):
        documents.find_shard(tmp_path / "d", "gone/03.jsonl")


def test_shards_of_one_name_are_told_apart_by_their_folders(
    write_shard: Callable[..., Path], tokenizer: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shards = [write_shard(old / name / "0.jsonl", [{"text": name}]) for name in ("a", "b", "c")]
    tokenize.run(shards, old / "d", TokenizeConfig(tokenizer=tokenizer), threads=1)
    old.rename(new)
    moved = TokenDataset(new / "d")
    for document, name in enumerate("abc"):
        origin = moved.origin(document)
        assert origin is not None
        assert documents.find_shard(new / "d", origin["shard"]) == new / name / "0.jsonl"


def test_a_record_with_an_empty_text_is_of_no_document(tokenizer: Path) -> None:
    encoder = Tokenizer.from_file(tokenizer)
    assert not documents.gives_tokens("", encoder, np.array([0], np.uint16))
    assert documents.gives_tokens("a", encoder, np.array([*encoder.encode("a"), 0], np.uint16))


def test_show_on_the_command_line(cli: Run, dataset: Path, shards: Path, tmp_path: Path) -> None:
    def done(*arguments: str | Path) -> str:
        result = cli("show", *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return result.stdout

    opened = TokenDataset(dataset)
    n = len(opened)
    text = done(dataset, "01.jsonl.zst:10")
    assert "01.jsonl.zst, record 10" in text
    assert "naïve" in text
    last = json.loads(done(dataset, "-1", "--json", "--tokens"))
    assert last["document"] == n - 1
    assert last["tokens"] == opened[n - 1].tolist()
    assert last["first_token"] + last["n_tokens"] == opened.n_tokens
    raw = done(dataset, "01.jsonl.zst:10", "--raw")
    assert "it gives the same tokens" in raw
    assert (
        json.loads(raw.splitlines()[-1])["text"]
        in json.loads(done(dataset, "01.jsonl.zst:10", "--json"))["text"]
    )
    for suffix in (".bin", ".idx"):
        shutil.copy(f"{dataset}{suffix}", tmp_path / f"d{suffix}")
    assert "origin  unknown" in done("d", "3", "--tokens")
    for arguments, message in [
        (("d", "3"), "give --tokenizer FILE"),
        (("d", "3", "--raw"), "--raw needs a known origin"),
        (("d", "00.jsonl:1"), "is unknown; `pile-tools label` finds it"),
        ((dataset, str(n)), f"no document {n}"),
        (("nowhere", "1"), "No such file"),
    ]:
        result = cli("show", *arguments, cwd=tmp_path)
        assert result.returncode in (1, 2)
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_show_says_when_a_shard_is_not_what_it_was(
    cli: Run, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    shard = tmp_path / "s" / "00.jsonl"
    shard.parent.mkdir()
    shutil.copy(shards / "00.jsonl", shard)
    tokenize.run([shard], tmp_path / "d", TokenizeConfig(tokenizer=tokenizer), threads=1)
    good = shard.read_bytes()
    secret = b'{"text": "a secret"}\n' * 2000
    for other in (good.replace(b"beta", b"BETA"), secret, b"\xff" * len(good), b"[" * len(good)):
        shard.write_bytes(other)
        for options in ([], ["--json"]):
            shown = cli("show", tmp_path / "d", "5", "--raw", *options)
            assert (shown.returncode, shown.stdout) == (1, "")
            assert "the record gives other tokens than the document has" in shown.stderr
            assert "secret" not in shown.stderr
    shard.unlink()
    os.mkfifo(shard)
    piped = cli("show", tmp_path / "d", "5", "--raw")
    assert (piped.returncode, piped.stdout) == (1, "")
    assert "found a pipe" in piped.stderr
    shard.rename(tmp_path / "elsewhere")
    gone = cli("show", tmp_path / "d", "5", "--raw")
    assert gone.returncode == 1
    assert "error: the shard is not here" in gone.stderr
