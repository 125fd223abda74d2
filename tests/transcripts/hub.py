"""A server with the paths of Pythia's published data on the Hugging Face Hub; its tokens are made up."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray

NAME = "EleutherAI/pile-standard-pythia-preshuffled"
N_ROWS, ROW_LENGTH, SHARD_BYTES = 143_000 * 1024, 2049, 30_000_000_000
N_BYTES = N_ROWS * ROW_LENGTH * 2
SIZES = {
    f"document-{i:05}-of-00020.bin": min(SHARD_BYTES, N_BYTES - i * SHARD_BYTES)
    for i in range(-(-N_BYTES // SHARD_BYTES))
}
#: The header of the index. The length and the offset of each row follow, then the documents.
_HEADER = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, N_ROWS, N_ROWS + 1)


def rows(first: int, end: int) -> NDArray[np.uint16]:
    """The tokens of rows, each another."""
    numbers = np.arange(first * ROW_LENGTH, end * ROW_LENGTH, dtype=np.uint64)
    return (numbers * np.uint64(2654435761) >> np.uint64(16)).astype(np.uint16).reshape(-1, ROW_LENGTH)


def _tokens(first: int, end: int) -> bytes:
    """Bytes of the rows, one after the other."""
    size = ROW_LENGTH * 2
    start = first // size
    return rows(start, -(-end // size)).tobytes()[first - start * size : end - start * size]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    n_sent = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path == f"/api/datasets/{NAME}/tree/main":
            sizes = {"README.md": 1234, "document.idx": len(_HEADER) + 20 * N_ROWS + 8, **SIZES}
            files = [{"type": "file", "path": path, "size": size} for path, size in sizes.items()]
            self._answer(200, json.dumps(files).encode())
        elif self.path == f"/datasets/{NAME}/resolve/main/{name}":
            # The Hub redirects to its storage.
            self._answer(302, b"", Location=f"/storage/{name}")
        elif self.path.startswith("/storage/") and "Range" in self.headers:
            self._answer_range(name)
        else:
            self._answer(404, b"")

    def _answer_range(self, name: str) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        if name == "document.idx":
            size = len(_HEADER) + 20 * N_ROWS + 8
            data = (_HEADER + struct.pack("<i", ROW_LENGTH) * 2000)[first : last + 1]
        else:
            size = SIZES[name]
            start = list(SIZES).index(name) * SHARD_BYTES
            data = _tokens(start + first, start + last + 1)
        self._answer(206, data, **{"Content-Range": f"bytes {first}-{last}/{size}"})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        type(self).n_sent += len(body)


class Hub:
    """A running server: its address, and the bytes that it has sent."""

    def __init__(self, server: ThreadingHTTPServer, handler: type[_Handler]) -> None:
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        self._handler = handler

    @property
    def n_sent(self) -> int:
        """Bytes of bodies sent so far."""
        return self._handler.n_sent


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Serves while the context lasts."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Hub(server, handler)
        finally:
            server.shutdown()
            thread.join()
