"""`pile-study memorization`: rows, tables, canaries, passages, resuming, errors."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.studies.conftest import BATCH_SIZE, CHECKPOINTS, STEPS, write_run

from pile_tools import ConfigError, FormatError, OutputExistsError, PileError, Tokenizer, manifest
from pile_tools.cli import run as run_cli
from pile_tools.errors import VerifyError
from pile_tools.jobs import stages, tokenize
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.order import run as build_order
from pile_tools.jobs.sampling import canaries as planted
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.manifest import Request
from pile_tools.order.open import open_order
from pile_tools.read.shards import find_shards
from studies.cli import group
from studies.memorization import canaries, passages, rows, study
from studies.memorization.plan import MemorizationConfig, prepare
from studies.memorization.scores import Scores
from studies.runs import Run, open_run

#: The run of conftest.py: 20 steps of 4 samples, checkpoints 0, 4 and 20.
N_TRAINED = 80


def _config(**values: Any) -> MemorizationConfig:
    return MemorizationConfig(**{"rows": 40, "prompt_tokens": 32, "continuation_tokens": 32} | values)


def _study(run: Path, out: Path, canaries_file: Path | None = None, **more: Any) -> dict[str, Any]:
    plan = prepare(run, _config(**more.pop("config", {})), canaries_file)
    study.run(plan, out, **more)
    summary: dict[str, Any] = json.loads((out / "memorization.json").read_text())
    return summary


def test_a_tokenizer_is_that_of_the_checkpoint(run_folder: Path) -> None:
    path = run_folder / "checkpoints" / f"step{CHECKPOINTS[-1]}" / "tokenizer.json"
    assert open_run(run_folder).tokenizer is not None
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(VerifyError, match="not the file that the checkpoint was written with"):
        _ = open_run(run_folder).tokenizer
    path.unlink()
    with pytest.raises(VerifyError, match="missing"):
        _ = open_run(run_folder).tokenizer


def test_rows_are_evenly_spaced_and_some_lie_beyond_the_run(run_folder: Path) -> None:
    chosen = rows.choose(open_run(run_folder), 20, 64)
    inside, beyond = chosen.numbers[:20], chosen.numbers[20:]
    assert np.array_equal(inside, np.arange(20) * 4 + 2)
    assert len(beyond) == 5
    assert (beyond >= N_TRAINED).all()
    assert np.array_equal(chosen.steps_seen, chosen.numbers // 4)
    assert chosen.tokens.shape == (25, 64)


def test_a_run_with_fewer_rows_gives_all_it_has(run_folder: Path) -> None:
    chosen = rows.choose(open_run(run_folder), 10_000, 64)
    assert np.array_equal(chosen.numbers[:N_TRAINED], np.arange(N_TRAINED))
    assert len(set(chosen.numbers.tolist())) == len(chosen.numbers)


def test_rows_shorter_than_prompt_and_continuation_are_an_error(run_folder: Path) -> None:
    with pytest.raises(ConfigError, match="rows have 81 tokens"):
        prepare(run_folder, _config(continuation_tokens=50), None)


def test_checkpoints_know_what_they_saw_and_nothing_else(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    summary = _study(run_folder, tmp_path / "out")
    assert loaded_steps == [0, 4, 20]
    tables = {table["step"]: table for table in summary["checkpoints"]}
    assert tables[0]["seen"]["n"] == 0
    assert tables[4]["seen"]["n"] == 8
    assert tables[20]["seen"]["n"] == 40
    assert tables[20]["unseen"]["n"] == 10
    assert [tables[s]["seen"]["mean_score"] for s in (4, 20)] == [1.0, 1.0]
    assert [tables[s]["unseen"]["mean_score"] for s in (0, 4, 20)] == [0.0, 0.0, 0.0]


def test_the_arrays_hold_every_row_and_checkpoint(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    _study(run_folder, tmp_path / "out")
    with np.load(tmp_path / "out" / "scores.npz") as scores:
        assert scores["matches"].shape == scores["leading"].shape == (3, 50)
        assert scores["matches"].dtype == np.uint8
        seen = scores["steps_seen"][None, :] < scores["checkpoints"][:, None]
        assert np.array_equal(scores["matches"], np.where(seen, 32, 0))


def test_canaries_are_counted_where_they_stand_whole(
    run_folder: Path, tmp_path: Path, canaries_file: Path, loaded_steps: list[int]
) -> None:
    summary = _study(run_folder, tmp_path / "out", canaries_file)
    found = json.loads((tmp_path / "out" / "canaries.json").read_text())
    run = open_run(run_folder)
    tokenizer = run.tokenizer
    assert tokenizer is not None
    stream = run.order.samples.read(0, N_TRAINED)
    for canary in found["canaries"]:
        wanted = tokenizer.encode(canary["text"])[:64].tolist()
        by_hand = [
            sum(row[i : i + 64].tolist() == wanted for row in stream[: step * 4] for i in range(81 - 63))
            for step in found["checkpoints"]
        ]
        assert canary["n_seen"] == by_hand
    planted = [passage for passage in summary["passages"] if "repeats" in passage]
    for passage in planted:
        assert passage["repeats"] > 0, "a canary that was never seen is no passage the model learnt"
        assert passage["seen_at_steps"]
    levels = summary["checkpoints"][-1]["canaries"]
    assert [(level["repeats"], level["n"]) for level in levels] == [(0, 1), (1, 3)]
    assert levels[0]["mean_seen"] == 0


def test_canary_levels_by_hand() -> None:
    repeats, seen = np.array([16, 0, 16, 0]), np.array([10, 0, 12, 0])
    levels = canaries.by_repeats(repeats, seen, np.array([32, 0, 16, 8], np.uint8), 32)
    assert [level["repeats"] for level in levels] == [0, 16]
    assert [level["mean_seen"] for level in levels] == [0, 11]
    assert [level["mean_score"] for level in levels] == [0.125, 0.75]
    assert [level["n_memorized"] for level in levels] == [0, 1]


def test_passages_say_whence_they_come_and_when_they_were_seen(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    found = _study(run_folder, tmp_path / "out")["passages"]
    run = open_run(run_folder)
    assert 0 < len(found) <= 15
    for passage in found:
        assert (passage["matches"], passage["leading"]) == (32, 32)
        assert passage["row"] // 4 in [place["step"] for place in passage["seen_at_steps"]]
        assert passage["documents"][0]["document"] == int(run.order.samples.spans(passage["row"], 1)[0, 1])
        assert passage["documents"][0]["shard"].endswith(".jsonl.zst")
        assert [piece["is_right"] for piece in passage["continuation"]] == [True]
    assert len({p["prompt"] + p["continuation"][0]["text"] for p in found}) == len(found)


def test_canaries_that_were_seen_stand_among_the_passages(run_folder: Path) -> None:
    run = open_run(run_folder)
    chosen = rows.choose(run, 6, 64)
    tokens = np.stack([run.order.samples[i][:64] for i in (0, 1, 2)]).astype(np.int64)
    planted = canaries.Canaries(["a", "b", "c"], np.array([4, 0, 1]), tokens)
    is_right = np.zeros((len(chosen.numbers) + 3, 32), dtype=np.bool_)
    is_right[0, :5] = is_right[-3, :20] = is_right[-2, :] = is_right[-1, :9] = True
    found = passages.most_memorized(run, chosen, planted, np.array([4, 0, 1]), Scores(is_right), 20)
    assert [(p.get("repeats"), p["matches"]) for p in found] == [(4, 20), (1, 9), (None, 5)]
    assert [place["step"] for place in found[0]["seen_at_steps"]] == [0]


def test_a_continuation_is_told_apart_into_right_and_wrong_pieces(run_folder: Path) -> None:
    run = open_run(run_folder)
    assert run.tokenizer is not None
    tokens = run.tokenizer.encode("alpha beta gamma").astype(np.int64)
    is_right = np.arange(len(tokens)) != 1
    fragments = passages._graded_fragments(run, tokens, is_right)
    assert [piece["is_right"] for piece in fragments] == [True, False, True][: len(fragments)]
    assert "".join(piece["text"] for piece in fragments) == "alpha beta gamma"


def first_steps_by_hand(run: Run, tokens: np.ndarray[Any, Any]) -> list[int | None]:
    """The first step with a row that holds each sequence as a whole, by looking at every window."""
    n = tokens.shape[1]
    first: dict[bytes, int] = {}
    for number in range(run.n_samples):
        row = np.asarray(run.order.samples[number]).astype(np.int64)
        for window in np.lib.stride_tricks.sliding_window_view(row, n):
            first.setdefault(window.tobytes(), number // run.batch_size)
    return [first.get(sequence.tobytes()) for sequence in tokens]


@pytest.fixture
def repeating_run(tmp_path: Path, write_shard: Callable[..., Path], tokenizer: Path) -> Path:
    """A run over six documents, read again and again: most rows to come were seen before."""
    rng, folder = random.Random(7), tmp_path / "repeating"
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(6)]
    write_shard(folder / "shards" / "00.jsonl.zst", ({"text": text} for text in texts))
    shards = find_shards([folder / "shards"])
    tokenize.run(shards, folder / "tokens" / "s", TokenizeConfig(tokenizer=tokenizer), threads=1)
    config = OrderConfig(seq_length=80, steps=STEPS, batch_size=BATCH_SIZE, seed=5)
    build_order(folder / "tokens" / "s", folder / "order", config)
    return write_run(folder / "run", folder / "order", tokenizer)


@pytest.mark.parametrize("n_tokens", [8, 40, 64])
def test_not_seen_means_in_no_earlier_batch(repeating_run: Path, n_tokens: int) -> None:
    run = open_run(repeating_run)
    assert run.order.record.summary["n_epochs"] > 1
    chosen = rows.choose(run, N_TRAINED, n_tokens)
    expected = first_steps_by_hand(run, chosen.tokens)
    own = chosen.numbers // run.batch_size
    assert chosen.steps_seen.tolist() == [
        int(step) if first is None else first for first, step in zip(expected, own, strict=True)
    ]
    assert (chosen.steps_seen < own).sum() > N_TRAINED // 4, "the case is about rows that were seen before"
    assert (chosen.steps_seen[chosen.numbers >= run.n_samples] >= run.steps).all()


def test_too_few_rows_not_seen_are_counted(
    repeating_run: Path, tmp_path: Path, loaded_steps: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["memorization", str(repeating_run), "-o", str(out), "--rows", "80", "--prompt-tokens", "8"]
    assert run_cli(group, [*arguments, "--continuation-tokens", "8"]) == 0
    summary = json.loads((out / "memorization.json").read_text())
    last = summary["checkpoints"][-1]
    assert last["unseen"]["n"] < summary["n_control"] == 20
    printed = capsys.readouterr().out
    assert f"few rows not seen: {last['unseen']['n']} at step 20; earlier batches hold" in printed
    assert max(map(len, printed.splitlines())) <= 80 + len(str(out)) + len(str(repeating_run))


def test_views_are_searched_as_orders_are(repeating_run: Path) -> None:
    run = open_run(repeating_run)
    tokens = rows.choose(run, 40, 16).tokens
    by_core = canaries.find_samples(tokens, run)
    plain = canaries._scan(tokens, run.order.samples, run.n_samples)
    assert [found.tolist() for found in by_core] == [found.tolist() for found in plain]
    assert sum(map(len, by_core)) > 80
    assert canaries.find_samples(tokens[:0], run) == []


def test_canaries_never_planted_but_seen_are_no_control() -> None:
    repeats, seen = np.array([0, 0, 0, 2]), np.array([0, 3, 0, 1])
    levels = canaries.by_repeats(repeats, seen, np.array([8, 32, 16, 4], np.uint8), 32)
    never = levels[0]
    assert (never["n"], never["n_left_out"], never["mean_seen"]) == (2, 1, 0.0)
    assert never["mean_score"] == 12 / 32
    assert (levels[1]["n"], levels[1]["n_left_out"]) == (1, 0)
    only_seen = canaries.by_repeats(np.zeros(2, int), np.ones(2, int), np.zeros(2, np.uint8), 32)[0]
    assert (only_seen["n"], only_seen["n_left_out"], only_seen["mean_score"]) == (0, 2, None)


def test_rows_that_hold_canaries_are_left_out(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "SUBSET", "Books")
    run = open_run(run_folder)
    chosen = rows.choose(run, N_TRAINED, 64)
    dataset = run.order.samples.dataset
    books = dataset.subsets.index("Books")
    for number in chosen.numbers:
        documents = np.array(rows.documents_of(run, int(number), 64))
        assert books not in dataset.subset_numbers(documents)
    assert chosen.n_left_out > 0
    assert len(chosen.numbers) + chosen.n_left_out == N_TRAINED + 20


def padded_run(
    folder: Path,
    tokenizer: Path,
    write_shard: Callable[..., Path],
    kind: str,
    skipped: tuple[int, ...] = (),
) -> Run:
    """The first 5 steps of an order whose rows hold equal short documents, or one long document of a few."""
    texts = ["alpha beta gamma delta " * n for n in (*[3] * 60, *range(20, 40))]
    random.Random(1).shuffle(texts)
    write_shard(folder / "s/00.jsonl", ({"text": text} for text in texts))
    config = TokenizeConfig(tokenizer=tokenizer)
    tokenize.run(find_shards([folder / "s"]), folder / "d", config, threads=1)
    packing = kind.removeprefix("staged ")
    sizes = OrderConfig(seq_length=80, steps=10, batch_size=4, packing=packing)
    build_order(folder / "d", folder / "o", sizes)
    if kind.startswith("staged"):
        stages.run([stages.Stage(folder / "o", 3), stages.Stage(folder / "o", 10)], folder / "staged")
    order = open_order(folder / ("staged" if kind.startswith("staged") else "o"))
    path = folder / "run.json"
    manifest.write(path, Request("run", {}, []), [], {"skipped": list(skipped)})
    return Run(folder, manifest.read(path), order, 5, 4, [0])


@pytest.mark.parametrize("kind", ["unpacked", "pack_until_overflow", "staged unpacked"])
@pytest.mark.parametrize("n_tokens", [8, 24, 64])
@pytest.mark.parametrize("skipped", [(), (0, 2, 3)])
def test_rows_that_are_padded_or_skipped_are_left_out(
    tmp_path: Path,
    tokenizer: Path,
    write_shard: Callable[..., Path],
    kind: str,
    n_tokens: int,
    skipped: tuple[int, ...],
) -> None:
    """The steps of all others are those that the rows themselves give, without those of skipped steps."""
    run = padded_run(tmp_path, tokenizer, write_shard, kind, skipped)
    chosen = rows.choose(run, 40, n_tokens)
    samples = run.order.samples
    n_text = np.array([samples.spans(i, 1)[:, 3].sum() for i in range(len(samples))])
    assert (n_text[chosen.numbers] >= n_tokens).all()
    is_trained = ~np.isin(np.arange(run.n_samples) // run.batch_size, skipped)
    assert set(chosen.numbers[chosen.numbers < run.n_samples].tolist()) == set(
        np.flatnonzero(is_trained & (n_text[: run.n_samples] >= n_tokens)).tolist()
    )
    assert bool(chosen.n_padded) == bool((n_text < n_tokens).any())
    windows = [
        {row[i : i + n_tokens].tobytes() for i in range(len(row) - n_tokens + 1)} if trained else set()
        for row, trained in zip(samples.read(0, run.n_samples).astype(np.int64), is_trained, strict=True)
    ]
    for number, step, tokens in zip(chosen.numbers, chosen.steps_seen, chosen.tokens, strict=True):
        first = next((i for i, found in enumerate(windows) if tokens.tobytes() in found), int(number))
        assert step == first // run.batch_size
        assert number < run.n_samples or step >= run.steps


def test_a_run_that_skipped_all_of_its_steps_is_refused(
    tmp_path: Path, tokenizer: Path, write_shard: Callable[..., Path]
) -> None:
    run = padded_run(tmp_path, tokenizer, write_shard, "unpacked", tuple(range(5)))
    with pytest.raises(ConfigError, match="is of a step that was skipped"):
        rows.choose(run, 40, 8)


def test_rows_that_are_all_shorter_are_refused(
    tmp_path: Path, tokenizer: Path, write_shard: Callable[..., Path]
) -> None:
    run = padded_run(tmp_path, tokenizer, write_shard, "pack_until_overflow")
    with pytest.raises(ConfigError, match="each of these rows has fewer tokens than 81"):
        rows.choose(run, 1, 81)


def test_an_interrupted_study_goes_on_and_gives_the_same(
    run_folder: Path, tmp_path: Path, canaries_file: Path, loaded_steps: list[int]
) -> None:
    plan = prepare(run_folder, _config(), canaries_file)

    def interrupt(done: int) -> None:
        if done > plan.n_sequences // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(plan, tmp_path / "out", on_progress=interrupt)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial" / "scores" / "step0.npz").exists()
    # A study with other settings does not discard hours of it.
    other = prepare(run_folder, _config(rows=8), canaries_file)
    with pytest.raises(OutputExistsError, match="holds scores of an interrupted study"):
        study.run(other, tmp_path / "out")
    study.run(plan, tmp_path / "out")
    assert loaded_steps == [0, 4, 4, 20]
    study.run(plan, tmp_path / "whole")
    names = ["canaries.json", "manifest.json", "memorization.json", "scores.npz"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        *((damage, [4]) for damage in ("cut", "empty", "other scores", "link", "pipe", "gone")),
        ("no checksums", [0, 4]),
        ("pipe of checksums", [0, 4]),
    ],
)
def test_a_damaged_part_is_scored_again(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int], damage: str, again: list[int]
) -> None:
    plan = prepare(run_folder, _config(), None)

    def interrupt(done: int) -> None:
        if done > 2 * plan.n_sequences // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(plan, tmp_path / "out", on_progress=interrupt)
    part = tmp_path / "out.partial" / "scores" / "step4.npz"
    data = part.read_bytes()
    if damage == "cut":
        part.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        part.write_bytes(b"")
    elif damage == "other scores":
        part.write_bytes((tmp_path / "out.partial" / "scores" / "step0.npz").read_bytes())
    elif damage == "link":
        part.rename(tmp_path / "aside.npz")
        part.symlink_to(tmp_path / "aside.npz")
    elif damage == "pipe":
        part.unlink()
        os.mkfifo(part)
    elif damage == "gone":
        part.unlink()
    else:
        checksums = tmp_path / "out.partial" / "scores" / "state.json"
        checksums.unlink()
        if damage.startswith("pipe"):
            os.mkfifo(checksums)
    study.run(plan, tmp_path / "out")
    assert loaded_steps == [0, 4, 20, *again, 20]
    study.run(plan, tmp_path / "whole")
    scores = [(tmp_path / name / "scores.npz").read_bytes() for name in ("out", "whole")]
    assert scores[0] == scores[1]


def test_finished_studies_are_left_alone_and_others_refused(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int]
) -> None:
    plan = prepare(run_folder, _config(), None)
    assert study.run(plan, tmp_path / "out")[1]
    assert not study.run(plan, tmp_path / "out")[1]
    other = prepare(run_folder, _config(rows=20), None)
    with pytest.raises(OutputExistsError, match="rows = 40, not 20"):
        study.run(other, tmp_path / "out")
    assert study.run(other, tmp_path / "out", force=True)[1]


@pytest.mark.parametrize("name", ["scores.npz", "canaries.json", "memorization.json"])
def test_a_file_in_the_way_is_refused_before_the_work(
    run_folder: Path, tmp_path: Path, canaries_file: Path, loaded_steps: list[int], name: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("of someone else")
    with pytest.raises(OutputExistsError, match=name):
        study.run(prepare(run_folder, _config(), canaries_file), tmp_path / "out")
    assert loaded_steps == []


@pytest.mark.parametrize("before", [None, "in no earlier row"])
def test_a_study_with_another_meaning_of_not_seen_is_not_finished(
    run_folder: Path, tmp_path: Path, loaded_steps: list[int], before: str | None
) -> None:
    plan = prepare(run_folder, _config(), None)
    now = plan.request(tmp_path / "out")
    others = {name: value for name, value in now.settings.items() if name != "unseen"}
    then = Request(now.kind, others if before is None else {**others, "unseen": before}, now.inputs)
    (tmp_path / "out").mkdir()
    manifest.write(tmp_path / "out" / "manifest.json", then, [], {})
    with pytest.raises(OutputExistsError, match="unseen"):
        study.run(plan, tmp_path / "out")
    assert study.run(plan, tmp_path / "out", force=True)[1]


@pytest.mark.parametrize(("text", "steps"), [("all", [0, 4, 20]), ("4", [4]), ("20,0", [0, 20])])
def test_checkpoints_are_chosen_by_number(text: str, steps: list[int]) -> None:
    assert _config(checkpoints=text).steps([0, 4, 20]) == steps


@pytest.mark.parametrize("text", ["5", "", "first", "4,,20"])
def test_checkpoints_that_are_not_there_are_usage_errors(text: str) -> None:
    with pytest.raises(ConfigError):
        _config(checkpoints=text).steps([0, 4, 20])


@pytest.mark.parametrize("name", ["rows", "prompt_tokens", "continuation_tokens"])
def test_numbers_below_one_are_usage_errors(name: str) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        _config(**{name: 0})


def test_continuations_longer_than_a_byte_counts_are_usage_errors() -> None:
    with pytest.raises(ConfigError, match="255"):
        _config(continuation_tokens=256)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"passages": []}', '{"passages": [{"text": 1, "repeats": 0}]}', '{"passages": [{}]}'],
)
def test_other_files_are_no_canaries(run_folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(FormatError, match=r"c\.json"):
        prepare(run_folder, _config(), tmp_path / "c.json")


def test_passages_too_short_to_score_are_an_error(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"passages": [{"text": "short", "repeats": 1}]}')
    with pytest.raises(PileError, match="expected 64"):
        prepare(run_folder, _config(), tmp_path / "c.json")


def test_a_run_without_checkpoints_is_an_error(run_folder: Path) -> None:
    (run_folder / "checkpoints").rename(run_folder / "elsewhere")
    with pytest.raises(PileError, match="a checkpoint of the run is missing"):
        open_run(run_folder)


def test_an_order_made_anew_since_is_an_error(run_folder: Path) -> None:
    values = json.loads((run_folder / "manifest.json").read_text())
    values["inputs"][0]["sha256"] = "0" * 64
    (run_folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(PileError, match="made again"):
        open_run(run_folder)


def test_a_checkpoint_replaced_since_the_plan_was_made_is_an_error(run_folder: Path) -> None:
    plan = prepare(run_folder, _config(), None)
    step = plan.steps[0]
    path = plan.run.checkpoint(step) / "manifest.json"
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n")
        with pytest.raises(PileError, match=r"the checkpoint was replaced.*step"):
            plan.check_unchanged(step)
    finally:
        path.write_bytes(before)
    plan.check_unchanged(step)


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(group, ["memorization", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no finished run" in error


def test_the_command_prints_its_tables(
    run_folder: Path,
    tmp_path: Path,
    canaries_file: Path,
    loaded_steps: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["memorization", str(run_folder), "-o", str(tmp_path / "out"), "--canaries", str(canaries_file)]
    assert run_cli(group, command) == 0
    out = capsys.readouterr().out
    assert "1.0000 (100.00%)" in out
    assert "never planted" in out
    assert run_cli(group, command) == 0
    assert "is finished already" in capsys.readouterr().out


def test_greedy_decoding_of_a_real_model_is_scored(run_folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from studies.memorization import models
    from trainer.model.init import initialize
    from trainer.model.neox import GPTNeoX
    from trainer.shape import ModelShape

    shape = ModelShape(vocab_size=512, hidden_size=16, n_layers=1, n_heads=2, max_positions=81)
    model = GPTNeoX(shape).eval()
    initialize(model, 0)
    sequences = rows.choose(open_run(run_folder), 5, 24).tokens

    def greedy(prompts: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(prompts)
        for _ in range(8):
            tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
        generated: np.ndarray = tokens[:, prompts.shape[1] :].numpy()
        return generated

    with torch.inference_mode():
        truth = greedy(sequences[:, :16])
        sequences[:3, 16:] = truth[:3]
        scores = list(models.score(greedy, sequences, 16, 2))
    assert [len(batch.matches) for batch in scores] == [2, 2, 2]
    assert np.concatenate([batch.leading for batch in scores])[:3].tolist() == [8, 8, 8]


def test_banning_the_end_of_documents_needs_one(run_folder: Path) -> None:
    plan = prepare(run_folder, _config(ban_eod=True), None)
    tokenizer = plan.run.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.eod is not None
    assert plan.ban == tokenizer.eod[1]
