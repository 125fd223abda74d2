"""Deduplication: planted copies are found, removals follow the rule, and what stays is as it was."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard
from tests.conftest import Run

import pile_tools
from pile_tools import manifest
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError
from pile_tools.jobs import clusters, dedup, dedup_passages, rewriting
from pile_tools.jobs.contamination import ContaminationConfig
from pile_tools.jobs.dedup import DedupConfig, NearConfig
from pile_tools.jobs.rewriting import CLUSTERS_FILE
from pile_tools.present.dedup_page import differences
from pile_tools.read import texts
from pile_tools.read.shards import find_shards

MEMORY = 64 << 20


def run(shards: Path, output: Path, config: DedupConfig, **how: Any) -> manifest.Manifest:
    how = {"memory": MEMORY, "threads": 2, **how}
    return dedup.run(find_shards([shards]), output, config, **how)[0]


def lines(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    elif path.suffix == ".gz":
        data = gzip.decompress(data)
    return data.splitlines(keepends=True)


def members(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / CLUSTERS_FILE).to_pylist()
    return rows


def jaccard(a: str, b: str, n: int = 5) -> Fraction:
    """The definition: sets of n consecutive words."""
    sets = []
    for words in (a.split(), b.split()):
        sets.append({tuple(words[i : i + n]) for i in range(len(words) - n + 1)})
    union = sets[0] | sets[1]
    return Fraction(len(sets[0] & sets[1]), len(union)) if union else Fraction(0)


def survivors(texts: list[str], pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The kept document to which each removed one is charged, by the rule: the first kept one before it.

    Exact copies are pairs too.
    """
    before: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs:
        before[max(a, b)].add(min(a, b))
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        if text in first:
            before[i].add(first[text])
            # A copy has the pairs of the document whose text it has.
            before[i] |= before[first[text]]
        else:
            first[text] = i
    removed: dict[int, int] = {}
    for i in range(len(texts)):
        kept = sorted(j for j in before[i] if j not in removed)
        if kept:
            removed[i] = kept[0]
    return removed


@pytest.fixture(scope="module")
def planted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with the planted documents in three shards, and their texts."""
    folder = tmp_path_factory.mktemp("planted")
    found = (shared / "golden" / "dedup" / "docs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for shard, (first, end) in enumerate(((0, 400), (400, 401), (401, len(found)))):
        (folder / f"{shard}.jsonl").write_text("".join(found[first:end]), encoding="utf-8")
    return folder, [json.loads(line)["text"] for line in found]


def number_of(row: dict[str, Any], prefix: str = "") -> int:
    first = (0, 400, 401)[int(Path(row[f"{prefix}shard"]).stem)]
    return first + int(row[f"{prefix}record"])


def test_planted_copies_are_found_and_removals_follow_the_rule(
    shared: Path, planted: tuple[Path, list[str]], tmp_path: Path
) -> None:
    shards, texts = planted
    made = run(shards, tmp_path / "out", DedupConfig(near=NearConfig()))
    rows = members(tmp_path / "out")
    # The truth counts a text of fewer than five words as one shingle; here it is only deduplicated exactly.
    pairs = []
    for line in (shared / "golden" / "dedup" / "pairs.tsv").read_text().splitlines()[1:]:
        a, b, similarity = line.split("\t")[:3]
        if float(similarity) >= 0.87 and min(len(texts[int(i)].split()) for i in (a, b)) >= 5:
            pairs.append((int(a), int(b)))
    expected = survivors(texts, pairs)
    removed = {number_of(row): row for row in rows if row["decision"] == "removed"}
    assert len(set(removed) ^ set(expected)) <= len(expected) // 100
    for number, row in removed.items():
        kept = number_of(row, "kept_")
        assert kept not in removed
        similarity = Fraction(1) if texts[number] == texts[kept] else jaccard(texts[number], texts[kept])
        assert similarity >= Fraction("0.87")
        assert row["similarity"] == pytest.approx(float(similarity))
    for shard in sorted(shards.iterdir()):
        first = (0, 400, 401)[int(shard.stem)]
        stay = [line for i, line in enumerate(lines(shard)) if first + i not in removed]
        assert lines(tmp_path / "out" / shard.name) == stay
    assert made.summary["n_removed"] == len(removed)
    assert made.summary["n_documents"] == len(texts)


def test_clusters_are_the_connected_components(
    shared: Path, planted: tuple[Path, list[str]], tmp_path: Path
) -> None:
    shards, texts = planted
    run(shards, tmp_path / "out", DedupConfig(near=NearConfig()), dry_run=True)
    assert not list((tmp_path / "out").glob("*.jsonl"))
    smallest = json.loads((shared / "golden" / "dedup" / "clusters_087.json").read_text())["clusters_min_id"]
    found = list(range(len(texts)))
    for row in members(tmp_path / "out"):
        found[number_of(row)] = row["cluster"]
    long = [i for i, text in enumerate(texts) if len(text.split()) >= 5]
    assert [found[i] for i in long] == [smallest[i] for i in long]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_memory_change_nothing(
    planted: tuple[Path, list[str]], tmp_path: Path, threads: int
) -> None:
    shards, _ = planted
    config = DedupConfig(near=NearConfig(permutations=64))
    run(shards, tmp_path / "a", config)
    run(shards, tmp_path / "b", config, threads=threads, memory=1 << 20)
    for name in ("0.jsonl", "1.jsonl", "2.jsonl", CLUSTERS_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def write(path: Path, texts: Iterable[str], subsets: Iterable[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = list(texts)
    names = list(subsets or ["s"] * len(texts))
    path.write_text(
        "".join(
            json.dumps({"text": text, "meta": {"pile_set_name": name}}) + "\n"
            for text, name in zip(texts, names, strict=True)
        )
    )
    return path


WORDS = [f"w{i}" for i in range(100)]
#: Each is like the one before it and unlike the others: 86 and 76 of 106 shingles of five words.
CHAIN = [" ".join(WORDS[i : i + 90]) for i in (0, 5, 10)]


def test_a_chain_does_not_remove_what_is_unlike_the_copy_that_stays(tmp_path: Path) -> None:
    assert jaccard(CHAIN[0], CHAIN[1]) >= Fraction("0.87")
    assert jaccard(CHAIN[1], CHAIN[2]) >= Fraction("0.87")
    assert jaccard(CHAIN[0], CHAIN[2]) < Fraction("0.87")
    write(tmp_path / "in/a.jsonl", CHAIN)
    run(tmp_path / "in", tmp_path / "out", DedupConfig(near=NearConfig()))
    rows = members(tmp_path / "out")
    assert [row["decision"] for row in rows] == ["kept", "removed", "kept"]
    assert {row["cluster_size"] for row in rows} == {3}
    assert [json.loads(line)["text"] for line in lines(tmp_path / "out/a.jsonl")] == [CHAIN[0], CHAIN[2]]


@pytest.mark.parametrize(
    ("prefer", "stays"),
    [("first", 0), ("longest", 1), ("subset:c", 2), ("subset:b,c", 1), ("subset:z", 0)],
)
def test_the_preferred_copy_stays(tmp_path: Path, prefer: str, stays: int) -> None:
    texts = [" ".join(WORDS), " ".join(WORDS) + " longer", " ".join(WORDS[:99])]
    write(tmp_path / "in/a.jsonl", texts, ["a", "b", "c"])
    run(tmp_path / "in", tmp_path / "out", DedupConfig(prefer=prefer, near=NearConfig()))
    assert [json.loads(line)["text"] for line in lines(tmp_path / "out/a.jsonl")] == [texts[stays]]


@pytest.mark.parametrize("normalize", ["none", "whitespace", "case"])
def test_exact_copies_of_the_normalized_text(tmp_path: Path, normalize: str) -> None:
    texts = ["One  two", "One two", "one TWO ", "one two", "", "", "three"]
    write(tmp_path / "in/a.jsonl", texts)
    run(tmp_path / "in", tmp_path / "out", DedupConfig(normalize=normalize))
    kept = [json.loads(line)["text"] for line in lines(tmp_path / "out/a.jsonl")]
    assert (
        kept
        == {
            "none": ["One  two", "One two", "one TWO ", "one two", "", "three"],
            "whitespace": ["One  two", "one TWO ", "one two", "", "three"],
            "case": ["One  two", "", "three"],
        }[normalize]
    )


def test_protected_documents_stay(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jsonl", ["x y", "x y", "x y", "z", "z"])
    (tmp_path / "stay.txt").write_text("a.jsonl:1\na.jsonl:2\n")
    run(tmp_path / "in", tmp_path / "out", DedupConfig(), protect=tmp_path / "stay.txt")
    decisions = {row["record"]: row["decision"] for row in members(tmp_path / "out")}
    assert decisions == {0: "removed", 1: "kept", 2: "kept", 3: "kept", 4: "removed"}


@pytest.mark.parametrize("near", [None, NearConfig()])
@pytest.mark.parametrize("prefer", ["first", "longest"])
def test_copies_of_an_older_corpus_are_removed_as_if_its_documents_were_protected(
    planted: tuple[Path, list[str]], tmp_path: Path, near: NearConfig | None, prefer: str
) -> None:
    shards, texts = planted
    for folder, names in (("old", ["0.jsonl"]), ("new", ["1.jsonl", "2.jsonl"])):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copyfile(shards / name, tmp_path / folder / name)
    (tmp_path / "stay.txt").write_text("".join(f"0.jsonl:{record}\n" for record in range(400)))
    config = DedupConfig(near=near, prefer=prefer)
    run(shards, tmp_path / "whole", config, protect=tmp_path / "stay.txt")
    made = run(tmp_path / "new", tmp_path / "out", config, against=tmp_path / "old")

    def removed(folder: str) -> list[tuple[Any, ...]]:
        # Clusters differ, as older documents are not compared with each other.
        return sorted(
            (number_of(row), number_of(row, "kept_"), row["similarity"], row["kind"])
            for row in members(tmp_path / folder)
            if row["decision"] == "removed"
        )

    assert removed("out") == removed("whole")
    assert any(copy < 400 for _, copy, _, _ in removed("out"))
    assert made.summary["n_removed"] == len(removed("out"))
    assert made.summary["n_documents"] == len(texts) - 400
    # Older documents are listed where they are copies of newer ones.
    assert any(number_of(row) < 400 for row in members(tmp_path / "out"))
    clusters = {row["cluster"] for row in members(tmp_path / "out") if number_of(row) >= 400}
    assert clusters == {row["cluster"] for row in members(tmp_path / "out")}
    for name in ("1.jsonl", "2.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / "0.jsonl").exists()
    row = next(row for row in members(tmp_path / "out") if number_of(row) < 400)
    back = rewriting.restored(tmp_path / "out", f"{row['shard']}:{row['record']}")
    assert json.loads(back)["text"] == texts[number_of(row)]


def test_an_older_corpus_has_other_shards(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jsonl", ["x y", "x y"])
    with pytest.raises(ConfigError, match=r"have this shard in common.*a\.jsonl"):
        run(tmp_path / "in", tmp_path / "out", DedupConfig(), against=tmp_path / "in")


def test_protected_and_marked_documents_beside_an_older_corpus(tmp_path: Path) -> None:
    write(tmp_path / "old/a.jsonl", ["x y", "z"])
    write(tmp_path / "new/b.jsonl", ["x y", "z", "x y"])
    (tmp_path / "stay.txt").write_text("b.jsonl:2\n")
    how = {"against": tmp_path / "old", "protect": tmp_path / "stay.txt"}
    run(tmp_path / "new", tmp_path / "out", DedupConfig(), **how)
    assert [json.loads(line)["text"] for line in lines(tmp_path / "out/b.jsonl")] == ["x y"]
    made = run(tmp_path / "new", tmp_path / "marked", DedupConfig(mark=True), against=tmp_path / "old")
    assert made.summary["n_marked"] == 3
    marks = [json.loads(line)["meta"]["dedup"] for line in lines(tmp_path / "marked/b.jsonl")]
    assert [mark["size"] for mark in marks] == [3, 2, 3]


def test_a_list_of_protected_documents_is_read_as_other_lists(tmp_path: Path) -> None:
    name = "a\u2028b.jsonl"
    write(tmp_path / "in" / name, ["x y", "x y", "x y"])
    (tmp_path / "stay.txt").write_bytes(f"\ufeff{name}:1\r\n\n{name}:2".encode())
    run(tmp_path / "in", tmp_path / "out", DedupConfig(), protect=tmp_path / "stay.txt")
    assert [row["decision"] for row in members(tmp_path / "out")] == ["removed", "kept", "kept"]


def test_a_canary_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", ["some text"])
    canaries = tmp_path / "canaries.json"
    canaries.write_text('{"passages": [{"text": "abc \\udc80"}]}')
    with pytest.raises(FormatError, match=r"half|halves.*canaries\.json"):
        run(tmp_path / "in", tmp_path / "out", DedupConfig(), protect=canaries)


def test_a_protected_document_with_a_name_that_no_file_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", ["x y", "x y"])
    for name in ("x\0y", "/x\0y", "/" + "x" * 10_000):
        (tmp_path / "stay.txt").write_text(f"{name}:1\n")
        with pytest.raises(ConfigError, match="no shard"):
            run(tmp_path / "in", tmp_path / "out", DedupConfig(), protect=tmp_path / "stay.txt")


def test_a_list_of_protected_documents_replaced_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in/a.jsonl", ["x y", "x y", "x y"])
    (tmp_path / "stay.txt").write_text("a.jsonl:1\n")

    def read_then_replace(path: Path) -> list[bytes]:
        found = texts.read_lines(path)
        (tmp_path / "new").write_text("a.jsonl:2\n")
        (tmp_path / "new").rename(path)
        return found

    monkeypatch.setattr(rewriting, "read_lines", read_then_replace)
    with pytest.raises(PileError, match=r"changed while it was read.*stay\.txt"):
        run(tmp_path / "in", tmp_path / "out", DedupConfig(), protect=tmp_path / "stay.txt")
    assert not (tmp_path / "out").exists()


def test_canaries_of_a_sample_stay(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jsonl", ["x y", "canary one", "x y", "canary one"])
    passages = {"passages": [{"text": "canary one", "repeats": 2}]}
    (tmp_path / "canaries.json").write_text(json.dumps({"about": "", "repeats": [2], **passages}))
    run(tmp_path / "in", tmp_path / "out", DedupConfig(), protect=tmp_path / "canaries.json")
    kept = [json.loads(line)["text"] for line in lines(tmp_path / "out/a.jsonl")]
    assert kept == ["x y", "canary one", "canary one"]


def test_large_clusters_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    texts = [" ".join([*WORDS, str(i)]) for i in range(12)]
    write(tmp_path / "in/a.jsonl", texts)
    left = run(tmp_path / "in", tmp_path / "l", DedupConfig(near=NearConfig(max_cluster=10)))
    assert left.summary["n_removed"] == 0
    assert left.summary["n_left_alone"] == 12
    assert {row["decision"] for row in members(tmp_path / "l")} == {"left alone"}
    config = DedupConfig(near=NearConfig(max_cluster=10, large_clusters=True))
    assert run(tmp_path / "in", tmp_path / "a", config).summary["n_removed"] == 11


def test_marks_re_weight_instead_of_removing(tmp_path: Path) -> None:
    shard = write(tmp_path / "in/a.jsonl", ["x y", "alone", "x y"])
    run(tmp_path / "in", tmp_path / "out", DedupConfig(mark=True))
    before, after = lines(shard), lines(tmp_path / "out/a.jsonl")
    assert after[1] == before[1]
    for i in (0, 2):
        record = json.loads(after[i])
        assert record["meta"].pop("dedup") == {"cluster": 0, "size": 2}
        assert record == json.loads(before[i])


def test_an_untouched_shard_is_copied(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jsonl", ["x y", "x y"])
    (tmp_path / "in/b.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(b'{"text": "b"}'))
    before = (tmp_path / "in/b.jsonl.zst").read_bytes()
    run(tmp_path / "in", tmp_path / "out", DedupConfig())
    assert (tmp_path / "out/b.jsonl.zst").read_bytes() == before


def test_the_output_is_read_as_shards(tmp_path: Path) -> None:
    """Its table is a Parquet file, which must not be taken for a shard."""
    write(tmp_path / "in/a.jsonl", ["x y", "x y"])
    run(tmp_path / "in", tmp_path / "out", DedupConfig())
    assert [path.name for path in find_shards([tmp_path / "out"])] == ["a.jsonl"]


def test_a_finished_output_is_kept_and_another_request_refused(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jsonl", ["x y", "x y"])
    shards = find_shards([tmp_path / "in"])
    how = {"memory": MEMORY, "threads": 1}
    assert dedup.run(shards, tmp_path / "out", DedupConfig(), **how)[1]
    assert not dedup.run(shards, tmp_path / "out", DedupConfig(), **how)[1]
    with pytest.raises(OutputExistsError, match="made before with"):
        dedup.run(shards, tmp_path / "out", DedupConfig(normalize="case"), **how)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(("text", "plain"), [("0.870", "0.87"), ("1.0", "1"), ("0.0010", "0.001")])
def test_a_threshold_is_the_same_setting_however_it_is_written(text: str, plain: str) -> None:
    assert NearConfig(threshold=text) == NearConfig(threshold=plain)
    assert NearConfig(threshold=text).threshold == ContaminationConfig(threshold=text).threshold == plain


def test_shards_of_one_name_are_numbered_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "in/b/a.jsonl", ["one"])
    write(tmp_path / "in/a/b.jsonl", ["two"])
    write(tmp_path / "in/a/a.jsonl", ["three", "two"])
    run(tmp_path / "in", tmp_path / "out", DedupConfig())
    found = [path.name for path in find_shards([tmp_path / "out"])]
    assert found == ["000000-a.jsonl", "000001-b.jsonl", "000002-a.jsonl"]


@pytest.mark.parametrize("name", ["state.json", "replaced.json", "order.json", "manifest.json"])
def test_a_shard_with_the_name_of_a_file_of_the_job_is_numbered(tmp_path: Path, name: str) -> None:
    write(tmp_path / "in" / name, ["one", "one"])
    run(tmp_path / "in", tmp_path / "out", DedupConfig())
    assert [path.name for path in find_shards([tmp_path / "out"])] == [f"000000-{name}"]


def test_a_shard_with_the_name_of_a_manifest_gets_another(tmp_path: Path) -> None:
    write(tmp_path / "in" / "x.json", ["one", "one"])
    write(tmp_path / "in" / "x.manifest.json", ["two", "one"])
    run(tmp_path / "in", tmp_path / "out", DedupConfig())
    assert [path.name for path in find_shards([tmp_path / "out"])] == ["000000-x.json", "000001-x.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["near", "--threshold", "1.2"], "threshold must be above 0"),
        (["near", "--threshold", "0"], "threshold must be above 0"),
        (["near", "--shingle", "words"], "shingle must be words:N"),
        (["near", "--permutations", "7"], "permutations must be from 16"),
        (["exact", "--prefer", "last"], "prefer must be first"),
        (["exact", "--normalize", "nfc"], "normalize must be none"),
    ],
)
def test_wrong_options_are_told(cli: Run, tmp_path: Path, options: list[str], message: str) -> None:
    write(tmp_path / "in/a.jsonl", ["x"])
    kind, *more = options
    done = cli("dedup", kind, tmp_path / "in", "-o", tmp_path / "out", *more)
    assert done.returncode == 2
    assert message in done.stderr


def test_differences_at_the_ends_of_a_text_have_a_context() -> None:
    kept = "one two three"
    assert differences(kept, "new " + kept) == "<ins>new </ins>one two three […] "
    assert differences(kept, kept + " new") == " […] one two three<ins> new</ins>"


def test_differences_keep_the_longest_equal_text() -> None:
    assert differences("the A B C D", "A B C D the") == "<del>the </del>A B C D<ins> the</ins>"
    # Matches of one word each would make this cubic in the number of words.
    assert "<ins>b </ins>" in differences("a " * 500, "a " * 250 + "b " + "a " * 250)


def test_differences_mark_what_is_not_shown() -> None:
    assert differences("one", "z" * 481 + " one") == f"<ins>{'z' * 480} […]</ins>one […] "
    words = " ".join(map(str, range(5000)))
    assert differences(words, "new " + words).endswith("</ins> […]")


def test_repetitive_texts_are_compared_less_far() -> None:
    """Each of n equal words of one text is compared with each of the other: minutes for these."""
    kept = "a " * 10_000
    assert (
        differences(kept, "a " * 9_000 + "b " * 1_000) == "The texts are equal as far as they are compared."
    )
    assert "b </ins>" in differences(kept, "a " * 50 + "b " + kept[102:])
    words = " ".join(map(str, range(3000)))
    assert "<ins> new</ins>" in differences(words, words + " new"), "prose is compared as far as before"


def text_of_page(path: Path) -> str:
    page = re.sub(r"<style.*?</style>|<svg.*?</svg>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_pages_say_what_was_done_and_measured(cli: Run, tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(100)]
    texts = [" ".join(words), " ".join([*words[:50], "new", *words[51:]]), "another text of other words"]
    write(tmp_path / "in/a.jsonl", texts)

    def page(*options: str) -> tuple[str, str]:
        name = tmp_path / "_".join(options).replace("--", "")
        report = name.with_suffix(".html")
        done = cli("dedup", "near", tmp_path / "in", "-o", name, "--report", report, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout, text_of_page(report)

    printed, shown = page("--mark")
    assert "2 documents marked, none removed" in printed
    assert "2 documents of 3 (66.7%) marked with their cluster, none removed." in shown
    assert "Cluster Documents Marked copies Kept Left alone ../in/a.jsonl:0 2 1 1 0" in shown
    assert "kept: ../in/a.jsonl:0 marked as its copy: ../in/a.jsonl:1" in shown
    assert "Removed" not in shown
    assert "MB of text removed" not in shown
    printed, shown = page("--dry-run")
    assert "a dry run: no shard was written" in printed
    assert "1 document of 3 removed (33.3%), 0.0 of 0.0 MB of text. A dry run: no shard was written." in shown
    assert "dry run" not in page("--threshold", "0.9")[1]
    _, shown = page("--verify", "containment")
    assert "candidate pair" in shown
    assert "verified containment" in shown
    assert "verified similarity" not in shown
    assert "containment 0.9" in shown
    assert "Jaccard similarity Probability" in shown


@pytest.mark.parametrize("n_rows", [7, 1 << 16])
def test_the_largest_clusters_are_those_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    """Which is read in batches that cut clusters in two."""
    monkeypatch.setattr(clusters, "_BATCH_ROWS", n_rows)
    generator = random.Random(3)
    documents = [f"text {number}" for number in range(3000) for _ in range(generator.choice([1, 2, 2, 5]))]
    documents += ["copied"] * 2000
    write(tmp_path / "in/a.jsonl", documents)
    made = run(tmp_path / "in", tmp_path / "out", DedupConfig())
    sizes = Counter(documents)
    found = clusters.largest_clusters(made, 20)
    first = {text: documents.index(text) for text, size in sizes.items() if size > 1}
    expected = sorted(first, key=lambda text: (-sizes[text], first[text]))[:20]
    assert [of.name.rpartition(":")[2] for of in found] == [str(first[text]) for text in expected]
    assert [of.size for of in found] == [sizes[text] for text in expected]
    assert [(of.n_removed, of.n_kept) for of in found] == [(sizes[text] - 1, 1) for text in expected]
    assert clusters.largest_clusters(run(tmp_path / "out", tmp_path / "none", DedupConfig()), 5) == []


@pytest.mark.parametrize("job", ["near", "passages"])
def test_a_damaged_table_is_named(cli: Run, tmp_path: Path, job: str) -> None:
    text = " ".join(f"w{i}" for i in range(100))
    write(tmp_path / "in/a.jsonl", [text, text + " end", text])
    command = ["dedup", job, tmp_path / "in", "-o", tmp_path / "out", "--report", tmp_path / "r.html"]
    assert cli(*command).returncode == 0
    path = next((tmp_path / "out").glob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    done = cli(*command)
    assert done.returncode == 1
    assert f"is not the file that its manifest lists; make the output again ({path})" in done.stderr
    # Whoever can write the table can write its manifest too.
    read = clusters.largest_clusters if job == "near" else dedup_passages.longest_passages
    manifest_path, generator = tmp_path / "out" / "manifest.json", random.Random(5)
    values = json.loads(manifest_path.read_text())
    (entry,) = (entry for entry in values["outputs"] if entry["path"] == path.name)
    n_refused = 0
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 8)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        unsigned = {key: value for key, value in values.items() if key != "checksum"}
        manifest_path.write_text(json.dumps(unsigned | {"checksum": fingerprint(unsigned)}))
        try:
            read(manifest.read(manifest_path), 5)
        except FormatError as err:
            n_refused += str(path) in str(err)
    assert n_refused > 50


def test_python_and_the_command_give_the_same(
    cli: Run, planted: tuple[Path, list[str]], tmp_path: Path
) -> None:
    shards, _ = planted
    options = ["--threshold", "0.8", "--prefer", "longest", "--normalize", "case"]
    done = cli("dedup", "near", shards, "-o", tmp_path / "command", *options, "--json")
    assert done.returncode == 0, done.stderr
    found = pile_tools.dedup(
        shards, tmp_path / "python", threshold=0.8, prefer="longest", normalize="case", memory=MEMORY
    )
    assert json.loads(json.dumps(found)) == json.loads(done.stdout)["summary"]
    names = sorted(path.name for path in (tmp_path / "command").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "python").iterdir())
    for name in names:
        assert (tmp_path / "command" / name).read_bytes() == (tmp_path / "python" / name).read_bytes()
    exact = pile_tools.dedup([shards], tmp_path / "exact", near=False, dry_run=True)
    assert exact["n_exact_copies"] == exact["n_removed"] > 0


def test_from_the_command_line(cli: Run, planted: tuple[Path, list[str]], tmp_path: Path) -> None:
    shards, texts = planted
    report = tmp_path / "report.html"
    done = cli("dedup", "near", shards, "-o", tmp_path / "out", "--report", report, "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "removed" in done.stdout
    page = report.read_text()
    assert "Largest clusters" in page
    removed = next(row for row in members(tmp_path / "out") if row["decision"] == "removed")
    name = f"{removed['shard']}:{removed['record']}"
    back = cli("dedup", "restore", tmp_path / "out", name)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["text"] == texts[number_of(removed)]
    for wrong in ("9.jsonl:0", "0.jsonl:99999", "0.jsonl"):
        assert cli("dedup", "restore", tmp_path / "out", wrong).returncode in (1, 2)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ConfigError, match="is not SHARD:RECORD"):
        rewriting.read_protected(write(tmp_path / "p", ["x"]), find_shards([shards]))


def test_a_record_of_a_changed_shard_is_not_restored(cli: Run, tmp_path: Path) -> None:
    shard = write(tmp_path / "s" / "0.jsonl", ["a", "a", "other"])
    assert cli("dedup", "exact", tmp_path / "s", "-o", tmp_path / "out").returncode == 0
    assert json.loads(cli("dedup", "restore", tmp_path / "out", "0.jsonl:1").stdout)["text"] == "a"
    for changed in (["a", "other"], ["b", "a", "other"]):
        write(shard, changed)
        done = cli("dedup", "restore", tmp_path / "out", "0.jsonl:1")
        assert done.returncode == 1
        assert "changed since" in done.stderr


def test_a_restored_text_has_its_lines_and_tabs(cli: Run, tmp_path: Path) -> None:
    text = "one\n\ttwo\n\x1b[31m\n"
    (tmp_path / "s").mkdir()
    for name in ("a", "b"):
        (tmp_path / "s" / f"{name}.txt").write_text(text)
    assert cli("dedup", "exact", tmp_path / "s", "-o", tmp_path / "out").returncode == 0
    assert cli("dedup", "restore", tmp_path / "out", "b.txt:0").stdout == "one\n\ttwo\n\\x1b[31m\n\n"


@pytest.mark.parametrize("method", ["exact", "near"])
def test_what_is_ignored_beside_older_shards_is_told(cli: Run, tmp_path: Path, method: str) -> None:
    for folder in ("old", "new"):
        write(tmp_path / folder / "0.jsonl", [folder])
        (tmp_path / folder / "1.jsonl.xz").touch()
    words = (method, tmp_path / "new", "-o", tmp_path / "out", "--against", tmp_path / "old")
    done = cli("dedup", *words)
    assert done.returncode == 0, done.stderr
    assert "2 ignored beside the shards" in done.stdout
    found = manifest.read(tmp_path / "out/manifest.json").summary["passed_over"]
    assert [one["path"] for one in found["first"]] == ["../new/1.jsonl.xz", "../old/1.jsonl.xz"]


def test_bad_records_are_left_where_they_are_and_counted(cli: Run, tmp_path: Path) -> None:
    shard = tmp_path / "s" / "0.jsonl"
    shard.parent.mkdir()
    data = '{"text": "a"}\n\n{bad\n{"text": 5}\n{"text": "b"}\n'
    shard.write_text(data)
    for job in ("exact", "near", "passages"):
        output = tmp_path / job
        done = cli("dedup", job, tmp_path / "s", "-o", output, "--on-bad-record", "skip")
        assert done.returncode == 0, done.stderr
        assert "3 bad records left where they are" in done.stdout
        assert manifest.read(output / "manifest.json").summary["n_bad_records"] == 3
        assert (output / "0.jsonl").read_text() == data


def test_containment_is_said_to_be_of_candidates_only(cli: Run, tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.jsonl", [" ".join(f"w{i}" for i in range(n)) for n in (200, 50)])
    done = cli("dedup", "near", tmp_path / "s", "-o", tmp_path / "out", "--verify", "containment")
    assert "of Jaccard similarity 0.87" in done.stdout
    assert "excerpts of much longer texts are missed" in done.stdout


class Stop(Exception):
    """Stops a job."""


@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_a_stopped_job_starts_again_if_a_shard_has_changed(tmp_path: Path, share: float, grows: bool) -> None:
    """Also in the last pass, where a shard that stays as it was may have lost what it was a copy of."""
    texts = [" ".join(f"w{i}x{j}" for j in range(40)) for i in range(200)]
    for shard in range(4):
        write(tmp_path / "s" / f"{shard}.jsonl", [f"s{shard} {text}" for text in texts])
    n_bytes = sum(path.stat().st_size for path in (tmp_path / "s").iterdir())

    def stop(n: int) -> None:
        if n >= 3 * share * n_bytes:
            raise Stop

    config = DedupConfig(near=NearConfig(threshold="0.8"))
    with pytest.raises(Stop):
        run(tmp_path / "s", tmp_path / "out", config, threads=1, on_progress=stop)
    # The documents of the first shard are copied by all others. Now they are unlike them.
    first = tmp_path / "s" / "0.jsonl"
    data = first.read_text().replace("w", "v")
    first.write_text(data + data.splitlines(keepends=True)[0] if grows else data)
    run(tmp_path / "s", tmp_path / "out", config)
    run(tmp_path / "s", tmp_path / "fresh", config)
    names = sorted(path.name for path in (tmp_path / "fresh").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_names_that_are_not_utf_8_or_have_line_ends(cli: Run, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"f\xff")
    text = " ".join(f"w{i}" for i in range(60))
    for name in (os.fsdecode(b"\xff.jsonl"), "new\nline.jsonl"):
        write(folder / name, [text, f"{text} more"])
    for job in ("exact", "near", "passages"):
        output = tmp_path / job
        done = cli("dedup", job, folder, "-o", output, "--report", tmp_path / f"{job}.html")
        assert done.returncode == 0, done.stderr
        assert len(list(output.glob("*.jsonl"))) == 2
    for row in members(tmp_path / "near"):
        back = cli("dedup", "restore", tmp_path / "near", f"{row['shard']}:{row['record']}")
        assert back.returncode == 0, back.stderr
    items = write(tmp_path / "items.jsonl", [])
    items.write_text(json.dumps({"question": text}) + "\n")
    done = cli("contamination", items, folder, "-o", tmp_path / "found", "--purify", "documents")
    assert done.returncode == 0, done.stderr


def test_too_few_permutations_are_said(cli: Run, tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.jsonl", ["a b c d e f", "g h i j k l"])
    low = ("--threshold", "0.015", "--permutations", "16")
    done = cli("dedup", "near", tmp_path / "s", "-o", tmp_path / "out", *low)
    assert "with probability 0.215" in done.stdout
    assert "too few --permutations" in done.stderr


def test_python_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    write(tmp_path / "0.jsonl", ["a"])
    with pytest.raises(PileError, match="no shards"):
        pile_tools.dedup([], tmp_path / "out")
    for threads in (0, 1025, 10**9):
        with pytest.raises(ConfigError, match="threads must be"):
            pile_tools.dedup(tmp_path, tmp_path / "out", threads=threads)


def test_protected_records_are_named_as_tables_name_them(cli: Run, tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.jsonl", ["x", "x"])
    for name in ("../s/0.jsonl:1", "./s/0.jsonl:1", "0.jsonl:1", f"{tmp_path}/s/0.jsonl:1"):
        (tmp_path / "p").write_text(name + "\n")
        output = tmp_path / f"out{name.replace('/', '_')}"
        done = cli("dedup", "exact", "s", "-o", output, "--protect", "p", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [row["decision"] for row in members(output)] == ["removed", "kept"]


def test_the_output_is_not_among_older_shards(tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.jsonl", ["x"])
    write(tmp_path / "old" / "1.jsonl", ["x"])
    for output in (tmp_path / "old", tmp_path / "old" / "new"):
        with pytest.raises(ConfigError, match="folder of the older shards"):
            run(tmp_path / "s", output, DedupConfig(), against=tmp_path / "old")


def test_marks_count_nothing_as_removed(tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.jsonl", ["x"] * 5)
    summary = run(tmp_path / "s", tmp_path / "out", DedupConfig(mark=True)).summary
    assert summary["n_marked"] == 5
    assert [subset["n_removed"] for subset in summary["subsets"]] == [0]


def test_a_preferred_subset_without_documents_is_said(cli: Run, tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.jsonl", ["a", "a"], ["Wiki", "Web"])
    done = cli("dedup", "exact", tmp_path / "s", "-o", tmp_path / "out", "--prefer", "subset:Web,Wikipeida")
    assert done.returncode == 0, done.stderr
    assert "warning: no document is of the preferred subset Wikipeida" in done.stderr
