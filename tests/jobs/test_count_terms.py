"""Terms, pairs and Pythia's arithmetic rule: equal to the counts of slow, obvious implementations."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Run

import pile_tools
from pile_tools import timeline
from pile_tools.errors import ConfigError, PileError
from pile_tools.jobs import count_terms
from pile_tools.jobs.count_terms import (
    CountTermsConfig,
    TermList,
    count_in_order,
    count_in_shards,
    read_terms,
)
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as make_order
from pile_tools.manifest import read
from pile_tools.read import texts
from pile_tools.read.shards import find_shards

TIME = "minute|hour|day|week|month|year|decade"
PUNCT = re.escape(string.punctuation)
#: The original's expressions with the characters of a word in one class, which match the same texts.
LAZY = re.compile(rf"(?=( (\d){{1,5}} ([\w{PUNCT}]+\s+){{1,3}}(\d){{1,5}}))")
UNIT_A = re.compile(rf"(?=( (\d){{1,5}} ([\w{PUNCT}]+\s+){{0,3}}?({TIME})))")
UNIT_B = re.compile(rf"(?=( ({TIME}) ([\w{PUNCT}]+\s+){{0,3}}?(\d){{1,5}}))")


def arithmetic(row: str) -> Counter[str]:
    """Pythia's rule by the regular expressions that define it."""
    counts: Counter[str] = Counter()
    line = " " + row
    for match in LAZY.finditer(line):
        numbers = sorted(int(n) for n in re.findall(r"\d{1,5}", match.group(1)))
        counts.update(map(str, numbers))
        counts.update(f"{a}-{b}" for a, b in itertools.combinations(numbers, 2))
    for pattern in (UNIT_A, UNIT_B):
        for match in pattern.finditer(line):
            numbers = sorted(int(n) for n in re.findall(r"\d{1,5}", match.group(1)))
            units = re.findall(TIME, match.group(1))
            counts.update(f"{n}-{unit}" for n in numbers for unit in units)
    return counts


def rows_of(tokens: np.ndarray[Any, Any], folder: Path) -> pile_tools.Order:
    """An order of given rows, two per step."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens.astype("<u2").tofile(folder / "rows-00000-of-00000.bin")
    return pile_tools.open_order(folder, row_length=tokens.shape[1], batch_size=2)


def test_the_golden_counts_of_pythia(shared: Path, neox_tokenizer: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "dedup"
    truth = json.loads((golden / "pythia_freq_truth.json").read_text())
    rows = np.fromfile(golden / "train_windows.u16", "<u2").reshape(truth["windows"], truth["seq_len_plus_1"])
    # An even number of rows makes whole steps.
    blank = np.full((1, rows.shape[1]), 187, dtype=rows.dtype)
    order = rows_of(np.concatenate([rows, blank]), tmp_path / "rows")
    tokenizer = pile_tools.load_tokenizer(neox_tokenizer)
    for threads in (1, 2):
        found = timeline.count_arithmetic(order, [10, 38], tokenizer=tokenizer, threads=threads)
        assert found[1] == truth["counts"]
    texts = [tokenizer.decode(row.astype(np.uint32), skip_special_tokens=False) for row in rows]
    assert found[0] == dict(sum(map(arithmetic, texts[:20]), Counter()))


NUMBERS = ("1", "23", "45678", "123456", "٣", "a1", "²", "Ⅷ")
WORDS = ("x", "day", "days", "minute", "week", "hour", "year.", ",", "_", "-", "é", "日", "\u0301", "\ufffd")
SPACES = (" ", " ", " ", "  ", "\n", "\t", "\xa0", "\u200b", "\x1c")
FRAGMENTS = st.sampled_from([*NUMBERS, *WORDS, *SPACES])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(FRAGMENTS, max_size=40).map("".join), min_size=1, max_size=6))
def test_the_rule_equals_the_regular_expressions(
    texts: list[str], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    opened = pile_tools.load_tokenizer(tokenizer)
    ids = [opened.encode(text) for text in texts] * 2
    # Padded with an id that decodes to nothing.
    length = max(max(map(len, ids)), 1)
    rows = np.full((len(ids), length), 60_000, dtype=np.uint16)
    for row, tokens in zip(rows, ids, strict=True):
        row[: len(tokens)] = tokens
    order = rows_of(rows, tmp_path_factory.mktemp("rows") / "r")
    found = timeline.count_arithmetic(order, [len(texts)], tokenizer=opened, threads=1)
    expected: Counter[str] = Counter()
    for text in texts * 2:
        expected.update(arithmetic(text))
    assert found[0] == dict(expected)


def term_list(terms: Sequence[str], pairs: Sequence[tuple[int, int]] = ()) -> TermList:
    return TermList([term.encode() for term in terms], list(pairs), [])


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def count(
    shard: Path, folder: Path, terms: TermList, **config: Any
) -> tuple[list[list[str]], list[list[str]]]:
    count_in_shards([shard], folder / "t.tsv", terms, CountTermsConfig(**config), threads=2, force=True)
    pairs = folder / "t.pairs.tsv"
    return table(folder / "t.tsv")[1:], table(pairs)[1:] if terms.pairs else []


def lookahead(text: str, term: str, *, whole: bool, fold: bool) -> int:
    before, after = (r"(?<!\w)", r"(?!\w)") if whole else ("", "")
    return len(re.findall(f"{before}(?={re.escape(term)}{after})", text, re.IGNORECASE if fold else 0))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text("abAB é_É日1. ", max_size=40), min_size=1, max_size=6),
    terms=st.lists(st.text("abAB éÉ日1.", min_size=1, max_size=12), min_size=1, max_size=8),
    whole=st.booleans(),
    fold=st.booleans(),
)
def test_as_regular_expressions_count(
    texts: list[str], terms: list[str], whole: bool, fold: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("terms")
    (folder / "s.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    # Substrings of the texts too, so that long terms occur.
    terms = [*terms, *(text[i : i + 15] for text in texts for i in (0, 3) if text[i : i + 15])]
    rows, _ = count(folder / "s.jsonl", folder, term_list(terms), whole_words=whole, ignore_case=fold)
    for term, row in zip(terms, rows, strict=True):
        each = [lookahead(text, term, whole=whole, fold=fold) for text in texts]
        assert row == [term, str(sum(each)), str(sum(n > 0 for n in each))]


def test_the_golden_terms(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "dedup"
    truth = json.loads((golden / "term_truth.json").read_text())
    terms = [term["term"] for term in truth["terms"]]
    pairs = [(terms.index(a), terms.index(b)) for a, b, _ in truth["document_cooccurrence"]]
    rows, together = count(golden / "docs.jsonl", tmp_path, term_list(terms, pairs))
    assert rows == [
        [term["term"], str(term["overlapping_substring"]), str(term["documents"])] for term in truth["terms"]
    ]
    assert together == [[a, b, str(n)] for a, b, n in truth["document_cooccurrence"]]
    words, _ = count(golden / "docs.jsonl", tmp_path, term_list(terms), whole_words=True)
    for term, row in zip(truth["terms"], words, strict=True):
        # The truth is by \b, which is equal only for terms of word characters.
        if re.fullmatch(r"\w+", term["term"]):
            assert int(row[1]) == term["word_bounded_unicode"], term


def test_pairs_within_a_distance(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps({"text": "rain in Spain \n stays  in the plain"}))
    terms = term_list(["rain", "in", "plain"], [(0, 1), (0, 2), (1, 2)])
    _, together = count(tmp_path / "s.jsonl", tmp_path, terms, whole_words=True, within="3")
    assert [row[2] for row in together] == ["1", "0", "1"]
    _, together = count(tmp_path / "s.jsonl", tmp_path, terms, whole_words=True, within="6")
    assert [row[2] for row in together] == ["2", "1", "2"]


def test_subsets_add_up(shards: Path, tmp_path: Path) -> None:
    terms = term_list(["alpha", "a", "naïve"], [(0, 2)])
    for threads in (1, 2):
        output = tmp_path / f"{threads}.tsv"
        config = CountTermsConfig(by_subset=True)
        made, is_new = count_in_shards(find_shards([shards]), output, terms, config, threads=threads)
        assert is_new
    assert (tmp_path / "1.tsv").read_bytes() == (tmp_path / "2.tsv").read_bytes()
    header, *rows = table(tmp_path / "1.tsv")
    assert header[:3] == ["term", "occurrences", "documents"]
    assert header[3::2] == ["occurrences:Books", "occurrences:Code", "occurrences_without_subset"]
    for row in rows:
        assert int(row[1]) == sum(map(int, row[3::2])) > 0
        assert int(row[2]) == sum(map(int, row[4::2]))
    assert made.summary["n_documents"] == 1200


@pytest.fixture(scope="module")
def order(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    make_order(dataset, folder, OrderConfig(seq_length=64, steps=40, batch_size=4, seed=3))
    return folder


def test_by_checkpoint_as_counted_row_by_row(order: Path) -> None:
    opened = pile_tools.open_order(order)
    decoder = opened.tokenizer()
    terms, steps = ["alpha", "a", "delta don't", "ma"], [0, 1, 7, 40]
    query = term_list(terms, [(0, 1)]).query(CountTermsConfig(), 2)
    found = timeline.count_terms(opened, query, steps)
    occurrences, samples = np.zeros((40, 4), np.int64), np.zeros((40, 4), np.int64)
    together = np.zeros(40, np.int64)
    for step in range(40):
        for row in range(4):
            texts = []
            for _, document, start, length in opened.samples.spans(step * 4 + row, 1).tolist():
                ids = opened.dataset[document][start : start + length].astype(np.uint32)
                texts.append(decoder.decode(ids, skip_special_tokens=False))
            each = [sum(lookahead(t, term, whole=False, fold=False) for t in texts) for term in terms]
            occurrences[step] += each
            samples[step] += np.array(each) > 0
            together[step] += each[0] > 0 and each[1] > 0
    for i, step in enumerate(steps):
        assert found.occurrences[i].tolist() == occurrences[:step].sum(axis=0).tolist()
        assert found.samples[i].tolist() == samples[:step].sum(axis=0).tolist()
        assert found.pairs[i].tolist() == [together[:step].sum()]


@pytest.mark.parametrize("replaced", ["terms.txt", "pairs.txt"])
def test_a_list_replaced_while_it_is_read_is_told(
    tmp_path: Path, replaced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "terms.txt").write_text("a\nb\n")
    (tmp_path / "pairs.txt").write_text("a\tb\n")

    def read_then_replace(path: Path) -> list[str]:
        found = texts.read_texts(path)
        if path.name == replaced:
            path.rename(tmp_path / "old")
            path.write_bytes((tmp_path / "old").read_bytes())
        return found

    monkeypatch.setattr(count_terms, "read_texts", read_then_replace)
    with pytest.raises(PileError, match=f"changed while it was read.*{replaced}"):
        read_terms(tmp_path / "terms.txt", str(tmp_path / "pairs.txt"), tmp_path)


def test_the_order_that_is_counted_is_the_one_whose_checksum_is_recorded(order: Path, tmp_path: Path) -> None:
    file = order / "order.json"
    opened, before = pile_tools.open_order(order), file.read_bytes()
    (tmp_path / "terms.txt").write_text("a\n")
    terms = read_terms(tmp_path / "terms.txt", None, tmp_path)
    config = CountTermsConfig()
    try:
        file.write_bytes(before.replace(b"\n ", b" \n", 1))
        made, _ = count_in_order(
            opened, tmp_path / "n.tsv", terms, config, steps=[1], tokenizer=opened.tokenizer_file(), threads=1
        )
    finally:
        file.write_bytes(before)
    assert [entry["sha256"] for entry in made.inputs if entry["role"] == "order"] == [
        hashlib.sha256(before).hexdigest()
    ]


def test_errors_of_wrong_input(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    for content, message in (
        (b"", "holds no texts"),
        (b"a\n\nb\n", "a blank line.*line 2"),
        (b"a\n\xff\n", "not UTF-8.*line 2"),
    ):
        terms.write_bytes(content)
        with pytest.raises(PileError, match=message):
            read_terms(terms, None, tmp_path)
    terms.write_text("a\nb\na\n")
    assert read_terms(terms, "all", tmp_path).pairs == [(0, 1), (0, 2), (1, 2)]
    pairs = tmp_path / "pairs.tsv"
    for content, message in (("a b\n", "two terms separated by a tab"), ("a\tc\n", "'c' is not in")):
        pairs.write_text(content)
        with pytest.raises(PileError, match=message):
            read_terms(terms, str(pairs), tmp_path)
    terms.write_text("".join(f"t{i}\n" for i in range(3000)))
    with pytest.raises(ConfigError, match="at most 2,000"):
        read_terms(terms, "all", tmp_path)
    with pytest.raises(ConfigError, match="within must be"):
        CountTermsConfig(within="0")


def test_from_the_command_line(cli: Run, dataset: Path, shards: Path, order: Path, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("alpha\nbeta\nalpha\nnot there\n")
    output = tmp_path / "t.tsv"
    done = cli("count-terms", terms, shards, "-o", output, "--pairs", "all", "--plot", tmp_path / "p.svg")
    assert done.returncode == 0, done.stderr
    assert "3 of 4 terms found, 1 of them equal to others" in done.stdout
    made = read(tmp_path / "t.tsv.manifest.json")
    assert [entry["role"] for entry in made.inputs] == ["terms", *["shard"] * 4]
    assert [entry["path"] for entry in made.outputs] == ["t.pairs.tsv", "t.tsv"]
    assert "finished already" in cli("count-terms", terms, shards, "-o", output, "--pairs", "all").stdout
    (tmp_path / "u.pairs.tsv").write_text("of someone else\n")
    without_pairs = cli("count-terms", terms, shards, "-o", tmp_path / "u.tsv")
    assert (without_pairs.returncode, "together" in without_pairs.stdout) == (0, False)
    of_tokens = cli("count-terms", terms, dataset)
    assert of_tokens.returncode == 0, of_tokens.stderr
    assert of_tokens.stdout.split("\n")[1] == done.stdout.split("\n")[1]
    timed = cli("count-terms", terms, order, "--checkpoints", "10", "-o", tmp_path / "s.tsv")
    assert timed.returncode == 0, timed.stderr
    assert [row[1] for row in table(tmp_path / "s.tsv")[1:6]] == ["0", "10", "20", "30", "40"]
    numbers = cli("count-numbers", order, "-o", tmp_path / "n.tsv")
    assert numbers.returncode == 0, numbers.stderr
    assert read(tmp_path / "n.tsv.manifest.json").settings["rule"] == "pythia-arithmetic"
    assert cli("count-terms", terms).returncode == 2
    missing = cli("count-terms", tmp_path / "none.txt", shards)
    assert missing.returncode == 1
    assert "none.txt" in missing.stderr
