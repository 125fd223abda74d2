"""The Rust core as Python shows it: docstrings, types, `repr`, pickles."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import pickle
import runpy
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pile_tools.types
from pile_tools import ConfigError, _core
from pile_tools.jobs import tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards
from pile_tools.types import (
    ContaminationSearch,
    Counting,
    Deduplication,
    NearDuplicates,
    PassageSearch,
    Sketching,
    TermQuery,
)

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "stub.py"))
STUB: str = SCRIPT["STUB"].read_text(encoding="utf-8")
DOCUMENTED = {name: (node, value) for name, node, value in SCRIPT["documented"](STUB)}


def test_the_stub_names_everything_public() -> None:
    public = {"pile_tools._core", *_core.__all__}
    for name, value in inspect.getmembers(_core, inspect.isclass):
        public |= {f"{name}.{member}" for member in vars(value) if not member.startswith("__")}
    assert set(DOCUMENTED) == public


def test_docstrings_are_those_of_the_core() -> None:
    differing = {
        name: (ast.get_docstring(node), value.__doc__)
        for name, (node, value) in DOCUMENTED.items()
        if not value.__doc__ or ast.get_docstring(node) != value.__doc__
    }
    assert not differing, "run `make stub`"


def test_the_script_replaces_each_docstring_and_nothing_else() -> None:
    old = STUB
    for node, _ in DOCUMENTED.values():
        # The source of a docstring is unique, or its copies are equal: each is replaced.
        old = old.replace(ast.get_source_segment(STUB, node.body[0]) or "", '"""Old."""')
    assert old.count('"""Old."""') == len(DOCUMENTED)
    assert SCRIPT["with_docstrings"](old) == STUB


Objects = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shards: Path, tokenizer: Path) -> Path:
    """A dataset, its index, orders and rows, in a folder whose name has a line feed and is not UTF-8."""
    folder = tmp_path_factory.mktemp("core") / "a\nb\udcff"
    folder.mkdir()
    prefix = folder / "sample"
    tokenize.run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    for seed in (1, 2):
        _core.build_order(prefix, folder / f"order{seed}", 32, seed, samples=100)
    _core.write_blend(folder / "blend", [1.0, 1.0], [100, 100], False)
    np.arange(20, dtype=np.uint16).tofile(folder / "rows.bin")
    (folder / "index").mkdir()
    loaded = _core.Tokenizer.from_file(tokenizer)
    _core.build_index(_core.TokenDataset(prefix), loaded, folder / "index", 1 << 14)
    (folder / "bare.idx").write_bytes((folder / "sample.idx").read_bytes())
    return folder


@pytest.fixture(scope="module")
def objects(folder: Path, tokenizer: Path) -> Objects:
    """Objects of each class of the core."""
    dataset = _core.TokenDataset(folder / "sample")
    orders = [_core.TrainingOrder(folder / f"order{seed}", 32, folder / "sample") for seed in (1, 2)]
    rows = _core.rows_order(folder / "rows.bin", 5)
    objects = {
        "tokenizer": _core.Tokenizer.from_file(tokenizer),
        "dataset": dataset,
        "index": _core.SuffixIndex(folder / "index", dataset),
        "order": orders[0],
        "blend": _core.blended_order(folder / "blend", orders),
        "rows": rows,
        "source of rows": rows.dataset,
        "source": _core.TokenSource(folder / "sample"),
        "bare source": _core.TokenSource(folder / "bare"),
        "hasher": _core.MinHasher(16, "words:2"),
        "items": _core.BenchmarkItems(2, [(1, 1, "alpha beta gamma delta naïve")], 4),
    }
    assert {type(value) for value in objects.values()} == {
        value for _, value in inspect.getmembers(_core, inspect.isclass)
    }
    return objects


def test_reprs_are_one_line_that_names_the_content(objects: Objects, folder: Path, tokenizer: Path) -> None:
    dataset, index = objects["dataset"], objects["index"]
    assert min(len(dataset), index.n_segments) > 1
    of_dataset = f"{len(dataset)} documents, {dataset.n_tokens} tokens"
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]

    def path(name: str) -> str:
        return repr(str(folder / name))

    expected = {
        "tokenizer": f"<Tokenizer: {len(vocabulary)} tokens>",
        "dataset": f"<TokenDataset {path('sample')}: {of_dataset}, uint16>",
        "index": f"<SuffixIndex {path('index')}: {of_dataset}, {index.n_segments} segments>",
        "order": f"<TrainingOrder {path('order1')} of dataset {path('sample')}: "
        f"{len(objects['order'])} samples of 33 tokens>",
        "blend": f"<TrainingOrder {path('blend')} of 2 datasets: "
        f"{len(objects['blend'])} samples of 33 tokens>",
        "rows": f"<TrainingOrder {path('rows.bin')} of rows: 4 samples of 5 tokens>",
        "source of rows": f"<TokenSource {path('rows.bin')}: 4 rows, uint16>",
        "source": f"<TokenSource {path('sample')}: {len(dataset)} documents, uint16>",
        "bare source": f"<TokenSource {path('bare')}: {len(dataset)} documents, uint16, no tokens>",
        "hasher": "<MinHasher: 16 permutations of words:2>",
        "items": "<BenchmarkItems: 2 items, 2 n-grams>",
    }
    assert {name: repr(value) for name, value in objects.items()} == expected
    assert all(len(text.splitlines()) == 1 for text in expected.values())


def counting(folder: Path) -> Counting:
    return Counting(
        lengths=[2],
        min_count=2,
        top=None,
        memory=1 << 26,
        threads=1,
        folder=folder,
        free_bytes=1 << 30,
        job="x",
        discard=True,
    )


def passage_search(folder: Path) -> PassageSearch:
    return PassageSearch(
        length=32,
        protected=[],
        protected_texts=[],
        memory=1 << 20,
        threads=1,
        folder=folder,
        job="job",
        discard=False,
    )


def deduplication(folder: Path) -> Deduplication:
    return Deduplication(
        near=NearDuplicates(threshold="0.87", shingle="words:5", verify="jaccard", permutations=64),
        normalize="none",
        prefer="first",
        subset_priority=[],
        protected=[],
        protected_texts=[],
        max_cluster=1000,
        large_clusters=False,
        memory=1 << 20,
        threads=1,
        folder=folder,
        job="job",
        discard=False,
    )


def sketching(folder: Path) -> Sketching:
    return Sketching(
        shingle="words:5",
        permutations=64,
        normalize="none",
        memory=1 << 20,
        threads=1,
        folder=folder,
        job="job",
        discard=False,
    )


def contamination_search(folder: Path) -> ContaminationSearch:
    return ContaminationSearch(
        threshold=0.8, max_gap=16, threads=1, folder=folder, job="job", discard=False, lists_bytes=True
    )


def term_query() -> TermQuery:
    return TermQuery(
        terms=[b"alpha", b"beta"],
        whole_words=True,
        ignore_case=False,
        pairs=[(0, 1)],
        within_words=None,
        threads=1,
    )


def conforms(value: object, hint: Any) -> bool:
    """Whether a value has the type of an annotation, to its last item."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if typing.is_typeddict(hint):
        hints = typing.get_type_hints(hint)
        return (
            isinstance(value, dict)
            and value.keys() == hints.keys()
            and all(conforms(value[name], of) for name, of in hints.items())
        )
    if origin in (types.UnionType, typing.Union):
        return any(conforms(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(conforms(item, args[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(args) and all(map(conforms, value, args))
    if origin is np.ndarray:
        scalar = typing.get_args(args[1])[0]
        return isinstance(value, np.ndarray) and issubclass(value.dtype.type, scalar)
    return type(value) is (types.NoneType if hint is None else hint)


def returned(name: str) -> Any:
    """The annotation in the stub of what a function, method or property returns."""
    names = {**vars(typing), **vars(pile_tools.types), **vars(_core), "np": np, "NDArray": NDArray}
    return eval(ast.unparse(DOCUMENTED[name][0].returns), names)


def test_properties_have_the_types_of_the_stub(objects: Objects) -> None:
    for value in objects.values():
        kind = type(value)
        for name, member in vars(kind).items():
            if inspect.isgetsetdescriptor(member):
                hint = returned(f"{kind.__name__}.{name}")
                assert conforms(getattr(value, name), hint), (value, name, hint)


def test_results_have_the_types_of_the_stub(
    objects: Objects, folder: Path, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    dataset, order, index, encoder = (objects[n] for n in ("dataset", "order", "index", "tokenizer"))
    paths = find_shards([shards])
    n_documents = len(dataset)
    numbers = dataset.subset_numbers(np.arange(n_documents))

    def scratch(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a b"}\n{"text": 5}\n', encoding="utf-8")
    names = [path.name for path in paths]
    query = term_query()
    one_group = np.zeros(0, dtype=np.uint32)
    clause = np.array([[0, 0, 1]])
    how, ran = deduplication(scratch("tasks")), []

    def run_tasks(tasks: list[tuple[str, str]]) -> None:
        ran.extend(_core.run_dedup_task(paths, how, task) for _, task in tasks)

    _core.find_duplicates(paths, how, run_tasks=run_tasks)
    results: dict[str, Any] = {
        "Tokenizer.from_file": _core.Tokenizer.from_file(tokenizer),
        "Tokenizer.decode": encoder.decode([1]),
        "Tokenizer.encode": encoder.encode("alpha"),
        "Tokenizer.encode_batch": encoder.encode_batch(["alpha", "beta"]),
        "Tokenizer.normalize": encoder.normalize("alpha"),
        "Tokenizer.token_to_id": encoder.token_to_id("a"),
        "Tokenizer.id_to_token": encoder.id_to_token(300),
        "MinHasher.signatures": objects["hasher"].signatures(["alpha beta gamma"]),
        "lsh_bands": _core.lsh_bands("0.87", 256),
        "band_probability": _core.band_probability(0.9, 25, 10),
        "find_duplicates": _core.find_duplicates(paths, deduplication(scratch("duplicates"))),
        "run_dedup_task": ran[0],
        "write_signatures": _core.write_signatures(paths, sketching(scratch("signatures"))),
        "shards_contamination": _core.shards_contamination(
            objects["items"], paths, contamination_search(scratch("items in shards"))
        ),
        "documents_contamination": _core.documents_contamination(
            objects["items"], dataset, encoder, None, contamination_search(scratch("items in documents"))
        ),
        "order_sightings": _core.order_sightings(order, encoder, np.array([[1, 0, 5]])),
        "rewrite_shards": _core.rewrite_shards(paths, names, scratch("rewritten"), "job", 1, False),
        "read_record": _core.read_record(paths[0], 1),
        "read_record_at": _core.read_record_at(paths[0], 0, 2),
        "record_text": _core.record_text(paths[0], b'{"text": "a"}'),
        "TokenDataset.check_unchanged": dataset.check_unchanged(),
        "TokenSource.check_unchanged": objects["source"].check_unchanged(),
        "TokenDataset.lengths": dataset.lengths(),
        "TokenDataset.origin": dataset.origin(0),
        "TokenDataset.origins": dataset.origins(),
        "TokenDataset.documents_of": dataset.documents_of(0, 1),
        "TokenDataset.first_token": dataset.first_token(1),
        "TokenDataset.subset_numbers": numbers,
        "TokenDataset.check": dataset.check(),
        "TrainingOrder.take": order.take(np.array([1, 0])),
        "TrainingOrder.read": objects["blend"].read(0, 2),
        "TrainingOrder.spans": order.spans(0, 2),
        "TokenSource.origin": objects["source"].origin(0),
        "TokenSource.subset_numbers": objects["source"].subset_numbers(np.array([0])),
        "SuffixIndex.is_of": index.is_of(encoder),
        "SuffixIndex.decode": index.decode([1]),
        "SuffixIndex.count": index.count([1]),
        "SuffixIndex.count_batch": index.count_batch(np.array([1, 2]), np.array([0, 1, 2]), 1),
        "SuffixIndex.locate": index.locate([1], 10**6),
        "SuffixIndex.count_text": index.count_text(b"alpha"),
        "SuffixIndex.locate_text": index.locate_text(b"alpha", 10**6),
        "SuffixIndex.sample_text": index.sample_text(b"alpha", 3),
        "SuffixIndex.next_tokens": index.next_tokens([1], False),
        "SuffixIndex.next_after_text": index.next_after_text("alpha", True),
        "SuffixIndex.probability": index.probability([1], 2),
        "SuffixIndex.spans": index.spans("alpha beta alpha", 4, 1),
        "token_files": _core.token_files(folder / "rows.bin"),
        "build_dataset": _core.build_dataset(
            [bad], encoder, 0, scratch("built"), "x", "job", 1, False, False, skip_bad_records=True
        ),
        "merge_datasets": _core.merge_datasets(
            [folder / "sample"], scratch("merged"), "x", "job", False, None, []
        ),
        "label_dataset": _core.label_dataset(
            folder / "sample", paths, encoder, encoder.eod[1], scratch("labelled"), "x", 1
        ),
        "train_tokenizer": _core.train_tokenizer(paths, 300, 0, ["<x>"], 1),
        "build_order": _core.build_order(folder / "sample", scratch("built_order") / "x", 32, 1, samples=9),
        "split_documents": _core.split_documents("8,1,1", 10),
        "normalized_weights": _core.normalized_weights([1, 2], 10),
        "weights_by_documents": _core.weights_by_documents([1, 2], 0.3),
        "write_blend": _core.write_blend(scratch("written") / "x", [1.0], [9], True),
        "micro_batch_samples": _core.micro_batch_samples(8, 4, 1, (0, 2), (0, 1)),
        "batch_documents": _core.batch_documents(order.spans(0, 2), 2, 33, 32),
        "plan_index": _core.plan_index(dataset, 1 << 14),
        "build_index": _core.build_index(dataset, None, scratch("index"), 1 << 14),
        "combine_occurrences": _core.combine_occurrences([clause, clause]),
        "order_when": _core.order_when(order, encoder, None, [b"alpha"], 10, False, 10**6, 1),
        "order_trace": _core.order_trace(order, 5),
        "order_repeats": _core.order_repeats(order, 10, 5, 1),
        "order_mixture": _core.order_mixture(order, numbers, len(dataset.subsets), 10, 5, 1),
        "count_token_ngrams": _core.count_token_ngrams(
            dataset, counting(scratch("tokens")), tmp_path / "tokens.tsv", False, encoder, one_group, [None]
        ),
        "count_word_ngrams": _core.count_word_ngrams(
            paths, counting(scratch("words")), tmp_path / "words.tsv", False, True
        ),
        "token_ngrams": _core.token_ngrams(dataset, counting(scratch("ngrams")), False),
        "find_passages": _core.find_passages(paths, passage_search(scratch("passages"))),
        "shards_terms": _core.shards_terms(paths, query, True),
        "dataset_terms": _core.dataset_terms(dataset, encoder, query, one_group, 1, None),
        "order_terms": _core.order_terms(order, encoder, query, [5, 10]),
        "rows_order": _core.rows_order(folder / "rows.bin", 5),
        "blended_order": _core.blended_order(folder / "blend", [order, order]),
        "changed_order": _core.changed_order(order, np.array([[1, 0, 1, 0]]), np.array([5])),
        "order_arithmetic": _core.order_arithmetic(order, encoder, [5, 10], 1),
        "check_mapped": _core.check_mapped(),
        "is_mapped": _core.is_mapped(folder),
        "mapped_bytes": _core.mapped_bytes(folder / "rows.bin"),
    }
    assert results["build_dataset"]["shards"][0]["bad_records"]["n"] == 1
    called = {name for name, (_, value) in DOCUMENTED.items() if inspect.isroutine(value)}
    # One never returns, the other changes how this process ends.
    assert results.keys() == called - {"_panic", "report_machine_failures"}
    for name, value in results.items():
        assert conforms(value, returned(name)), (name, returned(name), value)


def test_arguments_that_do_not_fit_each_other_are_refused(
    objects: Objects, folder: Path, tmp_path: Path
) -> None:
    dataset, encoder = objects["dataset"], objects["tokenizer"]
    query = term_query()
    n = len(dataset)
    numbers = np.zeros(n, dtype=np.uint32)
    for groups, n_groups in ((numbers[:2], 1), (numbers + 1, 1), (numbers[:0], 0)):
        with pytest.raises(ConfigError, match="group"):
            _core.dataset_terms(dataset, encoder, query, groups, n_groups, None)
        settings, output, names = counting(tmp_path), tmp_path / "x.tsv", ["x"] * n_groups
        with pytest.raises(ConfigError, match="group"):
            _core.count_token_ngrams(dataset, settings, output, False, None, groups, names)
    for lengths in ([], [1, 2]):
        settings = dataclasses.replace(counting(tmp_path), lengths=lengths)
        with pytest.raises(ConfigError, match="one length"):
            _core.token_ngrams(dataset, settings, False)
    subsets = dataset.subset_numbers(np.arange(n))
    with pytest.raises(ConfigError, match="18446744073709551615 subsets"):
        _core.order_mixture(objects["order"], subsets, 2**64 - 1, 10, 5, 1)
    for n_columns in (0, 2, 5):
        table = np.zeros((1, n_columns), dtype=np.int64)
        with pytest.raises(ConfigError, match=f"{n_columns} columns, expected 3"):
            _core.combine_occurrences([table])
        with pytest.raises(ConfigError, match=f"{n_columns} columns, expected 4"):
            _core.batch_documents(table, 1, 1, 1)


@pytest.mark.parametrize("seq_length", [2**60, 2**62])
def test_samples_beyond_memory_are_an_ordinary_error(folder: Path, seq_length: int) -> None:
    order = _core.TrainingOrder(folder / "order1", seq_length, folder / "sample", is_padded=True)
    for read in (lambda: order[0], lambda: order.read(0, 9), lambda: order.take(np.arange(9))):
        with pytest.raises(MemoryError):
            read()


def test_pickles_open_in_another_working_directory(
    folder: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    dataset = _core.TokenDataset("sample")
    order = _core.TrainingOrder("order1", 32, "sample")
    relative = [
        dataset,
        order,
        _core.rows_order("rows.bin", 5),
        _core.blended_order("blend", [order, order]),
        _core.SuffixIndex("index", dataset),
        _core.Tokenizer.from_file(tokenizer),
    ]
    pickled = [pickle.dumps(value) for value in relative]
    monkeypatch.chdir(tmp_path)
    for value, stored in zip(relative, pickled, strict=True):
        again = pickle.loads(stored)
        if not isinstance(value, (_core.Tokenizer, _core.SuffixIndex)):
            assert np.array_equal(again[3], value[3])
    assert pickle.loads(pickled[4]).count([1]) == relative[4].count([1])
    assert pickle.loads(pickled[5]).vocab_size == relative[5].vocab_size
