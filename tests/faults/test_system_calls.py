"""Each data command, killed or failed at a system call that changes files, finishes when it is run again.

The same command then gives the same bytes and leaves nothing behind. `make test` samples the calls;
`make faults` takes all of them.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from .conftest import KILL, KILL_AFTER, Server

#: Calls sampled of each command and kind of fault; all of them by `make faults`.
N_SAMPLED = 4
IS_COMPLETE = os.environ.get("PILE_TOOLS_FAULTS") == "complete"

TOKENIZE = "tokenize ../in/shards -o out/d --tokenizer ../in/tok.json --threads 1"
ORDER = "order ../in/ds -o out --seq-length 16 --steps 4 --batch-size 4"
SHARD = "shard ../in/ds.bin -o out"
PICTURE = "--steps 2 --views 1 --threads 1"

#: Commands by name: those that make what is there before, separated by `&&`, and the last one under test.
COMMANDS = {
    "sample": "sample out/s --megabytes 0.02 --shards 2",
    "dedup exact": "dedup exact ../in/shards -o out/d --threads 1",
    "dedup near": "dedup near ../in/shards -o out/d --threads 1 --threshold 0.5 --permutations 16",
    "dedup signatures": "dedup signatures ../in/shards -o out/s --threads 1 --permutations 16",
    "dedup near --signatures": "dedup signatures ../in/shards -o out/s --threads 1 --permutations 16 && "
    "dedup near ../in/shards -o out/d --threads 1 --threshold 0.5 --permutations 16 --signatures out/s",
    "dedup near --keep-signatures": "dedup near ../in/shards -o out/d --threads 1 --permutations 16 "
    "--keep-signatures",
    "dedup passages": "dedup passages ../in/shards -o out/d --threads 1 --length 32",
    "dedup passages --min-tokens": "dedup passages ../in/shards -o out/d --threads 1 --min-tokens 16 "
    "--tokenizer ../in/tok.json",
    "dedup --mark": "dedup exact ../in/shards -o out/d --threads 1 --mark",
    "dedup --force": "dedup exact ../in/shards -o out/d --threads 1 --mark && "
    "dedup exact ../in/shards -o out/d --threads 1 --force",
    "train-tokenizer": "train-tokenizer ../in/shards -o out/t.json --vocab-size 280 --threads 1",
    "tokenize": TOKENIZE,
    "tokenize part": f"{TOKENIZE} --part 1/2",
    "tokenize over another": f"{TOKENIZE} --no-eod && {TOKENIZE} --force",
    "merge": "merge ../in/first ../in/second -o out/m",
    "merge parts": f"{TOKENIZE} --part 1/2 && {TOKENIZE} --part 2/2 && merge out/d.parts -o out/d",
    "label": "label out/f ../in/shards --tokenizer ../in/tok.json --threads 1",
    "index": "index out/f --tokenizer ../in/tok.json",
    "index over another": "index out/f --no-texts && index out/f --tokenizer ../in/tok.json --force",
    "count-ngrams": "count-ngrams ../in/ds --n 1-3 -o out/n.tsv --threads 1",
    "count-ngrams words": "count-ngrams ../in/shards --n 1-2 -o out/w.parquet --threads 1",
    "count-terms": "count-terms ../in/terms.txt ../in/shards --pairs all -o out/t.tsv --threads 1",
    "order": ORDER,
    "order over another": f"{ORDER} --seed 5 && {ORDER} --force --seq-length 8",
    "stages": "stages ../in/order:2 ../in/order:1 -o out/o",
    "export": "export ../in/order --steps 0:2 -o out/e.parquet",
    "shard": f"{SHARD} --bytes 500",
    "shard over another": f"{SHARD} --bytes 400 && {SHARD} --bytes 500 --force",
    "unshard": "unshard ../in/token-shards -o out/u.bin",
    "batch": "batch ../in/order --step 1 --npy out/b.npy",
    "contamination": "contamination ../in/items.jsonl ../in/shards -o out/c --threads 1",
    "contamination --purify": "contamination ../in/items.jsonl ../in/shards -o out/c --threads 1 "
    "--purify passages",
    "contamination order": "contamination ../in/items.jsonl ../in/order -o out/c --checkpoints 2",
    "mixture": "mixture ../in/order --plot out/m.svg",
    "trace-text": "trace-text ../in/indexed ../in/text.txt -o out/t.html",
    "pile-train import": "pile-train import ../in/model -o out/m --tokenizer ../in/tok.json",
    "pile-train import over another": "pile-train import ../in/model -o out/m && "
    "pile-train import ../in/model -o out/m --tokenizer ../in/tok.json --force",
    "pile-train neox-config": "pile-train neox-config ../in/neox.yml -o out/t.toml",
    "vqgan-clip generate": f"vqgan-clip generate red -o out/p.png {PICTURE}",
    "vqgan-clip generate over another": f"vqgan-clip generate red -o out/p.png {PICTURE} && "
    f"vqgan-clip generate blue -o out/p.png {PICTURE} --force",
    "vqgan-clip edit": f"vqgan-clip generate red -o out/p.png {PICTURE} && "
    f"vqgan-clip edit out/p.png green --mask-text red -o out/e.png {PICTURE}",
    "vqgan-clip generate --state": f"vqgan-clip generate red -o out/p.png {PICTURE} --every 1 --state out/s",
    "vqgan-clip train-toy": "vqgan-clip train-toy -o out/t --vqgan-steps 1 --clip-steps 1 "
    "--adversarial-steps 1",
}

FAULTS = {
    "killed before": KILL,
    "killed after": KILL_AFTER,
    "disk full": errno.ENOSPC,
    "input/output error": errno.EIO,
}


def prepare(inputs: Path, folder: Path, server: Server, before: Iterable[str]) -> Path:
    """A working folder `run/` beside `in/`, with what is there before the command under test."""
    work = folder / "run"
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    if not (folder / "in").exists():
        (folder / "in").symlink_to(inputs)
    for suffix in (".bin", ".idx"):
        shutil.copy(inputs / f"foreign{suffix}", work / "out" / f"f{suffix}")
    for argv in before:
        ended = server.run(argv.split(), work)
        assert ended.code == 0, ended.printed
    return work


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_finishes_after_a_fault(
    server: Server, inputs: Path, tmp_path: Path, name: str, fault: str
) -> None:
    *before, command = COMMANDS[name].split(" && ")
    argv = command.split()
    work = prepare(inputs, tmp_path, server, before)
    reference = server.run(argv, work)
    assert reference.code == 0, reference.printed
    assert reference.calls is not None
    assert reference.calls > 3, "no call was counted: is the shim loaded?"
    expected = tree(work)
    calls: Iterable[int] = range(1, reference.calls + 1)
    if not IS_COMPLETE:
        calls = sorted(random.Random(f"{name}/{fault}").sample(list(calls), N_SAMPLED))
    for at in calls:
        work = prepare(inputs, tmp_path, server, before)
        ended = server.run(argv, work, at=at, fault=FAULTS[fault])
        where = f"{name}, {fault}, call {at} of {reference.calls}: {ended}"
        if FAULTS[fault] in (KILL, KILL_AFTER):
            # A run with fewer calls than the reference has just finished.
            assert ended.code in (-9, 0), where
        else:
            assert ended.code in (0, 1), where
            assert "a bug in pile-tools" not in ended.printed, where
            assert ended.code == 0 or ended.printed.count("error:") == 1, where
        again = server.run(argv, work)
        assert again.code == 0, f"{where}; then {again}"
        found = tree(work)
        assert sorted(found) == sorted(expected), where
        assert found == expected, where


#: Jobs that keep finished work, and others that write under the same name: all have one scratch folder.
SAME_NAME = {
    "tokenize": "tokenize ../in/shards -o out/x.parquet --tokenizer ../in/tok.json --threads 1",
    "count-ngrams": "count-ngrams ../in/ds --n 1-3 -o out/x.parquet --threads 1",
    "merge": "merge ../in/first ../in/second -o out/x.parquet",
    "dedup exact": "dedup exact ../in/shards -o out/x.parquet --threads 1",
    "dedup near": "dedup near ../in/shards -o out/x.parquet --threads 1 --permutations 16",
    "dedup passages": "dedup passages ../in/shards -o out/x.parquet --threads 1 --length 32",
    "dedup signatures": "dedup signatures ../in/shards -o out/x.parquet --threads 1 --permutations 16",
    "contamination": "contamination ../in/items.jsonl ../in/shards -o out/x.parquet --threads 1",
    "sample": "sample out/x.parquet --megabytes 0.02 --shards 2",
    "export": "export ../in/order --steps 0:2 -o out/x.parquet",
}


#: Those of them that start again after a kill, or keep nothing of so little data.
KEEP_NOTHING = {"count-ngrams", "sample", "export"}


def kill_late(server: Server, inputs: Path, folder: Path, argv: list[str], scratch: str) -> Path:
    """Kills a job that has finished work in `out/SCRATCH`, and no output yet; returns where it ran."""
    n_calls = server.run(argv, prepare(inputs, folder, server, [])).calls
    assert n_calls is not None
    for at in range(n_calls, 0, -3):
        work = prepare(inputs, folder, server, [])
        server.run(argv, work, at=at)
        made = {path.name for path in (work / "out").iterdir()} - {"f.bin", "f.idx"}
        left = list((work / "out" / scratch).rglob("*.json"))
        is_finished = any(path.name.endswith("manifest.json") for path in left)
        if made == {scratch} and not is_finished and any(path.name == "state.json" for path in left):
            return work
    pytest.fail("no kill left a state")


@pytest.mark.parametrize("name", [name for name in SAME_NAME if name not in KEEP_NOTHING])
def test_what_a_killed_job_has_finished_is_not_discarded_by_another(
    server: Server, inputs: Path, tmp_path: Path, name: str
) -> None:
    argv = SAME_NAME[name].split()
    work = kill_late(server, inputs, tmp_path, argv, "x.parquet.partial")
    scratch, left = work / "out" / "x.parquet.partial", tree(work)
    others = [other for other in SAME_NAME if other != name]
    for other in others if IS_COMPLETE else random.Random(name).sample(others, N_SAMPLED):
        command = SAME_NAME[other].split()
        ended = server.run(command, work)
        assert ended.code == 1, f"{other}: {ended}"
        assert "holds " in ended.printed, f"{other}: {ended}"
        assert tree(work) == left, other
        forced = tmp_path / "forced"
        shutil.copytree(work, forced)
        ended = server.run([*command, "--force"], forced)
        # A single file has no manifest to say what is its own, and no use for such work.
        assert ended.code == (1 if other == "export" else 0), f"{other}: {ended}"
        assert (forced / "out" / scratch.name).exists() == (other == "export")
        shutil.rmtree(forced)
    assert server.run(argv, work).code == 0
    assert not scratch.exists()


def test_an_index_and_another_job_of_its_name_keep_what_the_other_has_finished(
    server: Server, inputs: Path, tmp_path: Path
) -> None:
    jobs = [
        "index out/f --no-texts",
        "tokenize ../in/shards -o out/f.index --tokenizer ../in/tok.json --threads 1",
    ]
    for first, second in (jobs, jobs[::-1]):
        work = kill_late(server, inputs, tmp_path, first.split(), "f.index.partial")
        left = tree(work)
        ended = server.run(second.split(), work)
        assert (ended.code, "holds " in ended.printed) == (1, True), ended
        assert tree(work) == left
        assert server.run([*second.split(), "--force"], work).code == 0
        assert not (work / "out" / "f.index.partial").exists()
    # No job can use the segments of an index with other settings.
    work = kill_late(server, inputs, tmp_path, jobs[0].split(), "f.index.partial")
    assert server.run(["index", "out/f", "--tokenizer", "../in/tok.json"], work).code == 0


#: Commands that read the copy S of all inputs, which is in the scratch folder of an output.
READ_IN_SCRATCH = {
    "x": [
        "tokenize S/shards -o out/x --tokenizer ../in/tok.json",
        "tokenize ../in/shards -o out/x --tokenizer S/tok.json",
        "merge S/first ../in/second -o out/x",
        "dedup exact S/shards -o out/x",
        "dedup near ../in/shards -o out/x --against S/shards",
        "dedup near ../in/shards -o out/x --signatures S/shards",
        "contamination S/items.jsonl ../in/shards -o out/x",
        "contamination ../in/items.jsonl S/order -o out/x",
        "pile-train import S/model -o out/x",
    ],
    "x/order.json": [
        "order S/ds -o out/x --seq-length 8 --steps 2 --batch-size 2",
        "stages S/order:2 ../in/order:2 -o out/x",
    ],
    "x.tsv": ["count-ngrams S/shards -o out/x.tsv", "count-terms S/terms.txt ../in/shards -o out/x.tsv"],
    "x.html": [
        "dedup exact S/shards -o out/y --report out/x.html",
        "trace-text ../in/indexed S/text.txt -o out/x.html",
    ],
    "x.csv": ["export S/order --steps 0:1 -o out/x.csv"],
    "x.npy": ["batch S/order --step 0 --npy out/x.npy"],
    "x.toml": ["pile-train neox-config S/neox.yml -o out/x.toml"],
}


@pytest.mark.parametrize(
    ("output", "command"), [(name, command) for name, all_of in READ_IN_SCRATCH.items() for command in all_of]
)
def test_an_input_in_the_scratch_folder_of_the_output_is_not_removed(
    server: Server, inputs: Path, tmp_path: Path, output: str, command: str
) -> None:
    work = prepare(inputs, tmp_path, server, [])
    scratch = work / "out" / f"{output}.partial"
    shutil.copytree(inputs, scratch / "in")
    (scratch / "pile-tools.lock").touch()
    before = tree(scratch)
    ended = server.run(command.replace("S/", f"out/{output}.partial/in/").split(), work)
    assert ended.code in (1, 2), ended
    assert "is in the scratch folder of the output" in ended.printed or "holds files" in ended.printed, ended
    assert tree(scratch) == before
