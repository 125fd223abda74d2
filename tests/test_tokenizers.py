"""Finding a tokenizer by file, folder or model id, with a local server in the role of the Hub."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pile_tools import PileError, files, load_tokenizer
from pile_tools.tokenizers import find_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"

#: Status and error code of the Hub for repositories without an accessible tokenizer.
REFUSALS = {
    "no/such": (404, "RepoNotFound"),
    "a/gated": (403, "GatedRepo"),
    "an/image": (404, "EntryNotFound"),
    "a/model/resolve/v9": (404, "RevisionNotFound"),
}

#: Headers of answers that the Hub never gives, by repository; None for a closed connection.
ODD_ANSWERS: dict[str, dict[str, str] | None] = {
    "odd/reset": None,
    "odd/loop": {"Location": "?again"},
    "odd/scheme": {"Location": "ftp://127.0.0.1/tokenizer.json"},
    "odd/location": {"Location": "http://["},
    "odd/encoding": {"Content-Encoding": "gzip"},
    "odd/commit": {"X-Repo-Commit": "../../.."},
    "odd/size": {"X-Linked-Size": "1000000000000000000000"},
}

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def hub(tokenizer: Path) -> Iterator[str]:
    """The address of a server with the same tokenizer for every model, except those above."""
    content = tokenizer.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()
            self.wfile.write(content)

        def answer(self) -> None:
            odd = next((name for name in ODD_ANSWERS if name in self.path), None)
            headers = {} if odd is None else ODD_ANSWERS[odd]
            if headers is None:
                self.close_connection = True
                self.wfile.close()
                return
            refused = next((why for part, why in REFUSALS.items() if part in self.path), None)
            status, code = refused or (302 if "Location" in headers else 200, None)
            self.send_response(status)
            if code is not None:
                self.send_header("X-Error-Code", code)
            self.send_header("ETag", f'"{files.sha256(tokenizer)}"')
            default_headers = {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}
            for name, value in (default_headers | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def tokenize(cli: Run, shards: Path, tmp_path: Path, hub: str) -> Run:
    """Runs `pile-tools tokenize` with the local Hub and an empty cache."""

    def run(name: str | Path, output: str = "d", **environment: str) -> Any:
        more = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment = {**os.environ, **more, **environment}
        return cli(
            "tokenize", shards, "-o", tmp_path / output, "--tokenizer", name, cwd=tmp_path, env=environment
        )

    return run


def tokenizer_entry(prefix: Path) -> dict[str, Any]:
    inputs = json.loads(prefix.with_name(prefix.name + ".manifest.json").read_text())["inputs"]
    entry: dict[str, Any] = next(entry for entry in inputs if entry["role"] == "tokenizer")
    return entry


def test_a_file_and_its_folder_are_the_same(tokenizer: Path) -> None:
    text = "don't  panic"
    for name in (tokenizer, str(tokenizer), tokenizer.parent):
        assert find_tokenizer(name).path == tokenizer
    assert (
        load_tokenizer(tokenizer.parent).encode(text).tolist()
        == load_tokenizer(tokenizer).encode(text).tolist()
    )


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(PileError, match=rf"holds no tokenizer\.json \({tmp_path}\)"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "no/such.json", "/no/such/folder", "./gpt2", "a/b/c"])
def test_a_path_to_nothing_is_file_not_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=name.split("/")[-1]):
        load_tokenizer(name)


def test_a_model_of_the_hub_is_fetched_once_and_named_in_the_manifest(
    tokenize: Run, tokenizer: Path, tmp_path: Path
) -> None:
    result = tokenize("a/model@main")
    assert result.returncode == 0, result.stderr
    entry = tokenizer_entry(tmp_path / "d")
    assert entry["sha256"] == files.sha256(tokenizer)
    assert (entry["hub_id"], entry["revision"], entry["commit"]) == ("a/model", "main", COMMIT)
    assert (tmp_path / entry["path"]).read_bytes() == tokenizer.read_bytes()
    assert "nothing to do" in tokenize("a/model@main").stdout

    offline = tokenize("a/model", "e", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert "revision" not in tokenizer_entry(tmp_path / "e")
    assert (tmp_path / "d.bin").read_bytes() == (tmp_path / "e.bin").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such", "no/such is not a file or folder, and not a public model on the Hugging Face Hub"),
        ("a/gated", "a/gated is gated: accept its terms"),
        ("an/image", "an/image on the Hugging Face Hub has no tokenizer.json"),
        ("a/model@v9", "a/model on the Hugging Face Hub has no revision v9"),
        ("a--b/c", "fetching a--b/c from the Hugging Face Hub failed: Cannot have -- or .."),
    ],
)
def test_refusals_of_the_hub_are_one_line(tokenize: Run, name: str, message: str) -> None:
    result = tokenize(name)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_odd_answers_of_the_hub_are_one_line(tokenize: Run, name: str) -> None:
    result = tokenize(name)
    assert result.returncode == 1, result.stderr
    # The library may print a warning first.
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "environment", [{"HF_ENDPOINT": "http://["}, {"HF_TOKEN": "\u00e9"}, {"HF_HUB_DOWNLOAD_TIMEOUT": "soon"}]
)
def test_odd_settings_of_the_hub_are_one_line(tokenize: Run, environment: dict[str, str]) -> None:
    result = tokenize("a/model", **environment)
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_offline_is_one_line_with_the_advice_to_pass_a_file(tokenize: Run) -> None:
    result = tokenize("EleutherAI/pythia-70m", HF_HUB_OFFLINE="1")
    assert result.returncode == 1
    assert result.stderr == (
        "error: EleutherAI/pythia-70m is not a file or folder, nor in the cache, and the Hugging Face Hub "
        "cannot be reached; give the path of a tokenizer.json, or of a folder that holds one, instead\n"
    )


@pytest.mark.slow
def test_no_network_is_the_same_line(tokenize: Run) -> None:
    result = tokenize("EleutherAI/pythia-70m", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 1
    assert "cannot be reached; give the path of a tokenizer.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PileError, match=r"pip install 'pile-tools\[hub\]'"):
        load_tokenizer("EleutherAI/pythia-70m")


@pytest.mark.parametrize("is_loaded_first", [False, True])
def test_the_tokenizer_that_is_loaded_is_the_one_whose_checksum_is_recorded(
    tokenizer: Path, tmp_path: Path, is_loaded_first: bool
) -> None:
    """Otherwise a manifest could name another tokenizer than the one that encoded."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.read_bytes())
    found = find_tokenizer(path)
    first, second = found.load, functools.partial(found.entry, tmp_path)
    if not is_loaded_first:
        first, second = second, first
    first()
    path.write_bytes(tokenizer.read_bytes() + b"\n")
    with pytest.raises(PileError, match=r"changed while it was read.*tokenizer\.json"):
        second()
    assert find_tokenizer(path).entry(tmp_path)["sha256"] != found.sha256


def test_a_tokenizer_that_changes_while_it_is_loaded_is_told(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.read_bytes())
    sha256 = files.sha256

    def late(of: Path) -> str:
        path.write_bytes(tokenizer.read_bytes() + b"\n")
        return sha256(of)

    monkeypatch.setattr(files, "sha256", late)
    with pytest.raises(PileError, match="changed while it was read"):
        find_tokenizer(path).load()
