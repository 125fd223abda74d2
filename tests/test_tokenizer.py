"""`Tokenizer` against golden ids and against the `tokenizers` package."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_tools import ConfigError, FormatError, Tokenizer


@pytest.mark.parametrize("name", ["nasty", "random_unicode", "unicode_version"])
def test_ids_are_the_references(golden: Path, neox_tokenizer: Path, name: str) -> None:
    ours = Tokenizer.from_file(neox_tokenizer)
    lines = [json.loads(line) for line in (golden / "tokenizer" / f"{name}.jsonl").read_text().splitlines()]
    ids, offsets = ours.encode_batch([line["text"] for line in lines])
    assert ids.dtype == np.uint32
    assert offsets.dtype == np.uint64
    for i, line in enumerate(lines):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == line["ids"], line["text"]
        if "decoded" in line:
            assert ours.decode(line["ids"], skip_special_tokens=False) == line["decoded"]


nasty_text = st.text() | st.text(
    st.sampled_from(list(" \n\t'sStTrRdlmv1aéß日\u0301\u00a0\u200b<|endoftext>")), max_size=80
)


@given(texts=st.lists(nasty_text, max_size=8))
@settings(deadline=None)
def test_ids_and_texts_agree_with_tokenizers(tokenizer: Path, texts: list[str]) -> None:
    ours, theirs = Tokenizer.from_file(tokenizer), tokenizers.Tokenizer.from_file(str(tokenizer))
    ids, offsets = ours.encode_batch(texts)
    for i, text in enumerate(texts):
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ids[offsets[i] : offsets[i + 1]].tolist() == expected
        assert ours.encode(text).tolist() == expected
        for skip in (True, False):
            assert ours.decode(expected, skip_special_tokens=skip) == theirs.decode(
                expected, skip_special_tokens=skip
            )


@given(ids=st.lists(st.integers(0, 450), max_size=20), skip=st.booleans())
@settings(deadline=None)
def test_any_ids_decode_as_in_tokenizers(tokenizer: Path, ids: list[int], skip: bool) -> None:
    ours, theirs = Tokenizer.from_file(tokenizer), tokenizers.Tokenizer.from_file(str(tokenizer))
    expected = theirs.decode(ids, skip_special_tokens=skip)
    forms = [ids, np.array(ids, dtype=np.int64), np.array(ids, dtype=np.uint32)]
    assert [ours.decode(form, skip, skip_unknown=True) for form in forms] == [expected] * 3
    unknown = [id for id in ids if ours.id_to_token(id) is None]
    if unknown:
        with pytest.raises(ConfigError, match=f"no id {unknown[0]} "):
            ours.decode(ids, skip)
    else:
        assert ours.decode(ids, skip) == expected


def test_it_pickles(tokenizer: Path) -> None:
    ours = Tokenizer.from_file(tokenizer)
    text = "naïve words don't  change"
    assert pickle.loads(pickle.dumps(ours)).encode(text).tolist() == ours.encode(text).tolist()


def test_names_of_tokens(tokenizer: Path) -> None:
    ours = Tokenizer.from_file(tokenizer)
    assert ours.eod == ("<|endoftext|>", 0)
    assert ours.token_to_id("<|padding|>") == 1
    assert ours.id_to_token(1) == "<|padding|>"
    assert ours.token_to_id("no such token") is None
    assert ours.id_to_token(10**6) is None
    assert ours.vocab_size == tokenizers.Tokenizer.from_file(str(tokenizer)).get_vocab_size()


def change(tokenizer: Path, **parts: object) -> bytes:
    return json.dumps({**json.loads(tokenizer.read_text()), **parts}).encode()


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}, "Metaspace"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
        ({"decoder": {"type": "WordPiece"}}, "WordPiece"),
    ],
)
def test_an_unsupported_component_is_named(tokenizer: Path, parts: dict[str, object], named: str) -> None:
    with pytest.raises(FormatError, match=named):
        Tokenizer(change(tokenizer, **parts))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": 1}'])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(content)
    with pytest.raises(FormatError, match=r"other\.json"):
        Tokenizer.from_file(file)


def test_a_text_that_would_take_gigabytes_to_merge_is_refused(neox_tokenizer: Path) -> None:
    tokenizer = Tokenizer.from_file(neox_tokenizer)
    with pytest.raises(ConfigError, match=r"has 33554433 bytes without a boundary at which to split it"):
        tokenizer.encode("a" * ((32 << 20) + 1))
    assert len(tokenizer.encode("a line\n" * 100)) > 100


def added(id: int, content: str, *, is_special: bool = False) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, "special": is_special, **flags}


@pytest.mark.parametrize(
    ("names", "ids", "is_right"),
    [
        ("<y>", [0], True),
        ("<y><z>", [0, 1], True),
        ("<x><y>", [None, 0], True),
        ("<y><x><z>", [0, None, 1], True),
        ("<y>", [1], False),
        ("<x><y>", [None, 1], False),
    ],
)
def test_added_tokens_have_the_ids_of_tokenizers(
    tokenizer: Path, tmp_path: Path, names: str, ids: list[int | None], is_right: bool
) -> None:
    """The vocabulary has `<x>` at 5,000, after a gap. Other ids count from its size; None is that of `x`."""
    values = json.loads(tokenizer.read_text())
    values["model"]["vocab"]["<x>"] = 5000
    first = len({*values["model"]["vocab"], *(token["content"] for token in values["added_tokens"])})
    values["added_tokens"] += [
        added(5000 if id is None else first + id, content)
        for content, id in zip(re.findall("<.>", names), ids, strict=True)
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(values))
    text = "a<x>b<y>c<z>d"
    theirs = tokenizers.Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids
    if is_right:
        assert Tokenizer.from_file(path).encode(text).tolist() == theirs
    else:
        # `tokenizers` ignores them.
        assert first in theirs
        with pytest.raises(FormatError, match=f"has id {first + 1}, expected {first}"):
            Tokenizer.from_file(path)


@pytest.mark.parametrize("id", [1 << 20, (1 << 20) + 1, 1 << 31])
def test_an_added_token_with_a_huge_id_is_refused(tokenizer: Path, id: int) -> None:
    """Ids are kept in 20 bits: a run of spaces was right at first, and then another token."""
    values = json.loads(tokenizer.read_text())
    values["model"]["vocab"] |= {"  ": id}
    with pytest.raises(FormatError, match=f"id {id} of token .* is above 1048575"):
        Tokenizer(change(tokenizer, added_tokens=[*values["added_tokens"], added(id, "  ")]))


def test_a_signal_before_the_first_array_of_a_process_is_raised(tokenizer: Path) -> None:
    """That array loads the interface of NumPy, in which an exception would be a panic."""
    program = """
import signal, sys
from pile_tools import Tokenizer

def interrupt(*_):
    raise KeyboardInterrupt

tokenizer = Tokenizer.from_file(sys.argv[1])
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    tokenizer.encode("some words, and more. " * 500_000)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tokenizer], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
