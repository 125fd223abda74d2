"""Verifying: what is right passes, every kind of damage is named."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import outputs

from pile_tools import PileError, VerifyError, manifest, open_order
from pile_tools.cli import group
from pile_tools.cli import run as run_cli
from pile_tools.jobs import index, merge, order, token_shards, tokenize, verify
from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig
from pile_tools.jobs.train_tokenizer import run as train_tokenizer
from pile_tools.order import interventions as views
from pile_tools.order.interventions import insert_tokens


@pytest.fixture
def chain(tmp_path: Path, shards: Path) -> Path:
    """Shards, tokenizer, dataset and order in one folder."""
    shutil.copytree(shards, tmp_path / "shards")
    found = sorted((tmp_path / "shards").iterdir())
    train_tokenizer(found, tmp_path / "tokenizer.json", TrainTokenizerConfig(vocab_size=300), threads=1)
    config = tokenize.TokenizeConfig(tokenizer=tmp_path / "tokenizer.json")
    tokenize.run(found, tmp_path / "tokens" / "d", config, threads=1)
    order.run(tmp_path / "tokens" / "d", tmp_path / "order", order.OrderConfig(seq_length=16, samples=20))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["order", "order/order.json", "tokens", "tokens/d", "tokens/d.bin", "tokens/d.idx", "tokenizer.json"],
)
def test_what_is_right_passes(chain: Path, name: str) -> None:
    checks = verify.run(chain / name, chain=True)
    assert {check.state for check in checks} == {"ok"}
    assert any("00.jsonl" in check.what for check in checks), "the chain ends at the shards"


def test_it_holds_after_a_move(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("moved") / "here"
    shutil.copytree(chain, place)
    shutil.rmtree(chain)
    assert {check.state for check in verify.run(place / "order", chain=True)} == {"ok"}


def test_outputs_in_a_folder_that_is_a_link_are_found_from_both_sides(
    chain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On each way, absolute and relative; a folder that the link is in is moved with all in it."""
    (chain / "deep" / "er").mkdir(parents=True)
    (chain / "out").symlink_to("deep/er")
    monkeypatch.chdir(chain)
    config = tokenize.TokenizeConfig(tokenizer=Path("tokenizer.json"))
    found = sorted(Path("shards").iterdir())
    tokenize.run(found, Path("out/s"), config, threads=1)
    sizes = order.OrderConfig(seq_length=16, samples=20)
    order.run(Path("deep/er/s"), Path("out"), sizes)
    order.run(Path("out/s"), Path("side"), sizes)
    order.run(chain / "out" / "s", chain / "deep" / "up", sizes)
    assert tokenize.run(found, Path("deep/er/s"), config, threads=1).is_new is False
    first = open_order(chain / "side")[0]
    moved = tmp_path_factory.mktemp("moved") / "here"
    shutil.copytree(chain, moved, symlinks=True)
    for root in (Path(), chain, moved):
        for name in ("out", "deep/er", "side", "deep/up", "out/../up"):
            assert np.array_equal(open_order(root / name)[0], first)
            checks = verify.run(root / name, chain=True)
            assert {check.state for check in checks} == {"ok"}, (root, name)
            assert any("00.jsonl" in check.what for check in checks)


@pytest.mark.parametrize("are_rows", [False, True])
def test_token_shards_are_verified_by_their_own_manifest(
    chain: Path, are_rows: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(chain)
    shards = outputs(token_shards.shard(Path("tokens/d.bin"), Path("sh"), shard_bytes=30_000)[0])
    assert len(shards) > 3
    made = Path("made.tsv" if are_rows else "made")
    if are_rows:
        Path("terms.txt").write_text("alpha\n")
        command = ["count-terms", "terms.txt", "sh", "--row-length", "17", "--batch-size", "4"]
        size = sum(path.stat().st_size for path in shards)
        # The tokens must be whole rows.
        whole = Path("tokens/d.bin").read_bytes()[: size // 34 * 34]
        for path in [*shards, Path("sh/d.shards.manifest.json")]:
            path.unlink()
        Path("rows.bin").write_bytes(whole)
        shards = outputs(token_shards.shard(Path("rows.bin"), Path("sh"), shard_bytes=30_000)[0])
        assert run_cli(group, [*command, "--tokenizer", "tokenizer.json", "-o", "made.tsv"]) == 0
    else:
        shutil.copy("tokens/d.idx", "sh/d.idx")
        order.run(Path("sh/d"), made, order.OrderConfig(seq_length=16, samples=20))
    checks = verify.run(made, chain=True)
    assert {check.state for check in checks} == {"ok"}
    assert any(shards[2].name in check.what for check in checks)
    token_shards.unshard(Path("sh"), Path("joined.bin"))
    assert any("shards.manifest" in check.what for check in verify.run(Path("joined.bin"), chain=True))
    data = bytearray(shards[2].read_bytes())
    data[15_000] ^= 1
    shards[2].write_bytes(data)
    with pytest.raises(VerifyError, match=f"{shards[2].name} has another SHA-256"):
        verify.run(made, chain=True)
    if are_rows:
        Path("sh").rename("away")
        assert "sh is not here" in [check.what for check in verify.run(made) if check.state == "absent"]
    else:
        with pytest.raises(VerifyError, match=f"{shards[2].name} has another SHA-256"):
            verify.run(Path("sh/d"))


@pytest.mark.parametrize("known", [{"bytes": 4}, {}])
def test_an_input_of_which_only_shards_are_here_is_checked_as_one(
    tmp_path: Path, known: dict[str, int]
) -> None:
    for number, data in enumerate((b"ab", b"cd")):
        (tmp_path / f"d-0000{number}-of-00001.bin").write_bytes(data)
    for data, is_right in ((b"abcd", True), (b"abce", False)):
        entry = {"role": "tokens", "path": "d.bin", "sha256": hashlib.sha256(data).hexdigest(), **known}
        manifest.write(tmp_path / "x.manifest.json", manifest.Request("test", {}, [entry]), [], {})
        if is_right:
            assert {check.state for check in verify.run(tmp_path / "x")} == {"ok"}
        else:
            with pytest.raises(VerifyError, match="1 more shard with another SHA-256"):
                verify.run(tmp_path / "x")


@pytest.mark.parametrize(
    ("damaged", "verified", "named"),
    [
        ("tokens/d.bin", "tokens/d", "another SHA-256"),
        ("tokens/d.idx", "tokens/d", "d.idx"),
        ("tokens/d.bin", "order", "another dataset"),
        ("shards/02.jsonl", "tokens/d", "02.jsonl has another SHA-256"),
        ("tokenizer.json", "tokens/d", "tokenizer.json has another SHA-256"),
        ("shards/02.jsonl", "order", "02.jsonl has another SHA-256"),
    ],
)
def test_a_changed_byte_is_named(chain: Path, damaged: str, verified: str, named: str) -> None:
    path = chain / damaged
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=named):
        verify.run(chain / verified, chain=True)


def test_a_missing_output_is_wrong_and_a_missing_input_absent(chain: Path) -> None:
    shutil.rmtree(chain / "shards")
    states = [check.state for check in verify.run(chain / "tokens" / "d")]
    assert states.count("absent") == 4
    next((chain / "order").glob("*_doc_idx.npy")).unlink()
    with pytest.raises(VerifyError, match=r"doc_idx\.npy is not here"):
        verify.run(chain / "order")


def test_a_dataset_whose_tokens_are_elsewhere_is_absent(chain: Path) -> None:
    """Its index is here, and its fingerprint is over the tokens too."""
    (chain / "tokens" / "d.bin").rename(chain / "elsewhere")
    found = [check.what for check in verify.run(chain / "order") if check.state == "absent"]
    assert found == [f"the tokens of {chain / 'tokens' / 'd'} are not here"]


def test_a_dataset_of_another_tool_has_its_structure_checked(golden: Path, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx"):
        shutil.copy(golden / "dataset" / f"zero{suffix}", tmp_path)
    assert [check.state for check in verify.run(tmp_path / "zero")] == ["ok", "unsure"]
    with (tmp_path / "zero.bin").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(VerifyError, match="index expects"):
        verify.run(tmp_path / "zero")


def test_what_has_no_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(PileError, match="no manifest"):
        verify.run(tmp_path)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """An artifact of each kind that is made from a dataset or an order."""
    root = tmp_path_factory.mktemp("many")
    shutil.copytree(shards, root / "shards")
    found = sorted((root / "shards").iterdir())
    train_tokenizer(found, root / "tokenizer.json", TrainTokenizerConfig(vocab_size=300), threads=1)
    config = tokenize.TokenizeConfig(tokenizer=root / "tokenizer.json")
    tokenize.run(found[:2], root / "tokens" / "d", config, threads=1)
    tokenize.run(found[2:], root / "tokens" / "e", config, threads=1)
    d, e = root / "tokens" / "d", root / "tokens" / "e"
    order.run(d, root / "order", order.OrderConfig(seq_length=16, steps=3, batch_size=4))
    order.run(order.Blend((d, e)), root / "blend", order.OrderConfig(seq_length=16, samples=20))
    views.save_interventions(
        insert_tokens(open_order(root / "order"), [views.Insert(0, 1, 2, (5,))]), root / "view"
    )
    merge.run([d, e], root / "merged" / "m")
    index.run(d, index.IndexConfig())
    (root / "terms.txt").write_text("alpha\nbeta\n")
    (root / "items.jsonl").write_text('{"question": "alpha beta delta alpha beta delta alpha beta"}\n')
    # An order as GPT-NeoX leaves it: arrays beside the dataset, without a manifest.
    for path in (root / "order").glob("*.npy"):
        shutil.copy(path, root / "tokens")
    array = next((root / "tokens").glob("*_shuffle_idx.npy"))
    tokens = np.fromfile(d.with_suffix(".bin"), dtype=np.uint16)
    (root / "whole").mkdir()
    tokens[: len(tokens) // 17 * 17].tofile(root / "whole" / "r.bin")
    token_shards.shard(root / "whole" / "r.bin", root / "rows", shard_bytes=30_000)
    rows = f"{root}/rows --row-length 17 --batch-size 4 --tokenizer {root}/tokenizer.json"
    for arguments in (
        f"count-ngrams {d} -o {root}/ngrams.tsv",
        f"count-ngrams {root}/shards -o {root}/words.tsv",
        f"count-terms {root}/terms.txt {root}/order --checkpoints 1 -o {root}/terms.tsv",
        f"count-terms {root}/terms.txt {d} -o {root}/of-tokens.tsv",
        f"count-terms {root}/terms.txt {array} --batch-size 4 --checkpoints 1 -o {root}/of-arrays.tsv",
        f"count-numbers {array} --batch-size 4 --checkpoints 1 -o {root}/numbers.tsv",
        f"count-terms {root}/terms.txt {rows} -o {root}/of-rows.tsv",
        f"contamination {root}/items.jsonl {array} --batch-size 4 --checkpoints 1 -o {root}/clean",
    ):
        assert run_cli(group, arguments.split()) == 0
    return root


DATASET = {"tokens/d.bin", "tokens/d.idx", "tokens/d.provenance", "tokenizer.json", "shards/00.jsonl"}
ORDER = DATASET | {"order/order.json"}
ARRAYS = {f"tokens/{name}_idx.npy" for name in ("doc", "sample", "shuffle")}
ROWS = {"whole/r.bin", "rows/r-00001-of-00002.bin"}


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("order", DATASET),
        ("view", ORDER | {"view/view.json"}),
        ("blend", DATASET | {"tokens/e.bin", "shards/02.jsonl"}),
        ("merged/m", DATASET | {"tokens/e.bin", "merged/m.bin", "merged/m.idx"}),
        ("tokens/d.index", DATASET | {"tokens/d.index/ranks"}),
        ("ngrams.tsv", DATASET),
        ("of-tokens.tsv", DATASET | {"terms.txt"}),
        ("terms.tsv", ORDER | {"terms.txt"}),
        ("of-arrays.tsv", DATASET | ARRAYS),
        ("numbers.tsv", DATASET | ARRAYS),
        ("clean", DATASET | ARRAYS),
        ("of-rows.tsv", ROWS),
        ("words.tsv", {"shards/00.jsonl", "shards/02.jsonl"}),
    ],
)
def test_every_kind_of_artifact_is_followed_to_the_shards(
    many: Path, tmp_path: Path, name: str, below: set[str]
) -> None:
    root = tmp_path / "here"
    shutil.copytree(many, root)
    checks = verify.run(root / name, chain=True)
    assert {check.state for check in checks} == {"ok"}
    files = {check.path for check in checks if check.path is not None}
    # Arrays of an order are named after its settings.
    names = {re.sub(r"d_.*_(?=\w+_idx)", "", str(path.relative_to(root))) for path in files}
    assert below <= names
    for path in files:
        good = path.read_bytes()
        for damaged in (good[:-1] + bytes([good[-1] ^ 1]), good[: len(good) // 2]):
            path.write_bytes(damaged)
            with pytest.raises(VerifyError):
                verify.run(root / name, chain=True)
        path.write_bytes(good)


def test_a_dataset_in_shards_is_checked_by_the_whole(chain: Path) -> None:
    tokens = chain / "tokens" / "d.bin"
    shards = outputs(token_shards.shard(tokens, tokens.parent, shard_bytes=tokens.stat().st_size // 4 + 2)[0])
    good = [path.read_bytes() for path in shards]
    tokens.unlink()
    # An order is of the files that it was built from: cut otherwise, a dataset has another fingerprint.
    order.run(tokens.with_suffix(""), chain / "of-shards", order.OrderConfig(seq_length=16, samples=20))
    for root in ("tokens/d", "of-shards"):
        assert {check.state for check in verify.run(chain / root, chain=True)} == {"ok"}
        for number, path in enumerate(shards):
            others = [good[number][:-2], good[number] + b"xx", b"x" + good[number][1:], good[number - 1]]
            for other in others:
                path.write_bytes(other)
                with pytest.raises(VerifyError):
                    verify.run(chain / root, chain=True)
            path.unlink()
            with pytest.raises(VerifyError):
                verify.run(chain / root, chain=True)
            path.write_bytes(good[number])


def test_equal_shards_are_found_without_a_manifest(chain: Path) -> None:
    tokens = chain / "tokens" / "d.bin"
    n = tokens.stat().st_size // 4
    shards = outputs(token_shards.shard(tokens, tokens.parent, shard_bytes=n - n % 2)[0])
    tokens.unlink()
    (chain / "tokens" / "d.manifest.json").unlink()
    (chain / "tokens" / "d.shards.manifest.json").unlink()
    checks = verify.run(chain / "tokens" / "d")
    assert [check.state for check in checks] == ["ok", "unsure"]
    shards[1].write_bytes(shards[0].read_bytes())
    with pytest.raises(VerifyError, match="same bytes"):
        verify.run(chain / "tokens" / "d")


def test_a_dataset_without_manifest_is_said_to_be_unverified(chain: Path) -> None:
    (chain / "tokens" / "d.manifest.json").unlink()
    checks = verify.run(chain / "order", chain=True)
    (unsure,) = (check for check in checks if check.state == "unsure")
    assert "only its fingerprint is known" in unsure.what
    assert verify.Totals.of(checks).n_unsure == 1
    code = run_cli(group, ["verify", str(chain / "order"), "--chain"])
    assert code == 0


def test_a_changed_manifest_is_found_by_its_own_checksum(chain: Path) -> None:
    path = chain / "tokens" / "d.manifest.json"
    text = path.read_text()
    for old, new in (('"n_documents": ', '"n_documents": 1'), ('"eod": "', '"eod": "x')):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(VerifyError, match="was changed after it was written"):
            verify.run(chain / "order", chain=True)


def test_the_last_line_counts_artifacts_files_and_what_is_absent(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(group, ["verify", str(chain / "order"), "--chain"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("3 artifacts, 14 files; nothing absent")
    shutil.rmtree(chain / "shards")
    assert run_cli(group, ["verify", str(chain / "order"), "--chain"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("3 artifacts, 10 files; 4 inputs absent")


@pytest.mark.parametrize("in_shards", [False, True])
def test_an_index_that_does_not_fit_is_found_in_shards_too(chain: Path, in_shards: bool) -> None:
    prefix = chain / "tokens" / "d"
    for name in (".manifest.json", ".provenance"):
        prefix.with_suffix(name).unlink()
    if in_shards:
        n_bytes = prefix.with_suffix(".bin").stat().st_size
        token_shards.shard(prefix.with_suffix(".bin"), prefix.parent, shard_bytes=n_bytes // 3 * 2)
        prefix.with_suffix(".bin").unlink()
        (chain / "tokens" / "d.shards.manifest.json").unlink()
    assert {check.state for check in verify.run(prefix)} == {"ok", "unsure"}
    index_file = prefix.with_suffix(".idx")
    data = bytearray(index_file.read_bytes())
    # The header has 34 bytes; the lengths of sequences follow.
    lengths = np.frombuffer(data, dtype="<i4", offset=34, count=12)
    lengths[10] += 1
    lengths[11] -= 1
    index_file.write_bytes(data)
    with pytest.raises(VerifyError):
        verify.run(prefix)


def test_a_list_of_checksums_has_no_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_text("")
    assert run_cli(group, ["verify", str(tmp_path), "--hashes", str(tmp_path / "list"), "--chain"]) == 2
    assert "leave out --chain" in capsys.readouterr().err
