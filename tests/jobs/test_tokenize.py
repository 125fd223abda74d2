"""Tokenizing: bytes equal to the reference's for any number of threads and any interruption; bad input."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pile_tools import ConfigError, FormatError, OutputExistsError, PileError, TokenDataset
from pile_tools.jobs import verify
from pile_tools.jobs.tokenize import TokenizeConfig, run
from pile_tools.read.shards import find_shards
from pile_tools.scratch_folders import MARKER

SUFFIXES = (".bin", ".idx", ".provenance", ".manifest.json")


def contents(prefix: Path) -> dict[str, bytes]:
    return {suffix: Path(f"{prefix}{suffix}").read_bytes() for suffix in SUFFIXES}


def tokenized(shards: Path, prefix: Path, tokenizer: Path, **more: Any) -> Any:
    return run(find_shards([shards]), prefix, TokenizeConfig(tokenizer=tokenizer), threads=2, **more)


@pytest.mark.parametrize("eod", [True, False])
def test_bytes_are_the_references(golden: Path, neox_tokenizer: Path, tmp_path: Path, eod: bool) -> None:
    config = TokenizeConfig(tokenizer=neox_tokenizer, append_eod=eod)
    result = run([golden / "dataset" / "mini.jsonl"], tmp_path / "mini", config, threads=2)
    name = "mini_eod_text_document" if eod else "mini_noeod_text_document"
    for suffix in (".bin", ".idx"):
        expected = (golden / "dataset" / (name + suffix)).read_bytes()
        assert Path(f"{tmp_path / 'mini'}{suffix}").read_bytes() == expected
    assert result.manifest.summary["shards"][0]["n_empty"] == 2
    assert result.manifest.summary["eod"] == ("<|endoftext|>" if eod else None)


def test_any_number_of_threads_gives_the_same_bytes(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    found = find_shards([shards])
    for threads in (1, 2, 5):
        prefix = tmp_path / str(threads) / "d"
        run(found, prefix, TokenizeConfig(tokenizer=tokenizer), threads=threads)
    one, two, five = (contents(tmp_path / n / "d") for n in ("1", "2", "5"))
    assert one == two == five


def test_origins_locate_the_documents(dataset: Path, tokenizer: Path) -> None:
    import zstandard

    from pile_tools import Tokenizer

    tokens, decoder = TokenDataset(dataset), Tokenizer.from_file(tokenizer)
    for document in range(0, len(tokens), 37):
        origin = tokens.origin(document)
        assert origin is not None
        path = Path(origin["shard"])
        data = path.read_bytes()
        data = zstandard.decompress(data) if path.suffix == ".zst" else data
        line = data[origin["byte_start"] : origin["byte_start"] + origin["byte_length"]]
        assert data.splitlines()[origin["record"]] == line
        record = json.loads(line)
        assert decoder.decode(tokens[document].astype("u4")) == record["text"]
        assert origin["subset"] == record["meta"].get("pile_set_name")


def test_the_manifest_says_what_it_was_made_from(dataset: Path, shards: Path) -> None:
    manifest = json.loads(Path(f"{dataset}.manifest.json").read_text())
    assert manifest["kind"] == "tokens"
    found = [entry for entry in manifest["inputs"] if entry["role"] == "shard"]
    for entry, shard in zip(found, find_shards([shards]), strict=True):
        assert (dataset.parent / entry["path"]).resolve() == shard.resolve()
        assert entry["sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest()
    summary = manifest["summary"]
    assert summary["n_documents"] == len(TokenDataset(dataset))
    assert sum(subset["n_tokens"] for subset in summary["subsets"]) == summary["n_tokens"]


def test_finished_output_is_left_alone(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "d"
    assert tokenized(shards, prefix, tokenizer).is_new
    before = contents(prefix)
    assert not tokenized(shards, prefix, tokenizer).is_new
    config = TokenizeConfig(tokenizer=tokenizer, append_eod=False)
    with pytest.raises(OutputExistsError, match=r"eod = '<\|endoftext\|>', not None; force"):
        run(find_shards([shards]), prefix, config, threads=1)
    assert contents(prefix) == before
    assert run(find_shards([shards]), prefix, config, threads=1, force=True).is_new
    assert contents(prefix) != before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"d{suffix}" for suffix in SUFFIXES)


def test_a_dataset_of_another_tool_is_not_overwritten(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "d.idx").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="not from pile-tools"):
        tokenized(shards, tmp_path / "d", tokenizer)
    assert (tmp_path / "d.idx").read_bytes() == b"mine"


def start(shards: Path, prefix: Path, tokenizer: Path) -> subprocess.Popen[str]:
    """Starts the command in another process."""
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"
    arguments = ["tokenize", str(shards), "-o", str(prefix), "--tokenizer", str(tokenizer), "--threads", "1"]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_job_killed_again_and_again_ends_with_the_same_bytes(
    tokenizer: Path, tmp_path: Path, write_shard: Callable[[Path, Iterable[dict[str, Any]]], Path]
) -> None:
    shards, moments = tmp_path / "shards", random.Random(time.time_ns())
    for shard in range(12):
        texts = (f"{shard} {i} " + moments.randbytes(4_000).hex(" ") for i in range(100))
        write_shard(shards / f"{shard:02}.jsonl.zst", ({"text": text} for text in texts))
    whole, prefix = tmp_path / "whole" / "d", tmp_path / "killed" / "d"
    tokenized(shards, whole, tokenizer)
    n_killed, is_finished = 0, False
    for _ in range(60):
        process = start(shards, prefix, tokenizer)
        while process.poll() is None and not Path(f"{prefix}.partial").exists():
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == 0 and n_killed == 0:
            # It was faster than this process, which the machine may have stopped: nothing is tested yet.
            shutil.rmtree(prefix.parent)
            continue
        if process.returncode == 0:
            is_finished = True
            break
        assert process.returncode == -signal.SIGKILL, errors
        n_killed += 1
        assert not Path(f"{prefix}.idx").exists() or contents(prefix) == contents(whole)
    # A busy machine may never have let a process finish.
    assert not (tokenized(shards, prefix, tokenizer).is_new and is_finished)
    assert contents(prefix) == contents(whole)
    assert sorted(p.name for p in prefix.parent.iterdir()) == sorted(f"d{suffix}" for suffix in SUFFIXES)
    assert n_killed > 0, "no process was killed, so nothing was tested"


def test_two_processes_at_once_make_one_dataset(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    processes = [start(shards, tmp_path / "out" / "d", tokenizer) for _ in range(3)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert 0 in {code for _, _, code in ended}
    for output, errors, code in ended:
        is_refused = code == 1 and "is making this output; wait for it or stop it" in errors
        assert is_refused or "documents" in output or "nothing to do" in output, errors
    tokenized(shards, tmp_path / "whole" / "d", tokenizer)
    assert contents(tmp_path / "out" / "d") == contents(tmp_path / "whole" / "d")


def test_a_job_killed_between_its_last_shard_and_its_manifest_resumes(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pile_tools.manifest.write", killed)
        with pytest.raises(KeyboardInterrupt):
            tokenized(shards, tmp_path / "out" / "d", tokenizer)
    assert tokenized(shards, tmp_path / "out" / "d", tokenizer).n_resumed_shards == 4
    tokenized(shards, tmp_path / "whole" / "d", tokenizer)
    assert contents(tmp_path / "out" / "d") == contents(tmp_path / "whole" / "d")


def test_columns_shorter_than_the_saved_state_are_made_again(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    tokenized(shards, tmp_path / "whole", tokenizer)
    bad = tmp_path / "bad"
    for name in ("d.bin", "lengths", "subset"):
        shutil.copytree(shards, bad)
        (bad / "04.jsonl").write_text("not json\n")
        with pytest.raises(FormatError):
            tokenized(bad, tmp_path / "d", tokenizer, force=True)
        with (tmp_path / "d.partial" / name).open("r+b") as column:
            column.truncate(10)
        (bad / "04.jsonl").write_text('{"text": ""}\n')
        result = tokenized(bad, tmp_path / "d", tokenizer, force=True)
        assert result.n_resumed_shards == 0
        assert Path(f"{tmp_path}/d.bin").read_bytes() == Path(f"{tmp_path}/whole.bin").read_bytes()
        shutil.rmtree(bad)


def test_a_run_resumes_with_shards_added_after_the_finished_ones(
    shards: Path,
    tokenizer: Path,
    tmp_path: Path,
    write_shard: Callable[[Path, Iterable[dict[str, Any]]], Path],
) -> None:
    grown = tmp_path / "shards"
    shutil.copytree(shards, grown)
    (grown / "04.jsonl").write_text("not json\n")
    with pytest.raises(FormatError):
        tokenized(grown, tmp_path / "out" / "d", tokenizer)
    write_shard(grown / "04.jsonl", [{"text": "mended"}])
    write_shard(grown / "05.jsonl", [{"text": "added"}])
    assert tokenized(grown, tmp_path / "out" / "d", tokenizer).n_resumed_shards == 4
    tokenized(grown, tmp_path / "whole" / "d", tokenizer)
    assert contents(tmp_path / "out" / "d") == contents(tmp_path / "whole" / "d")


def test_a_job_killed_while_publishing_resumes(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, prefix = tmp_path / "whole" / "d", tmp_path / "d"
    tokenized(shards, whole, tokenizer)
    renamed: list[Path] = []
    link = os.link

    def failing(made: Path, final: Path, **options: bool) -> None:
        if made.suffix in (".bin", ".idx", ".provenance"):
            renamed.append(final)
            if len(renamed) == stop_at:
                raise KeyboardInterrupt
        link(made, final, **options)

    for stop_at in (1, 2, 3):  # noqa: B007  # read by `failing`
        renamed.clear()
        with monkeypatch.context() as patch:
            patch.setattr("os.link", failing)
            with pytest.raises(KeyboardInterrupt):
                tokenized(shards, prefix, tokenizer, force=True)
        assert not Path(f"{prefix}.bin").exists(), "an incomplete dataset can be opened"
        assert tokenized(shards, prefix, tokenizer).is_new
        assert {k: v for k, v in contents(prefix).items() if k != ".manifest.json"} == {
            k: v for k, v in contents(whole).items() if k != ".manifest.json"
        }


def test_finished_shards_of_another_job_are_neither_used_nor_discarded(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(shards, bad)
    (bad / "04.jsonl").write_text("not json\n")
    prefix = tmp_path / "d"
    with pytest.raises(FormatError):
        tokenized(bad, prefix, tokenizer)
    state = (tmp_path / "d.partial" / "state.json").read_bytes()
    with pytest.raises(OutputExistsError, match=r"holds 4 finished shards of .* command of that run resumes"):
        tokenized(shards, prefix, tokenizer)
    assert (tmp_path / "d.partial" / "state.json").read_bytes() == state
    assert tokenized(shards, prefix, tokenizer, force=True).n_resumed_shards == 0
    tokenized(shards, tmp_path / "whole", tokenizer)
    assert Path(f"{prefix}.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()


def test_a_run_resumes_with_a_repaired_shard(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    mended = tmp_path / "shards"
    shutil.copytree(shards, mended)
    good = (mended / "03.jsonl.zst").read_bytes()
    (mended / "03.jsonl.zst").write_bytes(b"another size")
    with pytest.raises(FormatError, match="not zstd, or damaged"):
        tokenized(mended, tmp_path / "d", tokenizer)
    (mended / "03.jsonl.zst").write_bytes(good)
    assert tokenized(mended, tmp_path / "d", tokenizer).n_resumed_shards == 3


def test_a_job_whose_finished_shards_changed_starts_again(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    changed, prefix = tmp_path / "shards", tmp_path / "d"
    shutil.copytree(shards, changed)
    good = (changed / "03.jsonl.zst").read_bytes()
    (changed / "03.jsonl.zst").write_bytes(b"not zstd")
    with pytest.raises(FormatError):
        tokenized(changed, prefix, tokenizer)
    (changed / "03.jsonl.zst").write_bytes(good)
    text = (changed / "00.jsonl").read_text()
    (changed / "00.jsonl").write_text(text.replace("alpha", "gamma"))
    assert tokenized(changed, prefix, tokenizer).n_resumed_shards == 0
    assert {check.state for check in verify.run(prefix)} == {"ok"}


def _numbers(values: Any) -> Iterator[tuple[Any, Any]]:
    """Container and key of each number in a JSON value."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, int):
            yield values, key
        elif isinstance(value, (dict, list)):
            yield from _numbers(value)


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("number", [1, 2**63])
def test_an_edited_state_is_no_bug(
    shards: Path, tokenizer: Path, tmp_path: Path, number: int, is_signed: bool
) -> None:
    """With a wrong checksum the job starts again; with a right one, the state contradicts the files."""
    mended, prefix = tmp_path / "shards", tmp_path / "d"
    shutil.copytree(shards, mended)
    tokenized(mended, tmp_path / "whole", tokenizer)
    good = (mended / "01.jsonl.zst").read_bytes()
    # One finished shard in the state is enough: the entries of all have the same keys.
    (mended / "01.jsonl.zst").write_bytes(b"another size")
    with pytest.raises(FormatError):
        tokenized(mended, prefix, tokenizer)
    (mended / "01.jsonl.zst").write_bytes(good)
    scratch = tmp_path / "d.partial"
    shutil.copytree(scratch, tmp_path / "stopped")
    state = (scratch / "state.json").read_bytes()
    n_failed = 0
    for i in range(len(list(_numbers(json.loads(state)["saved"])))):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(tmp_path / "stopped", scratch)
        values = json.loads(state)["saved"]
        container, key = list(_numbers(values))[i]
        container[key] = number
        saved = json.dumps(values)
        sha256 = hashlib.sha256(saved.encode()).hexdigest() if is_signed else json.loads(state)["sha256"]
        (scratch / "state.json").write_text(f'{{"sha256": "{sha256}", "saved": {saved}}}')
        try:
            resumed = tokenized(mended, prefix, tokenizer, force=is_signed).n_resumed_shards
            assert is_signed or resumed == 0
            TokenDataset(prefix).check()
        except PileError:
            n_failed += 1
        if not is_signed:
            made, expected = contents(prefix), contents(tmp_path / "whole")
            assert all(made[suffix] == expected[suffix] for suffix in (".bin", ".idx", ".provenance"))
            for suffix in made:
                Path(f"{prefix}{suffix}").unlink()
    # At least the numbers of documents and tokens are compared with the files.
    assert n_failed >= 2 if is_signed else n_failed == 0


GOOD = b'{"text": "good"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", GOOD + b"not json\n", r"record 1: not JSON: expected .*a\.jsonl, byte 17"),
        ("a.jsonl", GOOD + b'{"txt": "a"}\n', r'record 1: no "text" in the JSON object.*a\.jsonl, byte 17'),
        (
            "a.jsonl",
            GOOD + b'{"text": 5}\n',
            r"record 1: not a document: .*expected a string.*a\.jsonl, byte 17",
        ),
        ("a.jsonl", GOOD + b"\n" + GOOD, r"record 1: an empty line.*a\.jsonl, byte 17"),
        ("a.jsonl", GOOD + b'{"text": "\xff"}\n', r"record 1: not UTF-8: byte 0xff .*a\.jsonl, byte 17"),
        ("a.jsonl", b"", r"no documents: the shards have no text .*a\.jsonl"),
        ("a.jsonl", b'{"text": ""}\n', r"no documents: the shards have no text .*a\.jsonl"),
        ("a.jsonl.zst", GOOD, r"not zstd, or damaged.*a\.jsonl\.zst, byte"),
        ("a.csv", GOOD, r"not a shard by its name.*a\.csv"),
    ],
)
def test_errors_of_bad_input_name_file_and_position(
    tmp_path: Path, tokenizer: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        tokenized(tmp_path / name, tmp_path / "out" / "d", tokenizer)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["d.partial"]


def test_a_truncated_shard_is_an_error(tmp_path: Path, tokenizer: Path, shards: Path) -> None:
    whole = (shards / "01.jsonl.zst").read_bytes()
    (tmp_path / "a.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cut short.*a\.jsonl\.zst, byte \d+"):
        tokenized(tmp_path / "a.jsonl.zst", tmp_path / "d", tokenizer)


def test_missing_inputs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PileError, match=r"nowhere does not exist"):
        find_shards([tmp_path / "nowhere"])
    with pytest.raises(PileError, match="holds no shards"):
        find_shards([tmp_path])


def test_shards_are_sorted_byte_wise_and_read_once(tmp_path: Path) -> None:
    for name in (
        "b.jsonl",
        "a/10.jsonl",
        "a/9.jsonl",
        "a.jsonl",
        "é.jsonl",
        "Z.jsonl",
        "a/notes.txt",
        "a/sums.sha256",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = find_shards([tmp_path, tmp_path / "b.jsonl", f"{tmp_path}/*.jsonl"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["Z.jsonl", "a.jsonl", "a/10.jsonl", "a/9.jsonl", "a/notes.txt", "b.jsonl", "é.jsonl"]
    assert [os.fsencode(p) for p in found] == sorted(os.fsencode(p) for p in found)


def test_the_end_of_document_token_must_be_known(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    config = TokenizeConfig(tokenizer=tokenizer, eod="<nope>")
    with pytest.raises(ConfigError, match="'<nope>' is not in the vocabulary"):
        run(find_shards([shards]), tmp_path / "d", config, threads=1)
    config = TokenizeConfig(tokenizer=tokenizer, eod="<|padding|>")
    run(find_shards([shards]), tmp_path / "d", config, threads=1)
    assert TokenDataset(tmp_path / "d")[0][-1] == 1


def test_a_locked_dataset_is_not_written(shards: Path, tokenizer: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "d.partial").mkdir()
    with (tmp_path / "d.partial" / MARKER).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PileError, match="another process"):
            tokenized(shards, tmp_path / "d", tokenizer)


def test_a_shard_that_grows_after_its_part_was_made_is_refused(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="ray is not installed; the extra [distributed] brings it")
    from pile_tools.jobs import cluster, distributed_tokenize

    shutil.copytree(shards, tmp_path / "in")
    first, *rest = find_shards([tmp_path / "in"])

    def run_here(tasks: Sequence[cluster.Task], **how: Any) -> None:
        for task in tasks:
            task.work(lambda *counts: None)
            with first.open("ab") as file:
                file.write(b"\n")

    monkeypatch.setattr(cluster, "run", run_here)
    with pytest.raises(PileError, match=rf"changed while it was read: .*{re.escape(str(first))}"):
        distributed_tokenize.make_parts(
            [first, *rest], tmp_path / "d", TokenizeConfig(tokenizer=tokenizer), threads=1
        )
