"""Jobs on a real Ray cluster, with workers and drivers killed while they run.

These tests run only with PILE_TOOLS_TEST_RAY=1. They take a minute on two idle cores; on a busy machine Ray's
own timeouts expire.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pile_tools import FormatError
from pile_tools.jobs import dedup, merge, tokenize
from pile_tools.jobs.dedup import DedupConfig, NearConfig
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.manifest import read
from pile_tools.read.shards import find_shards
from pile_tools.tokens.parts import finished_parts, remove

pytestmark = pytest.mark.skipif(
    os.environ.get("PILE_TOOLS_TEST_RAY") != "1",
    reason="a Ray cluster needs a machine to itself; PILE_TOOLS_TEST_RAY=1 runs it",
)

SUFFIXES = (".bin", ".idx", ".provenance", ".manifest.json")
WriteShard = Callable[[Path, Iterable[dict[str, Any]]], Path]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with two CPUs, to which this process is connected."""
    pytest.importorskip("ray", reason="ray is not installed; the extra [distributed] brings it")
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for attempt in range(3):
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            break
        except Exception:  # Ray's timeout of 30 seconds expires on a busy machine
            ray.shutdown()
            if attempt == 2:
                raise
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def slow_shards(tmp_path_factory: pytest.TempPathFactory, write_shard: WriteShard) -> list[Path]:
    """Five shards of random words, which no cache helps with; each takes about a second."""
    folder, letters = tmp_path_factory.mktemp("slow"), random.Random(0)
    for shard in range(5):
        texts = (" ".join(letters.randbytes(6).hex() for _ in range(2_000)) for _ in range(300))
        records = ({"text": text, "meta": {"pile_set_name": f"Set {shard % 3}"}} for text in texts)
        write_shard(folder / f"{shard}.jsonl.zst", records)
    return find_shards([folder])


@pytest.fixture(scope="module")
def whole(slow_shards: list[Path], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that one process makes of the shards."""
    prefix = tmp_path_factory.mktemp("whole") / "d"
    tokenize.run(slow_shards, prefix, TokenizeConfig(tokenizer=tokenizer), threads=1)
    return prefix


def contents(prefix: Path) -> dict[str, bytes]:
    return {suffix: Path(f"{prefix}{suffix}").read_bytes() for suffix in SUFFIXES}


def workers() -> list[int]:
    """IDs of the processes that run a task of ours."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cmdline").read_bytes().startswith(b"ray::_run_task"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
    return found


def being_written(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob("*.partial/*.bin"))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(
    cluster: str, slow_shards: list[Path], whole: Path, tokenizer: Path, tmp_path: Path
) -> None:
    from pile_tools.jobs import distributed_tokenize

    prefix, killed, reports = tmp_path / "d", [], []

    def kill() -> None:
        wait_for(lambda: being_written(tmp_path / "d.parts"))
        killed.extend(workers()[:1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    config = TokenizeConfig(tokenizer=tokenizer)
    parts = distributed_tokenize.make_parts(
        slow_shards,
        prefix,
        config,
        threads=1,
        on_progress=lambda n_bytes, n_tokens: reports.append((n_bytes, n_tokens)),
    )
    killer.join()
    assert len(killed) == 1
    assert reports[-1][0] == sum(path.stat().st_size for path in slow_shards)
    assert reports[-1][1] > 0
    merge.run(parts, prefix)
    assert contents(prefix) == contents(whole)
    remove(prefix, finished_parts(read(Path(f"{prefix}.manifest.json")), prefix, len(slow_shards)))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"d{suffix}" for suffix in SUFFIXES)


def start_driver(address: str, shards: Path, prefix: Path, tokenizer: Path) -> subprocess.Popen[str]:
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"
    arguments = ["tokenize", str(shards), "-o", prefix.name, "--tokenizer", str(tokenizer), "--distributed"]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=prefix.parent,
        env={**os.environ, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_whose_driver_ended_resumes(
    cluster: str, slow_shards: list[Path], whole: Path, tokenizer: Path, tmp_path: Path, how: signal.Signals
) -> None:
    prefix, shards = tmp_path / "d", slow_shards[0].parent
    driver = start_driver(cluster, shards, prefix, tokenizer)
    finished = wait_for(lambda: list((tmp_path / "d.parts").glob("*.idx")))
    driver.send_signal(how)
    _, errors = driver.communicate(timeout=60)
    if how == signal.SIGINT:
        assert driver.returncode == 130, errors
        assert errors.strip() == "error: interrupted; run the same command again to resume"
    else:
        # Ray has a handler of SIGTERM.
        assert (driver.returncode, errors) == (-how, "")
    wait_for(lambda: not workers())
    assert not Path(f"{prefix}.idx").exists()
    before = {path: path.stat().st_mtime_ns for path in finished}

    from pile_tools.jobs import distributed_tokenize

    config = TokenizeConfig(tokenizer=tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # the tasks have another working directory
        parts = distributed_tokenize.make_parts(slow_shards, Path("d"), config, threads=2)
        assert {path: path.stat().st_mtime_ns for path in finished} == before
        merge.run(parts, prefix)
    assert contents(prefix) == contents(whole)
    again = start_driver(cluster, shards, prefix, tokenizer)
    assert "nothing to do" in again.communicate(timeout=60)[0]


@pytest.mark.slow
def test_a_bad_shard_is_reported_as_in_one_process_and_can_be_repaired(
    cluster: str, shards: Path, dataset: Path, tokenizer: Path, tmp_path: Path
) -> None:
    from pile_tools.jobs import distributed_tokenize

    folder, config = tmp_path / "shards", TokenizeConfig(tokenizer=tokenizer)
    folder.mkdir()
    for path in find_shards([shards]):
        (folder / path.name).write_bytes(path.read_bytes())
    good = (folder / "02.jsonl").read_bytes()
    (folder / "02.jsonl").write_bytes(good + b"not json\n")
    with pytest.raises(FormatError, match=r"record 300: not JSON.*02\.jsonl, byte \d+\)$"):
        distributed_tokenize.make_parts(find_shards([folder]), tmp_path / "d", config, threads=1)
    (folder / "02.jsonl").write_bytes(good)
    parts = distributed_tokenize.make_parts(find_shards([folder]), tmp_path / "d", config, threads=1)
    merge.run(parts, tmp_path / "d")
    assert Path(f"{tmp_path}/d.bin").read_bytes() == Path(f"{dataset}.bin").read_bytes()


@pytest.fixture(scope="module")
def near_copies(tmp_path_factory: pytest.TempPathFactory, write_shard: WriteShard) -> list[Path]:
    """Five shards of about a second each; one document in three is a near copy of an earlier one."""
    folder, letters, texts = tmp_path_factory.mktemp("near"), random.Random(1), []
    for shard in range(5):
        for _ in range(300):
            words = [letters.randbytes(6).hex() for _ in range(2_000)]
            if texts and letters.random() < 0.3:
                words = letters.choice(texts).split()
                words[letters.randrange(2_000)] = "changed"
            texts.append(" ".join(words))
        records = ({"text": text, "meta": {"pile_set_name": "Set"}} for text in texts[-300:])
        write_shard(folder / f"{shard}.jsonl.zst", records)
    return find_shards([folder])


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mark": True}])
def test_deduplication_is_the_same_with_a_worker_killed(
    cluster: str, near_copies: list[Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    from pile_tools.jobs import distributed_dedup

    config, reports, killed = DedupConfig(near=NearConfig(), **options), [], []
    how: dict[str, Any] = {"memory": 1 << 28, "threads": 1}
    alone, _ = dedup.run(near_copies, tmp_path / "alone", config, **how)
    assert alone.summary["n_verified"] > 100

    def kill() -> None:
        made_by_tasks = (
            "signatures/*/signatures-000000",
            "duplicates/tasks/spill-*/spilled-*",
            "new-shards/*/*/*.jsonl*",
        )
        for made in made_by_tasks:
            wait_for(lambda made=made: list((tmp_path / "on.partial").glob(made)))
            killed.extend(workers()[:1])
            os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with distributed_dedup.workers(threads=1) as ray_workers:
        dedup.run(
            near_copies, tmp_path / "on", config, workers=ray_workers, on_progress=reports.append, **how
        )
    killer.join()
    assert len(killed) == 3
    assert files_in(tmp_path / "on") == files_in(tmp_path / "alone")
    assert reports == sorted(reports)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "on"]


@pytest.mark.slow
def test_a_deduplication_whose_driver_was_killed_resumes(
    cluster: str, near_copies: list[Path], tmp_path: Path
) -> None:
    shards = near_copies[0].parent
    program = "import sys; from pile_tools.cli import main; sys.exit(main())"

    def command(*more: str) -> list[str]:
        return [sys.executable, "-c", program, "dedup", "near", str(shards), "-o", "on", *more]

    how: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "RAY_ADDRESS": cluster}}
    driver = subprocess.Popen(command("--distributed"), stderr=subprocess.PIPE, text=True, **how)
    # The state of a task is written once it is finished.
    made = wait_for(lambda: list((tmp_path / "on.partial").glob("duplicates/tasks/*/state.json")))
    driver.kill()
    driver.communicate(timeout=60)
    wait_for(lambda: not workers())
    before = {path: path.stat().st_mtime_ns for path in made}
    other = subprocess.run(
        command("--distributed", "--shingle", "words:4"), capture_output=True, text=True, **how
    )
    assert other.returncode == 1, other.stderr
    assert "finished shard" in other.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == before
    subprocess.run(command("--distributed"), check=True, **how)
    dedup.run(near_copies, tmp_path / "alone", DedupConfig(near=NearConfig()), memory=1 << 28, threads=2)
    assert files_in(tmp_path / "on") == files_in(tmp_path / "alone")


@pytest.mark.parametrize("job", ["tokenize", "dedup near"])
def test_a_missing_ray_is_reported_in_one_line(
    shards: Path, tokenizer: Path, tmp_path: Path, job: str
) -> None:
    program = "import sys; sys.modules['ray'] = None; from pile_tools.cli import main; sys.exit(main())"
    options = ["--tokenizer", str(tokenizer)] if job == "tokenize" else []
    arguments = [*job.split(), str(shards), "-o", "d", *options, "--distributed"]
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    message = (
        "this command needs ray, which is not installed; "
        "install it with pip install 'pile-tools[distributed]'"
    )
    assert result.stderr == f"error: {message}\n"
    assert not list(tmp_path.iterdir())
