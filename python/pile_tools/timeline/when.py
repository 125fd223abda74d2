"""Finds every occurrence of texts in the rows of a run: when the model saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core
from pile_tools._core import SuffixIndex, Tokenizer
from pile_tools.config import checked_threads
from pile_tools.errors import ConfigError, PileError
from pile_tools.order.order import Order
from pile_tools.read.texts import normalized
from pile_tools.search import MAX_OCCURRENCES, ids_of, index_for
from pile_tools.tables import Table, named
from pile_tools.timeline.checkpoints import Intervals
from pile_tools.timeline.steps import core_order, extent, joined, with_steps
from pile_tools.types import OnProgress, listed

#: The rule that defines an occurrence, the same for every command; printed with the answer.
RULE = "a text occurs where its bytes occur in the decoded text of one document, whatever the token borders"

#: How texts are found: by this index, by the dataset's own index if it is likely faster than a scan ("auto"),
#: or by a scan (None). The answer is the same.
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


@dataclass(frozen=True)
class When:
    """Every time the model saw some texts.

    Attributes:
        texts: The bytes searched for each query: the normalized text, or the ids as they are stored.
        sightings: One row for each sample that holds an occurrence whole (`n_parts` 1), or one for each part
            of an occurrence that no sample holds whole. Occurrences are in the order in which the run reads
            their first part. The parts of an occurrence follow each other in the order of the text, which
            need not be that of their steps. Columns, all int64: occurrence (number shared by the parts of one
            occurrence), text (index in `texts`), document (of the order's `dataset`), byte (first in the
            decoded document as it is stored), token (first in the document), n_tokens, epoch (copy of the
            document, from 0), part, n_parts, sample, step, row, offset (first token in the row), length
            (tokens of the part), n_documents (that the occurrence is in: 1 unless `across_documents`).
        n_occurrences: By text, occurrences in the documents and inserted texts, each counted once: (n_texts,)
            int64. Those with a replaced token are in no document.
        n_beyond: By text, occurrences with a part after the run's last step, counted in each copy of their
            document: (n_texts,) int64.
        n_unreached: By text, occurrences that no sample of the order shows, as one of their tokens is in none
            or was changed by an intervention, counted in each copy of their document: (n_texts,) int64.
        n_documents: Documents searched.
        n_tokens: Tokens searched.
        n_without_bytes: Searched tokens whose ids decode to nothing.
        n_samples: Samples of the run.
        batch_size: Samples of a step.
        by_index: Whether an index found the texts; a scan gives the same answer.
        changed: Indices of the texts that normalization changed, ascending.
    """

    texts: list[bytes]
    sightings: Table
    n_occurrences: NDArray[np.int64]
    n_beyond: NDArray[np.int64]
    n_unreached: NDArray[np.int64]
    n_documents: int
    n_tokens: int
    n_without_bytes: int
    n_samples: int
    batch_size: int
    by_index: bool
    changed: tuple[int, ...] = ()

    def counts(self) -> NDArray[np.int64]:
        """Seen occurrences by text, those whole in a row and those split across rows: (n_texts, 2) int64."""
        firsts = self.sightings[self.sightings["part"] == 0]
        counts = np.zeros((len(self.texts), 2), dtype=np.int64)
        np.add.at(counts, (firsts["text"], (firsts["n_parts"] > 1).astype(np.int64)), 1)
        return counts

    def first_and_last(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last step that sees each text, -1 for one that is not seen: (n_texts,) int64."""
        first, last = (np.full(len(self.texts), start, dtype=np.int64) for start in (self.n_samples, -1))
        np.minimum.at(first, self.sightings["text"], self.sightings["step"])
        np.maximum.at(last, self.sightings["text"], self.sightings["step"])
        return np.where(last < 0, -1, first), last

    def by_interval(self, intervals: Intervals) -> NDArray[np.int64]:
        """Seen occurrences by interval between checkpoints, whole and split as in `counts`: (n, 2) int64.

        A split occurrence counts in the interval of its last part: only then is it seen completely.
        """
        n_seen = int(self.sightings["occurrence"].max()) + 1 if len(self.sightings) else 0
        steps = np.zeros(n_seen, dtype=np.int64)
        np.maximum.at(steps, self.sightings["occurrence"], self.sightings["step"])
        firsts = self.sightings[self.sightings["part"] == 0]
        counts = np.zeros((len(intervals.edges) - 1, 2), dtype=np.int64)
        interval_of = intervals.of(steps[firsts["occurrence"]])
        np.add.at(counts, (interval_of, (firsts["n_parts"] > 1).astype(np.int64)), 1)
        return counts


def when(
    order: Order,
    texts: str | bytes | Sequence[str | bytes | Sequence[int]],
    *,
    tokenizer: Tokenizer | None = None,
    index: Finder = "auto",
    across_documents: bool = False,
    batch_size: int | None = None,
    max_occurrences: int = MAX_OCCURRENCES,
    threads: int | None = None,
    on_progress: OnProgress = None,
) -> When:
    """Every time the model saw each of `texts`, found in one pass.

    A text occurs where its bytes occur in the decoded text of one document, whatever the token borders; a
    list of ids occurs where these ids follow each other. A `str` is normalized as the tokenizer normalizes
    text; bytes are searched unchanged.

    In an order with interventions a text is found where the samples show it. Inserted texts are documents of
    their own. A replaced token belongs to its document, so a text is found with the new token and not with
    the old one. Two rows that share a token show a text across their border only if it is the same in both.

    Args:
        order: The order of the run.
        texts: Texts, or lists of ids; not both in one call. A single text is one query.
        tokenizer: Tokenizer that decodes the documents, by default the one that the dataset's manifest names.
        index: How the texts are found, see `Finder`; the answer is the same.
        across_documents: Also find occurrences that run from one document into the next within a row.
        batch_size: Samples of a step, by default the order's.
        max_occurrences: Occurrences in the documents at which the search is refused.
        threads: By default one for each core; the answer does not depend on it.
        on_progress: Called with the tokens searched plus the samples visited.

    Raises:
        ConfigError: A text is empty, an id cannot be stored, texts and ids are mixed, there are more than
            `max_occurrences`, or no batch size or tokenizer is known.
        PileError: The index is of another dataset.
        FormatError: The dataset is damaged.
        OSError: A file cannot be read.
    """
    n_steps, size = extent(order, batch_size)
    queries: Sequence[str | bytes | Sequence[int]] = listed(texts)
    kinds = {isinstance(text, (str, bytes)) for text in queries}
    if len(kinds) > 1:
        raise ConfigError("texts and ids cannot be mixed in one call")
    has_ids = False in kinds
    decoder = None if has_ids else tokenizer or order.tokenizer()
    strings = [_bytes_of(order, number, text, decoder) for number, text in enumerate(queries)]
    as_written = [text.encode() if isinstance(text, str) else text for text in queries]
    samples = core_order(order)
    dataset = samples.dataset
    if index == "auto":
        index = index_for(dataset, decoder, len(strings))
    elif index is not None and (
        isinstance(dataset, list) or index.dataset.fingerprint != dataset.fingerprint
    ):
        raise PileError(f"the index is of another dataset than the order ({order.name})")
    table, n_occurrences, n_unreached, searched = _core.order_when(
        samples,
        decoder,
        index,
        strings,
        n_steps * size,
        across_documents,
        max_occurrences,
        checked_threads(threads),
        on_progress,
    )
    sightings, n_beyond = _in_run(named(table, _SIGHTING), len(strings), n_steps * size)
    n_documents, n_tokens, n_without_bytes = searched.tolist()
    return When(
        texts=strings,
        sightings=with_steps(sightings, size),
        n_occurrences=n_occurrences,
        n_beyond=n_beyond,
        n_unreached=n_unreached,
        n_documents=n_documents,
        n_tokens=n_tokens,
        n_without_bytes=n_without_bytes,
        n_samples=n_steps * size,
        batch_size=size,
        by_index=index is not None,
        changed=() if has_ids else tuple(i for i, text in enumerate(strings) if text != as_written[i]),
    )


def when_bytes(
    order: Order,
    ranges: NDArray[np.int64],
    *,
    tokenizer: Tokenizer,
    batch_size: int | None = None,
    on_progress: OnProgress = None,
) -> Table:
    """Every time the model saw some bytes of documents: the `sightings` of `When` for their text there.

    Args:
        order: The order of the run.
        ranges: Document, first byte and end of each range: (n, 3) int64. `text` is the index of a range.
        tokenizer: Tokenizer that decodes the documents.
        batch_size: Samples of a step, by default the order's.
        on_progress: Called with the entries of the order read.

    Raises:
        ConfigError: There is no such document, a range has no byte, or no batch size is known.
        FormatError: The dataset is damaged.
        OSError: A file cannot be read.
    """
    n_steps, size = extent(order, batch_size)
    table = _core.order_sightings(core_order(order), tokenizer, ranges, on_progress)
    sightings, _ = _in_run(named(table, _SIGHTING), len(ranges), n_steps * size)
    return with_steps(sightings, size)


def _bytes_of(
    order: Order, number: int, text: str | bytes | Sequence[int], tokenizer: Tokenizer | None
) -> bytes:
    """The bytes to search: the normalized text, or the ids as the dataset stores them. Raises ConfigError."""
    if isinstance(text, (str, bytes)):
        try:
            return normalized(text, tokenizer)
        except ConfigError as err:
            raise ConfigError(f"text {number}: {err}") from err
    if np.ndim(text) != 1:
        raise ConfigError(f"text {number} is neither a text nor a list of ids")
    try:
        ids = ids_of(text)
    except ConfigError as err:
        raise ConfigError(f"text {number}: {err}") from err
    dtype = np.dtype(core_order(order).stored_dtype)
    limits = np.iinfo(dtype)
    wrong = ids[(ids < limits.min) | (ids > limits.max)]
    if len(wrong):
        raise ConfigError(f"id {wrong[0]} of text {number} cannot be stored as {dtype}")
    return ids.astype(dtype.newbyteorder("<")).tobytes()


def _in_run(sightings: Table, n_texts: int, n_samples: int) -> tuple[Table, NDArray[np.int64]]:
    """The sightings within the run, numbered, and by text the occurrences with a part after it."""
    # The parts of an occurrence follow each other, part 0 first.
    numbers = np.cumsum(sightings["part"] == 0) - 1
    is_seen = np.ones(int(numbers[-1]) + 1 if len(numbers) else 0, dtype=np.bool_)
    is_seen[numbers[sightings["sample"] >= n_samples]] = False
    firsts = sightings[sightings["part"] == 0]
    n_beyond = np.bincount(firsts["text"][~is_seen], minlength=n_texts).astype(np.int64)
    seen = sightings[is_seen[numbers]]
    return joined({"occurrence": np.cumsum(seen["part"] == 0) - 1}, seen), n_beyond
