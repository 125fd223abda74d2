"""Pythia's arithmetic counting rule over rows of tokens, against Python's re over decoded rows."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string
from collections import Counter
from functools import partial
from pathlib import Path

from benches import peers
from benches.markdown import speeds, table
from benches.measure import Measured, Stopwatch, failure, in_process, take_turns
from benches.setting import Result, Setting
from benches.verdict import Verdict, is_right, speed_up
from benches.when import prepared

TITLE = "Pythia's arithmetic counting rule"
TARGET = 20.0
PEER = "tokenizers, re"
#: Rows to count, in a full and in a quick run.
N_ROWS, N_QUICK = 1024, 64

_TIME = "minute|hour|day|week|month|year|decade"
_PUNCT = re.escape(string.punctuation)
#: The expressions of the original, unchanged.
_NUMBERS = re.compile(rf"(?=( (\d){{1,5}} ((\w|[{_PUNCT}])+\s+){{1,3}}(\d){{1,5}}))")
_UNITS = (
    re.compile(rf"(?=( (\d){{1,5}} ((\w|[{_PUNCT}])+\s+){{0,3}}?({_TIME})))"),
    re.compile(rf"(?=( ({_TIME}) ((\w|[{_PUNCT}])+\s+){{0,3}}?(\d){{1,5}}))"),
)


def _digest(counts: dict[str, int]) -> str:
    return hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()


def _count(row: str, counts: Counter[str]) -> None:
    line = " " + row
    for match in _NUMBERS.finditer(line):
        numbers = sorted(int(n) for n in re.findall(r"\d{1,5}", match.group(1)))
        counts.update(map(str, numbers))
        counts.update(f"{a}-{b}" for a, b in itertools.combinations(numbers, 2))
    for pattern in _UNITS:
        for match in pattern.finditer(line):
            numbers = sorted(int(n) for n in re.findall(r"\d{1,5}", match.group(1)))
            units = re.findall(_TIME, match.group(1))
            counts.update(f"{n}-{unit}" for n in numbers for unit in units)


def ours(folder: str, tokenizer: str, n_rows: int, expected: str | None) -> Measured:
    import pile_tools
    from pile_tools import timeline

    order, decoder = pile_tools.open_order(folder), pile_tools.Tokenizer.from_file(tokenizer)
    with Stopwatch() as clock:
        counted = timeline.count_arithmetic(order, [n_rows], tokenizer=decoder, batch_size=1, threads=1)[0]
    found = _digest(counted)
    return clock.measured(n_found=sum(counted.values()), n_differing=0 if expected in (None, found) else 1)


def by_re(folder: str, tokenizer: str, n_rows: int) -> Measured:
    import tokenizers

    import pile_tools

    order, decoder = pile_tools.open_order(folder), tokenizers.Tokenizer.from_file(tokenizer)
    rows = [order.samples[i].tolist() for i in range(n_rows)]
    counts: Counter[str] = Counter()
    with Stopwatch() as clock:
        texts = decoder.decode_batch(rows, skip_special_tokens=False)
        for text in texts:
            _count(text, counts)
    n_bytes = sum(len(text.encode()) for text in texts)
    return clock.measured(
        n_found=counts.total(), n_differing=0, digest=_digest(dict(counts)), n_bytes=n_bytes
    )


def measure(setting: Setting) -> Result:
    folder: Path = prepared(setting)
    n_rows = N_QUICK if setting.is_quick else N_ROWS
    files = {"folder": folder, "tokenizer": setting.tokenizer, "n_rows": n_rows}
    reference = in_process(by_re, 1, **files)
    contenders = {
        peers.OURS: partial(in_process, ours, 1, expected=reference.get("digest"), **files),
        PEER: partial(in_process, by_re, 1, **files),
    }
    rounds = take_turns(contenders, setting.rounds)
    return {"n_rows": n_rows, "n_bytes": reference.get("n_bytes", 0), "rounds": rounds}


def section(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        row = speeds(name, result["n_bytes"], rounds)
        rows.append([*row, f"{rounds[0]['n_found']:,}", "yes" if is_right(rounds) else "**no**"])
    header = ["tool", "MB of text per CPU s", "CPU s", "s", "counted", "equal"]
    size = f"{result['n_rows']:,} rows of 2,049 tokens, {result['n_bytes'] / 1e6:.1f} MB"
    return f"""{size} of text in the order of training, decoding included; one thread. The peer decodes
with `tokenizers` and matches the original's regular expressions.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [speed_up(f"{TITLE}, per CPU second, against {PEER}", TARGET, result["rounds"], (PEER,), "cpu")]
