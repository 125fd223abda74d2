"""When the model saw a text: every occurrence in the rows of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core
from pile_tools._core import SuffixIndex, Tokenizer
from pile_tools.errors import ConfigError
from pile_tools.order.order import Order
from pile_tools.read.texts import normalized
from pile_tools.search import MAX_PLACES, index_for
from pile_tools.tables import Table, named
from pile_tools.timeline.checkpoints import Intervals
from pile_tools.timeline.steps import core_order, extent, joined, with_steps
from pile_tools.types import OnProgress

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


@dataclass(frozen=True)
class When:
    """Every time the model saw some texts.

    Attributes:
        texts: The bytes that were looked for: normalized texts, or stored ids.
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
        changed: Numbers of the texts that normalization changed, ascending.
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
    changed: tuple[int, ...] = ()

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
    of ids occur where these ids stand. Texts and ids cannot be mixed in one call. A `str` is normalized as
    the tokenizer normalizes text; bytes are taken as they are.

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
    decoder = None if any(is_ids) else tokenizer or order.tokenizer()
    strings = [_bytes_of(order, number, text, decoder) for number, text in enumerate(texts)]
    as_written = [text.encode() if isinstance(text, str) else text for text in texts]
    samples = core_order(order)
    dataset = samples.dataset
    if index == "auto":
        index = index_for(dataset, decoder, len(strings))
    elif index is not None and (
        isinstance(dataset, list) or index.dataset.fingerprint != dataset.fingerprint
    ):
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
        sightings=with_steps(sightings, size),
        n_places=n_places,
        n_beyond=n_beyond,
        n_unreached=n_unreached,
        n_documents=n_documents,
        n_tokens=n_tokens,
        n_without_bytes=n_without_bytes,
        n_samples=n_steps * size,
        batch_size=size,
        by_index=index is not None,
        changed=tuple(i for i, text in enumerate(strings) if not any(is_ids) and text != as_written[i]),
    )


def _bytes_of(
    order: Order, number: int, text: str | bytes | Sequence[int], tokenizer: Tokenizer | None
) -> bytes:
    """A text as the bytes that the documents hold, ids as they are stored."""
    if isinstance(text, (str, bytes)):
        try:
            return normalized(text, tokenizer)
        except ConfigError as err:
            raise ConfigError(f"text {number}: {err}") from err
    try:
        ids = np.asarray(text, dtype=np.int64)
    except OverflowError as err:
        raise ConfigError(f"an id of text {number} is beyond 64 bits") from err
    dtype = np.dtype(core_order(order).stored_dtype)
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
    return joined({"occurrence": np.cumsum(seen["part"] == 0) - 1}, seen), n_beyond
