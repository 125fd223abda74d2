"""Opens HTTP addresses such that no server can make a client wait, read or follow redirects without end.

Every response must arrive at a minimum rate and without compression, and every address is checked, those of
redirects included. `urllib` alone follows redirects to `ftp:`, reads their bodies whole, and limits the time
of each read, not of all: a server may send a byte a minute without end.
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import io
import os
import re
import string
import time
import urllib.parse
import urllib.request
from datetime import UTC
from typing import Any

from pile_tools.errors import ConfigError, FormatError

#: The minimum rate: a server must send `WINDOW_BYTES` in `WINDOW_SECONDS`, or finish the response.
WINDOW_BYTES, WINDOW_SECONDS = 60_000, 60.0

MAX_REDIRECTS = 5

#: Maximum bytes of headers, those of redirects included.
MAX_HEAD_BYTES = 1 << 20

#: Maximum bytes of a file: a larger size is an error or an attack.
MAX_FILE_BYTES = 1 << 53

#: Maximum characters of a server's text in a message.
_SHOWN_CHARACTERS = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class TooSlowError(TimeoutError):
    """The server sends slower than `WINDOW_BYTES` in `WINDOW_SECONDS`."""


class StatusError(OSError):
    """The server answers with an error status.

    Attributes:
        status: The HTTP status code.
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(self, status: int, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


def shown(text: str) -> str:
    """Text from a server as printed: truncated, on one line, control characters escaped."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_SHOWN_CHARACTERS])
    return escaped + ("..." if len(text) > _SHOWN_CHARACTERS else "")


def checked_address(url: str) -> str:
    """The address, an `http:` or `https:` URL, with spaces and non-ASCII characters percent-encoded.

    Raises:
        ConfigError: Scheme, host or port are invalid, or the address has a user name or control characters.
    """

    def wrong(what: str) -> ConfigError:
        # A password stays out of messages and logs.
        return ConfigError(f"{what} ({shown(re.sub(r'//[^/]*@', '//...@', url))})")

    if _CONTROL.search(url):
        raise wrong("the address has control characters")
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as err:
        raise wrong(f"not an address: {err}") from err
    if parts.scheme not in ("http", "https"):
        raise wrong("expected an address of http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise wrong("the address names a user; give it without, and a token for the Hub in HF_TOKEN")
    if not host or port == 0:
        raise wrong("the address names no host" if not host else "ports are 1 to 65535")
    netloc = parts.netloc
    try:
        if ":" not in host:
            named = host.encode("idna").decode()
            netloc = named if port is None else f"{named}:{port}"
        elif not host.isascii():
            raise wrong("not an address: a number of a host in brackets is ASCII")
    except UnicodeError as err:
        raise wrong("invalid host: a label of its name is empty, too long or not allowed") from err
    whole = urllib.parse.urlunsplit(parts._replace(netloc=netloc, fragment=""))
    return urllib.parse.quote(whole, safe=string.punctuation)


def open_address(url: str, headers: dict[str, str], seconds: float) -> http.client.HTTPResponse:
    """The response to a GET after redirects, with its body unread; it must be complete within `seconds`.

    Raises:
        ConfigError: The address is invalid.
        FormatError: A redirect is invalid, there are too many, or the body is compressed.
        StatusError: The server answers with an error status.
        OSError: The server cannot be reached or is too slow.
    """
    url = checked_address(url)
    pace = _Pace(seconds)
    opener = _opener(pace)
    for _ in range(MAX_REDIRECTS + 1):
        answer: http.client.HTTPResponse = opener.open(
            _request(url, headers), timeout=min(WINDOW_SECONDS, seconds)
        )
        location = answer.headers.get("Location")
        if answer.status in (301, 302, 303, 307, 308) and location:
            answer.close()
            url = _redirected(url, location)
            continue
        try:
            _check_answer(answer, url)
        except Exception:
            answer.close()
            raise
        pace.is_in_body = True
        return answer
    raise FormatError(f"redirects more than {MAX_REDIRECTS} times ({shown(url)})")


def read_body(answer: http.client.HTTPResponse, buffer: bytearray, n: int) -> int:
    """Appends up to `n` bytes of a response's body to a buffer; returns their number, 0 at the end."""
    # A buffer of fixed size: the length that the server announces allocates nothing.
    part = memoryview(bytearray(min(n, 1 << 20)))
    n_read = answer.readinto(part) or 0
    buffer += part[:n_read]
    return n_read


def content_range(answer: http.client.HTTPResponse) -> tuple[int, int, int] | None:
    """The first byte, last byte and file size in a `Content-Range`; None if it is missing or invalid."""
    header = answer.headers.get("Content-Range", "")
    # 16 digits hold MAX_FILE_BYTES, and Python refuses to convert thousands.
    found = re.fullmatch(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16})", header)
    if found is None:
        return None
    first, last, total = (int(number) for number in found.groups())
    return (first, last, total) if first <= last < total <= MAX_FILE_BYTES else None


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    defaults = {"User-Agent": "pile-tools", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers={**defaults, **headers})
    if (token := os.environ.get("HF_TOKEN")) and url.startswith(hub() + "/"):
        if not re.fullmatch(r"[!-~]+", token):
            raise ConfigError("HF_TOKEN has characters that are not allowed in a token")
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def hub() -> str:
    """The address of the Hub: `HF_ENDPOINT`, as in `huggingface_hub`, or `https://huggingface.co`."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _redirected(url: str, location: str) -> str:
    try:
        # The scheme of a checked address is in lower case.
        target = checked_address(urllib.parse.urljoin(url, location))
        if url.startswith("https:") and target.startswith("http:"):
            raise ConfigError(f"from https: to http: ({shown(target)})")
        return target
    # A ConfigError is a ValueError too, and `urljoin` raises others.
    except ValueError as err:
        raise FormatError(f"the server redirects to a forbidden address: {err} ({shown(url)})") from err


def _check_answer(answer: http.client.HTTPResponse, url: str) -> None:
    if not 200 <= answer.status < 300:
        reason = f"{answer.status} {shown(answer.reason or '')}".rstrip()
        raise StatusError(answer.status, f"the server answers {reason}", _retry_after(answer))
    # http.client decodes "chunked" alone, and reads the body of any other as it is.
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        for encoding in answer.headers.get_all(header, []):
            if encoding.strip().lower() not in ("", plain):
                raise FormatError(
                    f"the server sends {shown(encoding)!r} encoding, which was not requested; use another "
                    f"server ({shown(url)})"
                )


def _retry_after(answer: http.client.HTTPResponse) -> float | None:
    """The seconds in a `Retry-After` header, a number or a date; None if it is missing or invalid."""
    header = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,12}", header):
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
        return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class _Pace:
    """Enforces the minimum rate and the deadline of a response."""

    def __init__(self, seconds: float) -> None:
        self._since = time.monotonic()
        self._end = self._since + seconds
        self._seconds = seconds
        self._n = self._total = 0
        self.is_in_body = False

    def seconds_left(self) -> float:
        """The seconds within which the next bytes must arrive. Raises TooSlowError."""
        now = time.monotonic()
        if self._n >= WINDOW_BYTES:
            self._since, self._n = now, 0
        if now >= self._end:
            raise TooSlowError(f"the response is not complete after {self._seconds:,.0f} seconds")
        if now >= self._since + WINDOW_SECONDS:
            raise TooSlowError(f"the server sent {self._n:,} bytes in {WINDOW_SECONDS:,.0f} seconds")
        return min(self._since + WINDOW_SECONDS, self._end) - now

    def received(self, n: int) -> None:
        """Counts `n` bytes received. Raises OSError for too many bytes of headers."""
        self._n += n
        self._total += n
        if not self.is_in_body and self._total > MAX_HEAD_BYTES:
            raise OSError(f"the server sent more than {MAX_HEAD_BYTES:,} bytes of headers")


class _PacedReader(io.RawIOBase):
    """The bytes of a socket, each read within the time that the pace leaves."""

    def __init__(self, sock: Any, pace: _Pace) -> None:
        self._sock, self._pace = sock, pace
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._pace.seconds_left())
        try:
            n: int = self._raw.readinto(buffer) or 0
        except TimeoutError:
            self._pace.seconds_left()
            raise
        self._pace.received(n)
        return n

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedSocket:
    """A socket whose files read through a `_PacedReader`."""

    def __init__(self, sock: Any, pace: _Pace) -> None:
        self._sock, self._pace = sock, pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_PacedReader(self._sock, self._pace))


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, pace: _Pace, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._pace = pace

    def connect(self) -> None:
        super().connect()
        self.sock = _PacedSocket(self.sock, self._pace)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, pace: _Pace, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._pace = pace

    def connect(self) -> None:
        super().connect()
        self.sock = _PacedSocket(self.sock, self._pace)


class _Handler(urllib.request.HTTPHandler):
    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self._pace = pace

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, pace=self._pace), request)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self._pace = pace

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_SecureConnection, pace=self._pace), request)


def _opener(pace: _Pace) -> urllib.request.OpenerDirector:
    """An opener for `http:` and `https:` that uses the configured proxy and follows no redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Handler(pace),
        _SecureHandler(pace),
    ):
        opener.add_handler(handler)
    return opener
