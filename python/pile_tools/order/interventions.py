"""Interventions on an order, as views: nothing on disk changes, a run and its control differ by nothing else.

A view can be saved as an order of its own, an `order.json` that names the order beneath, so that a run on it
is recorded like any other.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import manifest, publish
from pile_tools._core import Tokenizer
from pile_tools.checked import Values
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError
from pile_tools.manifest import Manifest, Request
from pile_tools.order.order import ORDER_FILE, Order, Samples
from pile_tools.publish import Built, Target
from pile_tools.tokens.blends import documents_of
from pile_tools.types import Tokens

#: The table of a saved view, beside its `order.json`.
VIEW_FILE = "view.json"


@dataclass(frozen=True)
class Insert:
    """Tokens to write over a row of a step, from an offset on."""

    step: int
    row: int
    offset: int
    tokens: tuple[int, ...]


class _View(ABC):
    """Samples that are others', changed on the way."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once."""
        return self._samples.seq_length

    @property
    def sample_length(self) -> int:
        """Tokens of a sample."""
        return self._samples.sample_length

    @property
    def dataset(self) -> Any:
        """The documents beneath, unchanged."""
        return documents_of(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, sample: int) -> Tokens:
        place = sample + len(self) if sample < 0 else sample
        if not 0 <= place < len(self):
            raise IndexError(f"{sample} is out of range for {len(self)}")
        row: Tokens = self.samples(place, 1)[0]
        return row

    def samples(self, first: int, n: int) -> Tokens:
        """`n` samples from place `first`, changed."""
        tokens = self._samples.samples(first, n)
        return self._changed(tokens, np.arange(first, first + n))

    def take(self, places: NDArray[np.int64]) -> Tokens:
        """Samples at any places, changed."""
        places = np.where(places < 0, places + len(self), places)
        return self._changed(self._samples.take(places), places)

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """What stands there beneath."""
        return self._samples.spans(first, n)

    @abstractmethod
    def _changed(self, tokens: Tokens, places: NDArray[np.int64]) -> Tokens:
        """The samples at `places`, which hold `tokens` beneath."""


class ReplacedTokens(_View):
    """Samples with some words replaced from one place of the order to another; see `replace_tokens`."""

    def __init__(
        self, samples: Samples, table: Mapping[int, int], places: tuple[int, int], tokenizer: Tokenizer
    ) -> None:
        super().__init__(samples)
        self._table, self._places, self._tokenizer = dict(table), places, tokenizer
        size = max(tokenizer.vocab_size, *table, *table.values()) + 1
        self._to = np.arange(size)
        self._to[list(table)] = list(table.values())
        starts, ends = _word_characters(tokenizer, size)
        self._starts_in_word, self._ends_in_word = starts, ends

    def __reduce__(self) -> tuple[Any, ...]:
        return ReplacedTokens, (self._samples, self._table, self._places, self._tokenizer)

    def _changed(self, tokens: Tokens, places: NDArray[np.int64]) -> Tokens:
        rows = np.flatnonzero((places >= self._places[0]) & (places < self._places[1]))
        for row in rows.tolist():
            tokens[row] = self._replaced(tokens[row], int(places[row]))
        return tokens

    def _replaced(self, row: Tokens, place: int) -> Tokens:
        """A row with its words replaced; runs of documents are judged each by themselves."""
        known = np.clip(row, 0, len(self._to) - 1)
        new = self._to[known]
        if np.array_equal(new, known):
            return row
        # Whether a word goes on from each token to the next.
        goes_on = np.zeros(len(row) + 1, bool)
        goes_on[1:-1] = self._ends_in_word[known[:-1]] & self._starts_in_word[known[1:]]
        at = 0
        dataset = self.dataset
        for _, document, start, length in self._samples.spans(place, 1).tolist():
            first, end = at, at + length
            goes_on[first] = goes_on[end] = False
            if document >= 0 and (start > 0 or end == len(row)):
                # What stands before and after the row in the document decides about its first and last words.
                whole = np.clip(dataset[document], 0, len(self._to) - 1)
                if start > 0:
                    goes_on[first] = self._joins(int(whole[start - 1]), int(known[first]))
                if start + length < len(whole):
                    goes_on[end] = self._joins(int(known[end - 1]), int(whole[start + length]))
            at = end
        is_word = ~goes_on[:-1] & ~goes_on[1:]
        at = is_word & (new != known)
        row[at] = new[at]
        return row

    def _joins(self, before: int, after: int) -> bool:
        return bool(self._ends_in_word[before] and self._starts_in_word[after])


def _word_characters(tokenizer: Tokenizer, size: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each token's text begins, and ends, with a letter, digit, `_`, or half a character."""
    starts, ends = np.zeros(size, bool), np.zeros(size, bool)
    for id in range(min(size, tokenizer.vocab_size)):
        text = tokenizer.decode([id], skip_special_tokens=False)
        if text:
            starts[id], ends[id] = _is_in_word(text[0]), _is_in_word(text[-1])
    return starts, ends


def _is_in_word(character: str) -> bool:
    return character.isalnum() or character in "_\ufffd"


class InsertedTokens(_View):
    """Samples with token sequences written over given places; see `insert_tokens`."""

    def __init__(
        self, samples: Samples, inserts: Mapping[int, Sequence[tuple[int, tuple[int, ...]]]]
    ) -> None:
        super().__init__(samples)
        self._inserts = {place: list(there) for place, there in inserts.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return InsertedTokens, (self._samples, self._inserts)

    def _changed(self, tokens: Tokens, places: NDArray[np.int64]) -> Tokens:
        for row, place in enumerate(places.tolist()):
            for offset, new in self._inserts.get(place, ()):
                tokens[row, offset : offset + len(new)] = new
        return tokens


def replace_tokens(
    order: Order, table: Mapping[str, str], *, steps: tuple[int, int], tokenizer: Tokenizer | None = None
) -> Order:
    """The order with words replaced in steps [first, end), every other token and position the same.

    Each word of `table`, and its replacement, must be one token, with the space before it if it has one:
    `{" he": " she"}`. It is replaced where it is a word of its own, no letter or digit of the same document
    right before or after it. Rows without known documents are judged by what the row itself shows.

    Raises:
        ConfigError: A word is not one token, no tokenizer is known, or the steps are out of range.
    """
    tokenizer = tokenizer or order.tokenizer()
    ids = {}
    for word, other in table.items():
        one, two = (tokenizer.encode(text).tolist() for text in (word, other))
        if len(one) != 1 or len(two) != 1:
            wrong = word if len(one) != 1 else other
            raise ConfigError(
                f"{wrong!r} is not one token, so positions would move; replace one token by one"
            )
        ids[one[0]] = two[0]
    if not ids:
        raise ConfigError("no words to replace")
    first, _ = order.first_sample(steps[0])
    last, size = order.first_sample(steps[1] - 1)
    if steps[0] >= steps[1]:
        raise ConfigError(f"no steps from {steps[0]} to {steps[1]}")
    samples = ReplacedTokens(order.samples, ids, (first, last + size), tokenizer)
    view = {"kind": "tokens", "table": dict(table), "steps": list(steps), "batch_size": size}
    return _as_view(order, samples, view)


def insert_tokens(order: Order, table: Sequence[Insert]) -> Order:
    """The order with each `Insert`'s tokens written over its row; nothing moves, everything else is the same.

    A token that a sample shares with another one is changed in the row that is named alone.

    Raises:
        ConfigError: A place outside the order, tokens beyond the row's end, or two inserts over one token.
    """
    inserts: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    limit = np.iinfo(order.dataset.dtype).max
    for insert in sorted(table, key=lambda i: (i.step, i.row, i.offset)):
        first, size = order.first_sample(insert.step)
        if not 0 <= insert.row < size:
            raise ConfigError(f"no row {insert.row}: the batch has {size}, from 0")
        end = insert.offset + len(insert.tokens)
        if insert.offset < 0 or end > order.samples.sample_length or not insert.tokens:
            raise ConfigError(
                f"{len(insert.tokens)} tokens from {insert.offset} do not fit a row of "
                f"{order.samples.sample_length} (step {insert.step}, row {insert.row})"
            )
        if not all(0 <= token <= limit for token in insert.tokens):
            raise ConfigError(f"tokens must be within 0 and {limit} (step {insert.step}, row {insert.row})")
        there = inserts[first + insert.row]
        if there and there[-1][0] + len(there[-1][1]) > insert.offset:
            raise ConfigError(f"two inserts over one token (step {insert.step}, row {insert.row})")
        there.append((insert.offset, tuple(insert.tokens)))
    samples = InsertedTokens(order.samples, inserts)
    view = {
        "kind": "inserts",
        "table": [dataclasses.asdict(i) for i in table],
        "batch_size": order.batch_size,
    }
    return _as_view(order, samples, view)


def overwritten(order: Order, table: Sequence[Insert]) -> list[dict[str, Any]]:
    """What `table` writes over in `order`: each insert with the tokens that stood there."""
    log = []
    for insert in table:
        row = order.samples[order.first_sample(insert.step)[0] + insert.row]
        old = row[insert.offset : insert.offset + len(insert.tokens)].tolist()
        log.append({**dataclasses.asdict(insert), "overwritten": old})
    return log


@dataclass(frozen=True)
class ViewOrder(Order):
    """An order that is a view of another, until it is saved known to this process alone."""

    beneath: Order | None = None
    view: dict[str, Any] = dataclasses.field(default_factory=dict)


def _as_view(order: Order, samples: Samples, view: dict[str, Any]) -> ViewOrder:
    values = {f.name: getattr(order, f.name) for f in dataclasses.fields(Order)}
    # The manifest beneath does not tell of the view, so it must not stand for it.
    return ViewOrder(**{**values, "samples": samples, "manifest": None}, beneath=order, view=view)


def save_view(order: Order, folder: Path, *, force: bool = False) -> Manifest:
    """Records a view as an order of its own in `folder`: `order.json`, and `view.json` with its table.

    Views upon views are recorded together, in their order. The log of overwritten tokens is in `view.json`
    too. The order beneath must be on disk.

    Raises:
        ConfigError: Not a view, saved already, or the order beneath has no manifest.
        OutputExistsError: Another order lies there and `force` is off.
    """
    views: list[dict[str, Any]] = []
    beneath = order
    while isinstance(beneath, ViewOrder) and beneath.manifest is None and beneath.beneath is not None:
        views.insert(0, _with_log(beneath.view, beneath.beneath))
        beneath = beneath.beneath
    if not views or beneath.manifest is None:
        raise ConfigError(f"only a new view of an order with a manifest can be saved ({order.path})")
    settings = {
        "rule": "view",
        "kind": ", ".join(view["kind"] for view in views),
        "seq_length": order.seq_length,
        "batch_size": order.batch_size,
        "steps": order.steps,
        "seed": order.seed,
        "view": fingerprint({"views": views}),
    }
    request = Request("order", settings, [manifest.file_entry(beneath.path, folder, role="order")])

    def build(partial: Path) -> Built:
        text = json.dumps({"views": views}, indent=1, ensure_ascii=False)
        (partial / VIEW_FILE).write_text(text + "\n", encoding="utf-8")
        return Built([VIEW_FILE], {"n_samples": len(order.samples)}, request.inputs)

    return publish.make(Target.of(folder / ORDER_FILE), request, build, force=force, names=[VIEW_FILE])[0]


def _with_log(view: dict[str, Any], beneath: Order) -> dict[str, Any]:
    """A view as it is recorded: inserts with the tokens that they write over."""
    if view["kind"] != "inserts":
        return view
    table = [Insert(**entry) for entry in view["table"]]
    return {**view, "table": overwritten(beneath, table)}


def applied(order: Order, view: Values) -> Order:
    """An order with a view from a file applied to it."""
    kind = view.text("kind", ("tokens", "inserts"))
    size = view.optional_count("batch_size")
    order = order if size is None else order.rebatch(batch_size=size)
    if kind == "inserts":
        view.require_keys(("kind", "table", "batch_size"))
        return insert_tokens(order, [_insert(entry) for entry in view.objects("table")])
    view.require_keys(("kind", "table", "steps", "batch_size"))
    table, steps = view.object("table"), view.integers("steps")
    if len(steps) != 2:
        raise view.refuse("steps", "the first step and the end")
    words = {word: table.text(word) for word in table.values}
    return replace_tokens(order, words, steps=(steps[0], steps[1]))


def _insert(entry: Values) -> Insert:
    entry.require_keys(("step", "row", "offset", "tokens"), ("overwritten",))
    step, row, offset = (entry.integer(key) for key in ("step", "row", "offset"))
    return Insert(step, row, offset, tuple(entry.integers("tokens")))
