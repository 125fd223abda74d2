"""N-grams of tokens and of words: counts equal to those of a Counter, for any memory limit."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Run

import pile_tools
from pile_tools.errors import ConfigError, FormatError, OutputExistsError
from pile_tools.jobs.count_ngrams import (
    CountNgramsConfig,
    count_tokens,
    count_words,
    parse_lengths,
    rank_points,
)
from pile_tools.manifest import read
from pile_tools.read.shards import RecordConfig, find_shards
from pile_tools.scratch_folders import MARKER
from pile_tools.tables import column_of
from pile_tools.tokenizers import find_tokenizer

MAGIC = b"MMIDIDX\0\0"


def write_dataset(prefix: Path, documents: Sequence[Sequence[int]], code: int = 8) -> Path:
    """A token dataset written by numpy: uint16 with code 8, int32 with code 4."""
    dtype = np.dtype("<u2" if code == 8 else "<i4")
    lengths = np.array([len(tokens) for tokens in documents], dtype="<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]) * dtype.itemsize
    prefix.parent.mkdir(parents=True, exist_ok=True)
    flat = np.array([token for tokens in documents for token in tokens], dtype=dtype)
    prefix.with_name(prefix.name + ".bin").write_bytes(flat.tobytes())
    n = len(documents)
    head = MAGIC + np.uint64(1).tobytes() + np.uint8(code).tobytes() + np.array([n, n + 1], "<u8").tobytes()
    arrays = (
        lengths.tobytes() + pointers[:n].astype("<i8").tobytes() + np.arange(n + 1, dtype="<i8").tobytes()
    )
    prefix.with_name(prefix.name + ".idx").write_bytes(head + arrays)
    return prefix


def naive(documents: Sequence[Sequence[Any]], n: int, *, across: bool = False) -> Counter[tuple[Any, ...]]:
    """The counts of a Counter."""
    streams = [[token for tokens in documents for token in tokens]] if across else documents
    return Counter(tuple(s[i : i + n]) for s in streams for i in range(len(s) - n + 1))


def rows(table: Path) -> list[list[str]]:
    return [line.split("\t") for line in table.read_text(encoding="utf-8").split("\n")[1:-1]]


def expected_rows(
    documents: Sequence[Sequence[int]], lengths: Sequence[int], across: bool
) -> list[list[str]]:
    return [
        [" ".join(map(str, gram)), str(count)]
        for n in lengths
        for gram, count in sorted(naive(documents, n, across=across).items())
    ]


def count(prefix: Path, table: Path, config: CountNgramsConfig, **how: Any) -> dict[str, Any]:
    how = {"memory": 1 << 28, "threads": 1} | how
    made, _ = count_tokens(prefix, table, config, tokenizer=None, **how)
    return made.summary


documents_of = st.lists(st.lists(st.integers(0, 4), max_size=40), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=documents_of, across=st.booleans(), code=st.sampled_from([4, 8]), threads=st.integers(1, 3))
def test_as_a_counter(
    documents: list[list[int]],
    across: bool,
    code: int,
    threads: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("ngrams")
    prefix = write_dataset(folder / "d", documents, code)
    config = CountNgramsConfig(lengths=(1, 2, 3, 7), across_documents=across)
    summary = count(prefix, folder / "t.tsv", config, threads=threads)
    assert rows(folder / "t.tsv") == expected_rows(documents, config.lengths, across)
    for length in summary["lengths"]:
        counts = naive(documents, length["n"], across=across)
        assert (length["n_distinct"], length["n_occurrences"]) == (len(counts), sum(counts.values()))


@pytest.mark.parametrize("kind", ["cross_document", "within_document"])
def test_the_golden_counts(shared: Path, tmp_path: Path, kind: str) -> None:
    golden = shared / "golden" / "dedup"
    flat = np.fromfile(golden / "tokens.u16", "<u2")
    starts = [*json.loads((golden / "doc_offsets.json").read_text()), len(flat)]
    ends = itertools.pairwise(starts)
    prefix = write_dataset(tmp_path / "d", [flat[a:b].tolist() for a, b in ends if a < b])
    truth = json.loads((golden / "ngram_truth.json").read_text())[kind]
    for n, of in truth.items():
        dataset = pile_tools.TokenDataset(prefix)
        tokens, counts = pile_tools.ngrams(dataset, int(n), across_documents=kind == "cross_document")
        assert (len(counts), counts.sum(), (counts == 1).sum()) == (
            of["distinct"],
            of["total"],
            of["singletons"],
        )
        order = np.lexsort((*(tokens[:, i] for i in reversed(range(int(n)))), -counts))[:50]
        assert [[tokens[i].tolist(), counts[i]] for i in order] == of["top50"]
        hashed = hashlib.sha256()
        for gram, c in zip(tokens, counts, strict=True):
            hashed.update(gram.astype("<u2").tobytes() + np.uint64(c).tobytes())
        assert hashed.hexdigest() == of["sha256_of_sorted(ngram_u16le||count_u64le)"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """A dataset of 60,000 tokens, whose counts exceed the minimum memory."""
    source = np.random.default_rng(0)
    documents = [source.zipf(1.3, 600).clip(max=3000).tolist() for _ in range(100)]
    return write_dataset(tmp_path_factory.mktemp("large") / "d", documents), documents


@pytest.mark.parametrize("threads", [1, 2])
def test_little_memory_spills_and_changes_nothing(
    large: tuple[Path, list[list[int]]], tmp_path: Path, threads: int
) -> None:
    prefix, documents = large
    config = CountNgramsConfig(lengths=(2, 3))
    summary = count(prefix, tmp_path / "t.tsv", config, memory=1, threads=threads)
    assert rows(tmp_path / "t.tsv") == expected_rows(documents, (2, 3), False)
    assert summary == count(prefix, tmp_path / "u.tsv", config)
    assert (tmp_path / "t.tsv").read_bytes() == (tmp_path / "u.tsv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "t.tsv",
        "t.tsv.manifest.json",
        "u.tsv",
        "u.tsv.manifest.json",
    ]


def test_top_and_min_count(large: tuple[Path, list[list[int]]], tmp_path: Path) -> None:
    prefix, documents = large
    counts = naive(documents, 2)
    count(prefix, tmp_path / "t.tsv", CountNgramsConfig(lengths=(2,), top=50), memory=1)
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:50]
    assert rows(tmp_path / "t.tsv") == [[" ".join(map(str, gram)), str(c)] for gram, c in best]
    summary = count(prefix, tmp_path / "m.tsv", CountNgramsConfig(lengths=(2,), min_count=7))
    frequent = sorted((gram, c) for gram, c in counts.items() if c >= 7)
    assert rows(tmp_path / "m.tsv") == [[" ".join(map(str, gram)), str(c)] for gram, c in frequent]
    assert summary["lengths"][0]["n_retained"] == len(frequent)
    assert summary["lengths"][0]["n_distinct"] == len(counts)


def test_subsets_and_texts(dataset: Path, tokenizer: Path, tmp_path: Path) -> None:
    opened, decoder = pile_tools.TokenDataset(dataset), pile_tools.load_tokenizer(tokenizer)
    source = find_tokenizer(tokenizer)
    config = CountNgramsConfig(lengths=(2,), by_subset=True)
    made, is_new = count_tokens(
        dataset, tmp_path / "t.parquet", config, tokenizer=source, memory=1 << 28, threads=2
    )
    assert is_new
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert list(table) == ["tokens", "text", "count", "count:Books", "count:Code", "count_without_subset"]
    assert table["tokens"] == sorted(table["tokens"])
    of: dict[str, list[list[int]]] = {name: [] for name in list(table)[3:]}
    for i, tokens in enumerate(opened):
        origin = opened.origin(i)
        assert origin is not None
        of[column_of("count", origin["subset"])].append(tokens.tolist())
    for name, documents in of.items():
        counts = naive(documents, 2)
        assert {tuple(g): c for g, c in zip(table["tokens"], table[name], strict=True) if c} == dict(counts)
    assert table["count"] == [sum(c) for c in zip(*(table[name] for name in of), strict=True)]
    decoded = [decoder.decode(gram, skip_special_tokens=False) for gram in table["tokens"]]
    assert table["text"] == decoded
    assert made.inputs[0]["fingerprint"] == opened.fingerprint


def texts_of(shards: Path) -> Iterator[tuple[str, str]]:
    import io

    import zstandard

    for path in find_shards([shards]):
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
        for line in data.splitlines():
            record = json.loads(line)
            yield record["text"], column_of("count", record["meta"].get("pile_set_name"))


@pytest.mark.parametrize(("memory", "threads"), [(1 << 28, 1), (1 << 28, 2), (1, 1), (1, 2)])
def test_words_as_a_counter(shards: Path, tmp_path: Path, memory: int, threads: int) -> None:
    config = CountNgramsConfig(lengths=(1, 3), by_subset=True)
    made, _ = count_words(find_shards([shards]), tmp_path / "t.tsv", config, memory=memory, threads=threads)
    header = (tmp_path / "t.tsv").read_text().split("\n")[0].split("\t")
    assert header == ["words", "count", "count:Books", "count:Code", "count_without_subset"]
    expected = []
    of = {name: [text.split() for text, subset in texts_of(shards) if subset == name] for name in header[2:]}
    for n in (1, 3):
        counts = {name: naive(documents, n) for name, documents in of.items()}
        grams = sorted({" ".join(g).encode(): g for c in counts.values() for g in c}.items())
        for text, gram in grams:
            each = [counts[name][gram] for name in header[2:]]
            expected.append([text.decode(), *map(str, [sum(each), *each])])
    assert rows(tmp_path / "t.tsv") == expected
    assert [entry["role"] for entry in made.inputs] == ["shard"] * 4
    assert all(len(entry["sha256"]) == 64 for entry in made.inputs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_words_are_those_of_str_split(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    folder = tmp_path_factory.mktemp("words")
    (folder / "s.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = CountNgramsConfig(lengths=(1, 2))
    count_words([folder / "s.jsonl"], folder / "t.parquet", config, memory=1 << 24, threads=1)
    table = pytest.importorskip("pyarrow.parquet").read_table(folder / "t.parquet").to_pydict()
    expected = []
    for n in (1, 2):
        counts = naive([text.split() for text in texts], n)
        expected += sorted((" ".join(g).encode(), c) for g, c in counts.items())
    assert [text.encode() for text in table["words"]] == [text for text, _ in expected]
    assert table["count"] == [c for _, c in expected]


def test_case_is_ignored_on_request(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps({"text": "The the THE Straße STRASSE ÄB äb K\u212a"}))
    config = CountNgramsConfig(ignore_case=True)
    count_words([tmp_path / "s.jsonl"], tmp_path / "t.tsv", config, memory=1 << 24, threads=1)
    assert rows(tmp_path / "t.tsv") == [
        ["kk", "1"],
        ["strasse", "1"],
        ["straße", "1"],
        ["the", "3"],
        ["äb", "2"],
    ]


def test_errors_of_wrong_input(dataset: Path, tmp_path: Path) -> None:
    config = CountNgramsConfig
    for wrong in ({"lengths": ()}, {"lengths": (0,)}, {"min_count": 0}, {"top": 0}):
        with pytest.raises(ConfigError):
            config(**wrong)
    assert parse_lengths("1-3,5") == (1, 2, 3, 5)
    for text in ("", "a", "1-", "-2", "3-1", "2,5-3"):
        with pytest.raises(ConfigError):
            CountNgramsConfig(lengths=parse_lengths(text))
    with pytest.raises(ConfigError, match=r"written as \.tsv or \.parquet"):
        count(dataset, tmp_path / "t.csv", config())
    with pytest.raises(ConfigError, match="in words, not in tokens"):
        count(dataset, tmp_path / "t.tsv", config(ignore_case=True))
    with pytest.raises(ConfigError, match="counted up to n = 33"):
        count(dataset, tmp_path / "t.tsv", config(lengths=(40,)))
    foreign = write_dataset(tmp_path / "f", [[1, 2]], 4)
    with pytest.raises(ConfigError, match="subsets of the documents are unknown"):
        count(foreign, tmp_path / "t.tsv", config(by_subset=True))
    labels = write_dataset(tmp_path / "l", [[1, 2], [3, -100]], 4)
    with pytest.raises(FormatError, match=r"id -100 in document 1; negative ids are labels.*\(.*/l\)"):
        count(labels, tmp_path / "t.tsv", config())
    (tmp_path / "s.jsonl").write_text('{"text": "a b"}\n{"text": 1}\n')
    with pytest.raises(FormatError, match="record 1"):
        count_words([tmp_path / "s.jsonl"], tmp_path / "t.tsv", config(), memory=1 << 24, threads=1)
    skip = config(records=RecordConfig(on_bad_record="skip"))
    made, _ = count_words([tmp_path / "s.jsonl"], tmp_path / "t.tsv", skip, memory=1 << 24, threads=1)
    assert (made.summary["n_documents"], made.summary["n_bad_records"]) == (1, 1)


def test_another_tokenizer_is_another_request(dataset: Path, tokenizer: Path, tmp_path: Path) -> None:
    table, other = tmp_path / "t.tsv", tmp_path / "other.json"
    other.write_bytes(tokenizer.read_bytes() + b"\n")
    how = {"config": CountNgramsConfig(), "memory": 1 << 24, "threads": 1}
    assert count_tokens(dataset, table, tokenizer=find_tokenizer(tokenizer), **how)[1]  # type: ignore[arg-type]
    assert not count_tokens(dataset, table, tokenizer=find_tokenizer(tokenizer), **how)[1]  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="other inputs"):
        count_tokens(dataset, table, tokenizer=find_tokenizer(other), **how)  # type: ignore[arg-type]


def test_finished_output_is_kept(dataset: Path, tmp_path: Path) -> None:
    how = {"tokenizer": None, "memory": 1 << 24, "threads": 1}
    table = tmp_path / "t.tsv"
    assert count_tokens(dataset, table, CountNgramsConfig(), **how)[1]  # type: ignore[arg-type]
    assert not count_tokens(dataset, table, CountNgramsConfig(), **how)[1]  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="min_count = 1, not 2"):
        count(dataset, table, CountNgramsConfig(min_count=2))
    (tmp_path / "mine.tsv").write_text("mine")
    with pytest.raises(OutputExistsError, match="not from pile-tools"):
        count(dataset, tmp_path / "mine.tsv", CountNgramsConfig())


def test_too_small_a_disk_is_an_error_before_the_work(
    large: tuple[Path, list[list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(FormatError, match="may need 1 MiB of disk here, where 1 MiB are free"):
        count(large[0], tmp_path / "t.tsv", CountNgramsConfig(lengths=(3,)), memory=1)
    # Counts that fit in memory need no disk.
    count(large[0], tmp_path / "t.tsv", CountNgramsConfig(lengths=(3,)), memory=1 << 28)


def test_rank_points_are_corners_of_the_curve() -> None:
    assert rank_points([(1, 3), (4, 1), (9, 1)]) == [[1, 9], [2, 4], [3, 1], [5, 1]]
    assert rank_points([]) == []
    points = rank_points([(i, 1000) for i in range(1, 1000)])
    assert points[0] == [1, 999]
    assert points[-1] == [999_000, 1]
    assert len(points) < 1500


def test_from_the_command_line(cli: Run, dataset: Path, shards: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    done = cli("count-ngrams", dataset, "--n", "1-2", "-o", table, "--plot", tmp_path / "p.html")
    assert done.returncode == 0, done.stderr
    assert "2-grams:" in done.stdout
    assert "<polyline" in (tmp_path / "p.html").read_text()
    assert read(tmp_path / "t.tsv.manifest.json").kind == "ngrams"
    again = cli("count-ngrams", dataset, "--n", "1-2", "-o", table)
    assert "is finished already" in again.stdout
    other = cli("count-ngrams", dataset, "--n", "1-3", "-o", table)
    assert other.returncode == 1
    assert "made before with n = [1, 2], not [1, 2, 3]" in other.stderr
    beside = cli("count-ngrams", dataset, "--n", "1-2", "-o", table.with_suffix(".parquet"))
    assert beside.returncode == 0, beside.stderr
    assert table.with_suffix(".parquet").exists()
    assert cli("verify", table).returncode == 0
    printed = cli("count-ngrams", shards, "--top", "3", "--by-subset")
    assert printed.returncode == 0, printed.stderr
    assert "words (1-grams)" in printed.stdout
    assert "Books" in printed.stdout
    assert cli("count-ngrams", dataset, "--memory", "lots").returncode == 2
    assert cli("count-ngrams", dataset, "--n", "x").returncode == 2
    assert cli("count-ngrams", tmp_path / "none").returncode == 1


@pytest.mark.parametrize("command", ["count-ngrams", "count-terms"])
def test_a_dataset_that_is_being_replaced_is_not_called_missing(
    cli: Run, dataset: Path, tmp_path: Path, command: str
) -> None:
    for path in dataset.parent.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    prefix, scratch = tmp_path / dataset.name, tmp_path / f"{dataset.name}.partial"
    scratch.mkdir()
    (scratch / MARKER).touch()
    for name in (f"{dataset.name}.manifest.json", f"{dataset.name}.idx"):
        (tmp_path / name).rename(scratch / name)
    terms = tmp_path / "terms.txt"
    terms.write_text("a\n")
    done = cli(command, *([terms] if command == "count-terms" else []), prefix, "-o", tmp_path / "out.tsv")
    assert done.returncode == 1
    assert "is being replaced; try again" in done.stderr


def command(prefix: Path, table: Path) -> list[str]:
    program = "from pile_tools.cli import main; main()"
    arguments = ["count-ngrams", str(prefix), "--n", "1-8", "-o", str(table), "--memory", "4KiB"]
    return [sys.executable, "-c", program, *arguments, "--threads", "1"]


def test_a_killed_job_resumes(large: tuple[Path, list[list[int]]], tmp_path: Path) -> None:
    prefix, documents = large
    table = tmp_path / "t.tsv"
    process = subprocess.Popen(command(prefix, table), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    state = tmp_path / "t.tsv.partial" / "state.json"
    deadline = time.monotonic() + 60
    while not (state.exists() and len(json.loads(state.read_text())["saved"]["state"]["finished"]) >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not table.exists()
    stopped = json.loads(state.read_text())
    first = state.parent / stopped["saved"]["state"]["runs"][0]["name"]
    written = first.stat().st_mtime_ns if first.exists() else None
    refused = count_or_error(prefix, table, CountNgramsConfig(lengths=(2,)))
    assert "finished files of an unfinished run" in refused
    # A run with other memory and threads resumes from the same files.
    how = {"tokenizer": None, "memory": 1 << 18, "threads": 2}
    after_refusal = first.stat().st_mtime_ns if first.exists() else None
    assert after_refusal == written
    count_tokens(prefix, table, CountNgramsConfig(lengths=tuple(range(1, 9))), **how)  # type: ignore[arg-type]
    assert rows(table) == expected_rows(documents, range(1, 9), False)
    assert not (tmp_path / "t.tsv.partial").exists()


@pytest.mark.parametrize("n_read", [0, 3])
def test_a_stopped_job_starts_again_if_a_shard_has_another_size(
    tmp_path: Path, write_shard: Callable[..., Path], n_read: int
) -> None:
    shards = [
        write_shard(tmp_path / f"{i}.jsonl", [{"text": f"one {i} {k} of {k * k}"} for k in range(1000)])
        for i in range(4)
    ]
    config, table = CountNgramsConfig(lengths=(1, 3)), tmp_path / "t.tsv"
    reported: list[int] = []

    def stop(n_bytes: int) -> None:
        reported.append(n_bytes)
        if (tmp_path / "t.tsv.partial" / "state.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_words(shards, table, config, memory=1, threads=1, on_progress=stop)
    assert (tmp_path / "t.tsv.partial" / "state.json").exists()
    with shards[n_read].open("a") as file:
        file.write('{"text": "one more"}\n')
    count_words(shards, table, config, memory=1, threads=1)
    count_words(shards, tmp_path / "other.tsv", config, memory=1 << 28, threads=1)
    assert table.read_bytes() == (tmp_path / "other.tsv").read_bytes()


def count_or_error(prefix: Path, table: Path, config: CountNgramsConfig) -> str:
    with pytest.raises(OutputExistsError) as error:
        count(prefix, table, config)
    return str(error.value)


def test_a_full_disk_is_a_clear_error_and_no_loss(
    large: tuple[Path, list[list[int]]], tmp_path: Path
) -> None:
    prefix, documents = large

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    table = tmp_path / "t.tsv"
    environment = {**os.environ}
    full = subprocess.run(
        command(prefix, table), preexec_fn=limit, capture_output=True, text=True, env=environment
    )
    assert full.returncode == 1, full.stderr
    assert "error: File too large (" in full.stderr
    assert "raise the limit of the size of files (ulimit -f) and run the same command again" in full.stderr
    assert not table.exists()
    again = subprocess.run(command(prefix, table), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert rows(table) == expected_rows(documents, range(1, 9), False)
