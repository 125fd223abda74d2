"""Building an order: 20 million documents against GPT-NeoX, and the memory for 300 million samples."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benches import datasets, neox, peers
from benches.inputs import file_digest
from benches.markdown import seconds, spread, table
from benches.measure import CACHE, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, differing, slow_down

TITLE = "Building an order"
#: Maximum time relative to GPT-NeoX, and maximum memory relative to the size of the arrays.
LIMIT, MEMORY_LIMIT = 1.0, 1.1
SEQ_LENGTH, SEED = 2048, 1234
N_DOCUMENTS, N_SAMPLES, MEAN_TOKENS = 20_000_000, 300_000_000, 995
PEER = "GPT-NeoX"
ARRAYS = ("doc_idx", "sample_idx", "shuffle_idx")


def prefix_of(n_documents: int) -> Path:
    return CACHE / f"sizes-{n_documents}"


def prepare(n_documents: int) -> Measured:
    """Writes an index of made-up documents, without tokens, if there is none.

    It runs in a separate process, because a process inherits the peak memory of the one that started it.
    """
    prefix = prefix_of(n_documents)
    with Stopwatch() as clock:
        if not datasets.with_suffix(prefix, ".idx").exists():
            lengths = np.random.default_rng(0).exponential(MEAN_TOKENS, n_documents)
            datasets.write_idx(prefix, lengths.astype(np.int64))
    return clock.measured()


def digest(stem: Path) -> str:
    return file_digest(*(Path(f"{stem}_{name}.npy") for name in ARRAYS))


def n_array_bytes(stem: Path) -> int:
    return sum(Path(f"{stem}_{name}.npy").stat().st_size for name in ARRAYS)


def ours(prefix: str, n_samples: int, is_compared: bool) -> Measured:
    """Measures what `pile-tools order` does: the arrays are written, synced and renamed."""
    from pile_tools import _core

    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        stem = Path(folder) / "order"
        with Stopwatch() as clock:
            _core.build_order(Path(prefix), stem, SEQ_LENGTH, SEED, samples=n_samples)
        made = digest(stem) if is_compared else None
        return clock.measured(digest=made, array_mib=n_array_bytes(stem) / 2**20, n_differing=0)


def gpt_neox(prefix: str, n_samples: int, checkout: str) -> Measured:
    """Measures GPT-NeoX, which neither syncs nor renames. Its helper is compiled before."""
    neox.helpers(Path(checkout))
    idx = datasets.with_suffix(Path(prefix), ".idx")
    n_documents = int(np.fromfile(idx, "<u8", 1, offset=18)[0])
    sizes = np.asarray(np.memmap(idx, "<i4", "r", offset=34, shape=(n_documents,)))
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        stem = Path(folder) / "order"
        with Stopwatch() as clock:
            neox.build(Path(checkout), sizes, stem, SEQ_LENGTH, n_samples, SEED)
        return clock.measured(digest=digest(stem), n_differing=0)


def measure(setting: Setting) -> Result:
    scale = 100 if setting.is_quick else 1
    in_process(prepare, 1, n_documents=N_DOCUMENTS // scale)
    prefix = prefix_of(N_DOCUMENTS // scale)
    # Just below one epoch, so that GPT-NeoX builds no second one.
    n_samples = N_DOCUMENTS // scale * (MEAN_TOKENS - 2) // SEQ_LENGTH
    contenders = {
        peers.OURS: partial(in_process, ours, 1, prefix=prefix, n_samples=n_samples, is_compared=True)
    }
    if setting.gpt_neox is not None:
        files = {"prefix": prefix, "checkout": setting.gpt_neox}
        contenders[PEER] = partial(in_process, gpt_neox, 1, n_samples=n_samples, **files)
    rounds = take_turns(contenders, setting.rounds)
    made = [measured["digest"] for of in rounds.values() for measured in of if "digest" in measured]
    for measured in rounds[peers.OURS]:
        measured["n_differing"] = len(set(made)) - 1
    large = in_process(ours, 1, prefix=prefix, n_samples=N_SAMPLES // scale, is_compared=False)
    return {
        "n_documents": N_DOCUMENTS // scale,
        "n_samples": [n_samples, N_SAMPLES // scale],
        "rounds": rounds,
        "large": large,
    }


def section(result: Result) -> str:
    rows = []
    small, large = result["n_samples"]
    measured = {name: (small, rounds) for name, rounds in result["rounds"].items()}
    measured["pile-tools, more samples"] = (large, [result["large"]])
    for name, (n_samples, rounds) in measured.items():
        if why := failure(rounds):
            rows.append([name, f"{n_samples:,}", why])
            continue
        arrays = f"{best(rounds, 'array_mib'):,.0f}" if "array_mib" in rounds[0] else ""
        row = [name, f"{n_samples:,}", seconds(best(rounds, "wall")), seconds(best(rounds, "cpu"))]
        rows.append(
            [
                *row,
                spread(values(rounds, "wall")),
                arrays,
                f"{best(rounds, 'peak_mib'):,.0f}",
                differing(rounds),
            ]
        )
    header = [
        "tool",
        "samples, at least",
        "s",
        "CPU s",
        "spread, s",
        "arrays, MiB",
        "peak MiB",
        "files that differ",
    ]
    peer = """GPT-NeoX's own functions and C++ helper, from a checkout, are called as by its
`_build_index_mappings`; the files of both are equal byte for byte."""
    if PEER not in result["rounds"]:
        peer = "GPT-NeoX was not given (GPT_NEOX=) and is left out."
    return f"""The three arrays of a `packed` order of {result["n_documents"]:,} made-up documents, about
{MEAN_TOKENS} tokens each, in rows of {SEQ_LENGTH + 1:,}, on one processor, from the index to files.
pile-tools syncs its files, the peer does not. Peaks include the interpreter and the pages of the index
that were read. {peer}

{table(header, rows)}"""


def verdicts(result: Result) -> list[Verdict]:
    rounds, large = result["rounds"], result["large"]
    found = large.get("peak_mib", float("inf")) / large.get("array_mib", 1.0)
    memory = Verdict(
        job=f"{TITLE}, {result['n_samples'][1]:,} samples, memory as a part of the arrays",
        target=f"at most {MEMORY_LIMIT:.2f}",
        found=f"{found:.2f}",
        is_met=found <= MEMORY_LIMIT,
    )
    if PEER not in rounds:
        return [memory]
    return [slow_down(f"{TITLE}, time next to {PEER}'s", LIMIT, rounds[peers.OURS], rounds[PEER]), memory]
