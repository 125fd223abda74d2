"""Servers that misbehave: nothing they send makes a read hang, grow, lie or end as a bug of ours."""

from __future__ import annotations

import email.utils
import gzip
import json
import os
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pile_tools import ConfigError, FormatError, PileError, http_client, http_reads, open_order, timeline
from pile_tools.http_client import checked_address
from pile_tools.order.remote import RemoteRows

N_ROWS = 16
DATA = (np.arange(N_ROWS * 2049, dtype="<u2") * 7).tobytes()
#: Loops that never end for a client end with the test: a broken one must not hold up the others.
MANY = 20_000


class Handler(BaseHTTPRequestHandler):
    """A server of which each path misbehaves in its own way."""

    protocol_version = "HTTP/1.1"
    count: dict[str, int]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.strip("/").split("/")[-1 if "/api/" not in self.path else 3].split(".")[0]
        type(self).count[name] = type(self).count.get(name, 0) + 1
        try:
            if self.path.startswith("/api/"):
                self._list(name)
            elif self.path.startswith("/datasets/"):
                self._good()
            else:
                getattr(self, "_" + re.sub(r"-.*", "", name), self._absent)()
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def _asked(self) -> tuple[int, int]:
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), min(int(last), len(DATA) - 1)

    def _part(self, body: bytes | None = None, total: int = len(DATA), **headers: str) -> None:
        first, last = self._asked
        said = {"Content_Range": f"bytes {first}-{last}/{total}"}
        self._send(206, DATA[first : last + 1] if body is None else body, **(said | headers))

    def _absent(self) -> None:
        self._send(404)

    def _good(self) -> None:
        assert self.headers["Accept-Encoding"] == "identity"
        self._part()

    def _claims(self) -> None:
        self._part(total=4098 << 38)

    def _redirself(self) -> None:
        self._send(302, Location="/redirself.bin")

    def _redirbody(self) -> None:
        self._send(302, Location="/good.bin", Content_Length=str(1 << 40))
        self._endless(b"x" * 65536)

    def _redirfile(self) -> None:
        self._send(302, Location="file:///etc/passwd")

    def _redirftp(self) -> None:
        self._send(302, Location="ftp://127.0.0.1:1/x.bin")

    def _redirbad(self) -> None:
        self._send(302, Location="http://[::1/x.bin")

    def _redirgood(self) -> None:
        self._send(307, Location="good.bin")

    def _endless(self, block: bytes) -> None:
        for _ in range(MANY):
            self.wfile.write(block)

    def _endless206(self) -> None:
        first, last = self._asked
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(DATA)}")
        self.end_headers()
        self.wfile.write(DATA[first : last + 1])
        self._endless(b"x" * 65536)

    def _endless200(self) -> None:
        self.send_response(200)
        self.end_headers()
        self._endless(b"x" * 65536)

    def _endlesshead(self) -> None:
        self._endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def _manyheaders(self) -> None:
        self.wfile.write(b"HTTP/1.1 206 OK\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n")

    def _longheader(self) -> None:
        self.wfile.write(b"HTTP/1.1 206 OK\r\nX-A: " + b"b" * 200_000 + b"\r\n\r\n")

    def _wrongrange(self) -> None:
        first, last = self._asked
        self._part(Content_Range=f"bytes {first + 1}-{last + 1}/{len(DATA)}")

    def _wronglength(self) -> None:
        self._part(Content_Length="7")

    def _norange(self) -> None:
        self._send(206, DATA[:10])

    def _hugetotal(self) -> None:
        self._part(total=4098 * 10**25)

    def _digits(self) -> None:
        self._part(total=int("9" * 4000))

    def _backward(self) -> None:
        self._part(Content_Range="bytes 0-0/0")

    def _gzip(self) -> None:
        self._part(gzip.compress(DATA), Content_Encoding="gzip", Content_Length="1")

    def _transfer(self) -> None:
        self._part(Transfer_Encoding="gzip, chunked")

    def _lie(self) -> None:
        first, last = self._asked
        self._part(DATA[first : first + 1], Content_Length=str(last - first + 1))

    def _badchunk(self, size: bytes = b"ZZZZ") -> None:
        first, last = self._asked
        said = f"bytes {first}-{last}/{len(DATA)}".encode()
        self.wfile.write(
            b"HTTP/1.1 206 OK\r\nContent-Range: " + said + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.wfile.write(size + b"\r\nxx")

    def _negativechunk(self) -> None:
        self._badchunk(b"-1")

    def _garbage(self) -> None:
        self.wfile.write(bytes(range(256)) * 4)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _reason(self) -> None:
        self.wfile.write(
            b"HTTP/1.1 404 \x1b]0;PWNED\x07\x1b[31m" + b"r" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"
        )

    def _s500(self) -> None:
        self._send(500)

    def _s403(self) -> None:
        self._send(403)

    def _s416(self) -> None:
        self._send(416)

    def _later(self) -> None:
        self._send(503, Retry_After="100000")

    def _dripbody(self) -> None:
        first, last = self._asked
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(DATA)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self._drip(b"x" if last > first else b"")

    def _driphead(self) -> None:
        self.wfile.write(b"HTTP/1.1 206 OK\r\n")
        self._drip(b"X-A: b\r\n")

    def _silent(self) -> None:
        self._drip(b"")

    def _drip(self, piece: bytes) -> None:
        for _ in range(40):
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(0.05)

    def _list(self, name: str) -> None:
        good = {"type": "file", "path": "x-00000-of-00000.bin", "size": len(DATA)}
        answers: dict[str, Any] = {
            "good": [{"type": "directory", "path": "more"}, good],
            "notalist": {"a": 1},
            "numbers": [1, 2],
            "nopath": [{"type": "file", "size": 1}],
            "notype": [{"path": "x.bin", "size": 1}],
            "boolsize": [{"type": "file", "path": "x.bin", "size": True}],
            "textsize": [good | {"size": "4098"}],
            "floatsize": [good | {"size": 4098.0}],
            "negative": [good | {"size": -4098}],
            "huge": [good | {"size": 10**30 * 4098}],
            "trav": [good | {"path": "../../../../secret/x-00000-of-00000.bin"}],
            "absolute": [good | {"path": "/x.bin"}],
            "host": [good | {"path": "@evil.example/x.bin"}],
            "backslash": [good | {"path": "..\\x.bin"}],
            "escape": [good | {"path": "\x1b]0;PWNED\x07x.bin"}],
            "newline": [good | {"path": "x\n.bin"}],
            "twice": [good, good],
            "many": [good | {"path": "x-00000-of-999999999.bin"}],
            "gap": [good | {"path": f"x-0000{i}-of-00002.bin"} for i in (0, 2)],
            "mixed": [good, good | {"path": "y-00000-of-00000.bin"}],
            "uneven": [good | {"path": f"x-0000{i}-of-00001.bin", "size": 4098 + i} for i in (0, 1)],
            "none": [],
        }
        raw = {
            "deep": b"[" * 1_000_000,
            "digits": b"9" * 10_000,
            "html": b"<html>",
            "binary": b"\xff\xfe\x00",
        }
        if name == "endless":
            self.send_response(200)
            self.end_headers()
            self._endless(b'[{"type": "file"}, ' * 100)
        elif name == "later":
            self._send(503, Retry_After="100000")
        else:
            self._send(200, raw[name] if name in raw else json.dumps(answers[name]).encode())


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    Handler.count = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http_reads, "FIRST_WAIT", 0.001)
    for module in (http_reads, http_client):
        monkeypatch.setattr(module, "WINDOW_SECONDS", 0.3)


def _refused(open_it: Callable[[], Any]) -> Exception:
    """The one-line failure that opening and reading ends with, in little time and memory."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((PileError, OSError)) as caught:
        open_it()
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 1000
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    return caught.value


@pytest.mark.parametrize("location", ["http://other/x.bin", "HTTP://other/x.bin", " http://other/x.bin"])
def test_no_redirect_leaves_https(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(status=302, headers={"Location": location}, close=lambda: None)
    opened: list[str] = []

    def open_one(request: Any, timeout: float) -> SimpleNamespace:
        opened.append(request.full_url)
        return answer

    monkeypatch.setattr(http_client, "_opener", lambda pace: SimpleNamespace(open=open_one))
    with pytest.raises(FormatError, match="forbidden address: from https: to http:"):
        http_client.open_address("https://host/x.bin", {}, 5)
    assert opened == ["https://host/x.bin"]


#: What each path answers, and what must be said of it.
WRONG = {
    "redirself": "redirects more than 5",
    "redirfile": r"expected an address of http:// or https:// \(file:",
    "redirftp": r"expected an address of http:// or https:// \(ftp:",
    "redirbad": "a forbidden address: Invalid IPv6",
    "endless200": "whole files instead of ranges",
    "endlesshead": "more than 1,048,576 bytes of headers",
    "manyheaders": "more than 100 headers",
    "longheader": "more than 65536 bytes",
    "wrongrange": "requested bytes 0-0, the server sends 'bytes 1-1",
    "wronglength": "requested 1 bytes, the server announces 7",
    "norange": "the server sends ''",
    "hugetotal": "the server sends 'bytes 0-0/4098",
    "digits": "the server sends 'bytes 0-0/9999",
    "backward": "the server sends 'bytes 0-0/0'",
    "gzip": "'gzip' encoding",
    "transfer": "'gzip, chunked' encoding",
    "lie": "gave up after 5 tries",
    "badchunk": "gave up after 5 tries",
    "negativechunk": "gave up after 5 tries",
    "garbage": "gave up after 5 tries",
    "reset": "gave up after 5 tries",
    "reason": r"404 \\x1b\]0;PWNED",
    "s500": "gave up after 5 tries: the server answers 500",
    "s403": "the server answers 403",
    "s416": "the file ends before",
    "later": "asks to wait 100,000 seconds",
    "dripbody": "gave up after 5 tries: .* in 0 seconds",
    "driphead": "gave up after 5 tries: .* in 0 seconds",
    "silent": "gave up after 5 tries: .* in 0 seconds",
    "absent": "404",
}


def test_rows_that_a_server_claims_to_have_take_no_memory(host: str) -> None:
    """The answers need all rows, and a server may say that it has any number of them."""
    for answer in (timeline.mixture, timeline.repeats):
        with pytest.raises(ConfigError, match="rows on a server"):
            answer(open_order(f"{host}/claims.bin", batch_size=4))


@pytest.mark.parametrize("name", WRONG)
def test_a_server_that_misbehaves_is_refused(host: str, name: str) -> None:
    def read() -> None:
        open_order(f"{host}/{name}.bin", batch_size=4).batch(0)

    assert re.search(WRONG[name], str(_refused(read)))


@pytest.mark.parametrize("name", ["good", "redirgood", "redirbody", "endless206"])
def test_a_server_that_sends_more_than_was_asked_for_is_read(host: str, name: str) -> None:
    order = open_order(f"{host}/{name}.bin", batch_size=4)
    assert order.batch(3).tobytes() == DATA[12 * 4098 :]


def test_messages_name_the_address_as_it_was_given(host: str) -> None:
    order = open_order(f"{host}/good.bin", batch_size=4)
    for ask in (order.tokenizer, lambda: timeline.when(order, [[1, 2]]), lambda: order.batch(10**6)):
        with pytest.raises(PileError, match=re.escape(f"({host}/good.bin)")):
            ask()


LISTINGS = {
    "notalist": "expected an array",
    "numbers": "expected objects",
    "nopath": "expected files with path and size",
    "notype": "expected objects with a type",
    "boolsize": "expected files with path and size",
    "textsize": "expected files with path and size",
    "floatsize": "expected files with path and size",
    "negative": "-4098 bytes",
    "huge": "4098000000",
    "trav": "not the name of a file in this folder",
    "absolute": "not the name",
    "host": "not the name",
    "backslash": "not the name",
    "escape": r"x1b\]0;PWNED.* is not the name",
    "newline": "not the name",
    "twice": "occurs twice",
    "many": r"x-00001-of-999999999\.bin is missing",
    "gap": r"x-00001-of-00002\.bin is missing",
    "mixed": "more than one file",
    "uneven": "inconsistent sizes",
    "none": "no .bin files",
    "deep": "recursion",
    "digits": "not a listing",
    "html": "not a listing",
    "binary": "not a listing",
    "endless": "more than 16,777,216 bytes",
    "later": "asks to wait",
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_that_is_none_is_refused(host: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", host)
    err = _refused(lambda: open_order(f"hf://datasets/o/{name}"))
    assert isinstance(err, OSError if name == "later" else FormatError)
    assert re.search(LISTINGS[name], str(err))


def test_a_good_listing_is_read(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", host)
    assert open_order("hf://datasets/o/good", batch_size=16).batch(0).tobytes() == DATA


ADDRESSES = [
    "http://[::1/x.bin",
    f"http://{'a' * 64}/x.bin",
    f"http://{'a' * 300}.example/x.bin",
    "http://ex\u2100mple/x.bin",
    "http://a..b/x.bin",
    f"http://\u00e9.{'a' * 64}/x.bin",
    "http://[fe80::1%\u00e9]/x.bin",
    "http://[\u0661::1]/x.bin",
    "http://127.0.0.1:99999/x.bin",
    "http://127.0.0.1:0/x.bin",
    "http://127.0.0.1:abc/x.bin",
    "http://127.0.0.1:-1/x.bin",
    "http:///x.bin",
    "http://:80/x.bin",
    "http://user:secret@127.0.0.1/x.bin",
    "http://user@127.0.0.1/x.bin",
    "http://127.0.0.1/a\r\nX: y.bin",
    "http://127.0.0.1/\x1b[31m.bin",
    "http://127.0.0.1/x-00000-of-999999999.bin",
    "http://127.0.0.1/folder/",
    "hf://datasets/../..",
    "hf://datasets/o",
    "hf://datasets/o/n?x=1#y",
    "hf://datasets/o/n/../../x",
    "hf://datasets/o/n/\x1b[31m",
    "hf://models/o/n",
]


def test_a_host_that_is_not_ascii_is_encoded() -> None:
    label = "a" * 60
    assert checked_address(f"http://\u00e9.{label}:8080/\u00e9") == f"http://xn--9ca.{label}:8080/%C3%A9"
    assert checked_address("http://[::1]:80/x") == "http://[::1]:80/x"
    assert checked_address("http://LOCALHOST/x") == "http://localhost/x"


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_a_usage_error(address: str) -> None:
    err = _refused(lambda: open_order(address))
    assert isinstance(err, ConfigError)
    assert "secret" not in str(err)


@pytest.mark.parametrize("endpoint", ["file:///etc", "http://[::1", "nothing", "http://u:p@h", ""])
def test_an_endpoint_that_is_none_is_a_usage_error(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert isinstance(_refused(lambda: open_order("hf://datasets/o/n")), ConfigError)


@pytest.mark.parametrize("token", ["a\nb", "\u20ac", "a b", "a\x00"])
def test_a_token_that_is_none_is_a_usage_error(
    host: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", host)
    # The environment cannot hold every character; what is read from it can be replaced.
    monkeypatch.setattr(os, "environ", {**os.environ, "HF_TOKEN": token})
    err = _refused(lambda: open_order("hf://datasets/o/good"))
    assert isinstance(err, ConfigError)
    assert token not in str(err)


class Flaky(Handler):
    """Serves rows in short connections, asks to wait, and replaces its file."""

    cut_after = 0
    waits: list[str]
    etag: str | None = '"a"'
    total = len(DATA)

    def do_GET(self) -> None:
        self.close_connection = True
        if self.waits:
            self._send(503, Retry_After=self.waits.pop())
            return
        first, last = self._asked
        headers = {} if self.etag is None else {"ETag": self.etag}
        body = DATA[first : last + 1]
        kept = body[: self.cut_after] if self.cut_after else body
        self._part(kept, self.total, Content_Length=str(len(body)), **headers)


@pytest.fixture
def flaky() -> Iterator[tuple[str, type[Flaky]]]:
    handler = type("Own", (Flaky,), {"waits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/x.bin", handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_only_tries_without_progress_count(flaky: tuple[str, type[Flaky]]) -> None:
    address, handler = flaky
    order = open_order(address, batch_size=N_ROWS)
    handler.cut_after = 1500
    assert order.batch(0).tobytes() == DATA


def test_a_server_that_asks_to_wait_is_waited_for(
    flaky: tuple[str, type[Flaky]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handler = flaky
    slept: list[float] = []
    monkeypatch.setattr(http_reads, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    for said, low, high in [
        ("7", 7, 7),
        (in_a_minute, 50, 60),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("soon", 0.001, 0.001),
        ("-5", 0.001, 0.001),
        ("9" * 400, 0.001, 0.001),
    ]:
        slept.clear()
        handler.waits = [said]
        RemoteRows(address)
        (pause,) = slept
        assert low <= pause <= high, said


def test_a_file_that_is_replaced_is_noticed(flaky: tuple[str, type[Flaky]]) -> None:
    address, handler = flaky
    order = open_order(address, batch_size=4)
    handler.etag = '"b"'
    with pytest.raises(FormatError, match="changed on the server"):
        order.batch(0)
    handler.etag = '"a"'
    assert order.batch(0).tobytes() == DATA[: 4 * 4098]
    handler.total += 4098
    with pytest.raises(FormatError, match="expected 65,568"):
        order.batch(1)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("gzip.bin", 1),
        ("hugetotal.bin", 1),
        ("reason.bin", 1),
        ("x-00000-of-999999999.bin", 2),
        ("a\x1b.bin", 2),
    ],
)
def test_the_command_line_says_so_in_a_line(host: str, path: str, code: int, cli: Any) -> None:
    done = cli("batch", f"{host}/{path}", "--step", "0", "--tokens")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()


def _index(lengths: list[int], code: int = 8) -> bytes:
    n = len(lengths)
    arrays = struct.pack(f"<{n}i", *lengths) + bytes(8 * n) + bytes(8 * (n + 1))
    return struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, n, n + 1) + arrays


@pytest.mark.parametrize(
    ("index", "what"),
    [
        (_index([2049] * N_ROWS), None),
        (_index([2048, 2050] * (N_ROWS // 2)), "documents, not rows"),
        (_index([2049] * (N_ROWS - 1)), "documents, not rows"),
        (_index([2049] * N_ROWS, 4), "documents, not rows"),
        (b"x" * 1000, "not an index"),
    ],
)
def test_an_index_beside_shards_on_the_hub_means_documents(
    index: bytes, what: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"x-00000-of-00000.bin": DATA, "x.idx": index}

    class Hub(Handler):
        def do_GET(self) -> None:
            self.close_connection = True
            if self.path.startswith("/api/"):
                entries = [{"type": "file", "path": p, "size": len(data)} for p, data in files.items()]
                self._send(200, json.dumps(entries).encode())
                return
            data = files[self.path.rpartition("/")[2]]
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            said = f"bytes {first}-{last}/{len(data)}"
            self._send(206, data[first : last + 1], Content_Range=said)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        if what is None:
            assert len(open_order("hf://datasets/o/n")) == N_ROWS
        else:
            with pytest.raises(FormatError, match=what):
                open_order("hf://datasets/o/n")
        given = open_order("hf://datasets/o/n", row_length=683)
        assert given.dataset.dtype == ("int32" if index[17] == 4 else "uint16")
        assert len(given) * 683 * np.dtype(given.dataset.dtype).itemsize == len(DATA)
        assert open_order("HF://datasets/o/n", row_length=683, dtype="uint16").dataset.dtype == "uint16"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
