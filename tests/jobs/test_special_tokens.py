"""Datasets with the special tokens of a post-processor, of large ids, and of vocabularies with holes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from pile_tools import FormatError, PileError, TokenDataset, manifest
from pile_tools.jobs import label, merge, tokenize
from pile_tools.jobs.label import LabelConfig
from pile_tools.jobs.merge import find_datasets
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards

Json = dict[str, Any]


def lines(shard: Path) -> list[str]:
    return shard.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def changed(tokenizer: Path, to: Path, change: Callable[[Json], object]) -> Path:
    """The tokenizer's file, changed."""
    file = json.loads(tokenizer.read_text())
    change(file)
    to.write_text(json.dumps(file))
    return to


def with_template(file: Json) -> None:
    """`<|endoftext|>` before each text and `<|padding|>` after it."""
    ids = {name: file["model"]["vocab"][name] for name in ("<|endoftext|>", "<|padding|>")}
    special = {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in ids.items()}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    around = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ids]
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [around[0], text, around[1]],
        "pair": [],
        "special_tokens": special,
    }


@pytest.fixture(scope="module")
def templated(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(tokenizer, tmp_path_factory.mktemp("template") / "tokenizer.json", with_template)


def test_a_dataset_has_the_special_tokens_that_the_reference_adds(
    shards: Path, templated: Path, tmp_path: Path
) -> None:
    found = find_shards([shards])[:1]
    texts = [text for line in lines(found[0]) if (text := json.loads(line)["text"])]
    theirs = tokenizers.Tokenizer.from_file(str(templated))
    for is_added in (False, True):
        prefix = tmp_path / f"added{is_added}"
        dataset = tokenize.tokenize(found, prefix, tokenizer=templated, add_special_tokens=is_added)
        eod = theirs.token_to_id("<|endoftext|>")
        for number, text in enumerate(texts):
            ids = [*theirs.encode(text, add_special_tokens=is_added).ids, eod]
            assert dataset[number].tolist() == ids
        made = manifest.read(Path(f"{prefix}.manifest.json"))
        assert made.settings.get("add_special_tokens") == (True if is_added else None)
        assert tokenize.tokenize(found, prefix, tokenizer=templated, add_special_tokens=is_added)
    with pytest.raises(PileError, match=r"made with add_special_tokens = True, .* with None"):
        merge.run([tmp_path / "addedFalse", tmp_path / "addedTrue"], tmp_path / "both")


def test_such_a_dataset_is_labelled(shards: Path, templated: Path, tmp_path: Path) -> None:
    found = find_shards([shards])[:2]
    prefix = tmp_path / "d"
    tokenize.tokenize(found, prefix, tokenizer=templated, add_special_tokens=True)
    Path(f"{prefix}.provenance").unlink()
    n_found = {}
    for is_added in (False, True):
        config = LabelConfig(tokenizer=templated, add_special_tokens=is_added)
        made, _ = label.run(prefix, found, config, threads=2, force=True)
        n_found[is_added] = made.summary["n_found"]
    assert n_found == {False: 0, True: len(TokenDataset(prefix))}


def test_ids_beyond_uint16_are_int32_everywhere(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    found = find_shards([shards])[:3]
    used = int(tokenize.tokenize(found, tmp_path / "small", tokenizer=tokenizer).tokens[0])

    def renumber(file: Json) -> None:
        vocab = file["model"]["vocab"]
        vocab[next(token for token, id in vocab.items() if id == used)] = 70_000

    large = changed(tokenizer, tmp_path / "large.json", renumber)
    theirs = tokenizers.Tokenizer.from_file(str(large))
    texts = [text for line in lines(found[0]) if (text := json.loads(line)["text"])]
    whole = tokenize.tokenize(found, tmp_path / "whole", tokenizer=large)
    assert whole.dtype == "int32"
    for number, text in enumerate(texts):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert whole[number].tolist()[:-1] == ids
    assert (whole.tokens == 70_000).any()
    config = TokenizeConfig(tokenizer=large)
    for part in ("1/2", "2/2"):
        tokenize.run(found, tmp_path / "p", config, threads=1, part=tokenize.Part.parse(part))
    merge.run(find_datasets([tmp_path / "p.parts"]), tmp_path / "p")
    for suffix in (".bin", ".idx"):
        assert Path(f"{tmp_path}/p{suffix}").read_bytes() == Path(f"{tmp_path}/whole{suffix}").read_bytes()
    Path(f"{tmp_path}/whole.provenance").unlink()
    made, _ = label.run(tmp_path / "whole", found, LabelConfig(tokenizer=large), threads=1)
    assert made.summary["n_found"] == len(whole)


def test_a_text_that_a_vocabulary_cannot_write_stops_the_job(
    shards: Path, tokenizer: Path, tmp_path: Path, cli: Any
) -> None:
    def emptied(file: Json) -> None:
        names = {token["content"] for token in file["added_tokens"]}
        vocab = file["model"]["vocab"]
        file["model"]["vocab"] = {name: id for name, id in vocab.items() if name in names}
        file["model"]["merges"] = []

    empty = changed(tokenizer, tmp_path / "empty.json", emptied)
    found = find_shards([shards])[:1]
    where = r"record 1: a text has byte 0x.., for which model.vocab has no token .*empty.json.*jsonl, byte"
    for skips in ("error", "skip"):
        with pytest.raises(FormatError, match=where):
            tokenize.tokenize(found, tmp_path / "d", tokenizer=empty, on_bad_record=skips)
    assert not Path(f"{tmp_path}/d.bin").exists()
    done = cli("tokenize", found[0], "-o", tmp_path / "d", "--tokenizer", empty)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_dataset_given_twice_is_merged_twice(
    shards: Path, tokenizer: Path, tmp_path: Path, cli: Any
) -> None:
    found = find_shards([shards])
    prefixes = [tmp_path / "in" / name for name in "ab"]
    a, b = (
        tokenize.tokenize(shard, prefix, tokenizer=tokenizer)
        for shard, prefix in zip(found[:2], prefixes, strict=True)
    )
    given = [prefixes[0], prefixes[1], prefixes[0]]
    done = cli("merge", *given, "-o", tmp_path / "aba")
    assert done.returncode == 0, done.stderr
    merged = TokenDataset(tmp_path / "aba")
    assert np.array_equal(merged.tokens, np.concatenate([a.tokens, b.tokens, a.tokens]))
    assert len(merged) == 2 * len(a) + len(b)
    for number in (0, len(a) - 1, len(a), len(a) + len(b), len(merged) - 1):
        origin = merged.origin(number)
        assert origin is not None
        assert origin["shard"].endswith("00.jsonl") != (len(a) <= number < len(a) + len(b))
    assert cli("verify", tmp_path / "aba").returncode == 0
    # Files of one dataset, as a pattern gives them, name it once; the same file again names it again.
    files = sorted(prefixes[0].parent.glob("a.*"))
    assert find_datasets(files) == [prefixes[0]]
    assert find_datasets([*files, *files]) == [prefixes[0]] * 2
    assert find_datasets([prefixes[0].parent] * 2) == prefixes * 2


def test_a_part_given_twice_is_refused(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    found = find_shards([shards])
    config = TokenizeConfig(tokenizer=tokenizer)
    for part in ("1/2", "2/2"):
        tokenize.run(found, tmp_path / "p", config, threads=1, part=tokenize.Part.parse(part))
    parts = find_datasets([tmp_path / "p.parts"])
    with pytest.raises(PileError, match="part 1/2 is given twice"):
        merge.run([*parts, parts[0]], tmp_path / "p")
