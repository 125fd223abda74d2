"""What `tokenize` and `train-tokenizer` read: every kind of shard, bad records, damage, standard input."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from pile_tools import ConfigError, FormatError, OutputExistsError, TokenDataset, Tokenizer
from pile_tools.jobs import train_tokenizer
from pile_tools.jobs.tokenize import Result, TokenizeConfig, run
from pile_tools.read.shards import RecordConfig, find_shards

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

RECORDS = [
    {"text": f"{i} naïve 日本語 😀 " + "some words " * (i % 200), "meta": {"pile_set_name": "AB"[i % 2]}}
    for i in range(1000)
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def gzip_members(data: bytes) -> bytes:
    """As `cat a.gz b.gz` makes them."""
    return gzip.compress(data[: len(data) // 3]) + gzip.compress(data[len(data) // 3 :])


def write_parquet(path: Path, **options: Any) -> None:
    table = pyarrow.Table.from_pylist(RECORDS)
    pyarrow.parquet.write_table(table, path, row_group_size=300, **options)


def tokenized(
    shards: Path, prefix: Path, tokenizer: Path, *, threads: int = 2, force: bool = False, **records: str
) -> Result:
    config = TokenizeConfig(tokenizer=tokenizer, records=RecordConfig(**records))
    return run(find_shards([shards]), prefix, config, threads=threads, force=force)


def dataset_bytes(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}{suffix}").read_bytes() for suffix in (".bin", ".idx")]


def test_every_kind_of_shard_gives_the_same_tokens(tmp_path: Path, tokenizer: Path) -> None:
    writers: dict[str, Callable[[Path], Any]] = {
        "a.jsonl": lambda path: path.write_bytes(LINES),
        "a.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(LINES)),
        "a.jsonl.gz": lambda path: path.write_bytes(gzip_members(LINES)),
        "snappy.parquet": write_parquet,
        "plain.parquet": lambda path: write_parquet(path, compression="none", use_dictionary=False),
        "zstd.parquet": lambda path: write_parquet(path, compression="zstd", data_page_version="2.0"),
        "gzip.parquet": lambda path: write_parquet(path, compression="gzip", data_page_size=1000),
    }
    first, totals = None, None
    for name, write in writers.items():
        write(tmp_path / name)
        prefix = tmp_path / "out" / name
        summary = tokenized(tmp_path / name, prefix, tokenizer).manifest.summary
        found = dataset_bytes(prefix)
        first, totals = first or found, totals or summary["subsets"]
        assert found == first, name
        assert summary["subsets"] == totals, name
        origin = TokenDataset(prefix).origin(777)
        assert origin is not None
        assert (origin["record"], origin["subset"]) == (777, "B")


def test_large_strings_and_nulls_of_parquet(tmp_path: Path, tokenizer: Path) -> None:
    texts = pyarrow.array(["a", None, "", "b"], pyarrow.large_string())
    pyarrow.parquet.write_table(pyarrow.table({"body": texts}), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"record 1: null, expected a string; .*a\.parquet, byte 1"):
        tokenized(tmp_path / "a.parquet", tmp_path / "d", tokenizer, text_field="body")
    result = tokenized(
        tmp_path / "a.parquet", tmp_path / "d", tokenizer, text_field="body", on_bad_record="skip"
    )
    shard = result.manifest.summary["shards"][0]
    assert (result.manifest.summary["n_documents"], shard["n_empty"], shard["bad_records"]["n"]) == (2, 1, 1)


def test_text_files_are_one_document_each(tmp_path: Path, tokenizer: Path) -> None:
    text = "One document\nof two lines.\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(text.encode()))
    (tmp_path / "empty.txt").write_text("")
    tokenized(tmp_path, tmp_path / "out" / "d", tokenizer)
    tokens, decoder = TokenDataset(tmp_path / "out" / "d"), Tokenizer.from_file(tokenizer)
    assert [decoder.decode(tokens[i].astype("u4")) for i in range(len(tokens))] == [text] * 3


def test_strings_lists_and_lone_surrogates(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '"bare"\n{"text": ["a", "b"]}\n{"text": "\\ud800 \\udc00\\ud83d\\ude00"}\n'
    )
    summary = tokenized(tmp_path, tmp_path / "out" / "d", tokenizer).manifest.summary
    tokens, decoder = TokenDataset(tmp_path / "out" / "d"), Tokenizer.from_file(tokenizer)
    texts = [decoder.decode(tokens[i].astype("u4")) for i in range(3)]
    assert texts == ["bare", "a\n\nb", "\ufffd \ufffd😀"]
    assert summary["shards"][0]["n_lone_surrogates"] == 2


def test_skipped_records_are_listed_and_the_list_survives_a_kill(tmp_path: Path, tokenizer: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "0.jsonl").write_bytes(LINES)
    (shards / "1.jsonl").write_bytes(b'{"text": "a"}\nbad\n\n' + LINES + b'{"text": "\xff"}\n')
    (shards / "2.jsonl").write_bytes(LINES + b"{}\n" * 150)
    with pytest.raises(FormatError, match=r"record 1: not JSON.*on-bad-record skip .*1\.jsonl, byte 14"):
        tokenized(shards, tmp_path / "d", tokenizer)
    # What was made before the first bad record is gone on with, and made again if none may be skipped.
    result = tokenized(shards, tmp_path / "d", tokenizer, on_bad_record="skip")
    assert result.n_resumed_shards == 1
    whole = tokenized(shards, tmp_path / "whole" / "d", tokenizer, on_bad_record="skip", threads=1)
    assert dataset_bytes(tmp_path / "d") == dataset_bytes(tmp_path / "whole" / "d")
    none, some, many = (shard["bad_records"] for shard in result.manifest.summary["shards"])
    assert none == {"n": 0, "first": []}
    assert [bad["record"] for bad in some["first"]] == [1, 2, 1003]
    assert "not UTF-8: byte 0xff" in some["first"][2]["reason"]
    assert (many["n"], len(many["first"])) == (150, 100)
    assert result.manifest.summary == whole.manifest.summary
    with pytest.raises(OutputExistsError, match="on_bad_record = 'skip', not 'error'"):
        tokenized(shards, tmp_path / "d", tokenizer)


def test_parts_with_records_skipped_are_not_used_where_none_may_be(tmp_path: Path, tokenizer: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "0.jsonl").write_bytes(b"bad\n" + LINES)
    (shards / "1.jsonl.gz").write_bytes(b"text, not gzip, whatever its name says")
    with pytest.raises(FormatError, match="not gzip"):
        tokenized(shards, tmp_path / "d", tokenizer, on_bad_record="skip")
    with pytest.raises(OutputExistsError, match="unfinished run with other shards or settings"):
        tokenized(shards, tmp_path / "d", tokenizer)
    with pytest.raises(FormatError, match="record 0: not JSON"):
        tokenized(shards, tmp_path / "d", tokenizer, force=True)


def test_the_name_of_a_subset_has_a_limit(tmp_path: Path, tokenizer: Path, cli: Cli) -> None:
    """All names are held in memory and written to the manifest, whose size is limited."""
    names = ["a" * 255, "é" * 128, "b" * 100_000]
    records = [{"text": "x y", "meta": {"pile_set_name": name}} for name in names]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    table = pyarrow.table({"text": ["x y"] * 3, "meta.pile_set_name": names})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "terms.txt").write_text("x\n")
    for shard in ("in.jsonl", "in.parquet"):
        for command in (
            ["tokenize", tmp_path / shard, "-o", tmp_path / f"{shard}.d", "--tokenizer", tokenizer],
            ["count-ngrams", tmp_path / shard, "--by-subset", "-o", tmp_path / f"{shard}.n.tsv"],
            [
                "count-terms",
                tmp_path / "terms.txt",
                tmp_path / shard,
                "--by-subset",
                "-o",
                tmp_path / f"{shard}.t.tsv",
            ],
        ):
            done = cli(*command)
            assert done.returncode == 1
            assert "record 1: the name of its subset has 256 bytes, expected at most 255" in done.stderr
            done = cli(*command, "--on-bad-record", "skip")
            assert done.returncode == 0, done.stderr
    assert (
        TokenDataset(tmp_path / "in.jsonl.d").subsets
        == TokenDataset(tmp_path / "in.parquet.d").subsets
        == names[:1]
    )


def test_only_bad_records_are_no_dataset(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.jsonl").write_text("bad\n" * 7)
    with pytest.raises(FormatError, match=r"no documents: all records are empty or bad \(7 bad ones\)"):
        tokenized(tmp_path, tmp_path / "d", tokenizer, on_bad_record="skip")
    with pytest.raises(ConfigError, match="on-bad-record must be error or skip, got stop"):
        RecordConfig(on_bad_record="stop")


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.gz", "a.parquet", "a.txt.gz", "a.txt.zst"])
def test_a_shard_cut_short_is_told_and_mended(tmp_path: Path, tokenizer: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        write_parquet(path)
    else:
        path.write_bytes(gzip_members(LINES) if name.endswith(".gz") else zstandard.compress(LINES))
    whole = path.read_bytes()
    for keep in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(FormatError, match=rf"cut short.*{name}"):
            tokenized(path, tmp_path / "d", tokenizer)
    path.write_bytes(whole)
    assert tokenized(path, tmp_path / "d", tokenizer).is_new


def test_what_is_wrong_with_a_parquet_column_is_told(tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"n": [1], "bytes": [b"a"], "texts": [["a"]], "one": ["a"]})
    pyarrow.parquet.write_table(table, path)
    for field, message in {
        "text": r'no column "text"; there are: n, bytes, texts, one',
        "n": r'column "n" is INT64, expected strings',
        "texts": r'column "texts" is a list or struct, expected strings',
    }.items():
        with pytest.raises(FormatError, match=message):
            tokenized(path, tmp_path / "d", tokenizer, text_field=field)
    path.write_bytes(LINES)
    with pytest.raises(FormatError, match="does not end as a parquet file does"):
        tokenized(path, tmp_path / "d", tokenizer)


def test_a_subset_that_is_not_utf_8_is_a_bad_record(tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "a.parquet"
    subsets = [{"pile_set_name": name} for name in (b"Books", b"\xff", None)]
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b", "c"], "meta": subsets}), path)
    with pytest.raises(FormatError, match="the name of its subset is not UTF-8"):
        tokenized(path, tmp_path / "d", tokenizer)
    made = tokenized(path, tmp_path / "e", tokenizer, on_bad_record="skip")
    assert made is not None
    dataset = TokenDataset(tmp_path / "e")
    assert [dataset.origin(i)["subset"] for i in range(len(dataset))] == ["Books", None]


def test_files_that_cannot_be_read_are_told(tmp_path: Path, tokenizer: Path) -> None:
    config = TokenizeConfig(tokenizer=tokenizer)
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.jsonl"):
        run([tmp_path / "a.jsonl"], tmp_path / "d", config, threads=1)
    (tmp_path / "b.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl").chmod(0)
    if os.access(tmp_path / "b.jsonl", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PermissionError, match=r"b\.jsonl"):
        run([tmp_path / "b.jsonl"], tmp_path / "d", config, threads=1)


def test_standard_input_is_read_and_never_taken_for_done(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    command = ["tokenize", "-", "-o", tmp_path / "d", "--tokenizer", tokenizer]
    done = cli(*command, input=LINES.decode())
    assert done.returncode == 0, done.stderr
    assert "an interrupted run starts from the beginning" in done.stderr
    (tmp_path / "a.jsonl").write_bytes(LINES)
    tokenized(tmp_path / "a.jsonl", tmp_path / "file" / "d", tokenizer)
    assert dataset_bytes(tmp_path / "d") == dataset_bytes(tmp_path / "file" / "d")
    entry = json.loads((tmp_path / "d.manifest.json").read_text())["inputs"][1]
    assert (entry["path"], entry["bytes"]) == ("-", len(LINES))
    again = cli(*command, input='{"text": "other"}\n')
    assert again.returncode == 1
    assert "already exists; --force replaces it" in again.stderr
    assert cli(*command, "--force", input='{"text": "other"}\n').returncode == 0
    assert len(TokenDataset(tmp_path / "d")) == 1
    mixed = cli("tokenize", "-", tmp_path / "a.jsonl", "-o", tmp_path / "e", "--tokenizer", tokenizer)
    assert mixed.returncode == 2
    assert "cannot be read together" in mixed.stderr


def test_a_tokenizer_is_trained_on_every_kind_of_shard(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    write_parquet(tmp_path / "a.parquet")
    trained = []
    for name in ("a.jsonl", "a.parquet"):
        output = tmp_path / f"{name}.json"
        config = train_tokenizer.TrainTokenizerConfig(vocab_size=300)
        train_tokenizer.run([tmp_path / name], output, config, threads=2)
        trained.append(output.read_bytes())
    assert trained[0] == trained[1]
    (tmp_path / "b.jsonl").write_bytes(b"bad\n" + LINES)
    config = train_tokenizer.TrainTokenizerConfig(vocab_size=300, records=RecordConfig(on_bad_record="skip"))
    manifest, _ = train_tokenizer.run([tmp_path / "b.jsonl"], tmp_path / "b.json", config, threads=2)
    assert manifest.summary["n_bad_records"] == 1
    assert (tmp_path / "b.json").read_bytes() == trained[0]


MEASURED = """
import resource, sys
from pile_tools.cli import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_megabytes(shards: Path, prefix: Path, tokenizer: Path) -> int:
    arguments = ["tokenize", str(shards), "-o", str(prefix), "--tokenizer", str(tokenizer), "--threads", "2"]
    program = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return int(done.stdout.rsplit("peak ", 1)[1])


@pytest.mark.slow
def test_memory_is_level_but_for_a_giant_line(tmp_path: Path, tokenizer: Path) -> None:
    """However many records; and a small multiple of the line for those that are giants, many or one."""
    peaks = {}
    giant = json.dumps({"text": "many words é " * 1_000_000}).encode() + b"\n"
    for name, data in {
        "small": LINES,
        "large": LINES * 40,
        "giant": LINES + giant,
        "giants": (LINES + giant) * 5,
    }.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(data)
        peaks[name] = peak_megabytes(path, tmp_path / name, tokenizer)
    assert peaks["large"] < peaks["small"] + 60, peaks
    megabytes = len(giant) / 1e6
    assert peaks["giant"] < peaks["large"] + 12 * megabytes, peaks
    assert peaks["giants"] < peaks["giant"] + 8 * megabytes, peaks


@pytest.mark.slow
def test_jobs_killed_at_random_end_with_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for i in range(0, 12, 3):
        (shards / f"{i:02}.jsonl.gz").write_bytes(gzip_members(LINES * 6))
        (shards / f"{i + 1:02}.jsonl").write_bytes((LINES + b"bad\n") * 6)
        table = pyarrow.Table.from_pylist(RECORDS * 6)
        pyarrow.parquet.write_table(table, shards / f"{i + 2:02}.parquet", row_group_size=700)
    whole = tokenized(shards, tmp_path / "whole" / "d", tokenizer, on_bad_record="skip", threads=1)
    chance = random.Random(7)
    prefix, n_kills = tmp_path / "killed" / "d", 0
    arguments = ["tokenize", str(shards), "-o", str(prefix), "--tokenizer", str(tokenizer)]
    program = "from pile_tools.cli import main; main()"
    while not Path(f"{prefix}.idx").exists() and n_kills < 8:
        command = [sys.executable, "-c", program, *arguments, "--threads", "2", "--on-bad-record", "skip"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and not Path(f"{prefix}.partial").exists():
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        n_kills += 1
    result = tokenized(shards, prefix, tokenizer, on_bad_record="skip")
    assert dataset_bytes(prefix) == dataset_bytes(tmp_path / "whole" / "d")
    assert (
        Path(f"{prefix}.provenance").read_bytes()
        == Path(f"{tmp_path / 'whole' / 'd'}.provenance").read_bytes()
    )
    assert result.manifest.summary == whole.manifest.summary
    assert n_kills > 1


@pytest.mark.parametrize("job", ["tokenize", "count-ngrams"])
def test_a_stopped_job_on_files_and_a_pipe_starts_again(
    cli: Cli, tokenizer: Path, tmp_path: Path, job: str
) -> None:
    """Shards that were finished before the pipe are of no use to the next run."""
    for i in range(4):
        lines = (json.dumps({"text": f"one {i} {k} of {k * k}"}) + "\n" for k in range(3000))
        (tmp_path / f"{i}.jsonl").write_text("".join(lines))
    pipe = tmp_path / "p.jsonl"
    os.mkfifo(pipe)
    more = ["--n", "1-3", "--memory", "1MiB"] if job == "count-ngrams" else ["--tokenizer", tokenizer]
    output = tmp_path / ("o.tsv" if job == "count-ngrams" else "o")

    def run(last: str) -> subprocess.CompletedProcess[str]:
        writer = threading.Thread(target=pipe.write_text, args=(last,))
        writer.start()
        done = cli(job, *(tmp_path / f"{i}.jsonl" for i in range(4)), pipe, "-o", output, *more)
        writer.join()
        return done

    assert run("no record\n").returncode == 1
    assert (tmp_path / f"{output.name}.partial" / "state.json").exists()
    done = run('{"text": "last"}\n')
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / f"{output.name}.partial").exists()
