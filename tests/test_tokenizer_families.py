"""Every family of byte-level BPE against `tokenizers`: built here, and published files given by path.

PILE_TOOLS_TOKENIZERS names files or folders of published tokenizers, separated as in PATH.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pile_tools import FormatError, Tokenizer
from pile_tools.read.shards import find_shards

Json = dict[str, Any]

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = CL100K.replace("{1,3}", "")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

TEXT = """The cat's 12 hats; they'll've 1234567 more, WE'RE told. Don't  panic!\r\n
def f(x):\n    return x['key'] + 3.14159  # café, naïve, e\u0301\n\n\t\tif x:\r\n        pass\n
日本語の文章。中文字符 русский текст ελληνικά हिन्दी עברית 한국어
\U0001f600\U0001f600 ²³ ٣٤٥ "quoted" (a) [b] {c} <d> 'x'
"""


def byte_level(*, use_regex: bool = False, add_prefix_space: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def split(pattern: str, behavior: str = "isolated", *, invert: bool = False) -> pre_tokenizers.PreTokenizer:
    first = pre_tokenizers.Split(Regex(pattern), behavior, invert)
    return pre_tokenizers.Sequence([first, byte_level()])


def digits(*, individual: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual), byte_level(use_regex=True)])


#: Name: how text is cut, whether it is normalized, whether known pieces are not merged.
FAMILIES: dict[str, tuple[pre_tokenizers.PreTokenizer, bool, bool]] = {
    "gpt2": (byte_level(use_regex=True), False, False),
    "gpt2_by_split": (split(GPT2), False, False),
    "roberta": (byte_level(use_regex=True, add_prefix_space=True), False, False),
    "neox": (byte_level(use_regex=True), True, False),
    "llama3": (split(CL100K), False, True),
    "olmo2": (split(CL100K), False, False),
    "cl100k_by_removal": (split(CL100K, "removed", invert=True), False, False),
    "qwen": (split(QWEN), True, False),
    "starcoder": (digits(individual=True), False, False),
    "digit_runs": (digits(individual=False), True, True),
}


def train(name: str, texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A tokenizer of a family, with added tokens of every kind."""
    pre_tokenizer, is_nfc, ignores_merges = FAMILIES[name]
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if is_nfc:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken("<|left|>", lstrip=True), AddedToken("<|right|>", rstrip=True)])
    tokenizer.add_tokens([AddedToken("word", single_word=True, normalized=False)])
    if name == "neox":
        tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    elif is_nfc:
        tokenizer.add_tokens([AddedToken("né", normalized=True, single_word=True)])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|endoftext|> $A",
                special_tokens=[("<|endoftext|>", tokenizer.get_vocab_size() and 0)],
            ),
        ]
    )
    return without_some_merges(tokenizer) if ignores_merges else tokenizer


def without_some_merges(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same with tokens that merges no longer make, so that `ignore_merges` matters."""
    json_ = json.loads(tokenizer.to_str())
    merges = json_["model"]["merges"]
    json_["model"]["merges"] = [merge for i, merge in enumerate(merges) if i % 3]
    return tokenizers.Tokenizer.from_str(json.dumps(json_))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Ours and theirs of each family, trained on a few lines."""
    theirs = train(request.param, [TEXT] * 3, 500)
    return Tokenizer(theirs.to_str().encode()), theirs


def check(ours: Tokenizer, theirs: tokenizers.Tokenizer, texts: list[str]) -> None:
    expected = [e.ids for e in theirs.encode_batch_fast(texts, add_special_tokens=False)]
    ids, offsets = ours.encode_batch(texts)
    for i, text in enumerate(texts):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == expected[i], text
        decoded = theirs.decode(expected[i], skip_special_tokens=False)
        assert ours.decode(expected[i], skip_special_tokens=False) == decoded


parts = st.one_of(
    st.text(max_size=4),
    st.text(st.sampled_from(" \t\r\n\u00a0\u3000\u0085"), max_size=70),
    st.text(st.sampled_from("0123456789²٣½\U00011de0\U00016ff4"), max_size=9),
    st.text(st.sampled_from("'sStTrReEvVlLmMdD\u017f"), max_size=6),
    st.text(st.sampled_from("aé漢e\u0301\u0323가\u1100\u1161.!«\U0001f600"), max_size=6),
    st.sampled_from(["<|endoftext|>", "<|left|>", "<|right|>", "word", "né", "ne\u0301", "  "]),
    st.builds(lambda part, n: part * n, st.sampled_from("a漢 1\n!"), st.integers(60, 200)),
)


@given(texts=st.lists(st.lists(parts, max_size=20).map("".join), max_size=4))
@settings(deadline=None, max_examples=40)
def test_ids_of_any_text_are_those_of_tokenizers(
    family: tuple[Tokenizer, tokenizers.Tokenizer], texts: list[str]
) -> None:
    check(*family, texts)


#: All that Unicode has assigned, and some that it has not.
CHARS = [chr(c) for c in (*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200))]


def test_every_code_point_is_cut_as_tokenizers_does(family: tuple[Tokenizer, tokenizers.Tokenizer]) -> None:
    blocks = [CHARS[i : i + 4096] for i in range(0, len(CHARS), 4096)]
    check(*family, ["".join(f"x{c} {c}!" for c in block) for block in blocks])


def test_every_character_of_words_is_known() -> None:
    """Around a `single_word` token: `\\w` is that of the reference, for every code point."""
    theirs = train("gpt2", [TEXT], 300)
    ours = Tokenizer(theirs.to_str().encode())
    for i in range(0, len(CHARS), 4096):
        check(ours, theirs, ["".join(f" word{c}" for c in CHARS[i : i + 4096])])


@pytest.mark.parametrize("name", FAMILIES)
def test_real_text_has_the_ids_of_tokenizers(name: str, shared: Path) -> None:
    texts = first_texts(shared / "corpus" / "small", 150_000)
    theirs = train(name, texts[::2], 2000)
    check(Tokenizer(theirs.to_str().encode()), theirs, texts)


def first_texts(corpus: Path, n_chars: int) -> list[str]:
    import zstandard

    texts: list[str] = []
    for shard in find_shards([corpus]):
        for line in zstandard.open(shard, "rt", encoding="utf-8"):
            texts.append(json.loads(line)["text"])
            n_chars -= len(texts[-1])
            if n_chars < 0:
                return texts
    return texts


def changed(change: Callable[[Json], object], name: str = "llama3") -> bytes:
    """A file of a family after a change."""
    json_ = json.loads(train(name, [TEXT], 300).to_str())
    change(json_)
    return json.dumps(json_).encode()


def test_what_makes_inputs_of_a_model_is_not_applied() -> None:
    theirs = train("llama3", [TEXT], 300)
    plain = Tokenizer(theirs.to_str().encode())
    theirs.enable_truncation(3)
    theirs.enable_padding(length=12)
    ours = Tokenizer(theirs.to_str().encode())
    assert ours.encode(TEXT).tolist() == plain.encode(TEXT).tolist()


def test_added_tokens_count_on_behind_holes_in_the_vocabulary() -> None:
    def move_last(json_: Json) -> None:
        vocab = json_["model"]["vocab"]
        last = max(vocab, key=vocab.__getitem__)
        vocab[last] += 50
        n = len(vocab)
        for i, token in enumerate(json_["added_tokens"][1:]):
            token["id"] = n + i

    data = changed(move_last, "olmo2")
    theirs = tokenizers.Tokenizer.from_str(data.decode())
    check(Tokenizer(data), theirs, ["a<|left|> b <|right|>word", TEXT])


def pattern_is(json_: Json, pattern: str) -> None:
    json_["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda j: pattern_is(j, r"\p{Lu}+|."),
            r"pre_tokenizer\.pretokenizers\[0\]\.pattern\.Regex .*: unknown; the pattern of GPT-2, cl100k",
        ),
        (lambda j: j["pre_tokenizer"]["pretokenizers"][1].update(use_regex=True), r"\[1\]\.use_regex true"),
        (lambda j: j["model"].update(dropout=0.1), r"model\.dropout 0\.1"),
        (lambda j: j.update(normalizer={"type": "NFKC"}), 'normalizer "NFKC"'),
        (lambda j: j.update(decoder={"type": "Metaspace"}), 'decoder "Metaspace"'),
    ],
)
def test_what_is_not_supported_is_refused_with_its_place(
    change: Callable[[Json], object], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        Tokenizer(changed(change))


def published() -> list[Path]:
    """Files that PILE_TOOLS_TOKENIZERS names."""
    found: list[Path] = []
    for name in filter(None, os.environ.get("PILE_TOOLS_TOKENIZERS", "").split(os.pathsep)):
        path = Path(name)
        found += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    return found


@pytest.mark.skipif(not published(), reason="PILE_TOOLS_TOKENIZERS names no published tokenizers")
@pytest.mark.parametrize("path", published(), ids=str)
def test_published_files_have_the_ids_of_tokenizers(path: Path, shared: Path) -> None:
    ours, theirs = Tokenizer.from_file(path), tokenizers.Tokenizer.from_file(str(path))
    theirs.no_truncation()
    theirs.no_padding()
    check(ours, theirs, [TEXT, *first_texts(shared / "corpus" / "small", 3_000_000)])


def post_processors_of(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """Post-processors that add tokens in every way, for a tokenizer with `<s>` and `</s>`."""
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    start, end = ids

    def template(single: str) -> Any:
        return processors.TemplateProcessing(single=single, pair="$A $B", special_tokens=ids)

    byte_level_post = processors.ByteLevel(trim_offsets=False)
    return {
        "none": None,
        "byte level": byte_level_post,
        "begin": template("<s> $A"),
        "end": template("$A </s>"),
        "both, twice": template("<s> <s> $A:0 </s> <s>"),
        "nothing": template("$A"),
        "llama 3": processors.Sequence([byte_level_post, template("<s> $A")]),
        "nested": processors.Sequence([processors.Sequence([template("$A </s>")]), byte_level_post]),
        "roberta": processors.RobertaProcessing(end, start, add_prefix_space=False),
        "bert": processors.BertProcessing(end, start),
    }


def test_special_tokens_of_post_processors_are_the_references() -> None:
    theirs = train("llama3", [TEXT] * 3, 500)
    theirs.add_special_tokens(["<s>", "</s>"])
    texts = ["", " ", "a", "<s>", "a</s>b", "<s> a </s>", *TEXT.splitlines(), TEXT, TEXT * 20]
    n_added = 0
    for name, post_processor in post_processors_of(theirs).items():
        theirs.post_processor = post_processor
        ours = Tokenizer(theirs.to_str().encode())
        flat, offsets = ours.encode_batch(texts, add_special_tokens=True)
        for number, text in enumerate(texts):
            expected = theirs.encode(text, add_special_tokens=True).ids
            plain = theirs.encode(text, add_special_tokens=False).ids
            assert ours.encode(text, add_special_tokens=True).tolist() == expected, (name, text)
            assert flat[offsets[number] : offsets[number + 1]].tolist() == expected, (name, text)
            assert ours.encode(text).tolist() == plain, (name, text)
            n_added += len(expected) - len(plain)
    assert n_added > 100
