"""Orders with interventions: texts are found where the rows have them, against a search by hand."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pile_tools import ConfigError, Order, TokenDataset, Tokenizer, _core, open_order, timeline
from pile_tools.jobs import tokenize, train_tokenizer
from pile_tools.jobs.order import Blend, OrderConfig, run
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.order.interventions import Insert, insert_tokens, replace_tokens, save_interventions
from pile_tools.timeline import When
from pile_tools.types import TermQuery

LENGTH, BATCH, STEPS = 24, 4, 60
WORDS = ["alpha", "beta", "gamma", "delta"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, write_shard: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [" ".join(random.Random(i).choices(WORDS, k=200)) for i in range(20)]
    shard = write_shard(folder / "words.jsonl", [{"text": text} for text in texts])
    file = folder / "tokenizer.json"
    train_tokenizer.run([shard], file, train_tokenizer.TrainTokenizerConfig(vocab_size=300), threads=1)
    return file


@pytest.fixture(scope="module")
def prefix(
    tmp_path_factory: pytest.TempPathFactory, write_shard: Callable[..., Path], tokenizer: Path
) -> Path:
    folder, source = tmp_path_factory.mktemp("tokens"), random.Random(7)
    records = []
    for i in range(60):
        text = " ".join(source.choices(WORDS, k=source.choice([1, 3, 20, 90])))
        records.append({"text": text, "meta": {"pile_set_name": ["Books", "Code"][i % 2]}})
    records += records[:5]
    shard = write_shard(folder / "words.jsonl", records)
    tokenize.run([shard], folder / "tokens", TokenizeConfig(tokenizer=tokenizer), threads=1)
    return folder / "tokens"


@dataclass
class Case:
    """An order with interventions, its base, and the inserted texts: sample, offset, tokens."""

    base: Order
    changed: Order
    inserted: list[tuple[int, int, list[int]]]


def inserts(source: random.Random, tokenizer: Tokenizer, n: int) -> list[Insert]:
    found: dict[tuple[int, int], Insert] = {}
    texts = [" canary alpha beta", " alpha", " gamma delta gamma delta"]
    while len(found) < n:
        tokens = tuple(tokenizer.encode(source.choice(texts)).tolist())
        step, row = source.randrange(STEPS), source.randrange(BATCH)
        offset = source.choice([0, LENGTH + 1 - len(tokens), source.randrange(LENGTH + 1 - len(tokens))])
        found.setdefault((step, row), Insert(step, row, offset, tokens))
    return list(found.values())


@pytest.fixture(scope="module", params=["inserts", "tokens", "both", "inserts first"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefix: Path) -> Case:
    folder = tmp_path_factory.mktemp("order")
    run(prefix, folder, OrderConfig(seq_length=LENGTH, steps=STEPS, batch_size=BATCH, seed=3))
    base = changed = open_order(folder)
    table = inserts(random.Random(11), base.tokenizer(), 40) if request.param != "tokens" else []
    words = {" alpha": " beta", " gamma": " alpha"}
    if request.param == "inserts first":
        changed = insert_tokens(changed, table)
    if request.param != "inserts":
        changed = replace_tokens(changed, words, steps=(20, 50))
    if request.param in ("inserts", "both"):
        changed = insert_tokens(changed, table)
    found = []
    for insert in table:
        sample = insert.step * BATCH + insert.row
        row = changed.samples[sample].tolist()
        found.append((sample, insert.offset, row[insert.offset : insert.offset + len(insert.tokens)]))
    return Case(base, changed, sorted(found))


@dataclass(frozen=True)
class Token:
    """A token of a row: the document and copy that it belongs to, and its number in the document."""

    document: int
    copy: int
    number: int
    id: int
    is_documents: bool


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    return [tokenizer.decode([id], skip_special_tokens=False).encode() for id in range(tokenizer.vocab_size)]


def rows_of(case: Case) -> tuple[list[list[Token]], NDArray[np.int64]]:
    """The rows of the packed string of documents as the samples show them, and the sample of each."""
    folder = case.base.path.parent
    doc_idx, shuffle = (
        np.load(next(folder.glob(f"*_{name}.npy"))).astype(np.int64) for name in ("doc_idx", "shuffle_idx")
    )
    dataset, n_seen, string = case.base.dataset, Counter[int](), []
    for document in doc_idx.tolist():
        ids = dataset[document].tolist()
        string += [(document, n_seen[document], number, id) for number, id in enumerate(ids)]
        n_seen[document] += 1
    sample_of_row = np.argsort(shuffle)
    inserted = {}
    for k, (sample, offset, tokens) in enumerate(case.inserted):
        for j in range(len(tokens)):
            inserted[sample, offset + j] = (len(dataset) + k, 0, j)
    rows = []
    for row, sample in enumerate(sample_of_row.tolist()):
        shown = case.changed.samples[sample].tolist()
        of_row = []
        for offset, id in enumerate(shown):
            document, copy, number, stored = string[row * LENGTH + offset]
            is_documents = id == stored
            if (sample, offset) in inserted:
                (document, copy, number), is_documents = inserted[sample, offset], True
            of_row.append(Token(document, copy, number, id, is_documents))
        rows.append(of_row)
    return rows, sample_of_row


def runs(tokens: list[tuple[int, Token]]) -> Iterator[list[tuple[int, Token]]]:
    """Consecutive tokens of one copy of a document."""
    run: list[tuple[int, Token]] = []
    for offset, token in tokens:
        if run:
            last = run[-1][1]
            if (token.document, token.copy, token.number) != (last.document, last.copy, last.number + 1):
                yield run
                run = []
        run.append((offset, token))
    if run:
        yield run


def spelled(run: list[tuple[int, Token]], text: bytes, table: list[bytes]) -> Iterator[tuple[int, int]]:
    """First and last index in the run of every occurrence."""
    owner = [i for i, (_, token) in enumerate(run) for _ in table[token.id]]
    data = b"".join(table[token.id] for _, token in run)
    at = data.find(text)
    while at >= 0:
        yield owner[at], owner[at + len(text) - 1]
        at = data.find(text, at + 1)


def expected(case: Case, texts: list[bytes]) -> Counter[tuple[object, ...]]:
    """Every sighting: text, document, copy, first token, and sample, offset and length of each part."""
    table = token_bytes(case.base.tokenizer())
    rows, samples = rows_of(case)
    found: Counter[tuple[object, ...]] = Counter()
    for row, of_row in enumerate(rows):
        sample = int(samples[row])
        for run_ in runs(list(enumerate(of_row))):
            for text in texts:
                for first, last in spelled(run_, text, table):
                    offset, token = run_[first]
                    part = (sample, offset, last - first + 1)
                    found[text, token.document, token.copy, token.number, (part,)] += 1
        if row + 1 == len(rows) or of_row[LENGTH] != rows[row + 1][0]:
            continue
        # The rows agree on the token they share: an occurrence may run through it.
        both = [*enumerate(of_row), *((LENGTH + i, t) for i, t in enumerate(rows[row + 1]) if i)]
        for run_ in runs(both):
            for text in texts:
                for first, last in spelled(run_, text, table):
                    start, end = run_[first][0], run_[last][0]
                    if start < LENGTH < end:
                        token = run_[first][1]
                        parts = (
                            (sample, start, LENGTH - start + 1),
                            (int(samples[row + 1]), 0, end - LENGTH + 1),
                        )
                        found[text, token.document, token.copy, token.number, parts] += 1
    n_samples = STEPS * BATCH
    for key in [key for key in found if any(part[0] >= n_samples for part in key[4])]:  # type: ignore[attr-defined]
        del found[key]
    return found


def seen(answer: When) -> Counter[tuple[object, ...]]:
    found: dict[int, list[np.void]] = {}
    for sighting in answer.sightings:
        found.setdefault(int(sighting["occurrence"]), []).append(sighting)
    keys: Counter[tuple[object, ...]] = Counter()
    for parts in found.values():
        first = parts[0]
        where = tuple((int(p["sample"]), int(p["offset"]), int(p["length"])) for p in parts)
        text = answer.texts[int(first["text"])]
        keys[text, int(first["document"]), int(first["epoch"]), int(first["token"]), where] += 1
    return keys


def texts_of(case: Case) -> list[bytes]:
    """Words, inserted texts, and pieces of changed rows that reach across the border of two rows."""
    source, table = random.Random(5), token_bytes(case.base.tokenizer())
    texts = {
        b" alpha",
        b" beta",
        b"alpha beta",
        b" canary alpha beta",
        b"ta alpha",
        b"gamma delta",
        b"elta g",
    }
    rows, _ = rows_of(case)
    for _ in range(80):
        row = source.randrange(len(rows) - 1)
        data = b"".join(table[token.id] for token in [*rows[row], *rows[row + 1][1:]])
        first = source.randrange(len(data) - 30)
        texts.add(data[first : first + source.randint(4, 25)])
    return sorted(texts)


def test_texts_are_found_where_the_rows_have_them(case: Case) -> None:
    texts = texts_of(case)
    answer = timeline.when(case.changed, texts)
    wanted = expected(case, texts)
    assert seen(answer) == wanted
    assert len(wanted) > 300
    before = seen(timeline.when(case.base, texts))
    assert set(before) - set(wanted), "what was replaced or overwritten is not found"
    assert set(wanted) - set(before), "what was inserted is"
    assert any(len(key[4]) > 1 for key in set(wanted) - set(before)) or case.inserted  # type: ignore[arg-type]
    alone = timeline.when(case.changed, texts, threads=1)
    assert np.array_equal(alone.sightings, answer.sightings)


def test_the_byte_is_that_of_the_stored_document(case: Case) -> None:
    table, dataset = token_bytes(case.base.tokenizer()), case.changed.dataset
    for sighting in timeline.when(case.changed, texts_of(case)).sightings:
        before = b"".join(
            table[id] for id in dataset[int(sighting["document"])][: sighting["token"]].tolist()
        )
        in_token = int(sighting["byte"]) - len(before)
        row = case.changed.samples[int(sighting["sample"])]
        if sighting["part"] == 0:
            assert 0 <= in_token < len(table[int(row[sighting["offset"]])])


def test_an_index_gives_the_same_answer(case: Case, tmp_path: Path, prefix: Path) -> None:
    dataset = TokenDataset(prefix)
    _core.build_index(dataset, case.base.tokenizer(), tmp_path, 1 << 20)
    texts = texts_of(case)
    answer = timeline.when(case.changed, texts, index=_core.SuffixIndex(tmp_path, dataset))
    assert answer.by_index
    scanned = timeline.when(case.changed, texts, index=None)
    assert np.array_equal(answer.sightings, scanned.sightings)
    assert np.array_equal(answer.n_occurrences, scanned.n_occurrences)
    assert np.array_equal(answer.n_unreached, scanned.n_unreached)


def test_ids_are_found_where_the_rows_have_them(case: Case) -> None:
    rows, samples = rows_of(case)
    source = random.Random(9)
    queries = [tuple(t.id for t in source.choice(rows)[:4]) for _ in range(20)]
    queries += [tuple(tokens[:3]) for _, _, tokens in case.inserted if len(tokens) > 2]
    queries = sorted(set(queries))
    answer = timeline.when(case.changed, [list(query) for query in queries], across_documents=True)
    whole = answer.sightings[answer.sightings["n_parts"] == 1]
    found = Counter(
        zip(whole["text"].tolist(), whole["sample"].tolist(), whole["offset"].tolist(), strict=True)
    )
    wanted: Counter[tuple[int, int, int]] = Counter()
    for row, of_row in enumerate(rows):
        ids = tuple(token.id for token in of_row)
        for number, query in enumerate(queries):
            for offset in range(len(ids) - len(query) + 1):
                if ids[offset : offset + len(query)] == query and samples[row] < STEPS * BATCH:
                    wanted[number, int(samples[row]), offset] += 1
    assert found == wanted


def test_spans_batches_and_mixture_name_the_inserted_texts(case: Case) -> None:
    rows, samples = rows_of(case)
    counts: Counter[str] = Counter()
    dataset = case.changed.dataset
    for row, of_row in enumerate(rows):
        sample = int(samples[row])
        if sample >= STEPS * BATCH:
            continue
        spans = case.changed.samples.spans(sample, 1)
        documents = np.repeat(spans[:, 1], spans[:, 3]).tolist()
        assert documents == [token.document for token in of_row]
        numbers = dataset.subset_numbers(np.array(documents[:LENGTH]))
        counts.update(dataset.subsets[number] for number in numbers)
    mixture = timeline.mixture(case.changed, interval_steps=STEPS)
    assert dict(zip(mixture.subsets, mixture.n_tokens[0].tolist(), strict=True)) == counts
    assert ("inserted" in counts) == bool(case.inserted)
    for k, (sample, offset, tokens) in enumerate(case.inserted):
        document = len(case.base.dataset) + k
        assert dataset[document].tolist() == tokens
        (seen,) = timeline.trace(case.changed, document)
        assert (seen["sample"], seen["offset"], seen["length"]) == (sample, offset, len(tokens))


def test_trace_leaves_out_what_was_changed(case: Case) -> None:
    rows, samples = rows_of(case)
    wanted = Counter(
        (token.document, token.copy, token.number, int(samples[row]), offset)
        for row, of_row in enumerate(rows)
        for offset, token in enumerate(of_row)
        if token.is_documents
    )
    found: Counter[tuple[int, ...]] = Counter()
    for document in range(len(case.changed.dataset)):
        for part in timeline.trace(case.changed, document):
            epoch, token, sample, offset = (
                int(part[name]) for name in ("epoch", "token", "sample", "offset")
            )
            found.update((document, epoch, token + i, sample, offset + i) for i in range(int(part["length"])))
    assert found == wanted


def test_repeats_count_only_what_was_read(case: Case) -> None:
    rows, samples = rows_of(case)
    dataset = case.changed.dataset
    contents: dict[bytes, int] = {}
    same_as = [contents.setdefault(dataset[i].tobytes(), i) for i in range(len(dataset))]
    row_of = {int(sample): row for row, sample in enumerate(samples)}
    in_document: set[tuple[int, int]] = set()
    in_any: set[tuple[int, int]] = set()
    by_epoch = by_duplicate = 0
    for sample in range(STEPS * BATCH):
        for token in rows[row_of[sample]][:LENGTH]:
            if not token.is_documents:
                continue
            own, any_ = (token.document, token.number), (same_as[token.document], token.number)
            by_epoch += own in in_document
            by_duplicate += own not in in_document and any_ in in_any
            in_document.add(own)
            in_any.add(any_)
    found = timeline.repeats(case.changed, interval_steps=STEPS).intervals
    assert (found["by_epoch"].tolist(), found["by_duplicate"].tolist()) == ([by_epoch], [by_duplicate])
    assert by_epoch > 0
    assert by_duplicate > 0


def test_terms_are_counted_in_the_changed_rows(case: Case) -> None:
    terms = [b" alpha", b" canary", b"beta alpha"]
    table = token_bytes(case.base.tokenizer())
    rows, samples = rows_of(case)
    counts = np.zeros(3, np.int64)
    for row, of_row in enumerate(rows):
        for run_ in runs(list(enumerate(of_row))) if samples[row] < STEPS * BATCH else ():
            counts += [sum(1 for _ in spelled(run_, term, table)) for term in terms]
    found = timeline.count_terms(case.changed, TermQuery(terms=terms), [STEPS])
    assert found.occurrences.tolist() == [counts.tolist()]


def test_saved_and_pickled_interventions_give_the_same(case: Case, tmp_path: Path) -> None:
    texts = texts_of(case)
    wanted = timeline.when(case.changed, texts).sightings
    save_interventions(case.changed, tmp_path / "saved")
    saved = open_order(tmp_path / "saved")
    assert np.array_equal(timeline.when(saved, texts).sightings, wanted)
    again = pickle.loads(pickle.dumps(saved))
    assert np.array_equal(timeline.when(again, texts).sightings, wanted)
    core = pickle.loads(pickle.dumps(timeline.steps.core_order(saved)))
    assert np.array_equal(core.samples(0, len(core)), saved.samples.samples(0, len(core)))
    assert "changes of" in repr(core)


def test_blends_with_interventions(prefix: Path, tmp_path: Path) -> None:
    config = OrderConfig(seq_length=LENGTH, samples=200, seed=5)
    run(Blend((prefix, prefix), (2.0, 1.0)), tmp_path / "blend", config)
    base = open_order(tmp_path / "blend", batch_size=BATCH)
    tokens = tuple(base.tokenizer().encode(" canary").tolist())
    changed = insert_tokens(base, [Insert(3, 1, 4, tokens), Insert(9, 0, 0, tokens)])
    found = timeline.when(changed, " canary").sightings
    assert list(
        zip(found["step"].tolist(), found["row"].tolist(), found["offset"].tolist(), strict=True)
    ) == [
        (3, 1, 4),
        (9, 0, 0),
    ]
    assert found["document"].tolist() == [len(base.dataset), len(base.dataset) + 1]
    assert "inserted" in timeline.mixture(changed).subsets
    replaced = replace_tokens(base, {" alpha": " beta"}, steps=(0, 10))
    before, after = (timeline.when(order, " beta").counts().sum() for order in (base, replaced))
    n_before, n_after = (
        sum(int((order.samples[i][: LENGTH + 1] == tokenizer_id).sum()) for i in range(200))
        for order, tokenizer_id in (
            (base, base.tokenizer().encode(" beta")[0]),
            (replaced, base.tokenizer().encode(" beta")[0]),
        )
    )
    assert n_after > n_before
    assert after > before


@pytest.mark.parametrize(
    ("changes", "tokens", "told"),
    [
        ([[0, 0, 2, 1]], [1], "more tokens than are given"),
        ([[10**9, 0, 1, 1]], [1], "the order has"),
        ([[-1, 0, 1, 1]], [1], "the order has"),
        ([[0, 25, 1, 1]], [1], "not within the sample"),
        ([[0, -1, 1, 0]], [1], "not within the sample"),
        ([[0, 0, 0, 0]], [], "is empty"),
        ([[0, 3, 2, 1], [0, 4, 1, 0]], [1, 2, 3], "not in order"),
        ([[1, 0, 1, 1], [0, 0, 1, 1]], [1, 2], "not in order"),
        ([[0, 0, 1, 0]], [70_000], "cannot be stored"),
        ([[0, 0, 1, 1]], [-1], "cannot be stored"),
    ],
)
def test_changes_that_do_not_fit_are_refused(
    prefix: Path, tmp_path: Path, changes: list[list[int]], tokens: list[int], told: str
) -> None:
    run(prefix, tmp_path, OrderConfig(seq_length=LENGTH, samples=20, seed=3))
    order = open_order(tmp_path)
    with pytest.raises(ConfigError, match=told):
        _core.changed_order(order.samples, np.array(changes, np.int64), np.array(tokens, np.int64))
