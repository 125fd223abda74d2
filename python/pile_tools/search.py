"""Any n-gram or text in a dataset: how often, where, what follows, and what of a text stands in it verbatim.

>>> import pile_tools
>>> index = pile_tools.open_index("tokens/sample")  # doctest: +SKIP
>>> index.count("to be or not to be")  # doctest: +SKIP

A query is a text (`str`, or `bytes`), found where its bytes stand in the decoded text of one document
whatever the token borders, or ids, found where these ids stand. Overlapping occurrences count. Nothing is
found across documents. A `str` is normalized as the dataset's tokenizer normalizes text (see
`Index.normalize`); `bytes` and ids are taken as they are.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, publish
from pile_tools._core import SuffixIndex, TokenDataset, Tokenizer
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.publish import Target
from pile_tools.read.texts import encoded, normalized
from pile_tools.tables import Table, named
from pile_tools.terminal import shell_quote
from pile_tools.tokens import datasets
from pile_tools.types import AnyPath

#: A text, or ids.
Query: TypeAlias = str | bytes | Sequence[int] | NDArray[Any]

#: Occurrences beyond which places are not gathered rather than fill the memory.
MAX_PLACES = 100_000_000

#: Tokens that a scan goes through in the time in which an index finds a text.
TOKENS_PER_TEXT = 1 << 15


@dataclass(frozen=True)
class NextTokens:
    """What follows a context, over all its occurrences within documents.

    Attributes:
        ids: Ids that follow, the most frequent first: (n,) int64.
        counts: How often each does: (n,) int64.
        n_ends: Occurrences behind which the document ends.
        n_within: Occurrences of a text that end within a token: what follows is no whole token.
        n_context: Tokens at the context's end that were looked for; of a text, its bytes.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    n_ends: int
    n_within: int
    n_context: int

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Share of each id among those that follow; they sum to 1: (n,) float64."""
        shares: NDArray[np.float64] = self.counts / max(1, int(self.counts.sum()))
        return shares


@dataclass(frozen=True)
class Probability:
    """How often a token follows the longest part of a context that is followed by anything.

    Attributes:
        n_followed_by: Occurrences of that part with the token behind them.
        n_followed: Occurrences of it with any token of the same document behind them.
        n_context: Tokens of that part, the context's last ones.
    """

    n_followed_by: int
    n_followed: int
    n_context: int

    @property
    def value(self) -> float:
        """The probability; 0 for a dataset without tokens."""
        return self.n_followed_by / max(1, self.n_followed)


@dataclass(frozen=True)
class Span:
    """A part of a text that stands in the dataset.

    Attributes:
        start: Its first byte in the normalized text (`Index.normalize`), encoded as UTF-8.
        end: The byte behind its last.
        text: The part.
        count: How often it stands in the documents.
        rarity: How unlikely the tokens of its first place are if each came by its share of the dataset, in
            nats.
        places: Some of its places, see `Index.places`.
    """

    start: int
    end: int
    text: str
    count: int
    rarity: float
    places: Table


@dataclass(frozen=True)
class Index:
    """The index of a dataset, memory-mapped.

    Attributes:
        core: The index itself.
        manifest: What it was made from.
        given: The tokenizer that `open_index` was given, if any.
    """

    core: SuffixIndex
    manifest: Manifest
    given: Tokenizer | None = None

    @property
    def dataset(self) -> TokenDataset:
        """The dataset that is searched."""
        return self.core.dataset

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """What normalizes texts: the tokenizer given, or the one that the manifests name.

        None where that file is not here or has changed since, and for an index without texts.
        """
        if self.given is not None or not self.core.has_bytes:
            return self.given
        for made in (self.manifest, *datasets.manifests(Path(self.dataset.prefix))):
            entry = made.input("tokenizer")
            if entry is not None and manifest.input_path(made, entry).exists():
                found = Tokenizer.from_file(manifest.input_path(made, entry))
                return found if self.core.is_of(found) else None
        return None

    def normalize(self, text: str | bytes) -> bytes:
        """The bytes that a text is looked for by: what its tokens would decode to in the dataset.

        Where they are not the text's own, normalization changed the query. Bytes are taken as they are, and
        so is every text where `tokenizer` is None.
        """
        return normalized(text, self.tokenizer)

    def count(self, query: Query) -> int:
        """Occurrences of a text or of ids.

        Raises:
            ConfigError: It is empty; or it is a text, and the index was built without a tokenizer.
        """
        if isinstance(query, (str, bytes)):
            return self.core.count_text(self.normalize(query))
        return self.core.count(_ids_of(query))

    def count_batch(
        self, queries: Sequence[Query] | NDArray[Any], *, threads: int | None = None
    ) -> NDArray[np.int64]:
        """Occurrences of each of many queries, all of ids or all texts: (n,) int64.

        Args:
            queries: Ids as an array (n, length) of any integer type, or as sequences of any lengths; or
                texts.
            threads: By default all cores; the answer is the same for any number.

        Raises:
            ConfigError: One is empty.
        """
        if isinstance(queries, np.ndarray) and queries.ndim == 2:
            ids = np.ascontiguousarray(queries, dtype=np.int64).ravel()
            starts = np.arange(len(queries) + 1, dtype=np.int64) * queries.shape[1]
        elif any(isinstance(query, (str, bytes)) for query in queries):
            return np.array([self.count(query) for query in queries], dtype=np.int64)
        else:
            starts = np.zeros(len(queries) + 1, dtype=np.int64)
            np.cumsum([len(query) for query in queries], out=starts[1:])
            parts = [_ids_of(query) for query in queries]
            ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return self.core.count_batch(ids, starts, threads or os.cpu_count() or 1)

    def places(self, query: Query, *, max_places: int = MAX_PLACES) -> Table:
        """Every occurrence, in order, a row each.

        Columns: document, token (of the document, in which it begins), byte_of_token (its first byte in what
        that token decodes to; 0 for ids), n_tokens (from that token to the one in which it ends).

        Raises:
            ConfigError: The query is empty, or occurs more than `max_places` times.
        """
        if isinstance(query, (str, bytes)):
            return _place_table(self.core.locate_text(self.normalize(query), max_places))
        found = self.core.locate(_ids_of(query), max_places)
        more = np.tile(np.array([[0, len(query)]], dtype=np.int64), (len(found), 1))
        return _place_table(np.hstack([found, more]))

    def positions(
        self, ids: Sequence[int] | NDArray[Any], *, max_places: int = MAX_PLACES
    ) -> NDArray[np.int64]:
        """First tokens of every occurrence of ids among `dataset.tokens`, ascending: (n,) int64."""
        found = self.core.locate(_ids_of(ids), max_places)
        documents, where = np.unique(found[:, 0], return_inverse=True)
        firsts = np.array([self.dataset.first_token(int(document)) for document in documents], dtype=np.int64)
        positions: NDArray[np.int64] = (firsts[where] + found[:, 1]) if len(found) else found[:, 1]
        return positions

    def next_tokens(self, context: Query, *, longest: bool = False) -> NextTokens:
        """What follows ids, or a text wherever it stands; what follows no ids is how often each id occurs.

        With `longest`, what follows the longest part at the context's end that is followed by anything: an
        n-gram model of unbounded n (Liu et al. 2024, arXiv:2401.17377), within documents.

        Raises:
            ConfigError: An empty text, or one where the index was built without a tokenizer.
        """
        if isinstance(context, (str, bytes)):
            text = self.normalize(context).decode(errors="replace")
            return NextTokens(*self.core.next_after_text(text, longest))
        return NextTokens(*self.core.next_tokens(_ids_of(context), longest))

    def probability(self, context: Sequence[int] | NDArray[Any], next: int) -> Probability:
        """The probability of an id after the longest part of the context that is followed by anything."""
        return Probability(*self.core.probability(context, next))

    def documents(
        self, clauses: Sequence[Sequence[Query]], *, within: int | None = None, max_places: int = MAX_PLACES
    ) -> Table:
        """Documents that hold, for each clause, an occurrence of at least one of its queries: and over or.

        Exact: every occurrence is looked at. A row for each document: document, token and n_tokens of the
        shortest run of tokens that holds one occurrence of each clause whole; of several, the first.

        Args:
            clauses: Alternatives, texts or ids, of each clause.
            within: Only documents in which that run has so many tokens at most.

        Raises:
            ConfigError: No clauses, an empty clause or query, or one that occurs more than `max_places`
                times.
        """
        if any(len(clause) == 0 for clause in clauses):
            raise ConfigError("a clause is empty: no document could hold it")
        held = []
        for clause in clauses:
            places = np.concatenate([self.places(query, max_places=max_places) for query in clause])
            held.append(np.column_stack([places[name] for name in ("document", "token", "n_tokens")]))
        return named(_core.combine_occurrences(held, within), ("document", "token", "n_tokens"))

    def trace(
        self, text: str, *, min_bytes: int = 32, max_places: int = 10, threads: int | None = None
    ) -> list[Span]:
        """The maximal parts of a text that stand in a document verbatim, in order; none lies within another.

        After OLMoTrace (Liu et al. 2025, arXiv:2504.07096), but by bytes: a part may begin and end within
        tokens. The text is normalized first, and positions are in what comes of that: see `normalize`. At
        least half of `min_bytes` must be whole tokens of the document. From each byte, the 2,000
        occurrences that agree longest are looked at: of texts that repeat themselves without end, parts may
        be missed.

        Args:
            min_bytes: Bytes of the shortest part told.
            max_places: Places given of each; `count` counts all.

        Raises:
            ConfigError: The index was built without a tokenizer.
        """
        text = self.normalize(text).decode(errors="replace")
        held = encoded(text)
        spans = self.core.spans(text, min_bytes, threads or os.cpu_count() or 1)
        found = []
        # A text that repeats itself has the same part at many places.
        known: dict[bytes, tuple[int, Table, float]] = {}
        for start, end in spans.tolist():
            part = held[start:end]
            if part not in known:
                count, places = self.core.sample_text(part, max_places)
                table = _place_table(places)
                known[part] = count, table, self._rarity(table)
            count, table, rarity = known[part]
            found.append(Span(start, end, part.decode(), count, rarity, table))
        return found

    def _rarity(self, places: Table) -> float:
        """Minus the logarithm of the probability of a place's tokens, each by its share of the dataset."""
        if not len(places):
            return 0.0
        document, token, _, n_tokens = places[0].tolist()
        ids = self.dataset[document][token : token + n_tokens].astype(np.int64)
        shares = self.count_batch(ids[:, None], threads=1) / self.dataset.n_tokens
        return float(-np.log(shares).sum())


def folder_of(prefix: Path) -> Path:
    """Where the index of the dataset at `prefix` lies."""
    return datasets.with_suffix(prefix, ".index")


def open_index(prefix: AnyPath, *, tokenizer: Tokenizer | None = None) -> Index:
    """Opens the index of the dataset at a prefix (or the folder `PREFIX.index` itself), checked to be of that
    dataset.

    Args:
        tokenizer: What normalizes texts, by default the one that the index was built with.

    Raises:
        PileError: There is none.
        ConfigError: The tokenizer is not that of the index.
        FormatError: It was built for another dataset, or is damaged.
        OSError: A file cannot be read.
    """
    path = Path(prefix)
    if path.suffix == ".index" and path.is_dir():
        path = path.parent / path.name.removesuffix(".index")
    folder = folder_of(path)
    with publish.reading(Target.of(folder / MANIFEST_FILE)):
        found, core = _open_index(path, folder)
    if tokenizer is not None and core.has_bytes and not core.is_of(tokenizer):
        raise ConfigError(f"the index was built with another tokenizer ({folder})")
    return Index(core, found, tokenizer)


def _open_index(path: Path, folder: Path) -> tuple[Manifest, SuffixIndex]:
    if not (folder / MANIFEST_FILE).exists():
        if not datasets.with_suffix(path, ".idx").exists():
            raise FileNotFoundError(2, "No such file or directory", str(datasets.with_suffix(path, ".idx")))
        raise PileError(
            f"the dataset has no index yet; `pile-tools index {shell_quote(path)}` builds it ({folder})"
        )
    found = manifest.read(folder / MANIFEST_FILE)
    if found.kind != "index":
        raise FormatError(f"a manifest of kind {found.kind!r}, expected an index ({found.path})")
    return found, SuffixIndex(folder, TokenDataset(path))


def index_for(dataset: Any, tokenizer: Tokenizer | None, n_queries: int) -> SuffixIndex | None:
    """The index of a dataset where there is one that fits and is likely faster than a scan, or else None."""
    if not isinstance(dataset, TokenDataset) or n_queries * TOKENS_PER_TEXT > dataset.n_tokens:
        return None
    try:
        index = open_index(dataset.prefix).core
    except (PileError, OSError):
        return None
    return index if tokenizer is None or index.is_of(tokenizer) else None


def _ids_of(query: Query) -> NDArray[np.int64]:
    """Ids as int64. Raises ConfigError for what is no integer of 64 bits."""
    ids = np.asarray(query)
    if ids.size and (ids.dtype.kind not in "iu" or int(ids.max()) >= 2**63):
        raise ConfigError("an id is beyond 64 bits or no integer: no dataset holds it")
    return ids.astype(np.int64, copy=False)


def _place_table(rows: NDArray[np.int64]) -> Table:
    return named(rows, ("document", "token", "byte_of_token", "n_tokens"))
