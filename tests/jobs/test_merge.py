"""Merging: output equal to that of one run, and datasets that must not be merged."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pile_tools import (
    ConfigError,
    FormatError,
    OutputExistsError,
    PileError,
    TokenDataset,
    _core,
    scratch_folders,
)
from pile_tools.config import fingerprint
from pile_tools.errors import VerifyError
from pile_tools.jobs import merge, tokenize, train_tokenizer, verify
from pile_tools.jobs.merge import find_datasets
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig
from pile_tools.read.shards import RecordConfig, find_shards
from pile_tools.tokens.parts import Part

SUFFIXES = (".bin", ".idx", ".provenance", ".manifest.json")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
WriteShard = Callable[[Path, Iterable[dict[str, Any]]], Path]


def contents(prefix: Path, suffixes: Iterable[str] = SUFFIXES) -> dict[str, bytes]:
    return {suffix: Path(f"{prefix}{suffix}").read_bytes() for suffix in suffixes}


def of_shards(shards: list[Path], prefix: Path, tokenizer: Path, **more: Any) -> Path:
    tokenize.run(shards, prefix, TokenizeConfig(tokenizer=tokenizer), threads=1, **more)
    return prefix


@pytest.fixture
def halves(shards: Path, tokenizer: Path, tmp_path: Path) -> list[Path]:
    """The first shard in one dataset, the other three in another."""
    found = find_shards([shards])
    return [
        of_shards(found[:1], tmp_path / "a", tokenizer),
        of_shards(found[1:], tmp_path / "b" / "b", tokenizer),
    ]


def test_datasets_of_shards_merge_to_that_of_all_shards(
    halves: list[Path], dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "all"
    result = merge.run(halves, output)
    files = (".bin", ".idx", ".provenance")
    assert contents(output, files) == contents(dataset, files)
    one_run = json.loads(Path(f"{dataset}.manifest.json").read_text())["summary"]
    assert {k: v for k, v in result.manifest.summary.items() if k != "parts"} == one_run
    assert [part["first_document"] for part in result.manifest.summary["parts"]] == [
        0,
        len(TokenDataset(halves[0])),
    ]
    assert not merge.run(halves, output).is_new
    with pytest.raises(OutputExistsError, match="other inputs"):
        merge.run(halves[::-1], output)
    assert merge.run(halves[::-1], output, force=True).is_new
    assert TokenDataset(output)[0].tolist() == TokenDataset(halves[1])[0].tolist()
    assert sorted(path.name for path in output.parent.iterdir()) == sorted(f"all{s}" for s in SUFFIXES)


def test_a_merged_dataset_is_verified_back_to_the_shards(halves: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "all"
    merge.run(halves, output)
    checks = [check.what for check in verify.run(output, chain=True)]
    assert sum("fingerprint" in what for what in checks) == 2
    assert any("03.jsonl.zst" in what for what in checks)
    bin = Path(f"{halves[1]}.bin")
    bin.write_bytes(bytes([bin.read_bytes()[0] ^ 1]) + bin.read_bytes()[1:])
    with pytest.raises(PileError, match="another dataset than the input"):
        verify.run(output)


def test_a_foreign_dataset_is_merged_with_unknown_origins(
    golden: Path, neox_tokenizer: Path, tmp_path: Path
) -> None:
    foreign = golden / "dataset" / "mini_eod_text_document"
    ours = of_shards([golden / "dataset" / "mini.jsonl"], tmp_path / "ours", neox_tokenizer)
    merge.run([foreign, ours], tmp_path / "all")
    merged, one = TokenDataset(tmp_path / "all"), TokenDataset(ours)
    assert len(merged) == 2 * len(one)
    assert Path(f"{tmp_path}/all.bin").read_bytes() == Path(f"{ours}.bin").read_bytes() * 2
    assert merged.origin(0) is None


def test_a_tokenizer_of_the_same_name_says_nothing_of_a_foreign_dataset(
    golden: Path, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    for end in (".bin", ".idx"):
        shutil.copy(golden / "dataset" / f"mini_eod_text_document{end}", tmp_path / f"t{end}")
    foreign = tmp_path / "t"
    config = TrainTokenizerConfig(vocab_size=300)
    train_tokenizer.run(find_shards([shards]), tmp_path / "t.json", config, threads=1)
    assert (tmp_path / "t.manifest.json").exists()
    made = merge.run([foreign, foreign], tmp_path / "m").manifest
    assert "eod" not in made.settings
    states = [check.state for check in verify.run(foreign)]
    assert states.count("unsure") == 1
    known = of_shards(find_shards([shards]), tmp_path / "known", tokenizer)
    one = merge.run([known, foreign], tmp_path / "k1").manifest
    two = merge.run([known, tmp_path / "m"], tmp_path / "k2").manifest
    assert one.settings == two.settings
    assert one.settings["eod"] is not None
    states = [check.state for check in verify.run(tmp_path / "m", chain=True)]
    assert states.count("unsure") == 1
    assert [check.state for check in verify.run(tmp_path / "t.json")] == ["ok"] * (
        2 + len(list(shards.iterdir()))
    )


def test_tokens_with_other_meanings_are_not_merged(
    halves: list[Path], shards: Path, golden: Path, neox_tokenizer: Path, tokenizer: Path, tmp_path: Path
) -> None:
    found = find_shards([shards])
    neox = of_shards(found, tmp_path / "neox", neox_tokenizer)
    with pytest.raises(PileError, match=r"neox was made with another tokenizer than .*a: the same ids"):
        merge.run([halves[0], neox], tmp_path / "all")
    config = TokenizeConfig(tokenizer=tokenizer, append_eod=False)
    tokenize.run(found, tmp_path / "bare", config, threads=1)
    with pytest.raises(PileError, match=r"bare was made with eod = None, .*a with '<\|endoftext\|>'"):
        merge.run([halves[0], tmp_path / "bare"], tmp_path / "all")
    with pytest.raises(FormatError, match=r"stores tokens as int32, but .* as uint16"):
        merge.run([halves[0], golden / "dataset" / "mixed32"], tmp_path / "all")
    with pytest.raises(ConfigError, match="cannot be merged into itself"):
        merge.run(halves, halves[0])
    assert not Path(f"{tmp_path}/all.idx").exists()
    assert not Path(f"{tmp_path}/all.partial").exists()


def test_datasets_are_found_by_prefix_file_or_folder(halves: list[Path], tmp_path: Path) -> None:
    a, b = halves
    files = [Path(f"{a}{suffix}") for suffix in SUFFIXES]
    assert find_datasets([b, *files, b.parent]) == [b, a]
    assert find_datasets([tmp_path]) == [a]
    assert find_datasets([tmp_path / "nowhere"]) == [tmp_path / "nowhere"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PileError, match="contains no datasets"):
        find_datasets([tmp_path / "empty"])


def test_the_output_is_none_of_the_datasets_of_its_folder(
    halves: list[Path], tmp_path: Path, cli: Run
) -> None:
    """The same command finds it there, or finishes what a killed one has published of it."""
    merge.run(halves, tmp_path / "expected" / "all")
    for end in SUFFIXES:
        shutil.copy(Path(f"{halves[1]}{end}"), tmp_path)
    for _ in range(2):
        done = cli("merge", tmp_path, "-o", tmp_path / "all")
        assert done.returncode == 0, done.stderr
    assert "finished already" in done.stdout
    made = contents(tmp_path / "all")
    assert {end: made[end] for end in SUFFIXES[:3]} == {
        end: data for end, data in contents(tmp_path / "expected" / "all").items() if end in SUFFIXES[:3]
    }
    (tmp_path / "all.manifest.json").unlink()
    (tmp_path / "all.bin").unlink()
    assert cli("merge", tmp_path, "-o", tmp_path / "all", "--force").returncode == 0
    assert contents(tmp_path / "all") == made


def test_part_numbers_are_checked() -> None:
    assert Part.parse("3/16") == Part(3, 16)
    wrong = [("3", "expected i/n"), ("1/" + "9" * 5000, "expected i/n")]
    for text, message in [("0/4", "from 1 to 4, got 0"), ("5/4", "got 5"), *wrong]:
        with pytest.raises(ConfigError, match=message):
            Part.parse(text)
    shards = [Path(str(i)) for i in range(7)]
    assert [list(Part(i, 3).of(shards)) for i in (1, 2, 3)] == [shards[:2], shards[2:4], shards[4:]]
    with pytest.raises(ConfigError, match="7 shards cannot be divided into 8 parts"):
        Part(1, 8).of(shards)


@pytest.mark.parametrize("n_parts", [1, 3, 6])
def test_parts_merge_to_the_dataset_of_one_run_with_its_manifest(
    shards: Path, tokenizer: Path, tmp_path: Path, write_shard: WriteShard, n_parts: int
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    # A shard without documents, and a subset that occurs only in a later part.
    write_shard(folder / "01a.jsonl", [{"text": ""}])
    write_shard(folder / "02a.jsonl", [{"text": "x", "meta": {"pile_set_name": "New"}}])
    found = find_shards([folder])
    whole = of_shards(found, tmp_path / "whole" / "d", tokenizer)
    prefix = tmp_path / "jobs" / "d"
    for number in reversed(range(1, n_parts + 1)):
        of_shards(found, prefix, tokenizer, part=Part(number, n_parts))
    result = merge.run(find_datasets([tmp_path / "jobs" / "d.parts"]), prefix)
    assert result.is_whole
    assert contents(prefix) == contents(whole)
    # The job is complete: neither the dataset nor any part is made again.
    shutil.rmtree(tmp_path / "jobs" / "d.parts")
    config = TokenizeConfig(tokenizer=tokenizer)
    for part in (None, Part(1, n_parts)):
        assert not tokenize.run(found, prefix, config, threads=1, part=part).is_new
    verify.run(prefix, chain=True)


def test_parts_that_were_joined_are_removed_by_a_distributed_run(
    shards: Path, tokenizer: Path, tmp_path: Path, cli: Run
) -> None:
    """Also by one that finds the dataset finished: the run before it may have been stopped in between."""
    found, prefix = find_shards([shards]), tmp_path / "d"
    n = len(found)
    for number in range(1, n + 1):
        of_shards(found, prefix, tokenizer, part=Part(number, n))
    merge.run(find_datasets([tmp_path / "d.parts"]), prefix)
    # Removals that were stopped, and a part of another job.
    Path(f"{Part(1, n).prefix(prefix)}.bin").unlink()
    other = TokenizeConfig(tokenizer=tokenizer, append_eod=False)
    tokenize.run(found, tmp_path / "e", other, threads=1, part=Part(2, n))
    for file in (tmp_path / "e.parts").iterdir():
        shutil.copy(file, tmp_path / "d.parts" / file.name)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "e.parts").iterdir()}
    done = cli("tokenize", shards, "-o", prefix, "--tokenizer", tokenizer, "--distributed")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "d.parts").iterdir()} == kept
    shutil.rmtree(tmp_path / "d.parts")
    for number in range(1, n + 1):
        of_shards(found, tmp_path / "f", tokenizer, part=Part(number, n))
    merge.run(find_datasets([tmp_path / "f.parts"]), tmp_path / "f")
    assert (
        cli("tokenize", shards, "-o", tmp_path / "f", "--tokenizer", tokenizer, "--distributed").returncode
        == 0
    )
    assert not (tmp_path / "f.parts").exists()


def test_a_distributed_run_locks_its_output(shards: Path, tokenizer: Path, tmp_path: Path, cli: Run) -> None:
    pytest.importorskip("ray", reason="ray is not installed; the extra [distributed] brings it")
    with scratch_folders.locked(tmp_path / "d.partial", "is making this output"):
        done = cli("tokenize", shards, "-o", tmp_path / "d", "--tokenizer", tokenizer, "--distributed")
    assert done.returncode == 1
    assert done.stderr.startswith("error: another process is making this output; wait for it or stop it (")
    assert not (tmp_path / "d.parts").exists()


@pytest.mark.parametrize("option", ["renews_part", "force"])
@pytest.mark.parametrize("suffix", [".bin", ".idx", ".provenance", ".manifest.json"])
def test_a_damaged_part_is_not_merged_and_is_made_again_on_request(
    shards: Path, tokenizer: Path, dataset: Path, tmp_path: Path, suffix: str, option: str
) -> None:
    """Parts of a killed `tokenize --distributed` may be damaged before it runs again."""
    found, whole = find_shards([shards]), tmp_path / "whole"
    how = {"config": TokenizeConfig(tokenizer=tokenizer), "threads": 1}
    parts = [Part(1, 2), Part(2, 2)]
    for part in parts:
        tokenize.run(found, whole, part=part, **how)  # type: ignore[arg-type]
    damaged = parts[0].prefix(whole).with_suffix(suffix)
    data = bytearray(damaged.read_bytes())
    if suffix == ".manifest.json":
        # A value that no reader compares with the files.
        damaged.write_bytes(data.replace(b'"vocab_size": ', b'"vocab_size": 1'))
    else:
        data[-1 if suffix == ".bin" else len(data) // 2] ^= 1
        damaged.write_bytes(data)
        with pytest.raises(FormatError):
            merge.run([part.prefix(whole) for part in parts], whole)
    how[option] = True
    again = [tokenize.run(found, whole, part=part, **how) for part in parts]  # type: ignore[arg-type]
    assert [result.is_new for result in again] == [True, False]
    merge.run([part.prefix(whole) for part in parts], whole)
    files = (".bin", ".idx", ".provenance")
    assert contents(whole, files) == contents(dataset, files)


def test_a_part_of_a_changed_shard_is_made_again_on_request(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(shards, own)
    found, whole, part = find_shards([own]), tmp_path / "whole", Part(1, 2)
    how = {"config": TokenizeConfig(tokenizer=tokenizer), "threads": 1, "part": part}
    tokenize.run(found, whole, **how)  # type: ignore[arg-type]
    with found[0].open("ab") as file:
        file.write(found[0].read_bytes())
    with pytest.raises(OutputExistsError, match="made before with"):
        tokenize.run(found, whole, **how)  # type: ignore[arg-type]
    assert tokenize.run(found, whole, renews_part=True, **how).is_new  # type: ignore[arg-type]
    # A part of another job is not replaced.
    other = {**how, "config": TokenizeConfig(tokenizer=tokenizer, append_eod=False)}
    with pytest.raises(OutputExistsError, match="made before with"):
        tokenize.run(found, whole, renews_part=True, **other)  # type: ignore[arg-type]


def test_parts_of_a_changed_shard_are_not_merged_again(
    shards: Path, tokenizer: Path, tmp_path: Path, write_shard: WriteShard
) -> None:
    own, whole = tmp_path / "own", tmp_path / "whole"
    own.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_shard(own / name, [{"text": "one text"}])
    found, config = find_shards([own]), TokenizeConfig(tokenizer=tokenizer)

    def make_part(number: int) -> bool:
        return tokenize.run(found, whole, config, threads=1, part=Part(number, 2)).is_new

    def merged() -> bool:
        return merge.run(find_datasets([tmp_path / "whole.parts"]), whole).is_new

    assert [make_part(1), make_part(2), merged()] == [True, True, True]
    (own / "b.jsonl").write_bytes((own / "b.jsonl").read_bytes().replace(b"one", b"two"))
    with pytest.raises(PileError, match=r"make the part again \(.*part-00002-of-00002\.manifest\.json\)"):
        merged()
    assert [make_part(1), make_part(2), merged(), merged()] == [False, True, True, False]
    verify.run(whole)


def test_a_tokenizer_that_changed_since_does_not_prevent_a_merge(
    halves: list[Path], shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    own = tmp_path / "tokenizer.json"
    shutil.copy(tokenizer, own)
    part = of_shards(find_shards([shards]), tmp_path / "part", own)
    merge.run([part], tmp_path / "before")
    with own.open("a") as file:
        file.write("\n")
    assert merge.run([part], tmp_path / "after").is_new
    assert not merge.run([part], tmp_path / "after").is_new
    assert not merge.run([part], tmp_path / "before").is_new


def test_missing_and_mixed_parts_are_named(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    found, folder = find_shards([shards]), tmp_path / "d.parts"
    for number in (1, 3):
        of_shards(found, tmp_path / "d", tokenizer, part=Part(number, 4))
    with pytest.raises(PileError, match=r"2 of 4 parts are missing: 2/4, 4/4 .*d\.parts"):
        merge.run(find_datasets([folder]), tmp_path / "d")
    of_shards(found[1:], tmp_path / "e", tokenizer, part=Part(1, 3))
    with pytest.raises(PileError, match=r"part-00001-of-00003\S* is a part of another job than"):
        merge.run([*find_datasets([folder]), *find_datasets([tmp_path / "e.parts"])], tmp_path / "d")
    # Parts 1/2 and 2/3 of the same shards look like two of two.
    for part in (Part(1, 2), Part(2, 3)):
        of_shards(found, tmp_path / "f", tokenizer, part=part)
    with pytest.raises(PileError, match=r"is part 2/3 and .* is part 1/2 of one job"):
        merge.run(find_datasets([tmp_path / "f.parts"]), tmp_path / "f")
    whole = of_shards(found, tmp_path / "whole", tokenizer)
    with pytest.raises(PileError, match="whole is not a part, but others are"):
        merge.run([*find_datasets([folder]), whole], tmp_path / "d")


@pytest.mark.parametrize("name", ["n_documents", "n_tokens", "dtype", None])
def test_a_manifest_that_speaks_of_other_data_is_not_merged(
    shards: Path, tokenizer: Path, tmp_path: Path, name: str | None
) -> None:
    """The manifest of the whole has what those of the parts say."""
    found = find_shards([shards])
    for number in (1, 2):
        of_shards(found, tmp_path / "d", tokenizer, part=Part(number, 2))
    of_shards(found, tmp_path / "whole", tokenizer)
    for path in (tmp_path / "d.parts/part-00001-of-00002.manifest.json", tmp_path / "whole.manifest.json"):
        values = json.loads(path.read_bytes())
        values["summary"][name or "n_documents"] = "int32" if name == "dtype" else 7
        if name is not None:
            del values["checksum"]
            values["checksum"] = fingerprint(values)
        path.write_text(json.dumps(values, indent=1) + "\n")
    expected = "was changed after it was written" if name is None else f"{name} is (7|int32), the index says"
    for inputs in ([tmp_path / "d.parts"], [tmp_path / "whole"]):
        with pytest.raises(FormatError, match=rf"{expected}.*\.manifest\.json"):
            merge.run(find_datasets(inputs), tmp_path / "m")
        assert not list(tmp_path.glob("m.*"))
    with pytest.raises(VerifyError, match=expected):
        verify.run(tmp_path / "whole")


def test_a_manifest_that_is_a_broken_link_is_no_missing_one(halves: list[Path], tmp_path: Path) -> None:
    path = Path(f"{halves[0]}.manifest.json")
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        merge.run(halves, tmp_path / "m")
    with pytest.raises(VerifyError, match=re.escape(str(path))):
        verify.run(halves[0])
    path.unlink()
    provenance = Path(f"{halves[0]}.provenance")
    provenance.unlink()
    provenance.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=re.escape(str(provenance))):
        merge.run(halves, tmp_path / "m")


def test_parts_without_documents_are_an_error(
    tmp_path: Path, tokenizer: Path, write_shard: WriteShard
) -> None:
    found = [write_shard(tmp_path / f"{i}.jsonl", [{"text": ""}]) for i in range(2)]
    for number in (1, 2):
        of_shards(found, tmp_path / "d", tokenizer, part=Part(number, 2))
    with pytest.raises(FormatError, match="the shards have no text"):
        merge.run(find_datasets([tmp_path / "d.parts"]), tmp_path / "d")


def test_an_array_job_on_the_command_line(cli: Run, shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    def done(*arguments: str | Path) -> str:
        result = cli(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return result.stdout

    command = ["tokenize", shards, "-o", "d", "--tokenizer", tokenizer]
    assert "pile-tools merge d.parts -o d" in done(*command, "--part", "1/2")
    missing = cli("merge", "d.parts", "-o", "d", cwd=tmp_path)
    assert missing.returncode == 1
    assert "error: 1 of 2 parts are missing: 2/2" in missing.stderr
    done(*command, "--part", "2/2")
    assert "nothing to do" in done(*command, "--part", "2/2")
    assert "rm -r d.parts" in done("merge", "d.parts", "-o", "d")
    assert "nothing to do" in done(*command)
    assert cli(*command, "--part", "0/2", cwd=tmp_path).returncode == 2


@pytest.mark.slow
def test_a_killed_merge_ends_with_the_same_bytes(
    shards: Path, tokenizer: Path, tmp_path: Path, write_shard: WriteShard
) -> None:
    big = write_shard(tmp_path / "big.jsonl", ({"text": f"{i} " + "a b c " * 20_000} for i in range(100)))
    part = of_shards([big], tmp_path / "part", tokenizer)
    inputs = [part]
    for i in range(8):
        copied = tmp_path / f"copy{i}"
        for suffix in SUFFIXES:
            Path(f"{copied}{suffix}").hardlink_to(f"{part}{suffix}")
        inputs.append(copied)
    whole, output = tmp_path / "whole", tmp_path / "out" / "d"
    merge.run(inputs, whole)
    program = "from pile_tools.cli import main; main()"
    command = [sys.executable, "-c", program, "merge", *map(str, inputs), "-o", str(output)]
    n_killed = 0
    for seconds in [0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and not Path(f"{output}.partial").exists():
            time.sleep(0.005)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        n_killed += process.wait() == -signal.SIGKILL
        if Path(f"{output}.idx").exists():
            break
    merge.run(inputs, output)
    assert contents(output, (".bin", ".idx", ".provenance")) == contents(
        whole, (".bin", ".idx", ".provenance")
    )
    assert n_killed > 0


def test_a_dataset_that_is_replaced_while_it_is_merged_is_told(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise ids of two tokenizers could be in one dataset: the manifests were compared before."""
    for name in ("a", "b"):
        of_shards(find_shards([shards]), tmp_path / name, tokenizer)
    merge_datasets = _core.merge_datasets

    def replaced(*args: Any) -> Any:
        of_shards(find_shards([shards]), tmp_path / "a", tokenizer, force=True)
        return merge_datasets(*args)

    monkeypatch.setattr(_core, "merge_datasets", replaced)
    with pytest.raises(FormatError, match=r"was replaced since it was opened.*a\.manifest\.json"):
        merge.run([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert not (tmp_path / "m.manifest.json").exists()


def test_parts_are_named_by_any_of_their_files(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    for number in (1, 2):
        config = TokenizeConfig(tokenizer=tokenizer)
        tokenize.run(find_shards([shards]), tmp_path / "d", config, part=Part(number, 2), threads=1)
    parts = tmp_path / "d.parts"
    prefixes = sorted(path.with_suffix("") for path in parts.glob("*.idx"))
    # A part's tokens are named as the first or second shard of a token file is.
    for pattern in ("*.bin", "*.idx", "*"):
        assert find_datasets(sorted(parts.glob(pattern))) == prefixes
    for name in ("part-00001-of-00002", "part-00001-of-00002.bin"):
        [(file, _)] = _core.token_files(parts / name)
        assert Path(file) == parts / "part-00001-of-00002.bin"


@pytest.mark.parametrize("lenience", ["error", "skip", None])
def test_parts_merge_to_what_the_job_requested(
    shards: Path, tokenizer: Path, tmp_path: Path, lenience: str | None
) -> None:
    """Strict parts are parts of a lenient job, as no shard had a bad record."""
    found, prefix = find_shards([shards]), tmp_path / "d"
    parts = [Part(i, 2) for i in (1, 2)]
    for part in parts:
        of_shards(found, prefix, tokenizer, part=part)
    made = merge.run([part.prefix(prefix) for part in parts], prefix, lenience=lenience)
    records = RecordConfig(on_bad_record=lenience or "error")
    config = TokenizeConfig(tokenizer=tokenizer, records=records)
    done = tokenize.finished(found, prefix, config, force=False)
    assert done == made.manifest
