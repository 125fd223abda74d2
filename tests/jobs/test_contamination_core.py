"""The core finds what a slow implementation of the rule in Python finds."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_tools import _core
from pile_tools.errors import ConfigError, OutputExistsError
from pile_tools.types import ContaminationSearch, ItemMatches, PartTotals

PASSAGE, QUESTION, ANSWER, CHOICE = range(4)
NEAR = 64

Part = tuple[int, int, str]


def words(text: str) -> list[str]:
    """The words of a text: NFKC, case folding, NFKC; a letter or number, then letters, marks and numbers."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = []
    state = ""
    for c in text:
        kind = unicodedata.category(c)[0]
        if kind == "M":
            found[-1:] = [found[-1] + c] if state else found[-1:]
        elif kind not in "LN":
            state = ""
        elif "\u3040" <= c <= "\u30ff" or "\u4e00" <= c <= "\u9fff":
            found.append(c)
            state = "single"
        elif state == "word":
            found[-1] += c
        else:
            found.append(c)
            state = "word"
    return found


@dataclass
class Reference:
    """The rule over all documents, without an index of any kind."""

    parts: list[Part]
    texts: list[str]
    ngram: int
    threshold: float
    max_gap: int

    def __post_init__(self) -> None:
        self.words = [words(text) for _, _, text in self.parts]
        self.documents = [words(text) for text in self.texts]
        self.lengths = [0 if len(of) < 4 else min(len(of), self.ngram) for of in self.words]

    def grams(self, part: int) -> list[tuple[str, ...]]:
        n, of = self.lengths[part], self.words[part]
        return [tuple(of[i : i + n]) for i in range(len(of) - n + 1)] if n else []

    def weight(self, gram: tuple[str, ...]) -> float:
        n = len(gram)
        n_with = sum(
            any(tuple(of[i : i + n]) == gram for i in range(len(of) - n + 1)) for of in self.documents
        )
        return math.log((1 + len(self.texts)) / (1 + n_with))

    def is_telling(self, part: int) -> bool:
        if not self.lengths[part]:
            return False
        least = min(math.log((1 + len(self.texts)) / 2), math.log(1000))
        total = sum(self.weight(gram) for gram in set(self.grams(part)))
        return not self.texts or (total > 1e-12 and total > least - 1e-9)

    def found(self, part: int, document: int) -> dict[str, Any] | None:
        """The match of a part in a document."""
        if not self.is_telling(part):
            return None
        of, n, own = self.documents[document], self.lengths[part], self.words[part]
        weights = {gram: self.weight(gram) for gram in self.grams(part)}
        total = sum(weights.values())
        whole, at = [], 0
        while at + len(own) <= len(of):
            if of[at : at + len(own)] == own:
                whole.append((at, at + len(own), 1.0))
                at += len(own)
            else:
                at += 1
        kind = 2
        regions = whole
        if whole:
            kind = 0 if self.parts[part][2].strip() in self.texts[document] else 1
        else:
            hits = [i for i in range(len(of) - n + 1) if tuple(of[i : i + n]) in weights]
            runs: list[list[int]] = []
            for i in hits:
                if runs and i - (runs[-1][-1] + n) <= self.max_gap:
                    runs[-1].append(i)
                else:
                    runs.append([i])
            for run in runs:
                score = sum(weights[gram] for gram in {tuple(of[i : i + n]) for i in run}) / total
                if score > self.threshold - 1e-9:
                    regions.append((run[0], run[-1] + n, score))
        if not regions:
            return None
        answers, n_choices = [], 0
        if self.parts[part][1] == QUESTION:
            for other, (item, role, _) in enumerate(self.parts):
                if item == self.parts[part][0] and self.words[other] and role in (ANSWER, CHOICE):
                    near = max(self.near(other, of, start, end) for start, end, _ in regions)
                    if role == ANSWER:
                        answers.append(near)
                    else:
                        n_choices += near > self.threshold - 1e-9
        return {
            "kind": kind,
            "score": max(score for *_, score in regions),
            "n": len(regions),
            "answer": max(answers) if answers else math.nan,
            "n_choices": n_choices,
        }

    def near(self, part: int, of: list[str], start: int, end: int) -> float:
        own, n = self.words[part], self.lengths[part]

        def windows(n_words: int) -> list[list[str]]:
            reach = NEAR + n_words
            return [of[max(0, start - reach) : start], of[end : end + reach]]

        if any(w[i : i + len(own)] == own for w in windows(len(own)) for i in range(len(w) - len(own) + 1)):
            return 1.0
        if not self.is_telling(part):
            return 0.0
        grams = set(self.grams(part))
        near = windows(min(len(own), NEAR))
        there = {tuple(w[i : i + n]) for w in near for i in range(len(w) - n + 1)} & grams
        return sum(map(self.weight, there)) / sum(map(self.weight, grams))


def search(folder: Path, **settings: Any) -> ContaminationSearch:
    given = {"threshold": 0.8, "max_gap": 16, "threads": 2, "job": "job", "discard": False}
    given = {"lists_bytes": True, **given, **settings}
    return ContaminationSearch(folder=folder, **given)


def find(
    parts: list[Part], texts: list[str], folder: Path, ngram: int = 8, **settings: Any
) -> tuple[ItemMatches, PartTotals]:
    """Finds the parts in texts that are the records of two shards."""
    shards = [folder / "0.jsonl", folder / "1.jsonl"]
    for number, shard in enumerate(shards):
        half = texts[: len(texts) // 2] if number == 0 else texts[len(texts) // 2 :]
        shard.write_text("".join(json.dumps({"text": text}) + "\n" for text in half), encoding="utf-8")
    items = _core.BenchmarkItems(max((part[0] for part in parts), default=-1) + 1, parts, ngram)
    matches, totals, summary = _core.shards_contamination(
        items, shards, search(folder / "scratch", **settings)
    )
    assert summary["n_documents"] == len(texts)
    return matches, totals


def rows(matches: ItemMatches, n_first: int) -> dict[tuple[int, int], dict[str, Any]]:
    """The matches by part and document."""
    found = {}
    n_occurrences = np.bincount(matches["occurrences"][:, 0], minlength=len(matches["part"]))
    for i, part in enumerate(matches["part"].tolist()):
        document = int(matches["document"][i]) + n_first * int(matches["shard"][i])
        assert (part, document) not in found
        found[part, document] = {
            "kind": int(matches["kind"][i]),
            "score": float(matches["score"][i]),
            "n": int(n_occurrences[i]),
            "answer": float(matches["answer_score"][i]),
            "n_choices": int(matches["n_choices"][i]),
        }
    return found


WORD = st.sampled_from(["a", "b", "c", "d", "A", "É", "e\u0301", "東", "京", "x1"])
GAP = st.sampled_from([" ", " ", " ", ", ", "\n", "-", "... ", " \u2014 "])


def text(most: int) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(WORD, GAP), max_size=most).map(lambda pairs: "".join(w + g for w, g in pairs))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_matches_equal_the_rule(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 3))
    parts: list[Part] = []
    for item in range(n_items):
        parts.append((item, data.draw(st.sampled_from([PASSAGE, QUESTION])), data.draw(text(24))))
        for role in data.draw(st.lists(st.sampled_from([ANSWER, CHOICE]), max_size=2)):
            parts.append((item, role, data.draw(text(7))))
    texts = data.draw(st.lists(text(40), max_size=6))
    # Parts within documents: whole, cut, and with words between.
    for _ in range(data.draw(st.integers(0, 4))):
        _, _, part = data.draw(st.sampled_from(parts))
        cut = part[data.draw(st.integers(0, 3)) : len(part) - data.draw(st.integers(0, 3))]
        middle = " zz" * data.draw(st.integers(0, 5)) + " "
        at = data.draw(st.integers(0, len(cut)))
        answer = parts[-1][2]
        texts.append(f"{data.draw(text(9))}{cut[:at]}{middle}{cut[at:]} {data.draw(text(9))} {answer}")
    ngram, max_gap = data.draw(st.integers(4, 7)), data.draw(st.sampled_from([0, 1, 3, 16]))
    threshold = data.draw(st.sampled_from([0.3, 0.8, 1.0]))
    reference = Reference(parts, texts, ngram, threshold, max_gap)
    with tempfile.TemporaryDirectory() as folder:
        matches, totals = find(parts, texts, Path(folder), ngram, threshold=threshold, max_gap=max_gap)
    found = rows(matches, len(texts) // 2)
    for part in range(len(parts)):
        assert totals["n_words"][part] == len(reference.words[part])
        assert totals["is_telling"][part] == reference.is_telling(part)
        for document in range(len(texts)):
            expected, got = reference.found(part, document), found.pop((part, document), None)
            if expected is None or got is None:
                # Sums are in another order: a score at the threshold may be on either side of it.
                near = expected or got
                assert near is None or abs(near["score"] - threshold) < 1e-6, (parts[part], texts[document])
            else:
                assert got == pytest.approx(expected, abs=1e-9, nan_ok=True), (parts[part], texts[document])
    assert not found


FILLER = [f"Document {i} talks of nothing but number {i * 37 + 5} and its {i} friends." for i in range(50)]
QUESTION_TEXT = "Which river, flowing north, did the surveyors name after their late cook?"


@pytest.mark.parametrize("max_gap", [0, 5, 64])
def test_n_grams_of_a_region_are_at_most_the_gap_apart(tmp_path: Path, max_gap: int) -> None:
    passage = [f"term{i}" for i in range(30)]
    halves = [" ".join(half) for half in (passage[:15], passage[15:])]
    texts = [f"{halves[0]}{' zz' * n} {halves[1]}" for n in (max_gap, max_gap + 1)] + FILLER
    matches, _ = find([(0, PASSAGE, " ".join(passage))], texts, tmp_path, threshold=0.5, max_gap=max_gap)
    assert matches["document"].tolist() == [0]
    if max_gap:
        # The 8 n-grams of each half are in two of 52 documents, the 7 across the border in none.
        two, none = 16 * math.log(53 / 3), 7 * math.log(53)
        assert matches["score"].tolist() == pytest.approx([two / (two + none)])


@pytest.mark.parametrize("is_before", [False, True])
def test_what_is_near_a_question_does_not_depend_on_other_items(tmp_path: Path, is_before: bool) -> None:
    # The other item is in every document, between question and answer and beyond the answer. With it, more
    # words around the question are kept on disk.
    other = ["another", "item", "has", "these", "six", "words"]
    long = [f"long{i}" for i in range(200)]
    ends = {"one word": ["yes"], "three words": ["red", "blue", "green"], "whole": long, "end": long[-20:]}
    cases = list(itertools.product(ends, [0, 57, 61, 62, 63, 64, 65, 119, 120, 121, 130, 170]))
    texts, parts = [], []
    for item, (name, n_between) in enumerate(cases):
        question = [f"q{item}w{i}" for i in range(9)]
        between = [f"w{i}" for i in range(n_between)]
        if n_between > 12:
            between[n_between // 2 : n_between // 2 + 6] = other
        runs = [question, between, ends[name], other, ["zz"] * 150]
        texts.append(" ".join(itertools.chain(*(runs[::-1] if is_before else runs))))
        answer = long if name == "end" else ends[name]
        parts += [(item, QUESTION, " ".join(question)), (item, ANSWER, " ".join(answer))]
    scores = []
    for n, more in enumerate(([], [(len(cases), QUESTION, " ".join(other))])):
        (tmp_path / str(n)).mkdir()
        found = rows(find(parts + more, texts, tmp_path / str(n))[0], len(texts) // 2)
        scores.append([found[2 * item, item]["answer"] for item in range(len(cases))])
    assert scores[0] == scores[1]
    for (name, n_between), score in zip(cases, scores[0], strict=True):
        if name == "end":
            # One of its n-grams of 8 words is within twice 64 words.
            assert (score > 0) == (n_between <= 120), n_between
        else:
            assert (score == 1) == (n_between <= 64), (name, n_between)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same(tmp_path: Path, threads: int) -> None:
    texts = [f"{filler} {QUESTION_TEXT}" if i % 7 == 0 else filler for i, filler in enumerate(FILLER * 40)]
    parts = [(0, QUESTION, QUESTION_TEXT), (1, QUESTION, FILLER[3])]
    results = []
    for name, n in (("one", 1), ("several", threads)):
        (tmp_path / name).mkdir()
        results.append(find(parts, texts, tmp_path / name, threads=n))
    for a, b in zip(*results, strict=True):
        np.testing.assert_equal(a, b)
    assert len(results[0][0]["part"]) > 200


def test_at_most_a_thousand_documents_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    texts = [QUESTION_TEXT] * 1200 + FILLER * 200
    matches, totals = find([(0, QUESTION, QUESTION_TEXT)], texts, tmp_path)
    assert totals["n_documents"].tolist() == [1200]
    assert matches["document"].tolist() == list(range(1000))


def test_scratch_of_another_job_is_not_discarded_unless_told(tmp_path: Path) -> None:
    parts = [(0, QUESTION, QUESTION_TEXT)]
    find(parts, FILLER, tmp_path)
    with pytest.raises(OutputExistsError, match="finished shards"):
        find(parts, FILLER, tmp_path, job="other")
    find(parts, FILLER, tmp_path, job="other", discard=True)


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    for wrong in ({"threshold": 0.0}, {"threshold": 1.1}, {"threshold": math.nan}, {"max_gap": 65}):
        with pytest.raises(ConfigError):
            find([(0, QUESTION, QUESTION_TEXT)], FILLER, tmp_path, **wrong)
    for ngram in (3, 65):
        with pytest.raises(ConfigError, match="4 to 64"):
            _core.BenchmarkItems(0, [], ngram)
    with pytest.raises(ConfigError, match="role"):
        _core.BenchmarkItems(1, [(0, 4, "a")], 8)
