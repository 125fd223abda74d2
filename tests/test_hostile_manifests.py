"""Untrusted manifests: every mutation ends in success or in one clear line, never in an internal error.

A sample of the mutations runs by default; PILE_TOOLS_ALL_MUTATIONS=1 runs all.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import document

from pile_tools import checked, manifest
from pile_tools.cli import group
from pile_tools.cli import run as run_cli
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError
from pile_tools.jobs import index, label, order, sample, stages, tokenize
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.manifest import Request
from pile_tools.order import interventions as views
from pile_tools.order.interventions import Insert, insert_tokens, replace_tokens
from pile_tools.order.open import open_order

IS_COMPLETE = bool(os.environ.get("PILE_TOOLS_ALL_MUTATIONS"))

#: Mutations per file in the sample.
N_SAMPLED = 90

DEEP: Any = []
for _ in range(500):
    DEEP = [DEEP]

VALUES: list[Any] = [
    *(None, True, "", "x", ".", "/", "a\0b", "../x", "/dev/zero", "x" * 5000, "\ud800"),
    *(-1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**70, 10**4000, 0.5, float("inf"), float("nan")),
    *([], [None], [0, 1], [[]], {}, {"a": 1}, DEEP),
]

#: Mutated files, and the commands that read them. `{}` is the folder.
READERS: dict[str, list[str]] = {
    "tokens/d.manifest.json": [
        "verify {}/tokens/d",
        "verify {}/order --chain",
        "show {}/tokens/d 3",
        "show {}/tokens/d 3 --raw",
        "merge {}/tokens/d {}/tokens/e -o {}/merged/m",
        "tokenize {}/shards -o {}/tokens/d --tokenizer {}/tokenizer.json",
        "when {}/order alpha",
    ],
    "tokens/d.index/manifest.json": [
        "verify {}/tokens/d.index",
        "search {}/tokens/d alpha",
        "index {}/tokens/d",
    ],
    "labels/d.provenance.manifest.json": [
        "verify {}/labels/d --chain",
        "show {}/labels/d 3 --raw",
        "label {}/labels/d {}/shards --tokenizer {}/tokenizer.json",
    ],
    "order/order.json": [
        "verify {}/order",
        "batch {}/order --step 0 --row 0",
        "when {}/order alpha",
        "trace {}/order 3",
        "mixture {}/order",
        "repeats {}/order",
        "export {}/order --steps 0:1 -o {}/merged/x.csv",
        "stages {}/order {}/order -o {}/merged/s",
        "order {}/tokens/d -o {}/order --seq-length 16 --steps 3 --batch-size 4",
    ],
    "blend/order.json": [
        "verify {}/blend",
        "batch {}/blend --step 0 --row 0",
        "when {}/blend alpha",
        "stages {}/order {}/blend -o {}/merged/s",
    ],
    "staged/order.json": [
        "verify {}/staged --chain",
        "batch {}/staged --step 0 --row 0",
        "mixture {}/staged",
    ],
    "parallel/order.json": ["verify {}/parallel", "batch {}/parallel --step 0 --row 0"],
    "view/order.json": ["verify {}/view --chain", "batch {}/view --step 0 --row 0"],
    "view/view.json": ["batch {}/view --step 0 --row 0"],
    "run/manifest.json": ["verify {}/run", "verify {}/run --chain"],
    "sample/manifest.json": ["sample {}/sample --megabytes 0.02 --shards 1", "verify {}/sample"],
    "trained.manifest.json": [
        "train-tokenizer {}/few -o {}/trained.json --vocab-size 300",
        "tokenize {}/few -o {}/merged/d --tokenizer {}/trained.json",
    ],
    "sharded/d.shards.manifest.json": [
        "shard {}/tokens/d.bin -o {}/sharded --bytes 100000",
        "verify {}/sharded --chain",
        "unshard {}/sharded -o {}/merged/d.bin",
    ],
    # Commands that print or draw what is in finished output.
    "tables/n.tsv.manifest.json": ["count-ngrams {}/tokens/d --n 1-2 -o {}/tables/n.tsv --plot {}/page.html"],
    "tables/t.tsv.manifest.json": [
        "count-terms {}/terms.txt {}/shards --pairs all -o {}/tables/t.tsv --plot {}/page.html"
    ],
    "tables/o.tsv.manifest.json": [
        "count-terms {}/terms.txt {}/order --checkpoints 1 --pairs all -o {}/tables/o.tsv --plot {}/page.html"
    ],
    "tables/i.tsv.manifest.json": [
        "count-numbers {}/order --checkpoints 1 -o {}/tables/i.tsv --plot {}/page.html"
    ],
    "contaminated/manifest.json": [
        "contamination {}/items.jsonl {}/order --checkpoints 1 -o {}/contaminated --report {}/page.html"
    ],
    "exact/manifest.json": [
        "dedup exact {}/shards -o {}/exact --report {}/page.html",
        "dedup restore {}/exact 00.jsonl:1",
    ],
    "near/manifest.json": [
        "dedup near {}/shards --max-cluster 2 --keep-signatures -o {}/near --report {}/page.html",
        "dedup restore {}/near 01.jsonl.zst:1",
    ],
    "near/signatures/manifest.json": [
        "dedup near {}/shards --signatures {}/near/signatures -o {}/merged/near",
        "dedup near {}/few --against {}/near --unverified -o {}/merged/few",
    ],
    "passages/manifest.json": ["dedup passages {}/shards -o {}/passages --report {}/page.html"],
    "halves/d.parts/part-00001-of-00002.manifest.json": ["merge {}/halves/d.parts -o {}/merged/d"],
}

#: Commands that make the artifacts of the tree that have no other maker.
MADE = [
    "tokenize {}/shards -o {}/halves/d --tokenizer {}/tokenizer.json --part 1/2",
    "tokenize {}/shards -o {}/halves/d --tokenizer {}/tokenizer.json --part 2/2",
    "sample {}/sample --megabytes 0.02 --shards 1",
    "train-tokenizer {}/few -o {}/trained.json --vocab-size 300",
    "shard {}/tokens/d.bin -o {}/sharded --bytes 100000",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, shards: Path, tokenizer: Path) -> Path:
    """One artifact of each kind in a folder."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(shards, root / "shards")
    shutil.copy(tokenizer, root / "tokenizer.json")
    found, tokens = sorted((root / "shards").iterdir()), root / "tokens"
    config = TokenizeConfig(tokenizer=root / "tokenizer.json")
    for name in ("d", "e"):
        tokenize.run(found, tokens / name, config, threads=1)
    index.run(tokens / "d", index.IndexConfig())
    (root / "labels").mkdir()
    for suffix in (".bin", ".idx"):
        shutil.copy(tokens / f"d{suffix}", root / "labels")
    label.run(root / "labels" / "d", found, label.LabelConfig(tokenizer=root / "tokenizer.json"), threads=1)
    sizes = {"seq_length": 16, "steps": 3, "batch_size": 4}
    order.run(tokens / "d", root / "order", order.OrderConfig(**sizes))
    order.run(order.Blend((tokens / "d", tokens / "e")), root / "blend", order.OrderConfig(**sizes))
    order.run(tokens / "d", root / "parallel", order.OrderConfig(**sizes), labels=tokens / "e")
    stages.run([stages.Stage(root / name) for name in ("order", "blend")], root / "staged")
    view = insert_tokens(open_order(root / "order"), [Insert(0, 1, 2, (5, 6))])
    views.save_interventions(replace_tokens(view, {"a": "b"}, steps=(0, 2)), root / "view")
    (root / "run").mkdir()
    inputs = [manifest.file_entry(root / "order" / "order.json", root / "run", role="order")]
    manifest.write(root / "run" / "manifest.json", Request("run", {"steps": 3}, inputs), [], {"steps": 3})
    (root / "terms.txt").write_text("alpha\nbeta\ngamma delta\n")
    (root / "items.jsonl").write_text(json.dumps({"question": document(30)["text"], "id": "a"}) + "\n")
    (root / "few").mkdir()
    shutil.copy(found[0], root / "few" / "few.jsonl")
    for command in (
        *MADE,
        *(commands[0] for name, commands in READERS.items() if "{}/page.html" in commands[0]),
    ):
        code, err = _run(command, root)
        assert code == 0, f"{command}: {err}"
    return root


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within a JSON value."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from _paths(item, (*path, key))


def _changed(text: str, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> bytes:
    """The JSON `text` after `change(parent, key)` of the value at `path`."""
    values = json.loads(text)
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    _sign(values)
    return json.dumps(values).encode()


def _sign(values: Any) -> None:
    """Makes the checksum of a manifest right again, as whoever changed it could."""
    if isinstance(values, dict) and "checksum" in values:
        values["checksum"] = fingerprint(
            {name: value for name, value in values.items() if name != "checksum"}
        )


def _remove(parent: Any, key: Any) -> None:
    del parent[key]


def _put(value: Any) -> Callable[[Any, Any], None]:
    def change(parent: Any, key: Any) -> None:
        parent[key] = value

    return change


def _rename(parent: Any, key: Any) -> None:
    if isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    else:
        parent.append(parent[key])


def mutations(data: bytes) -> tuple[list[Callable[[], bytes]], list[Callable[[], bytes]]]:
    """All mutations of a JSON file: of one value or key each, and of several values or of the bytes."""
    text = data.decode()
    changes = [_remove, _rename, *map(_put, VALUES)]
    made: list[Callable[[], bytes]] = [
        lambda path=path, change=change: _changed(text, path, change)  # type: ignore[misc]
        for path in _paths(json.loads(text))
        for change in changes
    ]
    others = [
        *(data[:n] for n in (0, 1, len(data) // 2, len(data) - 3)),
        *(b"\xef\xbb\xbf" + data, data.decode().encode("utf-16"), b"\xff" + data, data + b"{}"),
        *(b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[]", b"null", b"1", b'"x"'),
        # A key that occurs twice.
        data.replace(b"{", b'{"kind": "order", "kind": "x",', 1),
    ]
    # A kind without a shape, and settings or a summary of another kind.
    parts: list[dict[str, Any]] = [{"kind": "foo"}, {"settings": {}}, {"summary": {}}]
    others += [
        json.dumps(json.loads(text) | {name: value for part in some for name, value in part.items()}).encode()
        for n in (1, 2, 3)
        for some in itertools.combinations(parts, n)
    ]
    return made, [lambda other=other: other for other in others]  # type: ignore[misc]


def _run(command: str, root: Path) -> tuple[int, str]:
    """Exit code and standard error of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_cli(group, command.replace("{}", str(root)).split())
    return code, err.getvalue()


@pytest.mark.parametrize("name", READERS)
def test_every_mutation_ends_in_one_clear_line(tree: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    good = (root / name).read_bytes()
    for command in READERS[name]:
        code, err = _run(command, root)
        assert code == 0, f"{command}: {err}"
    of_values, others = mutations(good)
    n_sampled = len(of_values) if IS_COMPLETE else min(N_SAMPLED, len(of_values))
    chosen = others + random.Random(name).sample(of_values, n_sampled)
    wrong = []
    for number, mutation in enumerate(chosen):
        (root / name).write_bytes(mutated := mutation())
        commands = READERS[name] if IS_COMPLETE else [READERS[name][number % len(READERS[name])]]
        for command in commands:
            code, err = _run(command, root)
            others_lines = ("Usage:", "Try ", "reading ")
            lines = [line for line in err.splitlines() if not line.startswith(others_lines)]
            if code not in (0, 1, 2) or (code and len(lines) != 1):
                wrong.append((command, code, err[-300:], _difference(good, mutated)))
        shutil.rmtree(root / "merged", ignore_errors=True)
    assert not wrong, f"{len(wrong)} of {len(chosen)}: {wrong[:5]}"


def _difference(good: bytes, mutated: bytes) -> str:
    """The text around the first difference, for the message of a failure."""
    text = json.dumps(json.loads(good)).encode()
    start = next((i for i, (a, b) in enumerate(zip(text, mutated, strict=False)) if a != b), 0)
    return repr(mutated[max(0, start - 40) : start + 60])


def _special(folder: Path) -> list[Path]:
    """Files that block a reader or never end, and paths that are not files."""
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    return [
        folder / "pipe",
        folder / "loop",
        Path("/dev/zero"),
        Path("/dev/tty"),
        Path("/proc/self/mem"),
        folder,
    ]


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    _sign(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("role", ["shard", "tokenizer", "output"])
def test_only_regular_files_are_opened(tree: Path, tmp_path: Path, role: str) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    path = root / "tokens" / "d.manifest.json"
    good = path.read_bytes()
    for special in _special(tmp_path):
        for name in (os.fspath(special), os.path.relpath(special, path.parent)):
            entry = {"role": role, "path": name, "bytes": 0, "sha256": "0" * 64}
            path.write_bytes(good)
            if role == "output":
                _edit(path, lambda values, entry=entry: values["outputs"].append(entry))
            else:
                _edit(path, lambda values, entry=entry: values["inputs"].insert(0, entry))
            for command in ("verify {}/tokens/d", "verify {}/order --chain"):
                code, err = _run(command, root)
                assert (code, len(err.splitlines())) == (1, 1), err
            code, err = _run("show {}/tokens/d 3", root)
            assert code in ((0,) if role != "tokenizer" else (1, 2)), err


def test_a_pipe_with_the_name_of_an_artifacts_file_is_refused(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    doc_idx = next((root / "order").glob("*_doc_idx.npy"))
    files = ["tokens/d.bin", "tokens/d.idx", "tokens/d.provenance", "tokens/d.manifest.json"]
    files += [
        "order/order.json",
        "view/view.json",
        f"order/{doc_idx.name}",
        "tokenizer.json",
        "shards/00.jsonl",
    ]
    for name in files:
        good = (root / name).read_bytes()
        (root / name).unlink()
        os.mkfifo(root / name)
        code, err = _run("verify {}/view --chain", root)
        assert (code, len(err.splitlines())) == (1, 1), f"{name}: {err}"
        if not name.startswith(("tokens/d.prov", "tokens/d.man", "tokenizer", "shards")):
            code, err = _run("batch {}/view --step 0 --row 0", root)
            assert (code, len(err.splitlines())) == (1, 1), f"{name}: {err}"
        (root / name).unlink()
        (root / name).write_bytes(good)


@pytest.mark.parametrize("name", ["{}/victim/x", "../victim/x", "link/x", "inner/../../victim/x", "linked"])
def test_outputs_outside_their_folder_are_never_touched(tree: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    (root / "victim").mkdir()
    (root / "victim" / "x").write_text("precious")
    (root / "order" / "inner").mkdir()
    (root / "order" / "link").symlink_to("../victim")
    (root / "order" / "linked").symlink_to("../victim/x")
    entry = {"path": name.replace("{}", str(root)), "bytes": 8, "sha256": "0" * 64}
    _edit(root / "order" / "order.json", lambda values: values["outputs"].append(entry))
    changed = (root / "order" / "order.json").read_bytes()
    for command in (
        "order {}/tokens/d -o {}/order --seq-length 8 --samples 5 --force",
        "order {}/tokens/d -o {}/order --seq-length 16 --steps 3 --batch-size 4",
        "verify {}/order",
    ):
        (root / "order" / "order.json").write_bytes(changed)
        code, err = _run(command, root)
        if "--force" in command:
            assert code == 0, err
        else:
            assert (code, len(err.splitlines())) == (1, 1), err
            assert "output" in err
        assert (root / "victim" / "x").read_text() == "precious"
        assert (root / "order" / "link").is_symlink()
        assert (root / "order" / "linked").is_symlink()


def test_a_sample_never_removes_files_outside_its_folder(tmp_path: Path) -> None:
    config = sample.SampleConfig(megabytes=0.02, shards=1)
    sample.run(config, tmp_path / "shards")
    (tmp_path / "x").write_text("precious")
    for name in ("../x", str(tmp_path / "x")):
        entry = {"path": name, "bytes": 8, "sha256": "0" * 64}
        _edit(
            tmp_path / "shards" / "manifest.json", lambda values, entry=entry: values["outputs"].append(entry)
        )
        with pytest.raises(FormatError, match="not below the manifest's folder"):
            sample.run(config, tmp_path / "shards")
        sample.run(config, tmp_path / "shards", force=True)
    assert (tmp_path / "x").read_text() == "precious"


#: Values that do not go together, or that nothing can be drawn of: file, path of a value, and the value.
BROKEN: list[tuple[str, tuple[Any, ...], Callable[[Any, Any], None]]] = [
    ("tables/n.tsv", ("summary", "lengths", 0, "ranks", 0), _put([0, 1])),
    ("tables/n.tsv", ("summary", "lengths"), _put([])),
    ("tables/t.tsv", ("summary", "n_normalized"), _remove),
    ("tables/o.tsv", ("summary", "steps"), _remove),
    ("tables/o.tsv", ("summary", "curves"), _remove),
    ("tables/o.tsv", ("summary", "curves", 0, "occurrences", 0), _remove),
    ("tables/i.tsv", ("summary", "curves"), _put([{"term": "7", "occurrences": [1]}])),
    ("contaminated/", ("summary", "n_items"), _put(0)),
    ("contaminated/", ("summary", "worst", 0, "first_step"), _put(1)),
    ("exact/", ("summary", "histogram"), _put([1, 2])),
    ("exact/", ("summary", "n_left_alone"), _put(5)),
    ("near/", ("summary", "bands"), _put(None)),
    ("near/", ("summary", "curve", 0), _put([0.5, 1e308])),
    ("near/", ("settings", "unverified"), _put(True)),
    ("halves/d.parts/part-00001-of-00002", ("settings", "part_of"), _remove),
    ("near/signatures/", ("summary", "shards", 0, "n_bad_records"), _put(41)),
    ("near/signatures/", ("summary", "shards", 0, "n_documents"), _put(2**63 - 1)),
    ("near/signatures/", ("summary", "shards", 0, "n_records"), _put(0)),
]


@pytest.mark.parametrize(("name", "path", "change"), BROKEN)
def test_values_that_do_not_go_together_are_refused(
    tree: Path, tmp_path: Path, name: str, path: tuple[Any, ...], change: Callable[[Any, Any], None]
) -> None:
    good = tree / (f"{name}manifest.json" if name.endswith("/") else f"{name}.manifest.json")
    manifest.read(good)
    (tmp_path / good.name).write_bytes(_changed(good.read_text(), path, change))
    with pytest.raises(FormatError):
        manifest.read(tmp_path / good.name)


@pytest.mark.parametrize(
    "path",
    [("inputs", 0, "bytes"), ("inputs", 0, "sha256"), ("settings", "text_field")],
    ids=lambda path: path[-1],
)
def test_no_record_is_restored_by_a_manifest_that_does_not_describe_its_shard(
    tree: Path, tmp_path: Path, path: tuple[Any, ...]
) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    found = root / "exact" / "manifest.json"
    found.write_bytes(_changed(found.read_text(), path, _remove))
    code, err = _run("dedup restore {}/exact 00.jsonl:1", root)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert f"missing key '{path[-1]}'" in err


def test_a_part_whose_number_is_none_is_named(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    found = root / "halves" / "d.parts" / "part-00002-of-00002.manifest.json"
    found.write_bytes(_changed(found.read_text(), ("settings", "part"), _put("x")))
    code, err = _run("merge {}/halves/d.parts -o {}/merged/d", root)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert found.name in err


@pytest.mark.parametrize("text", ["first\tsecond\tstep\ttogether\na\tb\t1\n", "a\nb\tc\t0\tmany\n"])
def test_a_table_of_pairs_that_is_none_is_named(tree: Path, tmp_path: Path, text: str) -> None:
    """A finished table is not read whole to compare its checksum, and may be of someone else."""
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    (root / "tables" / "o.pairs.tsv").write_text(text)
    _edit(
        root / "tables" / "o.tsv.manifest.json",
        lambda values: values["outputs"][0].update(path="o.pairs.tsv", bytes=len(text)),
    )
    code, err = _run("count-terms {}/terms.txt {}/order --checkpoints 1 --pairs all -o {}/tables/o.tsv", root)
    assert code == 1, err
    assert err.splitlines()[-1].startswith("error: not a table of pairs")


def test_lines_of_bounded_length_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"ab\n\nabc\nab")
    assert list(checked.bounded_lines(path, 4)) == [b"ab\n", b"\n", b"abc\n", b"ab"]
    with pytest.raises(FormatError, match=r"more than 3 bytes, .*line 3"):
        list(checked.bounded_lines(path, 3))


def test_a_table_may_name_bytes_within_a_character(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    table = root / "passages" / "passages.parquet"
    columns = pq.read_table(table).to_pydict()
    assert columns["end"]
    columns["end"] = [end - 1 for end in columns["end"]]
    pq.write_table(pa.table(columns), table)
    entry = manifest.file_entry(table, table.parent)
    _edit(root / "passages" / "manifest.json", lambda values: values["outputs"][-1].update(entry))
    code, err = _run("dedup passages {}/shards -o {}/passages --report {}/page.html", root)
    assert code == 0, err
    assert "\ufffd" in (root / "page.html").read_text()


def test_no_file_outside_the_folder_of_a_part_is_read(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    found = root / "halves" / "d.parts" / "part-00002-of-00002.manifest.json"
    entry = manifest.file_entry(root / "terms.txt", found.parent)
    _edit(found, lambda values: values["outputs"].append(entry))
    code, err = _run("merge {}/halves/d.parts -o {}/merged/d", root)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert "not below the manifest's folder" in err


@pytest.mark.parametrize(
    "change",
    [
        lambda views: views[0]["table"][0].update(step=10**6),
        lambda views: views[0]["table"][0].update(row=99),
        lambda views: views[0]["table"][0].update(tokens=[]),
        lambda views: views[0].update(batch_size=2**62),
        lambda views: views[1].update(steps=[5, 2]),
        lambda views: views[1].update(steps=[0, 10**6]),
        lambda views: views[1].update(table={}),
        lambda views: views[1].update(table={"not one token": "a"}),
        lambda views: views.extend([views[0]] * 3000),
    ],
)
def test_interventions_that_cannot_be_applied_are_the_fault_of_their_file(
    tree: Path, tmp_path: Path, change: Callable[[Any], None]
) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    _edit(root / "view" / "view.json", lambda values: change(values["views"]))
    views = json.loads((root / "view" / "view.json").read_text())
    _edit(root / "view" / "order.json", lambda values: values["settings"].update(view=fingerprint(views)))
    code, err = _run("batch {}/view --step 0 --row 0", root)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert str(root / "view" / "view.json") in err


def test_as_many_interventions_are_saved_as_are_opened(tree: Path, tmp_path: Path) -> None:
    order = open_order(tree / "order")
    for n in range(views.MAX_DEPTH):
        order = insert_tokens(order, [Insert(0, 1, n % 8, (n,))])
    views.save_interventions(order, tmp_path / "all")
    for of in (order, open_order(tmp_path / "all")):
        with pytest.raises(ConfigError, match="more than 64 interventions on each other"):
            insert_tokens(of, [Insert(0, 1, 2, (5,))])
    assert run_cli(group, ["when", str(tmp_path / "all"), "alpha", "--quiet"]) == 0


def test_interventions_on_saved_ones_count_with_them(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("interventions", "open"):
        monkeypatch.setattr(f"pile_tools.order.{module}.MAX_DEPTH", 5)
    order = open_order(tree / "order")
    for n in range(5):
        views.save_interventions(insert_tokens(order, [Insert(0, 1, n, (n,))]), tmp_path / f"{n}")
        order = open_order(tmp_path / f"{n}")
    assert order.batch(0)[1][:5].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="more than 5 interventions on each other"):
        insert_tokens(order, [Insert(0, 1, 2, (5,))])
