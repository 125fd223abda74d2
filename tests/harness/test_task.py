"""The documents of local tasks, loaded by an installed lm-evaluation-harness, are searched as items."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import WriteShard

from pile_tools import manifest
from pile_tools.cli import EXIT_FAILURE, EXIT_USAGE
from pile_tools.contamination import Item
from pile_tools.errors import ConfigError, PileError
from pile_tools.harness.task import HarnessTask, load
from pile_tools.jobs import contamination
from pile_tools.jobs.contamination import ContaminationConfig, Run
from pile_tools.read.shards import find_shards

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not HAS_HARNESS, reason="lm-eval is not installed: extra [harness]")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]

COLORS = [
    *("red", "blue", "green", "old", "tall", "small"),
    *("broken", "seventh", "copper", "glass", "paper", "stone"),
]
ROWS: list[dict[str, Any]] = [
    {
        "question": f"Which of the {color} lamps of house {i} was lit on the night of the gale?",
        "options": [f"lamp {i}", f"lamp {i + 1}"],
        "gold": i % 2,
        "names": [f"the {color} lamp", f"lamp {i}"],
    }
    for i, color in enumerate(COLORS)
]

#: The keys that tasks share, and then each task.
DATA = """
dataset_path: json
dataset_kwargs: {data_files: {SPLIT: FOLDER/rows.jsonl}}
SPLIT_split: SPLIT
"""
TASKS = {
    "lamps": """
tag: lit
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{options}}"
doc_to_target: gold
metadata: {version: 2.0}
""",
    "names": """
tag: lit
output_type: generate_until
process_docs: !function lamps.with_o
doc_to_text: !function lamps.prompt
doc_to_target: names
""",
    "sentences": """
output_type: multiple_choice
doc_to_text: ""
doc_to_choice: options
doc_to_target: 1
""",
    "contexts": """
output_type: multiple_choice
doc_to_text: gold
doc_to_choice: options
doc_to_target: "was lit."
""",
    "shuffled": """
process_docs: !function lamps.shuffled
doc_to_text: question
doc_to_target: "{{options[0]}}"
""",
    "nothing": """
process_docs: !function lamps.nothing
doc_to_text: question
doc_to_target: gold
""",
    "broken": """
doc_to_text: !function lamps.broken
doc_to_target: gold
""",
    "killed": """
doc_to_text: !function lamps.killed
doc_to_target: gold
""",
}
GROUP = """
group: all_lamps
task:
  - lamps
  - group: inner
    task: [sentences, {task: contexts, num_fewshot: 0}]
  - lit
"""
FUNCTIONS = """
import os, random, signal

def with_o(documents):
    return documents.filter(lambda document: "o" in document["names"][0])

def prompt(document):
    return f"Name it. {document['question']}"

def shuffled(documents):
    def shuffle(document):
        random.shuffle(document["options"])
        return document
    return documents.map(shuffle, load_from_cache_file=False)

def nothing(documents):
    return documents.filter(lambda document: False)

def broken(document):
    return "" if document["gold"] == 0 else document["missing"]

def killed(document):
    os.kill(os.getpid(), signal.SIGKILL)
"""

#: A task in Python, which names no split and no choices.
QUIZ = """
from lm_eval.api.task import Task

class Quiz(Task):
    VERSION = 3
    has_training_docs = has_test_docs = lambda self: False
    has_validation_docs = lambda self: True
    construct_requests = process_results = aggregation = higher_is_better = None

    def download(self, *options):
        self.dataset = None

    def validation_docs(self):
        return [{"asked": "Who lit the lamp?", "said": "Nobody did."}]

    def doc_to_text(self, document):
        return document["asked"]

    def doc_to_target(self, document):
        return document["said"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of tasks on a local file; the harness caches in a folder of its own and downloads nothing."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "lamps.py").write_text(FUNCTIONS)
    (folder / "group.yaml").write_text(GROUP)
    (folder / "quiz.py").write_text(QUIZ)
    (folder / "quiz.yaml").write_text("task: quiz\nclass: !function quiz.Quiz\n")
    (folder / "remote.yaml").write_text("task: remote\ndataset_path: nobody/lamps\ntest_split: test\n")
    for name, text in TASKS.items():
        data = DATA.replace("SPLIT", "validation" if name == "names" else "test")
        text = f"task: {name}\n" + data.replace("FOLDER", str(folder)) + text
        (folder / "below").mkdir(exist_ok=True)
        file = folder / f"{name}.yaml" if "!function" in text else folder / "below" / f"{name}.yaml"
        file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, write_shard: WriteShard) -> Path:
    """300 documents, of which two have a question of the tasks, without the words of their prompts."""
    texts = [
        f"Entry {i} of the ledger: {i * 37 % 101} barrels, {i * 53 % 97} crates and {i} lamps were sold."
        for i in range(300)
    ]
    texts[7] += f" {ROWS[4]['question']} It was lamp 4."
    texts[9] += str(ROWS[10]["question"]).upper()
    folder = tmp_path_factory.mktemp("corpus")
    write_shard(folder / "0.jsonl", [{"text": text} for text in texts])
    return folder


@needs_harness
@pytest.mark.slow
def test_a_multiple_choice_task_has_questions_answers_and_choices(folder: Path) -> None:
    task = load(HarnessTask("lamps", folder))
    assert task.benchmark.items == [
        Item(
            line=i + 1,
            question=str(row["question"]),
            answer=row["options"][i % 2],
            choices=tuple(row["options"]),
        )
        for i, row in enumerate(ROWS)
    ]
    assert {key: task.about[key] for key in ("task_version", "split", "dataset", "template")} == {
        "task_version": "2.0",
        "split": "test",
        "dataset": "json",
        "template": ["Question: ", "\nAnswer:"],
    }


@needs_harness
@pytest.mark.slow
def test_the_documents_are_those_that_the_harness_evaluates(folder: Path) -> None:
    """Those of the validation split, as `process_docs` leaves them."""
    task = load(HarnessTask("names", folder))
    rows = [row for row in ROWS if "o" in row["names"][0]]
    assert 0 < len(rows) < len(ROWS)
    assert [item.answer for item in task.benchmark.items] == [row["names"][0] for row in rows]
    assert task.about["split"] == "validation"
    # There are too few to tell a template.
    assert [item.question for item in task.benchmark.items] == [f"Name it. {row['question']}" for row in rows]


@needs_harness
@pytest.mark.slow
def test_a_task_in_python_has_items(folder: Path) -> None:
    task = load(HarnessTask("quiz", folder))
    assert task.benchmark.items == [Item(line=1, question="Who lit the lamp?", answer="Nobody did.")]
    assert (task.about["split"], task.about["task_version"], task.about["dataset"]) == (
        "validation",
        "3",
        None,
    )


@needs_harness
@pytest.mark.slow
def test_answers_without_prompts_are_passages(folder: Path) -> None:
    items = load(HarnessTask("sentences", folder)).benchmark.items
    assert [(item.passage, item.question) for item in items] == [
        (f"lamp {i + 1}", None) for i in range(len(ROWS))
    ]


@needs_harness
@pytest.mark.slow
def test_of_several_prompts_the_right_one_is_the_question(folder: Path) -> None:
    items = load(HarnessTask("contexts", folder)).benchmark.items
    assert [item.question for item in items] == [f"lamp {i + i % 2}" for i in range(len(ROWS))]
    assert {item.answer for item in items} == {"was lit."}


@needs_harness
@pytest.mark.slow
def test_shuffled_choices_are_the_same_each_time(folder: Path) -> None:
    once, again = load(HarnessTask("shuffled", folder)), load(HarnessTask("shuffled", folder))
    assert once.sha256 == again.sha256
    assert len({item.answer == f"lamp {i}" for i, item in enumerate(once.benchmark.items)}) == 2


@needs_harness
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "all_lamps",
            ConfigError,
            r"all_lamps is a group of 4 tasks; give one .*: lamps, sentences, contexts, names$",
        ),
        ("lit", ConfigError, "lit is a tag of 2 tasks; give one of them for each run: lamps, names$"),
        (
            "lamp",
            ConfigError,
            "no task 'lamp'; did you mean lamps.*; the tasks in its YAML files are: broken, ",
        ),
        ("nothing", PileError, "task nothing has no documents in its split test$"),
        ("broken", PileError, "cannot load task broken: document 1: KeyError: 'missing'$"),
        ("killed", PileError, "cannot load task killed: its process was stopped by signal 9"),
        ("remote", PileError, "cannot load task remote: .*nobody/lamps.*; its data are not on this machine"),
    ],
)
def test_what_has_no_items_is_named(folder: Path, name: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        load(HarnessTask(name, folder))


@needs_harness
@pytest.mark.slow
def test_the_harness_evaluates_the_clean_documents(
    folder: Path, planted: Path, tmp_path: Path, cli: Cli
) -> None:
    words = ["contamination", "--task", "lamps", "--task-folder", folder, planted, "-o", tmp_path / "out"]
    done = cli(*words, "--report", tmp_path / "page.html", env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "left out of each question: 'Question:' before and 'Answer:' after" in done.stdout
    assert "The items are the split test of the task in lm-eval 0." in (tmp_path / "page.html").read_text()
    clean = [i for i in range(len(ROWS)) if i not in (4, 10)]
    assert json.loads((tmp_path / "out" / "clean.json").read_text()) == {"lamps": clean}
    made = manifest.read(tmp_path / "out" / "manifest.json")
    assert (made.summary["n_verbatim"], made.summary["n_normalized"], made.summary["n_items"]) == (1, 1, 12)
    assert made.summary["harness"]["split"] == "test"
    assert made.settings["task_items"] == load(HarnessTask("lamps", folder)).sha256
    assert [entry["role"] for entry in made.inputs] == ["shard"]
    assert cli("verify", tmp_path / "out").returncode == 0
    again = cli(*words, env=dict(os.environ))
    assert "is finished already" in again.stdout
    options = ["--tasks", "lamps", "--include_path", folder, "--samples", tmp_path / "out" / "clean.json"]
    options += ["--output_path", tmp_path / "scores", "--log_samples"]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "dummy", *map(str, options)]
    subprocess.run(command, check=True, capture_output=True)
    [scored] = (tmp_path / "scores").rglob("samples_lamps_*.jsonl")
    questions = [json.loads(line)["doc"]["question"] for line in scored.read_text().splitlines()]
    assert questions == [ROWS[i]["question"] for i in clean]


@needs_harness
@pytest.mark.slow
def test_datasets_and_orders_are_searched_for_a_task(
    folder: Path, dataset: Path, tmp_path: Path, cli: Cli
) -> None:
    size = ["--seq-length", "64", "--steps", "4", "--batch-size", "4"]
    assert cli("order", dataset, "-o", tmp_path / "order", *size).returncode == 0
    for corpus in (dataset, tmp_path / "order"):
        output = tmp_path / f"in-{corpus.name}"
        words = ["--task", "lamps", "--task-folder", folder, "-o", output, "--json"]
        done = cli("contamination", corpus, *words, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["summary"]["n_clean"] == len(ROWS)
        assert json.loads((output / "clean.json").read_text()) == {"lamps": [*range(len(ROWS))]}


@needs_harness
@pytest.mark.slow
def test_a_task_has_its_own_name(folder: Path, planted: Path, tmp_path: Path) -> None:
    task = load(HarnessTask("contexts", folder))
    with pytest.raises(ConfigError, match="name is for a file of items"):
        contamination.find_in_shards(
            task, find_shards([planted]), tmp_path / "out", ContaminationConfig(name="x"), Run(1)
        )


def test_a_harness_that_is_not_installed_is_named(planted: Path, tmp_path: Path, cli: Cli) -> None:
    """Whether it is installed or not: in a Python that does not find it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\nfound = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'lm_eval' else found(name, *more)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = cli("contamination", planted, "-o", tmp_path / "out", "--task", "arc_easy", env=env)
    assert done.returncode == EXIT_FAILURE
    assert done.stderr == (
        "error: this command needs lm_eval, which is not installed; install it with pip install "
        "'pile-tools[harness]'\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ITEMS", "SHARDS", "--task", "x"], "--task gives the items; give no file of items as well"),
        (["SHARDS", "--task", "x", "--name", "y"], "--name is for a file of items"),
        (["ITEMS", "SHARDS", "--task-folder", "x"], "give --task"),
        (["SHARDS", "--task", ""], "the task has no name"),
        (["ITEMS"], "give the items, and the corpus in which to find them; or give --task NAME"),
        ([], "Missing argument"),
    ],
)
def test_items_come_from_one_source(
    planted: Path, tmp_path: Path, cli: Cli, words: list[str], message: str
) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('\n{"question": "Why?", "n": 1}\n')
    paths: dict[str, Any] = {"ITEMS": items, "SHARDS": planted}
    done = cli("contamination", *(paths.get(word, word) for word in words), "-o", tmp_path / "out")
    assert (done.returncode, message in done.stderr) == (EXIT_USAGE, True), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_tasks_in_the_scratch_folder_of_the_output_are_refused(
    planted: Path, tmp_path: Path, cli: Cli
) -> None:
    scratch = tmp_path / "out.partial"
    scratch.mkdir()
    (scratch / "pile-tools.lock").touch()
    (scratch / "lamps.yaml").write_text("task: lamps")
    words = ["--task", "lamps", "--task-folder", scratch]
    done = cli("contamination", planted, "-o", tmp_path / "out", *words)
    assert (done.returncode, "is in the scratch folder of the output" in done.stderr) == (EXIT_USAGE, True)
    assert (scratch / "lamps.yaml").read_text() == "task: lamps"


def test_the_name_of_a_task_is_text() -> None:
    for name in ("", "a\0b", "\udcff"):
        with pytest.raises(ConfigError, match=r"no name|zero byte|Unicode"):
            HarnessTask(name)


@needs_harness
def test_a_folder_of_tasks_that_does_not_exist_is_named(planted: Path, tmp_path: Path, cli: Cli) -> None:
    words = ["--task", "x", "--task-folder", tmp_path / "nowhere"]
    done = cli("contamination", planted, "-o", tmp_path / "out", *words)
    assert (done.returncode, done.stderr) == (
        EXIT_FAILURE,
        f"error: No such file or directory ({tmp_path / 'nowhere'})\n",
    )
