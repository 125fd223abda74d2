"""Labelling: each document of a dataset without provenance gets its record back, whatever the order."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pile_tools import ConfigError, FormatError, OutputExistsError, TokenDataset, VerifyError
from pile_tools.jobs import label, merge, tokenize, verify
from pile_tools.jobs.label import LabelConfig
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards
from pile_tools.tokens import documents

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WriteShard = Callable[[Path, Iterable[dict[str, Any]]], Path]


def foreign(dataset: Path, folder: Path) -> Path:
    """A copy as another tool would have left it."""
    folder.mkdir(exist_ok=True)
    for suffix in (".bin", ".idx"):
        shutil.copy(f"{dataset}{suffix}", folder / f"d{suffix}")
    return folder / "d"


def labelled(prefix: Path, shards: Path, tokenizer: Path, **more: Any) -> dict[str, Any]:
    config = LabelConfig(tokenizer=tokenizer)
    return label.run(prefix, find_shards([shards]), config, **{"threads": 2, **more})[0].summary


def texts(shards: Path) -> list[str]:
    found = []
    for path in find_shards([shards]):
        data = path.read_bytes()
        lines = zstandard.decompress(data) if path.suffix == ".zst" else data
        found += [json.loads(line)["text"] for line in lines.splitlines()]
    return found


@pytest.mark.parametrize("threads", [1, 3])
def test_what_tokenize_wrote_comes_back_to_the_byte(
    dataset: Path, shards: Path, tokenizer: Path, tmp_path: Path, threads: int
) -> None:
    prefix = foreign(dataset, tmp_path)
    summary = labelled(prefix, shards, tokenizer, threads=threads)
    assert Path(f"{prefix}.provenance").read_bytes() == Path(f"{dataset}.provenance").read_bytes()
    tokenized = json.loads(Path(f"{dataset}.manifest.json").read_text())["summary"]
    assert summary["n_found"] == summary["n_documents"] == tokenized["n_documents"]
    assert summary["n_ambiguous"] == summary["n_other_texts"] == 0
    named = [{k: s[k] for k in ("name", "n_documents", "n_tokens")} for s in tokenized["subsets"]]
    assert summary["subsets"] == named
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "d.bin",
        "d.idx",
        "d.provenance",
        "d.provenance.manifest.json",
    ]


def shuffled(
    folder: Path, shards: Path, tokenizer: Path, write_shard: WriteShard, **options: Any
) -> tuple[Path, list[str]]:
    """A dataset of some of the shards' texts, shuffled, with texts that are in none of them."""
    some = [text for text in texts(shards) if text]
    moments = random.Random(7)
    moments.shuffle(some)
    some = [*some[:500], "in no shard", *some[500:600], "nor this"]
    folder.mkdir()
    shard = write_shard(folder / "shuffled.jsonl", ({"text": text} for text in some))
    config = TokenizeConfig(tokenizer=tokenizer, **options)
    tokenize.run([shard], folder / "ours", config, threads=1)
    return foreign(folder / "ours", folder), some


@pytest.mark.parametrize("append_eod", [True, False])
def test_documents_in_another_order_get_their_own_text(
    shards: Path, tokenizer: Path, tmp_path: Path, write_shard: WriteShard, append_eod: bool
) -> None:
    prefix, some = shuffled(tmp_path / "f", shards, tokenizer, write_shard, append_eod=append_eod)
    summary = labelled(prefix, shards, tokenizer)
    assert summary["has_eod"] == append_eod
    assert summary["n_found"] == len(some) - 2
    opened = TokenDataset(prefix)
    lines = {str(path): path for path in find_shards([shards])}
    for document in range(0, len(opened), 13):
        origin = opened.origin(document)
        if origin is None:
            assert some[document] in ("in no shard", "nor this")
            continue
        line = documents.read_record(lines[origin["shard"]], origin)
        assert json.loads(line)["text"] == some[document]
        assert json.loads(line)["meta"].get("pile_set_name") == origin["subset"]
        assert document in documents.find(opened, f"{origin['shard']}:{origin['record']}")
    assert opened.origin(500) is None
    assert opened.origin(len(opened) - 1) is None


def test_the_reference_tools_datasets_are_labelled(
    golden: Path, neox_tokenizer: Path, tmp_path: Path
) -> None:
    shards = golden / "dataset" / "mini.jsonl"
    # With ftfy, texts were mended before they were tokenized: those that it changed are not found.
    for name, has_eod, n_found in [("eod", True, 208), ("noeod", False, 208), ("ftfy", True, 147)]:
        prefix = foreign(golden / "dataset" / f"mini_{name}_text_document", tmp_path / name)
        summary = labelled(prefix, shards, neox_tokenizer)
        assert (summary["n_documents"], summary["has_eod"]) == (208, has_eod)
        assert (summary["n_found"], summary["n_ambiguous"]) == (n_found, 0)
    ours = tmp_path / "ours"
    tokenize.run([shards], ours, TokenizeConfig(tokenizer=neox_tokenizer), threads=1)
    found = (tmp_path / "eod" / "d.provenance").read_bytes()
    assert found == Path(f"{ours}.provenance").read_bytes()


def test_labels_are_verified_merged_and_made_once(
    dataset: Path, shards: Path, tokenizer: Path, tmp_path: Path, write_shard: WriteShard
) -> None:
    prefix, _ = shuffled(tmp_path / "f", shards, tokenizer, write_shard)
    labelled(prefix, shards, tokenizer)
    checks = [check.what for check in verify.run(prefix)]
    assert any("d.provenance" in what for what in checks)
    assert any("fingerprint" in what for what in checks)
    assert any("03.jsonl.zst" in what for what in checks)
    config, found = LabelConfig(tokenizer=tokenizer), find_shards([shards])
    assert not label.run(prefix, found, config, threads=1)[1]
    with pytest.raises(OutputExistsError, match=r"other inputs; force replaces it \("):
        label.run(prefix, found[:2], config, threads=1)
    merge.run([dataset, prefix, dataset], tmp_path / "all")
    merged, one, other = TokenDataset(tmp_path / "all"), TokenDataset(dataset), TokenDataset(prefix)
    n = len(one)
    for document in range(0, n, 29):
        assert merged.origin(document) == merged.origin(n + len(other) + document) == one.origin(document)
    for document in [*range(0, len(other), 29), 500]:
        assert merged.origin(n + document) == other.origin(document)
    provenance = Path(f"{prefix}.provenance")
    provenance.write_bytes(provenance.read_bytes()[:-1] + b"\x09")
    with pytest.raises(VerifyError, match=r"d\.provenance has another SHA-256"):
        verify.run(prefix)


def test_what_is_made_from_labels_is_another_request_with_other_labels(
    dataset: Path, shards: Path, tokenizer: Path, tmp_path: Path, cli: Run, write_shard: WriteShard
) -> None:
    """The fingerprint of a dataset leaves its origins out, but counts by subset and merges hold them."""
    renamed = []
    for path in find_shards([shards]):
        data = path.read_bytes()
        lines = zstandard.decompress(data) if path.suffix == ".zst" else data
        renamed.append(tmp_path / "renamed" / path.name.removesuffix(".zst"))
        renamed[-1].parent.mkdir(exist_ok=True)
        renamed[-1].write_bytes(lines.replace(b'"Books"', b'"Novel"'))
    prefix, terms = foreign(dataset, tmp_path), tmp_path / "terms.txt"
    terms.write_text("alpha\n")
    commands = [["merge", prefix, "-o", tmp_path / "all"]]
    by_subset = ["--by-subset", "--tokenizer", tokenizer]
    made_of_labels = [
        *commands,
        ["count-ngrams", prefix, *by_subset, "-o", tmp_path / "n.tsv"],
        ["count-terms", terms, prefix, *by_subset, "-o", tmp_path / "t.tsv"],
    ]
    assert cli(*commands[0]).returncode == 0, "without labels"
    labelled(prefix, shards, tokenizer)
    assert "other inputs" in cli(*commands[0]).stderr
    for command in made_of_labels:
        done = cli(*command, "--force")
        assert done.returncode == 0, done.stderr
        assert "nothing to do" in cli(*command).stdout
    config = LabelConfig(tokenizer=tokenizer)
    label.run(prefix, renamed, config, threads=1, force=True)
    for command in made_of_labels:
        done = cli(*command)
        assert done.returncode == 1
        assert "other inputs" in done.stderr
        assert cli(*command, "--force").returncode == 0
    assert "Novel" in (tmp_path / "n.tsv").read_text().split("\n")[0]


def test_known_origins_and_other_tokenizers_are_refused(
    dataset: Path, shards: Path, tokenizer: Path, golden: Path, tmp_path: Path
) -> None:
    prefix = foreign(dataset, tmp_path)
    shutil.copy(f"{dataset}.provenance", f"{prefix}.provenance")
    with pytest.raises(OutputExistsError, match="already has a provenance"):
        labelled(prefix, shards, tokenizer)
    assert labelled(prefix, shards, tokenizer, force=True)["n_found"] == len(TokenDataset(prefix))
    with pytest.raises(ConfigError, match="end-of-document token 'nope' is not in the vocabulary"):
        label.run(prefix, [], LabelConfig(tokenizer=tokenizer, eod="nope"), threads=1)
    damaged = tmp_path / "bad.jsonl"
    damaged.write_text('{"text": "x"}\nno record\n')
    bare = foreign(dataset, tmp_path / "bare")
    with pytest.raises(FormatError, match=r"record 1: not JSON.*bad\.jsonl"):
        label.run(bare, [damaged], LabelConfig(tokenizer=tokenizer), threads=1)
    assert sorted(path.name for path in bare.parent.iterdir()) == ["d.bin", "d.idx"]


def test_a_tokenizer_of_other_ids_finds_nothing(
    dataset: Path, shards: Path, neox_tokenizer: Path, tmp_path: Path
) -> None:
    prefix = foreign(dataset, tmp_path)
    summary = labelled(prefix, shards, neox_tokenizer)
    assert summary["n_found"] < summary["n_documents"] / 2


@pytest.mark.parametrize("data", [b"", b"hello", bytes(20), None])
def test_force_replaces_a_damaged_provenance(
    shards: Path, tokenizer: Path, dataset: Path, tmp_path: Path, data: bytes | None
) -> None:
    for suffix in (".bin", ".idx"):
        shutil.copy(dataset.with_suffix(suffix), tmp_path / f"n{suffix}")
    how = {"shards": find_shards([shards]), "config": LabelConfig(tokenizer=tokenizer), "threads": 1}
    label.run(tmp_path / "n", **how)  # type: ignore[arg-type]
    provenance = tmp_path / "n.provenance"
    before = provenance.read_bytes()
    provenance.write_bytes(before[: len(before) // 2] if data is None else data)
    with pytest.raises(OutputExistsError):
        label.run(tmp_path / "n", **how)  # type: ignore[arg-type]
    label.run(tmp_path / "n", force=True, **how)  # type: ignore[arg-type]
    assert provenance.read_bytes() == before


def test_label_on_the_command_line(
    cli: Run, shards: Path, tokenizer: Path, tmp_path: Path, write_shard: WriteShard
) -> None:
    prefix, some = shuffled(tmp_path / "f", shards, tokenizer, write_shard)
    command = ["label", prefix, shards, "--tokenizer", tokenizer]
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert f"{len(some) - 2} of {len(some)} documents found in 4 shards" in done.stdout
    assert "documents end with <|endoftext|>" in done.stdout
    assert "2 not found: the origin is unknown" in done.stdout
    assert "Books" in done.stdout
    assert "is finished already, nothing to do" in cli(*command).stdout
    missing = cli("label", tmp_path / "none", shards, "--tokenizer", tokenizer)
    assert missing.returncode == 1
    assert "No such file" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
