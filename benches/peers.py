"""The peers, and the fastest way to call each.

A peer is imported only when it is used, because its thread pool counts the processors when it starts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: The ids of all texts, concatenated, and the start of each text followed by the end of the last.
Flat = tuple[np.ndarray, np.ndarray]

OURS = "pile-tools"
REFERENCE = "tokenizers"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A way to encode a list of texts, with separate functions for loading, encoding and unpacking."""

    package: str
    modules: Sequence[str]
    load: Callable[[Path], Any]
    encode: Callable[[Any, list[str]], Any]
    flat: Callable[[Any], Flat]

    @property
    def is_installed(self) -> bool:
        return version(self.package) is not None

    def start(self) -> None:
        for module in self.modules:
            importlib.import_module(module)

    def loaded(self, tokenizer: Path) -> Any:
        """A tokenizer after a first call, which may set up threads or tables. Caches are almost empty."""
        loaded = self.load(tokenizer)
        self.encode(loaded, ["."])
        return loaded


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """The versions of the installed packages that take part."""
    packages = dict.fromkeys(
        [
            *(peer.package for peer in PEERS.values()),
            "numpy",
            "orjson",
            "zstandard",
            "rustbpe",
            "bpeasy",
            "tokengrams",
            "rensa",
            "datasketch",
            "torch",
            "kornia",
            "transformers",
            "accelerate",
            "deepspeed",
        ]
    )
    return {package: found for package in packages if (found := version(package))}


def installed(*names: str) -> dict[str, Peer]:
    """The installed peers among those with these names, or among all if no name is given."""
    return {name: PEERS[name] for name in names or PEERS if PEERS[name].is_installed}


def tokenize_shards(shards: list[Path], prefix: Path, tokenizer: Path, threads: int) -> None:
    """Runs the job of `pile-tools tokenize`."""
    from pile_tools.jobs.tokenize import TokenizeConfig, run

    run(shards, prefix, TokenizeConfig(tokenizer=tokenizer), threads=threads)


def eod(tokenizer: Path) -> int:
    """The id of the end-of-document token of our datasets."""
    return int(_pile_tools(tokenizer).eod[1])


def gigatoken_shards(shards: list[Path], tokenizer: Path, *, parallel: bool) -> Any:
    """Runs the most similar job of gigatoken, which leaves the ids in memory and writes nothing."""
    import gigatoken

    source = gigatoken.JsonlFileSource(shards)
    return gigatoken.Tokenizer(tokenizer).encode_files(source, parallel=parallel)


def flat_awkward(rows: Any) -> Flat:
    layout = rows.layout.to_packed()
    return np.asarray(layout.content.data), np.asarray(layout.offsets.data)


def flat_lists(rows: Iterable[Sequence[int]]) -> Flat:
    arrays = [np.asarray(row, dtype=np.uint32) for row in rows]
    return np.concatenate(arrays), offsets_of([len(array) for array in arrays])


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _pile_tools(tokenizer: Path) -> Any:
    import pile_tools

    return pile_tools.Tokenizer.from_file(tokenizer)


def _gigatoken(tokenizer: Path) -> Any:
    import gigatoken

    return gigatoken.Tokenizer(tokenizer)


def _fastokens(tokenizer: Path) -> Any:
    import fastokens

    return fastokens.Tokenizer.from_file(str(tokenizer))


def _splintr(tokenizer: Path) -> Any:
    import splintr

    return splintr.from_json(str(tokenizer))


def _flat_splintr(result: tuple[bytes, bytes]) -> Flat:
    return np.frombuffer(result[0], np.uint32), np.frombuffer(result[1], np.uint64)


def _tokie(tokenizer: Path) -> Any:
    import tokie

    return tokie.Tokenizer.from_json(str(tokenizer))


def _tiktoken(tokenizer: Path) -> Any:
    """A tiktoken encoding with GPT-2's pattern and the file's ranks, without a normalizer or added tokens."""
    import tiktoken
    import tiktoken_ext.openai_public as published

    file = json.loads(tokenizer.read_text())
    added = {token["content"] for token in file["added_tokens"]}
    spelling, vocab = _spelling(), file["model"]["vocab"]
    ranks = {bytes(spelling[char] for char in token): id for token, id in vocab.items() if token not in added}
    return tiktoken.Encoding("peer", pat_str=published.r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


def _spelling() -> dict[str, int]:
    """The byte of each character of GPT-2's printable alphabet of bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _tokenizers(tokenizer: Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(tokenizer))


def _datatrove(tokenizer: Path) -> Any:
    from datatrove.utils.tokenization import load_tokenizer

    return load_tokenizer(str(tokenizer))


#: Documents per call of `tokenizers`. Its encodings take a hundred bytes a token: all would take gigabytes.
BATCH = 1000


def in_batches(encode: Callable[[list[str]], Any], texts: list[str]) -> list[list[int]]:
    starts = range(0, len(texts), BATCH)
    return [encoding.ids for start in starts for encoding in encode(texts[start : start + BATCH])]


PEERS = {
    OURS: Peer(
        package="pile-tools",
        modules=["pile_tools", "pile_tools.jobs.tokenize"],
        load=_pile_tools,
        encode=lambda tokenizer, texts: tokenizer.encode_batch(texts),
        flat=lambda result: result,
    ),
    "gigatoken": Peer(
        package="gigatoken",
        modules=["gigatoken", "awkward"],
        load=_gigatoken,
        encode=lambda tokenizer, texts: tokenizer.encode_batch(texts),
        flat=flat_awkward,
    ),
    "gigatoken, parallel=False": Peer(
        package="gigatoken",
        modules=["gigatoken", "awkward"],
        load=_gigatoken,
        encode=lambda tokenizer, texts: tokenizer.encode_batch(texts, parallel=False),
        flat=flat_awkward,
    ),
    "fastokens": Peer(
        package="fastokens",
        modules=["fastokens"],
        load=_fastokens,
        encode=lambda tokenizer, texts: tokenizer.encode_batch(texts, add_special_tokens=False),
        flat=lambda result: flat_lists(encoding.ids for encoding in result),
    ),
    "splintr-rs": Peer(
        package="splintr-rs",
        modules=["splintr"],
        load=_splintr,
        encode=lambda tokenizer, texts: tokenizer.encode_batch_flat(texts),
        flat=_flat_splintr,
    ),
    "tokie": Peer(
        package="tokie",
        modules=["tokie"],
        load=_tokie,
        encode=lambda tokenizer, texts: tokenizer.encode_batch_flat(texts, add_special_tokens=False),
        flat=lambda result: (result[0], offsets_of(result[1])),
    ),
    "tiktoken": Peer(
        package="tiktoken",
        modules=["tiktoken", "tiktoken_ext.openai_public"],
        load=_tiktoken,
        encode=lambda tokenizer, texts: tokenizer.encode_ordinary_batch(texts, num_threads=1),
        flat=flat_lists,
    ),
    REFERENCE: Peer(
        package="tokenizers",
        modules=["tokenizers"],
        load=_tokenizers,
        encode=lambda tokenizer, texts: in_batches(
            lambda some: tokenizer.encode_batch_fast(some, add_special_tokens=False), texts
        ),
        flat=flat_lists,
    ),
    "datatrove": Peer(
        package="datatrove",
        modules=["datatrove.utils.tokenization", "tokenizers"],
        load=_datatrove,
        encode=lambda tokenizer, texts: in_batches(tokenizer.encode_batch, texts),
        flat=flat_lists,
    ),
}
