"""Contamination: planted items are found as what they are, and told apart from common phrases."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from tests.conftest import WriteShard

from pile_tools import manifest, open_order, timeline
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.jobs import contamination, order, tokenize, train_tokenizer
from pile_tools.jobs.contamination import ContaminationConfig, Run
from pile_tools.jobs.rewriting import CLEAN_FILE, ITEMS_FILE, MATCHES_FILE
from pile_tools.order.interventions import Insert, insert_tokens, save_interventions
from pile_tools.read.shards import find_shards
from pile_tools.timeline.checkpoints import Intervals
from pile_tools.tokenizers import find_tokenizer

ROW = dict[str, Any]

#: A passage of 40 different words.
PASSAGE = (
    "In the spring of 1911 the surveyors left Port Hollow with four mules, crossed the Grey Fens, and named "
    "each river after a member of the party; the longest one, flowing north, was called Amelia\u2019s Water "
    "after their caf\u00e9-owning cook."
)
QUESTION = "Which of the rivers that the surveyors named after their party was flowing north?"
COMMON = "Answer the following question in one short sentence."

ITEMS: list[ROW] = [
    {"id": "verbatim", "passage": PASSAGE},
    {"id": "rewrapped", "passage": PASSAGE.replace("mules", "oxen").replace("1911", "1812")},
    {"id": "case", "passage": PASSAGE.replace("mules", "goats").replace("1911", "1713")},
    {"id": "punctuation", "passage": PASSAGE.replace("mules", "dogs").replace("1911", "1614")},
    {"id": "nfd", "passage": PASSAGE.replace("mules", "yaks").replace("1911", "1515")},
    {"id": "full width", "passage": PASSAGE.replace("mules", "cats").replace("1911", "1416")},
    {"id": "no answer", "question": QUESTION, "answer": "Amelia's Water"},
    {"id": 7, "question": QUESTION.replace("flowing north", "running dry"), "answer": "Old Tom's Creek"},
    {
        "id": "answer near",
        "question": QUESTION.replace("flowing north", "frozen over"),
        "answer": "Lark Beck",
    },
    {
        "id": "paraphrase",
        "question": "How many eggs does a common kestrel usually lay in one clutch each year?",
    },
    {"id": "common", "question": COMMON, "answer": "yes"},
    {
        "id": "twice",
        "question": "What did the lighthouse keeper of Skerry Vore burn on the night of the gale?",
    },
    {
        "id": "border",
        "question": "Name the two brothers who sold umbrellas and clocks in the arcade at Lowmoor.",
    },
    {"id": "short", "question": "Why?"},
    {
        "id": "absent",
        "question": "Whose voice was recorded on the wax cylinder found in the attic of Number Nine?",
    },
]
INDEX = {str(item["id"]): number for number, item in enumerate(ITEMS)}
TEXT = {
    name: str(ITEMS[number].get("passage") or ITEMS[number]["question"]) for name, number in INDEX.items()
}


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


def planted() -> list[str]:
    """300 documents, of which some have items. All have the common phrase."""
    texts = [
        f"{COMMON} Entry {i} of the ledger: {i * 37 % 101} barrels, {i * 53 % 97} crates and {i} lamps were "
        f"sold to house {i * 11 % 89} of row {i * 7 % 13}."
        for i in range(300)
    ]
    far = " ".join(f"word{i}" for i in range(90))
    border = TEXT["border"].split()
    for document, text in {
        10: TEXT["verbatim"],
        20: TEXT["rewrapped"].replace(" ", "\n   "),
        30: TEXT["case"].upper(),
        40: TEXT["punctuation"].replace(",", " --").replace(";", "...").replace("\u2019", "'"),
        50: unicodedata.normalize("NFD", TEXT["nfd"]),
        60: full_width(TEXT["full width"]),
        70: f"{TEXT['no answer']} Nobody can tell.",
        80: f"{TEXT['7']} {far} It was Old Tom's Creek.",
        90: f"Q: {TEXT['answer near']}\nA: LARK BECK.",
        100: "In a year the clutch of a kestrel has how many eggs? A common kestrel will usually lay four.",
        110: TEXT["twice"],
        120: f"{TEXT['twice']} And again: {TEXT['twice']}",
    }.items():
        texts[document] += f" {text} So ends entry {document}."
    texts[130] += " " + " ".join(border[:7])
    texts[131] = " ".join(border[7:]) + " " + texts[131]
    return texts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_shard: WriteShard) -> tuple[Path, Path]:
    """The items, and a folder with the planted documents in three shards."""
    folder = tmp_path_factory.mktemp("corpus")
    items = folder / "task.jsonl"
    items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
    texts = planted()
    for shard, (first, end) in enumerate(((0, 100), (100, 131), (131, 300))):
        name = f"{shard}.jsonl" + (".zst" if shard == 1 else "")
        write_shard(folder / "shards" / name, [{"text": text} for text in texts[first:end]])
    return items, folder / "shards"


def document_of(row: ROW) -> int:
    """The number of the planted document."""
    if "document" in row:
        return int(row["document"])
    return (0, 100, 131)[int(Path(row["shard"]).name[0])] + int(row["record"])


def matches(output: Path) -> list[ROW]:
    found: list[ROW] = pq.read_table(output / MATCHES_FILE).to_pylist()
    return found


def told(output: Path) -> dict[str, ROW]:
    return {row["id"]: row for row in pq.read_table(output / ITEMS_FILE).to_pylist()}


def check_planted(output: Path, *, is_nfc: bool = False) -> None:
    """Checks all matches and verdicts; the tokenizer of a dataset makes its texts NFC."""
    found = {(row["id"], row["part"], document_of(row)): row for row in matches(output)}
    kinds = {key: row["kind"] for key, row in found.items() if key[1] in ("passage", "question")}
    # The passages differ by two words: each is a partial match of the others' documents.
    passages = ["verbatim", "rewrapped", "case", "punctuation", "nfd", "full width"]
    own = {"verbatim": 10, "rewrapped": 20, "case": 30, "punctuation": 40, "nfd": 50, "full width": 60}
    as_written = {"verbatim", "nfd"} if is_nfc else {"verbatim"}
    for name in passages:
        assert kinds.pop((name, "passage", own[name])) == ("verbatim" if name in as_written else "normalized")
    for name, part, document in list(kinds):
        if name in passages and document in own.values():
            assert kinds.pop((name, part, document)) == "partial"
    assert kinds == {
        ("no answer", "question", 70): "verbatim",
        ("7", "question", 80): "verbatim",
        ("answer near", "question", 90): "verbatim",
        ("twice", "question", 110): "verbatim",
        ("twice", "question", 120): "verbatim",
    }
    answers = {name: found[name, "question", n]["answer_score"] for name, n in (("no answer", 70), ("7", 80))}
    assert answers == {"no answer": 0.0, "7": 0.0}
    assert found["answer near", "question", 90]["answer_score"] == 1.0
    # The answer far from its question is in the document all the same: four words.
    assert found["7", "answer", 80]["kind"] == "verbatim"
    assert found["twice", "question", 120]["n_occurrences"] == 2
    assert found["rewrapped", "passage", 20]["text"].count("\n") > 30
    verdicts = {name: row["verdict"] for name, row in told(output).items()}
    clean = {"paraphrase", "border", "absent"}
    assert {name for name, verdict in verdicts.items() if verdict == "clean"} == clean
    assert (verdicts["common"], verdicts["short"]) == ("too common", "too short")
    assert list(verdicts.values()).count("contaminated") == 10
    assert told(output)["twice"]["n_documents"] == 2
    listed = json.loads((output / CLEAN_FILE).read_text())
    assert listed == {"task": sorted(INDEX[name] for name in clean)}


def test_planted_items_in_shards(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    items, shards = corpus
    outputs = []
    for threads in (1, 2, 5):
        output = tmp_path / f"{threads}"
        made, is_new = contamination.find_in_shards(
            items, find_shards([shards]), output, ContaminationConfig(), Run(threads)
        )
        assert is_new
        check_planted(output)
        outputs.append([(output / name).read_bytes() for name in (MATCHES_FILE, ITEMS_FILE, CLEAN_FILE)])
    assert outputs[0] == outputs[1] == outputs[2]
    summary = made.summary
    assert (summary["n_documents"], summary["n_items"], summary["n_clean"]) == (300, 15, 3)
    assert (summary["n_verbatim"], summary["n_normalized"], summary["n_partial"]) == (5, 5, 0)
    assert (summary["n_too_common"], summary["n_too_short"], summary["n_with_answer"]) == (1, 1, 1)
    again = contamination.find_in_shards(items, find_shards([shards]), output, ContaminationConfig(), Run(1))
    assert not again[1]
    # The bytes of a match are those of the document.
    texts = planted()
    for row in matches(output):
        document = texts[document_of(row)].encode()
        assert document[row["byte_start"] : row["byte_end"]].decode() == row["text"]


def test_a_stricter_threshold_leaves_partial_matches_out(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    items, shards = corpus
    config = ContaminationConfig(threshold="1.0")
    contamination.find_in_shards(items, find_shards([shards]), tmp_path, config, Run(2))
    assert {row["kind"] for row in matches(tmp_path)} == {"verbatim", "normalized"}


@pytest.fixture(scope="module")
def dataset(corpus: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The prefix of a dataset of the planted documents, and its tokenizer."""
    folder = tmp_path_factory.mktemp("tokens")
    shards, tokenizer = find_shards([corpus[1]]), folder / "tokenizer.json"
    train_tokenizer.run(shards, tokenizer, train_tokenizer.TrainTokenizerConfig(vocab_size=500), threads=2)
    tokenize.run(shards, folder / "sample", tokenize.TokenizeConfig(tokenizer=tokenizer), threads=2)
    return folder / "sample", tokenizer


def test_planted_items_in_a_dataset(
    corpus: tuple[Path, Path], dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    prefix, tokenizer = dataset
    for threads in (1, 3):
        contamination.find_in_dataset(
            corpus[0],
            prefix,
            tmp_path / f"{threads}",
            ContaminationConfig(),
            Run(threads),
            tokenizer=find_tokenizer(tokenizer),
        )
        check_planted(tmp_path / f"{threads}", is_nfc=True)
    assert (tmp_path / "1" / MATCHES_FILE).read_bytes() == (tmp_path / "3" / MATCHES_FILE).read_bytes()


@pytest.fixture(scope="module")
def ordered(dataset: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An order of two epochs and more, with samples that are shorter than a passage."""
    folder = tmp_path_factory.mktemp("order")
    order.run(dataset[0], folder, order.OrderConfig(seq_length=64, steps=200, batch_size=8, seed=3))
    return folder


def test_steps_of_an_order_are_those_at_which_the_text_was_seen(
    corpus: tuple[Path, Path], dataset: tuple[Path, Path], ordered: Path, tmp_path: Path
) -> None:
    opened, tokenizer = open_order(ordered), find_tokenizer(dataset[1])
    checkpoints = Intervals((0, 50, 100, 150, 200), 200)
    made, _ = contamination.find_in_order(
        corpus[0], opened, tmp_path, ContaminationConfig(), Run(2), checkpoints, tokenizer=tokenizer
    )
    check_planted(tmp_path, is_nfc=True)
    for row in matches(tmp_path):
        sightings = timeline.when(opened, row["text"].encode(), tokenizer=tokenizer.load()).sightings
        if row["n_occurrences"] == 1 and len(row["text"].encode()) < 1000:
            sightings = sightings[sightings["document"] == row["document"]]
            assert row["steps"] == np.unique(sightings["step"]).tolist()
            # A model has seen a text that a row's end cuts when it has seen all of its parts.
            numbers, steps = sightings["occurrence"], sightings["step"]
            whole = min(max(steps[numbers == number]) for number in np.unique(numbers))
            assert row["first_checkpoint"] == (whole // 50 + 1) * 50
        assert row["n_steps"] == len(row["steps"])
        if row["n_steps"]:
            assert (row["first_step"], row["last_step"]) == (row["steps"][0], row["steps"][-1])
            assert row["first_checkpoint"] >= (row["first_step"] // 50 + 1) * 50
    verbatim = {row["id"]: row for row in matches(tmp_path) if row["kind"] == "verbatim"}
    # Two epochs and more: everything was seen.
    assert all(row["n_steps"] >= 2 for row in verbatim.values())
    assert made.summary["n_seen_items"] == 10
    assert told(tmp_path)["absent"]["first_step"] is None
    both = [set(row["steps"]) for row in matches(tmp_path) if row["id"] == "twice"]
    assert told(tmp_path)["twice"]["steps"] == sorted(both[0] | both[1])


def test_texts_that_an_intervention_inserts_are_searched(
    corpus: tuple[Path, Path], dataset: tuple[Path, Path], ordered: Path, tmp_path: Path
) -> None:
    opened, tokenizer = open_order(ordered), find_tokenizer(dataset[1])
    tokens = tuple(tokenizer.load().encode(TEXT["absent"]).tolist())
    changed = insert_tokens(opened, [Insert(7, 2, 0, tokens)])
    output = tmp_path / "out"
    options = ContaminationConfig(), Run(2), Intervals((), 200)
    with pytest.raises(ConfigError, match="unsaved interventions have no manifest; save them first"):
        contamination.find_in_order(corpus[0], changed, output, *options, tokenizer=tokenizer)
    save_interventions(changed, tmp_path / "saved")
    saved = open_order(tmp_path / "saved")
    contamination.find_in_order(corpus[0], saved, output, *options, tokenizer=tokenizer)
    [row] = [row for row in matches(output) if row["id"] == "absent"]
    assert (row["kind"], row["steps"], row["first_checkpoint"]) == ("verbatim", [7], None)


def test_rows_are_cut_at_the_end_of_documents(
    corpus: tuple[Path, Path], dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    prefix, tokenizer = dataset
    tokens = np.fromfile(prefix.with_suffix(".bin"), dtype=np.uint16)
    length = 2049
    tokens[: len(tokens) // length * length].tofile(tmp_path / "rows.bin")
    opened = open_order(tmp_path, row_length=length, batch_size=1)
    output = tmp_path / "out"
    contamination.find_in_order(
        corpus[0],
        opened,
        output,
        ContaminationConfig(),
        Run(2),
        Intervals((), len(opened)),
        tokenizer=find_tokenizer(tokenizer),
    )
    found = {row["id"]: row["steps"] for row in matches(output) if row["part"] == "question"}
    assert "border" not in found
    seen = timeline.when(opened, TEXT["twice"], tokenizer=find_tokenizer(tokenizer).load())
    assert {row["document"] for row in matches(output) if row["id"] == "twice"} == set(
        seen.sightings["document"].tolist()
    )
    assert found["twice"]


def test_a_killed_job_resumes(corpus: tuple[Path, Path], tmp_path: Path, write_shard: WriteShard) -> None:
    texts = planted()
    for shard in range(40):
        records = [{"text": f"{text} Part {shard}, line {i}." * 4} for i, text in enumerate(texts * 5)]
        write_shard(tmp_path / "shards" / f"{shard:02}.jsonl", records)
    program = "from pile_tools.cli import main; main()"
    words = ["contamination", str(corpus[0]), str(tmp_path / "shards"), "--threads", "1", "-o"]
    command = [sys.executable, "-c", program, *words]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    state = tmp_path / "out.partial" / "matches" / "state.json"
    deadline = time.monotonic() + 60
    while not (state.exists() and len(json.loads(state.read_text())["saved"]["state"]["shards"]) >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / MATCHES_FILE).exists()
    n_finished = len(json.loads(state.read_text())["saved"]["state"]["shards"])
    assert 3 <= n_finished < 40
    finished = state.parent / "texts-000000"
    read_before, reported = finished.read_bytes(), []
    shards = find_shards([tmp_path / "shards"])

    def stop(n_bytes: int) -> None:
        # The finished shards count as read at once; nothing of them is written again.
        reported.append(n_bytes)
        assert finished.read_bytes() == read_before
        raise KeyboardInterrupt

    run = Run(1, on_progress=stop)
    with pytest.raises(KeyboardInterrupt):
        contamination.find_in_shards(corpus[0], shards, tmp_path / "out", ContaminationConfig(), run)
    assert reported[0] >= sum(path.stat().st_size for path in shards[:n_finished])
    contamination.find_in_shards(corpus[0], shards, tmp_path / "out", ContaminationConfig(), Run(2))
    for name in (MATCHES_FILE, ITEMS_FILE, CLEAN_FILE, "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "holds no items"),
        ("\n \n", "holds no items"),
        ("{\n", "line 1"),
        ('{"question": "a"}\n[1]\n', "not an item of a benchmark: a list, expected an object .*, line 2"),
        ('{"question": "a"}\n\n{"question": 5}\n', "question is 5, expected text .*, line 3"),
        ('{"passage": ["a"]}\n', "passage is a list, expected text"),
        ('{"id": 1.5, "question": "a"}\n', "id is 1.5, expected text or a whole number"),
        ('{"id": true, "question": "a"}\n', "id is true"),
        ('{"answer": "a"}\n', "needs a passage or a question .*, line 1"),
        ('{"question": null}\n', "needs a passage or a question"),
        ('{"question": "a", "answer": 2}\n', "answer is 2, expected text"),
        ('{"question": "a", "choices": "b"}\n', "choices is .*, expected a list"),
        ('{"question": "a", "choices": ["b", 1]}\n', r"choices\[1\] is 1, expected text"),
        ('{"question": "\\ud800"}\n', "half of a surrogate pair"),
        ('{"question": "a \\udc80"}\n', "without halves of surrogate pairs .*, line 1"),
        ('{"question": "a", "id": "\\udcff"}\n', "without halves of surrogate pairs"),
        ('{"question": "a", "choices": ["\\udc80"]}\n', "without halves of surrogate pairs"),
        ('{"question": NaN}\n', "question is NaN, expected text"),
        ('{"question": "a", "id": 1e999}\n', "id is Infinity, expected text or a whole number"),
        ('{"question": ' + "[" * 100_000 + "\n", "line 1"),
    ],
)
def test_hostile_items_are_named(corpus: tuple[Path, Path], tmp_path: Path, lines: str, message: str) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text(lines, encoding="utf-8")
    shards = find_shards([corpus[1]])
    with pytest.raises((FormatError, PileError), match=message) as failed:
        contamination.find_in_shards(items, shards, tmp_path / "out", ContaminationConfig(), Run(1))
    assert str(items) in str(failed.value)
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_not_text_are_named(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    for data in (b'{"question": "\xff"}\n', '{"question": "a"}\n'.encode("utf-16"), b"\x00" * 50):
        items.write_bytes(data)
        with pytest.raises(PileError, match=str(items)):
            contamination.find_in_shards(
                items, find_shards([corpus[1]]), tmp_path / "out", ContaminationConfig(), Run(1)
            )


def test_odd_items_are_no_error(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    items = tmp_path / "odd.json"
    odd: list[ROW] = [
        {"question": "", "passage": ""},
        {"question": "\u0000 \u200b \ufeff", "answer": ""},
        {"question": "a " * 100_000, "choices": []},
        {
            "question": "x" * 1_000_000,
            "unknown": {"deep": [1], "n": [float("nan"), 10**30], "\ud800": "\ud800"},
        },
        {"question": "\U0010ffff " * 50, "answer": None},
        {"passage": "東京は日本の首都です。", "id": "日本"},
    ]
    text = "\ufeff" + "\r\n".join(json.dumps(item) for item in odd)
    text = text.replace('"unknown"', '"unknown": 1, "unknown"')
    items.write_text(text, encoding="utf-8", newline="")
    made, _ = contamination.find_in_shards(
        items, find_shards([corpus[1]]), tmp_path / "out", ContaminationConfig(name="a/b"), Run(1)
    )
    assert (made.summary["n_too_short"], made.summary["n_clean"]) == (4, 2)
    assert json.loads((tmp_path / "out" / CLEAN_FILE).read_text()) == {"a/b": [2, 5]}


@pytest.mark.parametrize(
    ("file", "given", "task"),
    [
        ("arc.easy.jsonl", None, "arc.easy"),
        ("x.json", None, "x"),
        ("items.txt", None, "items.txt"),
        ("\udcff.jsonl", None, "\ufffd"),
        ("x.jsonl", "\u00e9 [2J\x1b", "\u00e9 [2J\x1b"),
        ("x.jsonl", "", None),
        ("x.jsonl", "\udcff", None),
        (".jsonl", None, None),
        ("q.json.jsonl", None, "q.json"),
        ("q.ndjson", None, "q"),
    ],
)
def test_the_task_has_the_name_of_the_file_or_a_given_one(
    corpus: tuple[Path, Path], tmp_path: Path, file: str, given: str | None, task: str | None
) -> None:
    (tmp_path / "in").mkdir()
    items = tmp_path / "in" / file
    items.write_bytes(corpus[0].read_bytes())
    config, shards = ContaminationConfig(name=given), find_shards([corpus[1]])
    if task is None:
        with pytest.raises(ConfigError, match=r"name|Unicode"):
            contamination.find_in_shards(items, shards, tmp_path / "out", config, Run(1))
        return
    contamination.find_in_shards(items, shards, tmp_path / "out", config, Run(1))
    assert list(json.loads((tmp_path / "out" / CLEAN_FILE).read_text(encoding="utf-8"))) == [task]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ngram": 3},
        {"ngram": 65},
        {"threshold": "0"},
        {"threshold": "0.0"},
        {"threshold": "1.1"},
        {"threshold": "nan"},
        {"threshold": "1e-1"},
        {"max_gap": -1},
        {"max_gap": 65},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).replace("_", "-")):
        ContaminationConfig(**wrong)


def test_the_tables_of_an_output_are_no_shards(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    items, shards = corpus
    contamination.find_in_shards(items, find_shards([shards]), tmp_path, ContaminationConfig(), Run(1))
    with pytest.raises(PileError):
        find_shards([tmp_path])


def test_no_documents_have_no_items(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").write_text("")
    made, _ = contamination.find_in_shards(
        corpus[0], find_shards([tmp_path / "0.jsonl"]), tmp_path / "out", ContaminationConfig(), Run(1)
    )
    assert (made.summary["n_documents"], made.summary["n_clean"], made.summary["n_too_short"]) == (0, 14, 1)


def test_the_command_and_its_page(
    corpus: tuple[Path, Path], tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    items, shards = corpus
    page = tmp_path / "page.html"
    done = cli("contamination", items, shards, "-o", tmp_path / "out", "--report", page, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(tmp_path) not in line)
    assert "        5   33.33%  verbatim" in done.stdout
    text = page.read_text()
    assert "<mark>" in text
    assert "Item 0 (verbatim), passage: verbatim, score 1.0000" in text
    refused = cli("contamination", items, shards, "-o", tmp_path / "out", "--ngram", 9)
    assert (refused.returncode, "ngram = 8, not 9" in refused.stderr) == (1, True)
    assert manifest.read(tmp_path / "out" / "manifest.json").kind == "contamination"


def lines_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data.splitlines(keepends=True)


def purified(corpus: tuple[Path, Path], output: Path, how: str, threads: int = 2) -> manifest.Manifest:
    config = ContaminationConfig(purify=how)
    return contamination.find_in_shards(corpus[0], find_shards([corpus[1]]), output, config, Run(threads))[0]


CONTAMINATED = [10, 20, 30, 40, 50, 60, 70, 80, 90, 110, 120]


@pytest.mark.parametrize("how", ["documents", "passages"])
def test_purified_shards_have_no_items(corpus: tuple[Path, Path], tmp_path: Path, how: str) -> None:
    made = purified(corpus, tmp_path / "out", how)
    old, new = find_shards([corpus[1]]), find_shards([tmp_path / "out"])
    assert [path.name for path in new] == [path.name for path in old]
    before = [line for shard in old for line in lines_of(shard)]
    after = [line for shard in new for line in lines_of(shard)]
    if how == "documents":
        assert after == [line for i, line in enumerate(before) if i not in CONTAMINATED]
        assert (made.summary["n_purified"], made.summary["n_cut_bytes"]) == (11, None)
    else:
        assert len(after) == len(before)
        assert {i for i in range(300) if after[i] != before[i]} == set(CONTAMINATED)
        texts = [json.loads(line)["text"] for line in after]
        for i, text in enumerate(planted()):
            if i in (110, 120):
                text = text.replace(TEXT["twice"], "")
            if i not in CONTAMINATED or i in (110, 120):
                assert texts[i] == text
            # What is before and after the passage stays.
            assert texts[i].startswith(COMMON) or i == 131
            assert texts[i].endswith(f"So ends entry {i}.") == text.endswith(f"So ends entry {i}.")
        n_cut = sum(len(text.encode()) for text in planted()) - sum(len(text.encode()) for text in texts)
        assert made.summary["n_cut_bytes"] == n_cut
    again, _ = contamination.find_in_shards(corpus[0], new, tmp_path / "again", ContaminationConfig(), Run(1))
    assert again.summary["n_verbatim"] == again.summary["n_normalized"] == again.summary["n_partial"] == 0
    purified(corpus, tmp_path / "one", how, threads=1)
    for path in new:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_what_cannot_be_purified_is_refused(
    corpus: tuple[Path, Path],
    dataset: tuple[Path, Path],
    tmp_path: Path,
    cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    items, _ = corpus
    refused = cli("contamination", items, dataset[0], "-o", tmp_path / "out", "--purify", "documents")
    assert (refused.returncode, "give the shards" in refused.stderr) == (2, True)
    refused = cli("contamination", items, "-", "-o", tmp_path / "out", "--purify", "documents", input="")
    assert (refused.returncode, "read twice" in refused.stderr) == (2, True)
    (tmp_path / "shards").mkdir()
    # A shard does not take the name of a table.
    (tmp_path / "shards" / CLEAN_FILE).write_text('{"text": "a"}\n')
    purified((items, tmp_path / "shards"), tmp_path / "named", "documents")
    assert (tmp_path / "named" / f"000000-{CLEAN_FILE}").read_text() == '{"text": "a"}\n'
    with pytest.raises(ConfigError, match="purify must be"):
        ContaminationConfig(purify="items")


def test_lone_surrogates_do_not_move_a_cut(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    records = [json.dumps({"text": f"\ud83d \u00e9 before. {TEXT['twice']} After \udc00."})]
    records += [json.dumps({"text": f"Nothing at all, number {i}"}) for i in range(50)]
    (tmp_path / "shards" / "0.jsonl").write_text("\n".join(records) + "\n")
    purified((corpus[0], tmp_path / "shards"), tmp_path / "out", "passages")
    first = json.loads(lines_of(tmp_path / "out" / "0.jsonl")[0])["text"]
    assert first == "\ufffd \u00e9 before.  After \ufffd."
