"""Reads files and listings of a server, again after transient failures, in bounded time and memory.

Every response is opened by `pile_tools.http_client`. A file that changes while it is read is an error.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from typing import TypeVar

from pile_tools import http_client
from pile_tools.errors import FormatError, PileError
from pile_tools.http_client import WINDOW_BYTES, WINDOW_SECONDS, StatusError, shown

#: Consecutive tries without progress before a read fails, and the seconds to wait after the first one; every
#: later wait doubles.
TRIES, FIRST_WAIT = 5, 0.5

#: Minimum bytes that a try must receive to count as progress. Otherwise a server that sends one byte for each
#: connection could hold a read forever.
PROGRESS_BYTES = 512

#: Longest wait that a server may ask for; a longer one fails the read at once.
MAX_WAIT_SECONDS = 120.0

#: Maximum bytes of a listing of files.
MAX_LISTING_BYTES = 16 << 20

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

_T = TypeVar("_T")


class ServerReader:
    """Reads from servers, and remembers the versions of the files.

    Attributes:
        bytes_moved: Bytes of all responses so far.
    """

    def __init__(self) -> None:
        self.bytes_moved = 0
        #: By address, the version of the file in the server's first response: a later one must have the same.
        self._versions: dict[str, str] = {}
        self._total = -1

    def size(self, url: str) -> int:
        """The size of a file in bytes, from the response to a request for its first byte.

        Raises:
            ConfigError: The address is invalid.
            FormatError, OSError: As `range`.
        """
        self._total = -1
        self.range(url, 0, 1)
        return self._total

    def range(self, url: str, start: int, n: int, size: int | None = None) -> bytes:
        """`n` bytes of a file that must have `size` bytes in all; resumes after a broken connection.

        Raises:
            ConfigError: The address is invalid.
            FormatError: The server's responses do not fit the file, or the file changed.
            OSError: The server refuses the request, cannot be reached or is too slow.
        """
        data = bytearray()

        def more(seconds: float) -> None:
            first, last = start + len(data), start + n - 1
            with http_client.open_address(url, {"Range": f"bytes={first}-{last}"}, seconds) as answer:
                total = _check_range(answer, first, last, url)
                if size is not None and total != size:
                    raise FormatError(
                        f"has {total:,} bytes, expected {size:,}: truncated, or another file ({url})"
                    )
                self._check_version(answer, total, url)
                self._total = total
                while len(data) < n:
                    n_read = http_client.read_body(answer, data, n - len(data))
                    if n_read == 0:
                        raise http.client.IncompleteRead(b"", n - len(data))
                    self.bytes_moved += n_read

        _with_retries(more, url, n, lambda: len(data))
        return bytes(data)

    def _check_version(self, answer: http.client.HTTPResponse, total: int, url: str) -> None:
        """Raises FormatError if the file has been replaced on the server since the first response."""
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        version = f"{tag} {total}"
        if self._versions.setdefault(url, version) != version:
            raise FormatError(f"the file changed on the server while it was read; open it again ({url})")

    def listing(self, url: str) -> bytes:
        """The body of a listing, at most `MAX_LISTING_BYTES`. Raises ConfigError, FormatError, OSError."""

        def get(seconds: float) -> bytes:
            data = bytearray()
            with http_client.open_address(url, {}, seconds) as answer:
                if 'rel="next"' in (answer.headers.get("Link") or ""):
                    raise FormatError(f"more files than the server lists on one page ({url})")
                while n_read := http_client.read_body(answer, data, MAX_LISTING_BYTES + 1 - len(data)):
                    self.bytes_moved += n_read
                    if len(data) > MAX_LISTING_BYTES:
                        raise FormatError(f"a listing of more than {MAX_LISTING_BYTES:,} bytes ({url})")
                # Bytes missing of the announced length mean a broken connection.
                if answer.length:
                    raise http.client.IncompleteRead(b"", answer.length)
            return bytes(data)

        return _with_retries(get, url, 0, lambda: 0)


def _check_range(answer: http.client.HTTPResponse, first: int, last: int, url: str) -> int:
    """The size of the file in a response to a range request. Raises FormatError for any other response."""
    if answer.status != 206:
        raise FormatError(
            f"the server sends whole files instead of ranges (status {answer.status}): "
            f"download the file, or use another server ({url})"
        )
    content_range = shown(answer.headers.get("Content-Range", ""))
    found = http_client.content_range(answer)
    if found is None or found[:2] != (first, last):
        raise FormatError(
            f"requested bytes {first}-{last}, the server sends {content_range!r}: "
            f"the file is truncated ({url})"
        )
    n = last - first + 1
    if answer.length is not None and answer.length != n:
        raise FormatError(f"requested {n:,} bytes, the server announces {answer.length:,} ({url})")
    return found[2]


def _with_retries(job: Callable[[float], _T], url: str, n_bytes: int, progress: Callable[[], int]) -> _T:
    """Runs `job` with its remaining seconds, again after transient failures; returns its result.

    Only consecutive tries without progress count as failures; a try with progress that fails is the first of
    the next `TRIES`. All tries together may take as long as `n_bytes` at the slowest accepted rate, plus a
    constant, plus the waits that the server asks for.

    Raises:
        FormatError: The file ends before the requested bytes.
        OSError: The server refuses the request, or too many tries fail.
    """
    # Twice the windows of all tries, to leave time for the waits between them.
    end = time.monotonic() + 2 * TRIES * WINDOW_SECONDS + n_bytes * WINDOW_SECONDS / WINDOW_BYTES
    remaining, wait, before = TRIES, FIRST_WAIT, progress()
    while True:
        pause = None
        try:
            return job(max(end - time.monotonic(), 0.001))
        except PileError:
            raise
        except StatusError as err:
            if err.status == 416:
                raise FormatError(
                    f"the file ends before the requested bytes: it is truncated ({url})"
                ) from err
            pause = err.retry_after
            if err.status not in _TRANSIENT:
                raise OSError(f"{err} ({url})") from err
            if pause is not None and pause > MAX_WAIT_SECONDS:
                raise OSError(
                    f"the server asks to wait {pause:,.0f} seconds; run the same command after that ({url})"
                ) from err
            failure: Exception = err
        except (OSError, http.client.HTTPException, ValueError) as err:
            # http.client raises ValueError for some malformed chunk sizes.
            failure = err
        if progress() >= before + PROGRESS_BYTES:
            remaining, wait, before = TRIES, FIRST_WAIT, progress()
        remaining -= 1
        if remaining == 0 or time.monotonic() >= end:
            reason = shown(_reason(failure))
            raise OSError(f"gave up after {TRIES} tries: {reason} ({url})") from failure
        time.sleep(wait if pause is None else pause)
        end += pause or 0
        wait *= 2


def _reason(failure: Exception) -> str:
    """What failed, without the number of a system error."""
    reason = getattr(failure, "reason", None) or failure
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
