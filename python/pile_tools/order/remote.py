"""Reads rows of tokens from a server by HTTP range requests: a step of Pythia is 4 MB, its data 600 GB.

Addresses are `https://HOST/.../NAME-00000-of-000NN.bin` (any shard of a file, or a whole file) and
`hf://datasets/OWNER/NAME[@REVISION][/FOLDER]`. `HF_ENDPOINT` and `HF_TOKEN` mean what they mean in
`huggingface_hub`.
"""

from __future__ import annotations

import json
import re
import struct
import urllib.parse
from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import http_client
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError
from pile_tools.http_client import MAX_FILE_BYTES, shown
from pile_tools.http_reads import ServerReader
from pile_tools.types import Origin, Tokens

#: Maximum shards of a file.
MAX_SHARDS = 100_000

#: Tokens of a row and their type in Pythia's published data.
_ROW_LENGTH, _DTYPE = 2049, "uint16"

#: Sequence lengths read from an index to distinguish rows from documents.
_N_LENGTHS = 1024

#: `last` is the number of the last shard, not their count: Pythia's 21 are 00000-of-00020 to 00020-of-00020.
_SHARD = re.compile(r"(?P<base>.*)-(?P<number>[0-9]{5,9})-of-(?P<last>[0-9]{5,9})\.bin", re.DOTALL)
_IDX_HEADER = struct.Struct("<9sQBQQ")


def is_address(text: str) -> bool:
    """Whether a text is written as the address of rows on a server, not as a path."""
    return re.match(r"(https?|hf)://", text, re.IGNORECASE) is not None


class RemoteRows:
    """Rows of equal length in the shards of a file on a server, in training order.

    The interface is that of `TrainingOrder`, but documents and subsets are unknown. A read requests only the
    bytes of its rows, from the shards that hold them.
    """

    def __init__(self, address: str, row_length: int | None = None, dtype: str | None = None) -> None:
        """Finds the shards and their sizes with one to three small requests, redirects aside.

        Args:
            address: The address of a shard, a file or a folder, see the module.
            row_length: Tokens of a row, by default Pythia's 2,049; then an index that the Hub lists beside
                the shards must describe such rows.
            dtype: Type of a token, `uint16` or `int32`, by default that of the index, or `uint16`.

        Raises:
            ConfigError: The address, row length or type is none of these.
            FormatError: The server does not support range requests, or the shards are incomplete, have wrong
                sizes or hold documents.
            OSError: The server cannot be reached.
        """
        if row_length is not None and row_length < 2:
            raise ConfigError(f"row-length must be at least 2, got {row_length}")
        if dtype not in (None, "uint16", "int32"):
            raise ConfigError(f"tokens of type {dtype!r}, expected uint16 or int32")
        self.address, self._server = address, ServerReader()
        self._urls, sizes, index = self._find(address)
        if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0] or (len(sizes) > 1 and sizes[-1] == 0):
            some = ", ".join(f"{size:,}" for size in sizes[:20]) + (", ..." if len(sizes) > 20 else "")
            raise FormatError(f"the shards have inconsistent sizes: {some} bytes ({address})")
        if sum(sizes) > MAX_FILE_BYTES:
            raise FormatError(f"{sum(sizes):,} bytes are more than the maximum of a file ({address})")
        if index is not None and row_length is None:
            dtype = self._check_rows(index, sum(sizes), dtype)
        elif index is not None and dtype is None:
            dtype = self._read_header(index)[0]
        self.row_length, self._dtype = row_length or _ROW_LENGTH, np.dtype(dtype or _DTYPE)
        self._starts = [0]
        for size in sizes:
            self._starts.append(self._starts[-1] + size)
        rows, rest = divmod(self._starts[-1], self._row_bytes)
        if rest:
            raise FormatError(
                f"{self._starts[-1]:,} bytes are not a whole number of rows of {self.row_length} "
                f"{self.dtype} tokens: truncated, or of another row length ({address})"
            )
        self._n_rows = rows

    @property
    def _row_bytes(self) -> int:
        return self.row_length * self._dtype.itemsize

    @property
    def bytes_moved(self) -> int:
        """Bytes that the server has sent."""
        return self._server.bytes_moved

    @property
    def seq_length(self) -> int:
        """Tokens that the model sees at once; rows are one longer."""
        return self.row_length - 1

    @property
    def sample_length(self) -> int:
        """Tokens of a row."""
        return self.row_length

    @property
    def dataset(self) -> RemoteRows:
        """These rows, as their documents are unknown."""
        return self

    @property
    def prefix(self) -> str:
        """The address."""
        return self.address

    @property
    def dtype(self) -> str:
        """`uint16` or `int32`."""
        return self._dtype.name

    @property
    def subsets(self) -> list[str]:
        """An empty list: subsets are unknown."""
        return []

    @property
    def has_provenance(self) -> bool:
        """False: the origin of rows is unknown."""
        return False

    @property
    def fingerprint(self) -> str:
        """A digest of the address and the number of bytes there: the rows themselves are not read."""
        return fingerprint({"address": self.address, "bytes": self._starts[-1]})

    def origin(self, document: int, /) -> Origin | None:
        """None: the origin of rows is unknown."""
        return None

    def subset_numbers(self, documents: NDArray[np.int64], /) -> NDArray[np.int32]:
        """-1 for each document, as subsets are unknown: (n,) int32."""
        return np.full(len(documents), -1, np.int32)

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, sample: int) -> Tokens:
        index = sample + self._n_rows if sample < 0 else sample
        if not 0 <= index < self._n_rows:
            raise IndexError(f"{sample} is out of range for {self._n_rows}")
        row: Tokens = self.read(index, 1)[0]
        return row

    def read(self, first: int, n: int) -> Tokens:
        """The rows [first, first + n): (n, row_length). Raises ConfigError, FormatError, OSError."""
        if not 0 <= first <= first + n <= self._n_rows:
            raise ConfigError(f"no {n} samples from {first}: the order has {self._n_rows}")
        data = self._bytes(first * self._row_bytes, n * self._row_bytes)
        return np.frombuffer(data, self._dtype).reshape(n, self.row_length)

    def take(self, indices: NDArray[np.int64], /) -> Tokens:
        """The rows at these indices: (n,) int64 -> (n, row_length).

        Raises:
            IndexError: An index is out of range.
            FormatError: The server's responses do not fit the file.
            OSError: The server cannot be reached.
        """
        rows = np.empty((len(indices), self.row_length), self._dtype)
        for row, index in enumerate(indices.tolist()):
            rows[row] = self[index]
        return rows

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """One span for each row, with the unknown document -1: (n, 4) int64, row, document, start, tokens."""
        if not 0 <= first <= first + n <= self._n_rows:
            raise ConfigError(f"no {n} samples from {first}: the order has {self._n_rows}")
        return np.stack(
            [np.arange(n), np.full(n, -1), np.zeros(n, np.int64), np.full(n, self.row_length)], axis=1
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteRows, (self.address, self.row_length, self._dtype.name)

    def _bytes(self, start: int, n: int) -> bytearray:
        """The bytes [start, start + n) of the file: a bytearray, as interventions change rows in place."""
        data = bytearray()
        while len(data) < n:
            at = start + len(data)
            shard = bisect_right(self._starts, at) - 1
            end = min(start + n, self._starts[shard + 1])
            size = self._starts[shard + 1] - self._starts[shard]
            first = at - self._starts[shard]
            data += self._server.range(self._urls[shard], first, end - at, size)
        return data

    def _find(self, address: str) -> tuple[list[str], list[int], str | None]:
        """The addresses of the shards, their sizes, and the address of the index if the Hub lists one."""
        if address.lower().startswith("hf://"):
            return self._find_on_hub(address)
        parts = urllib.parse.urlsplit(http_client.checked_address(address))
        found = _SHARD.fullmatch(parts.path)
        if found is None:
            if parts.path.endswith(".bin"):
                url = urllib.parse.urlunsplit(parts)
                return [url], [self._server.size(url)], None
            raise ConfigError(
                f"expected the address of a shard, .../NAME-00000-of-000NN.bin, or of a file .bin ({address})"
            )
        n_shards = int(found["last"]) + 1
        if n_shards > MAX_SHARDS:
            raise ConfigError(f"names {n_shards:,} shards, a file has at most {MAX_SHARDS:,} ({address})")
        urls = []
        for number in range(n_shards):
            path = f"{found['base']}-{number:05}-of-{found['last']}.bin"
            urls.append(urllib.parse.urlunsplit(parts._replace(path=path)))
        first = self._server.size(urls[0])
        # All shards but the last have the size of the first: each read checks the size of its shard.
        sizes = [first] * (n_shards - 1) + [self._server.size(urls[-1]) if n_shards > 1 else first]
        return urls, sizes, None

    def _find_on_hub(self, address: str) -> tuple[list[str], list[int], str | None]:
        found = re.fullmatch(
            r"(?i:hf)://datasets/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^/?#]+))?(?:/([^?#]*?))?/?",
            address,
            re.A,
        )
        folder = (found and found[3]) or ""
        if (
            found is None
            or not address.isprintable()
            or {"", ".", ".."} & set(folder.split("/") if folder else ())
        ):
            raise ConfigError(f"expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER], got {shown(address)}")
        name, revision = found[1], urllib.parse.quote(found[2] or "main", safe="")
        hub = http_client.checked_address(http_client.hub())
        listing = f"{hub}/api/datasets/{name}/tree/{revision}/{urllib.parse.quote(folder)}".rstrip("/")
        files = _listed(self._server.listing(listing), folder, listing)
        shards = {path: size for path, size in files.items() if _SHARD.fullmatch(path)}
        shards = shards or {path: size for path, size in files.items() if path.endswith(".bin")}
        names = sorted(shards)
        base = _checked_names(names, address)
        base_url = f"{hub}/datasets/{name}/resolve/{revision}/"
        index = f"{base_url}{urllib.parse.quote(base)}.idx" if f"{base}.idx" in files else None
        urls = [base_url + urllib.parse.quote(path) for path in names]
        return urls, [shards[path] for path in names], index

    def _check_rows(self, index: str, n_bytes: int, dtype: str | None) -> str:
        """The type of the tokens in `index`. Raises FormatError if the index does not describe rows."""
        named, n = self._read_header(index)
        if named is None:
            raise FormatError(f"not an index of a GPT-NeoX dataset ({index})")
        n_lengths = min(n, _N_LENGTHS)
        lengths = self._server.range(index, _IDX_HEADER.size, 4 * n_lengths) if n_lengths else b""
        are_rows = all(length == _ROW_LENGTH for length in np.frombuffer(lengths, "<i4").tolist())
        if not are_rows or n * _ROW_LENGTH * np.dtype(named).itemsize != n_bytes:
            raise FormatError(
                f"this index describes documents, not rows of {_ROW_LENGTH} tokens in training order; "
                f"download them and build an order, or give the length of their rows ({index})"
            )
        return dtype or named

    def _read_header(self, index: str) -> tuple[str | None, int]:
        """The type of the tokens and the number of sequences; no type if it is no index of such tokens."""
        magic, _, code, n, _ = _IDX_HEADER.unpack(self._server.range(index, 0, _IDX_HEADER.size))
        named = {8: "uint16", 4: "int32"}.get(code)
        return (named if magic == b"MMIDIDX\0\0" else None), n


def _listed(answer: bytes, folder: str, url: str) -> dict[str, int]:
    """The sizes of a folder's files by name, from a listing of the Hub. Raises FormatError."""

    def wrong(what: str) -> FormatError:
        return FormatError(f"not a listing of files: {what} ({url})")

    try:
        entries = json.loads(answer)
    except (ValueError, RecursionError) as err:
        raise wrong(shown(str(err))) from err
    if not isinstance(entries, list):
        raise wrong("expected an array")
    files: dict[str, int] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise wrong("expected objects with a type")
        if entry["type"] != "file":
            continue
        path, size = entry.get("path"), entry.get("size")
        if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool):
            raise wrong("expected files with path and size")
        name = path.removeprefix(f"{folder}/") if folder else path
        if not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise wrong(f"{shown(path)!r} is not the name of a file in this folder")
        if not 0 <= size <= MAX_FILE_BYTES:
            raise wrong(f"{shown(path)!r} has {shown(str(size)[:40])} bytes")
        if path in files:
            raise wrong(f"{shown(path)!r} occurs twice")
        files[path] = size
    return files


def _checked_names(names: list[str], address: str) -> str:
    """The name of a token file without `.bin`, from its own name or the names of its shards.

    Raises FormatError if the names are not those of one file or of all its shards.
    """
    if not names:
        raise FormatError(f"no .bin files here ({address})")
    found = _SHARD.fullmatch(names[0])
    if found is None:
        if len(names) > 1:
            raise FormatError(f"{len(names)} .bin files, expected one or its shards ({address})")
        return names[0].removesuffix(".bin")
    base, last = found["base"], int(found["last"])
    # Iterate over the names listed: the number of shards in a name is not trusted.
    for number, name in enumerate(names):
        expected = f"{base}-{number:05}-of-{found['last']}.bin"
        if name != expected:
            if not name.startswith(f"{base}-") or number > last:
                raise FormatError(f"shards of more than one file; give the folder of one file ({address})")
            raise FormatError(f"{expected} is missing, one of {last + 1:,} shards ({address})")
    if len(names) <= last:
        expected = f"{base}-{len(names):05}-of-{found['last']}.bin"
        raise FormatError(f"{expected} is missing, one of {last + 1:,} shards ({address})")
    return base
