"""`when` against a byte search: a thousand spans of every kind, seen where they are and nowhere else."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pile_tools import Order, Tokenizer, open_order, timeline
from pile_tools.jobs import order, tokenize, train_tokenizer
from pile_tools.jobs.order import OrderConfig
from pile_tools.read.shards import find_shards
from pile_tools.timeline import When

#: Spans of each kind. A span is a text cut from a document or from a row, none twice in its kind.
N_SPANS = 1000

#: A span that occurs more often than this is left out: it makes the test slow, and it is no harder to find.
MOST = 200

Numbers = NDArray[np.int64]

#: What is compared of each sighting.
COLUMNS = (
    "text",
    "document",
    "byte",
    "token",
    "n_tokens",
    "epoch",
    "n_parts",
    "part",
    "sample",
    "offset",
    "length",
)


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of every id, by its spelling in the vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelling = {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
    names = (tokenizer.id_to_token(id) or "" for id in range(tokenizer.vocab_size))
    # Added tokens of spaces are spelt as they are.
    return [bytes(spelling.get(c, ord(c) & 0xFF) for c in name) for name in names]


class World:
    """An order over documents, and what of them a search by hand needs."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self.order: Order = open_order(folder)
        self.tokenizer = tokenizer
        self.table = token_bytes(tokenizer)
        dataset = self.order.dataset
        self.lengths: Numbers = np.array([len(dataset[i]) for i in range(len(dataset))], np.int64)
        #: First token of each document, and the end of the last.
        self.firsts: Numbers = np.concatenate([[0], np.cumsum(self.lengths)])
        tokens = np.concatenate([dataset[i] for i in range(len(dataset))]).tolist()
        sizes = [len(self.table[id]) for id in tokens]
        self.text = b"".join(self.table[id] for id in tokens)
        #: The token in which each byte stands, and the first byte of each token.
        self.token_of: Numbers = np.repeat(np.arange(len(tokens)), sizes)
        self.starts: Numbers = np.concatenate([[0], np.cumsum(sizes)])
        self.doc_idx, self.shuffle_idx = (self._array(name) for name in ("doc_idx", "shuffle_idx"))

    def _array(self, name: str) -> Numbers:
        found: Numbers = np.load(next(self.order.path.parent.glob(f"*_{name}.npy"))).astype(np.int64)
        return found

    @property
    def n_samples(self) -> int:
        """Samples that the run sees: fewer than the order has."""
        assert self.order.steps is not None
        assert self.order.batch_size is not None
        return self.order.steps * self.order.batch_size

    @cached_property
    def documents(self) -> list[bytes]:
        """The decoded text of each document."""
        ends = self.starts[self.firsts]
        return [self.text[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]

    def occurrences(self, texts: list[bytes]) -> Numbers:
        """Text, document and first byte in all text of every occurrence within one document."""
        found = [(n, at) for n, text in enumerate(texts) for at in finds(self.text, text)]
        number, at = np.array(found, np.int64).reshape(-1, 2).T
        ends = self.starts[self.firsts]
        document = np.searchsorted(ends, at, side="right") - 1
        length = np.array([len(text) for text in texts])[number]
        inside = at + length <= ends[document + 1]
        return np.stack([number, document, at], axis=1)[inside]

    def expected(self, texts: list[bytes]) -> tuple[Numbers, dict[str, Numbers]]:
        """Every sighting of the run, and by text the places, those beyond the run and those in no row."""
        number, document, at = self.occurrences(texts).T
        last_byte = at + np.array([len(text) for text in texts])[number] - 1
        token, last_token = self.token_of[at], self.token_of[last_byte]
        byte = at - self.starts[self.firsts[document]]
        # Each copy of the document in the string of all epochs.
        places = np.argsort(self.doc_idx, kind="stable")
        n_copies = np.bincount(self.doc_idx, minlength=len(self.lengths))
        first_place = np.concatenate([[0], np.cumsum(n_copies)])
        string = np.concatenate([[0], np.cumsum(self.lengths[self.doc_idx])])
        of, epoch = expanded(n_copies[document])
        shift = string[places[first_place[document[of]] + epoch]] - self.firsts[document[of]]
        first, last = token[of] + shift, last_token[of] + shift
        # Each row that holds any token of it: row j holds tokens j * length to j * length + length.
        length, n_rows = self.order.seq_length, len(self.shuffle_idx)
        low, high = np.maximum((first + length - 1) // length - 1, 0), np.minimum(last // length, n_rows - 1)
        # A row with only the token that it shares with the next or the last one is no part of several tokens.
        is_more = last > first
        low += is_more & (first == (low + 1) * length)
        high -= is_more & (last == high * length)
        copy, part = expanded(np.maximum(high - low + 1, 0))
        row = low[copy] + part
        start = row * length
        is_whole = (start <= first[copy]) & (last[copy] <= start + length)
        is_held = np.bincount(copy, is_whole, minlength=len(of)) > 0
        is_reached = is_held | (last <= n_rows * length)
        keep = np.where(is_held[copy], is_whole, is_reached[copy])
        copy, part, row, start, is_whole = (values[keep] for values in (copy, part, row, start, is_whole))
        sample = np.argsort(self.shuffle_idx)[row]
        n_parts = np.where(is_whole, 1, (high - low + 1)[copy])
        begin = np.maximum(first[copy], start)
        end = np.minimum(last[copy], start + length)
        hit = of[copy]
        seen = {
            "text": number[hit],
            "document": document[hit],
            "byte": byte[hit],
            "token": (token - self.firsts[document])[hit],
            "n_tokens": (last - first + 1)[copy],
            "epoch": epoch[copy],
            "n_parts": n_parts,
            "part": np.where(is_whole, 0, part),
            "sample": sample,
            "offset": begin - start,
            "length": end - begin + 1,
        }
        # A cut text is seen if all its parts are; one in a row's shared token is seen in either row.
        late = sample >= self.n_samples
        is_beyond = np.where(is_whole, late, (np.bincount(copy, late, minlength=len(of)) > 0)[copy])
        counted = is_beyond & (is_whole | (part == 0))
        counts = {
            "n_occurrences": np.bincount(number, minlength=len(texts)),
            "n_beyond": np.bincount(number[hit][counted], minlength=len(texts)),
            "n_unreached": np.bincount(number[of][~is_reached], minlength=len(texts)),
        }
        return np.stack([seen[name] for name in COLUMNS], axis=1)[~is_beyond], counts

    def rows(self) -> Iterator[tuple[int, list[list[int]], list[bytes]]]:
        """Samples of the run with their spans (row, document, start, tokens) and the bytes of each token."""
        tokens = self.order.samples.read(0, self.n_samples)
        spans = self.order.samples.spans(0, self.n_samples)
        of_rows = np.split(spans, np.flatnonzero(np.diff(spans[:, 0])) + 1)
        for sample, (row, ids) in enumerate(zip(of_rows, tokens.tolist(), strict=True)):
            yield sample, row.tolist(), [self.table[id] for id in ids]


def expanded(counts: Numbers) -> tuple[Numbers, Numbers]:
    """For n of each: the number of what it is of, and which of its n it is."""
    of = np.repeat(np.arange(len(counts)), counts)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)


def finds(text: bytes, wanted: bytes) -> Iterator[int]:
    """Every place of some bytes, overlapping ones too."""
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


Cut = Callable[[World, random.Random], bytes]


def cut_words(world: World, source: random.Random) -> bytes:
    """One to four whole words."""
    text = source.choice(world.documents)
    words = list(re.finditer(rb"[A-Za-z]+", text))
    if not words:
        return b""
    first = source.randrange(len(words))
    last = min(first + source.randrange(4), len(words) - 1)
    return text[words[first].start() : words[last].end()]


def cut_within_words(world: World, source: random.Random) -> bytes:
    """From within a word to within the same or one behind it."""
    text = source.choice(world.documents)
    inside = [m.start() + 1 for m in re.finditer(rb"(?<=[A-Za-z])[A-Za-z]", text)]
    if len(inside) < 20:
        return b""
    first = source.randrange(len(inside) - 16)
    start, end = inside[first] - 1, inside[first + source.randrange(1, 16)] - 1
    assert text[start - 1 : start + 1].isalpha()
    assert text[end - 1 : end + 1].isalpha()
    return text[start:end]


def cut_cjk(world: World, source: random.Random) -> bytes:
    """Chinese and Japanese characters, one to twelve."""
    text = source.choice(world.documents).decode("utf-8", "surrogateescape")
    runs = re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]+", text)
    if not runs:
        return b""
    run = source.choice(runs)
    start = source.randrange(len(run))
    return run[start : start + source.randint(1, 12)].encode()


def cut_within_characters(world: World, source: random.Random) -> bytes:
    """From within a character, or to within one."""
    text = source.choice(world.documents)
    inside = [m.start() for m in re.finditer(rb"[\x80-\xbf]", text)]
    if not inside:
        return b""
    border, length = source.choice(inside), source.randint(1, 30)
    return text[border : border + length] if source.random() < 0.5 else text[max(border - length, 0) : border]


def cut_white_space(world: World, source: random.Random) -> bytes:
    """White space, or what stands between two stretches of it, with a part of each."""
    text = source.choice(world.documents)
    runs = list(re.finditer(rb"[ \t\n\r]{2,}", text))
    if not runs:
        return b""
    first = source.randrange(len(runs))
    last = min(first + source.randrange(3), len(runs) - 1)
    start = source.randrange(runs[first].start(), runs[first].end())
    end = source.randrange(max(start, runs[last].start()) + 1, runs[last].end() + 1)
    return text[start:end]


def cut_across_rows(world: World, source: random.Random) -> bytes:
    """Some bytes around the border of two rows within a document, which neither row holds."""
    length = world.order.seq_length
    string = np.concatenate([[0], np.cumsum(world.lengths[world.doc_idx])])
    border = length * source.randrange(1, len(world.shuffle_idx))
    place = int(np.searchsorted(string, border, side="right")) - 1
    document = int(world.doc_idx[place])
    token = int(world.firsts[document] + border - string[place])
    if not world.firsts[document] < token < world.firsts[document + 1] - 1:
        return b""
    first, end = (int(world.starts[at]) for at in (token, token + 1))
    low, high = (int(world.starts[world.firsts[at]]) for at in (document, document + 1))
    return world.text[max(first - source.randint(1, 40), low) : min(end + source.randint(1, 40), high)]


WITHIN: dict[str, Cut] = {
    "plain words": cut_words,
    "mid-word": cut_within_words,
    "CJK": cut_cjk,
    "mid-character": cut_within_characters,
    "white space": cut_white_space,
    "border of two rows": cut_across_rows,
}


def spans(world: World, cut: Cut, source: random.Random) -> list[bytes]:
    """A thousand different ones."""
    found: dict[bytes, bool] = {b"": False}
    for _ in range(50 * N_SPANS):
        text = cut(world, source)
        if text not in found:
            found[text] = world.text.count(text) <= MOST
            if sum(found.values()) == N_SPANS:
                break
    return [text for text, is_taken in found.items() if is_taken]


def seen_in(answer: When) -> Numbers:
    return np.stack([answer.sightings[name] for name in COLUMNS], axis=1)


def in_order(table: Numbers) -> Numbers:
    return table[np.lexsort(table.T[::-1])]


def check_within(world: World) -> None:
    """All kinds in one pass; what is found is what is there, in every copy, step and row."""
    source = random.Random(5)
    by_kind = {kind: spans(world, cut, source) for kind, cut in WITHIN.items()}
    assert {kind: len(texts) for kind, texts in by_kind.items()} == dict.fromkeys(WITHIN, N_SPANS)
    absent = [b"not in there", "不在此處".encode(), b" \t \t \t"]
    texts = [text for of_kind in by_kind.values() for text in of_kind] + [b"\n", *absent]
    answer = timeline.when(world.order, texts, tokenizer=world.tokenizer)
    expected, counts = world.expected(texts)
    assert np.array_equal(in_order(seen_in(answer)), in_order(expected))
    for name, count in counts.items():
        assert np.array_equal(getattr(answer, name), count), name
    assert counts["n_occurrences"][:-3].all(), "each was cut from what is there"
    assert not counts["n_occurrences"][-3:].any()
    assert counts["n_beyond"].sum() > 0
    assert counts["n_unreached"].sum() > 0
    assert (answer.sightings["n_documents"] == 1).all()
    is_cut = np.unique(expected[expected[:, COLUMNS.index("n_parts")] > 1, 0])
    borders = set(by_kind["border of two rows"])
    at_border = [number for number, text in enumerate(texts) if text in borders]
    assert np.isin(at_border, is_cut).mean() > 0.9, "the others lie behind the run"
    check_rows(world, texts, answer)
    alone = timeline.when(world.order, texts, tokenizer=world.tokenizer, threads=1)
    assert np.array_equal(alone.sightings, answer.sightings)


def check_rows(world: World, texts: list[bytes], answer: When) -> None:
    """Step, row and offset lead to tokens that spell the text."""
    whole = answer.sightings[answer.sightings["n_parts"] == 1]
    for sighting in whole[:: max(1, len(whole) // 1000)]:
        row = world.order.batch(int(sighting["step"]))[int(sighting["row"])]
        ids = row[sighting["offset"] : sighting["offset"] + sighting["length"]].tolist()
        assert texts[sighting["text"]] in b"".join(world.table[id] for id in ids)


def check_across_documents(world: World) -> None:
    """On request, what runs from one document into the next within a row; else never."""
    source, rows = random.Random(6), list(world.rows())
    wanted: dict[bytes, None] = {}
    for _, of_row, tokens in (source.choice(rows) for _ in range(20 * N_SPANS)):
        if len(of_row) > 1 and len(wanted) < N_SPANS:
            border = len(b"".join(tokens[: of_row[0][3]]))
            text = b"".join(tokens)
            around = text[max(border - source.randint(1, 60), 0) : border + source.randint(1, 60)]
            wanted[around] = None
    texts = list(wanted)
    assert len(texts) >= N_SPANS
    expected = set()
    for sample, of_row, tokens in rows:
        if len(of_row) < 2:
            continue
        text = b"".join(tokens)
        token_of = [number for number, token in enumerate(tokens) for _ in token]
        document_of = [number for number, span in enumerate(of_row) for _ in range(span[3])]
        for number, one in enumerate(texts):
            for at in finds(text, one):
                first, last = token_of[at], token_of[at + len(one) - 1]
                n_documents = document_of[last] - document_of[first] + 1
                if n_documents > 1:
                    document = of_row[document_of[first]][1]
                    expected.add((number, document, sample, first, last - first + 1, n_documents))
    answer = timeline.when(world.order, texts, tokenizer=world.tokenizer, across_documents=True)
    across = answer.sightings[answer.sightings["n_documents"] > 1]
    names = ["text", "document", "sample", "offset", "length", "n_documents"]
    assert len(across) == len(expected)
    assert set(across[names].tolist()) == expected
    assert len(np.unique(across["text"])) == len(texts), "each was cut across a border"
    within, _ = world.expected(texts)
    without = timeline.when(world.order, texts, tokenizer=world.tokenizer)
    assert np.array_equal(in_order(seen_in(without)), in_order(within))


def made_documents(n: int) -> list[str]:
    """Prose, programs, Chinese and Japanese, as real ones look; some are empty, some the same."""
    source = random.Random(1)
    syllables = re.findall(r"\w+", "an ber con de er fa gra ing lo men ner or pre qui ra sta tion un ver wo")
    lexicon = ["".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(3000)]
    lexicon[:12] = re.findall(r"\w+", "the of and to in is that it for as with be")
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(lexicon))))
    characters = [chr(0x4E00 + 37 * i) for i in range(400)] + [chr(0x3042 + i) for i in range(60)]

    def words(k: int) -> list[str]:
        return source.choices(lexicon, cum_weights=weights, k=k)

    def prose() -> str:
        return " ".join(words(source.randint(5, 25))).capitalize() + source.choice([". ", ".\n\n", "? "])

    def program() -> str:
        indent = source.choice(["\t", "  ", "    "]) * source.randint(0, 5)
        name, argument, other = words(3)
        return (
            f"{indent}{name} = {argument}[{source.randrange(1000)}]{' ' * source.randint(0, 30)}# {other}\r\n"
        )

    def cjk() -> str:
        return "".join(source.choices(characters, k=source.randint(4, 30))) + source.choice("。、\n")

    def odd() -> str:
        return source.choice(
            ["naïve ", "🙂👩‍👩‍👧 ", "\u3000", "\u00a0", "﻿", "ﬀ", "\n" * source.randint(1, 9)]
        )

    documents = []
    for number in range(n):
        parts = source.choices([prose, program, cjk, odd], [4, 4, 3, 1], k=source.randint(5, 80))
        documents.append("" if number % 29 == 7 else "".join(part() for part in parts))
    documents[50:53] = documents[40:43]
    return documents


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_shard: Callable[..., Path]) -> World:
    folder = tmp_path_factory.mktemp("spans")
    write_shard(folder / "shards" / "00.jsonl", ({"text": text} for text in made_documents(220)))
    shards, vocabulary = find_shards([folder / "shards"]), folder / "tokenizer.json"
    train_tokenizer.run(shards, vocabulary, train_tokenizer.TrainTokenizerConfig(vocab_size=1500), threads=2)
    tokenize.run(shards, folder / "sample", tokenize.TokenizeConfig(tokenizer=vocabulary), threads=2)
    return world_of(folder / "sample", folder / "order", Tokenizer.from_file(vocabulary))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, golden: Path, neox_tokenizer: Path) -> World:
    """Documents of the corpus as GPT-NeoX's own tool tokenized them."""
    prefix = golden / "dataset" / "mini_eod_text_document"
    return world_of(prefix, tmp_path_factory.mktemp("real"), Tokenizer.from_file(neox_tokenizer))


def world_of(prefix: Path, folder: Path, tokenizer: Tokenizer) -> World:
    """An order of a little under two epochs, of which the run does not see the end."""
    from pile_tools import TokenDataset

    n_samples = int(1.9 * TokenDataset(prefix).n_tokens) // 64
    order.run(prefix, folder, OrderConfig(seq_length=64, steps=n_samples // 8, batch_size=8, seed=11))
    return World(folder, tokenizer)


@pytest.mark.parametrize("name", ["made", "real"])
def test_a_thousand_spans_of_every_kind(name: str, request: Any) -> None:
    check_within(request.getfixturevalue(name))


@pytest.mark.parametrize("name", ["made", "real"])
def test_a_thousand_spans_across_documents(name: str, request: Any) -> None:
    check_across_documents(request.getfixturevalue(name))
