"""The way back: documents, repeats and mixture against what rows hold; commands. Texts: test_when_spans."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pile_tools import ConfigError, Order, PileError, TokenDataset, _core, open_order, timeline
from pile_tools.jobs import tokenize
from pile_tools.jobs.order import Blend, OrderConfig, run
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.read.shards import find_shards
from pile_tools.timeline.checkpoints import PYTHIA, intervals

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def order_folder(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("order")
    run(dataset, folder, OrderConfig(seq_length=32, steps=1500, batch_size=4, seed=3))
    return folder


@pytest.fixture(scope="module")
def order(order_folder: Path) -> Order:
    return open_order(order_folder)


def test_trace_holds_every_token_of_every_copy(order: Order) -> None:
    document = int(np.argmax(order.samples.dataset.lengths()))
    views = timeline.trace(order, document)
    tokens = order.samples.dataset[document]
    for view in views:
        row = order.samples[int(view["sample"])]
        part = row[view["offset"] : view["offset"] + view["length"]]
        assert np.array_equal(part, tokens[view["token"] : view["token"] + view["length"]])
    first = views[views["epoch"] == 0]
    covered = {t for v in first for t in range(int(v["token"]), int(v["token"] + v["length"]))}
    assert covered == set(range(len(tokens)))
    assert np.array_equal(views["step"], views["sample"] // 4)
    with pytest.raises(ConfigError, match="no document"):
        timeline.trace(order, 10**6)


def test_an_index_of_another_dataset_is_refused(
    order: Order, dataset: Path, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    config = OrderConfig(seq_length=32, samples=20, seed=5)
    run(Blend((dataset, dataset), (1.0, 1.0)), tmp_path / "blend", config)
    part = tmp_path / "part"
    tokenize.run(find_shards([shards])[:1], part, TokenizeConfig(tokenizer=tokenizer), threads=1)

    def index(prefix: Path) -> _core.SuffixIndex:
        folder = tmp_path / f"{prefix.name}.index"
        folder.mkdir()
        opened = TokenDataset(prefix)
        _core.build_index(opened, _core.Tokenizer.from_file(tokenizer), folder, 1 << 20)
        return _core.SuffixIndex(folder, opened)

    blend = open_order(tmp_path / "blend")
    for searched, of in ((order, index(part)), (blend, index(dataset))):
        with pytest.raises(PileError, match="the index is of another dataset"):
            timeline.when(searched, ["alpha"], index=of, batch_size=4)


def test_mixture_counts_what_is_read(order: Order) -> None:
    found = timeline.mixture(order, interval_steps=400)
    assert found.n_tokens.sum() == 1500 * 4 * 32
    assert found.first_steps.tolist() == [0, 400, 800, 1200]
    counts: dict[str | None, int] = dict.fromkeys(["Books", "Code", None], 0)
    dataset = order.samples.dataset
    for sample in range(400 * 4):
        spans = order.samples.spans(sample, 1)
        spans[-1, 3] -= 1
        for _, document, _, length in spans.tolist():
            origin = dataset.origin(document)
            counts[origin["subset"] if origin else None] += length
    assert dict(zip(found.subsets, found.n_tokens[0].tolist(), strict=True)) == counts
    assert np.allclose(found.shares.sum(axis=1), 1)


def test_repeats_tell_epochs_and_duplicates_apart(order: Order) -> None:
    dataset: TokenDataset = order.samples.dataset
    found = timeline.repeats(order, interval_steps=500)
    seen: dict[tuple[int, int], None] = {}
    contents: dict[bytes, int] = {}
    same_as = [contents.setdefault(dataset[i].tobytes(), i) for i in range(len(dataset))]
    any_seen: set[tuple[int, int]] = set()
    by_epoch, by_duplicate = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for sample in range(1500 * 4):
        spans = order.samples.spans(sample, 1)
        spans[-1, 3] -= 1
        for _, document, start, length in spans.tolist():
            for token in range(start, start + length):
                if (document, token) in seen:
                    by_epoch[sample // 2000] += 1
                elif (same_as[document], token) in any_seen:
                    by_duplicate[sample // 2000] += 1
                seen[document, token] = None
                any_seen.add((same_as[document], token))
    assert found.intervals["by_epoch"].tolist() == by_epoch.tolist()
    assert found.intervals["by_duplicate"].tolist() == by_duplicate.tolist()
    assert by_epoch.sum() > 0
    assert by_duplicate.sum() > 0
    assert {int(d) for d in found.documents["same_as"]} <= set(same_as)


def test_checkpoints_around_a_step(tmp_path: Path) -> None:
    assert len(PYTHIA) == 154
    cut = intervals(None, 1500)
    assert cut.around(0) == (0, 1)
    assert cut.around(600) == (512, 1000)
    assert cut.around(1200) == (1000, None)
    assert cut.labels()[-1] == "step1000 to end"
    assert intervals("0,2,9", 9).labels() == ["step0 to step2", "step2 to step9"]
    assert intervals("2,4", 9).labels() == ["start to step2", "step2 to step4", "step4 to end"]
    # A name that took a search of all checkpoints would take minutes.
    assert len(intervals("1", 143_000).labels()) == 143_000
    assert intervals("500", 1500).checkpoints == (0, 500, 1000, 1500)
    assert intervals("500,500", 1500).checkpoints == (500,)
    # Longer than a file name may be.
    assert intervals(",".join(map(str, PYTHIA)), 143_000).checkpoints == PYTHIA
    for step in (0, 7, 20):
        (tmp_path / "checkpoints" / f"step{step}").mkdir(parents=True)
    assert intervals(str(tmp_path), 10).checkpoints == (0, 7)
    with pytest.raises(ConfigError, match="every N steps"):
        intervals("x", 10)
    for too_long in ("9" * 5000, "1," + "9" * 5000):
        with pytest.raises(ConfigError, match="expected a number"):
            intervals(too_long, 10)


def test_the_command_says_what_it_did(order_folder: Path, cli: Run, tmp_path: Path) -> None:
    done = cli("when", order_folder, "gamma", "--limit", "2", "--plot", tmp_path / "a.html")
    assert done.returncode == 0, done.stderr
    assert '"gamma" is seen' in done.stdout
    assert "rule: a text occurs where its bytes occur" in done.stdout
    assert f"plot: {tmp_path / 'a.html'}" in done.stdout
    rows = json.loads(cli("when", order_folder, "本語", "--json").stdout)["sightings"]
    assert rows
    assert {row["query"] for row in rows} == {"本語"}
    for command in ("repeats", "mixture"):
        done = cli(command, order_folder, "--every", "300", "--plot", tmp_path / "b.html")
        assert done.returncode == 0, done.stderr
    assert cli("trace", order_folder, "5").returncode == 0


def test_a_plot_in_the_way_is_refused_before_the_work(
    order_folder: Path, dataset: Path, cli: Run, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    indexed = tmp_path_factory.mktemp("indexed") / dataset.name
    for path in dataset.parent.glob(f"{dataset.name}.*"):
        shutil.copy(path, indexed.parent)
    assert cli("index", indexed).returncode == 0
    plot, terms, text = tmp_path / "a.svg", tmp_path / "terms.txt", tmp_path / "text.txt"
    page = tmp_path / "a.html"
    plot.write_text("mine")
    page.write_text("mine")
    terms.write_text("alpha\n")
    text.write_text("alpha beta gamma delta")
    for command in (
        ["when", order_folder, "gamma", "--plot", plot],
        ["repeats", order_folder, "--plot", plot],
        ["mixture", order_folder, "--plot", page],
        ["count-terms", terms, order_folder, "-o", tmp_path / "t.tsv", "--plot", plot],
        ["count-ngrams", dataset, "-o", tmp_path / "n.tsv", "--plot", page],
        ["trace-text", indexed, text, "-o", page],
    ):
        done = cli(*command)
        assert (done.returncode, done.stdout) == (1, ""), (command, done.stdout)
        assert "exists and is not from pile-tools" in done.stderr, command
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.svg", "terms.txt", "text.txt"]
    assert plot.read_text() == page.read_text() == "mine"


def test_files_of_texts(order_folder: Path, cli: Run, tmp_path: Path) -> None:
    plain, quoted = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    plain.write_text("gamma\nnaïve\r\n", encoding="utf-8")
    quoted.write_text('"gamma"\n"\\n don"\n')
    assert "2 of 2 texts seen" in cli("when", order_folder, "--file", plain).stdout
    assert "texts seen" in cli("when", order_folder, "--file", quoted).stdout


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (b"a\n\nb\n", ".txt", "blank line"),
        (b"a\n\xff\n", ".txt", "line 2"),
        (b"", ".txt", "holds no texts"),
        (b"a\n", ".jsonl", "not a JSON string"),
        (b'""\n', ".jsonl", "not empty"),
    ],
)
def test_wrong_files_are_named(
    content: bytes, suffix: str, message: str, order_folder: Path, cli: Run, tmp_path: Path
) -> None:
    path = tmp_path / f"texts{suffix}"
    path.write_bytes(content)
    done = cli("when", order_folder, "--file", path)
    assert done.returncode == 1, done.stdout
    assert message in done.stderr


def test_wrong_questions_are_refused(order_folder: Path, order: Order, cli: Run) -> None:
    for arguments in ([], [""], ["--ids", "70000"], ["--ids", "x"], ["a", "--steps", "5:2"]):
        assert cli("when", order_folder, *arguments).returncode == 2, arguments
    with pytest.raises(ConfigError, match="more than 3 times"):
        timeline.when(order, [b"a"], max_occurrences=3)
    long = b"a" * 10**6
    assert not len(timeline.when(order, [long]).sightings)


def test_an_order_of_another_dataset_is_refused(
    order_folder: Path, dataset: Path, cli: Run, tmp_path: Path
) -> None:
    for path in [*order_folder.iterdir(), *dataset.parent.glob("sample.*")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / "order.json").read_text())
    manifest["inputs"][0]["path"] = "sample"
    (tmp_path / "order.json").write_text(json.dumps(manifest))
    tokens = bytearray((tmp_path / "sample.bin").read_bytes())
    tokens[0] ^= 1
    (tmp_path / "sample.bin").write_bytes(tokens)
    done = cli("when", tmp_path, "a")
    assert done.returncode == 1
    assert "another dataset" in done.stderr
