"""Interventions on an order: tokens replaced or inserted as samples are read, with nothing changed on disk.

A run on an order with interventions and a run on its base differ in nothing else. Interventions can be saved:
an `order.json` names the base order and is itself an order, so that a run on it is recorded like any other.
The files call an intervention a view.
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
from pile_tools.manifest import ORDER_FILE, Manifest, Request
from pile_tools.order.order import Order, Samples
from pile_tools.publish import Built, Target
from pile_tools.tokens.blends import documents_of
from pile_tools.types import Tokens

#: The file of the saved interventions, beside their `order.json`.
VIEW_FILE = "view.json"


@dataclass(frozen=True)
class Insert:
    """Tokens to write over a row of a step, starting at an offset."""

    step: int
    row: int
    offset: int
    tokens: tuple[int, ...]


class _ChangedSamples(ABC):
    """Samples of a base order, changed when they are read."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    @property
    def seq_length(self) -> int:
        """Tokens that the model sees at once."""
        return self._samples.seq_length

    @property
    def sample_length(self) -> int:
        """Tokens of a sample."""
        return self._samples.sample_length

    @property
    def dataset(self) -> Any:
        """The documents of the base order, unchanged."""
        return documents_of(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, sample: int) -> Tokens:
        index = sample + len(self) if sample < 0 else sample
        if not 0 <= index < len(self):
            raise IndexError(f"{sample} is out of range for {len(self)}")
        row: Tokens = self.samples(index, 1)[0]
        return row

    def samples(self, first: int, n: int) -> Tokens:
        """The changed samples [first, first + n): (n, sample_length)."""
        tokens = self._samples.samples(first, n)
        return self._changed(tokens, np.arange(first, first + n))

    def take(self, indices: NDArray[np.int64], /) -> Tokens:
        """The changed samples at these indices: (n,) int64 -> (n, sample_length)."""
        indices = np.where(indices < 0, indices + len(self), indices)
        return self._changed(self._samples.take(indices), indices)

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """The runs of documents in the samples [first, first + n) of the base order."""
        return self._samples.spans(first, n)

    @abstractmethod
    def _changed(self, tokens: Tokens, indices: NDArray[np.int64]) -> Tokens:
        """The changed samples at `indices`, which are `tokens` in the base order."""


class ReplacedTokens(_ChangedSamples):
    """Samples with words replaced in the range [first, end) of their indices; see `replace_tokens`."""

    def __init__(
        self, samples: Samples, table: Mapping[int, int], indices: tuple[int, int], tokenizer: Tokenizer
    ) -> None:
        super().__init__(samples)
        self._table, self._indices, self._tokenizer = dict(table), indices, tokenizer
        size = max(tokenizer.vocab_size, *table, *table.values()) + 1
        self._replacement = np.arange(size)
        self._replacement[list(table)] = list(table.values())
        starts, ends = _word_characters(tokenizer, size)
        self._starts_in_word, self._ends_in_word = starts, ends

    def __reduce__(self) -> tuple[Any, ...]:
        return ReplacedTokens, (self._samples, self._table, self._indices, self._tokenizer)

    def _changed(self, tokens: Tokens, indices: NDArray[np.int64]) -> Tokens:
        first, end = self._indices
        for row in np.flatnonzero((indices >= first) & (indices < end)).tolist():
            tokens[row] = self._replaced(tokens[row], int(indices[row]))
        return tokens

    def _replaced(self, row: Tokens, index: int) -> Tokens:
        """The row of sample `index` with its words replaced; a word never crosses two runs of documents."""
        known = np.clip(row, 0, len(self._replacement) - 1)
        new = self._replacement[known]
        if np.array_equal(new, known):
            return row
        # joins[i]: token i continues the word of the token before it.
        joins = np.zeros(len(row) + 1, bool)
        joins[1:-1] = self._ends_in_word[known[:-1]] & self._starts_in_word[known[1:]]
        offset = 0
        dataset = self.dataset
        for _, document, start, length in self._samples.spans(index, 1).tolist():
            first, end = offset, offset + length
            joins[first] = joins[end] = False
            if document >= 0 and (start > 0 or end == len(row)):
                # The row's first and last words may continue in the document's tokens outside the row.
                whole = np.clip(dataset[document], 0, len(self._replacement) - 1)
                if start > 0:
                    joins[first] = self._joins(int(whole[start - 1]), int(known[first]))
                if start + length < len(whole):
                    joins[end] = self._joins(int(known[end - 1]), int(whole[start + length]))
            offset = end
        is_word = ~joins[:-1] & ~joins[1:]
        is_replaced = is_word & (new != known)
        row[is_replaced] = new[is_replaced]
        return row

    def _joins(self, before: int, after: int) -> bool:
        return bool(self._ends_in_word[before] and self._starts_in_word[after])


def _word_characters(tokenizer: Tokenizer, size: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the text of each id starts, and ends, with a letter, a digit, `_` or a partial character."""
    starts, ends = np.zeros(size, bool), np.zeros(size, bool)
    for id in range(min(size, tokenizer.vocab_size)):
        text = tokenizer.decode([id], skip_special_tokens=False)
        if text:
            starts[id], ends[id] = _is_in_word(text[0]), _is_in_word(text[-1])
    return starts, ends


def _is_in_word(character: str) -> bool:
    return character.isalnum() or character in "_\ufffd"


class InsertedTokens(_ChangedSamples):
    """Samples with token sequences written over their tokens; see `insert_tokens`."""

    def __init__(
        self, samples: Samples, inserts: Mapping[int, Sequence[tuple[int, tuple[int, ...]]]]
    ) -> None:
        super().__init__(samples)
        self._inserts = {index: list(of_sample) for index, of_sample in inserts.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return InsertedTokens, (self._samples, self._inserts)

    def _changed(self, tokens: Tokens, indices: NDArray[np.int64]) -> Tokens:
        for row, index in enumerate(indices.tolist()):
            for offset, new in self._inserts.get(index, ()):
                tokens[row, offset : offset + len(new)] = new
        return tokens


def replace_tokens(
    order: Order, table: Mapping[str, str], *, steps: tuple[int, int], tokenizer: Tokenizer | None = None
) -> Order:
    """The order with words replaced in some steps; every other token and every position stays the same.

    Args:
        order: The base order.
        table: Replacements by word. Word and replacement must each be one token, including the space before
            them: `{" he": " she"}`. A word is replaced where no letter or digit of the same document directly
            precedes or follows it. In rows whose documents are unknown, only the row itself decides.
        steps: The first step and the end, exclusive.
        tokenizer: By default the tokenizer that the dataset's manifest names.

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
                f"{wrong!r} is not one token, so later tokens would shift; replace one token by one"
            )
        ids[one[0]] = two[0]
    if not ids:
        raise ConfigError("no words to replace")
    first, _ = order.first_sample(steps[0])
    last, size = order.first_sample(steps[1] - 1)
    if steps[0] >= steps[1]:
        raise ConfigError(f"no steps from {steps[0]} to {steps[1]}")
    samples = ReplacedTokens(order.samples, ids, (first, last + size), tokenizer)
    intervention = {"kind": "tokens", "table": dict(table), "steps": list(steps), "batch_size": size}
    return _with_intervention(order, samples, intervention)


def insert_tokens(order: Order, table: Sequence[Insert]) -> Order:
    """The order with the tokens of each `Insert` written over its row; every other token stays the same.

    A token that two samples share changes only in the row that the `Insert` names.

    Raises:
        ConfigError: A step, row or offset is out of range, a row is too short for the tokens, a token cannot
            be stored, or two inserts overlap.
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
        of_sample = inserts[first + insert.row]
        if of_sample and of_sample[-1][0] + len(of_sample[-1][1]) > insert.offset:
            raise ConfigError(f"two inserts over one token (step {insert.step}, row {insert.row})")
        of_sample.append((insert.offset, tuple(insert.tokens)))
    samples = InsertedTokens(order.samples, inserts)
    intervention = {
        "kind": "inserts",
        "table": [dataclasses.asdict(i) for i in table],
        "batch_size": order.batch_size,
    }
    return _with_intervention(order, samples, intervention)


def overwritten(order: Order, table: Sequence[Insert]) -> list[dict[str, Any]]:
    """Each `Insert` as a dict, with the tokens of `order` that it replaces under `overwritten`."""
    log = []
    for insert in table:
        row = order.samples[order.first_sample(insert.step)[0] + insert.row]
        old = row[insert.offset : insert.offset + len(insert.tokens)].tolist()
        log.append({**dataclasses.asdict(insert), "overwritten": old})
    return log


@dataclass(frozen=True)
class OrderWithIntervention(Order):
    """An order with an intervention on a base order; it exists in this process only until it is saved."""

    base: Order | None = None
    intervention: dict[str, Any] = dataclasses.field(default_factory=dict)


def _with_intervention(order: Order, samples: Samples, intervention: dict[str, Any]) -> OrderWithIntervention:
    values = {f.name: getattr(order, f.name) for f in dataclasses.fields(Order)}
    # The base's manifest does not describe the changed samples, so no run may be recorded with it.
    values |= {"samples": samples, "manifest": None}
    return OrderWithIntervention(**values, base=order, intervention=intervention)


def save_interventions(order: Order, folder: Path, *, force: bool = False) -> Manifest:
    """Saves the unsaved interventions of an order as the order `folder/order.json`; returns its manifest.

    All interventions since the last saved order are recorded together in `view.json`, the first one first,
    with a log of the tokens that they overwrite. The base order must be on disk with a manifest.

    Raises:
        ConfigError: The order has no unsaved intervention, or its base has no manifest.
        OutputExistsError: `folder` holds another order and `force` is off.
        OSError: A file cannot be read or written.
    """
    interventions: list[dict[str, Any]] = []
    base = order
    while isinstance(base, OrderWithIntervention) and base.manifest is None and base.base is not None:
        interventions.insert(0, _with_log(base.intervention, base.base))
        base = base.base
    if not interventions or base.manifest is None:
        raise ConfigError(f"only new interventions on an order with a manifest can be saved ({order.path})")
    settings = {
        "rule": "view",
        "kind": ", ".join(intervention["kind"] for intervention in interventions),
        "seq_length": order.seq_length,
        "batch_size": order.batch_size,
        "steps": order.steps,
        "seed": order.seed,
        "view": fingerprint({"views": interventions}),
    }
    request = Request("order", settings, [manifest.file_entry(base.path, folder, role="order")])

    def build(partial: Path) -> Built:
        text = json.dumps({"views": interventions}, indent=1, ensure_ascii=False)
        (partial / VIEW_FILE).write_text(text + "\n", encoding="utf-8")
        return Built([VIEW_FILE], {"n_samples": len(order.samples)}, request.inputs)

    return publish.make(Target.of(folder / ORDER_FILE), request, build, force=force, names=[VIEW_FILE])[0]


def _with_log(intervention: dict[str, Any], base: Order) -> dict[str, Any]:
    """An intervention as it is saved: inserts with the tokens that they overwrite."""
    if intervention["kind"] != "inserts":
        return intervention
    table = [Insert(**entry) for entry in intervention["table"]]
    return {**intervention, "table": overwritten(base, table)}


def applied(order: Order, saved: Values) -> Order:
    """The order with a saved intervention applied to it. Raises FormatError, ConfigError."""
    kind = saved.text("kind", ("tokens", "inserts"))
    size = saved.optional_count("batch_size")
    order = order if size is None else order.rebatch(batch_size=size)
    if kind == "inserts":
        saved.require_keys(("kind", "table", "batch_size"))
        return insert_tokens(order, [_insert(entry) for entry in saved.objects("table")])
    saved.require_keys(("kind", "table", "steps", "batch_size"))
    table, steps = saved.object("table"), saved.integers("steps")
    if len(steps) != 2:
        raise saved.refuse("steps", "the first step and the end")
    words = {word: table.text(word) for word in table.values}
    return replace_tokens(order, words, steps=(steps[0], steps[1]))


def _insert(entry: Values) -> Insert:
    entry.require_keys(("step", "row", "offset", "tokens"), ("overwritten",))
    step, row, offset = (entry.integer(key) for key in ("step", "row", "offset"))
    return Insert(step, row, offset, tuple(entry.integers("tokens")))
