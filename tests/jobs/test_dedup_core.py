"""Duplicates that the core finds: planted ones with a brute-force truth. Signatures and bands."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pile_tools import _core
from pile_tools.errors import ConfigError
from pile_tools.types import Deduplication, DedupSummary, DuplicateRows, NearDuplicates

THRESHOLD = 0.87

#: How likely a pair at the threshold is found, at least.
MIN_RECALL = 0.99

Found = tuple[DuplicateRows, DedupSummary]


def settings(folder: Path, near: NearDuplicates | None, normalize: str = "none") -> Deduplication:
    return Deduplication(
        near=near,
        normalize=normalize,
        prefer="first",
        subset_priority=[],
        protected=[],
        protected_texts=[],
        max_cluster=1000,
        large_clusters=False,
        memory=1 << 26,
        threads=2,
        folder=folder,
        job="job",
        discard=False,
    )


def find(shards: list[Path], folder: Path, near: NearDuplicates | None, normalize: str = "none") -> Found:
    return _core.find_duplicates(shards, settings(folder, near, normalize))


def near(threshold: str = "0.87", permutations: int = 256) -> NearDuplicates:
    return NearDuplicates(threshold=threshold, shingle="words:5", verify="jaccard", permutations=permutations)


def removals(found: DuplicateRows) -> dict[int, int]:
    """The kept copy of each removed document."""
    removed = found["decision"] == 1
    documents, copies = found["document"][removed], found["kept_copy"][removed]
    return dict(zip(documents.tolist(), copies.tolist(), strict=True))


@pytest.fixture(scope="module")
def planted(shared: Path) -> Path:
    """Documents with planted duplicates."""
    return shared / "golden" / "dedup"


@pytest.fixture(scope="module")
def texts(planted: Path) -> list[str]:
    """The texts of the documents."""
    lines = (planted / "docs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module")
def pairs(planted: Path, texts: list[str]) -> dict[tuple[int, int], float]:
    """The Jaccard similarity of each pair that has at least 0.3.

    In the file, a text of fewer than five words has one shingle. Here it has none, and is compared exactly.
    """
    lines = (planted / "pairs.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    similarities = {(int(a), int(b)): float(similarity) for a, b, similarity, _ in rows}
    return {pair: similarity for pair, similarity in similarities.items() if not is_short(texts[pair[0]])}


@pytest.fixture(scope="module")
def near_found(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The near duplicates of the planted documents, at the default settings."""
    return find([planted / "docs.jsonl"], tmp_path_factory.mktemp("near"), near())


def is_short(text: str) -> bool:
    """Whether a text has no shingle."""
    return len(text.split()) < 5


def exact_groups(planted: Path) -> Iterator[list[int]]:
    """The documents of each text that several have."""
    groups = json.loads((planted / "exact_groups.json").read_text())
    yield from (sorted(group) for group in groups.values() if len(group) > 1)


def test_exact_copies_are_charged_to_the_first(planted: Path, tmp_path: Path) -> None:
    rows, summary = find([planted / "docs.jsonl"], tmp_path, None)
    truth = {document: group[0] for group in exact_groups(planted) for document in group[1:]}
    assert removals(rows) == truth
    assert summary["n_removed"] == summary["n_exact_copies"] == len(truth)
    assert summary["bands"] is None
    assert set(rows["similarity"]) == {1.0}


def test_pairs_are_found_and_none_is_wrong(
    texts: list[str], pairs: dict[tuple[int, int], float], near_found: Found
) -> None:
    rows, summary = near_found
    truth = {pair for pair, similarity in pairs.items() if similarity >= THRESHOLD}
    # Copies have the pairs of their group's first member, which alone takes part in the verification.
    truth = {pair for pair in truth if all(texts.index(texts[document]) == document for document in pair)}
    assert MIN_RECALL * len(truth) <= summary["n_verified"] <= len(truth)
    near_rows = rows["kind"] == 2
    for document, copy, similarity in zip(
        rows["document"][near_rows].tolist(),
        rows["kept_copy"][near_rows].tolist(),
        rows["similarity"][near_rows].tolist(),
        strict=True,
    ):
        assert similarity >= THRESHOLD
        assert similarity == pytest.approx(pairs[copy, document], abs=1e-4)


def test_clusters_are_the_planted_ones(planted: Path, texts: list[str], near_found: Found) -> None:
    rows, summary = near_found
    clusters = json.loads((planted / "clusters_087.json").read_text())["clusters_min_id"]
    for document, text in enumerate(texts):
        if is_short(text):
            clusters[document] = texts.index(text)
    sizes = Counter(clusters)
    truth = {document: cluster for document, cluster in enumerate(clusters) if sizes[cluster] > 1}
    assert dict(zip(rows["document"].tolist(), rows["cluster"].tolist(), strict=True)) == truth
    assert rows["cluster_size"].tolist() == [sizes[cluster] for cluster in truth.values()]
    assert summary["n_clusters"] == len(set(truth.values()))
    assert summary["largest_cluster"] == max(sizes.values())


def test_removals_follow_the_rule(
    planted: Path, pairs: dict[tuple[int, int], float], near_found: Found
) -> None:
    rows, summary = near_found
    similar: dict[int, set[int]] = {}
    for (a, b), similarity in pairs.items():
        if similarity >= THRESHOLD:
            similar.setdefault(b, set()).add(a)
    for group in exact_groups(planted):
        for document in group[1:]:
            similar.setdefault(document, set()).update(other for other in group if other < document)
    truth: dict[int, int] = {}
    for document in sorted(similar):
        kept = [other for other in sorted(similar[document]) if other not in truth]
        if kept:
            truth[document] = kept[0]
    assert removals(rows) == truth
    assert summary["n_removed"] == len(truth)
    # A chain leaves documents that are unlike the kept copy.
    assert any(
        len(set(rows["document"][rows["cluster"] == cluster].tolist()) - set(truth)) > 1
        for cluster in set(rows["cluster"].tolist())
    )


def test_case_and_white_space_are_found_when_normalized(
    planted: Path, texts: list[str], tmp_path: Path
) -> None:
    def folded(text: str) -> str:
        return " ".join(unicodedata.normalize("NFC", text).casefold().split())

    def joined(text: str) -> str:
        return " ".join(text.split())

    for name, normalized in [("whitespace", joined), ("case", folded)]:
        keys = [normalized(text) for text in texts]
        firsts = {document: keys.index(key) for document, key in enumerate(keys)}
        truth = {document: first for document, first in firsts.items() if first != document}
        rows, _ = find([planted / "docs.jsonl"], tmp_path / name, None, name)
        assert removals(rows) == truth


def test_texts_fold_as_in_python(tmp_path: Path) -> None:
    # One document for each character that Python folds, and one for its folded form.
    folding = [
        c for c in map(chr, range(0x110000)) if c.casefold() != c and unicodedata.is_normalized("NFC", c)
    ]
    texts = [text for c in folding for text in (c, c.casefold())]
    shard = tmp_path / "a.jsonl"
    shard.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    rows, _ = find([shard], tmp_path / "scratch", None, "case")
    first: dict[str, int] = {}
    for document, text in enumerate(texts):
        first.setdefault(unicodedata.normalize("NFC", text).casefold(), document)
    truth = {
        document: first[unicodedata.normalize("NFC", text).casefold()] for document, text in enumerate(texts)
    }
    found = {document: document for document in truth} | removals(rows)
    differing = {texts[d]: (texts[found[d]], texts[truth[d]]) for d in truth if found[d] != truth[d]}
    assert not differing


def test_settings_are_checked(tmp_path: Path) -> None:
    shard = tmp_path / "a.jsonl"
    shard.write_text('{"text": "a"}\n')
    for settings, message in [
        (near("0"), 'threshold "0", expected'),
        (near("0.87", 0), "0 permutations, expected 1 to 4096"),
    ]:
        with pytest.raises(ConfigError, match=message):
            find([shard], tmp_path / "scratch", settings)


def test_signatures_estimate_the_similarity() -> None:
    words = [f"w{i}" for i in range(1000)]
    texts = [" ".join(words[:800]), " ".join(words[200:]), "too short", ""]
    hasher = _core.MinHasher(1024, "words:1")
    signatures = hasher.signatures(texts)
    assert signatures.shape == (4, 1024)
    assert signatures.dtype == np.uint32
    assert abs((signatures[0] == signatures[1]).mean() - 0.6) < 0.05
    assert (_core.MinHasher(7, "words:5").signatures(texts[2:]) == 2**32 - 1).all()
    assert _core.MinHasher().signatures([]).shape == (0, 256)
    folded = _core.MinHasher(64, "chars:3", "case").signatures(["STRASSE  1", "straße 1"])
    assert (folded[0] == folded[1]).all()


def test_hashers_refuse_what_they_cannot_do() -> None:
    for permutations, shingle, normalize, message in [
        (0, "words:5", "none", "0 permutations"),
        (4097, "words:5", "none", "4097 permutations"),
        (1, "words:0", "none", "shingle"),
        (1, "words:1", "nfc", "normalization"),
    ]:
        with pytest.raises(ConfigError, match=message):
            _core.MinHasher(permutations, shingle, normalize)


def test_bands_reach_their_probability() -> None:
    bands, rows = _core.lsh_bands("0.87", 256)
    assert (bands, rows) == (25, 10)
    probability = _core.band_probability(0.87, bands, rows)
    assert probability == pytest.approx(1 - (1 - 0.87**rows) ** bands)
    assert probability >= 0.999
    with pytest.raises(ConfigError, match="threshold"):
        _core.lsh_bands("1.5", 256)


def test_tasks_of_other_processes_find_the_same(planted: Path, tmp_path: Path) -> None:
    shards = [planted / "docs.jsonl"]
    rows, summary = find(shards, tmp_path / "alone", near())
    how, names = settings(tmp_path / "tasks", near()), []

    def run_tasks(tasks: list[tuple[str, str]]) -> None:
        for name, task in reversed(tasks):
            names.append(name)
            _core.run_dedup_task(shards, dataclasses.replace(how, threads=1, memory=1 << 20), task)

    found, of_tasks = _core.find_duplicates(shards, how, run_tasks=run_tasks)
    assert of_tasks == summary
    assert found.keys() == rows.keys()
    assert all(np.array_equal(found[name], rows[name]) for name in rows)  # type: ignore[literal-required]
    assert len(names) == len(set(names)) == 1 + 25 + 1 + 1
    assert {path.name for path in (tmp_path / "tasks" / "tasks").iterdir()} == set(names)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("no cluster")])
def test_a_failure_of_who_runs_the_tasks_ends_the_job(
    planted: Path, tmp_path: Path, error: type[BaseException] | BaseException
) -> None:
    def fail(tasks: list[tuple[str, str]]) -> None:
        raise error

    with pytest.raises((KeyboardInterrupt, ValueError)):
        _core.find_duplicates([planted / "docs.jsonl"], settings(tmp_path, near()), run_tasks=fail)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("x", "no task: x"),
        ('{"bands":{"shard":-1}}', "no task"),
        ('{"bands":{"shard":1}}', "a task for shard 1, and there are 1"),
        ('{"pairs":{"band":25}}', "a task for band 25, and there are 25"),
        ('{"verify":{"first":2}}', "a task from candidate 2, and there are 2"),
    ],
)
def test_what_is_no_task_of_the_job_is_an_error(
    planted: Path, tmp_path: Path, task: str, message: str
) -> None:
    shards, how = [planted / "docs.jsonl"], settings(tmp_path, near())

    def run_tasks(tasks: list[tuple[str, str]]) -> None:
        for _, task in tasks:
            _core.run_dedup_task(shards, how, task)

    _core.find_duplicates(shards, how, run_tasks=run_tasks)
    # The folder of finished candidates is removed, as they are part of no later run.
    (tmp_path / "sort").mkdir()
    (tmp_path / "sort" / "candidates").write_bytes(bytes(16))
    with pytest.raises(ConfigError, match=message):
        _core.run_dedup_task(shards, how, task)
