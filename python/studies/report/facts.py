"""What the report says, read from the files of the artifacts; the mixture is counted in a sample of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pile_tools import PileError, manifest
from pile_tools.errors import FormatError
from pile_tools.jobs import train_tokenizer
from pile_tools.manifest import MANIFEST_FILE, Manifest
from pile_tools.timeline.mixture import shares_of
from studies.checked import flag, items, optional, real, record, text, whole
from studies.memorization.reading import read_canaries, read_summary
from studies.memorization.tables import CanaryFile, Summary
from studies.report import pictures
from studies.runs import Run, open_run
from trainer.log import LOG_FILE, LogLine, read_log

SUMMARY_FILE, CANARIES_FILE = "memorization.json", "canaries.json"

_LOG_LINE = record(
    {"step": whole(), "tokens": whole(), "loss": real(), "lr": real(0), "grad_norm": real(0)},
    {"time": text, "tokens_per_second": real(0)},
)
_SUBSET = record(
    {"name": optional(text), "n_documents": whole(), "n_tokens": whole()}, {"n_text_bytes": whole()}
)
_TOKENS = record(
    {
        "n_documents": whole(),
        "n_tokens": whole(),
        "subsets": items(_SUBSET),
        "shards": items(lambda v, n: None),
    }
)
_TOKENS_SETTINGS = record({}, {"eod": optional(text)})
_ORDER = record({"rule": text})
_MADE_BY = record({"pile_tools": text})

#: Equal parts of the run whose subsets are counted, and the rows sampled from each.
N_STAGES, ROWS_PER_STAGE = 40, 64


@dataclass(frozen=True)
class Composition:
    """Of which subsets the tokens are, stage after stage of the run.

    Attributes:
        names: The subsets, most tokens first.
        edges: Steps between the stages: (n_stages + 1,) int64.
        shares: Of the tokens of each stage: (n_stages, n_names), rows add up to 1.
    """

    names: list[str]
    edges: NDArray[np.int64]
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What is known about a run.

    Attributes:
        run: The run.
        log: A line for each step that changed the weights, see `trainer.log`.
        tokens: The dataset's manifest, or None where another tool made it.
        tokenizer: The manifest beside its tokenizer, where there is one.
        shards: Manifests of the folders that the shards lie in, where there are any.
        study: The manifest of the memorization study.
        memorization: Its summary.
        canaries: Its canaries, or None where it had none.
        composition: The subsets over training, or None where they are not known.
        pictures: The manifest of `vqgan-clip demo`, or None where none is shown.
    """

    run: Run
    log: list[LogLine]
    tokens: Manifest | None
    tokenizer: Manifest | None
    shards: list[Manifest]
    study: Manifest
    memorization: Summary
    canaries: CanaryFile | None
    composition: Composition | None
    pictures: Manifest | None = None


def collect(run_folder: Path, study_folder: Path, pictures_folder: Path | None = None) -> Facts:
    """Reads all files of a run and of its memorization study, and the manifest of pictures to show.

    Raises:
        PileError: No run or no study, the study of another run, or an empty log.
        OSError: A file cannot be read.
    """
    run = open_run(run_folder)
    study = _open_study(study_folder, run)
    _check_listed(run.manifest, run.folder / LOG_FILE)
    for name in (SUMMARY_FILE, CANARIES_FILE):
        _check_listed(study, study_folder / name)
    log = _read_log(run)
    tokens = run.order.dataset_manifest
    if tokens is not None:
        _TOKENS(tokens.summary, f"{tokens.path}, summary")
        _TOKENS_SETTINGS(tokens.settings, f"{tokens.path}, settings")
        if not any(subset["n_tokens"] for subset in tokens.summary["subsets"]):
            raise FormatError(f"no subset has tokens, which the run read ({tokens.path})")
    _ORDER(run.order.record.settings, f"{run.order.path}, settings")
    _MADE_BY(run.manifest.made_by, f"{run.manifest.path}, made_by")
    memorization = read_summary(study_folder / SUMMARY_FILE, run.steps)
    canaries_file = study_folder / CANARIES_FILE
    return Facts(
        run=run,
        log=log,
        tokens=tokens,
        tokenizer=_tokenizer_manifest(tokens),
        shards=_shards_manifests(tokens),
        study=study,
        memorization=memorization,
        canaries=read_canaries(canaries_file, memorization) if canaries_file.exists() else None,
        composition=_composition(run),
        pictures=None if pictures_folder is None else pictures.open_pictures(pictures_folder),
    )


def _check_listed(found: Manifest, path: Path) -> None:
    """Raises FormatError for a file that is not as its manifest lists it: a report records the manifest."""
    listed = [entry for entry in found.outputs if entry["path"] == path.name]
    if not all(manifest.matches(path, entry) for entry in listed) or (path.exists() and not listed):
        raise FormatError(f"is not the file that {found.path} lists; it was changed since ({path})")


def _read_log(run: Run) -> list[LogLine]:
    """The lines of the log, without those of skipped steps.

    Raises FormatError unless each step of the run has a line, in order, and at least one was not skipped.
    """
    path = run.folder / LOG_FILE
    try:
        log = read_log(path)
    except (UnicodeDecodeError, RecursionError) as err:
        raise FormatError(f"not JSON lines: {err} ({path})") from err
    first_step = run.first_step
    for number, line in enumerate(log, 1):
        if "skipped" not in line:
            _LOG_LINE(line, f"{path}, line {number}")
        if line["step"] != first_step + number - 1:
            expected = first_step + number - 1
            raise FormatError(f"step {line['step']}, expected {expected} ({path}, line {number})")
    if len(log) != run.steps - first_step:
        raise FormatError(f"{len(log)} steps logged, the run has {run.steps - first_step} ({path})")
    if all("skipped" in line for line in log):
        raise FormatError(f"all steps were skipped ({path})")
    return [line for line in log if "skipped" not in line]


def _open_study(folder: Path, run: Run) -> Manifest:
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise PileError(
            f"no finished study of pile-study memorization: {MANIFEST_FILE} is missing ({folder})"
        )
    study = manifest.read(path)
    if study.settings.get("study") != "memorization":
        raise FormatError(f"not a study of memorization ({path})")
    record({"ban_eod": flag})(study.settings, f"{path}, settings")
    entry = study.input("run")
    if entry is None or entry.get("sha256") != run.manifest.sha256:
        raise PileError(f"the study is of another run than {run.folder} ({path})")
    return study


def _tokenizer_manifest(tokens: Manifest | None) -> Manifest | None:
    """The manifest beside the tokenizer that a dataset was made with, or None."""
    entry = tokens.input("tokenizer") if tokens is not None else None
    if tokens is None or entry is None:
        return None
    path = train_tokenizer.manifest_path(manifest.input_path(tokens, entry))
    return manifest.read(path) if path.exists() else None


def _shards_manifests(tokens: Manifest | None) -> list[Manifest]:
    """The manifests beside the shards that a dataset was made from, each once."""
    if tokens is None:
        return []
    folders = {
        manifest.input_path(tokens, entry).parent for entry in tokens.inputs if entry["role"] == "shard"
    }
    paths = [folder / MANIFEST_FILE for folder in sorted(folders)]
    return [manifest.read(path) for path in paths if path.exists()]


def _composition(run: Run) -> Composition | None:
    """The subsets of the tokens in evenly spaced rows of each stage of the run."""
    names = run.order.dataset.subsets
    if not names:
        return None
    edges = np.unique(np.linspace(0, run.steps, N_STAGES + 1).astype(np.int64))
    counts = np.array(
        [_count_tokens(run, first, end) for first, end in _rows_of(run, edges)], dtype=np.float64
    )
    by_size = np.argsort(-counts.sum(axis=0), kind="stable")
    by_size = by_size[counts.sum(axis=0)[by_size] > 0]
    labels = [*names, "not known"]
    shares = shares_of(counts)[:, by_size]
    return Composition([labels[i] for i in by_size], edges, shares)


def _rows_of(run: Run, edges: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First row and end of each stage."""
    for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield first * run.batch_size, end * run.batch_size


def _count_tokens(run: Run, first: int, end: int) -> NDArray[np.float64]:
    """Tokens of each subset, unknown ones last, in some rows of [first, end): (n_subsets + 1,)."""
    dataset = run.order.dataset
    rows = np.unique(np.linspace(first, end - 1, ROWS_PER_STAGE).astype(np.int64))
    spans = np.concatenate([run.order.samples.spans(int(row), 1) for row in rows])
    numbers = dataset.subset_numbers(np.ascontiguousarray(spans[:, 1]))
    n_subsets = len(dataset.subsets)
    numbers = np.where(numbers < 0, n_subsets, numbers)
    counts = np.zeros(n_subsets + 1)
    np.add.at(counts, numbers, spans[:, 3])
    return counts
