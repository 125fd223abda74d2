"""Searching a dataset by its index: against scans, counting by hand and golden truth; and bad input."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pile_tools
from pile_tools import ConfigError, FormatError, Index, PileError, Tokenizer, open_index, open_order, timeline
from pile_tools.jobs import tokenize
from pile_tools.jobs.index import IndexConfig, run
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as run_order
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards

Run = Callable[..., Any]


def write_dataset(prefix: Path, documents: list[list[int]]) -> Path:
    """A dataset of uint16 as another tool would write it."""
    lengths = np.array([len(document) for document in documents], dtype="<i4")
    tokens = np.array([id for document in documents for id in document], dtype="<u2")
    pointers = (
        np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype("<i8") * 2 if len(lengths) else np.zeros(0)
    )
    header = b"MMIDIDX\x00\x00" + np.array([1], "<u8").tobytes() + b"\x08"
    header += np.array([len(lengths), len(lengths) + 1], "<u8").tobytes()
    documents_at = np.arange(len(lengths) + 1, dtype="<i8").tobytes()
    prefix.with_name(prefix.name + ".bin").write_bytes(tokens.tobytes())
    prefix.with_name(prefix.name + ".idx").write_bytes(
        header + lengths.tobytes() + pointers.astype("<i8").tobytes() + documents_at
    )
    return prefix


@pytest.fixture(scope="module")
def dataset(shards: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of a dataset that other tests do not share: theirs has no index."""
    prefix = tmp_path_factory.mktemp("indexed") / "sample"
    tokenize.run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    return prefix


@pytest.fixture(scope="module")
def decoder(tokenizer: Path) -> Tokenizer:
    return Tokenizer.from_file(tokenizer)


@pytest.fixture(scope="module")
def indexed(dataset: Path) -> Index:
    run(dataset, IndexConfig())
    return open_index(dataset)


@pytest.fixture(scope="module")
def truth(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, list[dict[str, Any]]]:
    """The golden tokens as one document, as their truth was counted."""
    golden = shared / "golden" / "dedup"
    tokens = np.fromfile(golden / "tokens.u16", dtype="<u2").tolist()
    prefix = write_dataset(tmp_path_factory.mktemp("golden") / "d", [tokens])
    run(prefix, IndexConfig(texts=False, memory="300K"))
    return open_index(prefix), json.loads((golden / "query_truth.json").read_text())


def test_golden_counts_next_tokens_and_positions(truth: tuple[Index, list[dict[str, Any]]]) -> None:
    index, queries = truth
    for query in queries:
        assert index.count(query["q"]) == query["count"]
        # The truth holds the first 50 positions and the 20 most frequent next tokens.
        positions = index.positions(query["q"]).tolist()
        assert len(positions) == query["count"]
        assert positions[:50] == query["positions"]
        found = index.next_tokens(query["q"])
        pairs = dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True))
        assert all(pairs[id] == count for id, count in query["next"])
        assert found.counts[:20].tolist() == [count for _, count in query["next"]]
    counts = index.count_batch([query["q"] for query in queries])
    assert counts.tolist() == [query["count"] for query in queries]


def test_golden_counts_within_documents(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "dedup"
    tokens = np.fromfile(golden / "tokens.u16", dtype="<u2").tolist()
    starts = json.loads((golden / "doc_offsets.json").read_text())
    documents = [tokens[a:b] for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    run(write_dataset(tmp_path / "d", documents), IndexConfig(texts=False, memory="200K"))
    index = open_index(tmp_path / "d")
    assert index.core.n_segments > 4
    for n in (1, 2, 3, 5):
        naive = Counter(tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1))
        asked = [ngram for ngram, _ in naive.most_common(500)] + list(naive)[::97]
        counts = index.count_batch(np.array(asked))
        assert counts.tolist() == [naive[ngram] for ngram in asked]


def test_texts_are_counted_and_placed_as_in_the_decoded_documents(indexed: Index, decoder: Tokenizer) -> None:
    dataset = indexed.dataset
    decoded = [decoder.decode(ids.astype(np.uint32), False) for ids in dataset]
    for text in ["alpha", "a", "naïve 日", "本", "don't x_1", "x_1 alpha beta", "\n   ", "never in there"]:
        expected = sum(sum(d.startswith(text, at) for at in range(len(d))) for d in decoded)
        assert indexed.count(text) == expected
        occurrences = indexed.occurrences(text)
        assert len(occurrences) == expected
        for document, token, byte, n_tokens in occurrences.tolist():
            ids = dataset[document][token : token + n_tokens]
            assert indexed.core.decode(ids)[byte:].startswith(text.encode())


def test_queries_of_all_kinds_of_arrays_give_the_same(indexed: Index) -> None:
    ids = indexed.dataset[50][3:6]
    n = indexed.count(ids.tolist())
    assert n > 0
    for dtype in (np.uint16, np.int32, np.uint32, np.int64):
        assert indexed.count(ids.astype(dtype)) == n
        assert indexed.count_batch(np.stack([ids, ids]).astype(dtype)).tolist() == [n, n]
    assert indexed.count_batch([ids, ids[:2].tolist()], threads=1).tolist() == [n, indexed.count(ids[:2])]
    assert indexed.count_batch(["alpha", b"beta"]).tolist() == [indexed.count("alpha"), indexed.count("beta")]
    assert indexed.count_batch([]).tolist() == []
    assert pickle.loads(pickle.dumps(indexed.core)).count(ids) == n
    assert pickle.loads(pickle.dumps(indexed)).count(ids) == n


def test_a_copy_of_an_index_is_of_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "d", [[1, 2, 3]] * 5)
    run(tmp_path / "d", IndexConfig(texts=False))
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(open_index("d"))
    monkeypatch.chdir("/")
    assert pickle.loads(packed).count([1, 2]) == 5
    write_dataset(tmp_path / "d", [[1, 2, 4]] * 6)
    run(tmp_path / "d", IndexConfig(texts=False), force=True)
    with pytest.raises(PileError, match="was replaced since the index was opened"):
        pickle.loads(packed)


def test_what_follows_is_a_distribution(indexed: Index) -> None:
    ids = indexed.dataset[60][:4]
    found = indexed.next_tokens(ids)
    assert found.counts.tolist() == sorted(found.counts.tolist(), reverse=True)
    assert found.n_ends + found.counts.sum() == indexed.count(ids)
    assert found.probabilities.sum() == pytest.approx(1)
    never = [*ids.tolist(), 399, 398, *ids.tolist()]
    longest = indexed.next_tokens(never, longest=True)
    assert longest.n_context >= 4
    total = sum(indexed.probability(never, int(id)).value for id in longest.ids)
    assert total == pytest.approx(1)
    assert len(indexed.next_tokens([], longest=True).ids) == indexed.core.n_ids


def test_what_follows_a_text_is_told_whatever_its_tokens(indexed: Index, decoder: Tokenizer) -> None:
    for text in ["alpha", "be", "naïve 日", " x_1", "a"]:
        naive: Counter[int] = Counter()
        n_within = n_ends = 0
        for ids in indexed.dataset:
            parts = [indexed.core.decode(ids[i : i + 1]) for i in range(len(ids))]
            decoded, borders = b"".join(parts), np.cumsum([0, *map(len, parts)]).tolist()
            for at in range(len(decoded)):
                if decoded.startswith(text.encode(), at):
                    end = at + len(text.encode())
                    if end not in borders:
                        n_within += 1
                    elif end == borders[-1]:
                        n_ends += 1
                    else:
                        naive[int(ids[borders.index(end)])] += 1
        found = indexed.next_tokens(text)
        assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == naive
        assert (found.n_within, found.n_ends) == (n_within, n_ends)
    longest = indexed.next_tokens("not there: alpha", longest=True)
    assert 5 <= longest.n_context < len("not there: alpha")
    assert np.array_equal(
        longest.counts, indexed.next_tokens("not there: alpha"[-longest.n_context :]).counts
    )


def test_and_or(indexed: Index, decoder: Tokenizer) -> None:
    decoded = [decoder.decode(ids.astype(np.uint32), False) for ids in indexed.dataset]
    found = indexed.documents([["alpha beta", "gamma"], ["don't"]])
    expected = [i for i, d in enumerate(decoded) if ("alpha beta" in d or "gamma" in d) and "don't" in d]
    assert found["document"].tolist() == expected
    assert len(expected) > 10
    for within in (3, 8):
        near = indexed.documents([["alpha beta", "gamma"], ["don't"]], within=within)
        assert np.array_equal(near, found[found["n_tokens"] <= within])
    for document, token, n_tokens in near.tolist():
        part = indexed.core.decode(indexed.dataset[document][token : token + n_tokens]).decode()
        assert "don't" in part
        assert "alpha beta" in part or "gamma" in part


def test_when_gives_the_same_by_index_and_by_scan(dataset: Path, indexed: Index, tmp_path: Path) -> None:
    run_order(dataset, tmp_path, OrderConfig(seq_length=64, steps=40, batch_size=4))
    order = open_order(tmp_path)
    for queries in (["alpha", "naïve", " \n", "x_1 beta", "nowhere"], [[5, 6], [7]]):
        scanned = timeline.when(order, queries, index=None)
        found = timeline.when(order, queries, index=indexed.core)
        assert (scanned.by_index, found.by_index) == (False, True)
        assert np.array_equal(scanned.sightings, found.sightings)
        for name in ("n_occurrences", "n_beyond", "n_unreached"):
            assert np.array_equal(getattr(scanned, name), getattr(found, name))
        assert (scanned.n_tokens, scanned.n_without_bytes) == (found.n_tokens, found.n_without_bytes)


def test_an_index_of_another_dataset_is_refused_by_the_order(
    dataset: Path, truth: tuple[Index, Any], tmp_path: Path
) -> None:
    run_order(dataset, tmp_path, OrderConfig(seq_length=64, steps=4, batch_size=4))
    with pytest.raises(PileError, match="another dataset"):
        timeline.when(open_order(tmp_path), [[1]], index=truth[0].core)


def test_trace_finds_planted_copies(indexed: Index, decoder: Tokenizer) -> None:
    document = decoder.decode(indexed.dataset[80].astype(np.uint32), False)
    planted = document[11:140]
    text = f"Something that no one wrote. {planted} And that is all, 漢字 too."
    spans = indexed.trace(text, min_bytes=24)
    assert any(planted in span.text for span in spans)
    encoded = text.encode()
    for span in spans:
        assert encoded[span.start : span.end].decode() == span.text
        assert span.count == indexed.count(span.text) > 0
        assert 0 < len(span.occurrences) <= min(10, span.count)
    assert indexed.trace("short") == []
    assert indexed.trace("") == []


def test_bad_queries_are_told(indexed: Index, truth: tuple[Index, Any]) -> None:
    for query in ("", b"", []):
        with pytest.raises(ConfigError, match="empty"):
            indexed.count(query)
    with pytest.raises(ConfigError, match="n-gram 1 is empty"):
        indexed.count_batch([[1], []])
    # Neither is cut to an integer.
    for ask in (
        lambda: indexed.count_batch(np.array([[1.5, 2.0]])),
        lambda: indexed.count_batch(np.array([[2**63]], dtype=np.uint64)),
        lambda: indexed.probability([1.5], 2),
        lambda: indexed.probability([1], 2**63),
    ):
        with pytest.raises(ConfigError, match="not an integer or is beyond 64 bits"):
            ask()
    # U+FFFD is another text.
    with pytest.raises(ConfigError, match="not UTF-8"):
        indexed.next_tokens(b"\xff")
    with pytest.raises(ConfigError, match="without a tokenizer"):
        truth[0].count("text")
    with pytest.raises(ConfigError, match="more than 1 times"):
        indexed.occurrences("a", max_occurrences=1)
    with pytest.raises(ConfigError, match="no clauses"):
        indexed.documents([])
    with pytest.raises(ConfigError, match="a clause is empty"):
        indexed.documents([["a"], []])
    with pytest.raises(ConfigError, match="not valid Unicode"):
        indexed.count("\ud800")


def test_a_missing_foreign_or_damaged_index_is_told(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_index(tmp_path / "nothing")
    prefix = write_dataset(tmp_path / "d", [[1, 2, 3], [2, 3]])
    with pytest.raises(PileError, match="has no index yet"):
        open_index(prefix)
    run(prefix, IndexConfig(texts=False))
    assert open_index(prefix).count([2, 3]) == 2
    assert open_index(tmp_path / "d.index").count([2, 3]) == 2
    segment = tmp_path / "d.index" / "segment-00000"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-4])
    with pytest.raises(FormatError, match="segment-00000"):
        open_index(prefix)
    segment.write_bytes(whole)
    write_dataset(tmp_path / "d", [[1, 2, 3], [2, 4]])
    with pytest.raises(FormatError, match="built for another dataset"):
        open_index(prefix)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("first_document", 1),
        ("end_document", 2),
        ("end_document", 1 << 40),
        ("first_token", 1),
        ("n_tokens", 4),
    ],
)
def test_a_segment_of_other_documents_is_refused(tmp_path: Path, key: str, value: int) -> None:
    """An offset would be negative, and a search would end as a bug of ours."""
    prefix = write_dataset(tmp_path / "d", [[1, 2], [2, 1], [1]])
    run(prefix, IndexConfig(texts=False))
    for name, at in (("ranks", "segments"), ("segment-00000", "span")):
        path = tmp_path / "d.index" / name
        data = path.read_bytes()
        n_bytes = int.from_bytes(data[8:16], "little")
        header = json.loads(data[16 : 16 + n_bytes])
        span = header[at][0] if at == "segments" else header[at]
        assert span == {"first_document": 0, "end_document": 3, "first_token": 0, "n_tokens": 5}
        span[key] = value
        changed = json.dumps(header).encode()
        changed += b" " * (-len(changed) % 8)
        path.write_bytes(data[:8] + len(changed).to_bytes(8, "little") + changed + data[16 + n_bytes :])
    with pytest.raises(FormatError, match=r"which are not those of the dataset.*ranks"):
        open_index(prefix)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_tokenizer_that_is_no_file_is_told_at_once(
    shards: Path, tokenizer: Path, tmp_path: Path, kind: str
) -> None:
    """A pipe without a writer would make it wait for ever."""
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(tokenizer.read_bytes())
    tokenize.run(find_shards([shards]), tmp_path / "d", TokenizeConfig(tokenizer=copy), threads=1)
    run(tmp_path / "d", IndexConfig())
    copy.unlink()
    os.mkfifo(copy) if kind == "pipe" else copy.mkdir()
    with pytest.raises(FormatError, match=r"not a regular file .*tokenizer\.json"):
        open_index(tmp_path / "d").count("alpha")
    with pytest.raises(FormatError, match=r"not a regular file .*tokenizer\.json"):
        Tokenizer.from_file(copy)


def test_a_tokenizer_that_was_changed_since_normalizes_no_text(
    shards: Path, tokenizer: Path, tmp_path: Path, cli: Run
) -> None:
    """The bytes of its ids are the same with another normalizer."""
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(tokenizer.read_bytes())
    tokenize.run(find_shards([shards]), tmp_path / "d", TokenizeConfig(tokenizer=copy), threads=1)
    run(tmp_path / "d", IndexConfig())
    assert open_index(tmp_path / "d").tokenizer is not None
    values = json.loads(copy.read_text())
    values["normalizer"] = None if values["normalizer"] else {"type": "NFC"}
    copy.write_text(json.dumps(values))
    assert open_index(tmp_path / "d").tokenizer is None
    (tmp_path / "text").write_text("alpha beta")
    for command in (
        ["search", tmp_path / "d", "alpha", "--count"],
        ["trace-text", tmp_path / "d", tmp_path / "text"],
    ):
        done = cli(*command, "--tokenizer", copy)
        assert "is not the tokenizer file with which" in done.stderr
        assert "is not the tokenizer file with which" not in cli(*command).stderr


def test_an_open_index_has_no_tokenizer_of_a_dataset_that_replaced_its_own(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    old, new, found = tmp_path / "old.json", tmp_path / "new.json", find_shards([shards])
    old.write_bytes(tokenizer.read_bytes())
    values = json.loads(old.read_text())
    values["normalizer"] = None if values["normalizer"] else {"type": "NFC"}
    new.write_text(json.dumps(values))
    tokenize.run(found, tmp_path / "d", TokenizeConfig(tokenizer=old), threads=1)
    run(tmp_path / "d", IndexConfig())
    index = open_index(tmp_path / "d")
    tokenize.run(found[:1], tmp_path / "d", TokenizeConfig(tokenizer=new), threads=1, force=True)
    old.unlink()
    assert index.tokenizer is None


def test_no_tokens_no_places(tmp_path: Path) -> None:
    for documents in ([], [[], []]):
        prefix = write_dataset(tmp_path / f"d{len(documents)}", documents)
        run(prefix, IndexConfig(texts=False))
        index = open_index(prefix)
        assert (index.core.n_segments, index.count([1]), len(index.occurrences([1]))) == (0, 0, 0)


def test_command_line(dataset: Path, indexed: Index, tmp_path: Path, cli: Run) -> None:
    def told(*arguments: str | Path, code: int = 0) -> str:
        done = cli(*arguments)
        assert done.returncode == code, done.stderr
        assert code == 0 or len(done.stderr.strip().splitlines()) <= 3
        return str(done.stdout if code == 0 else done.stderr)

    n = indexed.count("alpha beta")
    assert f"occurs {n:,} times" in told("search", dataset, "alpha beta")
    found = json.loads(told("search", dataset, "alpha beta", "nowhere", "--count", "--json"))
    assert [query["count"] for query in found["queries"]] == [n, 0]
    rows = json.loads(told("search", dataset, "alpha beta", "--json"))["queries"][0]["occurrences"]
    assert len(rows) == n
    assert rows[0]["shard"].endswith(".jsonl")
    assert "a token follows" in told("search", dataset, "--ids", "5", "--next")
    asked = '[["alpha beta", [5]], ["naïve"]]'
    assert "one of each of 2 lists within 50 tokens: " in told(
        "search", dataset, "--cnf", asked, "--within", "50"
    )
    run_order(dataset, tmp_path, OrderConfig(seq_length=64, steps=40, batch_size=4))
    assert "first step" in told("search", dataset, "alpha beta", "--order", tmp_path)
    scanned, found = (told("when", tmp_path, "alpha beta", "--index", how) for how in ("none", "auto"))
    assert found.replace("searched by the index", "searched") == scanned
    text = tmp_path / "text.txt"
    text.write_text(
        "Someone wrote: " + indexed.core.decode(indexed.dataset[80][5:60]).decode(errors="ignore")
    )
    assert "1 part of at least 32 bytes" in told("trace-text", dataset, text)
    page = tmp_path / "page.html"
    told("trace-text", dataset, text, "--order", tmp_path, "-o", page)
    html = page.read_text()
    assert '<a class="m1" href="#s1">' in html
    assert "http" not in html
    (tmp_path / "empty.txt").write_text(" \n")
    for arguments, code, message in [
        (["search", dataset], 2, "give texts"),
        (["search", dataset, ""], 2, "empty"),
        (["search", dataset, "a", "--ids", "1"], 2, "give texts"),
        (["search", dataset, "--ids", "one"], 2, "expected ids"),
        (["search", dataset, "a", "--longest"], 2, "--next"),
        (["search", dataset, "a", "--within", "3"], 2, "--cnf"),
        (["search", dataset, "a", "--count", "--next"], 2, "--count goes without --next"),
        (["search", dataset, "--ids", "70000"], 2, "id 70000 cannot be stored as uint16"),
        (["search", dataset, "--cnf", "[[[70000]]]"], 2, "id 70000 cannot be stored as uint16"),
        (["search", dataset, "--cnf", "[["], 2, "not JSON"),
        (["search", dataset, "--cnf", '["a"]'], 2, "list of lists"),
        (["search", dataset, "--cnf", '[[""]]'], 2, "empty"),
        (["search", tmp_path / "none", "a"], 1, "No such file"),
        (["trace-text", dataset, tmp_path / "none.txt"], 1, "No such file"),
        (["trace-text", dataset, tmp_path / "empty.txt"], 1, "text is empty"),
        (["trace-text", dataset, text, "-o", "page.pdf"], 2, ".html"),
    ]:
        assert message in told(*arguments, code=code), arguments


@pytest.mark.parametrize("threads", [0, -1, 1025, 2**40, 2**70])
def test_threads_out_of_range_are_refused_by_every_function(
    indexed: Index, dataset: Path, shards: Path, tmp_path: Path, threads: int
) -> None:
    """Too many abort the process, as each allocates memory."""
    run_order(dataset, tmp_path / "o", OrderConfig(seq_length=8, steps=2, batch_size=2))
    order = open_order(tmp_path / "o")
    for call in (
        lambda: pile_tools.tokenize(shards, tmp_path / "d", tokenizer=tmp_path, threads=threads),
        lambda: pile_tools.dedup(shards, tmp_path / "out", threads=threads),
        lambda: timeline.when(order, [[1]], threads=threads),
        lambda: timeline.mixture(order, threads=threads),
        lambda: timeline.repeats(order, threads=threads),
        lambda: indexed.count_batch([[1]], threads=threads),
        lambda: indexed.trace("alpha", threads=threads),
    ):
        with pytest.raises(ConfigError, match="threads must be from 1 to 1,024"):
            call()


def test_a_dataset_has_a_name(tmp_path: Path) -> None:
    for prefix in ("", ".", "/"):
        with pytest.raises(ConfigError, match="has a name"):
            pile_tools.tokenize(tmp_path, prefix, tokenizer=tmp_path)
