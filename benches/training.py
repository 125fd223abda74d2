"""Training a vocabulary: the same text, pretokens and number of merges for each trainer."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benches import inputs, peers
from benches.markdown import rate, seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, speed_up

TITLE = "Training a vocabulary"
CPUS = (1, 2)
VOCAB_SIZE = 50254
SPECIAL_TOKENS = ("<|endoftext|>", "<|padding|>")
N_MERGES = VOCAB_SIZE - 256 - len(SPECIAL_TOKENS)

#: GPT-2's pattern, as it is built into `tokenizers`.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

#: The tokens of several bytes, in the order in which they were learnt.
Learnt = list[bytes]


def of_alphabet(token: str) -> bytes:
    """The bytes of a token spelt in the byte-level alphabet."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    byte_of = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in plain]
    byte_of |= {chr(0x100 + i): byte for i, byte in enumerate(rest)}
    return bytes(byte_of[character] for character in token)


def learnt_of(model: str) -> Learnt:
    """The tokens that the merges of a tokenizer.json produce, in order."""
    merges = json.loads(model)["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [of_alphabet("".join(pair)) for pair in pairs]


def ours(threads: int, shards: list[str], out: str) -> Measured:
    """Measures our trainer, which reads the shards itself: decompression and JSON count."""
    from pile_tools import _core

    paths = [Path(shard) for shard in shards]
    with Stopwatch() as clock:
        trained, _ = _core.train_tokenizer(paths, VOCAB_SIZE, 0, SPECIAL_TOKENS, threads)
    return keep(out, learnt_of(trained), clock)


def theirs(peer: str, threads: int, shards: list[str], out: str) -> Measured:
    """Measures a peer on texts in memory, which are in NFC if it does not normalize."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    texts = inputs.corpus([Path(shard) for shard in shards])
    if peer != peers.REFERENCE:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    train = PEERS[peer]()
    with Stopwatch() as clock:
        trained = train(texts)
    return keep(out, trained(), clock)


def keep(out: str, learnt: Learnt, clock: Stopwatch) -> Measured:
    Path(out).write_text(json.dumps([token.hex() for token in learnt]))
    return clock.measured(n_merges=len(learnt))


#: Trains on texts and returns a function that unpacks the result, whose time does not count.
Train = Callable[[Iterable[str]], Callable[[], Learnt]]


def _tokenizers() -> Train:
    import tokenizers

    def train(texts: Iterable[str]) -> Callable[[], Learnt]:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.normalizer = tokenizers.normalizers.NFC()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return lambda: learnt_of(tokenizer.to_str())

    return train


def _rustbpe() -> Train:
    import rustbpe

    def train(texts: Iterable[str]) -> Callable[[], Learnt]:
        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(iter(texts), 256 + N_MERGES, pattern=PATTERN)
        return lambda: [token for token, _ in in_order(tokenizer.get_mergeable_ranks())]

    return train


def _bpeasy() -> Train:
    import bpeasy

    def train(texts: Iterable[str]) -> Callable[[], Learnt]:
        # The maximum token length has no default. No token is nearly this long.
        vocab = bpeasy.train_bpe(iter(texts), PATTERN, 1 << 20, 256 + N_MERGES)
        return lambda: [token for token, _ in in_order(vocab.items())]

    return train


def in_order(ranks: Iterable[tuple[bytes | list[int], int]]) -> list[tuple[bytes, int]]:
    """The tokens of several bytes and their ranks, by rank."""
    longer = [(bytes(token), rank) for token, rank in ranks if len(token) > 1]
    return sorted(longer, key=lambda entry: entry[1])


PEERS: dict[str, Callable[[], Train]] = {
    peers.REFERENCE: _tokenizers,
    "rustbpe": _rustbpe,
    "bpeasy": _bpeasy,
}


def measure(setting: Setting) -> Result:
    shards = setting.shards[:1] if setting.is_quick else setting.shards
    rounds = {str(cpus): take_turns(_contenders(shards, cpus), setting.rounds) for cpus in CPUS}
    return {
        "n_bytes": inputs.n_bytes(inputs.corpus(shards)),
        "rounds": {cpus: _compared(cpus, contenders) for cpus, contenders in rounds.items()},
    }


def _out(name: str, cpus: int | str) -> Path:
    return CACHE / f"trained-{name}-{cpus}.json"


def _contenders(shards: list[Path], cpus: int) -> dict[str, partial[Measured]]:
    def task(name: str, function: Callable[..., Measured], **arguments: str) -> partial[Measured]:
        out = str(_out(name, cpus))
        return partial(in_process, function, cpus, threads=cpus, shards=shards, out=out, **arguments)

    contenders = {peers.OURS: task(peers.OURS, ours)}
    contenders |= {name: task(name, theirs, peer=name) for name in PEERS if peers.version(name)}
    return contenders


def _compared(cpus: str, contenders: dict[str, list[Measured]]) -> dict[str, list[Measured]]:
    """Adds how many leading merges are those of `tokenizers`, and how many tokens are shared."""
    if peers.REFERENCE not in contenders or failure(contenders[peers.REFERENCE]):
        return contenders
    expected = json.loads(_out(peers.REFERENCE, cpus).read_text())
    for name, rounds in contenders.items():
        if failure(rounds):
            continue
        found = json.loads(_out(name, cpus).read_text())
        pairs = enumerate(zip(found, expected, strict=False))
        n_leading = next((i for i, (a, b) in pairs if a != b), min(len(found), len(expected)))
        for measured in rounds:
            measured["n_leading"] = n_leading
            measured["n_shared"] = len(set(found) & set(expected))
            measured["n_differing"] = len(expected) - n_leading
    return contenders


def section(result: Result) -> str:
    rows = []
    for cpus, contenders in result["rounds"].items():
        for name, rounds in contenders.items():
            if why := failure(rounds):
                rows.append([cpus, name, why])
                continue
            wall, cpu, peak = (best(rounds, key) for key in ("wall", "cpu", "peak_mib"))
            row = [cpus, name, rate(result["n_bytes"], wall), seconds(wall), spread(values(rounds, "wall"))]
            same = [f"{best(rounds, key):,.0f}" for key in ("n_merges", "n_leading", "n_shared")]
            rows.append([*row, seconds(cpu), f"{peak:,.0f}", *same])
    header = ["CPUs", "tool", "MB/s of text", "s", "spread, s", "CPU s", "peak MiB"]
    header += ["merges", "first ones as tokenizers'", "tokens shared"]
    return f"""{N_MERGES:,} merges from {result["n_bytes"] / 1e6:.1f} MB of text, NFC and GPT-2's pretokens
for all, in processes pinned to as many processors as threads. The time of pile-tools includes reading the
compressed shards; the others get a list of texts, whose reading does not count but whose memory does.
Trainers that order equally frequent pairs in another way learn other merges after the first such pair. The
table has the number of leading merges that are those of `tokenizers`, and of tokens that are the same in any
order.

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    return [
        speed_up(f"{TITLE}, {cpus} threads, against {name}", 1.0, contenders, [name])
        for cpus, contenders in result["rounds"].items()
        for name in PEERS
        if name in contenders
    ]
