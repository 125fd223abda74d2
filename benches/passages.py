"""Repeated passages of at least 100 bytes, against google-research/deduplicate-text-datasets."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches import inputs, peers
from benches.dedup_peers import warm_up
from benches.markdown import speeds, table
from benches.measure import CACHE, Measured, Stopwatch, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, is_right, speed_up

TITLE = "Repeated passages"
TARGET = 5.0
LENGTH = 100
MEMORY = 1 << 30
JOB = "pile-tools, the whole job"
NAME = "deduplicate-text-datasets"
WHOLE, PARTS = f"{NAME}, make", f"{NAME}, make-part and merge"
#: The parts of its script for files of this size, and how far each reaches into the next.
N_PARTS, OVERLAP = 4, 100_000

#: Bytes that do not occur in UTF-8, of which separators are made.
NO_UTF8 = [0xC0, 0xC1, *range(0xF5, 0x100)]
SEPARATOR = 12
#: Separators that are tried, if windows with a part of one are repeated.
N_TRIES = 1000


def prepared(setting: Setting) -> Path:
    """A folder of the texts in one file, a separator after each, and the positions of each text in it."""
    folder = CACHE / f"passages-{inputs.file_digest(*setting.shards)[:16]}"
    if not (folder / "bounds.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        separators, bounds, n_bytes = Separators(), [], 0
        texts = [text.encode() for text in inputs.corpus(setting.shards)]
        with (folder / "texts").open("wb") as file:
            for text, following in zip(texts, [*texts[1:], b""], strict=True):
                bounds.append((n_bytes, n_bytes + len(text)))
                n_bytes += file.write(text + separators.between(text, following))
        np.save(folder / "bounds.npy", np.array(bounds))
    return folder


class Separators:
    """Different bytes between texts, so that no window of `LENGTH` bytes with some of them is repeated.

    They are bytes that are in no text. A window with a whole separator is repeated nowhere. One with a part
    of a separator is repeated if two texts end, or begin, with the same 89 to 99 bytes and the parts are
    equal. If the texts have more than these in common, this adds nothing to what is repeated. If they have
    not, another separator is taken.
    """

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._used: set[bytes] = set()
        self._last = b""
        #: Windows with a part of a separator, and the byte of the text beside them.
        self._beside: dict[bytes, bytes] = {}

    def between(self, text: bytes, following: bytes) -> bytes:
        for number in range(N_TRIES):
            separator = self._separator(text[-LENGTH:][:3], following[LENGTH - 3 : LENGTH], number)
            windows = dict(self._windows(text, separator, following))
            if separator not in self._used and all(map(self._adds_nothing, windows, windows.values())):
                break
        self._used.add(separator)
        self._beside |= windows
        self._last = separator
        return separator

    def _separator(self, start: bytes, end: bytes, number: int) -> bytes:
        """Random bytes, with first and last ones by which texts differ that end or begin almost equally."""
        drawn = self._random.choices(NO_UTF8, k=SEPARATOR - len(start) - len(end))
        first, last = ([NO_UTF8[(byte + number) % len(NO_UTF8)] for byte in of] for of in (start, end))
        return bytes([*first, *drawn, *last])

    def _adds_nothing(self, window: bytes, beside: bytes) -> bool:
        """Whether a window is new, or what it repeats of a text is repeated without the separator too."""
        return window not in self._beside or (beside != b"" and self._beside[window] == beside)

    def _windows(self, text: bytes, separator: bytes, following: bytes) -> Iterator[tuple[bytes, bytes]]:
        before = self._last + text
        for n in range(1, SEPARATOR):
            rest = LENGTH - n
            if len(before) >= rest:
                yield before[-rest:] + separator[:n], text[-rest - 1 : -rest]
            if len(following) >= rest:
                yield separator[-n:] + following[:rest], following[rest : rest + 1]


def joined(ranges: np.ndarray) -> np.ndarray:
    """Ranges in order, of which those that touch are one."""
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    if not len(ranges):
        return ranges
    ends = np.maximum.accumulate(ranges[:, 1])
    starts = np.concatenate([[True], ranges[1:, 0] > ends[:-1]])
    firsts = np.flatnonzero(starts)
    return np.stack([ranges[firsts, 0], ends[np.append(firsts[1:], len(ranges)) - 1]], axis=1)


def ours(folder: str, shards: list[str], output: str) -> Measured:
    """Measures the search from the shards, read twice, with every copy as in the peer."""
    from pile_tools import _core
    from pile_tools.types import PassageSearch

    shutil.rmtree(output, ignore_errors=True)
    Path(output).mkdir(parents=True)
    with Stopwatch() as clock:
        search = PassageSearch(
            length=LENGTH,
            every_copy=True,
            protected=[],
            protected_texts=[],
            memory=MEMORY,
            threads=1,
            folder=Path(output, "work"),
            job="benches",
            discard=True,
        )
        rows, _ = _core.find_passages(shards, search)
    # The peer's ranges are not trimmed to characters.
    starts = np.load(Path(folder, "bounds.npy"))[np.asarray(rows["document"]).astype(np.int64), 0]
    ranges = np.stack(
        [
            starts + (np.asarray(rows["start"]).astype(np.int64) - rows["trimmed_start"]),
            starts + (np.asarray(rows["end"]).astype(np.int64) + rows["trimmed_end"]),
        ],
        axis=1,
    )
    np.save(Path(output, "ranges.npy"), joined(ranges))
    return clock.measured(n_found=len(joined(ranges)), n_differing=0)


def our_job(shards: list[str], output: str) -> Measured:
    """Measures `pile-tools dedup passages`, which spares the first copy, trims, and writes the shards."""
    from pile_tools.jobs.dedup_passages import PassagesConfig, run

    def job(paths: list[Path], output: Path) -> Any:
        made, _ = run(paths, output, PassagesConfig(length=LENGTH), memory=MEMORY, threads=1)
        return made

    warm_up(job)
    shutil.rmtree(output, ignore_errors=True)
    with Stopwatch() as clock:
        made = job([Path(shard) for shard in shards], Path(output))
    return clock.measured(n_found=made.summary["n_passages"], n_differing=0)


def peer(folder: str, output: str, program: str, n_parts: int, expected: str) -> Measured:
    """Measures its commands for a suffix array, for the repeated windows and for their ranges."""
    shutil.rmtree(output, ignore_errors=True)
    work = Path(output)
    work.mkdir(parents=True)
    os.link(Path(folder, "texts"), work / "texts")
    texts, n_bytes = work / "texts", (work / "texts").stat().st_size

    def run(*arguments: object) -> str:
        command = [program, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=work).stdout

    with Stopwatch() as clock:
        if n_parts == 1:
            run("make", "--data-file", texts)
        else:
            _make_in_parts(run, texts, n_bytes, n_parts)
        limit = ("--length-threshold", LENGTH)
        run("self-similar", "--data-file", texts, *limit, "--cache-dir", work / "cache", "--num-threads", 1)
        said = run("collect", "--data-file", texts, "--cache-dir", work / "cache", *limit)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    lines = said.split("\nout\n")[1].split("\n")
    ranges = np.array([line.split() for line in lines if line], dtype=np.int64).reshape(-1, 2)
    ranges, n_crossing = _inside(ranges, np.load(Path(folder, "bounds.npy")))
    sets = [set(map(tuple, found.tolist())) for found in (joined(ranges), np.load(expected))]
    measured = clock.measured(n_found=len(sets[0]), n_crossing=n_crossing, n_differing=len(sets[0] ^ sets[1]))
    return measured | {"peak_mib": peak_mib}


def _make_in_parts(run: Callable[..., str], texts: Path, n_bytes: int, n_parts: int) -> None:
    """The steps of its script make_suffix_array.py, one after another."""
    size, parts = n_bytes // n_parts, []
    for number in range(n_parts):
        start = number * size
        end = n_bytes if number == n_parts - 1 else min(start + size + OVERLAP, n_bytes)
        run("make-part", "--data-file", texts, "--start-byte", start, "--end-byte", end)
        parts += ["--suffix-path", f"{texts}.part.{start}-{end}"]
    merged = texts.with_name("merged")
    run("merge", "--output-file", merged, *parts, "--num-threads", 1)
    with Path(f"{texts}.table.bin").open("wb") as file:
        for part in sorted(texts.parent.glob("merged.table.bin.*")):
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)


def _inside(ranges: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, int]:
    """The parts of ranges in texts, without separators; and how many ranges have bytes of one."""
    found, n_crossing = [], 0
    starts, ends = bounds[:, 0], bounds[:, 1]
    for start, end in ranges.tolist():
        document = int(np.searchsorted(ends, start, side="right"))
        is_whole = document < len(ends) and starts[document] <= start and end <= ends[document]
        n_crossing += not is_whole
        while document < len(ends) and starts[document] < end:
            part = (max(start, int(starts[document])), min(end, int(ends[document])))
            if part[0] < part[1]:
                found.append(part)
            document += 1
    return np.array(found, dtype=np.int64).reshape(-1, 2), n_crossing


def measure(setting: Setting) -> Result:
    folder, outputs = prepared(setting), CACHE / "passages-output"
    expected = outputs / "ours" / "ranges.npy"
    us = partial(in_process, ours, 1, folder=folder, shards=setting.shards, output=outputs / "ours")
    contenders = {
        peers.OURS: us,
        JOB: partial(in_process, our_job, 1, shards=setting.shards, output=outputs / "job"),
    }
    if setting.deduplicate_text:
        program = setting.deduplicate_text / "target" / "release" / "dedup_dataset"
        for name, n_parts in ((WHOLE, 1), (PARTS, N_PARTS)):
            contenders[name] = partial(
                in_process,
                peer,
                1,
                folder=folder,
                output=outputs / "peer",
                program=program,
                n_parts=n_parts,
                expected=expected,
            )
    n_bytes = int(np.diff(np.load(folder / "bounds.npy")).sum())
    return {"n_bytes": n_bytes, "rounds": take_turns(contenders, setting.rounds)}


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        row = speeds(name, result["n_bytes"], rounds)
        row += [f"{max(values(rounds, 'peak_mib')):,.0f}", f"{rounds[0]['n_found']:,}"]
        if "n_crossing" in rounds[0]:
            row += [f"{rounds[0]['n_differing']:,}", f"{rounds[0]['n_crossing']:,}"]
        rows.append(row)
    header = ["tool", "MB per CPU s", "CPU s", "s", "peak MiB", "ranges", "differ", "with separators"]
    left_out = (
        "" if WHOLE in result["rounds"] else " The peer has no package and no checkout was given: left out."
    )
    size = f"{result['n_bytes'] / 1e6:.1f} MB"
    return f"""All bytes of {size} of text that lie in a window of {LENGTH} bytes that occurs twice, with
every copy and not trimmed to characters, on one processor. pile-tools reads compressed shards twice, within
the default memory of 1 GiB; the whole job also spares the first copy, trims, and writes shards and a table.
The peer reads one file of texts with a separator after each, which takes no part of the time; its memory is
that of the largest of its commands. Its ranges are cut to texts before they are compared.{left_out}

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds, rivals = result["rounds"], (WHOLE, PARTS)
    present = [rounds[name] for name in rivals if name in rounds and not failure(rounds[name])]
    is_equal = bool(present) and all(map(is_right, present))
    peak = max(values(rounds[peers.OURS], "peak_mib"), default=float("inf"))
    least = min((min(values(found, "peak_mib")) for found in present), default=float("nan"))
    return [
        speed_up(
            f"{TITLE}, per CPU second, against deduplicate-text-datasets", TARGET, rounds, rivals, "cpu"
        ),
        Verdict(
            job=f"{TITLE}, peak memory against {NAME}",
            target="no more",
            found=f"{peak:,.0f} MiB, {least:,.0f} MiB",
            is_met=peak <= least,
        ),
        Verdict(
            job=f"{TITLE}, ranges",
            target="equal",
            found="equal" if is_equal else "some differ" if present else "no peer to compare with",
            is_met=is_equal,
        ),
    ]
