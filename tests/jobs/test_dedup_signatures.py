"""Stored signatures: near duplicates are the same with them, and what is wrong with them is told."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest
from tests.conftest import Run

from pile_tools import _core, files, manifest
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError, PileWarning
from pile_tools.jobs import dedup, signatures
from pile_tools.jobs.dedup import DedupConfig, NearConfig
from pile_tools.jobs.rewriting import CLUSTERS_FILE
from pile_tools.jobs.signatures import SignaturesConfig
from pile_tools.read.shards import RecordConfig, find_shards
from pile_tools.tokens.parts import Part
from pile_tools.types import Deduplication

MEMORY = 64 << 20

#: Signatures of few values, so that files are small.
NEAR = DedupConfig(near=NearConfig(permutations=64))


def sketch(shards: Path, output: Path, config: SignaturesConfig | None = None, **how: Any) -> Path:
    config = SignaturesConfig(permutations=64) if config is None else config
    signatures.run(find_shards([shards]), output, config, **{"memory": MEMORY, "threads": 2, **how})
    return output


def near(shards: Path, output: Path, config: DedupConfig = NEAR, **how: Any) -> dict[str, bytes]:
    """Runs the job and returns the files of its output."""
    dedup.run(find_shards([shards]), output, config, **{"memory": MEMORY, "threads": 2, **how})
    return tree(output)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def signed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a manifest as anyone could who writes one: with the right checksum."""
    values = json.loads(path.read_text())
    change(values)
    values.pop("checksum")
    path.write_text(json.dumps(values | {"checksum": fingerprint(values)}))


@pytest.fixture(scope="module")
def planted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted documents in four shards, in two folders; two subsets come first in the last shard."""
    folder = tmp_path_factory.mktemp("planted")
    found = (shared / "golden" / "dedup" / "docs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    found += [json.dumps({"text": text, "meta": {"pile_set_name": text}}) + "\n" for text in ("x y", "y x")]
    for name, first, end in (("a/0", 0, 400), ("a/1", 400, 401), ("b/0", 401, 900), ("b/1", 900, len(found))):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(found[first:end]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("n_parts", [1, 2, 3, 4])
@pytest.mark.parametrize("prefer", ["first", "longest", "subset:y x,Manpages"])
def test_the_output_is_the_same_with_signatures(
    planted: Path, tmp_path: Path, n_parts: int, prefer: str
) -> None:
    config = DedupConfig(prefer=prefer, near=NearConfig(permutations=64))
    expected = near(planted, tmp_path / "out", config)
    shutil.rmtree(tmp_path / "out")
    for number in range(1, n_parts + 1):
        sketch(planted, tmp_path / "sigs", part=Part(number, n_parts), threads=1 + number % 2)
    folder = [tmp_path / "sigs.parts"]
    assert near(planted, tmp_path / "out", config, stored=folder, threads=1 + n_parts % 2) == expected
    assert json.loads(expected["manifest.json"])["summary"]["n_removed"] > 90


def test_bad_records_are_counted_with_signatures_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jsonl").write_text('{"text": "a"}\nnot json\n{"text": "a"}\n')
    records = RecordConfig(on_bad_record="skip")
    config = dataclasses.replace(NEAR, records=records)
    sigs = sketch(tmp_path / "in", tmp_path / "sigs", SignaturesConfig(permutations=64, records=records))
    plain = near(tmp_path / "in", tmp_path / "plain", config)
    assert near(tmp_path / "in", tmp_path / "with", config, stored=[sigs]) == plain
    assert json.loads(plain["manifest.json"])["summary"]["n_bad_records"] == 1


def test_signatures_are_the_same_for_any_number_of_threads(planted: Path, tmp_path: Path) -> None:
    one, three = (sketch(planted, tmp_path / f"sigs{n}", threads=n) for n in (1, 3))
    assert tree(one) == tree(three)


def test_signatures_of_several_folders_are_taken_in_any_order(planted: Path, tmp_path: Path) -> None:
    """Shards of one name are told apart by their size and checksum, and a folder may have others."""
    expected = near(planted / "a", tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    folders = [sketch(planted / name, tmp_path / name) for name in ("b", "a")]
    assert near(planted / "a", tmp_path / "out", stored=folders) == expected


def test_signatures_are_of_copies_of_the_shards_too(planted: Path, tmp_path: Path) -> None:
    sketch(planted, tmp_path / "sigs")
    shutil.copytree(planted, tmp_path / "copy")
    found = near(tmp_path / "copy", tmp_path / "out", stored=[tmp_path / "sigs"])
    shutil.rmtree(tmp_path / "out")
    assert near(tmp_path / "copy", tmp_path / "out") == found


def test_a_shard_that_changed_is_told(planted: Path, tmp_path: Path) -> None:
    shutil.copytree(planted, tmp_path / "in")
    sketch(tmp_path / "in", tmp_path / "sigs")
    shard = tmp_path / "in" / "b" / "0.jsonl"
    data = bytearray(shard.read_bytes())
    data[data.index(b"text") + 10] ^= 1
    times = shard.stat()
    for changed in (bytes(data), bytes(data) + b"\n"):
        shard.write_bytes(changed)
        os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(PileError, match=r"changed since its signatures were made.*b/0\.jsonl"):
            near(tmp_path / "in", tmp_path / "out", stored=[tmp_path / "sigs"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "sigs"]


def test_signatures_must_be_of_all_shards(planted: Path, tmp_path: Path) -> None:
    sketch(planted, tmp_path / "sigs", part=Part(1, 2))
    with pytest.raises(PileError, match=r"only another shard of its name \(.*b/0\.jsonl"):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs.parts"])
    shutil.copyfile(planted / "a/0.jsonl", tmp_path / "2.jsonl")
    with pytest.raises(PileError, match=r"has no signatures among those given: .* \(.*/2\.jsonl"):
        near(tmp_path / "2.jsonl", tmp_path / "out", stored=[tmp_path / "sigs.parts"])


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (SignaturesConfig(permutations=32), "permutations 32, not 64"),
        (SignaturesConfig(permutations=64, shingle="chars:9"), "shingle chars:9, not words:5"),
        (SignaturesConfig(permutations=64, normalize="case"), "normalize case, not none"),
        (
            SignaturesConfig(permutations=64, records=RecordConfig(on_bad_record="skip")),
            "on_bad_record skip, not error",
        ),
        (
            SignaturesConfig(permutations=64, records=RecordConfig(max_record="1MiB")),
            "max_record 1048576, not the default",
        ),
    ],
)
def test_signatures_of_other_settings_are_told(
    planted: Path, tmp_path: Path, config: SignaturesConfig, difference: str
) -> None:
    sketch(planted, tmp_path / "sigs", config)
    with pytest.raises(PileError, match=f"made with {difference}; make the signatures again"):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs"])


def test_signatures_of_another_function_are_told(planted: Path, tmp_path: Path) -> None:
    sketch(planted, tmp_path / "sigs")
    signed(tmp_path / "sigs/manifest.json", lambda found: found["settings"].update(function="0" * 64))
    with pytest.raises(PileError, match="made by another version of pile-tools"):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs"])


def test_a_manifest_that_was_edited_is_told(planted: Path, tmp_path: Path) -> None:
    path = sketch(planted, tmp_path / "sigs") / "manifest.json"
    text = path.read_text()
    assert '"y x"' in text
    path.write_text(text.replace('"y x"', '"y z"'))
    with pytest.raises(PileError, match=r"was changed after it was written.*sigs/manifest\.json"):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs"])


def test_what_is_no_signatures_is_told(planted: Path, tmp_path: Path) -> None:
    near(planted, tmp_path / "out")
    with pytest.raises(PileError, match="of kind deduplicated, expected signatures"):
        near(planted, tmp_path / "new", stored=[tmp_path / "out"])
    with pytest.raises(PileError, match="neither it nor a folder in it has a manifest"):
        near(planted, tmp_path / "new", stored=[planted])
    with pytest.raises(PileError, match="no folder of signatures, which"):
        near(planted, tmp_path / "new", stored=[tmp_path / "missing"])
    with pytest.raises(ConfigError, match="for near duplicates"):
        near(planted, tmp_path / "new", DedupConfig(), stored=[tmp_path / "out"])


@pytest.mark.parametrize("names", [["a" * 256], ["\u00e4" * 128], ["a", "a"], [None, None]])
def test_names_of_subsets_of_others_have_a_limit(
    planted: Path, tmp_path: Path, names: list[str | None]
) -> None:
    sketch(planted, tmp_path / "sigs")
    path = tmp_path / "sigs/manifest.json"
    values = json.loads(path.read_bytes())
    values["summary"]["subsets"] = names
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match="subsets"):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs"])


def test_a_killed_job_resumes_with_the_same_signatures_only(planted: Path, tmp_path: Path) -> None:
    expected = tree(sketch(planted, tmp_path / "sigs"))
    n_bytes = sum(path.stat().st_size for path in planted.rglob("*.jsonl"))
    shutil.rmtree(tmp_path / "sigs")

    def stop_after(share: float) -> Callable[[int], None]:
        def stop(n_read: int) -> None:
            if n_read > share * n_bytes:
                raise KeyboardInterrupt

        return stop

    with pytest.raises(KeyboardInterrupt):
        sketch(planted, tmp_path / "sigs", on_progress=stop_after(0.7), threads=1)
    assert list((tmp_path / "sigs.partial").glob("rows-*"))
    with pytest.raises(OutputExistsError, match="unfinished run with other shards or settings"):
        sketch(planted, tmp_path / "sigs", SignaturesConfig(permutations=32))
    assert tree(sketch(planted, tmp_path / "sigs")) == expected

    out = near(planted, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs"], on_progress=stop_after(1.2))
    with pytest.raises(OutputExistsError, match="unfinished run with other shards or settings"):
        near(planted, tmp_path / "out", dataclasses.replace(NEAR, mark=True))
    # Without signatures it is the same request: what is unfinished is of no use to it.
    assert near(planted, tmp_path / "out") == out


@pytest.mark.parametrize("name", ["rows-000001", "signatures-000002"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "missing", "folder", "pipe"])
def test_a_damaged_file_is_told(planted: Path, tmp_path: Path, name: str, damage: str) -> None:
    path = sketch(planted, tmp_path / "sigs") / name
    data = path.read_bytes()
    path.unlink()
    if damage == "flipped":
        path.write_bytes(data[:7] + bytes([data[7] ^ 16]) + data[8:])
    elif damage in ("shorter", "longer"):
        path.write_bytes(data[:-1] if damage == "shorter" else data + b"\0")
    elif damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    with pytest.raises((PileError, OSError), match=name):
        near(planted, tmp_path / "out", stored=[tmp_path / "sigs"])
    assert not (tmp_path / "out").exists()


def rehashed(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file of signatures, and its size and checksum in the manifest."""
    (folder / name).write_bytes(data)
    entry = manifest.file_entry(folder / name, folder)
    signed(
        folder / "manifest.json",
        lambda found: found.update(outputs=[entry if e["path"] == name else e for e in found["outputs"]]),
    )


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (1, 3, 0, "record 0 of document 1, expected one from 1"),
        (3, 3, 1 << 40, "record 1099511627776 of document 3"),
        (2, 4, 7777 << 32, "subset 7777 of document 2"),
        (0, 2, 1 << 63, "text of 9223372036854775808 bytes"),
    ],
)
def test_impossible_rows_with_the_right_checksum_are_told(
    planted: Path, tmp_path: Path, row: int, column: int, value: int, message: str
) -> None:
    folder = sketch(planted, tmp_path / "sigs")
    rows = bytearray((folder / "rows-000002").read_bytes())
    at = row * 40 + column * 8
    rows[at : at + 8] = value.to_bytes(8, "little")
    rehashed(folder, "rows-000002", bytes(rows))
    with pytest.raises(PileError, match=rf"{message}.*rows-000002|rows-000002.*{message}"):
        near(planted, tmp_path / "out", stored=[folder])


def test_lies_remove_no_document_that_is_no_copy(tmp_path: Path) -> None:
    """Whatever rows and signatures say, texts are compared before one is removed."""
    texts = ["", "a b", "c d", *(" ".join(f"w{i}{k}" for k in range(30)) for i in range(5))]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    folder = sketch(tmp_path / "in", tmp_path / "sigs")
    rows = bytearray((folder / "rows-000000").read_bytes())
    for i in range(len(texts)):
        # Short texts have shingles, all texts have the signature of the last one, and some its hash.
        rows[i * 40 + 32] = 1
        if i % 2:
            rows[i * 40 : i * 40 + 16] = rows[-40:-24]
    values = (folder / "signatures-000000").read_bytes()
    rehashed(folder, "rows-000000", bytes(rows))
    rehashed(folder, "signatures-000000", values[-256:] * len(texts))
    dedup.run(
        find_shards([tmp_path / "in"]), tmp_path / "out", NEAR, stored=[folder], memory=MEMORY, threads=1
    )
    summary = manifest.read(tmp_path / "out/manifest.json").summary
    assert (summary["n_removed"], summary["n_verified"]) == (0, 0)
    assert summary["n_candidates"] > 0
    assert (tmp_path / "out/a.jsonl").read_bytes() == (tmp_path / "in/a.jsonl").read_bytes()


def mutated(value: Any, rng: random.Random) -> Any:
    """A JSON value with one change somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {name: of for name, of in value.items() if name != key}
        return value | {key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        i = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:i] + value[i + rng.randrange(2) :] + value[: rng.randrange(2)]
        return [*value[:i], mutated(value[i], rng), *value[i + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.8:
        return rng.choice([0, value + 1, max(value - 1, 0), 1 << 32, (1 << 63) - 1, 1 << 63])
    if isinstance(value, str) and value and rng.random() < 0.6:
        i = rng.randrange(len(value))
        return value[:i] + rng.choice("0a/.\0\u202e") + value[i + 1 :]
    return rng.choice([None, "", 0, -1, [], {}, True, "x" * 100, 1.5])


def test_a_hostile_manifest_is_an_error_or_gives_the_same(planted: Path, tmp_path: Path) -> None:
    folder = sketch(planted, tmp_path / "sigs")
    expected = near(planted, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    original = (folder / "manifest.json").read_text()
    rng, n_told = random.Random(7), 0
    for _ in range(150):
        changed = mutated(json.loads(original), rng)
        (folder / "manifest.json").write_text(json.dumps(changed))
        if isinstance(changed, dict) and "checksum" in changed and rng.random() < 0.9:
            signed(folder / "manifest.json", lambda found: None)
        try:
            found = near(planted, tmp_path / "out", stored=[folder])
        except (PileError, OSError):
            n_told += 1
        else:
            # Numbers that only the summary of another folder shows, and names of subsets, may differ.
            same = {name for name in expected if found[name] == expected[name]}
            assert same >= expected.keys() - {"manifest.json"}
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
    assert n_told > 60


def test_stored_signatures_of_no_shard_or_of_one_twice_are_told(planted: Path, tmp_path: Path) -> None:
    found = signatures.read(sketch(planted, tmp_path / "sigs"))
    shards = find_shards([planted])
    for numbers in ({4: 0}, {0: 0, 1: 1}):
        stored = signatures.stored(found, numbers)
        how = dedup._deduplication(
            NEAR,
            dedup.rewriting.Protected(),
            tmp_path / "scratch",
            manifest.Request("x", {}),
            MEMORY,
            1,
            True,
        )
        how = dedup.dataclasses.replace(how, stored=[stored, stored])
        with pytest.raises(ConfigError, match=r"stored signatures of shard [04] of 4"):
            _core.find_duplicates(shards, how)


def test_from_the_command_line(cli: Run, planted: Path, tmp_path: Path) -> None:
    options = ["--permutations", "64"]
    assert cli("dedup", "near", planted, "-o", tmp_path / "out", *options).returncode == 0
    expected = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    for part in ("1/2", "2/2"):
        done = cli("dedup", "signatures", planted, "-o", tmp_path / "sigs", "--part", part, *options)
        assert done.returncode == 0, done.stderr
        assert f"--signatures {tmp_path / 'sigs.parts'}" in done.stdout
    sigs = sorted((tmp_path / "sigs.parts").iterdir())
    named = [word for folder in sigs for word in ("--signatures", folder)]
    done = cli("dedup", "near", planted, "-o", tmp_path / "out", *options, *named)
    assert done.returncode == 0, done.stderr
    assert "up to 2 times" in done.stderr
    assert tree(tmp_path / "out") == expected
    done = cli("dedup", "signatures", planted, "-o", tmp_path / "sigs", "--part", "1/5")
    assert done.returncode == 2
    assert "4 shards cannot be divided into 5 parts" in done.stderr
    done = cli("dedup", "signatures", planted, "-o", planted / "sigs")
    assert "the output is in a folder of the shards" in done.stderr


def test_signatures_that_are_used_are_not_replaced(cli: Run, planted: Path, tmp_path: Path) -> None:
    whole, parts = sketch(planted, tmp_path / "whole"), tmp_path / "sigs"
    for part in ("1/2", "2/2"):
        done = cli("dedup", "signatures", planted, "-o", parts, "--part", part)
        assert done.returncode == 0, done.stderr
    parts = tmp_path / "sigs.parts"
    before = tree(tmp_path)
    for used, output in (
        (whole, whole),
        (whole, whole / "sub"),
        (parts, next(parts.iterdir())),
        (parts, parts),
    ):
        done = cli("dedup", "near", planted, "-o", output, "--signatures", used, "--force")
        assert done.returncode == 2, done.stderr
        assert "the output is in the folder of the signatures" in done.stderr
        assert tree(tmp_path) == before


def test_a_folder_of_signatures_beside_shards_is_no_shard(planted: Path, tmp_path: Path) -> None:
    shutil.copytree(planted / "a", tmp_path / "in")
    before = list(find_shards([tmp_path / "in"]))
    sketch(planted / "a", tmp_path / "sigs").rename(tmp_path / "in/sigs")
    found = find_shards([tmp_path / "in"])
    assert list(found) == before
    assert [(of.path.name, of.reason) for of in found.passed_over] == [("sigs", "a folder of signatures")]


def numbered(planted: Path, folder: Path) -> tuple[Path, Path]:
    """An older corpus and a new crawl: the planted documents in two folders."""
    old, new = folder / "old-in", folder / "new"
    shutil.copytree(planted / "a", old)
    new.mkdir()
    for shard in sorted((planted / "b").iterdir()):
        shutil.copyfile(shard, new / f"n{shard.name}")
    return old, new


def removed(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    rows = pq.read_table(output / CLUSTERS_FILE).to_pylist()
    return {(row["shard"], row["record"]): row for row in rows if row["decision"] == "removed"}


def test_kept_signatures_are_those_of_the_new_shards(planted: Path, tmp_path: Path) -> None:
    before = near(planted / "a", tmp_path / "out")
    after = near(planted / "a", tmp_path / "out", keep_signatures=True)
    assert {name: data for name, data in after.items() if not name.startswith("signatures/")} == before
    sketch(tmp_path / "out", tmp_path / "sigs")
    own = {name: data for name, data in tree(tmp_path / "sigs").items() if name != "manifest.json"}
    assert {name: after[f"signatures/{name}"] for name in own} == own
    found = signatures.read(tmp_path / "out/signatures")
    assert [entry["path"] for entry in found.inputs] == ["../0.jsonl", "../1.jsonl"]
    assert found.summary["n_documents"] == manifest.read(tmp_path / "out/manifest.json").summary[
        "n_documents"
    ] - len(removed(tmp_path / "out"))
    assert [path.name for path in find_shards([tmp_path / "out"])] == ["0.jsonl", "1.jsonl"]
    # Other shards are written: these signatures are of no use any more.
    near(planted / "b", tmp_path / "out", keep_signatures=True, force=True)
    again = signatures.read(tmp_path / "out/signatures")
    assert [entry["sha256"] for entry in again.inputs] != [entry["sha256"] for entry in found.inputs]
    assert not list(tmp_path.rglob("*.partial"))


def test_kept_signatures_follow_their_shards_without_force(planted: Path, tmp_path: Path) -> None:
    shutil.copytree(planted / "a", tmp_path / "in")
    near(tmp_path / "in", tmp_path / "out", keep_signatures=True)
    before = signatures.read(tmp_path / "out/signatures")
    shard = tmp_path / "in" / "0.jsonl"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b" the ", b" teh ", 1))
    assert shard.read_bytes() != data
    near(tmp_path / "in", tmp_path / "out", keep_signatures=True)
    after = signatures.read(tmp_path / "out/signatures")
    assert after.inputs != before.inputs
    assert after.inputs[0]["sha256"] == files.sha256(tmp_path / "out" / "0.jsonl")


@pytest.mark.parametrize("is_killed", [True, False])
def test_kept_signatures_follow_shards_that_were_published_without_them(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    output = tmp_path / "out"
    shutil.copytree(planted / "a", tmp_path / "in")
    near(tmp_path / "in", output, keep_signatures=True)
    # The first document is a copy of the second now: the new shard has another size.
    shard = tmp_path / "in" / "0.jsonl"
    lines = shard.read_bytes().splitlines(keepends=True)
    equal = [i for i in range(1, len(lines)) if len(lines[i]) <= len(lines[0])]
    copy = lines[equal[0]]
    lines[0] = copy.rstrip(b"\n") + b" " * (len(lines[0]) - len(copy)) + b"\n"
    shard.write_bytes(b"".join(lines))
    if is_killed:
        with monkeypatch.context() as patch:
            patch.setattr(signatures, "run_beside", mock.Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                near(tmp_path / "in", output, keep_signatures=True)
    else:
        near(tmp_path / "in", output, force=True)
    stale = signatures.read(output / "signatures")
    assert [entry["bytes"] for entry in stale.inputs] != [
        (output / name).stat().st_size for name in ("0.jsonl", "1.jsonl")
    ]
    after = near(tmp_path / "in", output, keep_signatures=True)
    assert after == near(tmp_path / "in", tmp_path / "new", keep_signatures=True)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    "name", ["rows-000000", "signatures-000001", "manifest.json", "edited", "of other shards"]
)
def test_kept_signatures_replace_nothing_of_others(planted: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out" / "signatures"
    if name == "edited":
        near(planted / "b", tmp_path / "out", keep_signatures=True)
        (folder / "rows-000000").write_bytes(b"mine")
    elif name == "of other shards":
        sketch(planted / "b", folder)
    else:
        folder.mkdir(parents=True)
        (folder / name).write_text("mine")
    before = tree(tmp_path / "out")
    with pytest.raises((OutputExistsError, FormatError), match="signatures"):
        near(planted / "a", tmp_path / "out", keep_signatures=True)
    assert tree(tmp_path / "out") == before
    assert not list(tmp_path.rglob("*.partial"))


def test_signatures_that_are_read_are_not_replaced(planted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "signatures"
    sketch(planted / "a", folder)
    before = tree(folder)
    for force in (False, True):
        with pytest.raises(ConfigError, match="the output is in the folder of the signatures"):
            near(planted / "a", tmp_path / "out", keep_signatures=True, stored=[folder], force=force)
    assert tree(folder) == before


@pytest.mark.parametrize("prefer", ["first", "longest"])
def test_an_older_corpus_is_found_by_its_signatures(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefer: str
) -> None:
    old, new = numbered(planted, tmp_path)
    config = DedupConfig(prefer=prefer, near=NearConfig(permutations=64))
    near(old, tmp_path / "old", keep_signatures=True)
    (tmp_path / "old/signatures").rename(tmp_path / "aside")
    expected = near(new, tmp_path / "out", config, against=tmp_path / "old")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "aside").rename(tmp_path / "old/signatures")

    used = []
    find = _core.find_duplicates

    def spy(shards: Any, how: Deduplication, *more: Any, **rules: Any) -> Any:
        used.append([shard.index for of in how.stored for shard in of.shards])
        return find(shards, how, *more, **rules)

    monkeypatch.setattr(_core, "find_duplicates", spy)
    assert near(new, tmp_path / "out", config, against=tmp_path / "old") == expected
    assert any("old" in row["kept_shard"] for row in removed(tmp_path / "out").values())
    shutil.rmtree(tmp_path / "out")
    sketch(new, tmp_path / "sigs")
    how: dict[str, Any] = {"against": tmp_path / "old", "stored": [tmp_path / "sigs"]}
    assert near(new, tmp_path / "out", config, **how, threads=1) == expected
    assert used == [[0, 1], [0, 1, 2, 3]]


def test_older_signatures_that_do_not_fit_are_left_aside_with_a_warning(
    planted: Path, tmp_path: Path
) -> None:
    old, new = numbered(planted, tmp_path)
    near(old, tmp_path / "old", keep_signatures=True)
    config = DedupConfig(normalize="whitespace", near=NearConfig(permutations=64))
    with pytest.warns(PileWarning, match="older shards are read.*made with normalize none, not whitespace"):
        found = near(new, tmp_path / "out", config, against=tmp_path / "old")
    shutil.rmtree(tmp_path / "out")
    with (tmp_path / "old/0.jsonl").open("a") as shard:
        shard.write('{"text": "one more"}\n')
    with pytest.warns(PileWarning, match=r"older shards are read.*changed since.*0\.jsonl"):
        near(new, tmp_path / "changed", against=tmp_path / "old")
    shutil.rmtree(tmp_path / "old/signatures")
    (tmp_path / "old/0.jsonl").write_bytes(
        (tmp_path / "old/0.jsonl").read_bytes()[: -len('{"text": "one more"}\n')]
    )
    assert near(new, tmp_path / "out", config, against=tmp_path / "old") == found


def test_older_shards_that_are_not_here_are_told_and_can_be_estimated(
    cli: Run, planted: Path, tmp_path: Path
) -> None:
    old, new = numbered(planted, tmp_path)
    near(old, tmp_path / "old", keep_signatures=True)
    verified = near(new, tmp_path / "out", against=tmp_path / "old")
    rows = removed(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    # The shards are there, and not read.
    shard = tmp_path / "old/0.jsonl"
    before = shard.read_bytes()
    shard.write_bytes(b"\0" * 9)
    with pytest.raises(
        PileError, match=r"was of [\d,]+ bytes when its signatures were made, and is of 9; .*0\.jsonl"
    ):
        near(new, tmp_path / "out", against=tmp_path / "old", unverified=True)
    shard.write_bytes(b"\0" * len(before))
    found = near(new, tmp_path / "out", against=tmp_path / "old", unverified=True)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "old/0.jsonl").unlink()
    with pytest.raises(PileError, match=r"1 of 2 older shards are not here.*unverified.*old/0\.jsonl"):
        near(new, tmp_path / "out", against=tmp_path / "old")
    (tmp_path / "old/1.jsonl").unlink()
    with pytest.raises(PileError, match=r"2 of 2 older shards are not here"):
        near(new, tmp_path / "out", against=tmp_path / "old")
    report = tmp_path / "report.html"
    words = ["dedup", "near", new, "-o", tmp_path / "out", "--permutations", "64", "--report", report]
    done = cli(*words, "--against", tmp_path / "old", "--unverified", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "estimate: " in done.stdout
    assert "Estimate: the older corpus was not read" in report.read_text()
    assert tree(tmp_path / "out") == found
    made = manifest.read(tmp_path / "out/manifest.json")
    assert made.settings["unverified"] is True
    estimates = removed(tmp_path / "out")
    kinds = Counter(row["kind"] for row in estimates.values())
    assert made.summary["n_estimated"] == kinds["estimate"] > 0
    for row in estimates.values():
        of_older = "old" in row["kept_shard"]
        assert row["kind"] in (("exact", "estimate") if of_older else ("exact", "near"))
        if row["kind"] == "estimate":
            # The share of 64 values.
            assert row["similarity"] * 64 == round(row["similarity"] * 64)
            assert row["similarity"] >= 0.87
    # Copies are found by their hash, and among new documents nothing changes.
    exact = {at for at, row in rows.items() if row["kind"] == "exact" and "old" in row["kept_shard"]}
    assert exact == {
        at for at, row in estimates.items() if row["kind"] == "exact" and "old" in row["kept_shard"]
    }
    assert exact
    assert len(set(rows) ^ set(estimates)) < len(rows) / 2
    assert verified.keys() == found.keys()


def test_estimates_of_nothing_are_told(cli: Run, planted: Path, tmp_path: Path) -> None:
    old, new = numbered(planted, tmp_path)
    how: dict[str, Any] = {"against": old, "unverified": True}
    with pytest.raises(PileError, match="has no signatures, from which similarities are estimated"):
        near(new, tmp_path / "out", **how)
    with pytest.raises(ConfigError, match="none is given"):
        near(new, tmp_path / "out", unverified=True)
    near(old, tmp_path / "old", keep_signatures=True)
    how["against"] = tmp_path / "old"
    config = DedupConfig(near=NearConfig(permutations=64, verify="containment"))
    with pytest.raises(ConfigError, match="estimate the Jaccard similarity, not the containment"):
        near(new, tmp_path / "out", config, **how)
    with pytest.raises(PileError, match="made with permutations 64, not 32, and nothing else"):
        near(new, tmp_path / "out", DedupConfig(near=NearConfig(permutations=32)), **how)
    with pytest.raises(ConfigError, match="have this shard in common"):
        near(tmp_path / "old", tmp_path / "out", **how)
    with pytest.raises(ConfigError, match="a dry run writes no shards"):
        near(new, tmp_path / "out", keep_signatures=True, dry_run=True)
    for words in (["--unverified"], ["--keep-signatures", "--dry-run"]):
        assert cli("dedup", "near", new, "-o", tmp_path / "out", *words).returncode == 2
    assert not (tmp_path / "out").exists()


def test_what_removes_old_documents_from_a_new_crawl_can_be_resumed(planted: Path, tmp_path: Path) -> None:
    old, new = numbered(planted, tmp_path)
    near(old, tmp_path / "old", keep_signatures=True)
    shutil.rmtree(tmp_path / "old-in")
    (tmp_path / "old/0.jsonl").unlink()
    how: dict[str, Any] = {"against": tmp_path / "old", "unverified": True, "keep_signatures": True}
    expected = near(new, tmp_path / "out", **how)
    n_bytes = sum(path.stat().st_size for path in new.iterdir())
    for share in (0.9, 1.9, 2.9, 3.2):
        shutil.rmtree(tmp_path / "out")

        def stop(n_read: int, limit: float = share * n_bytes) -> None:
            if n_read > limit:
                raise KeyboardInterrupt

        try:
            near(new, tmp_path / "out", **how, on_progress=stop)
        except KeyboardInterrupt:
            assert list(tmp_path.rglob("*.partial"))
        assert near(new, tmp_path / "out", **how) == expected
        assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("unverified", [False, True])
def test_hostile_signatures_of_an_older_corpus_are_an_error_or_a_warning(
    planted: Path, tmp_path: Path, unverified: bool
) -> None:
    old, new = numbered(planted, tmp_path)
    near(old, tmp_path / "old", keep_signatures=True)
    how: dict[str, Any] = {"against": tmp_path / "old", "unverified": unverified}
    expected = near(new, tmp_path / "out", **how)
    path = tmp_path / "old/signatures/manifest.json"
    original = path.read_text()
    rng, n_done = random.Random(11), 0
    for _ in range(100):
        changed = mutated(json.loads(original), rng)
        path.write_text(json.dumps(changed))
        if isinstance(changed, dict) and "checksum" in changed and rng.random() < 0.9:
            signed(path, lambda found: None)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
        with contextlib.suppress(PileError, OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore", PileWarning)
            found = near(new, tmp_path / "out", **how)
            n_done += 1
            assert found.keys() == expected.keys()
            if not unverified:
                for name in found.keys() - {"manifest.json"}:
                    assert found[name] == expected[name]
    assert 0 < n_done < 100
