"""Finds the items of a benchmark in shards, in a token dataset, or in the documents of an order.

`OUT/` gets `contamination.parquet` with a row for each document that has a part of an item, `items.parquet`
with the verdict on each item, `clean.json` with the indices of the clean items, and `manifest.json`, written
last. For an order each row and each item also has the steps at which the model saw it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, contamination, files, manifest, publish, scratch_folders, timeline
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.config import Settings, checked_threshold
from pile_tools.contamination import KINDS, PASSAGE, QUESTION, TOO_COMMON, TOO_SHORT, Benchmark
from pile_tools.errors import ConfigError
from pile_tools.harness.task import LoadedTask
from pile_tools.jobs import rewriting
from pile_tools.jobs.rewriting import CLEAN_FILE, ITEMS_FILE, MATCHES_FILE
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest, Request
from pile_tools.order.order import Order
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, checked_entries, entries, has_stream, refuse_output_within
from pile_tools.read.shards import summary as shards_summary
from pile_tools.timeline.checkpoints import Intervals
from pile_tools.timeline.steps import core_order
from pile_tools.tokenizers import TokenizerFile
from pile_tools.tokens import datasets
from pile_tools.types import ContaminationSearch, ContaminationSummary, ItemMatches, OnProgress, PartTotals

#: The files of an output, in the order of its manifest.
_ROLES = {MATCHES_FILE: "matches", ITEMS_FILE: "items", CLEAN_FILE: "clean items"}

#: Steps of a match or an item that are listed, the first ones.
MAX_STEPS = 100

#: Items in the summary, and the characters of their text there.
_N_WORST, _N_CHARACTERS = 20, 1000

#: Range of the words of an n-gram, and maximum of the words between two.
_MIN_NGRAM, _MAX_NGRAM, _MAX_GAP = 4, 64, 64

#: What the core returns.
_Found: TypeAlias = tuple[ItemMatches, PartTotals, ContaminationSummary]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContaminationConfig:
    """Which matches are reported."""

    ngram: int = field(
        default=8,
        metadata={"help": "Words of an n-gram; a part of fewer words, but at least 4, is one n-gram."},
    )
    threshold: str = field(
        default="0.8",
        metadata={
            "help": "Least share of a part's n-grams, weighted by rarity, in one region of a document.",
            "metavar": "SHARE",
        },
    )
    max_gap: int = field(
        default=16, metadata={"help": "Maximum words between two n-grams of a region.", "metavar": "WORDS"}
    )
    name: str | None = field(
        default=None,
        metadata={
            "help": "Name of ITEMS in clean.json.  [default: the file's, without suffix]",
            "metavar": "NAME",
        },
    )
    purify: str | None = field(
        default=None,
        metadata={
            "help": "Also write the shards: without contaminated documents, or with the passages cut.",
            "metavar": "documents|passages",
        },
    )
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if self.purify not in (None, "documents", "passages"):
            raise ConfigError(f"purify must be documents or passages, got {self.purify}")
        if not _MIN_NGRAM <= self.ngram <= _MAX_NGRAM:
            raise ConfigError(f"ngram must be from {_MIN_NGRAM} to {_MAX_NGRAM} words, got {self.ngram}")
        object.__setattr__(self, "threshold", checked_threshold(self.threshold))
        if not 0 <= self.max_gap <= _MAX_GAP:
            raise ConfigError(f"max-gap must be from 0 to {_MAX_GAP} words, got {self.max_gap}")

    def settings(self, task: str) -> Settings:
        """The settings as manifests record them."""
        found = {"task": task, "ngram": self.ngram, "threshold": self.threshold, "max_gap": self.max_gap}
        return found if self.purify is None else found | {"purify": self.purify}


@dataclass(frozen=True)
class Run:
    """How a job runs: what does not change its output.

    Attributes:
        threads: Threads.
        force: Replace an output made from other inputs or settings.
        on_progress: Called with the bytes or tokens read.
    """

    threads: int
    force: bool = False
    on_progress: OnProgress = None


@dataclass(frozen=True)
class _Seen:
    """When an order shows each match.

    Attributes:
        steps: The steps, ascending.
        whole: The first step after which all of the match has been seen, None if that never is.
        checkpoints: The checkpoints of the run.
    """

    steps: list[NDArray[np.int64]]
    whole: list[int | None]
    checkpoints: Intervals


@dataclass(frozen=True)
class _Job:
    """A job of any corpus.

    Attributes:
        output: The folder.
        benchmark: The items.
        config: The settings.
        about: What the summary says of a task of a harness, by the key `harness`; empty for a file.
        request: The request of the output.
        run: How the job runs.
    """

    output: Path
    benchmark: Benchmark
    config: ContaminationConfig
    about: Settings
    request: Request
    run: Run

    def search(self, folder: Path) -> ContaminationSearch:
        return ContaminationSearch(
            threshold=float(self.config.threshold),
            max_gap=self.config.max_gap,
            threads=self.run.threads,
            folder=scratch_folders.inner(folder, "matches"),
            job=self.request.job,
            discard=self.run.force,
            lists_bytes=self.config.purify is not None,
        )

    def items(self) -> _core.BenchmarkItems:
        parts = [(part.item, part.role, part.text) for part in self.benchmark.parts]
        return _core.BenchmarkItems(len(self.benchmark.items), parts, self.config.ngram)

    def make(
        self, build: Callable[[Path], Built], *, names: Sequence[str] = (), is_stream: bool = False
    ) -> tuple[Manifest, bool]:
        return publish.make(
            Target.of(self.output / MANIFEST_FILE),
            self.request,
            build,
            force=self.run.force,
            names=[*_ROLES, *names],
            resumes=None if is_stream else ["matches", rewriting.NEW_SHARDS],
            is_stream=is_stream,
            or_else=", another folder keeps both",
        )


def _job(
    items: Path | LoadedTask,
    output: Path,
    config: ContaminationConfig,
    run: Run,
    inputs: list[Entry],
    **settings: Any,
) -> _Job:
    import pyarrow  # noqa: F401  # which is missed before hours of work

    if isinstance(items, LoadedTask):
        if config.name is not None:
            raise ConfigError("name is for a file of items; a task of the harness has a name")
        own = config.settings(items.name) | {"task_items": items.sha256}
        request = Request("contamination", own | settings, inputs)
        return _Job(output, items.benchmark, config, {"harness": items.about}, request, run)
    benchmark, entry = manifest.read_input(contamination.read_items, items, output, role="items")
    task = contamination.task_name(items, config.name)
    request = Request("contamination", config.settings(task) | settings, [entry, *inputs])
    return _Job(output, benchmark, config, {}, request, run)


def find_in_shards(
    items: Path | LoadedTask, shards: Sequence[Path], output: Path, config: ContaminationConfig, run: Run
) -> tuple[Manifest, bool]:
    """Finds the items of a file or of a task in the documents of shards.

    Args:
        items: A file of items, see `contamination.read_items`, or a task that `harness.task.load` loaded.
        shards: The shards, in order. Each is read once.
        output: The folder of the output.
        config: Which matches are reported.
        run: Threads and progress, in compressed bytes.

    Returns:
        The output's manifest, and whether it was made now (True) or was already complete (False).

    Raises:
        OutputExistsError: The output exists, was made from other inputs or settings, and `force` is off.
        FormatError: A line of the items or a shard is damaged; the message names it.
        OSError: A file cannot be read or written.
    """
    refuse_output_within(shards, output)
    if config.purify is not None and has_stream(shards):
        raise ConfigError("shards that are purified are read twice: not from standard input or a pipe")
    job = _job(items, output, config, run, entries(shards, output), **config.records.settings)
    names = rewriting.output_names(shards) if config.purify is not None else []

    def build(folder: Path) -> Built:
        found = _core.shards_contamination(
            job.items(),
            shards,
            job.search(folder),
            run.on_progress,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        read = found[2]["shards"]
        paths = rewriting.table_names(shards, output)
        n_bad = sum(shard["bad_records"]["n"] for shard in read)
        summary = _write(folder, job, found, paths) | {"n_bad_records": n_bad}
        sha256: dict[str, str] = {}
        if config.purify is not None:
            sha256, purified = _purify(folder, job, shards, found)
            summary |= purified
        checked_inputs = checked_entries(job.request.inputs, read)
        roles = dict.fromkeys(sha256, "shard") | _ROLES
        return Built(list(roles), summary | shards_summary(shards, output), checked_inputs, roles, sha256)

    return job.make(build, names=names, is_stream=has_stream(shards))


def _purify(
    folder: Path, job: _Job, shards: Sequence[Path], found: _Found
) -> tuple[dict[str, str], Settings]:
    """Writes the shards again; returns the checksum of each that is not empty, and what the summary says."""
    in_shard, record, start, end = found[0]["contaminated"]
    documents = np.unique(np.column_stack([in_shard.astype(np.uint64), record]), axis=0)
    changes: dict[str, Any] = {"cuts": (in_shard, record, start, end)}
    if job.config.purify == "documents":
        changes = {"removed": (documents[:, 0].astype(np.uint32), documents[:, 1].copy())}
    records, report = job.config.records, job.run.on_progress
    n_read = sum(shard["bytes"] for shard in found[2]["shards"])
    sha256 = rewriting.write_shards(
        shards,
        folder,
        job.request,
        [shard["sha256"] for shard in found[2]["shards"]],
        records,
        threads=job.run.threads,
        force=job.run.force,
        on_progress=None if report is None else lambda n: report(n_read + n),
        **changes,
    )
    # The core's offsets are 64-bit unsigned.
    n_bytes = int((end - start).sum()) if job.config.purify == "passages" else None
    return sha256, {"n_purified": len(documents), "n_cut_bytes": n_bytes}


def find_in_dataset(
    items: Path | LoadedTask,
    prefix: Path,
    output: Path,
    config: ContaminationConfig,
    run: Run,
    *,
    tokenizer: TokenizerFile,
) -> tuple[Manifest, bool]:
    """Finds the items in the decoded documents of a token dataset; otherwise as `find_in_shards`."""
    dataset = TokenDataset(prefix)
    inputs = [tokenizer.entry(output), datasets.entry(dataset, output)]
    job = _job(items, output, config, run, inputs)
    loaded = tokenizer.load()
    eod = datasets.eod_of(dataset, loaded)

    def build(folder: Path) -> Built:
        search = job.search(folder)
        found = _core.documents_contamination(job.items(), dataset, loaded, eod, search, run.on_progress)
        summary = _write(folder, job, found, None) | {"n_tokens": dataset.n_tokens}
        return Built(list(_ROLES), summary, job.request.inputs, _ROLES)

    return job.make(build)


def find_in_order(
    items: Path | LoadedTask,
    order: Order,
    output: Path,
    config: ContaminationConfig,
    run: Run,
    checkpoints: Intervals,
    *,
    tokenizer: TokenizerFile,
    batch_size: int | None = None,
) -> tuple[Manifest, bool]:
    """Finds the items in the documents of an order, with the steps at which the model saw them.

    Texts that an intervention inserted are documents too. `batch_size` is the samples of a step, by default
    the order's own. Otherwise as `find_in_dataset`.
    """
    _, size = timeline.extent(order, batch_size)
    samples = core_order(order)
    inputs = [tokenizer.entry(output), *order.entries(output)]
    more = {"checkpoints": list(checkpoints.checkpoints), "batch_size": size}
    job = _job(items, output, config, run, inputs, **more)
    loaded = tokenizer.load()
    eod = datasets.eod_of(order.dataset, loaded)

    def build(folder: Path) -> Built:
        search = job.search(folder)
        found = _core.documents_contamination(job.items(), samples, loaded, eod, search, run.on_progress)
        seen = _Seen(*_steps(order, found[0], loaded, batch_size), checkpoints)
        summary = _write(folder, job, found, None, seen)
        return Built(list(_ROLES), summary, job.request.inputs, _ROLES)

    return job.make(build)


def _steps(
    order: Order, matches: ItemMatches, tokenizer: Tokenizer, batch_size: int | None
) -> tuple[list[NDArray[np.int64]], list[int | None]]:
    """By match, the steps at which it is seen, ascending, and the first after which it has been seen whole.

    A text that is cut by the end of a row has been seen whole once all of its parts have.
    """
    occurrences = matches["occurrences"]
    of_match = occurrences[:, 0]
    documents = matches["document"][of_match].astype(np.int64)
    ranges = np.column_stack([documents, occurrences[:, 1:]])
    sightings = timeline.when_bytes(order, ranges, tokenizer=tokenizer, batch_size=batch_size)
    pairs = np.unique(np.column_stack([of_match[sightings["text"]], sightings["step"]]), axis=0)
    n_matches = len(matches["part"])
    ends = np.searchsorted(pairs[:, 0], np.arange(n_matches), side="right")
    # By sighting, the step of its last part, and the match. The parts of a sighting have one number.
    firsts = sightings[sightings["part"] == 0]
    last_steps = np.full(len(firsts), -1, dtype=np.int64)
    np.maximum.at(last_steps, sightings["occurrence"], sightings["step"])
    never = np.iinfo(np.int64).max
    whole = np.full(n_matches, never, dtype=np.int64)
    np.minimum.at(whole, of_match[firsts["text"]], last_steps)
    return np.split(pairs[:, 1], ends)[:-1], [None if step == never else step for step in whole.tolist()]


def _write(
    folder: Path, job: _Job, found: _Found, shards: Sequence[str] | None, seen: _Seen | None = None
) -> Settings:
    """Writes the output's files; returns the summary."""
    matches, totals, summary = found
    verdicts = contamination.verdicts(job.benchmark, totals)
    best = _best_matches(job.benchmark, matches)
    clean = contamination.clean_items(job.benchmark, verdicts)
    _write_matches(folder / MATCHES_FILE, job.benchmark, matches, shards, seen)
    _write_items(folder / ITEMS_FILE, job.benchmark, verdicts, best, found, seen)
    task = job.request.settings["task"]
    (folder / CLEAN_FILE).write_text(json.dumps({task: clean}, ensure_ascii=False) + "\n", encoding="utf-8")
    kinds = [KINDS[int(matches["kind"][best[item]])] for item in best]
    answers = [float(matches["answer_score"][match]) for match in best.values()]
    counts = {
        "n_items": len(verdicts),
        **{f"n_{kind}": kinds.count(kind) for kind in KINDS},
        "n_with_answer": sum(score >= float(job.config.threshold) for score in answers),
        "n_too_common": verdicts.count(TOO_COMMON),
        "n_too_short": verdicts.count(TOO_SHORT),
        "n_clean": len(clean),
        "n_matches": len(matches["part"]),
    }
    if seen is not None:
        counts["n_seen_items"] = sum(len(steps) > 0 for steps in _steps_of_items(job.benchmark, found, seen))
    searched = {name: value for name, value in summary.items() if name != "shards"}
    return searched | counts | job.about | {"worst": _worst(job.benchmark, found, best, shards, seen)}


def _best_matches(benchmark: Benchmark, matches: ItemMatches) -> dict[int, int]:
    """The surest match of the passage or question of each contaminated item, by item."""
    # A common question has a thousand matches, so no Python is run for each.
    roles = np.array([part.role for part in benchmark.parts])[matches["part"].astype(np.int64)]
    of_items = np.flatnonzero((roles == PASSAGE) | (roles == QUESTION))
    items = _items_of(benchmark, matches)[of_items]
    answers = np.nan_to_num(matches["answer_score"][of_items])
    order = np.lexsort((of_items, -answers, -matches["score"][of_items], matches["kind"][of_items], items))
    contaminated, first = np.unique(items[order], return_index=True)
    return dict(zip(contaminated.tolist(), of_items[order][first].tolist(), strict=True))


def _items_of(benchmark: Benchmark, matches: ItemMatches) -> NDArray[np.int64]:
    """The item of each match."""
    items = np.array([part.item for part in benchmark.parts], dtype=np.int64)
    return items[matches["part"].astype(np.int64)]


def _write_matches(
    path: Path, benchmark: Benchmark, matches: ItemMatches, shards: Sequence[str] | None, seen: _Seen | None
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = _items_of(benchmark, matches)
    ids = pa.array([item.id for item in benchmark.items], pa.string())
    names = pa.array([part.name for part in benchmark.parts], pa.string())
    columns: dict[str, pa.Array] = {
        "item": pa.array(items),
        "id": ids.take(pa.array(items)),
        "part": names.take(pa.array(matches["part"].astype(np.int64))),
    }
    document = pa.array(matches["document"].astype(np.int64))
    if shards is None:
        columns["document"] = document
    else:
        numbers = pa.array(matches["shard"].astype(np.int32))
        columns["shard"] = pa.DictionaryArray.from_arrays(numbers, pa.array(shards, pa.string()))
        columns["record"] = document
    answers = matches["answer_score"]
    columns |= {
        "kind": pa.DictionaryArray.from_arrays(matches["kind"].astype(np.int32), pa.array(KINDS)),
        "score": pa.array(matches["score"]),
        "answer_score": pa.array(answers, mask=np.isnan(answers)),
        "n_choices": pa.array(matches["n_choices"].astype(np.int64)),
        "n_occurrences": pa.array(np.bincount(matches["occurrences"][:, 0], minlength=len(items))),
        "byte_start": pa.array(matches["byte_start"].astype(np.int64)),
        "byte_end": pa.array(matches["byte_end"].astype(np.int64)),
        "text": pa.array(matches["text"], pa.string()),
    }
    if seen is not None:
        columns |= _step_columns(seen.steps, seen.whole, seen.checkpoints)
    with files.new_file(path) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")


def _step_columns(
    steps: Sequence[NDArray[np.int64]], whole: Sequence[int | None], checkpoints: Intervals
) -> dict[str, Any]:
    """The columns of an order, by steps and by the first after which all was seen: nulls for none."""
    import pyarrow as pa

    after = [None if step is None else checkpoints.around(step)[1] for step in whole]
    return {
        "n_steps": pa.array([len(of_one) for of_one in steps], pa.int64()),
        "first_step": pa.array([_first(of_one) for of_one in steps], pa.int64()),
        "last_step": pa.array([_last(of_one) for of_one in steps], pa.int64()),
        "steps": pa.array([of_one[:MAX_STEPS].tolist() for of_one in steps], pa.list_(pa.int64())),
        "first_checkpoint": pa.array(after, pa.int64()),
    }


def _first(steps: NDArray[np.int64]) -> int | None:
    return int(steps[0]) if len(steps) else None


def _last(steps: NDArray[np.int64]) -> int | None:
    return int(steps[-1]) if len(steps) else None


def _steps_of_items(benchmark: Benchmark, found: _Found, seen: _Seen) -> list[NDArray[np.int64]]:
    """The steps at which the passage or question of each item is seen, ascending."""
    none = np.zeros(0, dtype=np.int64)
    of_items = [[none] for _ in benchmark.items]
    for part, steps in zip(found[0]["part"].tolist(), seen.steps, strict=True):
        if benchmark.parts[part].role in (PASSAGE, QUESTION):
            of_items[benchmark.parts[part].item].append(steps)
    return [np.unique(np.concatenate(steps)) for steps in of_items]


def _whole_of_items(benchmark: Benchmark, found: _Found, seen: _Seen) -> list[int | None]:
    """By item, the first step after which its passage or question has been seen whole."""
    of_items: list[int | None] = [None] * len(benchmark.items)
    for part, step in zip(found[0]["part"].tolist(), seen.whole, strict=True):
        item = benchmark.parts[part].item
        if step is not None and benchmark.parts[part].role in (PASSAGE, QUESTION):
            of_items[item] = step if of_items[item] is None else min(step, of_items[item])
    return of_items


def _write_items(
    path: Path,
    benchmark: Benchmark,
    verdicts: Sequence[str],
    best: dict[int, int],
    found: _Found,
    seen: _Seen | None,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    matches, totals, _ = found
    chosen = [best.get(item) for item in range(len(verdicts))]

    def of_best(name: str) -> list[Any]:
        values = matches[name]  # type: ignore[literal-required]
        return [None if match is None else values[match].item() for match in chosen]

    kinds = [None if kind is None else KINDS[kind] for kind in of_best("kind")]
    answers = [None if score is None or np.isnan(score) else score for score in of_best("answer_score")]
    columns = {
        "item": pa.array(range(len(verdicts)), pa.int64()),
        "line": pa.array([item.line for item in benchmark.items], pa.int64()),
        "id": pa.array([item.id for item in benchmark.items], pa.string()),
        "verdict": pa.array(verdicts, pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "score": pa.array(of_best("score"), pa.float64()),
        "answer_score": pa.array(answers, pa.float64()),
        "n_documents": pa.array(_n_documents(benchmark, totals), pa.int64()),
    }
    if seen is not None:
        whole = _whole_of_items(benchmark, found, seen)
        columns |= _step_columns(_steps_of_items(benchmark, found, seen), whole, seen.checkpoints)
    with files.new_file(path) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")


def _n_documents(benchmark: Benchmark, totals: PartTotals) -> list[int]:
    """By item, the documents with its passage or with its question, whichever are more."""
    most = [0] * len(benchmark.items)
    for part, n in zip(benchmark.parts, totals["n_documents"].tolist(), strict=True):
        if part.role in (PASSAGE, QUESTION):
            most[part.item] = max(most[part.item], n)
    return most


def _worst(
    benchmark: Benchmark,
    found: _Found,
    best: dict[int, int],
    shards: Sequence[str] | None,
    seen: _Seen | None,
) -> list[Settings]:
    """The contaminated items whose matches are surest, and of these the ones in most documents."""
    matches, totals, _ = found
    n_documents = _n_documents(benchmark, totals)

    def rank(item: int) -> tuple[Any, ...]:
        match = best[item]
        return (int(matches["kind"][match]), -float(matches["score"][match]), -n_documents[item], item)

    worst = []
    steps = None if seen is None else _steps_of_items(benchmark, found, seen)
    for item in sorted(best, key=rank)[:_N_WORST]:
        match = best[item]
        part = benchmark.parts[int(matches["part"][match])]
        document, answer = int(matches["document"][match]), float(matches["answer_score"][match])
        one: Settings = {
            "item": item,
            "id": benchmark.items[item].id,
            "part": part.name,
            "kind": KINDS[int(matches["kind"][match])],
            "score": round(float(matches["score"][match]), 4),
            "answer_score": None if np.isnan(answer) else round(answer, 4),
            "n_documents": n_documents[item],
            "document": str(document)
            if shards is None
            else f"{shards[int(matches['shard'][match])]}:{document}",
            "item_text": part.text[:_N_CHARACTERS],
            "text": matches["text"][match],
        }
        if steps is not None:
            one |= {"first_step": _first(steps[item]), "last_step": _last(steps[item])}
        worst.append(one)
    return worst
