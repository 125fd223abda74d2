"""Searches a token dataset by its suffix array: counts, occurrences, next tokens, verbatim spans of a text.

>>> import pile_tools
>>> index = pile_tools.open_index("tokens/sample")  # doctest: +SKIP
>>> index.count("to be or not to be")  # doctest: +SKIP

A query is a text (`str` or `bytes`) or a sequence of token ids. A text occurs wherever its bytes occur in the
decoded text of one document, whatever the token borders; ids occur wherever they follow each other in one
document. Overlapping occurrences all count. No occurrence spans two documents. A `str` is normalized as the
dataset's tokenizer normalizes text (see `Index.normalize`); `bytes` and ids are searched unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, publish
from pile_tools._core import SuffixIndex, TokenDataset, Tokenizer
from pile_tools.config import checked_threads
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.publish import Target
from pile_tools.read.texts import encoded, normalized
from pile_tools.tables import Table, named
from pile_tools.terminal import shell_quote
from pile_tools.tokenizers import load_tokenizer
from pile_tools.tokens import datasets
from pile_tools.types import AnyPath, listed

#: A text, or token ids of any integer type.
Query: TypeAlias = str | bytes | Sequence[int] | NDArray[np.integer[Any]]

#: Occurrences listed of a query at most: a table of more would exhaust the memory.
MAX_OCCURRENCES = 100_000_000

#: Tokens that a scan reads in the time that an index needs to find one text (measured).
TOKENS_PER_TEXT = 1 << 15


@dataclass(frozen=True)
class NextTokens:
    """The tokens that follow a context, over all its occurrences within documents.

    Attributes:
        ids: Ids of the next tokens, the most frequent first: (n,) int64.
        counts: Occurrences followed by each id: (n,) int64.
        n_ends: Occurrences at the end of their document.
        n_within: Occurrences of a text that end within a token, so that no whole token follows.
        n_context: Length of the suffix of the context that was searched: tokens, or bytes of a text.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    n_ends: int
    n_within: int
    n_context: int

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Share of each id among the next tokens: (n,) float64 with sum 1."""
        shares: NDArray[np.float64] = self.counts / max(1, int(self.counts.sum()))
        return shares


@dataclass(frozen=True)
class Probability:
    """How often a token follows the longest suffix of a context that any token follows.

    Attributes:
        n_followed_by: Occurrences of that suffix followed by the token.
        n_followed: Occurrences of that suffix followed by any token of the same document.
        n_context: Tokens of that suffix.
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
    """A span of a text that occurs verbatim in the dataset.

    Attributes:
        start: First byte in the UTF-8 of the normalized text (`Index.normalize`).
        end: End byte, exclusive.
        text: The text of the span.
        count: Occurrences in the documents.
        rarity: Negative log-likelihood, in nats, of the tokens of the first occurrence under the unigram
            distribution of the dataset.
        occurrences: Some of the occurrences, with the columns of `Index.occurrences`.
    """

    start: int
    end: int
    text: str
    count: int
    rarity: float
    occurrences: Table


@dataclass(frozen=True)
class Index:
    """The index of a dataset, memory-mapped.

    Attributes:
        core: The suffix array and its dataset.
        manifest: The index's manifest, which names the dataset, the tokenizer and the settings.
        given: The tokenizer passed to `open_index`, if any.
    """

    core: SuffixIndex
    manifest: Manifest
    given: Tokenizer | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Reopens the files; what tells whether they are the same ones goes with the prefix."""
        # The working folder may be another one then.
        prefix = Path(self.dataset.prefix).absolute()
        return _reopened, (prefix, self.manifest.sha256, self.given)

    @property
    def dataset(self) -> TokenDataset:
        """The dataset that is searched."""
        return self.core.dataset

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that normalizes texts: the one passed to `open_index`, or the one the manifests name.

        None if that file is missing or was changed since, and for an index that holds no texts.
        Raises FormatError for a file that is no longer a tokenizer.
        """
        if self.given is not None or not self.core.has_bytes:
            return self.given
        own = self.manifest.input("tokenizer")
        for made in (self.manifest, *datasets.manifests(Path(self.dataset.prefix))):
            entry = made.input("tokenizer")
            if entry is not None and (path := manifest.input_path(made, entry)).exists():
                found, read = manifest.read_input(Tokenizer.from_file, path, made.folder)
                # Another normalizer changes no id's bytes, by which the core knows its tokenizer. That of a
                # dataset that replaced this one may have another.
                is_same = (own or entry).get("sha256") in (None, read["sha256"])
                return found if is_same and self.core.is_of(found) else None
        return None

    def normalize(self, text: str | bytes) -> bytes:
        """The bytes searched for a text: those that its tokens in the dataset would decode to.

        They differ from the UTF-8 of `text` if normalization changes it. `bytes` are returned unchanged, and
        so is every text if `tokenizer` is None. Raises ConfigError for a `str` that is not valid Unicode.
        """
        return normalized(text, self.tokenizer)

    def count(self, query: Query) -> int:
        """The number of occurrences of a text or of token ids.

        Raises:
            ConfigError: The query is empty, or is a text while the index was built without a tokenizer.
        """
        if isinstance(query, (str, bytes)):
            return self.core.count_text(self.normalize(query))
        return self.core.count(ids_of(query))

    def count_batch(
        self,
        queries: str | bytes | Sequence[Query] | NDArray[np.integer[Any]],
        *,
        threads: int | None = None,
    ) -> NDArray[np.int64]:
        """The number of occurrences of each query: (n,) int64.

        Args:
            queries: Token ids, as an array (n, length) of any integer type or as sequences of any lengths; or
                texts. A single text is one query.
            threads: By default one for each core; the answer does not depend on it.

        Raises:
            ConfigError: A query is empty or has an id that is no integer of 64 bits, or is a text while the
                index was built without a tokenizer.
        """
        given: Sequence[Query] | NDArray[np.integer[Any]] = listed(queries)
        if isinstance(given, np.ndarray) and given.ndim == 2:
            ids = ids_of(given.ravel())
            starts = np.arange(len(given) + 1, dtype=np.int64) * given.shape[1]
        elif any(isinstance(query, (str, bytes)) for query in given):
            return np.array([self.count(query) for query in given], dtype=np.int64)
        else:
            starts = np.zeros(len(given) + 1, dtype=np.int64)
            parts = [ids_of(query) for query in given]
            np.cumsum([len(ids) for ids in parts], out=starts[1:])
            ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return self.core.count_batch(ids, starts, checked_threads(threads))

    def occurrences(self, query: Query, *, max_occurrences: int = MAX_OCCURRENCES) -> Table:
        """Every occurrence of a text or of token ids, by document and token: one row of int64 each.

        Columns: document, token (index in the document of the token that holds the first byte), byte_of_token
        (index of that byte in the decoded token; 0 for ids), n_tokens (tokens that the occurrence touches).

        Raises:
            ConfigError: The query is empty, occurs more than `max_occurrences` times, or is a text while the
                index was built without a tokenizer.
        """
        if isinstance(query, (str, bytes)):
            return _occurrence_table(self.core.locate_text(self.normalize(query), max_occurrences))
        found = self.core.locate(ids_of(query), max_occurrences)
        within_tokens = np.tile(np.array([[0, len(query)]], dtype=np.int64), (len(found), 1))
        return _occurrence_table(np.hstack([found, within_tokens]))

    def positions(
        self, ids: Sequence[int] | NDArray[np.integer[Any]], *, max_occurrences: int = MAX_OCCURRENCES
    ) -> NDArray[np.int64]:
        """The indices in `dataset.tokens` at which `ids` occur, ascending: (n,) int64.

        Raises:
            ConfigError: `ids` is empty, or occurs more than `max_occurrences` times.
        """
        found = self.core.locate(ids_of(ids), max_occurrences)
        documents, row_of = np.unique(found[:, 0], return_inverse=True)
        firsts = np.array([self.dataset.first_token(int(document)) for document in documents], dtype=np.int64)
        positions: NDArray[np.int64] = (firsts[row_of] + found[:, 1]) if len(found) else found[:, 1]
        return positions

    def next_tokens(self, context: Query, *, longest: bool = False) -> NextTokens:
        """The tokens that follow a text or token ids, with their counts.

        Every token of the dataset follows the empty sequence of ids.

        Args:
            longest: Shorten the context to its longest suffix that any token follows: an n-gram model of
                unbounded n (Liu et al. 2024, arXiv:2401.17377), within documents.

        Raises:
            ConfigError: The context is an empty text, bytes that are not UTF-8, or a text while the index was
                built without a tokenizer.
        """
        if isinstance(context, (str, bytes)):
            try:
                # With `longest`, the core shortens a text by whole characters.
                text = self.normalize(context).decode()
            except UnicodeDecodeError as err:
                raise ConfigError(f"the context is not UTF-8: {err.reason} at byte {err.start}") from err
            return NextTokens(*self.core.next_after_text(text, longest))
        return NextTokens(*self.core.next_tokens(ids_of(context), longest))

    def probability(self, context: Sequence[int] | NDArray[np.integer[Any]], next: int) -> Probability:
        """The probability of the id `next` after the longest suffix of the context that any token follows.

        Raises:
            ConfigError: An id is no integer of 64 bits.
        """
        return Probability(*self.core.probability(ids_of(context), int(ids_of([next])[0])))

    def documents(
        self,
        clauses: Sequence[str | bytes | Sequence[Query]],
        *,
        within: int | None = None,
        max_occurrences: int = MAX_OCCURRENCES,
    ) -> Table:
        """The documents that match a conjunction of clauses; a clause matches if any of its queries occurs.

        The result is exact: every occurrence is examined. Each row is a document with the columns document,
        token and n_tokens, int64: the first of the shortest runs of tokens that contain an occurrence of
        every clause.

        Args:
            clauses: The alternatives of each clause, texts or token ids. A single text is a whole clause.
            within: Only documents in which that run has at most this many tokens.

        Raises:
            ConfigError: There are no clauses, a clause or a query is empty, or a query occurs more than
                `max_occurrences` times.
        """
        alternatives = [listed(clause) for clause in listed(clauses)]
        if any(len(clause) == 0 for clause in alternatives):
            raise ConfigError("a clause is empty: no document can match it")
        columns = ("document", "token", "n_tokens")
        by_clause = []
        for clause in alternatives:
            found = [self.occurrences(query, max_occurrences=max_occurrences) for query in clause]
            occurrences = np.concatenate(found)
            by_clause.append(np.column_stack([occurrences[name] for name in columns]))
        return named(_core.combine_occurrences(by_clause, within), columns)

    def trace(
        self, text: str, *, min_bytes: int = 32, max_occurrences: int = 10, threads: int | None = None
    ) -> list[Span]:
        """The maximal spans of a text that occur verbatim in a document, by start; none contains another.

        After OLMoTrace (Liu et al. 2025, arXiv:2504.07096), but on bytes: a span may begin and end within
        tokens. The text is normalized first, and byte positions refer to the normalized text: see
        `normalize`. At least half of `min_bytes` must be whole tokens of the document. From each byte the
        2,000 occurrences with the longest match are examined, so spans of a very repetitive text may be
        missed.

        Args:
            min_bytes: Minimum bytes of a span.
            max_occurrences: Occurrences listed of each span at most; `count` includes all.
            threads: By default one for each core; the answer does not depend on it.

        Raises:
            ConfigError: `min_bytes` is 0, or the index was built without a tokenizer.
        """
        text = self.normalize(text).decode(errors="replace")
        data = encoded(text)
        spans = self.core.spans(text, min_bytes, checked_threads(threads))
        found = []
        # A repetitive text has many spans of the same bytes: each is looked up once.
        known: dict[bytes, tuple[int, Table, float]] = {}
        for start, end in spans.tolist():
            span = data[start:end]
            if span not in known:
                count, sampled = self.core.sample_text(span, max_occurrences)
                occurrences = _occurrence_table(sampled)
                known[span] = count, occurrences, self._rarity(occurrences)
            count, occurrences, rarity = known[span]
            found.append(Span(start, end, span.decode(), count, rarity, occurrences))
        return found

    def _rarity(self, occurrences: Table) -> float:
        """The negative log-likelihood of the first occurrence's tokens under the unigram distribution."""
        if not len(occurrences):
            return 0.0
        document, token, _, n_tokens = occurrences[0].tolist()
        ids = self.dataset[document][token : token + n_tokens].astype(np.int64)
        shares = self.count_batch(ids[:, None], threads=1) / self.dataset.n_tokens
        return float(-np.log(shares).sum())


def folder_of(prefix: Path) -> Path:
    """The folder of the index of the dataset at `prefix`."""
    return datasets.with_suffix(prefix, ".index")


def open_index(prefix: AnyPath, *, tokenizer: Tokenizer | None = None) -> Index:
    """The index of the dataset at a prefix, memory-mapped and checked against the dataset's fingerprint.

    Args:
        prefix: The dataset's prefix, or the folder `PREFIX.index`.
        tokenizer: The tokenizer that normalizes texts, by default the one that the index was built with.

    Raises:
        PileError: The dataset has no index.
        ConfigError: The index was built with another tokenizer.
        FormatError: The index was built for another dataset, or is damaged.
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


def _reopened(prefix: Path, sha256: str, tokenizer: Tokenizer | None) -> Index:
    """The index of a prefix. Raises PileError unless its manifest has this checksum, else as `open_index`."""
    found = open_index(prefix, tokenizer=tokenizer)
    if found.manifest.sha256 != sha256:
        raise PileError(f"was replaced since the index was opened; open it again ({found.manifest.path})")
    return found


def open_index_with(prefix: AnyPath, tokenizer: AnyPath | None) -> Index:
    """`open_index` with the tokenizer of a file, a folder or a model's id.

    Warns if it is not the file with which the dataset was made. Raises as `open_index` and `load_tokenizer`.
    """
    if tokenizer is None:
        return open_index(prefix)
    index = open_index(prefix, tokenizer=load_tokenizer(tokenizer))
    datasets.tokenizer_file(index.dataset, tokenizer)
    return index


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
    core = SuffixIndex(folder, TokenDataset(path))
    if (of := found.input("dataset")) is not None and not datasets.is_of(core.dataset, of):
        raise FormatError(f"built for another dataset than {path} is now; build it again ({folder})")
    return found, core


def index_for(dataset: object, tokenizer: Tokenizer | None, n_queries: int) -> SuffixIndex | None:
    """The index of a dataset, or None if none fits dataset and tokenizer or a scan is likely faster."""
    if not isinstance(dataset, TokenDataset) or n_queries * TOKENS_PER_TEXT > dataset.n_tokens:
        return None
    try:
        index = open_index(dataset.prefix).core
    except (PileError, OSError):
        return None
    # Whether dataset and index were replaced since the dataset was opened.
    is_other = index.dataset.fingerprint != dataset.fingerprint
    try:
        datasets.check_unchanged(dataset)
    except FormatError:
        is_other = True
    if is_other:
        return None
    return index if tokenizer is None or index.is_of(tokenizer) else None


def ids_of(query: Query) -> NDArray[np.int64]:
    """Token ids as int64. Raises ConfigError for a value that is no integer of 64 bits."""
    ids = np.asarray(query)
    if ids.size and (ids.dtype.kind not in "iu" or int(ids.max()) >= 2**63):
        raise ConfigError("an id is not an integer or is beyond 64 bits: no dataset holds it")
    if ids.ndim != 1:
        raise ConfigError("expected a sequence of token ids")
    return ids.astype(np.int64, copy=False)


def _occurrence_table(rows: NDArray[np.int64]) -> Table:
    return named(rows, ("document", "token", "byte_of_token", "n_tokens"))
