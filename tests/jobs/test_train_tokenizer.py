"""`train-tokenizer`: merges against the trainer of the `tokenizers` package."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_tools import _core
from pile_tools.commands.train_tokenizer import Bars
from pile_tools.errors import ConfigError, PileError
from pile_tools.jobs.train_tokenizer import SPECIAL_TOKENS, TrainTokenizerConfig, run
from pile_tools.read.shards import find_shards

BYTE_LEVEL = tokenizers.pre_tokenizers.ByteLevel


def theirs(texts: Iterable[str], config: TrainTokenizerConfig) -> dict[str, Any]:
    """The model that `tokenizers` trains."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = BYTE_LEVEL(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(config.special_tokens),
        initial_alphabet=BYTE_LEVEL.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return dict(json.loads(tokenizer.to_str())["model"])


def ours(shards: list[Path], config: TrainTokenizerConfig, threads: int = 2) -> dict[str, Any]:
    trained, _ = _core.train_tokenizer(
        shards, config.vocab_size, config.min_frequency, config.special_tokens, threads
    )
    return dict(json.loads(trained)["model"])


def assert_same(shards: list[Path], texts: Iterable[str], config: TrainTokenizerConfig) -> None:
    found, expected = ours(shards, config), theirs(texts, config)
    assert found["merges"] == expected["merges"]
    assert found["vocab"] == expected["vocab"]


def texts_of(shards: list[Path]) -> list[str]:
    texts = []
    for shard in shards:
        with zstandard.open(shard, "rt", encoding="utf-8", newline="\n") as lines:
            assert isinstance(lines, io.TextIOWrapper)
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def written(folder: str | Path, texts: list[str]) -> list[Path]:
    path = Path(folder) / "0.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return [path]


#: Few letters, so that most counts are equal to others and pairs overlap themselves.
few_letters = st.text(st.sampled_from(list("aab \n'sé漢\0")), max_size=40)


@given(
    texts=st.lists(few_letters | st.text(max_size=20), min_size=1, max_size=12).filter(any),
    n_merges=st.integers(0, 60),
    min_frequency=st.integers(0, 3),
    special_tokens=st.lists(st.sampled_from(["a", "ab", "aa", "Ġa", "é", "<s>"]), unique=True).map(tuple),
)
@settings(deadline=None, max_examples=100)
def test_merges_of_small_texts_are_those_of_tokenizers(
    texts: list[str], n_merges: int, min_frequency: int, special_tokens: tuple[str, ...]
) -> None:
    config = TrainTokenizerConfig(
        vocab_size=256 + len(special_tokens) + n_merges,
        min_frequency=min_frequency,
        special_tokens=special_tokens,
    )
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        assert_same(written(folder, texts), texts, config)


@pytest.mark.parametrize("vocab_size", [3000, pytest.param(50254, marks=pytest.mark.slow)])
def test_merges_of_a_corpus_are_those_of_tokenizers(shared: Path, vocab_size: int) -> None:
    shards = find_shards([shared / "corpus" / "small"])
    assert_same(shards, texts_of(shards), TrainTokenizerConfig(vocab_size=vocab_size, min_frequency=0))


@pytest.mark.parametrize("alphabet", ["a", "ab", "漢字仮名", "abcdefghijklmnopqrstuvwxyz"])
def test_a_giant_word_is_merged_as_by_tokenizers(tmp_path: Path, alphabet: str) -> None:
    text = "".join(random.Random(0).choices(alphabet, k=15_000))
    config = TrainTokenizerConfig(vocab_size=1000, min_frequency=0)
    assert_same(written(tmp_path, [text]), [text], config)


def test_a_giant_word_takes_no_longer_than_many_small_ones(tmp_path: Path) -> None:
    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000))
    found = ours(written(tmp_path, [letters]), TrainTokenizerConfig(vocab_size=20_000))
    assert len(found["vocab"]) == 20_000


def test_training_is_the_same_for_any_number_of_threads(tmp_path: Path, shards: Path) -> None:
    for threads in (1, 3):
        config = TrainTokenizerConfig(vocab_size=350)
        run(find_shards([shards]), tmp_path / f"{threads}.json", config, threads=threads)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "3.json").read_bytes()


def test_one_letter_has_no_pair(tmp_path: Path) -> None:
    config = TrainTokenizerConfig()
    manifest, _ = run(written(tmp_path, ["a"]), tmp_path / "t.json", config, threads=1)
    assert manifest.summary["n_merges"] == 0
    assert manifest.summary["vocab_size"] == 258


def test_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PileError, match="every document is empty"):
        run(written(tmp_path, ["", ""]), tmp_path / "t.json", TrainTokenizerConfig(), threads=1)
    assert not (tmp_path / "t.json").exists()


def test_another_tokenizer_with_the_same_manifest_is_not_this_one(tmp_path: Path, shards: Path) -> None:
    config, found = TrainTokenizerConfig(vocab_size=300), find_shards([shards])
    for one, two in (("t", "t.json"), ("u.json", "u")):
        run(found, tmp_path / one, config, threads=1)
        for force in (False, True):
            with pytest.raises(ConfigError, match=f"is the manifest of other files, such as {one}"):
                run(found, tmp_path / two, config, threads=1, force=force)
        assert (tmp_path / one).exists()
        assert not (tmp_path / two).exists()


@pytest.mark.parametrize("name", ["x.txt", "x.JSONL", "x.json.gz", "x.parquet"])
def test_a_tokenizer_is_no_shard_of_the_next_run(tmp_path: Path, shards: Path, name: str) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    found, config = find_shards([tmp_path / "shards"]), TrainTokenizerConfig(vocab_size=300)
    with pytest.raises(ConfigError, match="where the next run would read it"):
        run(found, tmp_path / "shards" / name, config, threads=1)
    assert not (tmp_path / "shards" / name).exists()
    for output in (tmp_path / "shards" / "x.json", tmp_path / name):
        run(found, output, config, threads=1)


def test_progress_shows_bytes_then_merges(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("pile_tools.progress.LOG_INTERVAL_SECONDS", 0.0)
    with Bars(2_000_000, 50) as bars:
        for done in (1_000_000, 2_000_000, 2_000_020):
            bars.update(done)
    timed = [line.split(",")[0].split(" ", 1) for line in capsys.readouterr().err.splitlines()]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", clock) for clock, _ in timed)
    assert [line for _, line in timed] == [
        "counting words: 1 of 2 MB",
        "counting words: 2 of 2 MB",
        "merging: 20 of 50 merges",
    ]


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least 258 for 256 bytes and 2 special tokens, got 257"):
        TrainTokenizerConfig(vocab_size=257)
    with pytest.raises(ConfigError, match="special tokens must differ"):
        TrainTokenizerConfig(special_tokens=("a", "a"))
    assert TrainTokenizerConfig().special_tokens == SPECIAL_TOKENS
