"""Token datasets from Python: views of the map, slices, iteration, other processes."""

from __future__ import annotations

import gc
import operator
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pile_tools import ConfigError, FormatError, PileError, TokenDataset, open_order, tokenize
from pile_tools.jobs import order as order_job
from pile_tools.jobs import tokenize as tokenize_job
from pile_tools.jobs import train_tokenizer
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig
from pile_tools.order.interventions import InsertedTexts
from pile_tools.read.shards import find_shards
from pile_tools.tokens import datasets
from pile_tools.tokens.concatenated import Concatenated


def test_documents_are_read_only_views_of_the_map(dataset: Path) -> None:
    tokens = TokenDataset(dataset)
    stored = np.fromfile(f"{dataset}.bin", dtype=tokens.dtype)
    assert np.array_equal(tokens.tokens, stored)
    ends = np.cumsum(tokens.lengths())
    for document in (0, 1, len(tokens) - 1, -1):
        view = tokens[document]
        end = ends[document]
        assert np.array_equal(view, stored[end - tokens.lengths()[document] : end])
        assert np.shares_memory(view, tokens.tokens)
        assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        tokens[0][0] = 1


def test_views_outlive_their_dataset(dataset: Path) -> None:
    expected = np.fromfile(f"{dataset}.bin", dtype=TokenDataset(dataset).dtype)
    tokens = TokenDataset(dataset)
    view, everything = tokens[3], tokens.tokens
    kept = view.copy()
    del tokens
    gc.collect()
    assert np.array_equal(view, kept)
    assert np.array_equal(everything, expected)


def test_slices_and_iteration_give_documents_in_order(dataset: Path) -> None:
    tokens = TokenDataset(dataset)
    every = list(tokens)
    assert len(every) == len(tokens)
    assert all(np.array_equal(a, tokens[i]) for i, a in enumerate(every))
    for chosen in (slice(2, 5), slice(None, None, -7), slice(-3, None), slice(5, 2)):
        assert all(np.array_equal(a, b) for a, b in zip(tokens[chosen], every[chosen], strict=True))


def test_what_is_no_document_is_refused(dataset: Path) -> None:
    tokens = TokenDataset(dataset)
    for document in (len(tokens), -len(tokens) - 1, 1 << 64):
        with pytest.raises(IndexError, match="out of range"):
            tokens[document]
    with pytest.raises(TypeError, match="a number or a slice"):
        tokens["0"]  # type: ignore[call-overload]
    assert np.array_equal(tokens[np.int64(1)], tokens[1])


def test_int32_documents_of_gpt_neox(golden: Path) -> None:
    tokens = TokenDataset(golden / "dataset" / "mixed32")
    assert tokens[0].dtype == np.int32
    assert np.array_equal(np.concatenate(list(tokens)), tokens.tokens)


def test_an_empty_document_is_an_empty_view(golden: Path) -> None:
    tokens = TokenDataset(golden / "dataset" / "zero")
    lengths = [len(document) for document in tokens]
    assert 0 in lengths
    assert lengths == tokens.lengths().tolist()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_take_a_dataset(
    dataset: Path, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(dataset.parent)
    tokens = TokenDataset(dataset.name)
    packed = pickle.dumps(tokens)
    assert len(packed) < 1000
    monkeypatch.chdir(tmp_path)
    there = pickle.loads(packed)
    assert np.array_equal(there[2], tokens[2])
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        documents = list(pool.map(operator.getitem, [there] * 20, range(20)))
    assert all(np.array_equal(a, b) for a, b in zip(documents, tokens[:20], strict=True))


def test_workers_of_a_data_loader(dataset: Path) -> None:
    data = pytest.importorskip("torch.utils.data")
    tokens = TokenDataset(dataset)
    loader = data.DataLoader(tokens, batch_size=4, num_workers=2, collate_fn=list)
    seen = [document for batch in loader for document in batch]
    assert all(np.array_equal(a, b) for a, b in zip(seen, tokens, strict=True))


def test_tokenizing_from_python_gives_the_dataset(
    dataset: Path, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []

    def on_progress(n_bytes: int, n_tokens: int) -> None:
        seen.append((n_bytes, n_tokens))

    made = tokenize(shards, tmp_path / "new" / "d", tokenizer=tokenizer, on_progress=on_progress)
    assert Path(f"{made.prefix}.bin").read_bytes() == Path(f"{dataset}.bin").read_bytes()
    assert seen == sorted(seen)
    assert seen[-1] == (sum(path.stat().st_size for path in shards.iterdir()), made.n_tokens)
    again = tokenize([str(shards)], tmp_path / "new" / "d", tokenizer=str(tokenizer), threads=1)
    assert again.fingerprint == made.fingerprint
    without = tokenize(shards, tmp_path / "w", tokenizer=tokenizer, append_eod=False)
    assert without.n_tokens == made.n_tokens - len(made)


def test_tokenizing_from_python_says_what_is_wrong(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(PileError, match="does not exist"):
        tokenize(tmp_path / "nothing", tmp_path / "d", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="on-bad-record must be error or skip"):
        tokenize(shards, tmp_path / "d", tokenizer=tokenizer, on_bad_record="maybe")


def test_origins_are_columns_of_what_each_document_says(dataset: Path, tmp_path: Path) -> None:
    tokens = TokenDataset(dataset)
    columns = tokens.origins()
    assert columns is not None
    for document in range(len(tokens)):
        origin = tokens.origin(document)
        assert origin is not None
        assert tokens.shards[columns["shard"][document]] == origin["shard"]
        subset = columns["subset"][document]
        assert (tokens.subsets[subset] if subset >= 0 else None) == origin["subset"]
        for name in ("record", "byte_start", "byte_length"):
            assert columns[name][document] == origin[name]
    for suffix in (".bin", ".idx"):
        shutil.copy(f"{dataset}{suffix}", tmp_path / f"d{suffix}")
    assert TokenDataset(tmp_path / "d").origins() is None


def test_all_datasets_of_a_blend_with_other_texts_are_recorded_and_checked(
    dataset: Path, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        for suffix in (".bin", ".idx", ".provenance", ".manifest.json"):
            shutil.copy(f"{dataset}{suffix}", tmp_path / f"{name}{suffix}")
    blend = Concatenated([TokenDataset(tmp_path / name) for name in ("a", "b")])
    documents = Concatenated([blend, InsertedTexts(blend, [np.arange(3, dtype=np.uint16)])])
    entries = datasets.origin_entries(documents, tmp_path)
    assert [entry["path"] for entry in entries] == ["a.provenance", "b.provenance"]
    (tmp_path / "b.manifest.json").unlink()
    config = TokenizeConfig(tokenizer=tokenizer)
    tokenize_job.run(find_shards([shards])[:1], tmp_path / "b", config, threads=1, force=True)
    with pytest.raises(FormatError, match="was replaced since it was opened"):
        datasets.check_unchanged(documents)


def test_a_dataset_is_not_mixed_with_the_tokenizer_of_the_one_that_replaces_it(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    train_tokenizer.run(find_shards([shards]), other, TrainTokenizerConfig(vocab_size=300), threads=1)
    prefix = tmp_path / "d"

    def make(of: Path) -> None:
        tokenize_job.run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=of), threads=1, force=True)

    make(tokenizer)
    order_job.run(prefix, None, OrderConfig(seq_length=16, samples=8))
    order, dataset = open_order(tmp_path), TokenDataset(prefix)
    found = datasets.tokenizer_file(dataset)
    # The same command makes the time of change of the manifest another one, and nothing else.
    tokenize_job.run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    order.tokenizer()
    make(other)
    for late in (
        order.tokenizer,
        lambda: order.dataset_manifest,
        found.load,
        lambda: datasets.tokenizer_of(dataset),
        lambda: datasets.origin_entries(dataset, tmp_path),
    ):
        with pytest.raises(FormatError, match="was replaced since it was opened; open it again"):
            late()
