"""What a query means: normalized as the dataset's text is, in every command; and the lists of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from tests.conftest import Run

from pile_tools import ConfigError, Index, PileError, Tokenizer, open_index, open_order, timeline
from pile_tools.commands.search import command as search_command
from pile_tools.jobs import index as index_job
from pile_tools.jobs import order as order_job
from pile_tools.jobs import token_shards, tokenize
from pile_tools.jobs.count_ngrams import CountNgramsConfig, count_tokens, count_words
from pile_tools.jobs.count_terms import (
    CountTermsConfig,
    TermList,
    count_in_dataset,
    count_in_shards,
    read_terms,
)
from pile_tools.order.order import Order
from pile_tools.read.shards import RecordConfig
from pile_tools.read.texts import read_texts
from pile_tools.tables import read_tsv
from pile_tools.tokenizers import TokenizerFile
from pile_tools.types import TermQuery

#: Texts that NFC changes, by letters, jamo, signs, ideographs and the order of marks; and added tokens.
DOCUMENTS = [
    "I met Zoe\u0301 there, Zoé too",
    "5 k\u2126 at 300 \u212a and 1 \u212b",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8",
    "\ufa10 \uf900 \u0958 a\u0301\u0323 a\u0323\u0301",
    "a <raw e\u0301> b <strip> c <norm e\u0301>",
    "plain text of the end",
    "e\u0301 <|endoftext|> text \U0001f468\u200d\U0001f469",
]
QUERIES = [
    "Zoe\u0301", "Zoé", "Zoe", "e\u0301", "é", "k\u2126", "kΩ", "\u212a", "K", "\u212b", "\u1112\u1161\u11ab",
    "한",
    "\u1112", "\ufa10", "\uf900", "\u0958", "a\u0301\u0323", "a\u0323\u0301", "<raw e\u0301>", "<raw é>",
    "b <strip> c", "<norm e\u0301>", "<norm é>", "text", "<|endoftext|>", "the end",
    "met Zoe\u0301 there, Zoe\u0301",
    "\U0001f468\u200d\U0001f469", "\u0301",
]  # fmt: skip

NORMALIZERS: dict[str, Any] = {
    "none": None,
    "NFC": {"type": "NFC"},
    "sequence": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFC"}]},
    "empty": {"type": "Sequence", "normalizers": []},
    "NFC and a space first": {"type": "NFC"},
    "NFC and added tokens": {"type": "NFC"},
}


def added_token(id: int, content: str, *, normalized: bool, strips: bool = False) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": strips, "rstrip": strips, "normalized": normalized}
    return {"id": id, "content": content, "special": False, **flags}


def write_tokenizer(trained: Path, path: Path, name: str) -> Path:
    made = json.loads(trained.read_text(encoding="utf-8"))
    made["normalizer"] = NORMALIZERS[name]
    if name == "NFC and a space first":
        made["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    if name == "NFC and added tokens":
        id = len(made["model"]["vocab"])
        made["added_tokens"] += [
            added_token(id, "<raw e\u0301>", normalized=False),
            added_token(id + 1, "<strip>", normalized=False, strips=True),
            added_token(id + 2, "<norm e\u0301>", normalized=True),
        ]
    path.write_text(json.dumps(made), encoding="utf-8")
    return path


@dataclass(frozen=True)
class World:
    """A tokenizer, shards, and the dataset, index and order of them."""

    tokenizer: Path
    shard: Path
    prefix: Path
    folder: Path

    @property
    def index(self) -> Index:
        return open_index(self.prefix)

    @property
    def order(self) -> Order:
        return open_order(self.folder)

    @property
    def texts(self) -> list[bytes]:
        """The documents as their tokens decode, without the one that ends them."""
        loaded = Tokenizer.from_file(self.tokenizer)
        dataset = self.index.dataset
        ids = [dataset[i][:-1].astype(np.uint32) for i in range(len(dataset))]
        return [loaded.decode(of, skip_special_tokens=False).encode() for of in ids]


def build(folder: Path, tokenizer: Path) -> World:
    shard = folder / "s.jsonl"
    shard.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS), encoding="utf-8")
    prefix = folder / "d"
    tokenize.run([shard], prefix, tokenize.TokenizeConfig(tokenizer=tokenizer), threads=1)
    index_job.run(prefix, index_job.IndexConfig())
    # One row holds all that is asked for whole.
    config = order_job.OrderConfig(seq_length=600, steps=1, batch_size=1)
    order_job.run(prefix, folder / "o", config)
    return World(tokenizer, shard, prefix, folder / "o")


@pytest.fixture(scope="module", params=NORMALIZERS)
def world(request: pytest.FixtureRequest, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return build(folder, write_tokenizer(tokenizer, folder / "tokenizer.json", request.param))


@pytest.fixture(scope="module")
def nfc(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("nfc")
    return build(folder, write_tokenizer(tokenizer, folder / "tokenizer.json", "NFC"))


def test_a_single_text_is_one_query(world: World) -> None:
    """Not one query for each of its letters."""
    text = "Zoe"
    for single in (text, text.encode()):
        assert world.index.count_batch(single).tolist() == world.index.count_batch([single]).tolist()
        expected = world.index.documents([[single]])
        assert np.array_equal(world.index.documents([single]), expected)
        assert np.array_equal(world.index.documents(single), expected)
        answer = timeline.when(world.order, single)
        assert answer.texts == [single if isinstance(single, bytes) else text.encode()]
        assert TermQuery(terms=single).terms == [single]
    with pytest.raises(ConfigError, match="expected a sequence of token ids"):
        world.index.count_batch([1, 2])
    with pytest.raises(ConfigError, match="neither a text nor a list of ids"):
        timeline.when(world.order, [1, 2])
    with pytest.raises(ConfigError, match="text 1: an id is not an integer"):
        timeline.when(world.order, [[1, 2], [1.5, 2]])


def occurrences(text: bytes, query: bytes) -> int:
    return sum(text.startswith(query, at) for at in range(len(text)))


def test_every_query_path_finds_what_the_tokenizer_makes_of_a_text(world: World, tmp_path: Path) -> None:
    index, texts = world.index, world.texts
    loaded = Tokenizer.from_file(world.tokenizer)
    held = [index.normalize(query) for query in QUERIES]
    expected = [sum(occurrences(text, query) for text in texts) for query in held]
    # The token that ends a document spells a text too, for a search of the dataset.
    ends = [occurrences(b"<|endoftext|>", query) * len(texts) for query in held]
    in_dataset = [n + more for n, more in zip(expected, ends, strict=True)]
    assert [index.count(query) for query in QUERIES] == in_dataset
    assert [len(index.occurrences(query)) for query in QUERIES] == in_dataset
    assert index.count_batch(QUERIES).tolist() == in_dataset
    for query, n in zip(QUERIES, in_dataset, strict=True):
        assert bool(len(index.documents([[query]]))) == bool(n)
        assert index.next_tokens(query).n_context == len(index.normalize(query))
    for finder in (None, index.core):
        answer = timeline.when(world.order, QUERIES, index=finder)
        assert answer.n_occurrences.tolist() == in_dataset
        assert answer.texts == held
        assert answer.changed == tuple(i for i, q in enumerate(QUERIES) if held[i] != q.encode())
    term_list, config = TermList(QUERIES, [(0, 7)], []), CountTermsConfig()
    source = TokenizerFile(world.tokenizer)
    count_in_dataset(world.prefix, tmp_path / "d.tsv", term_list, config, tokenizer=source, threads=1)
    made, _ = count_in_shards(
        [world.shard], tmp_path / "s.tsv", term_list, config, tokenizer=source, threads=1
    )
    table = list(read_tsv(tmp_path / "s.tsv"))
    assert [int(row[1]) for row in table[1:]] == expected
    assert table == list(read_tsv(tmp_path / "d.tsv"))
    assert list(read_tsv(tmp_path / "s.pairs.tsv")) == list(read_tsv(tmp_path / "d.pairs.tsv"))
    assert made.summary["n_normalized"] == len(answer.changed)
    assert made.input("tokenizer") is not None
    written = timeline.count_terms(world.order, term_list.query(config, 1), [1])
    as_text = timeline.count_terms(world.order, term_list.query(config, 1, loaded), [1])
    assert (written.occurrences <= as_text.occurrences).all()


def test_a_text_is_what_the_reference_normalizes(world: World) -> None:
    """Independent of our own code: `tokenizers` encodes a query and its normal form alike."""
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(world.tokenizer))
    ours = Tokenizer.from_file(world.tokenizer)
    for query in QUERIES:
        ids = reference.encode(query, add_special_tokens=False).ids
        decoded = reference.decode(ids, skip_special_tokens=False)
        assert ours.normalize(query).decode() == decoded.removeprefix(" ")


def test_a_query_as_bytes_or_ids_is_taken_as_it_is(nfc: World) -> None:
    query = "Zoe\u0301"
    assert (nfc.index.count(query), nfc.index.count(query.encode())) == (2, 0)
    answer = timeline.when(nfc.order, [query.encode()])
    assert (len(answer.sightings), answer.changed, answer.texts) == (0, (), [query.encode()])
    ids = Tokenizer.from_file(nfc.tokenizer).encode(query)
    assert nfc.index.normalize(query) == "Zoé".encode()
    assert nfc.index.count([*ids.tolist()]) >= 1
    with pytest.raises(ConfigError, match="not valid Unicode"):
        nfc.index.count("\ud800")
    with pytest.raises(ConfigError, match=r"text 1: .*not valid Unicode"):
        timeline.when(nfc.order, ["a", "\ud800"])


@pytest.mark.parametrize("id", [2**31, 2**63, 10**30, -(2**63) - 1])
def test_ids_that_no_dataset_holds_are_refused_or_not_found(nfc: World, id: int) -> None:
    with pytest.raises(ConfigError, match=r"cannot be stored|beyond 64 bits"):
        timeline.when(nfc.order, [[id]])
    for ask in (nfc.index.count, nfc.index.occurrences, nfc.index.positions, nfc.index.next_tokens):
        if abs(id) < 2**63:
            ask([id])
            continue
        with pytest.raises(ConfigError, match="beyond 64 bits"):
            ask([id])
    runner = CliRunner()
    for arguments in (["--ids", str(id)], ["--ids", "9" * 5000], ["--cnf", json.dumps([[[id]]])]):
        done = runner.invoke(search_command, [str(nfc.prefix), *arguments], standalone_mode=False)
        assert isinstance(done.exception, (ConfigError, click.UsageError)), arguments


def test_without_its_tokenizer_a_text_is_taken_as_written(
    nfc: World, tokenizer: Path, tmp_path: Path, cli: Run
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    own = write_tokenizer(tokenizer, moved / "tokenizer.json", "NFC")
    world = build(moved, own)
    kept = own.read_bytes()
    own.unlink()
    index = open_index(world.prefix)
    assert (index.tokenizer, index.count("Zoe\u0301"), index.count("Zoé")) == (None, 0, 2)
    done = cli("search", world.prefix, "Zoe\u0301", "--count")
    assert "texts are not normalized; give --tokenizer FILE" in done.stderr
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(kept)
    assert open_index(world.prefix, tokenizer=Tokenizer.from_file(elsewhere)).count("Zoe\u0301") == 2
    done = cli("search", world.prefix, "Zoe\u0301", "--count", "--tokenizer", elsewhere)
    assert done.stdout.split()[0] == "2", done.stderr
    other = json.loads(kept)
    other["model"]["vocab"] = dict(
        zip(other["model"]["vocab"], reversed(other["model"]["vocab"].values()), strict=True)
    )
    other["added_tokens"] = []
    with pytest.raises(ConfigError, match="another tokenizer"):
        open_index(world.prefix, tokenizer=Tokenizer(json.dumps(other).encode()))


def test_commands_say_that_the_text_was_normalized(nfc: World, tmp_path: Path, cli: Run) -> None:
    query = "Zoe\u0301"
    lines, strings = tmp_path / "q.txt", tmp_path / "q.jsonl"
    lines.write_bytes(b"\xef\xbb\xbf" + f"{query}\r\nplain\r\n".encode())
    strings.write_text(json.dumps(query) + "\n" + json.dumps("plain") + "\n")
    note = "normalized as the tokenizer does (NFC)"
    found = cli("search", nfc.prefix, query, "--count")
    assert (found.stdout.split()[0], note in found.stderr) == ("2", True)
    assert note not in cli("search", nfc.prefix, "Zoé", "--count").stderr
    for file in (lines, strings):
        found = cli("search", nfc.prefix, "--file", file, "--count", "--json")
        rows = json.loads(found.stdout)["queries"]
        unasked = {"occurrences": None, "next": None, "seen": None}
        assert rows[0] == {"query": query, "normalized": "Zoé", "count": 2} | unasked
        assert rows[1] == {"query": "plain", "normalized": None, "count": 1} | unasked
        assert f"1 of 2 texts were {note}" in found.stderr
        seen = cli("when", nfc.folder, "--file", file, "--json")
        rows = json.loads(seen.stdout)["queries"]
        assert [(row["query"], row["normalized"]) for row in rows] == [(query, "Zoé"), ("plain", None)]
        assert f"1 of 2 texts were {note}" in seen.stderr
    found = cli("search", nfc.prefix, "--cnf", json.dumps([[query], ["met"]]))
    assert "one of each of 2 lists: 1 document\n" in found.stdout
    assert note in found.stderr
    text = tmp_path / "answer.txt"
    text.write_bytes(f"\ufeffShe said: I met {query} there, {query} too.".encode())
    page = tmp_path / "page.html"
    traced = cli(
        "trace-text", nfc.prefix, text, "--json", "--min-bytes", "8", "-o", page, "--order", nfc.folder
    )
    document = json.loads(traced.stdout)
    (part,) = document["spans"]
    held = nfc.index.normalize(f"She said: I met {query} there, {query} too.")
    assert held[part["start"] : part["end"]].decode() == part["text"] == " I met Zoé there, Zoé too".lstrip()
    assert document["is_normalized"] is True
    assert part["seen"]["n"] > 0
    assert note in traced.stderr
    assert "I met Zoé there" in page.read_text(encoding="utf-8")
    terms = cli("count-terms", lines, nfc.prefix)
    assert "text: as the tokenizer normalizes it (normalizer: NFC), which changed 1 term" in terms.stdout
    terms = cli("count-terms", lines, nfc.shard)
    assert "text: as written" in terms.stdout
    normalized = cli("count-terms", lines, nfc.shard, "--tokenizer", nfc.tokenizer)
    assert "which changed 1 term" in normalized.stdout
    assert normalized.stdout.splitlines()[1].split() == ["2", "1", query]


#: What Python's `splitlines` also cuts at.
SEPARATORS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def texts_in(path: Path) -> list[str]:
    return read_texts(path)


def terms_in(path: Path) -> list[str]:
    return [str(term) for term in read_terms(path, None, path.parent).texts]


@pytest.mark.parametrize("read", [texts_in, terms_in])
def test_lists_are_cut_at_line_feeds_alone(read: Callable[[Path], list[str]], tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    lines = [f"a{separator}b" for separator in SEPARATORS] + [" c ", "\ufeffd", "e\rf", "g\r"]
    for mark, end, last in (
        (b"", b"\n", b""),
        (b"\xef\xbb\xbf", b"\n", b"\n"),
        (b"\xef\xbb\xbf", b"\r\n", b"\r\n"),
    ):
        path.write_bytes(mark + end.join(line.encode() for line in lines[:-1]) + last)
        assert read(path) == lines[:-1]
    path.write_bytes(b"g\r\r\n")
    assert read(path) == ["g\r"]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
        path.write_bytes("alpha\nbeta\n".encode(encoding))
        with pytest.raises(PileError, match=r"is UTF-(16|32).*expected UTF-8.*list\.txt"):
            read(path)
    for empty in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(empty)
        with pytest.raises(PileError, match="holds no texts"):
            read(path)


def test_pairs_and_hashes_are_lists_too(tmp_path: Path) -> None:
    terms, pairs, hashes = tmp_path / "t.txt", tmp_path / "p.tsv", tmp_path / "h.txt"
    terms.write_bytes(b"\xef\xbb\xbfalpha\r\nbe\x0cta\r\nalpha\r\n")
    pairs.write_bytes(b"\xef\xbb\xbfalpha\tbe\x0cta\r\n")
    term_list = read_terms(terms, str(pairs), tmp_path)
    assert list(term_list.texts) == ["alpha", "be\x0cta", "alpha"]
    assert [(term_list.texts[a], term_list.texts[b]) for a, b in term_list.pairs] == [("alpha", "be\x0cta")]
    digest = "0a" * 32
    hashes.write_bytes(
        b"\xef\xbb\xbf"
        + f"{digest}  my file\u2028.bin\r\n{digest} *b\x0c.bin\nc.bin {digest.upper()}\r\n\n".encode()
    )
    assert token_shards.read_hashes(hashes) == dict.fromkeys(
        ("my file\u2028.bin", "b\x0c.bin", "c.bin"), digest
    )
    hashes.write_text(f"{digest}  a.bin\n", encoding="utf-16")
    with pytest.raises(PileError, match="UTF-16"):
        token_shards.read_hashes(hashes)


#: Names that a subset may have, some of them those of columns.
SUBSETS = [
    "unknown", "count", "text", "tokens", "words", "term", "count:a", "a", "count_without_subset", "all",
    "null",
    "occurrences", "without_subset", "a\tb", "a\\tb", "a\nb", "a\rb", "a\\", "Books", "b:c",
    *(f"x{separator}y" for separator in SEPARATORS), None,
]  # fmt: skip


def test_tables_of_hostile_texts_and_names_have_columns(tokenizer: Path, tmp_path: Path, cli: Run) -> None:
    """Every TSV is read by a split at line feeds and tabs, and no two columns share a name."""
    controls = "".join(map(chr, [*range(1, 33), 0x7F, 0x85, 0x2028, 0x2029]))
    records = [
        {
            "text": f"a{controls[i % len(controls)]}b \\t {controls}",
            "meta": {} if name is None else {"pile_set_name": name},
        }
        for i, name in enumerate(SUBSETS * 2)
    ]
    shard, prefix = tmp_path / "s.jsonl", tmp_path / "d"
    shard.write_text("".join(json.dumps(record) + "\n" for record in records))
    source = TokenizerFile(tokenizer)
    tokenize.run([shard], prefix, tokenize.TokenizeConfig(tokenizer=tokenizer), threads=1)
    grams = CountNgramsConfig(lengths=(1, 2), by_subset=True)
    for suffix in (".tsv", ".parquet"):
        count_words([shard], tmp_path / f"w{suffix}", grams, memory=1 << 24, threads=1)
        count_tokens(prefix, tmp_path / f"g{suffix}", grams, tokenizer=source, memory=1 << 24, threads=1)
    terms = [*controls, f"a{controls[0]}b", "a\tb\\"]
    term_list, config = TermList(terms, [(0, 1)], []), CountTermsConfig(by_subset=True)
    count_in_shards([shard], tmp_path / "s.tsv", term_list, config, threads=1)
    count_in_dataset(prefix, tmp_path / "t.tsv", term_list, config, tokenizer=source, threads=1)
    assert list(read_tsv(tmp_path / "s.tsv")) == list(read_tsv(tmp_path / "t.tsv"))
    for name in ("w", "g", "s", "s.pairs", "t", "t.pairs"):
        data = (tmp_path / f"{name}.tsv").read_bytes().decode()
        header, *rows = [line.split("\t") for line in data.split("\n")[:-1]]
        assert len(set(header)) == len(header) > len(SUBSETS)
        assert {len(row) for row in rows} == {len(header)}
        assert "\r" not in data
        by_subset = [column for column in header if column.startswith(("count", "occurrences", "together"))]
        for row in rows:
            first, *others = (int(row[header.index(column)]) for column in by_subset)
            assert first == sum(others)
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("w", "g"):
        columns = parquet.read_table(tmp_path / f"{name}.parquet").column_names
        assert columns == next(iter(read_tsv(tmp_path / f"{name}.tsv")))
    for inputs in (prefix, shard):
        done = cli("count-ngrams", inputs, "--by-subset", "--top", "40")
        assert done.returncode == 0, done.stderr
        done = cli("count-ngrams", inputs, "--by-subset", "--top", "40", "--json")
        for ngram in json.loads(done.stdout)["ngrams"]:
            assert set(ngram["by_subset"]) == {name for name in SUBSETS if name is not None}
    order_job.run(prefix, tmp_path / "o", order_job.OrderConfig(seq_length=64, steps=200, batch_size=1))
    found = timeline.mixture(open_order(tmp_path / "o"))
    assert len(set(found.subsets)) == len(found.subsets)
    assert set(found.subsets) >= {"unknown", None}
    done = cli("mixture", tmp_path / "o", "--json")
    (line,) = json.loads(done.stdout)["intervals"]
    assert sum(line["n_tokens"].values()) + line["n_tokens_without_subset"] == found.n_tokens.sum()
    done = cli("mixture", tmp_path / "o")
    assert "unknown*" in done.stdout, done.stderr


def test_rows_are_counted_for_any_batch_size(tokenizer: Path, tmp_path: Path, cli: Run) -> None:
    """An order of fewer rows than a default step has steps of the size that was given."""
    loaded = Tokenizer.from_file(tokenizer)
    ids = loaded.encode("in 2 days, 1 day 5 alpha")
    rows = np.zeros((5, len(ids)), "<u2")
    rows[:] = ids
    folder = tmp_path / "rows"
    folder.mkdir()
    np.resize(rows.ravel(), 5 * 2049).astype("<u2").tofile(folder / "rows-00000-of-00000.bin")
    terms = tmp_path / "terms.txt"
    terms.write_text("alpha\n")
    for size, steps in (("1", ["0", "2", "4", "5"]), ("2", ["0", "2"])):
        how = ("--batch-size", size, "--checkpoints", "2", "--tokenizer", tokenizer, "-o")
        done = cli("count-terms", terms, folder, *how, tmp_path / f"t{size}.tsv")
        assert done.returncode == 0, done.stderr
        counted = list(read_tsv(tmp_path / f"t{size}.tsv"))[1:]
        assert [row[1] for row in counted] == steps
        assert int(counted[-1][2]) > 100
        done = cli("count-numbers", folder, *how, tmp_path / f"n{size}.tsv")
        assert done.returncode == 0, done.stderr
        opened = open_order(folder, batch_size=int(size))
        expected = timeline.count_arithmetic(opened, [int(step) for step in steps], tokenizer=loaded)[-1]
        last = {
            row[0]: int(row[2])
            for row in list(read_tsv(tmp_path / f"n{size}.tsv"))[1:]
            if row[1] == steps[-1]
        }
        assert last == expected
        assert last["1"] > 100


def test_a_bad_record_rule_is_kept_with_a_tokenizer(nfc: World, tmp_path: Path) -> None:
    shard = tmp_path / "bad.jsonl"
    shard.write_bytes(b'{"text": "Zoe\\u0301"}\n{"text": 3}\n')
    config = CountTermsConfig(records=RecordConfig(on_bad_record="skip"))
    made, _ = count_in_shards(
        [shard],
        tmp_path / "t.tsv",
        TermList(["Zoé"], [], []),
        config,
        tokenizer=TokenizerFile(nfc.tokenizer),
        threads=1,
    )
    assert (made.summary["n_bad_records"], made.summary["n_occurrences"]) == (1, 1)
