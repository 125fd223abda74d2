"""Rows of tokens read over HTTP by ranges: one step of Pythia is 4 MB, its data 600 GB.

Addresses are `https://HOST/.../NAME-00000-of-000NN.bin` (any shard of a file, or a whole one) and
`hf://datasets/OWNER/NAME[@REVISION][/FOLDER]`. `HF_ENDPOINT` and `HF_TOKEN` are as in `huggingface_hub`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools.errors import ConfigError, FormatError
from pile_tools.types import Origin, Tokens

#: Tries before a read is given up, and seconds to wait after the first that failed, doubled after each.
TRIES, FIRST_WAIT = 5, 0.5
TIMEOUT_SECONDS = 60

_SHARD = re.compile(r"(?P<base>.*)-(?P<number>\d{5,9})-of-(?P<last>\d{5,9})\.bin")
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class RemoteRows:
    """Rows of equal length in the shards of a file on a server, in training order.

    Has what `TrainingOrder` has, as far as rows can tell: no documents, no subsets. Only the shards that a
    read touches are asked, and only for the bytes of the rows.
    """

    def __init__(self, address: str, row_length: int = 2049, dtype: str = "uint16") -> None:
        """Finds the shards and their sizes: two or three small requests.

        Raises:
            ConfigError: Not such an address.
            FormatError: The server does not read by ranges, or shards are missing or of wrong sizes.
            OSError: The server cannot be reached.
        """
        if row_length < 2:
            raise ConfigError(f"row-length must be at least 2, got {row_length}")
        self.address, self.row_length, self._dtype = address, row_length, np.dtype(dtype)
        self.bytes_moved = 0
        self._urls, sizes = self._find(address)
        if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
            raise FormatError(f"the shards have sizes that do not belong together: {sizes} ({address})")
        self._starts = [0]
        for size in sizes:
            self._starts.append(self._starts[-1] + size)
        rows, rest = divmod(self._starts[-1], self._row_bytes)
        if rest:
            raise FormatError(
                f"{self._starts[-1]:,} bytes are no whole number of rows of {row_length} {dtype} tokens: "
                f"cut short, or of another row length ({address})"
            )
        self._n_rows = rows

    @property
    def _row_bytes(self) -> int:
        return self.row_length * self._dtype.itemsize

    @property
    def seq_length(self) -> int:
        """Tokens the model sees at once; rows are one longer."""
        return self.row_length - 1

    @property
    def sample_length(self) -> int:
        """Tokens of a row."""
        return self.row_length

    @property
    def dataset(self) -> RemoteRows:
        """These rows: no documents are known."""
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
        """None are known."""
        return []

    @property
    def has_provenance(self) -> bool:
        """No."""
        return False

    def origin(self, document: int) -> Origin | None:
        """Not known."""
        return None

    def subset_numbers(self, documents: NDArray[np.int64]) -> NDArray[np.int32]:
        """None are known: -1 each."""
        return np.full(len(documents), -1, np.int32)

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, sample: int) -> Tokens:
        place = sample + self._n_rows if sample < 0 else sample
        if not 0 <= place < self._n_rows:
            raise IndexError(f"{sample} is out of range for {self._n_rows}")
        row: Tokens = self.samples(place, 1)[0]
        return row

    def samples(self, first: int, n: int) -> Tokens:
        """`n` rows from `first`: (n, row_length). Raises ConfigError, FormatError, OSError."""
        if not 0 <= first <= first + n <= self._n_rows:
            raise ConfigError(f"no {n} samples from {first}: the order has {self._n_rows}")
        data = self._bytes(first * self._row_bytes, n * self._row_bytes)
        return np.frombuffer(data, self._dtype).reshape(n, self.row_length)

    def take(self, places: NDArray[np.int64]) -> Tokens:
        """Rows at any places."""
        rows = np.empty((len(places), self.row_length), self._dtype)
        for row, place in enumerate(places.tolist()):
            rows[row] = self[place]
        return rows

    def spans(self, first: int, n: int) -> NDArray[np.int64]:
        """Each row whole, its document -1: unknown."""
        if not 0 <= first <= first + n <= self._n_rows:
            raise ConfigError(f"no {n} samples from {first}: the order has {self._n_rows}")
        return np.stack(
            [np.arange(n), np.full(n, -1), np.zeros(n, np.int64), np.full(n, self.row_length)], axis=1
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteRows, (self.address, self.row_length, self._dtype.name)

    def _bytes(self, start: int, n: int) -> bytearray:
        data = bytearray()
        while len(data) < n:
            at = start + len(data)
            shard = bisect_right(self._starts, at) - 1
            end = min(start + n, self._starts[shard + 1])
            size = self._starts[shard + 1] - self._starts[shard]
            first = at - self._starts[shard]
            data += self._range(self._urls[shard], first, end - at, size)
        return data

    def _find(self, address: str) -> tuple[list[str], list[int]]:
        if address.startswith("hf://"):
            return self._find_on_hub(address)
        parts = urllib.parse.urlsplit(address)
        found = _SHARD.fullmatch(parts.path)
        if found is None:
            if parts.path.endswith(".bin"):
                return [address], [self._size(address)]
            raise ConfigError(
                f"which files? Over HTTP give the address of a shard, .../NAME-00000-of-000NN.bin ({address})"
            )
        urls = []
        for number in range(int(found["last"]) + 1):
            path = f"{found['base']}-{number:05}-of-{found['last']}.bin"
            urls.append(urllib.parse.urlunsplit(parts._replace(path=path)))
        first = self._size(urls[0])
        # All but the last are as long as the first; each read proves it of the shard it touches.
        sizes = [first] * (len(urls) - 1) + [self._size(urls[-1]) if len(urls) > 1 else first]
        return urls, sizes

    def _find_on_hub(self, address: str) -> tuple[list[str], list[int]]:
        found = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*?))?/?", address)
        if found is None:
            raise ConfigError(f"expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER], got {address}")
        name, revision, folder = found[1], found[2] or "main", found[3] or ""
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        listing = f"{endpoint}/api/datasets/{name}/tree/{urllib.parse.quote(revision, safe='')}/{folder}"
        try:
            entries = json.loads(self._get(listing.rstrip("/"), {}))
            files = {entry["path"]: int(entry["size"]) for entry in entries if entry["type"] == "file"}
        except (ValueError, KeyError, TypeError) as err:
            raise FormatError(f"not a listing of files: {err} ({listing})") from err
        shards = {path: size for path, size in files.items() if _SHARD.fullmatch(path)}
        shards = shards or {path: size for path, size in files.items() if path.endswith(".bin")}
        names = sorted(shards)
        self._check_names(names, address)
        base = f"{endpoint}/datasets/{name}/resolve/{urllib.parse.quote(revision, safe='')}/"
        return [base + urllib.parse.quote(path) for path in names], [shards[path] for path in names]

    def _check_names(self, names: list[str], address: str) -> None:
        if not names:
            raise FormatError(f"no .bin files there ({address})")
        found = _SHARD.fullmatch(names[0])
        if found is None:
            if len(names) > 1:
                raise FormatError(f"{len(names)} .bin files, expected one or its shards ({address})")
            return
        expected = [
            f"{found['base']}-{number:05}-of-{found['last']}.bin" for number in range(int(found["last"]) + 1)
        ]
        missing = [name for name in expected if name not in names]
        if missing:
            raise FormatError(f"{missing[0]} is missing of {len(expected)} shards ({address})")
        if names != expected:
            raise FormatError(f"shards of more than one file; name their folder ({address})")

    def _size(self, url: str) -> int:
        """Bytes of a file, by asking for its first."""
        self._total = -1
        self._range(url, 0, 1, None)
        return self._total

    def _range(self, url: str, start: int, n: int, size: int | None) -> bytes:
        """`n` bytes of a file that must have `size` bytes in all; goes on where a connection is cut."""
        data = bytearray()

        def more() -> None:
            first = start + len(data)
            with self._open(url, {"Range": f"bytes={first}-{start + n - 1}"}) as answer:
                total = _check_answer(answer, first, start + n - 1, url)
                if size is not None and total != size:
                    raise FormatError(
                        f"has {total:,} bytes, expected {size:,}: it is cut short or another ({url})"
                    )
                self._total = total
                while len(data) < n:
                    part = answer.read(min(n - len(data), 1 << 20))
                    if not part:
                        raise http.client.IncompleteRead(bytes(data), n - len(data))
                    self.bytes_moved += len(part)
                    data.extend(part)

        _tried(more, url)
        return bytes(data)

    def _get(self, url: str, headers: dict[str, str]) -> bytes:
        answers = []

        def get() -> None:
            with self._open(url, headers) as answer:
                answers.append(answer.read())
                self.bytes_moved += len(answers[-1])

        _tried(get, url)
        return bytes(answers[-1])

    def _open(self, url: str, headers: dict[str, str]) -> Any:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ConfigError(f"expected an address of http:// or https:// ({url})")
        request = urllib.request.Request(url, headers={"User-Agent": "pile-tools", **headers})
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        if (token := os.environ.get("HF_TOKEN")) and url.startswith(endpoint + "/"):
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


def _check_answer(answer: Any, first: int, last: int, url: str) -> int:
    """The file's size as the answer to a range says it. Raises FormatError where the answer is another."""
    if answer.status != 206:
        raise FormatError(
            f"the server sends whole files instead of ranges (status {answer.status}): "
            f"download it, or take another server ({url})"
        )
    said = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) != (first, last):
        raise FormatError(
            f"asked for bytes {first}-{last}, the server answers {said!r}: it is cut short ({url})"
        )
    return int(found[3])


def _tried(job: Any, url: str) -> None:
    """Runs `job`, again after failures that pass; says after the last what failed."""
    wait = FIRST_WAIT
    for left in reversed(range(TRIES)):
        try:
            return job()  # type: ignore[no-any-return]
        except urllib.error.HTTPError as err:
            failure: Exception = err
            err.close()
            if err.code == 416:
                raise FormatError(
                    f"the file ends before the bytes asked for: it is cut short ({url})"
                ) from err
            if err.code not in _TRANSIENT:
                raise OSError(f"the server answers {err.code} {err.reason} ({url})") from err
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as err:
            failure = err
        if left:
            time.sleep(wait)
            wait *= 2
    reason = getattr(failure, "reason", None) or failure
    raise OSError(f"gave up after {TRIES} tries: {reason} ({url})") from failure
