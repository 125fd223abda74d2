"""The items of a benchmark, and what is said of them from their matches in a corpus."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import checked
from pile_tools.checked import Values
from pile_tools.errors import ConfigError, FormatError
from pile_tools.read.texts import encoded, read_lines
from pile_tools.types import PartTotals

#: The parts of an item, by the core's numbers.
PASSAGE, QUESTION, ANSWER, CHOICE = ROLES = range(4)

#: How a part occurs, by the core's numbers, the surest first.
KINDS = ("verbatim", "normalized", "partial")

#: The verdicts on an item.
CONTAMINATED, CLEAN, TOO_COMMON, TOO_SHORT = VERDICTS = ("contaminated", "clean", "too common", "too short")

_TEXTS = {"passage": PASSAGE, "question": QUESTION, "answer": ANSWER}

#: What an item is read from.
_KEYS = (*_TEXTS, "id", "choices")

#: Bytes of a file in which its first line is looked for.
_HEAD_BYTES = 1 << 20

_BLANK = re.compile(rb"[ \t]*")


@dataclass(frozen=True)
class Item:
    """An item of a benchmark.

    Attributes:
        line: Its line in the file, from 1.
        id: Its `id` as text, or None.
        passage, question, answer: Its texts, None where it has none.
        choices: The choices, in order.
    """

    line: int
    id: str | None = None
    passage: str | None = None
    question: str | None = None
    answer: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A text of an item.

    Attributes:
        item: Index of the item.
        role: PASSAGE, QUESTION, ANSWER or CHOICE.
        name: `passage`, `question`, `answer`, or `choice N` counted from 0.
        text: The text.
    """

    item: int
    role: int
    name: str
    text: str


@dataclass(frozen=True)
class Benchmark:
    """The items of a file.

    Attributes:
        items: The items, in order.
        parts: Their texts, by item.
    """

    items: list[Item]
    parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        parts = []
        for number, item in enumerate(self.items):
            for name, role in _TEXTS.items():
                if (text := getattr(item, name)) is not None:
                    parts.append(Part(number, role, name, text))
            parts += [Part(number, CHOICE, f"choice {i}", text) for i, text in enumerate(item.choices)]
        object.__setattr__(self, "parts", parts)


def read_items(path: Path) -> Benchmark:
    """The items of a file: a JSON object on each line, blank lines aside.

    An object has a `passage`, a `question` or both, and may have an `id` (text or a whole number), an
    `answer` and `choices` (a list of texts). A null is a missing key. Other keys are ignored.

    Raises:
        FormatError: A line, named with its number, is no such object, or there are no items.
        PileError: The file is not UTF-8, or too large.
        OSError: The file cannot be read.
    """
    lines = enumerate(read_lines(path), 1)
    items = [_item(line, number, path) for number, line in lines if not _BLANK.fullmatch(line)]
    if not items:
        raise FormatError(f"holds no items: expected a JSON object on each line ({path})")
    return Benchmark(items)


def _item(line: bytes, number: int, path: Path) -> Item:
    where = f"{path}, line {number}"
    values = checked.parse_keys(line, where, _KEYS, "an item of a benchmark")
    texts = {name: values.optional(name, values.text) for name in _TEXTS}
    if texts["passage"] is None and texts["question"] is None:
        raise FormatError(f"an item needs a passage or a question ({where})")
    return Item(
        line=number,
        id=values.optional("id", lambda key: _id(values, key)),
        choices=tuple(values.optional("choices", values.texts) or ()),
        **texts,
    )


def _id(values: Values, key: str) -> str:
    value = values.values[key]
    if isinstance(value, str):
        return values.text(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise values.refuse(key, "text or a whole number")
    return str(value)


def verdicts(benchmark: Benchmark, totals: PartTotals) -> list[str]:
    """The verdict on each item, by its passage and its question.

    An answer or a choice alone contaminates no item: it may be a fact that many documents state. An item is
    clean only if both its passage and its question are long and rare enough and neither is in a document.
    """
    found: list[set[str]] = [set() for _ in benchmark.items]
    for number, part in enumerate(benchmark.parts):
        if part.role in (PASSAGE, QUESTION):
            found[part.item].add(_verdict(totals, number))
    order = (CONTAMINATED, TOO_SHORT, TOO_COMMON, CLEAN)
    return [next(verdict for verdict in order if verdict in of_item) for of_item in found]


def _verdict(totals: PartTotals, part: int) -> str:
    if totals["n_documents"][part]:
        return CONTAMINATED
    if not totals["n_grams"][part]:
        return TOO_SHORT
    return CLEAN if totals["is_telling"][part] else TOO_COMMON


def starts_with_item(path: Path, text_field: str) -> bool:
    """Whether a file starts with an item of a benchmark and not with a record of a shard.

    Args:
        path: The file.
        text_field: The key of a record that holds its text.
    """
    try:
        with checked.open_regular(path) as file:
            head = file.read(_HEAD_BYTES).lstrip()
        values = checked.parse_keys(head.split(b"\n", 1)[0], path, (*_KEYS, text_field)).values
    except (OSError, FormatError):
        return False
    return text_field not in values and any(isinstance(values.get(key), str) for key in _TEXTS)


def task_name(path: Path, given: str | None) -> str:
    """The name of the task in `clean.json`: `given`, or that of the file without its suffix.

    Bytes of a file's name that are not UTF-8 become U+FFFD. Raises ConfigError for a name that is empty or
    not valid Unicode.
    """
    if given is not None:
        encoded(given)
        name = given
    else:
        name = os.fsencode(path.name).decode(errors="replace")
        name = re.sub(r"\.(jsonl|ndjson|json)\Z", "", name)
    if not name:
        raise ConfigError(f"the task has no name; give one ({path})")
    return name


def clean_items(benchmark: Benchmark, verdicts: Sequence[str]) -> list[int]:
    """The indices of the clean items, as an evaluation harness takes them to run on these samples alone."""
    return [index for index in range(len(benchmark.items)) if verdicts[index] == CLEAN]
