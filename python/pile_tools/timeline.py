"""When the model saw what: from texts and documents to steps; what repeats; how much of each subset.

The functions are methods of `Order` too. Steps and rows are told for a batch size, the order's own or one
given. A table is a structured array: `table["step"]` is a column, `table[0]["step"]` a value of a row.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest
from pile_tools._core import SuffixIndex, Tokenizer, TrainingOrder
from pile_tools.checkpoints import Intervals
from pile_tools.errors import ConfigError
from pile_tools.search import MAX_PLACES, index_for
from pile_tools.tables import Table, named
from pile_tools.types import OnProgress, TermQuery

if TYPE_CHECKING:
    from pile_tools.orders import Order

#: How a text is looked for is one rule everywhere.
RULE = "a text occurs where its bytes stand in the decoded text of one document, whatever the token borders"

#: What finds texts in the documents: an index; one that lies beside the dataset, if it is likely faster than
#: a scan ("auto"); or a scan (None).
Finder: TypeAlias = SuffixIndex | Literal["auto"] | None

_SIGHTING = (
    "text",
    "document",
    "byte",
    "token",
    "n_tokens",
    "epoch",
    "part",
    "n_parts",
    "sample",
    "offset",
    "length",
    "n_documents",
)
_VIEW = ("epoch", "sample", "offset", "token", "length")
_REPEATED = ("same_as", "document", "n_tokens", "n_copies", "first_sample", "last_sample")


@dataclass(frozen=True)
class When:
    """Every time the model saw some texts.

    Attributes:
        texts: The texts as bytes, or as stored ids where ids were looked for.
        sightings: In training order, a row for each sample that holds a text whole (`n_parts` 1), or, where
            no sample does, for each part of it. Columns: occurrence (all parts of one have its number), text,
            document, byte (first in the decoded document), token (first in the document), n_tokens, epoch
            (copy of the document, from 0), part, n_parts, sample, step, row, offset (first token in the row),
            length (tokens of the part), n_documents.
        n_places: By text, how often it stands in the documents, each counted once.
        n_beyond: By text, occurrences that the run does not reach: in samples behind its last step.
        n_unreached: By text, occurrences of which no sample of the order holds every token.
        n_documents: Documents looked at.
        n_tokens: Tokens looked at.
        n_without_bytes: Tokens among them whose ids decode to nothing.
        n_samples: Samples of the run.
        batch_size: Samples of a step.
        by_index: Whether an index found the texts; a scan finds the same.
    """

    texts: list[bytes]
    sightings: Table
    n_places: NDArray[np.int64]
    n_beyond: NDArray[np.int64]
    n_unreached: NDArray[np.int64]
    n_documents: int
    n_tokens: int
    n_without_bytes: int
    n_samples: int
    batch_size: int
    by_index: bool

    def counts(self) -> NDArray[np.int64]:
        """By text, occurrences that a row holds whole and those cut by the border of rows: (n_texts, 2)."""
        firsts = self.sightings[self.sightings["part"] == 0]
        found = np.zeros((len(self.texts), 2), dtype=np.int64)
        np.add.at(found, (firsts["text"], (firsts["n_parts"] > 1).astype(np.int64)), 1)
        return found

    def by_interval(self, intervals: Intervals) -> NDArray[np.int64]:
        """By interval between checkpoints, the same; one that is cut counts where its last part is seen."""
        n_occurrences = int(self.sightings["occurrence"].max()) + 1 if len(self.sightings) else 0
        steps = np.zeros(n_occurrences, dtype=np.int64)
        np.maximum.at(steps, self.sightings["occurrence"], self.sightings["step"])
        firsts = self.sightings[self.sightings["part"] == 0]
        found = np.zeros((len(intervals.edges) - 1, 2), dtype=np.int64)
        places = intervals.of(steps[firsts["occurrence"]])
        np.add.at(found, (places, (firsts["n_parts"] > 1).astype(np.int64)), 1)
        return found


@dataclass(frozen=True)
class Repeats:
    """What the model reads more than once.

    Attributes:
        intervals: A row for `interval_steps` steps: first_step, n_tokens read, by_epoch (read before in an
            earlier copy of their document), by_duplicate (read before in another document with the same
            tokens only).
        documents: A row for each document of which, or of whose duplicates, more than one copy is seen:
            same_as (the first document with the same tokens), document, n_tokens, n_copies, first_step,
            last_step.
        first_by_epoch: The first step with a token read before in an earlier copy of its document, or None.
        first_by_duplicate: The first step with a token read before in a duplicate, or None.
    """

    intervals: Table
    documents: Table
    first_by_epoch: int | None
    first_by_duplicate: int | None


@dataclass(frozen=True)
class Mixture:
    """How much of each subset the model reads.

    Attributes:
        subsets: Their names; `unknown` for documents whose subset is not.
        first_steps: First step of each interval: (n,) int64.
        n_tokens: Tokens read, by interval and subset: (n, n_subsets) int64.
    """

    subsets: list[str]
    first_steps: NDArray[np.int64]
    n_tokens: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each subset in each interval; rows sum to 1."""
        shares: NDArray[np.float64] = self.n_tokens / self.n_tokens.sum(axis=1, keepdims=True)
        return shares


def extent(order: Order, batch_size: int | None = None) -> tuple[int, int]:
    """Steps of the order and samples of each: those it was made for, or as many as it has.

    Raises:
        ConfigError: No batch size is known.
    """
    size = batch_size or order.batch_size
    if size is None:
        raise ConfigError(f"the order names no batch size; give --batch-size ({order.path})")
    n_steps = len(order.samples) // size
    if order.steps is not None and order.batch_size is not None:
        n_steps = min(n_steps, order.steps * order.batch_size // size)
    return n_steps, size


def _core_order(order: Order) -> TrainingOrder:
    """The samples, if their documents or rows lie here as the model sees them. Raises ConfigError."""
    if isinstance(order.samples, TrainingOrder):
        return order.samples
    raise ConfigError(f"only orders whose tokens lie here unchanged are searched ({order.path})")


def tokenizer_of(order: Order, given: Path | None = None) -> Tokenizer:
    """The tokenizer given, or the one that the dataset's manifest names. Raises ConfigError."""
    if given is not None:
        return Tokenizer.from_file(given)
    made = order.dataset_manifest
    path = manifest.input_file(made, "tokenizer") if made is not None else None
    if path is not None:
        return Tokenizer.from_file(path)
    raise ConfigError("the dataset's tokenizer is not known or not here; give --tokenizer FILE")


def when(
    order: Order,
    texts: Sequence[str | bytes | Sequence[int]],
    *,
    tokenizer: Tokenizer | None = None,
    index: Finder = "auto",
    across_documents: bool = False,
    batch_size: int | None = None,
    max_places: int = MAX_PLACES,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> When:
    """Every time the model saw each of `texts`, all in one pass.

    A text occurs where its bytes stand in the decoded text of one document, whatever the token borders; lists
    of ids occur where these ids stand. Texts and ids cannot be mixed in one call.

    Args:
        tokenizer: What decodes the documents, by default the one that the dataset's manifest names.
        index: What finds the texts: see `Finder`; the answer is the same.
        across_documents: Find also what runs from one document into the next within a row.
        batch_size: Samples of a step, where the order names none.
        max_places: Places in the documents beyond which the search gives up.
        threads: By default all cores; the answer is the same for any number.
        on_progress: Called with tokens searched and places of the order gone through.

    Raises:
        ConfigError: An empty text, an id that cannot be stored, more than `max_places`, no batch size.
    """
    n_steps, size = extent(order, batch_size)
    is_ids = [not isinstance(text, (str, bytes)) for text in texts]
    if any(is_ids) and not all(is_ids):
        raise ConfigError("texts and ids cannot be looked for in one call")
    strings = [_bytes_of(order, number, text) for number, text in enumerate(texts)]
    if not any(is_ids):
        tokenizer = tokenizer or tokenizer_of(order)
    decoder = None if any(is_ids) else tokenizer
    samples = _core_order(order)
    if index == "auto":
        index = index_for(samples.dataset, decoder, len(strings))
    elif index is not None and index.dataset.fingerprint != samples.dataset.fingerprint:
        raise ConfigError(f"the index is of another dataset than the order ({order.path})")
    table, n_places, n_unreached, looked_at = _core.order_when(
        samples,
        decoder,
        index,
        strings,
        n_steps * size,
        across_documents,
        max_places,
        threads or os.cpu_count() or 1,
        on_progress,
    )
    sightings, n_beyond = _in_run(named(table, _SIGHTING), len(strings), n_steps * size)
    n_documents, n_tokens, n_without_bytes = looked_at.tolist()
    return When(
        texts=strings,
        sightings=_with_steps(sightings, size),
        n_places=n_places,
        n_beyond=n_beyond,
        n_unreached=n_unreached,
        n_documents=n_documents,
        n_tokens=n_tokens,
        n_without_bytes=n_without_bytes,
        n_samples=n_steps * size,
        batch_size=size,
        by_index=index is not None,
    )


def trace(order: Order, document: int, *, batch_size: int | None = None) -> Table:
    """Every row that holds any part of a document, in training order.

    Columns: epoch (copy of the document, from 0), sample, step, row, offset (first token in the row), token
    (first in the document), length. Rows behind the run's last step are given too.

    Raises:
        ConfigError: No such document, or no batch size is known.
    """
    _, size = extent(order, batch_size)
    return _with_steps(named(_core.order_trace(_core_order(order), document), _VIEW), size)


def repeats(
    order: Order,
    *,
    interval_steps: int = 1000,
    batch_size: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> Repeats:
    """What the model reads more than once: repeated epochs and duplicate documents, told apart.

    Documents are duplicates if all their tokens are equal. A row's last token is only predicted; it is
    counted in the row that reads it.
    """
    n_steps, size = _some_steps(order, interval_steps, batch_size)
    by_interval, documents, first_by_epoch, first_by_duplicate = _core.order_repeats(
        _core_order(order), n_steps * size, interval_steps * size, threads or os.cpu_count() or 1, on_progress
    )
    first_steps = np.arange(0, n_steps, interval_steps)
    n_read = (np.minimum(first_steps + interval_steps, n_steps) - first_steps) * size * order.seq_length
    intervals = np.column_stack([first_steps, n_read, by_interval]).astype(np.int64)
    documents[:, 4:] //= size
    return Repeats(
        intervals=named(intervals, ("first_step", "n_tokens", "by_epoch", "by_duplicate")),
        documents=named(documents, (*_REPEATED[:4], "first_step", "last_step")),
        first_by_epoch=None if first_by_epoch is None else first_by_epoch // size,
        first_by_duplicate=None if first_by_duplicate is None else first_by_duplicate // size,
    )


def mixture(
    order: Order,
    *,
    interval_steps: int = 1000,
    batch_size: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> Mixture:
    """Tokens of each subset that the model reads, by intervals of steps."""
    n_steps, size = _some_steps(order, interval_steps, batch_size)
    dataset = order.dataset
    numbers = dataset.subset_numbers(np.arange(len(dataset), dtype=np.int64))
    names = [*dataset.subsets, "unknown"]
    n_tokens = _core.order_mixture(
        _core_order(order),
        numbers,
        len(names) - 1,
        n_steps * size,
        interval_steps * size,
        threads or os.cpu_count() or 1,
        on_progress,
    )
    if len(names) > 1 and not n_tokens[:, -1].any():
        names, n_tokens = names[:-1], n_tokens[:, :-1]
    return Mixture(names, np.arange(0, n_steps, interval_steps, dtype=np.int64), n_tokens)


def _some_steps(order: Order, interval_steps: int, batch_size: int | None) -> tuple[int, int]:
    if interval_steps < 1:
        raise ConfigError(f"an interval must be of at least 1 step, got {interval_steps}")
    n_steps, size = extent(order, batch_size)
    if n_steps == 0:
        raise ConfigError(f"{len(order.samples)} samples are no step of {size} ({order.path})")
    return n_steps, size


def _bytes_of(order: Order, number: int, text: str | bytes | Sequence[int]) -> bytes:
    """A text as bytes, ids as they are stored."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as err:
            raise ConfigError(f"text {number} is not valid Unicode: {err.reason}") from err
    ids = np.asarray(text, dtype=np.int64)
    dtype = np.dtype(order.dataset.dtype)
    limits = np.iinfo(dtype)
    wrong = ids[(ids < limits.min) | (ids > limits.max)]
    if len(wrong):
        raise ConfigError(f"id {wrong[0]} of text {number} cannot be stored as {dtype}")
    return ids.astype(dtype.newbyteorder("<")).tobytes()


def _in_run(sightings: Table, n_texts: int, n_samples: int) -> tuple[Table, NDArray[np.int64]]:
    """The sightings of the run, and how many occurrences of each text lie behind it at least in part."""
    numbers = np.cumsum(sightings["part"] == 0) - 1
    is_seen = np.ones(int(numbers[-1]) + 1 if len(numbers) else 0, dtype=np.bool_)
    is_seen[numbers[sightings["sample"] >= n_samples]] = False
    firsts = sightings[sightings["part"] == 0]
    n_beyond = np.bincount(firsts["text"][~is_seen], minlength=n_texts).astype(np.int64)
    seen = sightings[is_seen[numbers]]
    return _join({"occurrence": np.cumsum(seen["part"] == 0) - 1}, seen), n_beyond


def _with_steps(table: Table, batch_size: int) -> Table:
    """The table with step and row behind its sample."""
    names = list(table.dtype.names or ())
    place = names.index("sample") + 1
    columns = {name: table[name] for name in names[:place]}
    columns["step"], columns["row"] = table["sample"] // batch_size, table["sample"] % batch_size
    return _join(columns, table)


def _join(columns: dict[str, NDArray[np.int64]], table: Table) -> Table:
    """The columns, then those of the table that are not among them."""
    columns = columns | {name: table[name] for name in table.dtype.names or () if name not in columns}
    joined = np.empty(len(table), dtype=[(name, np.int64) for name in columns])
    for name, values in columns.items():
        joined[name] = values
    return joined


@dataclass(frozen=True)
class TermsInTime:
    """How often terms were seen up to checkpoints.

    Attributes:
        steps: Numbers of steps, ascending: (n,) int64.
        occurrences: Occurrences of each term up to each of them: (n, n_terms) int64.
        samples: Rows that hold it: (n, n_terms) int64.
        pairs: How often the terms of each pair were seen together: (n, n_pairs) int64.
    """

    steps: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    samples: NDArray[np.int64]
    pairs: NDArray[np.int64]


def count_terms(
    order: Order,
    query: TermQuery,
    steps: Sequence[int],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
    on_progress: OnProgress = None,
) -> TermsInTime:
    """How often terms were seen before each of some steps, all in one pass over the rows.

    A term is seen where its bytes stand in the decoded text of one document's part of a row; what the border
    of two rows cuts is in neither, and what lies within the one token that two rows share is in both. Seen
    before step N is what the checkpoint stepN has seen.

    Args:
        query: Terms and pairs; within a unit is within a row.
        steps: Ascending.
        tokenizer: What decodes the rows, by default the one that the dataset's manifest names.
        on_progress: Called with rows.

    Raises:
        ConfigError: No terms, an empty one, more steps than the order has, or no batch size is known.
    """
    _, size = extent(order, batch_size)
    occurrences, samples, pairs = _core.order_terms(
        _core_order(order), tokenizer or tokenizer_of(order), query, [size * s for s in steps], on_progress
    )
    return TermsInTime(np.array(steps, dtype=np.int64), occurrences, samples, pairs)


def count_arithmetic(
    order: Order,
    steps: Sequence[int],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> list[dict[str, int]]:
    """Counts of numbers, pairs of numbers, and numbers with units of time, before each of some steps.

    The rule is that of Pythia's study of arithmetic, and so are the keys: `"7"`, `"7-12"`, `"7-day"`. Rows
    are decoded whole, all documents in them.

    Raises: ConfigError for more steps than the order has, or where no batch size is known.
    Source: Biderman et al. 2023, arXiv:2304.01373, case study of term frequencies.
    """
    _, size = extent(order, batch_size)
    counts = _core.order_arithmetic(
        _core_order(order),
        tokenizer or tokenizer_of(order),
        [size * s for s in steps],
        threads or os.cpu_count() or 1,
        on_progress,
    )
    return [dict(of) for of in counts]
