"""Ten thousand items of a benchmark searched for in shards, against a set of 13-grams in plain Python."""

from __future__ import annotations

import json
import random
import re
import shutil
import string
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from benches import inputs, peers
from benches.dedup_peers import warm_up
from benches.markdown import speeds, table
from benches.measure import CACHE, Measured, Stopwatch, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, speed_up

TITLE = "Contamination"
TARGET = 20.0
STRAIGHT_SET = "13-gram set, straightforward"
ASCII_SET, UNICODE_SET = "13-gram set, fastest", "13-gram set, fast, all punctuation"
PEERS = (STRAIGHT_SET, ASCII_SET, UNICODE_SET)
#: Words of an n-gram of the peers.
N = 13
#: Words of an item, about as many as in a question.
MIN_WORDS, MAX_WORDS = 16, 24
#: Columns of the lines of items that are wrapped again.
MIN_COLUMNS, MAX_COLUMNS = 20, 72

VERBATIM, CASE = "verbatim", "other case"
SPACES, HYPHENS, DIVIDED = (
    "re-wrapped, at spaces",
    "re-wrapped, a line ends at a hyphen",
    "re-wrapped, words divided",
)
TYPESET, LIGATURES, DECOMPOSED = "typeset dashes and quotes", "ligatures", "decomposed letters"
CHANGED, SHUFFLED = "every sixth word changed", "words of many documents"
#: The kinds of which pile-tools should find what the peers miss.
RE_WRAPPED = (SPACES, HYPHENS)
#: The kinds that no document has.
ABSENT = (CHANGED, SHUFFLED)

#: What is done to a passage of a document, or None if it cannot be done to this one.
Change = Callable[[str, random.Random], str | None]


def _wrapped(text: str, source: random.Random, *, at_hyphens: bool) -> str:
    width = source.randint(MIN_COLUMNS, MAX_COLUMNS)
    return textwrap.fill(text, width, break_on_hyphens=at_hyphens, break_long_words=False)


def _at_spaces(text: str, source: random.Random) -> str | None:
    wrapped = _wrapped(text, source, at_hyphens=False)
    return wrapped if wrapped != text else None


def _at_hyphens(text: str, source: random.Random) -> str | None:
    """As `textwrap` wraps by default, if a line then ends within a compound."""
    wrapped = _wrapped(text, source, at_hyphens=True)
    return wrapped if re.search(r"\w-\n\w", wrapped) else None


def _divided(text: str, source: random.Random) -> str | None:
    """In lines of five words, of which the last is divided if it has six letters."""
    words = text.split()
    for last in range(4, len(words), 5):
        if words[last].isalpha() and len(words[last]) >= 6:
            words[last] = f"{words[last][:3]}-\n{words[last][3:]}"
    divided = " ".join(words)
    return divided if divided.count("-\n") >= 2 else None


def _typeset(text: str, _: random.Random) -> str | None:
    changed = re.sub(r" --? ", "\u2014", text)
    changed = re.sub(r'"([^"]*)"', "\u201c\\1\u201d", changed).replace("'", "\u2019")
    return changed if "\u2014" in changed and changed != text else None


def _ligatures(text: str, _: random.Random) -> str | None:
    """As in text extracted from typeset pages."""
    changed = text.replace("fi", "\ufb01").replace("fl", "\ufb02").replace("ff", "\ufb00")
    return changed if changed != text else None


def _decomposed(text: str, _: random.Random) -> str | None:
    changed = unicodedata.normalize("NFD", text)
    return changed if changed != text else None


def _every_sixth(text: str, _: random.Random) -> str | None:
    """In ASCII, where all tools agree on what a word is."""
    numbers = count()
    changed = re.sub(
        r"[a-zA-Z0-9]+", lambda word: f"other{word.start()}" if next(numbers) % 6 == 3 else word[0], text
    )
    return changed if text.isascii() else None


#: The kinds that are made of one passage each.
CHANGES: dict[str, Change] = {
    VERBATIM: lambda text, _: text,
    CASE: lambda text, _: text.upper() if text.upper() != text else None,
    SPACES: _at_spaces,
    HYPHENS: _at_hyphens,
    DIVIDED: _divided,
    TYPESET: _typeset,
    LIGATURES: _ligatures,
    DECOMPOSED: _decomposed,
    CHANGED: _every_sixth,
}

#: Items of each kind.
N_OF_KIND = 1000
#: Passages tried for a kind, of which a corpus may have too few.
N_TRIES = 200_000
#: Characters of a text in which a passage must be.
MAX_CHARACTERS = 400


def _passages(texts: list[str], source: random.Random) -> Iterator[str]:
    """Different passages of whole words, of which `MIN_WORDS` or more have a letter or digit."""
    seen = set[str]()
    for _ in range(N_TRIES):
        text = source.choice(texts)
        start = source.randrange(len(text))
        # The first word may be the end of one, and the last one the start.
        words = list(re.finditer(r"\S+", text[start : start + MAX_CHARACTERS]))[1:-1]
        n = source.randint(MIN_WORDS, MAX_WORDS)
        if sum(any(map(str.isalnum, word[0])) for word in words[:n]) >= MIN_WORDS:
            passage = text[start + words[0].start() : start + words[:n][-1].end()]
            if passage not in seen:
                seen.add(passage)
                yield passage


def items(texts: list[str], n_of_kind: int) -> list[dict[str, str]]:
    """The items: `question` and `kind`, as many of each kind as asked for, or as were found."""
    source = random.Random(0)
    texts = [text for text in texts if len(text) > MAX_CHARACTERS]
    made = []
    for kind, change in CHANGES.items():
        changed = (change(passage, source) for passage in _passages(texts, source))
        questions = islice((question for question in changed if question is not None), n_of_kind)
        made += [{"question": question, "kind": kind} for question in questions]
    for _ in range(n_of_kind):
        passages = islice(_passages(texts, source), source.randint(MIN_WORDS, MAX_WORDS))
        words = [source.choice(passage.split()) for passage in passages]
        made.append({"question": " ".join(words), "kind": SHUFFLED})
    return made


def prepared(setting: Setting) -> Path:
    """The items of the shards, a file of JSON lines."""
    n_of_kind = 100 if setting.is_quick else N_OF_KIND
    path = CACHE / f"contamination-{inputs.file_digest(*setting.shards)[:16]}-{n_of_kind}.jsonl"
    if not path.exists():
        lines = [json.dumps(item) + "\n" for item in items(inputs.corpus(setting.shards), n_of_kind)]
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text("".join(lines))
        unfinished.rename(path)
    return path


def read(items: str | Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(items).read_text().splitlines()]


def ours(items: str, shards: list[str], output: str) -> Measured:
    """Measures the whole job: scores, tables of matches and items, checksums and manifest."""
    import pyarrow.parquet as pq

    from pile_tools.jobs.contamination import ContaminationConfig, Run, find_in_shards

    def job(paths: list[Path], output: Path) -> Any:
        return find_in_shards(Path(items), paths, output, ContaminationConfig(), Run(threads=1))

    warm_up(job)
    shutil.rmtree(output, ignore_errors=True)
    with Stopwatch() as clock:
        job([Path(shard) for shard in shards], Path(output))
    verdicts = pq.read_table(Path(output, "items.parquet"))["verdict"].to_pylist()
    by_verdict = {
        name: [number for number, verdict in enumerate(verdicts) if verdict == name]
        for name in ("contaminated", "too common")
    }
    return clock.measured(found=by_verdict["contaminated"], too_common=by_verdict["too common"])


#: The usual normalization: lower case, no punctuation, words between white space.
_TO_LOWER = bytes.maketrans(string.ascii_uppercase.encode(), string.ascii_lowercase.encode())
_ASCII_PUNCTUATION = string.punctuation.encode()
_STRAIGHTFORWARD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)
_NO_WORD = re.compile(r"[^\w\s]+|_+")
_UNICODE_PUNCTUATION = {
    code_point: None
    for code_point in range(0x11_0000)
    if unicodedata.category(chr(code_point)).startswith("P") or chr(code_point) in string.punctuation
}


def ascii_words(text: str) -> list[bytes]:
    """The same words as `straightforward_words`, in less time, but for white space beyond ASCII."""
    return text.encode().translate(_TO_LOWER, _ASCII_PUNCTUATION).split()


def unicode_words(text: str) -> list[str]:
    """Lower case and no punctuation of Unicode. For each kind of text the way that is faster."""
    if text.isascii():
        return text.lower().translate(_UNICODE_PUNCTUATION).split()
    return _NO_WORD.sub("", text.lower()).split()


def ngrams(words: list[Any]) -> Iterator[tuple[Any, ...]]:
    """The n-grams as tuples, which are hashed in less time than strings are joined."""
    return zip(*(islice(words, i, None) for i in range(N)), strict=False)


def joined_ngrams(words: list[str]) -> Iterator[str]:
    """The n-grams as most would write it."""
    return (" ".join(words[i : i + N]) for i in range(len(words) - N + 1))


def straightforward_words(text: str) -> list[str]:
    """Lower case and no punctuation, both of ASCII."""
    return text.translate(_STRAIGHTFORWARD).split()


def straightforward(items: str, shards: list[str]) -> Measured:
    """Measures a set of strings, with a loop over the n-grams of each text."""
    import orjson

    with Stopwatch() as clock:
        items_of: dict[str, list[int]] = {}
        for number, line in enumerate(Path(items).read_bytes().splitlines()):
            for ngram in joined_ngrams(straightforward_words(orjson.loads(line)["question"])):
                items_of.setdefault(ngram, []).append(number)
        found = set[int]()
        for shard in shards:
            with inputs.shard_lines(Path(shard)) as lines:
                for line in lines:
                    for ngram in joined_ngrams(straightforward_words(orjson.loads(line)["text"])):
                        if ngram in items_of:
                            found.update(items_of[ngram])
    return clock.measured(found=sorted(found))


def peer(items: str, shards: list[str], is_ascii: bool) -> Measured:
    """Measures the set from the items and the shards to the numbers of the items that share an n-gram."""
    import orjson

    words_of: Callable[[str], list[Any]] = ascii_words if is_ascii else unicode_words
    with Stopwatch() as clock:
        items_of: dict[tuple[Any, ...], list[int]] = {}
        for number, line in enumerate(Path(items).read_bytes().splitlines()):
            for ngram in ngrams(words_of(orjson.loads(line)["question"])):
                items_of.setdefault(ngram, []).append(number)
        expected_items, found = set(items_of), set[int]()
        for shard in shards:
            with inputs.shard_lines(Path(shard)) as lines:
                for line in lines:
                    text = orjson.loads(line)["text"]
                    # In C: no Python is run for an n-gram that no item has.
                    for ngram in expected_items.intersection(ngrams(words_of(text))):
                        found.update(items_of[ngram])
    return clock.measured(found=sorted(found))


def counted(rounds: list[Measured], kinds: list[str]) -> list[Measured]:
    """The rounds with the number of items of each kind instead of the items."""
    for measured in rounds:
        for key in {"found", "too_common"} & set(measured):
            of_items = [kinds[number] for number in measured[key]]
            measured[key] = {kind: of_items.count(kind) for kind in dict.fromkeys(kinds)}
    return rounds


def measure(setting: Setting) -> Result:
    items = prepared(setting)
    kinds = [item["kind"] for item in read(items)]
    files = {"items": items, "shards": setting.shards}
    rounds = take_turns(
        {
            peers.OURS: partial(in_process, ours, 1, output=CACHE / "contamination-output", **files),
            STRAIGHT_SET: partial(in_process, straightforward, 1, **files),
            ASCII_SET: partial(in_process, peer, 1, is_ascii=True, **files),
            UNICODE_SET: partial(in_process, peer, 1, is_ascii=False, **files),
        },
        setting.rounds,
    )
    # What none of the peers finds, and what we find of that.
    by_tool = {name: set(of_tool[0].get("found", ())) for name, of_tool in rounds.items()}
    all_peers = set[int]().union(*(by_tool[name] for name in PEERS))
    missed = {number for number, kind in enumerate(kinds) if kind in RE_WRAPPED} - all_peers
    return {
        "n_bytes": inputs.n_bytes(inputs.corpus(setting.shards)),
        "n_items": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "n_missed": len(missed),
        "n_missed_found": len(missed & by_tool[peers.OURS]),
        "rounds": {name: counted(of_tool, kinds) for name, of_tool in rounds.items()},
    }


def _speeds(result: Result) -> str:
    rows = []
    for name, rounds in result["rounds"].items():
        if why := failure(rounds):
            rows.append([name, why])
            continue
        rows.append([*speeds(name, result["n_bytes"], rounds), f"{max(values(rounds, 'peak_mib')):,.0f}"])
    return table(["tool", "MB per CPU s", "CPU s", "s", "peak MiB"], rows)


def _found(result: Result) -> str:
    rounds = {name: of_tool[0] for name, of_tool in result["rounds"].items() if not failure(of_tool)}
    rows = []
    for kind, n in result["n_items"].items():
        cells = [f"{measured['found'][kind]:,}" for measured in rounds.values()]
        common = [
            f"{measured['too_common'][kind]:,}" for measured in rounds.values() if "too_common" in measured
        ]
        rows.append([kind, f"{n:,}", *cells, *common])
    return table(["kind", "items", *rounds, "too common, says pile-tools"], rows)


def section(result: Result) -> str:
    n_items, size = sum(result["n_items"].values()), f"{result['n_bytes'] / 1e6:.1f} MB"
    return f"""{n_items:,} items of {MIN_WORDS} to {MAX_WORDS} words in {size} of text in shards, on one
processor. The peer is the usual set of {N}-grams in plain Python: lower case, no punctuation, words between
white space; zstandard and orjson read the shards. An item is found if a document has one of its {N}-grams.
The straightforward one joins the words of each n-gram and looks it up, with the punctuation of ASCII removed.
The fastest that was found has the same words as bytes, and n-grams as tuples,
which `set.intersection` compares without running Python. The third one is made likewise and removes all
punctuation of Unicode. pile-tools runs its whole job: n-grams of 8 words, scores by rarity, tables,
checksums and manifest.

{_speeds(result)}

Items found of each kind. They are passages of the shards, and what is named was done to them; no document
has those of the last two kinds. No tool joins words that were divided at the ends of lines: a set then finds
an item of which {N} words in a row are whole, and pile-tools one of which 0.8 of the weight is. The sets find
what is wrapped at spaces, and miss an item if each of its {N}-grams has a difference: a compound whose parts
the item has on two lines (without its hyphen it is one word, or two), a dash without spaces, a ligature, an
accent as a character of its own. pile-tools says of items that are in many documents that these are too
common to tell.

{_found(result)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds = result["rounds"]
    n_missed, n_found = result["n_missed"], result["n_missed_found"]
    ours = rounds[peers.OURS][0].get("found")
    n_false = None if ours is None else sum(ours[kind] for kind in ABSENT)
    return [
        *(
            speed_up(f"{TITLE}, per CPU second, against a {name}", TARGET, rounds, (name,), "cpu")
            for name in (STRAIGHT_SET, ASCII_SET)
        ),
        Verdict(
            job=f"{TITLE}, re-wrapped items that all sets miss",
            target="all found",
            found=f"{n_found:,} of {n_missed:,}",
            is_met=n_missed > 0 and n_found == n_missed,
        ),
        Verdict(
            job=f"{TITLE}, items found that no document has",
            target="none",
            found="we fail" if n_false is None else "none" if n_false == 0 else str(n_false),
            is_met=n_false == 0,
        ),
    ]
