"""Rows without an index, here and on a server; the trainer's ways to read them; interventions; shards."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import outputs

from pile_tools import (
    ConfigError,
    FormatError,
    OutputExistsError,
    PileError,
    Tokenizer,
    VerifyError,
    http_reads,
    open_order,
)
from pile_tools.jobs import token_shards
from pile_tools.jobs.order import OrderConfig, run
from pile_tools.jobs.verify import run_hashes
from pile_tools.order.interventions import (
    Insert,
    _word_characters,
    insert_tokens,
    overwritten,
    replace_tokens,
    save_interventions,
)
from pile_tools.order.order import Order
from pile_tools.order.remote import RemoteRows


@pytest.fixture(scope="module")
def rows(golden: Path) -> np.ndarray[Any, Any]:
    return np.fromfile(golden / "packed" / "small.bin", "<u2").reshape(40, 2049)


@pytest.fixture(scope="module")
def row_shards(golden: Path) -> Path:
    return golden / "packed" / "shards"


def test_pythias_shards_are_an_order(row_shards: Path, rows: np.ndarray[Any, Any]) -> None:
    for path in (row_shards, row_shards / "document-00001-of-00002.bin"):
        order = open_order(path, batch_size=8)
        assert (len(order), order.steps) == (40, 5)
        for step in range(5):
            assert np.array_equal(order.batch(step), rows[step * 8 : step * 8 + 8])
        assert order.batch_spans(1)["document"].tolist() == [-1] * 8
        assert not order.knows_documents
        assert np.array_equal(pickle.loads(pickle.dumps(order)).batch(3), order.batch(3))
    with pytest.raises(ConfigError, match="no step 5"):
        order.batch(5)


def test_rows_may_have_any_length(row_shards: Path, rows: np.ndarray[Any, Any]) -> None:
    order = open_order(row_shards, row_length=683, batch_size=3)
    assert np.array_equal(order.batch(2), rows.reshape(120, 683)[6:9])
    with pytest.raises(FormatError, match="not a whole number of rows of 2048 uint16"):
        open_order(row_shards, row_length=2048)


def test_what_rows_cannot_tell_is_printed_as_unknown(row_shards: Path, cli: Any) -> None:
    done = cli("batch", row_shards, "--step", "2", "--batch-size", "8", "--row", "1")
    assert done.returncode == 0, done.stderr
    assert "documents unknown" in done.stdout
    assert "subsets: unknown 100.0%" in done.stdout
    assert "document unknown, subset unknown" in done.stdout
    done = cli("batch", row_shards, "--step", "2", "--batch-size", "8", "--row", "1", "--json")
    assert json.loads(done.stdout)["rows"][0]["spans"] == [
        {"document": None, "start": None, "n_tokens": 2049, "subset": None, "text": None}
    ]


def test_batches_of_the_viewer_are_the_references(golden: Path, tmp_path: Path) -> None:
    """The large file is made by its formula, as the golden set has only its hashes."""
    facts = json.loads((golden / "packed_manifest.json").read_text())
    i = np.arange(2567 * 2049, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = i * np.uint64(2654435761) + np.uint64(12345)
        x ^= x >> np.uint64(17)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(29)
    tokens = (x % np.uint64(50277)).astype("<u2")
    assert hashlib.sha256(tokens.tobytes()).hexdigest() == facts["document"]["sha256_bin"]
    token_shards.shard(_written(tmp_path / "document.bin", tokens), tmp_path / "s", shard_bytes=3_000_001)
    order = open_order(tmp_path / "s")
    assert order.batch_size == 1024
    for case in facts["batch_viewer"]:
        if case["rc"] == 0 and case["start"] == case["end"] < 2:
            found = order.batch(case["start"])
            assert hashlib.sha256(found.tobytes()).hexdigest() == case["sha256_data"]


def _written(path: Path, tokens: np.ndarray[Any, Any]) -> Path:
    path.write_bytes(tokens.tobytes())
    return path


class Handler(BaseHTTPRequestHandler):
    """Serves a folder by ranges, and misbehaves as it is told."""

    folder: Path
    sent = 0
    requests: list[str]
    cut_after: int | None = None
    cuts_left = 0
    has_ranges = True
    lie = 0
    fail_with: list[int]
    has_more_pages = False

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        cls = type(self)
        cls.requests.append(self.path)
        if cls.fail_with:
            self.send_error(cls.fail_with.pop())
            return
        if self.path.startswith("/api/datasets/owner/name/tree/main"):
            files = sorted(self.folder.glob("*"))
            entries = [{"type": "file", "path": f.name, "size": f.stat().st_size} for f in files]
            headers = {"Link": '<http://127.0.0.1/next>; rel="next"'} if cls.has_more_pages else {}
            self._send(200, json.dumps(entries).encode(), headers)
            return
        path = self.folder / self.path.rpartition("/")[2]
        if not path.exists():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range", "")
        if not cls.has_ranges or not wanted:
            self._send(200, data, {})
            return
        first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        if first >= len(data):
            self.send_error(416)
            return
        part = data[first : last + 1]
        said = f"bytes {first}-{first + len(part) - 1}/{len(data) + cls.lie}"
        self._send(206, part, {"Content-Range": said})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        cls = type(self)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if cls.cut_after is not None and cls.cuts_left > 0 and len(data) > cls.cut_after:
            cls.cuts_left -= 1
            data = data[: cls.cut_after]
            self.close_connection = True
        cls.sent += len(data)
        self.wfile.write(data)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, type[Handler]]]:
    handler = type("H", (Handler,), {"folder": folder, "requests": [], "fail_with": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_reads, "FIRST_WAIT", 0.001)


FIRST = "document-00000-of-00002.bin"


def test_a_step_is_read_over_http_and_no_more(row_shards: Path, rows: np.ndarray[Any, Any]) -> None:
    with serving(row_shards) as (host, handler):
        order = open_order(f"{host}/x/{FIRST}", batch_size=8)
        for step in range(5):
            before = handler.sent
            assert np.array_equal(order.batch(step), rows[step * 8 : step * 8 + 8])
            assert handler.sent - before == 8 * 4098
        assert not order.knows_documents
        assert np.array_equal(order[-1], rows[-1])
        again = pickle.loads(pickle.dumps(order.samples))
        assert np.array_equal(again.take(np.array([3, 39])), rows[[3, 39]])


def test_a_hub_lists_its_shards(
    row_shards: Path, rows: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(row_shards) as (host, handler):
        monkeypatch.setenv("HF_ENDPOINT", host)
        order = open_order("hf://datasets/owner/name", batch_size=8)
        assert np.array_equal(order.batch(4), rows[32:40])
        assert all("/resolve/main/" in path or "/tree/main" in path for path in handler.requests)
        with pytest.raises(ConfigError, match="expected hf://datasets"):
            open_order("hf://models/owner/name")
        handler.has_more_pages = True
        with pytest.raises(FormatError, match="more files than the server lists on one page"):
            open_order("hf://datasets/owner/name")


def test_cut_connections_are_gone_on_with(row_shards: Path, rows: np.ndarray[Any, Any]) -> None:
    with serving(row_shards) as (host, handler):
        order = open_order(f"{host}/{FIRST}", batch_size=8)
        handler.cut_after, handler.cuts_left = 7000, 3
        assert np.array_equal(order.batch(1), rows[8:16])
        handler.fail_with += [503, 429]
        assert np.array_equal(order.batch(2), rows[16:24])
        handler.cuts_left = 1000
        handler.cut_after = 0
        with pytest.raises(OSError, match="gave up after 5 tries"):
            order.batch(3)


def test_wrong_lengths_and_servers_without_ranges_are_refused(row_shards: Path) -> None:
    with serving(row_shards) as (host, handler):
        order = open_order(f"{host}/{FIRST}", batch_size=8)
        handler.lie = 5
        with pytest.raises(FormatError, match="60,005 bytes, expected 60,000"):
            order.batch(0)
        with pytest.raises(FormatError, match="whole number of rows"):
            RemoteRows(f"{host}/{FIRST}")
        handler.lie = 0
        handler.has_ranges = False
        with pytest.raises(FormatError, match="whole files instead of ranges"):
            RemoteRows(f"{host}/{FIRST}")
        handler.has_ranges = True
        with pytest.raises(OSError, match="404"):
            RemoteRows(f"{host}/document-00000-of-00009.bin")
        with pytest.raises(ConfigError, match="expected the address of a shard"):
            RemoteRows(f"{host}/document/")
        with pytest.raises(ConfigError, match="no step"):
            order.batch(5)


def test_a_server_that_is_not_there_is_told(row_shards: Path) -> None:
    with serving(row_shards) as (host, _):
        pass
    with pytest.raises(OSError, match=r"gave up after 5 tries: .*refused"):
        RemoteRows(f"{host}/{FIRST}")


def test_shards_are_cut_and_put_together(golden: Path, tmp_path: Path) -> None:
    source = golden / "packed" / "small.bin"
    for shard_bytes, n in ((60_000, 3), (163_920, 1), (81_960, 2)):
        folder = tmp_path / str(shard_bytes)
        made = outputs(token_shards.shard(source, folder, shard_bytes=shard_bytes)[0])
        assert len(made) == n
        token_shards.unshard(folder, tmp_path / f"{shard_bytes}.bin")
        assert (tmp_path / f"{shard_bytes}.bin").read_bytes() == source.read_bytes()
        again, is_new = token_shards.shard(source, folder, shard_bytes=shard_bytes)
        assert (outputs(again), is_new) == (made, False)
        made[0].with_name("small.shards.manifest.json").unlink()
        kept = made[0].read_bytes()
        made[0].write_bytes(b"mine")
        with pytest.raises(OutputExistsError):
            token_shards.shard(source, folder, shard_bytes=shard_bytes)
        made[0].write_bytes(kept)
    made[1].unlink()
    with pytest.raises(FormatError, match=r"00001-of-00001\.bin is missing"):
        token_shards.unshard(folder, tmp_path / "again.bin")


def test_shards_are_checked_by_a_list_of_hashes(row_shards: Path, tmp_path: Path, cli: Any) -> None:
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(row_shards.glob("*.bin"))}
    pythias = tmp_path / "pythias.txt"
    pythias.write_text("".join(f"{name} {digest}\n" for name, digest in hashes.items()))
    sums = tmp_path / "sums.txt"
    sums.write_text("".join(f"{digest}  ./{name}\n" for name, digest in hashes.items()))
    for path in (pythias, sums):
        assert len(run_hashes(row_shards, path)) == 3
    done = cli("verify", row_shards, "--hashes", sums)
    assert done.returncode == 0
    assert "3 files" in done.stdout
    sums.write_text(sums.read_text().replace(next(iter(hashes.values())), "0" * 64))
    with pytest.raises(VerifyError, match="1 of 3"):
        run_hashes(row_shards, sums)
    sums.write_text("nothing\n")
    with pytest.raises(FormatError, match="line 1"):
        run_hashes(row_shards, sums)


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Order:
    folder = tmp_path_factory.mktemp("order")
    run(dataset, folder, OrderConfig(seq_length=32, steps=100, batch_size=24, seed=3))
    return open_order(folder)


def test_batches_come_with_documents(order: Order) -> None:
    batch = order.batch(7, with_documents=True)
    assert np.array_equal(batch.tokens, order.batch(7))
    expected = np.full(batch.tokens.shape, -1)
    positions = np.zeros(batch.tokens.shape, int)
    borders, place, before = [], 0, -1
    for row, document, _, length in order.batch_spans(7).tolist():
        place = place if row == before else 0
        expected[row, place : place + length] = document
        positions[row, place : place + length] = range(length)
        if place < 32:
            borders.append(row * 32 + place)
        place, before = place + length, row
    assert np.array_equal(batch.documents, expected)
    assert np.array_equal(batch.position_ids, positions)
    assert batch.cu_seqlens.tolist() == [*borders, 24 * 32]


def test_ranks_and_micro_batches_are_the_references(golden: Path, tmp_path: Path, dataset: Path) -> None:
    facts = json.loads((golden / "index_manifest.json").read_text())["sampler"]
    run(dataset, tmp_path, OrderConfig(seq_length=8, samples=3000))
    samples = open_order(tmp_path).samples
    for case in facts:
        b, dp, gas = case["micro_batch"], case["dp"], case["grad_accum"]
        order = Order(tmp_path, samples, b * dp * gas, None, 1, None)
        n_steps = case["dataset_len"] // (b * dp) // gas
        for rank, dealt in enumerate(case["per_rank_microbatches"]):
            for i, places in enumerate(dealt):
                step, micro = case["start_iteration"] + i // gas, i % gas
                if step >= n_steps:
                    break  # the reference begins its cycle again
                found = order.micro_batch(step, rank=rank, n_ranks=dp, micro_batch=micro, n_micro_batches=gas)
                assert np.array_equal(found, samples.take(np.array(places)))
    with pytest.raises(ConfigError, match="cannot be divided among"):
        order.micro_batch(0, rank=0, n_ranks=order.batch_size + 1 if order.batch_size else 0)
    with pytest.raises(ConfigError, match="no rank"):
        order.micro_batch(0, rank=1, n_ranks=1)
    with pytest.raises(ConfigError, match="count from 0"):
        order.micro_batch(0, rank=-1, n_ranks=1)


def test_another_batch_size_keeps_the_samples(order: Order) -> None:
    other = order.rebatch(batch_size=16)
    assert np.array_equal(
        np.concatenate([b for _, b in other.batches(0, 3)]),
        np.concatenate([b for _, b in order.batches(0, 2)]),
    )
    assert other.steps == len(order) // 16
    assert np.array_equal(order[-1], order[len(order) - 1])
    assert len(pickle.loads(pickle.dumps(order))) == len(order)
    with pytest.raises(ConfigError):
        order.rebatch(batch_size=0)


def test_data_loaders_take_an_order(order: Order) -> None:
    data = pytest.importorskip("torch.utils.data")
    loader = data.DataLoader(order, batch_size=24, num_workers=0)
    for step, batch in zip(range(3), loader, strict=False):
        assert np.array_equal(batch.numpy(), order.batch(step))


def test_words_are_replaced_where_they_are_words(order: Order, tokenizer: Path) -> None:
    known = Tokenizer.from_file(tokenizer)
    one = [w for w in (" alpha", " beta", " gamma", " delta") if len(known.encode(w)) == 1]
    assert len(one) >= 2, one
    changed = replace_tokens(order, {one[0]: one[1]}, steps=(10, 20))
    n_changed = 0
    for step in (9, 10, 15, 19, 20):
        old, new = order.batch(step), changed.batch(step)
        if not 10 <= step < 20:
            assert np.array_equal(old, new)
            continue
        at = np.argwhere(old != new)
        assert set(old[tuple(at.T)].tolist()) <= {int(known.encode(one[0])[0])}
        assert set(new[tuple(at.T)].tolist()) <= {int(known.encode(one[1])[0])}
        n_changed += len(at)
        for row in range(len(old)):
            spans = order.samples.spans(order.first_sample(step)[0] + row, 1).tolist()
            place = 0
            for _, document, start, length in spans:
                whole = order.dataset[document]
                for k in range(length):
                    i = start + k
                    text = known.decode(whole[i : i + 1].astype(np.uint32))
                    after = known.decode(whole[i + 1 : i + 2].astype(np.uint32))
                    is_word = text == one[0] and not (after[:1].isalnum() or after[:1] == "_")
                    assert (old[row, place + k] != new[row, place + k]) == is_word
                place += length
    assert n_changed > 10
    with pytest.raises(ConfigError, match="not one token"):
        replace_tokens(order, {" alpha beta": " beta"}, steps=(0, 1))


def test_words_beside_an_inserted_text_are_those_of_their_documents(order: Order, tokenizer: Path) -> None:
    known = Tokenizer.from_file(tokenizer)
    (x,), (underscore,), (alpha,), (beta,) = (
        known.encode(text).tolist() for text in (" x", "_", " alpha", " beta")
    )
    batch = order.batch(10)
    row, offset = np.argwhere((batch[:, :-1] == x) & (batch[:, 1:] == underscore))[0].tolist()
    # The text overwrites the rest of the word `x_1`, whose first token is then no word.
    cut = insert_tokens(order, [Insert(10, row, offset + 1, (alpha,))])
    assert replace_tokens(cut, {" x": " beta"}, steps=(10, 11)).batch(10)[row, offset] == x
    # The text overwrites the first token of `x_1`. What follows it is of another document.
    whole = insert_tokens(order, [Insert(10, row, offset, (alpha,))])
    assert replace_tokens(whole, {" alpha": " beta"}, steps=(10, 11)).batch(10)[row, offset] == beta


def test_words_beside_an_inserted_text_in_rows_are_those_of_the_row(tokenizer: Path, tmp_path: Path) -> None:
    """The documents of rows are unknown: an inserted text may continue a word, as in rows on a server."""
    known = Tokenizer.from_file(tokenizer)
    (x,), (underscore,), (alpha,), (beta,) = (
        known.encode(text).tolist() for text in (" x", "_", " alpha", " beta")
    )
    np.array([[alpha, x, alpha, alpha]] * 2, np.uint16).tofile(tmp_path / "rows.bin")
    order = open_order(tmp_path / "rows.bin", row_length=4, batch_size=2)
    cut = insert_tokens(order, [Insert(0, 0, 2, (underscore,))])
    changed = replace_tokens(cut, {" x": " beta"}, steps=(0, 1), tokenizer=known)
    assert changed.batch(0).tolist() == [[alpha, x, underscore, alpha], [alpha, beta, alpha, alpha]]


def test_padding_stays_and_the_label_before_it_is_part_of_its_word(
    dataset: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """A padded sample ends with the first token of the next document, such as the `x` of `x_1`."""
    run(dataset, tmp_path / "o", OrderConfig(seq_length=64, samples=400, packing="pack_until_overflow"))
    order = open_order(tmp_path / "o", batch_size=8)
    known = Tokenizer.from_file(tokenizer)
    old = order.samples.read(0, 400)
    lengths = [order.samples.spans(i, 1)[:, 3].sum() for i in range(400)]
    is_padding = np.arange(65) >= np.array(lengths)[:, None]
    labels = old[np.arange(400), np.array(lengths) - 1]
    (x,) = known.encode("x").tolist()
    assert np.any((labels == x) & (np.array(lengths) < 65))
    changed = replace_tokens(order, {"x": "y"}, steps=(0, 50))
    assert np.array_equal(changed.samples.read(0, 400), old)
    padding = known.id_to_token(int(old[is_padding][0]))
    assert padding is not None
    changed = replace_tokens(order, {padding: "y"}, steps=(0, 50)).samples
    new = changed.read(0, 400)
    assert np.array_equal(new != old, (old == old[is_padding][0]) & ~is_padding)
    assert np.array_equal(changed.core.read(0, 400), new)


def test_changed_samples_refuse_indices_out_of_range(order: Order) -> None:
    samples = insert_tokens(order, [Insert(0, 0, 0, (1,))]).samples
    n = len(samples)
    assert np.array_equal(samples.take(np.array([-1, -n])), samples.take(np.array([n - 1, 0])))
    for index in (n, -n - 1):
        with pytest.raises(IndexError):
            samples.take(np.array([index]))


def test_words_are_replaced_with_any_vocabulary_that_fits(order: Order, tokenizer: Path) -> None:
    def with_id(token: str, id: int) -> Tokenizer:
        values = json.loads(tokenizer.read_text())
        assert token in values["model"]["vocab"]
        values["model"]["vocab"][token] = id
        return Tokenizer(json.dumps(values).encode())

    # An id beyond the number of tokens is one of the vocabulary, and its text may continue a word.
    gap = with_id("z", 5000)
    starts, ends = _word_characters(gap)
    assert len(gap.encode("z")) == 1
    assert len(starts) == len(ends) == 5002
    assert np.flatnonzero(starts & ends)[-1] == 5000
    with pytest.raises(ConfigError, match="'z' is token 70000, and the dataset's tokens are at most 65535"):
        replace_tokens(order, {"a": "z"}, steps=(0, 1), tokenizer=with_id("z", 70_000))


def test_padding_is_not_inserted_over(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "o", OrderConfig(seq_length=64, samples=400, packing="pack_until_overflow"))
    order = open_order(tmp_path / "o", batch_size=8)
    lengths = [int(order.samples.spans(i, 1)[:, 3].sum()) for i in range(400)]
    sample = next(i for i, length in enumerate(lengths) if length < 65)
    (step, row), n = divmod(sample, 8), lengths[sample]
    for wrong in (Insert(step, row, n, (1,)), Insert(step, row, n - 1, (1, 1))):
        with pytest.raises(ConfigError, match=f"do not fit the {n} before the padding"):
            insert_tokens(order, [wrong])
    changed = insert_tokens(order, [Insert(step, row, n - 1, (1,))]).samples
    assert changed.read(sample, 1)[0, n - 1] == 1
    assert np.array_equal(changed.core.read(0, 400), changed.read(0, 400))


def test_inserts_change_their_places_alone_and_are_recorded(order: Order, tmp_path: Path) -> None:
    table = [Insert(3, 2, 5, (1, 2, 3)), Insert(3, 2, 8, (9,)), Insert(50, 23, 32, (7,))]
    changed = insert_tokens(order, table)
    for step in range(100):
        old, new = order.batch(step), changed.batch(step)
        for insert in table:
            if insert.step == step:
                end = insert.offset + len(insert.tokens)
                assert new[insert.row, insert.offset : end].tolist() == list(insert.tokens)
                old[insert.row, insert.offset : end] = insert.tokens
        assert np.array_equal(old, new)
    log = overwritten(order, table)
    assert log[0]["overwritten"] == order.batch(3)[2, 5:8].tolist()
    save_interventions(changed, tmp_path / "view")
    again = open_order(tmp_path / "view")
    assert np.array_equal(again.batch(3), changed.batch(3))
    (recorded,) = json.loads((tmp_path / "view" / "view.json").read_text())["views"]
    assert recorded["table"] == json.loads(json.dumps(log))
    assert np.array_equal(pickle.loads(pickle.dumps(again)).batch(50), changed.batch(50))
    for wrong, told in (
        (Insert(3, 24, 0, (1,)), "no row"),
        (Insert(10**6, 0, 0, (1,)), "no step"),
        (Insert(3, 0, 32, (1, 2)), "do not fit"),
        (Insert(3, 0, 0, (70000,)), "within 0 and 65535"),
    ):
        with pytest.raises(ConfigError, match=told):
            insert_tokens(order, [wrong])
    with pytest.raises(ConfigError, match="two inserts"):
        insert_tokens(order, [Insert(3, 0, 0, (1, 2)), Insert(3, 0, 1, (1,))])


def test_integers_of_numpy_are_recorded_as_those_of_python(order: Order, tmp_path: Path) -> None:
    step, row, token = np.int64(3), np.int32(2), np.uint16(7)
    changed = insert_tokens(order, [Insert(step, row, np.int8(5), (token,))])  # type: ignore[arg-type]
    changed = replace_tokens(changed, {" alpha": " beta"}, steps=tuple(np.arange(2)))  # type: ignore[arg-type]
    save_interventions(changed, tmp_path)
    assert np.array_equal(open_order(tmp_path).batch(3), changed.batch(3))
    for wrong in (Insert(3, 2, 5, (1.0,)), Insert(3, 2, "5", (1,)), Insert(3.0, 2, 5, (1,))):  # type: ignore[arg-type]
        for act in (insert_tokens, overwritten):
            with pytest.raises(ConfigError, match="must be integers"):
                act(order, [wrong])
    with pytest.raises(ConfigError, match="steps must be integers"):
        replace_tokens(order, {" alpha": " beta"}, steps=(0, 1.5))  # type: ignore[arg-type]


def test_only_what_can_be_inserted_is_listed_as_overwritten(order: Order) -> None:
    for wrong in (
        Insert(3, -1, 0, (1,)),
        Insert(3, 24, 0, (1,)),
        Insert(3, 0, -2, (1,)),
        Insert(3, 0, 32, (1, 2)),
    ):
        for act in (insert_tokens, overwritten):
            with pytest.raises(ConfigError, match=r"no row|do not fit a row of 33 "):
                act(order, [wrong])


def test_changes_of_nothing_are_refused(order: Order) -> None:
    with pytest.raises(ConfigError, match=r"no tokens to insert \(step 3, row 2\)"):
        insert_tokens(order, [Insert(3, 2, 5, ())])
    for steps in ((0, 0), (5, 3)):
        with pytest.raises(ConfigError, match=f"no steps from {steps[0]} to {steps[1]}"):
            replace_tokens(order, {" alpha": " beta"}, steps=steps)


def test_words_replaced_in_rows_without_a_manifest_are_not_recorded(
    row_shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    order = open_order(row_shards, batch_size=8)
    changed = replace_tokens(order, {"a": "b"}, steps=(0, 1), tokenizer=Tokenizer(tokenizer.read_bytes()))
    with pytest.raises(ConfigError, match="only new interventions on an order with a manifest"):
        save_interventions(changed, tmp_path / "saved")


def test_replaced_words_are_recorded(order: Order, tmp_path: Path) -> None:
    changed = replace_tokens(order, {" alpha": " beta"}, steps=(10, 20))
    save_interventions(changed, tmp_path)
    assert np.array_equal(open_order(tmp_path).batch(15), changed.batch(15))


def test_words_replaced_with_another_tokenizer_are_not_recorded(
    order: Order, tokenizer: Path, tmp_path: Path
) -> None:
    """They would be read again with the dataset's: other tokens."""
    values = json.loads(tokenizer.read_text())
    vocab = values["model"]["vocab"]
    vocab["y"], vocab["z"] = vocab["z"], vocab["y"]
    other = Tokenizer(json.dumps(values).encode())
    changed = replace_tokens(order, {" alpha": " beta"}, steps=(10, 20), tokenizer=other)
    with pytest.raises(ConfigError, match="another tokenizer than the dataset's"):
        save_interventions(changed, tmp_path)
    assert not (tmp_path / "order.json").exists()


def test_views_of_views_are_recorded_together(order: Order, tmp_path: Path) -> None:
    swapped = replace_tokens(order, {" alpha": " beta"}, steps=(0, 40))
    both = insert_tokens(swapped.rebatch(batch_size=16), [Insert(30, 3, 5, (7, 8, 9))])
    save_interventions(both.rebatch(batch_size=8), tmp_path / "both")
    again = open_order(tmp_path / "both")
    assert again.batch_size == 8
    assert np.array_equal(again.samples.read(0, len(again)), both.samples.read(0, len(both)))
    assert again.samples[30 * 16 + 3][5:8].tolist() == [7, 8, 9]
    views = json.loads((tmp_path / "both" / "view.json").read_text())["views"]
    assert views[1]["table"][0]["overwritten"] == swapped.samples[30 * 16 + 3][5:8].tolist()
    # A view upon a saved one names that one.
    more = insert_tokens(again, [Insert(0, 0, 0, (1,))])
    save_interventions(more, tmp_path / "more")
    assert open_order(tmp_path / "more").record.inputs[0]["path"] == "../both/order.json"
    assert open_order(tmp_path / "more").batch(0)[0, 0] == 1
    with pytest.raises(ConfigError, match="cannot be recorded"):
        _ = more.record
    for unsaved in (order, again):
        with pytest.raises(ConfigError, match="only new interventions"):
            save_interventions(unsaved, tmp_path / "none")


def test_a_changed_base_order_is_a_fault_of_the_input(order: Order, tmp_path: Path) -> None:
    """Exit code 1, not 2: no option of the command is wrong."""
    save_interventions(replace_tokens(order, {" alpha": " beta"}, steps=(0, 2)), tmp_path / "saved")
    found = json.loads((tmp_path / "saved" / "order.json").read_text())
    base = tmp_path / "saved" / found["inputs"][0]["path"]
    before = base.read_bytes()
    try:
        base.write_bytes(before + b"\n")
        with pytest.raises(PileError, match="the base order has changed") as refused:
            open_order(tmp_path / "saved")
        assert not isinstance(refused.value, ConfigError)
    finally:
        base.write_bytes(before)


def test_an_array_that_does_not_fit_the_disk_is_not_published(order: Order, tmp_path: Path) -> None:
    """Not even if only its last bytes do not fit, which a buffer holds until the file is closed."""
    program = (
        "import resource, sys\n"
        "from pile_tools.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))\n"
        "sys.exit(main())"
    )
    file = tmp_path / "b.npy"
    np.save(tmp_path / "whole.npy", order.batch(3))
    n_bytes = (tmp_path / "whole.npy").stat().st_size

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        arguments = ["batch", str(order.path), "--step", "3", "--npy", str(file)]
        command = [sys.executable, "-c", program, str(limit), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for limit in (n_bytes - 1, n_bytes - 700, 200):
        ended = run(limit)
        assert ended.returncode == 1, ended
        assert str(file) in ended.stderr
        assert not file.exists()
    assert run(n_bytes).returncode == 0
    assert file.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_steps_are_exported(order: Order, tmp_path: Path, cli: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    done = cli("export", order.path, "--steps", "2:4", "-o", file)
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(file)
    assert table.column("step").to_pylist() == [
        step for step in (2, 3) for _ in range(len(order.batch_spans(step)))
    ]
    assert (
        table.column("document").to_pylist()[: len(order.batch_spans(2))]
        == order.batch_spans(2)["document"].tolist()
    )
    assert cli("export", order.path, "--steps", "2:5", "-o", file).returncode == 1
    assert cli("export", order.path, "--steps", "4", "-o", file).returncode == 2


def test_a_batch_is_written_as_an_array(order: Order, tmp_path: Path, cli: Any) -> None:
    done = cli("batch", order.path, "--step", "5", "--npy", tmp_path / "b.npy")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "b.npy"), order.batch(5))
