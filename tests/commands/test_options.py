"""Options that mean nothing for an input are refused; those that mean the same are one request."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from tests.hostile_values import commands_of

from pile_tools import ConfigError, PileError, manifest, open_order, timeline
from pile_tools.cli import group, run
from pile_tools.errors import PileWarning
from pile_tools.jobs import dedup, order, stages, tokenize, train_tokenizer, verify
from pile_tools.read import shards as shards_module
from pile_tools.read.shards import find_shards
from pile_tools.timeline.checkpoints import Intervals
from studies.cli import group as study_group
from trainer.cli import group as trainer_group
from vqgan_clip.cli import group as images_group

WORDS = ["alpha", "beta", "gamma", "delta"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, dataset: Path, tokenizer: Path) -> Path:
    """A dataset with its index, orders, lists, and another tokenizer with a dataset of it."""
    root = tmp_path_factory.mktemp("options")
    shards = root / "shards"
    shards.mkdir()
    for number in range(3):
        texts = [" ".join(WORDS[(number + i * k) % 4] for k in range(60)) for i in range(9)]
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (shards / f"{number}.jsonl").write_text("".join(lines))
    (root / "terms.txt").write_text("alpha\nbeta\n")
    (root / "items.jsonl").write_text('{"question": "alpha beta gamma delta alpha beta gamma delta alpha"}\n')
    for name, size in (("tok", 270), ("other", 280)):
        config = train_tokenizer.TrainTokenizerConfig(vocab_size=size)
        train_tokenizer.run(find_shards([shards]), root / f"{name}.tokenizer.json", config, threads=1)
        made = tokenize.TokenizeConfig(tokenizer=root / f"{name}.tokenizer.json")
        tokenize.run(find_shards([shards]), root / name, made, threads=1)
    order.run(root / "tok", root / "order", order.OrderConfig(seq_length=8, steps=10, batch_size=4))
    assert run(group, ["index", str(root / "tok"), "--quiet"]) == 0
    for array in (root / "order").glob("*.npy"):
        shutil.copy(array, root)
    return root


@pytest.fixture
def answer(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in the folder: its exit code, standard output and standard error."""
    monkeypatch.chdir(place)

    def run_in(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(group, line.split())
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_in


@pytest.fixture
def manifests_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """Begins to list the manifests that are read."""

    def begin() -> list[Path]:
        read: list[Path] = []
        read_manifest = manifest.read

        def reading(path: Path) -> manifest.Manifest:
            read.append(path)
            return read_manifest(path)

        monkeypatch.setattr(manifest, "read", reading)
        return read

    return begin


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("count-terms terms.txt tok", "--batch-size 4"),
        ("count-terms terms.txt shards", "--batch-size 4"),
        ("count-terms terms.txt tok", "--text-field body"),
        ("count-terms terms.txt order --checkpoints 2", "--on-bad-record skip"),
        ("count-terms terms.txt order --checkpoints 2", "--max-record 1KiB"),
        ("count-ngrams tok", "--text-field body"),
        ("count-ngrams shards", "--tokenizer tok.tokenizer.json"),
        ("contamination items.jsonl tok -o out", "--batch-size 4"),
        ("contamination items.jsonl shards -o out", "--batch-size 4"),
        ("contamination items.jsonl tok -o out", "--text-field body"),
        ("contamination items.jsonl order -o out", "--text-field body"),
        ("search tok alpha", "--batch-size 4"),
        ("trace-text tok terms.txt", "--batch-size 4"),
    ],
)
def test_an_option_without_a_meaning_is_refused(answer: Any, place: Path, command: str, option: str) -> None:
    code, _, err = answer(f"{command} {option}")
    assert (code, f"{option.split()[0]} means nothing for" in err) == (2, True), err
    assert not (place / "out").exists()


@pytest.mark.parametrize("command", ["batch", "when", "mixture", "export", "repeats", "count-numbers"])
def test_an_order_has_its_own_rows(answer: Any, place: Path, command: str) -> None:
    array = next(place.glob("*_shuffle_idx.npy")).name
    words = {
        "batch": "--step 0",
        "when": "alpha",
        "export": "--steps 0:1 -o e.csv",
        "count-numbers": "-o n.tsv",
    }.get(command, "")
    for path in ("order", "order/order.json", array):
        code, _, err = answer(f"{command} {path} {words} --batch-size 4 --row-length 8")
        assert (code, "rows of this order have 9 tokens, got row-length 8" in err) == (2, True), err
    shutil.copy(place / "tok.bin", place / "rows.bin")
    code, _, err = answer("mixture rows.bin --row-length 9 --batch-size 4 --compat gpt-neox")
    assert (code, "compat is for other orders" in err) == (2, True), err


def test_a_name_may_look_like_a_number(answer: Any, place: Path) -> None:
    (place / "2024_11_30" / "step2").mkdir(parents=True)
    shutil.copy(place / "terms.txt", place / "2_1")
    (place / "2_1").write_text("alpha\tbeta\n")
    for line in (
        "contamination items.jsonl shards -o 2024_01 --name 2024_01",
        "trace order 0 --checkpoints 2024_11_30",
        "count-terms terms.txt shards --pairs 2_1",
    ):
        code, _, err = answer(line)
        assert code == 0, err
    shutil.rmtree(place / "2024_01")
    code, _, err = answer("trace order 0 --checkpoints 1_000")
    assert (code, "expected a number (every N steps)" in err) == (2, True), err


def test_an_empty_path_is_refused() -> None:
    """An unset variable of a shell is no folder `.`, in which there may be shards."""
    n = 0
    for program in (group, trainer_group, study_group, images_group):
        for _, command in commands_of(program):
            for parameter in command.params:
                if isinstance(parameter.type, click.Path):
                    n += 1
                    with pytest.raises(click.BadParameter, match="is empty"):
                        parameter.type.convert("", parameter, None)
    assert n > 100


def test_a_path_that_may_not_be_read_is_no_wrong_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job reports it, with exit code 1, as it reports one that is missing."""
    monkeypatch.setattr(os, "access", lambda *asked, **more: False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for program in (group, trainer_group, study_group, images_group):
        for _, command in commands_of(program):
            for parameter in command.params:
                if isinstance(parameter.type, click.Path):
                    name = "file" if parameter.type.file_okay else "folder"
                    parameter.type.convert(str(tmp_path / name), parameter, None)


def test_checkpoints_are_read_with_json_too(answer: Any) -> None:
    assert answer("trace order 0 --checkpoints nonsense --json")[0] == 2
    assert answer("verify shards --hashes terms.txt --chain")[0] == 2


def test_arrays_are_an_order_without_further_options(answer: Any, place: Path) -> None:
    array = next(place.glob("*_shuffle_idx.npy")).name
    code, out, err = answer(f"count-terms terms.txt {array} --batch-size 4 --json")
    assert code == 0, err
    assert json.loads(out)["summary"]["best"][0]["occurrences"] > 0


def test_next_tokens_and_steps_go_together(answer: Any) -> None:
    code, out, err = answer("search tok alpha --next --order order")
    assert code == 0, err
    assert "step" in out


def test_queries_of_cnf_are_answered_as_they_are_searched(answer: Any) -> None:
    code, out, err = answer('search tok --cnf [["alpha"],["beta",[5]]] --json')
    assert code == 0, err
    assert [query["query"] for query in json.loads(out)["queries"]] == ["alpha", "beta", "tokens 5"]


def test_another_tokenizer_is_told(place: Path, answer: Any) -> None:
    with pytest.warns(
        PileWarning, match=r"other\.tokenizer\.json is not the tokenizer file with which tok was made"
    ):
        open_order("order").tokenizer_file("other.tokenizer.json")
    code, _, err = answer("count-terms terms.txt tok --tokenizer other.tokenizer.json")
    assert (code, "warning: other.tokenizer.json is not the tokenizer file" in err) == (0, True), err
    code, _, err = answer("count-terms terms.txt tok --tokenizer tok.tokenizer.json")
    assert (code, "warning" in err) == (0, False), err


def test_datasets_of_different_tokenizers_are_not_mixed(place: Path, tmp_path: Path) -> None:
    config = order.OrderConfig(seq_length=8, steps=4, batch_size=4)
    with pytest.raises(PileError, match="made with another tokenizer"):
        order.run(order.Blend((place / "tok", place / "other")), tmp_path / "blend", config)
    order.run(place / "other", tmp_path / "other", config)
    chosen = [stages.Stage(place / "order"), stages.Stage(tmp_path / "other")]
    with pytest.raises(PileError, match="made with another tokenizer"):
        stages.run(chosen, tmp_path / "staged")
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize(("size", "steps"), [(2, 40), (8, 10), (40, 2)])
def test_a_stage_is_the_run_in_steps_of_any_size(place: Path, tmp_path: Path, size: int, steps: int) -> None:
    both = [stages.Stage(place / "order"), stages.Stage(place / "order")]
    made, _ = stages.run(both, tmp_path / "staged", batch_size=size)
    assert (made.settings["steps"], made.summary["n_samples"]) == (steps, 80)


def test_a_run_of_no_whole_steps_is_no_stage(place: Path, tmp_path: Path) -> None:
    both = [stages.Stage(place / "order"), stages.Stage(place / "order")]
    with pytest.raises(PileError, match="40 samples of its run are no whole steps of 3; give the"):
        stages.run(both, tmp_path / "staged", batch_size=3)


@pytest.mark.parametrize(
    ("command", "spellings"),
    [
        ("count-terms terms.txt tok --pairs all -o {}.tsv", ["--within 10", "--within 010"]),
        ("dedup exact shards -o {}", ["--prefer subset:A,B", "--prefer subset:A,B,", "--prefer subset:,A,B"]),
        (
            "order tok -o {} --seq-length 8 --samples 5",
            ["--split 8,1,1", "--split 8/1/1", "--split 08,1,1.0"],
        ),
    ],
)
def test_equal_values_are_one_request(
    answer: Any, tmp_path: Path, command: str, spellings: list[str]
) -> None:
    for spelling in spellings:
        code, _, err = answer(f"{command.format(tmp_path / 'made')} {spelling}")
        assert code == 0, err


@pytest.mark.parametrize("line", ["", '{"bad": 1}\n'])
def test_terms_of_no_documents_are_counted_by_subset(answer: Any, tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(line)
    options = "--by-subset --pairs all --on-bad-record skip --json"
    code, out, err = answer(f"count-terms terms.txt {tmp_path / 'x.jsonl'} {options}")
    assert code == 0, err
    assert [term["occurrences"] for term in json.loads(out)["summary"]["best"]] == [0, 0]


def test_documents_without_subsets_are_counted_by_subset(answer: Any, tmp_path: Path) -> None:
    """Of shards and of their dataset alike: that no document has a subset is known."""
    (tmp_path / "s.jsonl").write_text('{"text": "alpha beta"}\n' * 3)
    made = f"{tmp_path / 'd'}"
    for command in (
        f"tokenize {tmp_path / 's.jsonl'} -o {made} --tokenizer tok.tokenizer.json",
        *(f"count-ngrams {inputs} --by-subset" for inputs in (made, tmp_path / "s.jsonl")),
        *(f"count-terms terms.txt {inputs} --by-subset" for inputs in (made, tmp_path / "s.jsonl")),
    ):
        code, _, err = answer(command)
        assert code == 0, err


def test_within_needs_pairs(answer: Any) -> None:
    code, _, err = answer("count-terms terms.txt shards --within 5")
    assert (code, err) == (2, "error: --within means nothing for a count without --pairs; leave it out\n")


def test_a_manifest_of_many_shards_is_read_once(
    place: Path, tmp_path: Path, manifests_read: Callable[[], list[Path]]
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(30):
        (many / f"{number:02}.json").write_bytes((place / "shards" / "0.jsonl").read_bytes())
    dedup.run(find_shards([many]), tmp_path / "out", dedup.DedupConfig(), threads=1, memory=1 << 28)
    read = manifests_read()
    shards_module._beside_shards.cache_clear()
    found = find_shards([tmp_path / "out"])
    assert len(found) == 30
    assert [entry.reason for entry in found.passed_over if "clusters" in entry.reason]
    assert len(read) < 5


def test_an_empty_name_of_a_subset_is_shown(answer: Any, place: Path, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"text": "alpha beta " * 9, "meta": {"pile_set_name": name}} for name in ("", None, "Books")
    ]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    made = f"{tmp_path / 'd'}"
    for command in (
        f"tokenize {tmp_path / 's.jsonl'} -o {made} --tokenizer tok.tokenizer.json",
        f"order {made} -o {tmp_path / 'o'} --seq-length 4 --samples 8 --batch-size 8",
        f"show {made} 0",
        f"mixture {tmp_path / 'o'}",
        f"batch {tmp_path / 'o'} --step 0",
        f"count-ngrams {made} --n 1 --by-subset",
    ):
        code, out, err = answer(command)
        assert code == 0, err
        assert '""' in out or command.startswith("order"), (command, out)


def test_names_are_those_of_ascii(tmp_path: Path) -> None:
    # Without regard to case, U+017F is an s to Unicode, and not to the core.
    for name in ("a.JSONL", "b.j\u017fonl"):
        (tmp_path / name).write_text('{"text": "x"}\n')
    found = find_shards([tmp_path])
    assert [path.name for path in found] == ["a.JSONL"]
    assert [entry.path.name for entry in found.passed_over] == ["b.j\u017fonl"]


def test_a_broken_link_is_no_name_of_the_hub(answer: Any, tmp_path: Path) -> None:
    (tmp_path / "tok").symlink_to("nowhere")
    code, _, err = answer(f"count-terms terms.txt tok --tokenizer {tmp_path / 'tok'}")
    assert (code, f"No such file or directory ({tmp_path / 'tok'})" in err) == (1, True), err


@pytest.mark.parametrize("size", [0, -1])
def test_steps_have_samples(place: Path, size: int) -> None:
    opened = open_order(place / "order")
    for ask in (
        timeline.mixture,
        timeline.repeats,
        lambda order, **more: timeline.when(order, ["a"], **more),
    ):
        with pytest.raises(ConfigError, match="batch-size must be at least 1"):
            ask(opened, batch_size=size)


def test_labels_are_parallel_to_the_tokens(place: Path, tmp_path: Path) -> None:
    config = order.OrderConfig(seq_length=8, steps=2, batch_size=4, packing="unpacked")
    order.run(place / "tok", tmp_path / "same", config, labels=place / "tok")
    with pytest.raises(ConfigError, match=r"document 1 has .* labels?: .*other is not parallel to .*tok"):
        order.run(place / "tok", tmp_path / "lengths", config, labels=place / "other")
    made = tokenize.TokenizeConfig(tokenizer=place / "tok.tokenizer.json")
    tokenize.run(find_shards([place / "shards" / "0.jsonl"]), tmp_path / "few", made, threads=1)
    with pytest.raises(ConfigError, match="9 documents of labels for 27 of tokens"):
        order.run(place / "tok", tmp_path / "documents", config, labels=tmp_path / "few")


def test_verify_reads_a_manifest_once_for_all_its_shards(
    place: Path, tmp_path: Path, manifests_read: Callable[[], list[Path]]
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(30):
        shutil.copy(place / "shards" / f"{number % 3}.jsonl", many / f"{number:02}.jsonl")
    dedup.run(find_shards([many]), tmp_path / "out", dedup.DedupConfig(), threads=1, memory=1 << 28)
    made = tokenize.TokenizeConfig(tokenizer=place / "tok.tokenizer.json")
    tokenize.run(find_shards([tmp_path / "out"]), tmp_path / "d", made, threads=1)
    read = manifests_read()
    assert {check.state for check in verify.run(tmp_path / "d", chain=True)} == {"ok"}
    assert len(read) < 20


def test_the_checkpoints_around_a_step_are_those_of_a_search_of_all() -> None:
    known = (0, 1, 4, 9)
    for step in range(12):
        before, after = [c for c in known if c <= step], [c for c in known if c > step]
        expected = (before[-1] if before else None), (after[0] if after else None)
        assert Intervals(known, 12).around(step) == expected
    assert Intervals((), 12).around(3) == (None, None)
