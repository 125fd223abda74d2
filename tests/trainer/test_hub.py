"""A suite on a local server: equal, foreign and missing weights are found without downloading any."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pile_tools import http_reads
from pile_tools.errors import ConfigError, FormatError, VerifyError
from trainer import hub
from trainer.commands.verify_hub import verify

Shapes = dict[str, list[int]]
SHAPES: Shapes = {"gpt_neox.embed_in.weight": [50, 8], "embed_out.weight": [50, 8]}


def safetensors(seed: int, shapes: Shapes = SHAPES) -> bytes:
    """A file of fp16 tensors whose values are of the seed."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        n_bytes = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + hashlib.shake_128(str(seed).encode()).digest(end)


class Server:
    """A server with the Hub's interface for one model; `files` has the contents by branch and name."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.answers: dict[str, bytes] = {}
        self.n_bytes = 0
        suite = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                body = suite.answers.get(self.path, suite.answer(self.path))
                if body is None:
                    self._send(404, b"", {})
                    return
                asked = self.headers.get("Range")
                if asked is None:
                    self._send(200, body, {})
                    return
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                part = body[first : last + 1]
                end = first + len(part) - 1
                self._send(206, part, {"Content-Range": f"bytes {first}-{end}/{len(body)}", "ETag": "x"})

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                suite.n_bytes += len(body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/EleutherAI/pythia-0m"

    def answer(self, path: str) -> bytes | None:
        """The body of a response, None for 404."""
        name = "EleutherAI/pythia-0m"
        if path == f"/api/models/{name}/refs":
            branches = [{"name": branch, "ref": f"refs/heads/{branch}"} for branch in self.files]
            return json.dumps({"branches": branches, "tags": [], "converts": []}).encode()
        if path.startswith(f"/api/models/{name}/tree/"):
            files = self.files.get(path.rsplit("/", 1)[1])
            return None if files is None else json.dumps([entry(n, d) for n, d in files.items()]).encode()
        branch, _, file = path.removeprefix(f"/{name}/resolve/").partition("/")
        return self.files.get(branch, {}).get(file)


def entry(name: str, data: bytes) -> dict[str, Any]:
    """A file as the Hub lists it."""
    found: dict[str, Any] = {"type": "file", "path": name, "size": len(data)}
    found["oid"] = hashlib.sha1(data).hexdigest()
    if name.endswith((".safetensors", ".bin")):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return found


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A suite of 13 steps, none of them wrong."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http_reads, "FIRST_WAIT", 0.001)
    found = Server()
    for step in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000):
        found.files[f"step{step}"] = {
            "config.json": b"{}",
            "model.safetensors": safetensors(step),
            "pytorch_model.bin": b"of torch %d" % step,
        }
    found.files["main"] = found.files["step2000"]
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def test_a_right_suite_is_right(suite: Server, capsys: pytest.CaptureFixture[str]) -> None:
    verify(suite.address, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "ok     13 steps from 0 to 2,000; 14 with weights",
        "absent of Pythia's 154 steps: step3000, step4000, step5000, step6000, step7000 and 136 more",
        "ok     main has the weights of step2000",
        f"{suite.address}: 14 branches with weights of their own, by their hashes",
    ]


def test_steps_are_in_order_and_weights_are_not_read(suite: Server) -> None:
    big = safetensors(5, {"gpt_neox.embed_in.weight": [1000, 500], "embed_out.weight": [1000, 500]})
    for files in suite.files.values():
        files["model.safetensors"] = big
    found = hub.compare(suite.address)
    assert [branch.step for branch in found.branches][-3:] == [1000, 2000, None]
    assert suite.n_bytes < 50_000 < len(big)
    assert found.bytes_moved <= suite.n_bytes


def test_equal_weights_are_found_by_format(suite: Server, capsys: pytest.CaptureFixture[str]) -> None:
    suite.files["step128"]["model.safetensors"] = suite.files["step64"]["model.safetensors"]
    suite.files["step1000"]["pytorch_model.bin"] = suite.files["step1"]["pytorch_model.bin"]
    with pytest.raises(VerifyError, match="2 faults in the suite"):
        verify(suite.address, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["is_right"] is False
    assert [check["what"] for check in document["checks"] if check["state"] == "WRONG"] == [
        "step64 and step128 have equal weights, by the hashes of their safetensors files",
        "step1 and step1000 have equal weights, by the hashes of their torch files",
    ]
    assert (document["n_artifacts"], document["n_files"]) == (14, 28)


def test_other_tensors_and_missing_weights_are_found(suite: Server) -> None:
    suite.files["step4"] = {"model.safetensors": safetensors(4, {**SHAPES, "embed_out.weight": [51, 8]})}
    suite.files["step8"] = {"README.md": b"no weights"}
    suite.files["main"] = {"pytorch_model.bin": b"of nobody"}
    found = hub.compare(suite.address)
    assert (found.different, found.without, found.equal, found.main) == (["step4"], ["step8"], [], None)
    assert not found.is_right


def test_shards_are_compared_as_a_whole(suite: Server) -> None:
    one, other = ({name: SHAPES[name]} for name in SHAPES)
    for step in (0, 1, 2):
        suite.files[f"step{step}"] = {
            "model-00001-of-00002.safetensors": safetensors(9, one),
            "model-00002-of-00002.safetensors": safetensors(step // 2, other),
        }
    found = hub.compare(suite.address)
    assert found.equal == [("safetensors", ["step0", "step1"])]
    # The same tensors, in whatever files.
    assert found.different == []


@pytest.mark.parametrize(
    ("names", "is_complete"),
    [
        (["00001-of-00002", "00002-of-00002"], True),
        (["00001-of-00002"], False),
        (["00002-of-00002"], False),
        (["00001-of-00002", "00003-of-00002"], False),
        (["00001-of-00001", "00002-of-00002"], False),
        (["00000-of-00000"], False),
    ],
)
def test_missing_shards_are_found(
    suite: Server, capsys: pytest.CaptureFixture[str], names: list[str], is_complete: bool
) -> None:
    shards = {f"model-{name}.safetensors": safetensors(n, {}) for n, name in enumerate(names)}
    for step, files in enumerate(suite.files.values()):
        files.clear()
        files.update({"model.safetensors": safetensors(step, {})})
    suite.files["step4"].clear()
    suite.files["step4"].update(shards)
    found = hub.compare(suite.address)
    assert found.incomplete == ([] if is_complete else [("step4", "safetensors")])
    if not is_complete:
        with pytest.raises(VerifyError):
            verify(suite.address, as_json=False)
        assert "WRONG  step4 lacks shards of its safetensors files\n" in capsys.readouterr().out


def test_an_address_of_the_hub(suite: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", suite.address.removesuffix("/EleutherAI/pythia-0m"))
    assert len(hub.compare("hf://EleutherAI/pythia-0m").branches) == 14


def test_a_scheme_may_have_capitals(suite: Server) -> None:
    assert len(hub.compare(suite.address.replace("http:", "HTTP:")).branches) == 14


def test_a_bad_address_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(ConfigError, match=r"expected an address of http:// or https:// \(hub.example\)"):
        hub.compare("hf://a/b")


@pytest.mark.parametrize(
    "address",
    [
        *("hf://", "hf://x", "hf://a/b/c", "hf://../x", "hf://a/b?x=1", "hf://a/\x1b[2J", "https://a/b"),
        *("http://user:secret@host/a/b", "hf://datasets/a/b", "http:///a/b"),
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hub.compare(address)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


TREE = "/api/models/EleutherAI/pythia-0m/tree/step2"
REFS = "/api/models/EleutherAI/pythia-0m/refs"


def _with_file(**changes: Any) -> Callable[[Server], None]:
    def change(suite: Server) -> None:
        found = {**entry("model.safetensors", safetensors(1)), **changes}
        suite.answers[TREE] = json.dumps([found]).encode()

    return change


def _with_weights(data: bytes) -> Callable[[Server], None]:
    def change(suite: Server) -> None:
        suite.files["step2"]["model.safetensors"] = data

    return change


def _with_headers(n_bytes: int) -> Callable[[Server], None]:
    """Two files whose headers have this size."""
    header = b"{" + b" " * (n_bytes - 2) + b"}"
    data = struct.pack("<Q", n_bytes) + header

    def change(suite: Server) -> None:
        names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        suite.files["step2"] = dict.fromkeys(names, data)

    return change


def _with_offsets(*offsets: Any) -> Callable[[Server], None]:
    """A file of 16 bytes of tensors that lie at these offsets."""
    tensors = {
        f"t{n}": {"dtype": "F16", "shape": [1], "data_offsets": found} for n, found in enumerate(offsets)
    }
    header = json.dumps(tensors).encode()
    return _with_weights(struct.pack("<Q", len(header)) + header + bytes(16))


WRONG: dict[str, tuple[Callable[[Server], object], str]] = {
    "no JSON": (lambda s: s.answers.update({REFS: b"<html>"}), "not a response of the Hub"),
    "a list": (lambda s: s.answers.update({REFS: b"[]"}), "expected an object"),
    "no names": (lambda s: s.answers.update({REFS: b'{"branches": [{"ref": "x"}]}'}), "missing key 'name'"),
    "no steps": (
        lambda s: s.answers.update({REFS: b'{"branches": [{"name": "main"}]}'}),
        "no branches named",
    ),
    "deep": (lambda s: s.answers.update({REFS: b"[" * 100_000}), "not a response of the Hub"),
    "many branches": (
        lambda s: s.answers.update({REFS: json.dumps({"branches": [{"name": "x"}] * 10_001}).encode()}),
        "10,001 branches, more than 10,000",
    ),
    "no list": (lambda s: s.answers.update({TREE: b"{}"}), "files is an object, expected a list"),
    "no hash": (_with_file(lfs={}), "missing key 'oid'"),
    "another hash": (_with_file(lfs={"oid": "../x"}), "expected 64 hexadecimal digits"),
    "no size": (_with_file(size="7"), "size is"),
    "another size": (_with_file(size=10), "not a safetensors file|expected 10"),
    "a huge header": (
        _with_weights(struct.pack("<Q", 2**60) + bytes(100)),
        "a header of 1,152,921,504,606,846,976",
    ),
    "large headers": (_with_headers(9 << 20), r"headers of more than 16,777,216 bytes .*00002\.safetensors"),
    "a short file": (_with_weights(b"1234"), "not a safetensors file: 4 bytes"),
    "no header": (_with_weights(struct.pack("<Q", 20) + bytes(100)), "not a header of safetensors"),
    "no shapes": (
        _with_weights(struct.pack("<Q", 16) + b'{"a": {"x": 3}} ' + bytes(9)),
        "missing key 'dtype'",
    ),
    "a negative size": (_with_file(lfs={"oid": "0" * 64, "size": -1}), "size is -1"),
    "two sizes": (_with_file(lfs={"oid": "0" * 64, "size": 10}), "size is 10, expected 1"),
    "no offsets": (_with_offsets(None), "data_offsets"),
    "one offset": (_with_offsets([0]), r"a tensor at bytes \[0\]"),
    "offsets that fall": (_with_offsets([8, 0]), r"a tensor at bytes \[8, 0\]"),
    "a tensor over another": (_with_offsets([0, 8], [4, 16]), r"a tensor at bytes \[4, 16\]"),
    "bytes of no tensor": (_with_offsets([0, 8]), "16 bytes after the header, expected 8"),
    "bytes that are not there": (_with_offsets([0, 1 << 40]), "16 bytes after the header"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_response_is_named(suite: Server, name: str) -> None:
    change, message = WRONG[name]
    change(suite)
    with pytest.raises(FormatError, match=message) as caught:
        hub.compare(suite.address)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_files_of_weights_have_a_limit(suite: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_FILES", 28)
    assert len(hub.compare(suite.address).branches) == 14
    monkeypatch.setattr(hub, "MAX_FILES", 27)
    with pytest.raises(FormatError, match=r"more than 27 files of weights"):
        hub.compare(suite.address)


def test_a_missing_model_is_named(suite: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="404"):
        hub.compare(f"{suite.address}-missing")
