"""Interventions on an order: tokens replaced or inserted as samples are read, with nothing changed on disk.

A run on an order with interventions differs from a run on its base order in these tokens alone. Saved
interventions are an order too: their `order.json` names the base order, and a run on it is recorded as usual.
In saved files, an intervention is called a view.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
import pickle
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import files, manifest, publish
from pile_tools._core import Tokenizer, TrainingOrder, changed_order
from pile_tools.checked import Values
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError
from pile_tools.manifest import ORDER_FILE, Manifest, Request
from pile_tools.order.order import Order, Samples
from pile_tools.publish import Built, Target
from pile_tools.terminal import counted
from pile_tools.tokens.concatenated import Concatenated, as_one
from pile_tools.types import Documents, Origin, Tokens

#: The file of the saved interventions, beside their `order.json`.
VIEW_FILE = "view.json"

#: Maximum number of interventions on each other, saved or not: each reads those before it by recursive calls.
MAX_DEPTH = 64

#: Samples read at a time to find what an intervention changes.
_READ_SAMPLES = 1024

#: By index of a sample: the offset and the tokens of each text that is inserted into it.
Inserts: TypeAlias = Mapping[int, Sequence[tuple[int, tuple[int, ...]]]]


@dataclass(frozen=True)
class Insert:
    """Tokens to write over a row of a step, starting at an offset."""

    step: int
    row: int
    offset: int
    tokens: tuple[int, ...]


class InsertedTexts:
    """The texts that interventions insert, as documents of the subset `inserted`."""

    subsets: ClassVar = ["inserted"]
    has_provenance: ClassVar = False

    def __init__(self, base: Documents, texts: Sequence[Tokens]) -> None:
        self.prefix, self.dtype = base.prefix, base.dtype
        self._texts = texts

    @property
    def fingerprint(self) -> str:
        """A digest of the texts."""
        return fingerprint({"inserted": [text.tolist() for text in self._texts]})

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, document: int, /) -> Tokens:
        return self._texts[document]

    def origin(self, document: int, /) -> Origin | None:
        """None: the texts are in no shard."""
        return None

    def subset_numbers(self, documents: NDArray[np.int64], /) -> NDArray[np.int32]:
        """0 for each document: (n,) int64 -> (n,) int32."""
        return np.zeros(len(documents), np.int32)


class ChangedSamples(ABC):
    """Samples of a base order, changed when they are read.

    Each inserted text is a document. These documents follow those of the base, sorted by sample and offset. A
    replaced token still belongs to its document. A chain of interventions, each applied to the result of the
    previous one, equals one intervention on `base`; if a later one splits an inserted text, it becomes two
    documents. In rows of unknown documents every span has document -1. There, inserted texts have spans of
    their own if the rows are on disk; a row on a server is always one span.

    `depth` is the number of interventions on each other, this one included.

    Subclasses change the arrays that `_samples` returns in place: each call returns a new array. Instances
    pickle as the arguments of their constructors, without the cached properties.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.depth: int = 1 + (samples.depth if isinstance(samples, ChangedSamples) else 0)

    @property
    def seq_length(self) -> int:
        """Tokens that the model sees at once."""
        return self._samples.seq_length

    @property
    def sample_length(self) -> int:
        """Tokens of a sample."""
        return self._samples.sample_length

    @property
    def base(self) -> Samples:
        """The samples without any intervention."""
        return self._samples.base if isinstance(self._samples, ChangedSamples) else self._samples

    @cached_property
    def dataset(self) -> Documents:
        """The documents of the base, unchanged, and then the inserted texts."""
        base, texts = as_one(self.base.dataset), self._inserted
        if not len(texts):
            return base
        rows = (self.take(texts[i : i + _READ_SAMPLES, 0]) for i in range(0, len(texts), _READ_SAMPLES))
        each = zip(itertools.chain.from_iterable(rows), texts.tolist(), strict=True)
        inserted = InsertedTexts(base, [row[first : first + n].copy() for row, (_, first, n) in each])
        return Concatenated([base, inserted])

    @cached_property
    def core(self) -> TrainingOrder:
        """The changed order as the core reads it. Every sample that may be changed is read to make it.

        Raises ConfigError for rows on a server, which the core cannot read.
        """
        return self._changed_order(self._may_change())

    @cached_property
    def _with_inserted(self) -> Samples:
        """The base with the changes to samples that hold inserted texts; `spans` needs no others.

        `core` would also read every sample in which a token may be replaced. For rows on a server this is the
        base: the core cannot read them, and each row stays one span.
        """
        is_local = isinstance(self.base, TrainingOrder)
        return self._changed_order(self._inserted[:, 0]) if is_local and len(self._inserted) else self.base

    def _changed_order(self, indices: NDArray[np.int64]) -> TrainingOrder:
        """The base with the changes of the samples at `indices`."""
        base = self.base
        if not isinstance(base, TrainingOrder):
            raise ConfigError("the core cannot read rows on a server")
        changes, tokens = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.int64)]
        indices = np.unique(indices)
        for i in range(0, len(indices), _READ_SAMPLES):
            some = indices[i : i + _READ_SAMPLES]
            old, new = base.take(some), self.take(some)
            # By token: 0 if unchanged, -1 if replaced, else the number of the inserted text, from 1.
            kinds = np.where(old != new, -1, 0)
            first, end = np.searchsorted(self._inserted[:, 0], [some[0], some[-1] + 1])
            for number, (sample, offset, n) in enumerate(self._inserted[first:end].tolist(), first + 1):
                # `some` contains `sample`: callers pass every sample that has inserted texts.
                kinds[np.searchsorted(some, sample), offset : offset + n] = number
            runs = _runs(kinds)
            changes.append(np.column_stack([some[runs[:, 0]], runs[:, 1:3], runs[:, 3] > 0]))
            # Both this and `runs` are in row-major order, so the core takes each run's tokens in sequence.
            tokens.append(new[kinds != 0])
        return changed_order(base, np.concatenate(changes), np.concatenate(tokens).astype(np.int64))

    @cached_property
    def _inserted(self) -> NDArray[np.int64]:
        """Runs of inserted tokens, sorted: (n, 3) int64, columns sample, offset, length."""
        inserts = self._inserts()
        found = [np.zeros((0, 3), np.int64)]
        for sample in sorted({sample for layer in inserts for sample in layer}):
            texts = [text for layer in inserts for text in layer.get(sample, ())]
            # By token: the number of the last text written over it, from 1.
            numbers = np.zeros((1, self.sample_length), np.int64)
            for number, (offset, tokens) in enumerate(texts, 1):
                numbers[0, offset : offset + len(tokens)] = number
            runs = _runs(numbers)
            found.append(np.column_stack([np.full(len(runs), sample), runs[:, 1:3]]))
        return np.concatenate(found)

    def _inserts(self) -> list[Inserts]:
        """The inserted texts of each intervention, the first one first."""
        return self._samples._inserts() if isinstance(self._samples, ChangedSamples) else []

    def _may_change(self) -> NDArray[np.int64]:
        """The indices of all samples that an intervention may change, ascending: (n,) int64."""
        none = np.zeros(0, np.int64)
        return self._samples._may_change() if isinstance(self._samples, ChangedSamples) else none

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, sample: int) -> Tokens:
        index = sample + len(self) if sample < 0 else sample
        if not 0 <= index < len(self):
            raise IndexError(f"{sample} is out of range for {len(self)}")
        row: Tokens = self.read(index, 1)[0]
        return row

    def read(self, first: int, n: int) -> Tokens:
        """The changed samples [first, first + n): (n, sample_length)."""
        tokens = self._samples.read(first, n)
        return self._changed(tokens, np.arange(first, first + n))

    def take(self, indices: NDArray[np.int64], /) -> Tokens:
        """The changed samples at these indices: (n,) int64 -> (n, sample_length)."""
        # `_samples` checks the indices: it must see them as given.
        tokens = self._samples.take(indices)
        return self._changed(tokens, np.where(indices < 0, indices + len(self), indices))

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """The runs of documents and inserted texts in the samples [first, first + n)."""
        return self._with_inserted.spans(first, n)

    @abstractmethod
    def _changed(self, tokens: Tokens, indices: NDArray[np.int64]) -> Tokens:
        """Applies this intervention to `tokens`, the rows of `_samples` at `indices`; may work in place."""


class ReplacedTokens(ChangedSamples):
    """Samples with words replaced in the range [first, end) of their indices; see `replace_tokens`."""

    def __init__(
        self, samples: Samples, table: Mapping[int, int], indices: tuple[int, int], tokenizer: Tokenizer
    ) -> None:
        super().__init__(samples)
        self._table, self._indices, self.tokenizer = dict(table), indices, tokenizer
        self._starts_in_word, self._ends_in_word = _word_characters(tokenizer)
        # The last item represents all ids above the tokenizer's, which are clipped to it; none is replaced.
        self._replacement = np.arange(len(self._starts_in_word))
        self._replacement[list(table)] = list(table.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return ReplacedTokens, (self._samples, self._table, self._indices, self.tokenizer)

    def _may_change(self) -> NDArray[np.int64]:
        first, end = self._indices
        return np.union1d(super()._may_change(), np.arange(first, end))

    @cached_property
    def _documents(self) -> Documents:
        """The documents to which spans of `_samples` refer; those of the base are as stored on disk."""
        return as_one(self._samples.dataset)

    def _changed(self, tokens: Tokens, indices: NDArray[np.int64]) -> Tokens:
        first, end = self._indices
        for row in np.flatnonzero((indices >= first) & (indices < end)).tolist():
            tokens[row] = self._replaced(tokens[row], int(indices[row]))
        return tokens

    def _replaced(self, row: Tokens, index: int) -> Tokens:
        """The row of sample `index` with its words replaced, in place.

        A word never crosses two runs of known documents. In a row of unknown documents it may cross the ends
        of inserted texts.
        """
        known = np.clip(row, 0, len(self._replacement) - 1)
        new = self._replacement[known]
        if np.array_equal(new, known):
            return row
        # By token: whether the token before it, or after it, continues its word. This is computed from the
        # row; the loop below corrects it at the ends of the runs of known documents.
        joins_before, joins_after = np.zeros((2, len(row)), bool)
        joins_before[1:] = self._ends_in_word[known[:-1]] & self._starts_in_word[known[1:]]
        joins_after[:-1] = joins_before[1:]
        has_inserts = any(index in layer for layer in self._inserts())
        spans = self._samples.spans(index, 1).tolist()
        # The tokens after those of the spans are padding.
        n_tokens = sum(length for _row, _document, _start, length in spans)
        offset = 0
        for _row, document, start, length in spans:
            first, end = offset, offset + length
            offset = end
            # The runs of unknown documents do not end words: rows on a server, each one run, give the same.
            if document < 0:
                continue
            joins_before[first] = joins_after[end - 1] = False
            # If the sample begins or ends within the document, or an inserted text overwrites part of it, the
            # run's neighbors in the document are not its neighbors in the row. They are then taken from the
            # stored document, without earlier interventions. A padded sample ends at `n_tokens`, and can end
            # within a document too. Every other run is a whole document, which need not be read.
            if start > 0 or end == n_tokens or has_inserts:
                whole = np.clip(self._documents[document], 0, len(self._replacement) - 1)
                if start > 0:
                    joins_before[first] = self._joins(int(whole[start - 1]), int(known[first]))
                if start + length < len(whole):
                    joins_after[end - 1] = self._joins(int(known[end - 1]), int(whole[start + length]))
        is_replaced = ~joins_before & ~joins_after & (new != known)
        is_replaced[n_tokens:] = False
        row[is_replaced] = new[is_replaced]
        return row

    def _joins(self, before: int, after: int) -> bool:
        return bool(self._ends_in_word[before] and self._starts_in_word[after])


def _word_characters(tokenizer: Tokenizer) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the text of each id starts, and ends, with a letter, a digit, `_` or a partial character.

    Shapes: (n,) bool each, for the ids below n - 1; the last item, which is no id, is false.
    """
    texts: list[str] = []
    n_found = 0
    # Ids may have gaps: only the number of tokens says when the largest one is reached.
    while n_found < tokenizer.vocab_size:
        n_found += tokenizer.id_to_token(len(texts)) is not None
        texts.append(tokenizer.decode([len(texts)], skip_special_tokens=False, skip_unknown=True))
    starts = [text != "" and _is_in_word(text[0]) for text in texts]
    ends = [text != "" and _is_in_word(text[-1]) for text in texts]
    return np.array([*starts, False]), np.array([*ends, False])


def _is_in_word(character: str) -> bool:
    return character.isalnum() or character in "_\ufffd"


class InsertedTokens(ChangedSamples):
    """Samples with token sequences written over their tokens; see `insert_tokens`."""

    def __init__(self, samples: Samples, inserts: Inserts) -> None:
        super().__init__(samples)
        self._by_sample = {index: list(of_sample) for index, of_sample in inserts.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return InsertedTokens, (self._samples, self._by_sample)

    def _inserts(self) -> list[Inserts]:
        return [*super()._inserts(), self._by_sample]

    def _may_change(self) -> NDArray[np.int64]:
        return np.union1d(super()._may_change(), np.fromiter(self._by_sample, np.int64))

    def _changed(self, tokens: Tokens, indices: NDArray[np.int64]) -> Tokens:
        for row, index in enumerate(indices.tolist()):
            for offset, new in self._by_sample.get(index, ()):
                tokens[row, offset : offset + len(new)] = new
        return tokens


def _runs(kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The runs of equal, non-zero values in each row.

    Shapes: (n_rows, k) -> (n, 4) int64, columns row, first, length, value.
    """
    is_first = np.ones(kinds.shape, bool)
    is_first[:, 1:] = kinds[:, 1:] != kinds[:, :-1]
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=kinds.size)
    rows, firsts = np.divmod(starts, kinds.shape[1])
    runs: NDArray[np.int64] = np.column_stack([rows, firsts, lengths, kinds.ravel()[starts]])
    return runs.compress(runs[:, 3] != 0, axis=0)


def replace_tokens(
    order: Order, table: Mapping[str, str], *, steps: tuple[int, int], tokenizer: Tokenizer | None = None
) -> Order:
    """The order with words replaced in some steps; every other token and every position stays the same.

    Args:
        order: The base order.
        table: Replacements by word. Word and replacement must each be one token, including the space before
            them: `{" he": " she"}`. An occurrence within a longer word is kept: one whose first or last
            character, and its neighbor in the same document, are both letters, digits, `_` or parts of a
            character. In rows of unknown documents the row decides, with the texts inserted into it.
        steps: The first step, and the step after the last one.
        tokenizer: By default the tokenizer that the dataset's manifest names. A replacement with another
            tokenizer cannot be saved, because saved interventions are applied with the dataset's.

    Raises:
        ConfigError: A word is not one token, a replacement's id cannot be stored, no tokenizer is known, the
            steps are out of range, or there are `MAX_DEPTH` interventions already.
    """
    tokenizer = tokenizer or order.tokenizer()
    first_step, end_step = _as_integers(steps, "steps")
    ids = {}
    limit = np.iinfo(order.dataset.dtype).max
    for word, other in table.items():
        one, two = (tokenizer.encode(text).tolist() for text in (word, other))
        if len(one) != 1 or len(two) != 1:
            wrong = word if len(one) != 1 else other
            raise ConfigError(
                f"{wrong!r} is not one token, so later tokens would shift; replace one token by one"
            )
        if two[0] > limit:
            raise ConfigError(
                f"{other!r} is token {two[0]}, and the dataset's tokens are at most {limit}: "
                "give the dataset's tokenizer"
            )
        ids[one[0]] = two[0]
    if not ids:
        raise ConfigError("no words to replace")
    if first_step >= end_step:
        raise ConfigError(f"no steps from {first_step} to {end_step}")
    first, _ = order.first_sample(first_step)
    last, size = order.first_sample(end_step - 1)
    samples = ReplacedTokens(order.samples, ids, (first, last + size), tokenizer)
    # `steps` counts steps of `batch_size` samples, even if the order is later saved with another batch size.
    intervention = {
        "kind": "tokens",
        "table": dict(table),
        "steps": [first_step, end_step],
        "batch_size": size,
    }
    return _with_intervention(order, samples, intervention)


def insert_tokens(order: Order, table: Sequence[Insert]) -> Order:
    """The order with the tokens of each `Insert` written over its row; every other token stays the same.

    A token that two samples share changes only in the row that the `Insert` names. Padding is kept.

    Raises:
        ConfigError: A step, row or offset is out of range, a row is too short for the tokens, a token cannot
            be stored, two inserts overlap, or there are `MAX_DEPTH` interventions already.
    """
    table = [_checked(order, insert) for insert in table]
    inserts: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for insert in sorted(table, key=lambda i: (i.step, i.row, i.offset)):
        of_sample = inserts[_sample(order, insert)]
        if of_sample and of_sample[-1][0] + len(of_sample[-1][1]) > insert.offset:
            raise ConfigError(f"two inserts over one token (step {insert.step}, row {insert.row})")
        of_sample.append((insert.offset, insert.tokens))
    samples = InsertedTokens(order.samples, inserts)
    intervention = {
        "kind": "inserts",
        "table": [dataclasses.asdict(i) for i in table],
        "batch_size": order.batch_size,
    }
    return _with_intervention(order, samples, intervention)


def _sample(order: Order, insert: Insert) -> int:
    """The index of the sample that an `Insert` changes."""
    first, size = order.first_sample(insert.step)
    if not 0 <= insert.row < size:
        raise ConfigError(f"no row {insert.row}: the batch has {size}, from 0")
    return first + insert.row


def _checked(order: Order, insert: Insert) -> Insert:
    """The `Insert` with values of type `int`. Raises ConfigError if it does not fit its row."""
    step, row, offset = _as_integers((insert.step, insert.row, insert.offset), "step, row and offset")
    insert = Insert(step, row, offset, _as_integers(insert.tokens, "tokens"))
    sample = _sample(order, insert)
    where = f"(step {step}, row {row})"
    # The tokens after those of the spans are padding.
    n_tokens = int(order.samples.spans(sample, 1)[:, 3].sum())
    if not insert.tokens:
        raise ConfigError(f"no tokens to insert {where}")
    if offset < 0 or offset + len(insert.tokens) > n_tokens:
        limits = (
            f"a row of {n_tokens}"
            if n_tokens == order.samples.sample_length
            else f"the {n_tokens} before the padding"
        )
        raise ConfigError(f"{counted(len(insert.tokens), 'token')} from {offset} do not fit {limits} {where}")
    limit = np.iinfo(order.dataset.dtype).max
    if not all(0 <= token <= limit for token in insert.tokens):
        raise ConfigError(f"tokens must be within 0 and {limit} {where}")
    return insert


def _as_integers(values: Sequence[int], what: str) -> tuple[int, ...]:
    """The values as `int`, which JSON can hold. Raises ConfigError for values that are not integers."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise ConfigError(f"{what} must be integers, not {values!r}") from None


def overwritten(order: Order, table: Sequence[Insert]) -> list[dict[str, Any]]:
    """Each `Insert` as a dict, with the tokens of `order` that it replaces under `overwritten`.

    Raises:
        ConfigError: As `insert_tokens`.
    """
    log = []
    for insert in (_checked(order, insert) for insert in table):
        row = order.samples[_sample(order, insert)]
        old = row[insert.offset : insert.offset + len(insert.tokens)].tolist()
        log.append({**dataclasses.asdict(insert), "overwritten": old})
    return log


@dataclass(frozen=True)
class OrderWithIntervention(Order):
    """An order with an intervention on a base order; one that was saved and opened again has a manifest."""

    base: Order | None = None
    intervention: dict[str, Any] = dataclasses.field(default_factory=dict)


def _with_intervention(
    order: Order, samples: ChangedSamples, intervention: dict[str, Any]
) -> OrderWithIntervention:
    if samples.depth > MAX_DEPTH:
        raise ConfigError(
            f"more than {MAX_DEPTH} interventions on each other; give the inserts of many in one table"
        )
    values = {f.name: getattr(order, f.name) for f in dataclasses.fields(Order)}
    # The base's manifest does not describe the changed samples, so no run may be recorded with it.
    values |= {"samples": samples, "manifest": None}
    return OrderWithIntervention(**values, base=order, intervention=intervention)


def save_interventions(order: Order, folder: Path, *, force: bool = False) -> Manifest:
    """Saves the unsaved interventions of an order as the order `folder/order.json`; returns its manifest.

    All interventions since the last saved order are recorded together in `view.json`, the first one first,
    with a log of the tokens that they overwrite. The base order must be on disk with a manifest.

    Raises:
        ConfigError: The order has no unsaved intervention, its base has no manifest, or words were replaced
            with another tokenizer than the dataset's.
        OutputExistsError: `folder` holds another order and `force` is off.
        OSError: A file cannot be read or written.
    """
    unsaved: list[tuple[OrderWithIntervention, Order]] = []
    base = order
    while isinstance(base, OrderWithIntervention) and base.manifest is None and base.base is not None:
        unsaved.insert(0, (base, base.base))
        base = base.base
    if not unsaved or base.manifest is None:
        raise ConfigError(f"only new interventions on an order with a manifest can be saved ({order.name})")
    interventions = []
    for changed, before in unsaved:
        if isinstance(changed.samples, ReplacedTokens):
            _refuse_other_tokenizer(changed.samples.tokenizer, before)
        interventions.append(_with_log(changed.intervention, before))
    settings = {
        "rule": "view",
        "kind": ", ".join(intervention["kind"] for intervention in interventions),
        "seq_length": order.seq_length,
        "batch_size": order.batch_size,
        "steps": order.steps,
        "seed": order.seed,
        "view": fingerprint({"views": interventions}),
    }
    request = Request("order", settings, [base.manifest.entry(folder, role="order")])
    _refuse_base(base.manifest, folder / ORDER_FILE)

    def build(partial: Path) -> Built:
        text = json.dumps({"views": interventions}, indent=1, ensure_ascii=False)
        (partial / VIEW_FILE).write_text(text + "\n", encoding="utf-8")
        return Built([VIEW_FILE], {"n_samples": len(order.samples)}, request.inputs)

    return publish.make(Target.of(folder / ORDER_FILE), request, build, force=force, names=[VIEW_FILE])[0]


def _refuse_base(found: Manifest, output: Path) -> None:
    """Raises ConfigError if an output is the order `found` or one on which that is made."""
    bases = [found]
    while (entry := bases[-1].input("order")) is not None and len(bases) <= MAX_DEPTH:
        bases.append(manifest.read(manifest.input_path(bases[-1], entry)))
    if output.exists() and any(files.identity(base.path) == files.identity(output) for base in bases):
        raise ConfigError(f"is an order on which this one is made; give another folder ({output})")


def _refuse_other_tokenizer(used: Tokenizer, base: Order) -> None:
    """Raises ConfigError if words were replaced with another tokenizer than that of the order's dataset."""
    # A tokenizer pickles as the content of its file.
    if pickle.dumps(used) != pickle.dumps(base.tokenizer()):
        raise ConfigError(
            "words were replaced with another tokenizer than the dataset's, "
            f"with which a saved order is opened ({base.name})"
        )


def _with_log(intervention: dict[str, Any], base: Order) -> dict[str, Any]:
    """The saved form of an intervention: inserts also record the tokens that they overwrite."""
    if intervention["kind"] != "inserts":
        return intervention
    table = [Insert(**entry) for entry in intervention["table"]]
    return {**intervention, "table": overwritten(base, table)}


def applied(order: Order, saved: Values) -> Order:
    """The order with a saved intervention applied to it, in steps of the intervention's batch size.

    Raises FormatError, ConfigError.
    """
    kind = saved.text("kind", ("tokens", "inserts"))
    # Null only for an empty table of inserts on an order without a batch size: it has no steps to count.
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
